//! What other thresholds would give: the two pictures that an operator chooses one from.
//!
//! The saved scores are decoded again, once for each setting. All thresholds move together, by the same log-odds: labels are
//! decoded apart from each other, so each gets its own curve, and the parts of a sequence move as one. Lags and everything
//! else stay as they are, calibrated for the setting in use.

use std::collections::BTreeMap;

use kinewatch_core::decode::{Decision, Decoder, EndReason, Status};
use kinewatch_core::manifest::{DecoderKind, DecoderParams, Decoding, ScoreModel};

use super::figures::{Edge, Key, Quantile};
use super::figures_of;
use crate::intervals::{Detection, Truth};
use crate::replay::Replayed;

/// Thresholds are moved by up to this much log-odds either way, in so many steps.
const REACH: f64 = 5.0;
const STEPS: i32 = 20;
/// The evidence demanded is multiplied by up to 2 to this power either way, in half powers.
const HALF_POWERS: i32 = 6;
const HOURS_A_DAY: f64 = 24.0;

/// What is turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knob {
    /// `on`.
    Threshold,
    /// `h_on` of a CUSUM, `smooth_s` of a hysteresis, `deviation` of a model of the scores.
    Evidence,
}

/// What one setting gives for one label.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// What was turned.
    pub knob: Knob,
    /// Whether it is the setting of the package.
    pub in_use: bool,
    /// The setting, as one would write it.
    pub setting: String,
    /// Share of true actions not found at tIoU 0.3.
    pub miss_rate: Option<f64>,
    /// Detections that belong to nothing, per day of video.
    pub false_per_day: Option<f64>,
    /// At tIoU 0.5.
    pub f1: Option<f64>,
    /// Median of start decided - true start, seconds.
    pub start_delay_s: Option<f64>,
}

/// The curves of one label.
#[derive(Clone, Debug, PartialEq)]
pub struct TradeOff {
    /// The label.
    pub label: String,
    /// Ascending thresholds, then ascending evidence.
    pub points: Vec<Point>,
}

/// Tries settings over the scores of `replayed`.
pub(super) fn trade_offs(
    decoding: &Decoding,
    replayed: &[Replayed],
    truth: &Truth,
    labels: &[String],
) -> Vec<TradeOff> {
    let mut all: Vec<TradeOff> =
        labels.iter().map(|label| TradeOff { label: label.clone(), points: Vec::new() }).collect();
    let thresholds = (-STEPS..=STEPS).map(|n| (Knob::Threshold, n, REACH * f64::from(n) / f64::from(STEPS)));
    let evidence = (-HALF_POWERS..=HALF_POWERS).map(|n| (Knob::Evidence, n, f64::from(n) / 2.0));
    for (knob, n, amount) in thresholds.chain(evidence) {
        let tried = turned(decoding, knob, amount);
        let decoder = Decoder::of_scores(&tried);
        let detections: Vec<Detection> = replayed.iter().flat_map(|r| again(decoder.clone(), r)).collect();
        for (trade_off, figures) in all.iter_mut().zip(figures_of(&detections, truth, labels)) {
            let value = |key| figures.figure(key).value;
            trade_off.points.push(Point {
                knob,
                in_use: n == 0,
                setting: setting(&tried, knob, &trade_off.label),
                miss_rate: value(Key::Recall).map(|recall| 1.0 - recall),
                false_per_day: value(Key::FalsePerHour).map(|n| n * HOURS_A_DAY),
                f1: value(Key::F1(0.5)),
                start_delay_s: value(Key::Delay(Edge::Start, Quantile::Median)),
            });
        }
    }
    all
}

