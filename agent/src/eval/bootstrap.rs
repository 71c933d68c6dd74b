//! How far the figures could be off by the luck of which videos are in the set.
//!
//! Percentile bootstrap over groups (Efron 1979): groups of videos are drawn with replacement, as many as there are, and
//! every figure is computed anew. Seeded, so the same set gives the same intervals.

use super::figures::{Figure, Key, Values, of_set, quantile};
use super::outcomes::Judged;

/// With fewer groups an interval would say more about the method than about the model.
pub const LEAST_GROUPS: usize = 5;
/// Draws.
pub const DRAWS: usize = 1000;
const SEED: u64 = 7;
/// A figure that is not defined in more of the draws than this has no interval.
const MOST_UNDEFINED: f64 = 0.1;

/// The figures of every label and of all, with their intervals, in the order of [`Key::all`].
pub(super) fn figures(set: &Judged) -> (Vec<Vec<Figure>>, Vec<Figure>) {
    let groups = set.groups();
    let (labels, all) = of_set(set, &vec![1; groups]);
    let mut blocks = labels;
    blocks.push(all);
    let mut drawn: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); Key::all().len()]; blocks.len()];
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut weights = vec![0; groups];
    for _ in 0..if groups < LEAST_GROUPS { 0 } else { DRAWS } {
        weights.fill(0);
        (0..groups).for_each(|_| weights[random.usize(0..groups)] += 1);
        let (labels, all) = of_set(set, &weights);
        for (draws, values) in drawn.iter_mut().zip(labels.iter().chain([&all])) {
            draws.iter_mut().zip(values).for_each(|(draws, value)| draws.extend(*value));
        }
    }
    let mut blocks: Vec<Vec<Figure>> = blocks.iter().zip(drawn).map(|(values, drawn)| with(values, drawn)).collect();
    let all = blocks.pop().unwrap_or_default();
    (blocks, all)
}

fn with(values: &Values, drawn: Vec<Vec<f64>>) -> Vec<Figure> {
    let figure = |(&value, draws): (&Option<f64>, Vec<f64>)| Figure { value, interval: value.and(interval(draws)) };
    values.iter().zip(drawn).map(figure).collect()
}

fn interval(mut draws: Vec<f64>) -> Option<(f64, f64)> {
    if (draws.len() as f64) < DRAWS as f64 * (1.0 - MOST_UNDEFINED) {
        return None;
    }
    draws.sort_by(f64::total_cmp);
    let sorted: Vec<(f64, usize)> = draws.into_iter().map(|value| (value, 0)).collect();
    Some((quantile(&sorted, &[1], 0.025)?, quantile(&sorted, &[1], 0.975)?))
}
