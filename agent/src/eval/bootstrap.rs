//! How far the figures could be off by the luck of which videos are in the set.
//!
//! Percentile bootstrap over groups (Efron 1979): groups of videos are drawn with replacement, as many as there are, and
//! every figure is computed anew. Seeded, so the same set gives the same intervals.

use super::figures::{Figure, Key, Values, of_set, quantile};
use super::outcomes::{Block, Judged};

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
    let mut telling: Vec<usize> = set.labels.iter().map(with_actions).collect();
    telling.push(telling.iter().copied().filter(|&n| n > 0).min().unwrap_or(0));
    let of = |((values, drawn), telling): ((&Values, _), usize)| with(values, drawn, telling);
    let mut blocks: Vec<Vec<Figure>> = blocks.iter().zip(drawn).zip(telling).map(of).collect();
    let all = blocks.pop().unwrap_or_default();
    (blocks, all)
}

/// Groups that have true actions: only these tell what is found.
fn with_actions(block: &Block) -> usize {
    block.truth.iter().filter(|&&n| n > 0).count()
}

fn with(values: &Values, drawn: Vec<Vec<f64>>, telling: usize) -> Vec<Figure> {
    let figure = |((key, &value), draws): ((Key, &Option<f64>), Vec<f64>)| {
        // Of false alarms every group tells.
        let enough = telling >= LEAST_GROUPS || key == Key::FalsePerHour;
        Figure { value, interval: value.filter(|_| enough).and_then(|_| interval(draws)) }
    };
    Key::all().into_iter().zip(values).zip(drawn).map(figure).collect()
}

fn interval(mut draws: Vec<f64>) -> Option<(f64, f64)> {
    if (draws.len() as f64) < DRAWS as f64 * (1.0 - MOST_UNDEFINED) {
        return None;
    }
    draws.sort_by(f64::total_cmp);
    let sorted: Vec<(f64, usize)> = draws.into_iter().map(|value| (value, 0)).collect();
    Some((quantile(&sorted, &[1], 0.025)?, quantile(&sorted, &[1], 0.975)?))
}