/// The same settings with one thing turned. `amount`: log-odds, or power of two.
fn turned(decoding: &Decoding, knob: Knob, amount: f64) -> Decoding {
    let mut tried = decoding.clone();
    let stride_s = decoding.stride as f64 / 1e9;
    for params in tried.labels.iter_mut().filter_map(|label| label.decoder.as_mut()) {
        match (knob, params.kind) {
            _ if amount == 0.0 => {}
            (Knob::Threshold, _) => {
                params.on = shifted(params.on, amount);
                params.off = params.off.min(params.on);
            }
            (Knob::Evidence, DecoderKind::Cusum) => params.h_on *= amount.exp2(),
            // Smoothing over less than a stride is none.
            (Knob::Evidence, DecoderKind::Hysteresis) => {
                params.smooth_s = params.smooth_s.max(stride_s) * amount.exp2();
            }
            (Knob::Evidence, DecoderKind::Hmm) => {
                params.hmm = params.hmm.map(|m| ScoreModel { deviation: m.deviation * (0.25 * amount).exp2(), ..m });
            }
        }
    }
    tried
}

/// A probability moved by some log-odds, kept within what a package may say.
#[must_use]
pub fn shifted(probability: f64, log_odds: f64) -> f64 {
    let odds = (probability / (1.0 - probability)) * log_odds.exp();
    (odds / (1.0 + odds)).clamp(1e-6, 1.0 - 1e-6)
}

/// Of a label, or of the parts of a sequence.
fn setting(decoding: &Decoding, knob: Knob, label: &str) -> String {
    let word = |p: &DecoderParams| match (knob, p.kind) {
        (Knob::Threshold, _) => format!("on = {:.3}", p.on),
        (Knob::Evidence, DecoderKind::Cusum) => format!("h_on = {:.3}", p.h_on),
        (Knob::Evidence, DecoderKind::Hysteresis) => format!("smooth_s = {:.2}", p.smooth_s),
        (Knob::Evidence, DecoderKind::Hmm) => format!("deviation = {:.2}", p.hmm.map_or(0.0, |m| m.deviation)),
    };
    let of = |i: usize| decoding.labels.get(i).and_then(|l| l.decoder.as_ref().map(|p| (l.name.as_str(), word(p))));
    if let Some(sequence) = decoding.sequences.iter().find(|s| s.name == label) {
        let parts = sequence.parts.iter().filter_map(|&i| of(i)).map(|(name, word)| format!("{name}: {word}"));
        return parts.collect::<Vec<_>>().join(", ");
    }
    let own = decoding.labels.iter().position(|l| l.name == label).and_then(of);
    own.map_or_else(|| "not decoded".into(), |(_, word)| word)
}

/// The actions that a decoder, fresh or a copy of a fresh one, finds in the scores of a video, which is of one session.
#[must_use]
pub fn again(mut decoder: Decoder, replayed: &Replayed) -> Vec<Detection> {
    let labels = decoder.published_labels().to_vec();
    let (mut decisions, mut found) = (Vec::new(), BTreeMap::new());
    for (at, scores) in &replayed.scores {
        decoder.step_scores(*at, scores, &mut decisions);
        decisions.drain(..).for_each(|d| take(&mut found, &d, &labels, &replayed.camera));
    }
    decoder.gap(replayed.duration, EndReason::StreamLost, &mut decisions);
    decisions.drain(..).for_each(|d| take(&mut found, &d, &labels, &replayed.camera));
    found.into_values().collect()
}

fn take(found: &mut BTreeMap<u64, Detection>, decision: &Decision, labels: &[String], camera: &str) {
    let detection = found.entry(decision.action).or_insert_with(|| Detection {
        camera: camera.to_owned(),
        label: labels.get(usize::from(decision.label)).cloned().unwrap_or_default(),
        decided_s: decision.decided_at.seconds(),
        ..Detection::default()
    });
    detection.start_s = decision.start.seconds();
    detection.start_uncertainty_ms = f64::from(decision.start_uncertainty_ms);
    detection.peak = f64::from(decision.confidence.peak);
    if let Status::Ended { end, end_uncertainty_ms, .. } = decision.status {
        detection.end_s = Some(end.seconds());
        detection.end_uncertainty_ms = Some(f64::from(end_uncertainty_ms));
        detection.end_decided_s = Some(decision.decided_at.seconds());
    }
}
