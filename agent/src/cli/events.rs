//! `kinewatch events`: follow what is published, look at what is stored, or judge what was saved.

mod stored;
mod tail;

use std::path::Path;

pub(super) use self::stored::{export, history, outbox, since, state_dir};
pub(super) use self::tail::run as tail;
use super::{Failure, Outcome, TableArgs, print};
use crate::intervals::{self, Detection};
use crate::picture::{self, Video};
use crate::{scores, table, timeline};

/// `events table`.
pub(super) fn table(args: &TableArgs) -> Outcome {
    let detections = intervals::read_events(&args.events).map_err(Failure::say)?;
    let read = |path| intervals::read_truth(path, None);
    let truth = args.truth.as_deref().map(read).transpose().map_err(Failure::say)?;
    let labels = (!args.label.is_empty()).then_some(args.label.as_slice());
    let detections: Vec<Detection> =
        detections.into_iter().filter(|d| labels.is_none_or(|l| l.contains(&d.label))).collect();
    let pairs = truth.as_ref().map(|t| intervals::pair(&detections, t, labels)).unwrap_or_default();
    print(&if truth.is_some() { table::judged(&pairs) } else { table::detected(&detections) })?;
    let Some(path) = &args.timeline else { return Ok(()) };
    let thresholds = args.model.as_deref().map(thresholds).transpose()?.unwrap_or_default();
    let mut videos = Vec::new();
    for file in &args.scores {
        let mut curves = scores::read(file).map_err(Failure::say)?;
        for curve in &mut curves {
            curve.on = thresholds.iter().find(|(label, _)| *label == curve.label).map(|(_, on)| *on);
        }
        let camera = camera_of(file, &detections, args.scores.len());
        videos.push(Video { camera, duration_s: 0.0, curves });
    }
    let panels = picture::panels(videos, &detections, truth.as_ref(), labels, &pairs);
    let left_out = timeline::draw(&panels, path).map_err(Failure::say)?;
    if left_out > 0 {
        eprintln!("kinewatch: {}: {left_out} more videos are not in the picture", path.display());
    }
    Ok(())
}

/// The camera that a file of scores belongs to: the part of its name before the extension, or the only camera.
fn camera_of(file: &Path, detections: &[Detection], files: usize) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if let Some((_, camera)) = stem.rsplit_once('.') {
        return camera.to_owned();
    }
    let only =
        detections.first().map(|d| &d.camera).filter(|c| files == 1 && detections.iter().all(|d| d.camera == **c));
    only.cloned().unwrap_or_else(|| intervals::slug(&stem))
}

fn thresholds(dir: &Path) -> Result<Vec<(String, f64)>, Failure> {
    let manifest = super::model::open(dir)?;
    let on = |l: &kinewatch_core::manifest::Label| l.decoder.as_ref().map(|d| (l.name.clone(), d.on));
    Ok(manifest.labels.iter().filter_map(on).collect())
}
