//! What `replay` and `decode` give: events as they come, a table, and a picture.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use kinewatch_core::manifest::Decoding;

use super::{Failure, Outcome, OutputArgs, print};
use crate::intervals::{self, Collector, Truth};
use crate::picture::{self, Video};
use crate::replay::Replayed;
use crate::scores::probability;
use crate::table;
use crate::timeline::{self, Curve};

pub(super) struct Outputs<'a> {
    events: Option<(PathBuf, Box<dyn Write>)>,
    to_stdout: bool,
    timeline: Option<&'a Path>,
    truth: Option<Truth>,
    collector: Collector,
    videos: Vec<Video>,
    dropped: u64,
}

/// Read first: what is wrong with the annotations is told before the work.
pub(super) fn read_truth(args: &OutputArgs) -> Result<Option<Truth>, Failure> {
    let read = |path| intervals::read_truth(path, None);
    args.truth.as_deref().map(read).transpose().map_err(Failure::say)
}

impl<'a> Outputs<'a> {
    /// Made once all is known to work: a file of events that is there already is written over.
    pub(super) fn new(args: &'a OutputArgs, truth: Option<Truth>) -> Result<Self, Failure> {
        Ok(Self {
            events: args.events.as_deref().map(open_events).transpose()?,
            to_stdout: args.events.as_deref() == Some(Path::new("-")),
            timeline: args.timeline.as_deref(),
            truth,
            collector: Collector::default(),
            videos: Vec::new(),
            dropped: 0,
        })
    }

    pub(super) fn take(&mut self, replayed: &Replayed, decoding: &Decoding) -> Outcome {
        for event in &replayed.events {
            let json = event.to_json();
            if let Some((path, out)) = &mut self.events {
                out.write_all(&json).and_then(|()| out.write_all(b"\n")).map_err(|e| told(path, &e))?;
            }
            self.collector.line(&String::from_utf8_lossy(&json))?;
        }
        let curves = if self.timeline.is_some() { curves(replayed, decoding) } else { Vec::new() };
        self.videos.push(Video { camera: replayed.camera.clone(), duration_s: replayed.duration.seconds(), curves });
        self.dropped += replayed.windows_dropped;
        Ok(())
    }

    pub(super) fn finish(mut self, decoding: &Decoding) -> Outcome {
        if let Some((path, out)) = &mut self.events {
            out.flush().map_err(|e| told(path, &e))?;
        }
        if self.dropped > 0 {
            eprintln!(
                "kinewatch: {} windows left out: the videos have holes wider than the model allows",
                self.dropped
            );
        }
        let labels: Vec<String> = decoding.published().map(str::to_owned).collect();
        let detections = self.collector.finish();
        // Only what was replayed is judged, and only what the model reports.
        let truth = self.truth.map(|all| all.only(|camera| self.videos.iter().any(|v| v.camera == camera)));
        let pairs = truth.as_ref().map(|t| intervals::pair(&detections, t, Some(&labels))).unwrap_or_default();
        if !self.to_stdout {
            print(&if truth.is_some() { table::judged(&pairs) } else { table::detected(&detections) })?;
        }
        let Some(path) = self.timeline else { return Ok(()) };
        let panels = picture::panels(self.videos, &detections, truth.as_ref(), Some(&labels), &pairs);
        let left_out = timeline::draw(&panels, path).map_err(Failure::say)?;
        if left_out > 0 {
            eprintln!("kinewatch: {}: {left_out} more videos are not in the picture", path.display());
        }
        Ok(())
    }
}

fn open_events(path: &Path) -> Result<(PathBuf, Box<dyn Write>), Failure> {
    let out: Box<dyn Write> = if path == Path::new("-") {
        Box::new(BufWriter::new(io::stdout().lock()))
    } else {
        Box::new(BufWriter::new(File::create(path).map_err(|e| told(path, &e))?))
    };
    Ok((path.to_owned(), out))
}

fn told(path: &Path, error: &io::Error) -> Failure {
    Failure::say(format!("{}: {error}; name a file in a directory that can be written", path.display()))
}

fn curves(replayed: &Replayed, decoding: &Decoding) -> Vec<Curve> {
    let threshold = |label: &str| {
        let decoder = decoding.labels.iter().find(|l| l.name == label).and_then(|l| l.decoder.as_ref());
        decoder.map(|d| d.on)
    };
    let curve = |(i, label): (usize, &String)| Curve {
        label: label.clone(),
        points: replayed.scores.iter().map(|(at, row)| (at.seconds(), probability(row[i]))).collect(),
        on: threshold(label),
    };
    replayed.score_labels.iter().enumerate().map(curve).collect()
}
