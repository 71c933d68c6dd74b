//! The decoders of the package: one kind at a time, tuned by `kinewatch calibrate`'s own code.

use std::hint::black_box;

use kinewatch::calibrate::{Material, Objective, calibrate};
use kinewatch::eval::again;
use kinewatch::intervals::Detection;
use kinewatch_core::manifest::{DecoderKind, Decoding};

use super::set::Set;
use super::tune::quickest_ns;

/// The kinds of decoder that settings have, of each label.
pub(crate) fn kinds(decoding: &Decoding) -> String {
    let of = |kind| match kind {
        DecoderKind::Cusum => "`cusum`",
        DecoderKind::Hysteresis => "`hysteresis`",
        DecoderKind::Hmm => "`hmm`",
    };
    let mut all: Vec<&str> = decoding.labels.iter().filter_map(|l| Some(of(l.decoder?.kind))).collect();
    all.dedup();
    all.join(" and ")
}

/// The best settings of some kinds. A label that cannot be decoded by any of them has the package's (`falling` has no
/// annotations of its own, so that its scores cannot be modelled).
pub(crate) fn tuned(set: &Set, kinds: &[DecoderKind]) -> Decoding {
    let material = Material {
        decoding: set.decoding.clone(),
        output: None,
        replayed: set.replayed.clone(),
        truth: set.truth.clone(),
        objective: Objective::F1,
        kinds: kinds.to_vec(),
    };
    calibrate(&material, |_, _| ()).decoding
}

pub(crate) fn find(decoding: &Decoding, set: &Set) -> Vec<Detection> {
    set.replayed.iter().flat_map(|r| again(decoding, r)).collect()
}

/// Nanoseconds per label and score.
pub(crate) fn cost_ns(decoding: &Decoding, set: &Set) -> f64 {
    let labels = decoding.labels.iter().filter(|l| l.decoder.is_some()).count();
    let scores: usize = set.replayed.iter().map(|r| r.scores.len()).sum();
    quickest_ns(scores * labels, || drop(black_box(find(decoding, set))))
}
