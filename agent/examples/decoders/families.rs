//! The other decoders: what each may look at, what can be turned, and where a search for its setting begins.

use super::stream::{Span, Stream};
use super::{offline, online, watershed};

/// What a decoder may look at when it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sees {
    /// The scores that are there.
    Past,
    /// The whole recording.
    All,
}

/// Whether edges are dated by the lag that they had on the tuning set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lag {
    TakenOff,
    Left,
}

/// A way to decode.
pub(crate) struct Family {
    pub name: &'static str,
    pub sees: Sees,
    pub lag: Lag,
    pub knobs: &'static [Knob],
    /// Settings that the search begins from.
    pub starts: &'static [&'static [f64]],
    pub find: fn(&Stream, &[f64]) -> Vec<Span>,
}

/// Something to turn.
pub(crate) struct Knob {
    pub step: f64,
    pub least: f64,
    pub most: f64,
}

pub(crate) const fn knob(step: f64, least: f64, most: f64) -> Knob {
    Knob { step, least, most }
}

/// Log-odds.
const THRESHOLD: Knob = knob(1.0, -6.0, 6.0);
/// Seconds.
const SHORT: Knob = knob(0.5, 0.0, 4.0);

pub(crate) const FAMILIES: [Family; 8] = [
    Family {
        name: "argmax of each score, lag left",
        sees: Sees::Past,
        lag: Lag::Left,
        knobs: &[],
        starts: &[&[]],
        find: online::argmax,
    },
    Family {
        name: "argmax of each score",
        sees: Sees::Past,
        lag: Lag::TakenOff,
        knobs: &[],
        starts: &[&[]],
        find: online::argmax,
    },
    Family {
        name: "TSM demo, lag left",
        sees: Sees::Past,
        lag: Lag::Left,
        knobs: &[],
        starts: &[&[]],
        find: online::tsm_demo,
    },
    Family {
        name: "TSM demo",
        sees: Sees::Past,
        lag: Lag::TakenOff,
        knobs: &[],
        starts: &[&[]],
        find: online::tsm_demo,
    },
    Family {
        name: "TSM demo, tuned",
        sees: Sees::Past,
        lag: Lag::TakenOff,
        knobs: &[knob(2.0, 1.0, 20.0), THRESHOLD, SHORT, SHORT],
        starts: &[&[2.0, 0.0, 0.0, 0.0], &[4.0, 0.0, 0.0, 0.0], &[8.0, 0.0, 0.0, 0.0], &[8.0, 0.0, 0.5, 0.5]],
        find: online::tsm_tuned,
    },
    Family {
        name: "EMA, two thresholds",
        sees: Sees::Past,
        lag: Lag::TakenOff,
        knobs: &[knob(0.5, 0.0, 5.0), THRESHOLD, knob(1.0, 0.0, 6.0), SHORT, SHORT],
        starts: &[&[0.25, 0.0, 0.5, 0.0, 0.0], &[0.75, 0.0, 0.5, 0.0, 0.0], &[0.75, 0.0, 1.0, 0.5, 0.5]],
        find: online::ema,
    },
    Family {
        name: "full Viterbi",
        sees: Sees::All,
        lag: Lag::TakenOff,
        knobs: &[THRESHOLD, knob(2.0, 0.0, 40.0), knob(2.0, 0.5, 12.0), SHORT, SHORT],
        starts: &[&[0.0, 2.0, 4.0, 0.0, 0.0], &[0.0, 6.0, 4.0, 0.5, 0.5], &[0.0, 10.0, 4.0, 0.5, 1.0]],
        find: offline::viterbi,
    },
    Family {
        name: "TAG watershed",
        sees: Sees::All,
        lag: Lag::TakenOff,
        knobs: &[knob(1.0, 0.0, 8.0), knob(0.15, 0.05, 0.95), knob(1.0, 0.0, 20.0)],
        starts: &[&[3.0, 0.5, 1.0], &[0.0, 0.5, 1.0], &[1.0, 0.4, 2.0]],
        find: watershed::watershed,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_a_value_for_each_knob() {
        for family in &FAMILIES {
            for start in family.starts {
                assert_eq!(start.len(), family.knobs.len(), "{}", family.name);
                assert!(start.iter().zip(family.knobs).all(|(v, k)| (k.least..=k.most).contains(v)), "{}", family.name);
            }
        }
    }
}
