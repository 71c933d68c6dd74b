//! What makes one setting better than another.

use kinewatch_core::decode::Decoder;
use kinewatch_core::manifest::Decoding;

use crate::eval::{Edge, Key, Quantile, again, figures_of};
use crate::intervals::{Detection, Truth};
use crate::replay::Replayed;

/// What a missed action counts as in the latency objective, seconds.
pub(super) const MISSED_S: f64 = 10.0;

/// What is to be good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// F1 at tIoU 0.5, with some weight on that at 0.3 and 0.7; a second of delay costs a hundredth of it.
    F1,
    /// Begins told early, with at most so many false alarms a day; an action that is missed counts as ten seconds late.
    Latency {
        /// False alarms per day of video.
        false_per_day: f64,
    },
}

/// What a setting gives for one label. `None` where it is not defined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quality {
    /// True actions.
    pub truth: usize,
    /// At tIoU 0.3, 0.5 and 0.7.
    pub f1: [Option<f64>; 3],
    /// Detections that belong to nothing, per hour.
    pub false_per_hour: Option<f64>,
    /// Median of |detected - true|, begin and end, seconds.
    pub error_s: [Option<f64>; 2],
    /// Of starts decided - true, median and 90th percentile, seconds.
    pub delay_s: [Option<f64>; 2],
    /// Share of true actions found.
    pub recall: Option<f64>,
    /// Share of begins and of ends within the stated uncertainty.
    pub covered: [Option<f64>; 2],
}

impl Quality {
    /// Higher is better.
    #[must_use]
    pub fn value(&self, objective: Objective) -> f64 {
        let false_per_hour = self.false_per_hour.unwrap_or(0.0);
        let delay = self.delay_s[0].unwrap_or(MISSED_S).min(MISSED_S);
        match objective {
            Objective::F1 => {
                let [loose, middle, tight] = self.f1.map(|f1| f1.unwrap_or(0.0));
                let error = self.error_s[0].unwrap_or(1.0).min(1.0);
                middle + 0.15 * (loose + tight) - 0.05 * error - 0.01 * delay - 1e-4 * false_per_hour
            }
            Objective::Latency { false_per_day } => {
                let over = (false_per_hour * 24.0 - false_per_day).max(0.0);
                let recall = self.recall.unwrap_or(0.0);
                let waited = recall * delay + (1.0 - recall) * MISSED_S;
                // Nothing makes up for alarms beyond the budget.
                if over > 0.0 { -MISSED_S - over } else { -waited + 0.1 * self.f1[1].unwrap_or(0.0) }
            }
        }
    }
}

/// What the settings find in the scores.
pub(super) fn detections(decoding: &Decoding, replayed: &[Replayed]) -> Vec<Detection> {
    // Making a decoder may be dear; a copy is not.
    let decoder = Decoder::of_scores(decoding);
    replayed.iter().flat_map(|r| again(decoder.clone(), r)).collect()
}

/// What detections are worth, for each label.
#[must_use]
pub fn qualities(detections: &[Detection], truth: &Truth, labels: Vec<String>) -> Vec<(String, Quality)> {
    let figures = figures_of(detections, truth, &labels);
    let quality = |(label, figures): (String, crate::eval::LabelFigures)| {
        let value = |key| figures.figure(key).value;
        let quality = Quality {
            truth: figures.truth,
            f1: [0.3, 0.5, 0.7].map(|t| value(Key::F1(t))),
            false_per_hour: value(Key::FalsePerHour),
            error_s: [Edge::Start, Edge::End].map(|e| value(Key::Error(e, Quantile::Median))),
            delay_s: [Quantile::Median, Quantile::P90].map(|q| value(Key::Delay(Edge::Start, q))),
            recall: value(Key::Recall),
            covered: [Edge::Start, Edge::End].map(|e| value(Key::Covered(e))),
        };
        (label, quality)
    };
    labels.into_iter().zip(figures).map(quality).collect()
}
