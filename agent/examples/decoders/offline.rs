//! The likeliest two-state path through a whole recording (Viterbi 1967), with shortest lengths of both states.
//!
//! Off scores nothing, on scores its evidence, beginning costs. A state is left only once it has lasted its shortest length,
//! so the path is cut into runs: each step either goes on with a run, or completes the shortest run of the other kind.

use super::stream::{Span, Stream};

/// Knobs: threshold, cost of beginning, most evidence of one score, shortest action and pause in seconds.
pub(crate) fn viterbi(stream: &Stream, knobs: &[f64]) -> Vec<Span> {
    let &[threshold, cost, most, least_s, pause_s] = knobs else { return Vec::new() };
    let evidence: Vec<f64> = stream.log_odds.iter().map(|l| (l - threshold).clamp(-most, most)).collect();
    let path = path(&evidence, cost, [stream.strides(pause_s), stream.strides(least_s)]);
    let span = |(from, to): (usize, usize)| {
        let start_s = stream.at_s[from];
        let end_s = stream.at_s[to.min(stream.at_s.len() - 1)];
        Span { start_s, end_s, decided_s: start_s, peak: stream.peak(from, to) }
    };
    path.into_iter().map(span).collect()
}

/// Runs of the state "on", as `from..to`. `shortest`: off and on, in steps.
fn path(evidence: &[f64], cost: f64, shortest: [usize; 2]) -> Vec<(usize, usize)> {
    // The recording may cut the last run short: as much that says nothing follows.
    let steps = evidence.len() + shortest[0].max(shortest[1]);
    let evidence_of = |k: usize| evidence.get(k).copied().unwrap_or(0.0);
    let mut sums = vec![0.0; steps + 1];
    // best[s][k]: best value of the first k steps that leave state s free to change; came[s][k]: whether a run of s
    // was completed just there.
    let mut best = [vec![f64::NEG_INFINITY; steps + 1], vec![f64::NEG_INFINITY; steps + 1]];
    let mut came = [vec![false; steps + 1], vec![false; steps + 1]];
    best[0][0] = 0.0;
    for k in 1..=steps {
        sums[k] = sums[k - 1] + evidence_of(k - 1);
        for state in [0, 1] {
            let gain = |from: usize| if state == 1 { sums[k] - sums[from] } else { 0.0 };
            let stay = best[state][k - 1] + gain(k - 1);
            let begun = k.checked_sub(shortest[state]);
            let switch = begun.map_or(f64::NEG_INFINITY, |from| {
                best[1 - state][from] + gain(from) - if state == 1 { cost } else { 0.0 }
            });
            came[state][k] = switch > stay;
            best[state][k] = stay.max(switch);
        }
    }
    let mut state = usize::from(best[1][steps] > best[0][steps]);
    let (mut k, mut until, mut runs) = (steps, steps, Vec::new());
    while k > 0 {
        if !came[state][k] {
            k -= 1;
            continue;
        }
        k -= shortest[state];
        if state == 1 {
            runs.push((k, until));
        }
        (until, state) = (k, 1 - state);
    }
    runs.retain(|&(from, _)| from < evidence.len());
    runs.iter_mut().for_each(|run| run.1 = run.1.min(evidence.len()));
    runs.reverse();
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_bridges_what_is_cheaper_than_to_begin_again() {
        let evidence = [-1.0, 2.0, 2.0, -1.0, 2.0, 2.0, -1.0, -1.0];
        assert_eq!(path(&evidence, 0.5, [1, 1]), [(1, 3), (4, 6)]);
        assert_eq!(path(&evidence, 1.5, [1, 1]), [(1, 6)]);
        assert_eq!(path(&evidence, 8.0, [1, 1]), []);
    }

    #[test]
    fn runs_keep_their_shortest_length() {
        let evidence = [-1.0, -1.0, 5.0, -1.0, -1.0, -1.0];
        assert_eq!(path(&evidence, 0.0, [1, 1]), [(2, 3)]);
        let longer = path(&evidence, 0.0, [1, 3]);
        assert_eq!(longer.iter().map(|(from, to)| to - from).collect::<Vec<_>>(), [3]);
        let evidence = [2.0, -1.0, 2.0, -1.0];
        assert_eq!(path(&evidence, 0.0, [2, 1]), [(0, 3)]);
    }

    /// Every path of a short stream, tried one by one.
    #[test]
    fn no_other_path_is_better() {
        let evidence = [0.7, -1.1, 1.4, -0.2, -0.9, 2.1, -0.4, 0.3, -1.6, 0.8];
        for (cost, shortest) in [(0.6, [1, 1]), (0.6, [1, 2]), (1.1, [2, 3])] {
            let value = |runs: &[(usize, usize)]| -> f64 {
                runs.iter().map(|&(from, to)| evidence[from..to].iter().sum::<f64>() - cost).sum()
            };
            let best = (0..1_u32 << evidence.len()).filter_map(|bits| allowed(bits, evidence.len(), shortest));
            let best = best.map(|runs| value(&runs)).fold(f64::NEG_INFINITY, f64::max);
            assert!((value(&path(&evidence, cost, shortest)) - best).abs() < 1e-9);
        }
    }

    /// The runs of a path, if none is too short; off before the first step is no run, and the last may be cut short.
    fn allowed(bits: u32, steps: usize, shortest: [usize; 2]) -> Option<Vec<(usize, usize)>> {
        let state = |k: usize| (bits >> k) & 1;
        let (mut runs, mut from) = (Vec::new(), 0);
        for k in 1..=steps {
            if k == steps || state(k) != state(from) {
                let free = k == steps || from == 0 && state(0) == 0;
                if !free && k - from < shortest[state(from) as usize] {
                    return None;
                }
                if state(from) == 1 {
                    runs.push((from, k));
                }
                from = k;
            }
        }
        Some(runs)
    }
}
