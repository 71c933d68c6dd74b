//! From labelled video to decoder settings: temperature, kind of decoder, thresholds, lags and uncertainties.
//!
//! Works on scores: a video is replayed once, and then decoded again for every setting that is tried. Looks at no video that
//! it is not given, so what it says of them is said of videos that it has seen; [`left_out`] says what to expect of others.
//! Deterministic; the calling thread does the work, and blocks.

mod kinds;
mod lags;
mod objective;
mod score_model;
mod search;
mod temperature;
mod write;

use std::collections::BTreeSet;

use kinewatch_core::manifest::{Activation, DecoderKind, DecoderParams, Decoding, Label};

pub use objective::{Objective, Quality, qualities};
pub use write::{Occasion, REPORT, report, settings};

use crate::intervals::Truth;
use crate::replay::Replayed;

/// Every kind of decoder, in the order they are tried.
pub const KINDS: [DecoderKind; 3] = [DecoderKind::Cusum, DecoderKind::Hysteresis, DecoderKind::Hmm];

/// A label with fewer true actions keeps the settings of the package.
const LEAST_ACTIONS: usize = 5;

/// What is calibrated, and on what.
#[derive(Clone, Debug)]
pub struct Material {
    /// The package's decoder settings.
    pub decoding: Decoding,
    /// How its scores came from logits; `None` for saved scores of a package of settings alone, which has no temperature.
    pub output: Option<(Activation, f64)>,
    /// Annotated videos with their scores.
    pub replayed: Vec<Replayed>,
    /// Of those videos.
    pub truth: Truth,
    /// Labels and sequences that are to be good; the parts of a sequence go with it.
    pub judged: Vec<String>,
    /// Media time that a score looks back on, seconds.
    pub window_s: f64,
    /// What is to be good.
    pub objective: Objective,
    /// Kinds to choose from, usually [`KINDS`].
    pub kinds: Vec<DecoderKind>,
    /// What may change.
    pub scope: Scope,
}

/// What a calibration may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// Uncertainties alone: the package decides as before.
    Uncertainty,
}

/// What was chosen.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// The new settings.
    pub decoding: Decoding,
    /// The new temperature, where there is one.
    pub temperature: Option<f64>,
    /// Of each calibrated label.
    pub labels: Vec<LabelChoice>,
    /// Decoded labels that keep their thresholds: too few actions.
    pub kept: Vec<String>,
    /// True begins and ends that the uncertainties are from.
    pub edges: [usize; 2],
}

/// How one label came to its settings.
#[derive(Clone, Debug)]
pub struct LabelChoice {
    /// Its name.
    pub label: String,
    /// What the qualities are of: the label, or a sequence that it is part of.
    pub judged: String,
    /// As the package had it.
    pub before: Quality,
    /// The best of each kind, in the order they were tried.
    pub kinds: Vec<(DecoderParams, Quality)>,
    /// As chosen.
    pub after: Quality,
}

/// Chooses settings for every decoded label that the annotations know, or that a sequence in them needs. `told` is given a
/// label's name when its turn comes, and its share of the whole.
#[must_use]
pub fn calibrate(mut material: Material, mut told: impl FnMut(&str, f64)) -> Calibration {
    let wanted = if material.scope == Scope::All { wanted(&material) } else { Vec::new() };
    // A label that keeps its thresholds needs the temperature that they are for, and what is not annotated would count as
    // nothing.
    let known = |(i, l): (usize, &Label)| wanted.contains(&i) && annotated(&material.truth, &l.name);
    let mut decoded = material.decoding.labels.iter().enumerate().filter(|(_, l)| l.decoder.is_some());
    let all = decoded.all(known);
    let temperature = if all { temperature::fit(&mut material) } else { None };
    let mut decoding = material.decoding.clone();
    let mut choices: Vec<LabelChoice> = Vec::new();
    // The parts of a sequence depend on each other: the second round knows what the first chose.
    let rounds = if decoding.sequences.iter().any(|s| annotated(&material.truth, &s.name)) { 2 } else { 1 };
    for round in 0..rounds {
        for (n, &label) in wanted.iter().enumerate() {
            let share = (round * wanted.len() + n) as f64 / (rounds * wanted.len()) as f64;
            told(&decoding.labels[label].name, share);
            let Some(packaged) = decoding.labels[label].decoder else { continue };
            let choice = search::label(&material, &decoding, label, packaged);
            decoding.labels[label].decoder = Some(choice.0);
            match choices.iter_mut().find(|c| c.label == choice.1.label) {
                Some(known) => *known = LabelChoice { before: known.before.clone(), ..choice.1 },
                None => choices.push(choice.1),
            }
        }
    }
    let edges = lags::uncertainties(&material, &mut decoding);
    let asked = material.scope == Scope::All;
    let decoded =
        decoding.labels.iter().enumerate().filter(|(i, l)| asked && l.decoder.is_some() && !wanted.contains(i));
    let kept = decoded.map(|(_, l)| l.name.clone()).collect();
    Calibration { decoding, temperature, labels: choices, kept, edges }
}

