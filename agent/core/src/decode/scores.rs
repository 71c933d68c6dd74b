//! Logits to calibrated log-odds per label.

use crate::manifest::{Activation, Output};

/// Probabilities are kept this far from 0 and 1, so that log-odds stay finite.
const EDGE: f64 = 1e-6;

/// `logit(p)` of each label but the background, where `p` is the label's probability after temperature.
#[derive(Clone, Debug)]
pub(super) struct Scores {
    activation: Activation,
    temperature: f64,
    background: Option<usize>,
    scaled: Vec<f64>,
    log_odds: Vec<f32>,
}

impl Scores {
    /// `output` says what logits mean; without, they are none but log-odds.
    pub(super) fn new(count: usize, background: Option<usize>, output: Option<&Output>) -> Self {
        Self {
            activation: output.map_or(Activation::Sigmoid, |o| o.activation),
            temperature: output.map_or(1.0, |o| f64::from(o.temperature)),
            background,
            scaled: Vec::with_capacity(count),
            log_odds: vec![0.0; count - usize::from(background.is_some())],
        }
    }

    /// Takes one row of logits. False, and nothing changed, when it has another length or a number that is not finite.
    pub(super) fn update(&mut self, logits: &[f32]) -> bool {
        let count = self.log_odds.len() + usize::from(self.background.is_some());
        if logits.len() != count || !logits.iter().all(|l| l.is_finite()) {
            return false;
        }
        self.scaled.clear();
        self.scaled.extend(logits.iter().map(|&l| f64::from(l) / self.temperature));
        match self.activation {
            Activation::Sigmoid => self.scaled.iter_mut().for_each(|z| *z = 1.0 / (1.0 + (-*z).exp())),
            Activation::Softmax => {
                let most = self.scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                self.scaled.iter_mut().for_each(|z| *z = (*z - most).exp());
                let sum: f64 = self.scaled.iter().sum();
                self.scaled.iter_mut().for_each(|z| *z /= sum);
            }
        }
        let kept = self.scaled.iter().enumerate().filter(|(i, _)| Some(*i) != self.background);
        for (out, (_, &p)) in self.log_odds.iter_mut().zip(kept) {
            *out = logit(p) as f32;
        }
        true
    }

    /// Takes log-odds as they are. False, and nothing changed, when their number is another or one is not finite.
    pub(super) fn set(&mut self, log_odds: &[f32]) -> bool {
        let fits = log_odds.len() == self.log_odds.len() && log_odds.iter().all(|l| l.is_finite());
        if fits {
            self.log_odds.copy_from_slice(log_odds);
        }
        fits
    }

    /// Of the last update.
    pub(super) fn log_odds(&self) -> &[f32] {
        &self.log_odds
    }
}

/// `ln(p / (1 - p))`, `p` kept away from 0 and 1.
pub(super) fn logit(p: f64) -> f64 {
    let p = p.clamp(EDGE, 1.0 - EDGE);
    (p / (1.0 - p)).ln()
}

/// The probability of a log-odds.
pub(super) fn probability(log_odds: f64) -> f32 {
    (1.0 / (1.0 + (-log_odds).exp())) as f32
}
