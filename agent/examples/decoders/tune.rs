//! The search for the best setting of the other decoders: the one of `kinewatch calibrate` (steps of falling size from a few
//! beginnings, lags learnt for every setting that is tried, the same objective).

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use kinewatch::calibrate::{Objective, qualities};
use kinewatch::intervals::Detection;
use kinewatch::replay::Replayed;
use kinewatch_core::manifest::Sequence;

use super::families::{Family, Knob, Lag, Sees};
use super::lags;
use super::set::{CutEnds, Set};
use super::stream::{Span, Stream, sequence};

const SIZES: [f64; 3] = [1.0, 0.5, 0.25];
const ROUNDS: usize = 6;
/// A gain below this is chance.
const LEAST_GAIN: f64 = 1e-3;
/// The quickest of so many passes counts: what else the machine does only ever adds.
const PASSES: usize = 25;

/// A setting and its lags of begin and end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    knobs: Vec<f64>,
    lags_s: [f64; 2],
}

/// Of each label that is decoded.
pub(crate) type Tuned = BTreeMap<String, Settings>;

/// The best settings on a set. Labels that are annotated themselves come first; then parts of sequences, which are judged by
/// the sequence.
pub(crate) fn tune(family: &Family, set: &Set) -> Tuned {
    let mut tuned = Tuned::new();
    for (label, judged) in order(set) {
        let trial = Trial { family, set, label: &label, judged: &judged, others: &tuned };
        let best = family.starts.iter().map(|knobs| trial.climb(knobs)).max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((_, settings)) = best {
            tuned.insert(label, settings);
        }
    }
    tuned
}

/// Labels to tune, each with what it is judged by.
fn order(set: &Set) -> Vec<(String, String)> {
    let decoding = &set.decoding;
    let decoded = || decoding.labels.iter().enumerate().filter(|(_, l)| l.decoder.is_some());
    let own = decoded().filter(|(_, l)| set.is_annotated(&l.name)).map(|(_, l)| (l.name.clone(), l.name.clone()));
    let in_sequence = |i: usize| {
        let of = |s: &&Sequence| s.parts.contains(&i) && set.is_annotated(&s.name);
        decoding.sequences.iter().find(of).map(|s| s.name.clone())
    };
    let parts = decoded().filter(|(_, l)| !set.is_annotated(&l.name));
    own.chain(parts.filter_map(|(i, l)| Some((l.name.clone(), in_sequence(i)?)))).collect()
}

struct Trial<'a> {
    family: &'a Family,
    set: &'a Set,
    label: &'a str,
    judged: &'a str,
    others: &'a Tuned,
}

impl Trial<'_> {
    fn climb(&self, start: &[f64]) -> (f64, Settings) {
        let mut best = self.tried(start.to_vec());
        for size in SIZES {
            for _ in 0..ROUNDS {
                let before = best.0;
                for knobs in neighbours(self.family.knobs, &best.1.knobs.clone(), size) {
                    let found = self.tried(knobs);
                    if found.0 > best.0 + LEAST_GAIN {
                        best = found;
                    }
                }
                if best.0 <= before {
                    break;
                }
            }
        }
        best
    }

    fn tried(&self, knobs: Vec<f64>) -> (f64, Settings) {
        let mut settings = Settings { knobs, lags_s: [0.0; 2] };
        if self.family.lag == Lag::TakenOff {
            let [start, end] = lags::learnt(self.found(&settings), &self.set.truth);
            // A sequence tells nothing of where its first part ends.
            settings.lags_s = [start, if self.judged == self.label { end } else { 0.0 }];
        }
        let quality = qualities(&self.found(&settings), &self.set.truth, vec![self.judged.to_owned()]);
        (quality.iter().map(|(_, q)| q.value(Objective::F1)).sum(), settings)
    }

    fn found(&self, settings: &Settings) -> Vec<Detection> {
        let mut all = self.others.clone();
        all.insert(self.label.to_owned(), settings.clone());
        let mut found = find(self.family, self.set, &all);
        found.retain(|d| d.label == self.judged);
        found
    }
}