/// Calibrates on all groups but some, and judges what that finds in those: what to expect of videos not seen. `None` with
/// fewer than two groups. `folds`: into how many parts the groups fall.
pub fn left_out(material: &Material, folds: usize, mut told: impl FnMut(f64)) -> Option<Vec<(String, Quality)>> {
    let group_of = |camera: &str| {
        let video = material.truth.videos.get(camera)?;
        Some(video.group.clone().unwrap_or_else(|| camera.to_owned()))
    };
    let groups: Vec<String> =
        material.truth.videos.keys().filter_map(|c| group_of(c)).collect::<BTreeSet<_>>().into_iter().collect();
    let folds = folds.min(groups.len());
    if folds < 2 {
        return None;
    }
    let mut detections = Vec::new();
    for fold in 0..folds {
        told(fold as f64 / folds as f64);
        let out = |camera: &str| {
            let at = group_of(camera).and_then(|g| groups.iter().position(|x| *x == g));
            at.is_some_and(|at| at % folds == fold)
        };
        let part = |keep: &dyn Fn(&str) -> bool| Material {
            decoding: material.decoding.clone(),
            truth: material.truth.only(keep),
            replayed: material.replayed.iter().filter(|r| keep(&r.camera)).cloned().collect(),
            judged: material.judged.clone(),
            kinds: material.kinds.clone(),
            ..*material
        };
        let chosen = calibrate(part(&|camera| !out(camera)), |_, _| ());
        let mut rest = part(&out);
        if let Some(temperature) = chosen.temperature {
            temperature::apply(&mut rest, temperature);
        }
        detections.extend(objective::detections(&chosen.decoding, &rest.replayed));
    }
    let labels: Vec<String> =
        material.decoding.published().filter(|l| annotated(&material.truth, l)).map(str::to_owned).collect();
    Some(objective::qualities(&detections, &material.truth, labels))
}

/// Labels to calibrate: those with enough actions, of their own or of a sequence that they are part of.
fn wanted(material: &Material) -> Vec<usize> {
    let decoding = &material.decoding;
    let actions = |name: &str| material.truth.actions.iter().filter(|a| a.label == name).count();
    let enough = |name: &str| material.judged.iter().any(|j| j == name) && actions(name) >= LEAST_ACTIONS;
    let in_sequence = |i| decoding.sequences.iter().any(|s| s.parts.contains(&i) && enough(&s.name));
    let labels = decoding.labels.iter().enumerate().filter(|(_, l)| l.decoder.is_some());
    labels.filter(|(i, l)| enough(&l.name) || in_sequence(*i)).map(|(i, _)| i).collect()
}

/// Other labels of its exclusive group.
fn rivals(decoding: &Decoding, label: usize) -> Vec<usize> {
    let group = decoding.exclusive.iter().find(|group| group.labels.contains(&label));
    group.map_or_else(Vec::new, |group| group.labels.iter().copied().filter(|&other| other != label).collect())
}

fn annotated(truth: &Truth, label: &str) -> bool {
    truth.actions.iter().any(|a| a.label == label)
}
