//! `kinewatch replay`: a model over videos, with the daemon's code, as fast as the machine allows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use kinewatch_core::manifest::{Manifest, Overrides};

use super::{Failure, Outcome, ReplayArgs, print};
use crate::config::plan::EnginePlan;
use crate::intervals::{self, Collector};
use crate::picture::{self, Video};
use crate::progress::{self, Progress};
use crate::replay::{Replayed, Replayer};
use crate::scores::{self, ScoresFile, Videos, probability};
use crate::timeline::{self, Curve};
use crate::{inference, models, table};

pub(super) fn run(args: ReplayArgs) -> Outcome {
    check_stems(&args.videos)?;
    let truth = args.truth.as_deref().map(intervals::read_truth).transpose().map_err(Failure::say)?;
    kinewatch_capture::init()?;
    let options = inference::open_options(&EnginePlan::from(&args.engine), None)?;
    let opened =
        progress::spin("opening the model", || models::open("replay", &args.model, Overrides::default(), &options))?;
    let manifest = std::sync::Arc::clone(&opened.loaded.manifest);
    check_zones(args.zones.len(), &manifest)?;
    let mut replayer = Replayer::new(opened.loaded, opened.reference, args.zones.clone())?;
    let mut outputs = Outputs::new(&args)?;
    let mut failed = 0;
    for (n, path) in args.videos.iter().enumerate() {
        let mut progress = Progress::spinner("");
        let place = format!("{} ({} of {})", path.display(), n + 1, args.videos.len());
        match replayer.run(path, |at| progress.message(&format!("{place} · {:.0} s", at.seconds()))) {
            Ok(replayed) => outputs.take(&replayed, &manifest)?,
            Err(error) if args.videos.len() == 1 => return Err(error.into()),
            Err(error) => {
                drop(progress);
                eprintln!("kinewatch: {error}");
                failed += 1;
            }
        }
    }
    let labels: Vec<String> = models::published(&manifest).map(str::to_owned).collect();
    outputs.finish(&args, truth.as_ref(), &labels)?;
    match failed {
        0 => Ok(()),
        n => Err(Failure::say(format!("{n} of {} videos could not be replayed", args.videos.len()))),
    }
}

/// A camera id per video, so two videos of one stem cannot be told apart.
fn check_stems(videos: &[PathBuf]) -> Outcome {
    let mut seen: BTreeMap<String, &Path> = BTreeMap::new();
    for path in videos {
        let stem = intervals::slug(&path.to_string_lossy());
        if let Some(other) = seen.insert(stem.clone(), path) {
            return Err(Failure::Usage(format!(
                "{} and {} would both be camera {stem}; rename one or replay them one at a time",
                other.display(),
                path.display()
            )));
        }
    }
    Ok(())
}

fn check_zones(given: usize, manifest: &Manifest) -> Outcome {
    let name = &manifest.name;
    match &manifest.tensors.boxes {
        None if given > 0 => eprintln!("kinewatch: --zones is of no use, model {name} takes no boxes; leave it out"),
        Some(boxes) if given > boxes.count => {
            let takes = boxes.count;
            return Err(Failure::Usage(format!(
                "--zones: there are {given}, model {name} takes {takes}: leave some out"
            )));
        }
        _ => {}
    }
    Ok(())
}

/// What a replay writes, as it goes.
struct Outputs<'a> {
    events: Option<(PathBuf, Box<dyn Write>)>,
    scores: Option<(&'a Path, Videos)>,
    draw: bool,
    collector: Collector,
    videos: Vec<Video>,
    dropped: u64,
}

impl<'a> Outputs<'a> {
    fn new(args: &'a ReplayArgs) -> Result<Self, Failure> {
        let events = args.events.as_deref().map(open_events).transpose()?;
        let several = if args.videos.len() == 1 { Videos::One } else { Videos::Several };
        Ok(Self {
            events,
            scores: args.scores.as_deref().map(|file| (file, several)),
            draw: args.timeline.is_some(),
            collector: Collector::default(),
            videos: Vec::new(),
            dropped: 0,
        })
    }

    fn take(&mut self, replayed: &Replayed, manifest: &Manifest) -> Outcome {
        for event in &replayed.events {
            let json = event.to_json();
            if let Some((path, out)) = &mut self.events {
                out.write_all(&json).and_then(|()| out.write_all(b"\n")).map_err(|e| told(path, &e))?;
            }
            self.collector.line(&String::from_utf8_lossy(&json))?;
        }
        if let Some((file, several)) = self.scores {
            let path = scores::path_for(file, &replayed.camera, several);
            let mut out = ScoresFile::create(&path, &replayed.score_labels).map_err(Failure::say)?;
            for (at, row) in &replayed.scores {
                out.row(at.seconds(), row).map_err(Failure::say)?;
            }
            out.finish().map_err(Failure::say)?;
        }
        let curves = if self.draw { curves(replayed, manifest) } else { Vec::new() };
        self.videos.push(Video { camera: replayed.camera.clone(), duration_s: replayed.duration.seconds(), curves });
        self.dropped += replayed.windows_dropped;
        Ok(())
    }

    fn finish(mut self, args: &ReplayArgs, truth: Option<&intervals::Truth>, labels: &[String]) -> Outcome {
        if let Some((path, out)) = &mut self.events {
            out.flush().map_err(|e| told(path, &e))?;
        }
        if self.dropped > 0 {
            eprintln!(
                "kinewatch: {} windows left out: the videos have holes wider than the model allows",
                self.dropped
            );
        }
        let detections = self.collector.finish();
        // Only what was replayed is judged, and only what the model reports.
        let truth = truth.map(|all| all.only(|camera| self.videos.iter().any(|v| v.camera == camera)));
        let pairs = truth.as_ref().map(|t| intervals::pair(&detections, t, Some(labels))).unwrap_or_default();
        if args.events.as_deref() != Some(Path::new("-")) {
            print(&if truth.is_some() { table::judged(&pairs) } else { table::detected(&detections) })?;
        }
        let Some(path) = &args.timeline else { return Ok(()) };
        let panels = picture::panels(self.videos, &detections, truth.as_ref(), Some(labels), &pairs);
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

fn curves(replayed: &Replayed, manifest: &Manifest) -> Vec<Curve> {
    let threshold = |label: &str| {
        let decoder = manifest.labels.iter().find(|l| l.name == label).and_then(|l| l.decoder.as_ref());
        decoder.map(|d| d.on)
    };
    let curve = |(i, label): (usize, &String)| Curve {
        label: label.clone(),
        points: replayed.scores.iter().map(|(at, row)| (at.seconds(), probability(row[i]))).collect(),
        on: threshold(label),
    };
    replayed.score_labels.iter().enumerate().map(curve).collect()
}
