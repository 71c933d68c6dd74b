//! The decoder alone over saved scores: what thresholds do is seen in a moment, without a video.

use std::path::Path;

use kinewatch_core::decode::{Decoder, EndReason};
use kinewatch_core::event::ModelRef;
use kinewatch_core::manifest::Decoding;
use kinewatch_core::time::{ClockMap, Pts, SessionId};

use crate::replay::{Events, Replayed, content_key, context};
use crate::scores::{SavedScores, read_rows};

/// Decodes the scores in `path`, which are of one unbroken stream. Actions are those of the replay that wrote them, to the
/// precision of their times; ids differ, and the model's `accel` is `scores`. An action that the end cuts off ends at the
/// last score. `digest`: SHA-256 of the package's `model.toml`.
///
/// # Errors
/// In words: the file is none of scores, or lacks a label of the package.
pub fn decode(path: &Path, decoding: &Decoding, digest: &str, camera: &str) -> Result<Replayed, String> {
    let saved = read_rows(path)?;
    let mut decoder = Decoder::of_scores(decoding);
    let columns = columns(path, &saved, decoder.score_labels(), &decoding.name)?;
    let model = ModelRef {
        name: decoding.name.clone(),
        version: decoding.version.clone(),
        sha256: digest.to_owned(),
        accel: "scores".into(),
    };
    let content = content_key(path, digest, &[]).map_err(|e| format!("{}: {e}", path.display()))?;
    let (mut sequence, clock, session) = (1, ClockMap::fixed(0), SessionId(1));
    let mut events = Events::new(context(camera, &model, Some(&decoder)), content, &mut sequence);
    let mut replayed =
        Replayed { camera: camera.to_owned(), score_labels: decoder.score_labels().to_vec(), ..Replayed::default() };
    let mut decisions = Vec::new();
    for (time_s, row) in saved.rows {
        let at = Pts::from_seconds(time_s);
        let scores: Vec<f32> = columns.iter().map(|&column| row[column]).collect();
        decoder.step_scores(at, &scores, &mut decisions);
        decisions.drain(..).for_each(|decision| events.add(&decision, session, &clock));
        replayed.scores.push((at, scores));
    }
    replayed.duration = replayed.scores.last().map_or(Pts::ZERO, |(at, _)| *at);
    decoder.gap(replayed.duration, EndReason::StreamLost, &mut decisions);
    decisions.drain(..).for_each(|decision| events.add(&decision, session, &clock));
    replayed.events = events.made;
    Ok(replayed)
}

/// The column of each label.
fn columns(path: &Path, saved: &SavedScores, labels: &[String], package: &str) -> Result<Vec<usize>, String> {
    let find = |label: &String| {
        saved.labels.iter().position(|l| l == label).ok_or_else(|| {
            let has = saved.labels.join(", ");
            format!("{}: has no column {label}, a label of {package}; it has {has}", path.display())
        })
    };
    labels.iter().map(find).collect()
}
