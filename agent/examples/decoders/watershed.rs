//! Temporal actionness grouping (Zhao et al. 2017): many proposals from a whole recording, of which the best that do not
//! overlap are kept.
//!
//! The probability is smoothed and cut at 12 levels; at each, runs above the level are joined as long as the share of scores
//! below it stays within one of 9 tolerances, from the left and from the right. The paper ranks proposals by a network; there
//! is none here, so a proposal is worth its summed probability beyond a tuned level, as a maximal segment would be. Its NMS at
//! overlap .9 is left out: the choice lets nothing overlap.

use std::collections::HashSet;

use super::stream::{Span, Stream, probability};

const LEVELS: [f64; 12] = [0.01, 0.05, 0.1, 0.15, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95];
const TOLERANCES: [f64; 9] = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0];
/// Longest proposal.
const LONGEST_S: f64 = 60.0;

/// Scores `from..to`.
type Proposal = (usize, usize);

/// Knobs: width of the smoothing in strides, level that a proposal is worth its excess over, least worth.
pub(crate) fn watershed(stream: &Stream, knobs: &[f64]) -> Vec<Span> {
    let &[width, level, least] = knobs else { return Vec::new() };
    let raw: Vec<f64> = stream.log_odds.iter().map(|&l| probability(l)).collect();
    let longest = stream.strides(LONGEST_S);
    let proposals = proposals(&smoothed(&raw, width), longest);
    let span = |&(from, to): &Proposal| {
        let start_s = stream.at_s[from];
        let end_s = stream.at_s[to.min(raw.len() - 1)];
        Span { start_s, end_s, decided_s: start_s, peak: stream.peak(from, to) }
    };
    best(proposals, &raw, level, least).iter().map(span).collect()
}

/// Under a Gaussian of that standard deviation.
fn smoothed(values: &[f64], width: f64) -> Vec<f64> {
    if width <= 0.0 {
        return values.to_vec();
    }
    let reach = (3.0 * width).ceil() as usize;
    let weight: Vec<f64> = (0..=reach).map(|k| (-0.5 * (k as f64 / width).powi(2)).exp()).collect();
    let at = |k: usize| {
        let near = k.saturating_sub(reach)..(k + reach + 1).min(values.len());
        let (sum, all) = near.fold((0.0, 0.0), |(sum, all), j| {
            let w = weight[k.abs_diff(j)];
            (sum + w * values[j], all + w)
        });
        sum / all
    };
    (0..values.len()).map(at).collect()
}

fn proposals(actionness: &[f64], longest: usize) -> HashSet<Proposal> {
    let mut all = HashSet::new();
    for level in LEVELS {
        let runs = runs(actionness, level);
        for tolerance in TOLERANCES {
            for first in 0..runs.len() {
                all.insert(flooded(&runs, first, tolerance, longest));
                all.insert(mirrored(&runs, first, tolerance, longest));
            }
        }
    }
    all
}

fn runs(actionness: &[f64], level: f64) -> Vec<Proposal> {
    let mut runs: Vec<Proposal> = Vec::new();
    for k in (0..actionness.len()).filter(|&k| actionness[k] > level) {
        match runs.last_mut().filter(|run| run.1 == k) {
            Some(run) => run.1 = k + 1,
            None => runs.push((k, k + 1)),
        }
    }
    runs
}

/// From a run over later ones, while few enough scores since its begin are below the level.
fn flooded(runs: &[Proposal], first: usize, tolerance: f64, longest: usize) -> Proposal {
    let (from, mut to) = runs[first];
    let mut below = 0;
    for &(next, end) in &runs[first + 1..] {
        below += next - to;
        if below as f64 > tolerance * (next - from) as f64 || end - from > longest {
            break;
        }
        to = end;
    }
    (from, to)
}

/// The same from a run over earlier ones.
fn mirrored(runs: &[Proposal], last: usize, tolerance: f64, longest: usize) -> Proposal {
    let (mut from, to) = runs[last];
    let mut below = 0;
    for &(begin, before) in runs[..last].iter().rev() {
        below += from - before;
        if below as f64 > tolerance * (to - before) as f64 || to - begin > longest {
            break;
        }
        from = begin;
    }
    (from, to)
}

/// The most worth first, what overlaps it left out; in order of time.
fn best(proposals: HashSet<Proposal>, p: &[f64], level: f64, least: f64) -> Vec<Proposal> {
    let mut sums = vec![0.0];
    sums.extend(p.iter().scan(0.0, |sum, p| {
        *sum += p - level;
        Some(*sum)
    }));
    let worth = |&(from, to): &Proposal| sums[to] - sums[from];
    let mut ranked: Vec<(f64, Proposal)> =
        proposals.into_iter().map(|s| (worth(&s), s)).filter(|(worth, _)| *worth > least).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut taken = vec![false; p.len()];
    let mut chosen = Vec::new();
    for (_, (from, to)) in ranked {
        if !taken[from..to].contains(&true) {
            taken[from..to].fill(true);
            chosen.push((from, to));
        }
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::super::stream::tests::{edges, stream};
    use super::*;

    #[test]
    fn runs_are_joined_as_long_as_the_tolerance_holds() {
        let runs = [(0, 2), (3, 5), (12, 14)];
        assert_eq!(flooded(&runs, 0, 0.2, 100), (0, 2));
        assert_eq!(flooded(&runs, 0, 0.4, 100), (0, 5));
        assert_eq!(flooded(&runs, 0, 1.0, 100), (0, 14));
        assert_eq!(flooded(&runs, 0, 1.0, 10), (0, 5));
        assert_eq!(mirrored(&runs, 1, 0.4, 100), (0, 5));
        assert_eq!(mirrored(&runs, 2, 0.5, 100), (12, 14));
    }

    #[test]
    fn smoothing_keeps_a_plain_and_lowers_a_peak() {
        assert!(smoothed(&[0.5; 9], 2.0).iter().all(|p| (p - 0.5).abs() < 1e-12));
        let peak = smoothed(&[0.0, 0.0, 1.0, 0.0, 0.0], 1.0);
        assert!(peak[2] < 0.5 && (peak[1] - peak[3]).abs() < 1e-12 && peak[1] > peak[0]);
    }

    #[test]
    fn the_best_proposals_are_kept_and_do_not_overlap() {
        let mut scores = [-4.0; 20];
        scores[3..7].fill(3.0);
        scores[5] = -1.0;
        scores[12..15].fill(3.0);
        let found = watershed(&stream(&scores), &[0.0, 0.4, 0.5]);
        assert_eq!(edges(&found), [(3.0, 7.0), (12.0, 15.0)]);
        assert!(watershed(&stream(&scores), &[0.0, 0.4, 5.0]).is_empty());
    }
}
