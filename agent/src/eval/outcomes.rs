//! What became of every detection: which true action it belongs to at each threshold, how far off it is, how late it was.
//!
//! Actions of different videos never meet, so what a detection belongs to does not depend on which other videos are in the
//! set: the bootstrap draws groups of videos without matching again.

use std::collections::BTreeMap;

use super::figures::{Edge, OFFSETS_S, TIOUS};
use crate::intervals::{Detection, TrueAction, Truth, assign, tiou};

/// One detection.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// Index of the group of its video.
    pub group: usize,
    pub peak: f64,
    /// Belongs to a true action, at each of [`TIOUS`].
    pub hits: [bool; TIOUS.len()],
    /// Its begin belongs to a true begin, at each of [`OFFSETS_S`].
    pub start_hits: [bool; OFFSETS_S.len()],
    /// Begin and end: whether the error is within what was stated. `None` where it belongs to nothing.
    pub covered: [Option<bool>; 2],
}

/// The detections and true actions of one label, or of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Block {
    /// In order of falling confidence.
    pub detections: Vec<Outcome>,
    /// True actions of each group.
    pub truth: Vec<u32>,
    /// Begin and end: |detected - true| in seconds, with the group, ascending; of what is found at the first of [`TIOUS`].
    pub errors: [Vec<(f64, usize)>; 2],
    /// Begin and end: decided - true, likewise.
    pub delays: [Vec<(f64, usize)>; 2],
}

/// A judged set of videos.
#[derive(Clone, Debug, Default)]
pub(super) struct Judged {
    /// Hours of each group.
    pub hours: Vec<f64>,
    /// In the order of the labels.
    pub labels: Vec<Block>,
    /// All labels thrown together.
    pub all: Block,
}

impl Judged {
    /// Judges what was detected in the videos of `truth`, label by label. Detections in other videos, and of other labels,
    /// are left out.
    pub(super) fn new(detections: &[Detection], truth: &Truth, labels: &[String]) -> Self {
        let mut names: Vec<&str> =
            truth.videos.iter().map(|(camera, v)| v.group.as_deref().unwrap_or(camera)).collect();
        names.sort_unstable();
        names.dedup();
        let group_of: BTreeMap<&str, usize> = truth
            .videos
            .iter()
            .map(|(camera, v)| (camera.as_str(), group_index(&names, v.group.as_deref().unwrap_or(camera))))
            .collect();
        let mut hours = vec![0.0; names.len()];
        for (camera, video) in &truth.videos {
            hours[group_of[camera.as_str()]] += video.duration_s / 3600.0;
        }
        let mut detected: BTreeMap<(&str, &str), Vec<&Detection>> = BTreeMap::new();
        for d in detections.iter().filter(|d| group_of.contains_key(d.camera.as_str())) {
            detected.entry((&d.label, &d.camera)).or_default().push(d);
        }
        let mut actions: BTreeMap<(&str, &str), Vec<&TrueAction>> = BTreeMap::new();
        for t in &truth.actions {
            actions.entry((&t.label, &t.camera)).or_default().push(t);
        }
        let mut judged = Self { hours, ..Self::default() };
        for label in labels {
            let mut block = Block { truth: vec![0; names.len()], ..Block::default() };
            for (camera, &group) in &group_of {
                let of = (label.as_str(), *camera);
                let known = |of| actions.get(of).map_or(&[][..], Vec::as_slice);
                block.add(group, detected.get(&of).map_or(&[][..], Vec::as_slice), known(&of));
            }
            judged.labels.push(block.sorted());
        }
        judged.all = pooled(&judged.labels, names.len());
        judged
    }

    /// How many groups the videos form.
    pub(super) fn groups(&self) -> usize {
        self.hours.len()
    }
}

impl Block {
    /// Judges one video.
    fn add(&mut self, group: usize, detections: &[&Detection], truth: &[&TrueAction]) {
        self.truth[group] += truth.len() as u32;
        let mut outcomes: Vec<Outcome> =
            detections.iter().map(|d| Outcome { group, peak: d.peak, ..Outcome::default() }).collect();
        for (n, &least) in TIOUS.iter().enumerate() {
            let found = assign(detections, truth, |d, t| {
                let overlap = tiou(d.span(), t.span());
                (overlap >= least).then_some(overlap)
            });
            for (i, found) in found.iter().enumerate().filter_map(|(i, found)| Some((i, (*found)?))) {
                outcomes[i].hits[n] = true;
                if n == 0 {
                    self.found(&mut outcomes[i], detections[i], truth[found.0]);
                }
            }
        }
        for (n, &offset_s) in OFFSETS_S.iter().enumerate() {
            let near = assign(detections, truth, |d, t| {
                let off_s = (d.start_s - t.start_s).abs();
                (off_s <= offset_s).then_some(-off_s)
            });
            outcomes.iter_mut().zip(near).for_each(|(outcome, near)| outcome.start_hits[n] = near.is_some());
        }
        self.detections.append(&mut outcomes);
    }

    fn found(&mut self, outcome: &mut Outcome, d: &Detection, t: &TrueAction) {
        let group = outcome.group;
        let mut edge = |edge: Edge, at_s: f64, true_s: f64, decided_s: Option<f64>, stated_ms: Option<f64>| {
            let error_s = (at_s - true_s).abs();
            self.errors[edge as usize].push((error_s, group));
            self.delays[edge as usize].extend(decided_s.map(|decided_s| (decided_s - true_s, group)));
            // Times are nanoseconds: a rounding error of the subtraction must not decide.
            outcome.covered[edge as usize] = stated_ms.map(|stated_ms| error_s * 1000.0 <= stated_ms + 1e-6);
        };
        let (start_s, end_s) = d.span();
        edge(Edge::Start, start_s, t.start_s, Some(d.decided_s), Some(d.start_uncertainty_ms));
        edge(Edge::End, end_s, t.end_s, d.end_decided_s, d.end_uncertainty_ms);
    }

    fn sorted(mut self) -> Self {
        self.detections.sort_by(|a, b| b.peak.total_cmp(&a.peak));
        self.errors.iter_mut().chain(&mut self.delays).for_each(|values| values.sort_by(|a, b| a.0.total_cmp(&b.0)));
        self
    }
}

fn pooled(labels: &[Block], groups: usize) -> Block {
    let mut all = Block { truth: vec![0; groups], ..Block::default() };
    for block in labels {
        all.detections.extend_from_slice(&block.detections);
        all.truth.iter_mut().zip(&block.truth).for_each(|(sum, n)| *sum += n);
        for edge in 0..2 {
            all.errors[edge].extend_from_slice(&block.errors[edge]);
            all.delays[edge].extend_from_slice(&block.delays[edge]);
        }
    }
    all.sorted()
}

fn group_index(names: &[&str], name: &str) -> usize {
    names.binary_search(&name).unwrap_or(0)
}