fn neighbours(knobs: &[Knob], at: &[f64], size: f64) -> Vec<Vec<f64>> {
    let moved = |(n, knob): (usize, &Knob)| {
        [-size, size].map(|by| {
            let mut near = at.to_vec();
            near[n] = (near[n] + by * knob.step).clamp(knob.least, knob.most);
            near
        })
    };
    knobs.iter().enumerate().flat_map(moved).filter(|near| near != at).collect()
}

/// What settings find in a set: labels that are published, and sequences of two.
pub(crate) fn find(family: &Family, set: &Set, tuned: &Tuned) -> Vec<Detection> {
    let mut found = Vec::new();
    for replayed in &set.replayed {
        let spans: BTreeMap<&str, Vec<Span>> =
            tuned.iter().map(|(label, s)| (label.as_str(), spans(family, set, replayed, label, s))).collect();
        for label in set.decoding.labels.iter().filter(|l| l.publish) {
            let of = spans.get(label.name.as_str()).into_iter().flatten();
            found.extend(of.map(|s| s.detection(&replayed.camera, &label.name)));
        }
        for s in &set.decoding.sequences {
            let part = |n: usize| s.parts.get(n).and_then(|&i| spans.get(set.decoding.labels[i].name.as_str()));
            if let (Some(first), Some(then), None) = (part(0), part(1), s.parts.get(2)) {
                let longest_s = s.longest.map_or(f64::INFINITY, |ns| ns as f64 / 1e9);
                let whole = sequence(first, then, s.within as f64 / 1e9, longest_s);
                found.extend(whole.iter().map(|w| w.detection(&replayed.camera, &s.name)));
            }
        }
    }
    found
}

fn spans(family: &Family, set: &Set, replayed: &Replayed, label: &str, settings: &Settings) -> Vec<Span> {
    let Some(stream) = Stream::of(replayed, label, set.stride_s()) else { return Vec::new() };
    let mut spans = (family.find)(&stream, &settings.knobs);
    for span in &mut spans {
        // No earlier than the video, no later than when it was told.
        let latest_s = if family.sees == Sees::Past { span.decided_s } else { f64::INFINITY };
        span.start_s = (span.start_s - settings.lags_s[0]).max(0.0).min(latest_s);
        let kept = set.cut_ends == CutEnds::Kept && stream.at_s.last().is_some_and(|&last_s| span.end_s >= last_s);
        span.end_s = (span.end_s - if kept { 0.0 } else { settings.lags_s[1] }).max(span.start_s);
    }
    spans
}

/// Nanoseconds per label and score.
pub(crate) fn cost_ns(family: &Family, set: &Set, tuned: &Tuned) -> f64 {
    let stride_s = set.stride_s();
    let of = |r| tuned.iter().filter_map(move |(label, s)| Some((Stream::of(r, label, stride_s)?, &s.knobs)));
    let streams: Vec<(Stream, &Vec<f64>)> = set.replayed.iter().flat_map(of).collect();
    let scores: usize = streams.iter().map(|(stream, _)| stream.at_s.len()).sum();
    quickest_ns(scores, || streams.iter().for_each(|(stream, knobs)| drop(black_box((family.find)(stream, knobs)))))
}

pub(crate) fn quickest_ns(scores: usize, mut pass: impl FnMut()) -> f64 {
    let timed = |_| {
        let began = Instant::now();
        pass();
        began.elapsed().as_secs_f64() * 1e9 / scores.max(1) as f64
    };
    (0..PASSES).map(timed).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::super::families::knob;
    use super::*;

    #[test]
    fn neighbours_stay_within_their_bounds() {
        let knobs = [knob(1.0, 0.0, 2.0), knob(0.5, 0.0, 4.0)];
        assert_eq!(neighbours(&knobs, &[2.0, 0.0], 0.5), [vec![1.5, 0.0], vec![2.0, 0.25]]);
    }
}
