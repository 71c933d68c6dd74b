//! Decoders that others use on a stream. Each decides on the scores that are there.

use super::stream::{Span, Stream, runs};

/// Scores summed by the online demo of TSM (Lin et al. 2019, `online_demo`).
const DEMO_SCORES: f64 = 12.0;

/// On where the label is likelier than not. With one label that is the argmax; labels are decoded apart.
pub(crate) fn argmax(stream: &Stream, _: &[f64]) -> Vec<Span> {
    let on: Vec<bool> = stream.log_odds.iter().map(|&l| l > 0.0).collect();
    runs(stream, &on, 0.0, 0.0)
}

/// The demo of TSM as it is: the sign of the sum of the last scores, and no change right after a change.
pub(crate) fn tsm_demo(stream: &Stream, _: &[f64]) -> Vec<Span> {
    tsm_tuned(stream, &[DEMO_SCORES, 0.0, 0.0, 0.0])
}

/// The same with a count of scores, a threshold on their mean, and shortest length and pause of our own.
pub(crate) fn tsm_tuned(stream: &Stream, knobs: &[f64]) -> Vec<Span> {
    let &[count, threshold, least_s, join_s] = knobs else { return Vec::new() };
    let count = count.round().max(1.0) as usize;
    let (mut sum, mut shown) = (0.0, [false; 2]);
    let on = |(k, l): (usize, &f64)| {
        sum += l - if k >= count { stream.log_odds[k - count] } else { 0.0 };
        let wanted = sum > threshold * count.min(k + 1) as f64;
        let now = if shown[0] == shown[1] { wanted } else { shown[1] };
        shown = [shown[1], now];
        now
    };
    let on: Vec<bool> = stream.log_odds.iter().enumerate().map(on).collect();
    runs(stream, &on, least_s, join_s)
}

/// Exponential average of the scores against two thresholds.
pub(crate) fn ema(stream: &Stream, knobs: &[f64]) -> Vec<Span> {
    let &[time_s, on, below, least_s, join_s] = knobs else { return Vec::new() };
    let keep = if time_s > 0.0 { (-stream.stride_s / time_s).exp() } else { 0.0 };
    let (mut mean, mut is_on) = (None, false);
    let step = |&l: &f64| {
        let now = mean.map_or(l, |mean: f64| keep * mean + (1.0 - keep) * l);
        mean = Some(now);
        is_on = now > if is_on { on - below } else { on };
        is_on
    };
    let on: Vec<bool> = stream.log_odds.iter().map(step).collect();
    runs(stream, &on, least_s, join_s)
}

#[cfg(test)]
mod tests {
    use super::super::stream::tests::{edges, stream};
    use super::*;

    #[test]
    fn argmax_follows_every_score() {
        let found = argmax(&stream(&[-1.0, 1.0, -1.0, 2.0, 2.0, -1.0]), &[]);
        assert_eq!(edges(&found), [(1.0, 2.0), (3.0, 5.0)]);
        assert!(found[1].peak > 0.88 && found[1].peak < 0.89);
    }

    #[test]
    fn the_demo_sums_and_does_not_flicker() {
        let scores = stream(&[-2.0, -2.0, 3.0, 3.0, 3.0, -1.0, -4.0, -4.0, -4.0]);
        // Sums of two: -2 -4 1 6 6 2 -5 -8 -8.
        assert_eq!(edges(&tsm_tuned(&scores, &[2.0, 0.0, 0.0, 0.0])), [(2.0, 6.0)]);
        // Alone, every score counts, but a change is shown for two scores at least.
        let flicker = stream(&[-1.0, -1.0, 1.0, -1.0, -1.0, -1.0]);
        assert_eq!(edges(&tsm_tuned(&flicker, &[1.0, 0.0, 0.0, 0.0])), [(2.0, 4.0)]);
        assert_eq!(edges(&argmax(&flicker, &[])), [(2.0, 3.0)]);
    }

    #[test]
    fn the_sum_of_the_demo_comes_late() {
        let mut scores = [-3.0; 40];
        scores[12..30].fill(3.0);
        assert_eq!(edges(&tsm_demo(&stream(&scores), &[])), [(18.0, 35.0)]);
    }

    #[test]
    fn the_average_starts_above_one_threshold_and_ends_below_the_other() {
        let scores = stream(&[-1.0, 0.5, 2.0, 0.5, -0.5, -2.0]);
        assert_eq!(edges(&ema(&scores, &[0.0, 1.0, 2.0, 0.0, 0.0])), [(2.0, 5.0)]);
        assert_eq!(edges(&ema(&scores, &[0.0, 1.0, 0.0, 0.0, 0.0])), [(2.0, 3.0)]);
        // Half of the old mean stays: -1 -0.25 0.875 0.6875 0.09 -0.95.
        let half = 1.0 / std::f64::consts::LN_2;
        assert_eq!(edges(&ema(&scores, &[half, 0.8, 0.5, 0.0, 0.0])), [(2.0, 4.0)]);
    }
}
