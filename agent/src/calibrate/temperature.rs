//! The temperature under which the scores are likeliest (Guo et al. 2017).
//!
//! Only scores whose window shows one thing are asked. A score is the log-odds of a calibrated probability, and the
//! logarithm of a softmax is its logits but for a constant, so the logits need not be known.

use kinewatch_core::manifest::Activation;

use super::Material;
use crate::intervals::TrueAction;

/// Temperatures that are tried: from a quarter to four times the package's.
const STEPS: i32 = 40;
/// So little better is no better: the package's temperature stays.
const LEAST_GAIN: f64 = 1e-3;

/// Finds the temperature and rescales the scores of `material` to it. `None` where there is none, or where the one of the
/// package is as good as any.
pub(super) fn fit(material: &mut Material) -> Option<f64> {
    let (activation, now) = material.output?;
    let shown = shown(material);
    let loss = |ratio: f64| {
        let losses = shown.iter().map(|(row, class)| loss(&scaled(row, activation, ratio), activation, *class));
        losses.sum::<f64>() / shown.len().max(1) as f64
    };
    let ratios = (-STEPS..=STEPS).map(|n| 4f64.powf(f64::from(n) / f64::from(STEPS)));
    let best = ratios.map(|ratio| (loss(ratio), ratio)).min_by(|a, b| a.0.total_cmp(&b.0))?;
    if shown.is_empty() || loss(1.0) - best.0 < LEAST_GAIN {
        return None;
    }
    let temperature = now * best.1;
    apply(material, temperature);
    Some(temperature)
}

/// Rescales the scores of `material` to a temperature.
pub(super) fn apply(material: &mut Material, temperature: f64) {
    let Some((activation, now)) = material.output else { return };
    for (_, row) in material.replayed.iter_mut().flat_map(|r| &mut r.scores) {
        let new = scaled(row, activation, temperature / now);
        row.iter_mut().zip(new).for_each(|(old, new)| *old = new as f32);
    }
    material.output = Some((activation, temperature));
}

/// Rows with the label that their window shows throughout; the background is `None`.
fn shown(material: &Material) -> Vec<(Vec<f32>, Option<usize>)> {
    let window_s = material.window_s;
    let mut rows = Vec::new();
    for replayed in &material.replayed {
        let truth: Vec<(usize, &TrueAction)> = material
            .truth
            .actions
            .iter()
            .filter(|a| a.camera == replayed.camera)
            .filter_map(|a| Some((replayed.score_labels.iter().position(|l| *l == a.label)?, a)))
            .collect();
        for (at, row) in &replayed.scores {
            let (from, to) = (at.seconds() - window_s, at.seconds());
            let mut near = truth.iter().filter(|(_, a)| a.start_s < to && from < a.end_s);
            match (near.next(), near.next()) {
                (None, _) => rows.push((row.clone(), None)),
                (Some((class, a)), None) if a.start_s <= from && to <= a.end_s => {
                    rows.push((row.clone(), Some(*class)))
                }
                _ => {}
            }
        }
    }
    rows
}

/// Log-odds at `ratio` times the temperature.
fn scaled(row: &[f32], activation: Activation, ratio: f64) -> Vec<f64> {
    let odds = row.iter().map(|&l| f64::from(l));
    if activation == Activation::Sigmoid {
        return odds.map(|l| l / ratio).collect();
    }
    // log p of each label, and of the background, which is what is left.
    let mut log_p: Vec<f64> = odds.map(|l| -(1.0 + (-l).exp()).ln()).collect();
    let rest = 1.0 - log_p.iter().map(|l| l.exp()).sum::<f64>();
    log_p.push(rest.max(1e-6).ln());
    let raised: Vec<f64> = log_p.iter().map(|l| (l / ratio).exp()).collect();
    let sum: f64 = raised.iter().sum();
    raised[..row.len()].iter().map(|r| (r / (sum - r).max(1e-12)).max(1e-12).ln()).collect()
}

/// Negative log-likelihood of what is shown.
fn loss(log_odds: &[f64], activation: Activation, class: Option<usize>) -> f64 {
    let not = |l: f64| (1.0 + l.exp()).ln();
    match (activation, class) {
        (Activation::Sigmoid, class) => {
            log_odds.iter().enumerate().map(|(i, &l)| if Some(i) == class { not(-l) } else { not(l) }).sum()
        }
        (Activation::Softmax, Some(class)) => not(-log_odds[class]),
        (Activation::Softmax, None) => {
            let shown: f64 = log_odds.iter().map(|l| 1.0 / (1.0 + (-l).exp())).sum();
            -(1.0 - shown).max(1e-6).ln()
        }
    }
}
