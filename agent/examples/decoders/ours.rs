//! The decoders of the package: one kind at a time, tuned by `kinewatch calibrate`'s own code.

use std::hint::black_box;

use kinewatch::calibrate::{Material, Objective, Scope, calibrate};
use kinewatch::eval::again;
use kinewatch::intervals::Detection;
use kinewatch_core::decode::Decoder;
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
        judged: set.truth.actions.iter().map(|action| action.label.clone()).collect(),
        window_s: set.decoding.stride as f64 / 1e9,
        objective: Objective::F1,
        kinds: kinds.to_vec(),
        scope: Scope::All,
    };
    calibrate(material, |_, _| ()).decoding
}

pub(crate) fn find(decoding: &Decoding, set: &Set) -> Vec<Detection> {
    let decoder = Decoder::of_scores(decoding);
    set.replayed.iter().flat_map(|r| again(decoder.clone(), r)).collect()
}

/// Nanoseconds per label and score.
pub(crate) fn cost_ns(decoding: &Decoding, set: &Set) -> f64 {
    let labels = decoding.labels.iter().filter(|l| l.decoder.is_some()).count();
    let scores: usize = set.replayed.iter().map(|r| r.scores.len()).sum();
    quickest_ns(scores * labels, || drop(black_box(find(decoding, set))))
}

#[cfg(test)]
mod tests {
    use kinewatch::intervals::{TrueAction, TrueVideo, Truth};
    use kinewatch::replay::Replayed;
    use kinewatch_core::time::Pts;

    use super::super::set::CutEnds;
    use super::*;

    /// Six actions of two seconds, scored without noise, half a second late; the package says `cusum`.
    fn set() -> Set {
        let text = "format = 1\nname = \"p\"\nversion = \"1.0.0\"\nstride_s = 0.25\n[[labels]]\nname = \"x\"\n\
            [labels.decoder]\nkind = \"cusum\"\non = 0.5\noff = 0.5\n";
        let mut truth = Truth::default();
        truth.videos.insert("a".into(), TrueVideo { duration_s: 60.0, ..TrueVideo::default() });
        let starts = [5.0, 14.0, 23.0, 32.0, 41.0, 50.0];
        let action = |start_s: f64| TrueAction { camera: "a".into(), label: "x".into(), start_s, end_s: start_s + 2.0 };
        truth.actions.extend(starts.map(action));
        let score = |k: u32| {
            let at_s = f64::from(k) * 0.25;
            let on = starts.iter().any(|s| (s + 0.5..s + 2.5).contains(&at_s));
            (Pts::from_seconds(at_s), vec![if on { 3.0 } else { -3.0 }])
        };
        let scores = (0..240).map(score).collect();
        let duration = Pts::from_seconds(60.0);
        let score_labels = vec!["x".to_owned()];
        let replayed = Replayed { camera: "a".into(), score_labels, scores, duration, ..Replayed::default() };
        Set { decoding: Decoding::parse(text).unwrap(), replayed: vec![replayed], truth, cut_ends: CutEnds::Lagged }
    }

    #[test]
    fn only_the_wanted_kind_is_chosen_and_its_lag_is_learnt() {
        let set = set();
        for (kind, name) in
            [(DecoderKind::Cusum, "`cusum`"), (DecoderKind::Hysteresis, "`hysteresis`"), (DecoderKind::Hmm, "`hmm`")]
        {
            let decoding = tuned(&set, &[kind]);
            assert_eq!(kinds(&decoding), name);
            assert_eq!(set.qualities(&find(&decoding, &set))[0].1.f1, [Some(1.0); 3], "{name}");
        }
        assert_eq!(set.qualities(&find(&set.decoding, &set))[0].1.f1[2], Some(0.0));
    }
}
