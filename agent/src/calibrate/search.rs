//! The search for one label's settings: from a few beginnings, one step at a time, as long as it gets better.

use kinewatch_core::manifest::{DecoderKind, DecoderParams, Decoding};

use super::objective::{MISSED_S, Quality, detections, qualities};
use super::{LabelChoice, Material, Objective, annotated, kinds, lags, rivals, score_model};

/// Sizes of the steps, one after the other.
const SIZES: [f64; 3] = [1.0, 0.5, 0.25];
/// Rounds over all steps of a size, at most.
const ROUNDS: usize = 6;
/// A gain below this is chance, whatever the number of actions.
const LEAST_GAIN: f64 = 1e-3;
/// Other settings than the package's have to be better by so much of an action.
const ACTIONS_GAINED: f64 = 0.5;
/// A model of the scores has more to it than two thresholds: it has to be better by so much of an action more.
const ACTIONS_GAINED_BY_MODEL: f64 = 1.0;

/// The best settings of a label, which had `packaged`; all others being what they are in `decoding`.
pub(super) fn label(
    material: &Material,
    decoding: &Decoding,
    label: usize,
    packaged: DecoderParams,
) -> (DecoderParams, LabelChoice) {
    let name = decoding.labels[label].name.clone();
    let trial = Trial { material, decoding, label };
    let stride_s = decoding.stride as f64 / 1e9;
    let (before_value, before) = trial.judge(packaged);
    let judged = trial.names().into_iter().next().unwrap_or_default();
    let model = score_model::of(material, &name);
    // Of one action, in the units of the objective.
    let worth = if material.objective == Objective::F1 { 1.0 } else { MISSED_S };
    let mut kinds = Vec::new();
    // Settings of a kind that is not wanted are no choice, however good they are.
    let to_beat = if material.kinds.contains(&packaged.kind) { before_value } else { f64::NEG_INFINITY };
    let mut best = (to_beat, packaged, before.clone());
    for &kind in &material.kinds {
        let starts = kinds::starts(kind, packaged, model, stride_s).into_iter();
        let Some(found) = starts.map(|p| trial.climb(p, stride_s)).max_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
        kinds.push((found.1, found.2.clone()));
        let of_actions = |count: f64| count * worth / before.truth.max(1) as f64;
        let more =
            if kind == DecoderKind::Hmm && best.1.kind != kind { of_actions(ACTIONS_GAINED_BY_MODEL) } else { 0.0 };
        let chance = LEAST_GAIN + if best.1 == packaged { of_actions(ACTIONS_GAINED) } else { 0.0 };
        if found.0 > best.0 + more + chance {
            best = found;
        }
    }
    let (_, params, after) = best;
    (params, LabelChoice { label: name, judged, before, kinds, after })
}

/// One label's settings within those of all.
struct Trial<'a> {
    material: &'a Material,
    decoding: &'a Decoding,
    label: usize,
}

type Found = (f64, DecoderParams, Quality);

impl Trial<'_> {
    fn climb(&self, start: DecoderParams, stride_s: f64) -> Found {
        let mut best = self.tried(start);
        for size in SIZES {
            for _ in 0..ROUNDS {
                let before = best.0;
                for near in kinds::neighbours(&best.1.clone(), size, stride_s) {
                    let found = self.tried(near);
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

    fn tried(&self, params: DecoderParams) -> Found {
        let params = lags::with_lags(self.material, self.decoding, self.label, params);
        let (value, quality) = self.judge(params);
        (value, params, quality)
    }

    /// The value of the settings for the label itself and for the sequences that it is part of, whichever are annotated;
    /// and the quality of the first of them.
    fn judge(&self, params: DecoderParams) -> (f64, Quality) {
        let mut tried = self.decoding.clone();
        let truth = &self.material.truth;
        tried.sequences.retain(|s| s.parts.contains(&self.label) && annotated(truth, &s.name));
        let mut needed: Vec<usize> = tried.sequences.iter().flat_map(|s| s.parts.clone()).collect();
        needed.extend(rivals(self.decoding, self.label));
        for (i, label) in tried.labels.iter_mut().enumerate() {
            label.publish = i == self.label;
            label.decoder = if i == self.label { Some(params) } else { label.decoder.filter(|_| needed.contains(&i)) };
        }
        let found = qualities(&detections(&tried, &self.material.replayed), truth, self.names());
        let sum: f64 = found.iter().map(|(_, q)| q.value(self.material.objective)).sum();
        let value = sum / found.len().max(1) as f64;
        (value, found.into_iter().next().map(|(_, q)| q).unwrap_or_default())
    }

    /// The label itself and the sequences that it is part of, whichever are annotated.
    fn names(&self) -> Vec<String> {
        let own = self.decoding.labels[self.label].name.clone();
        let sequences = self.decoding.sequences.iter().filter(|s| s.parts.contains(&self.label));
        let names = std::iter::once(own).chain(sequences.map(|s| s.name.clone()));
        names.filter(|name| annotated(&self.material.truth, name)).collect()
    }
}
