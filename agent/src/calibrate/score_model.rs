//! A model of a label's scores, from scores with known actions.

use kinewatch_core::manifest::ScoreModel;

use super::Material;
use super::kinds::seen;

/// Windows that are tried, in strides.
const WINDOWS: [f64; 9] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0];
/// Delays of the scores that are tried, in strides.
const DELAYS: [f64; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0];
/// Least scores within actions, and outside them.
const LEAST: usize = 20;

/// One score: in which video, when, how much.
type Score = (usize, f64, f64);

/// The model of the scores of `label`; `None` with too few scores, or scores that tell nothing.
pub(super) fn of(material: &Material, label: &str) -> Option<ScoreModel> {
    let stride_s = material.decoding.stride as f64 / 1e9;
    let spans: Vec<Vec<(f64, f64)>> = material.replayed.iter().map(|r| spans(material, &r.camera, label)).collect();
    let scores = scores(material, label)?;
    let fits = WINDOWS.iter().flat_map(|w| DELAYS.iter().map(move |d| (w * stride_s, d * stride_s)));
    let fits = fits.filter_map(|(window_s, delay_s)| Fit::new(&scores, &spans, window_s, delay_s));
    let fit = fits.min_by(|a, b| a.deviation.total_cmp(&b.deviation))?;
    (fit.high > fit.low + 0.5).then(|| fit.model(&scores, &spans, stride_s))
}

fn spans(material: &Material, camera: &str, label: &str) -> Vec<(f64, f64)> {
    let of = material.truth.actions.iter().filter(|a| a.camera == camera && a.label == label);
    let mut spans: Vec<(f64, f64)> = of.map(|a| (a.start_s, a.end_s)).collect();
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    spans
}

fn scores(material: &Material, label: &str) -> Option<Vec<Score>> {
    let mut scores = Vec::new();
    for (video, replayed) in material.replayed.iter().enumerate() {
        let column = replayed.score_labels.iter().position(|l| l == label)?;
        scores.extend(replayed.scores.iter().map(|(at, row)| (video, at.seconds(), f64::from(row[column]))));
    }
    Some(scores)
}

/// How well a window of some length and delay explains the scores.
#[derive(Clone, Copy, Debug)]
struct Fit {
    window_s: f64,
    delay_s: f64,
    low: f64,
    high: f64,
    deviation: f64,
}

impl Fit {
    fn new(scores: &[Score], spans: &[Vec<(f64, f64)>], window_s: f64, delay_s: f64) -> Option<Self> {
        let share = |&(video, at, _): &Score| filled(&spans[video], at - delay_s, window_s);
        let level = |wanted: f64| middle(scores.iter().filter(|s| share(s) == wanted).map(|s| s.2).collect());
        let (low, high) = (level(0.0)?, level(1.0)?);
        let mut off: Vec<f64> = scores.iter().map(|s| (s.2 - low - share(s) * (high - low)).abs()).collect();
        off.sort_by(f64::total_cmp);
        // Bursts are modelled apart: the largest hundredth does not count.
        off.truncate(off.len() - off.len() / 100);
        let square: f64 = off.iter().map(|d| d * d).sum::<f64>() / off.len() as f64;
        Some(Self { window_s, delay_s, low, high, deviation: square.sqrt().max(0.1) })
    }

    fn model(&self, scores: &[Score], spans: &[Vec<(f64, f64)>], stride_s: f64) -> ScoreModel {
        let lengths: Vec<f64> = spans.iter().flatten().map(|(start, end)| end - start).collect();
        let pauses = spans.iter().flat_map(|s| s.windows(2).map(|w| w[1].0 - w[0].1));
        let length_of_all_s = scores.len() as f64 * stride_s;
        let seen_s = seen(self.window_s, stride_s);
        let shortest_s = low_quantile(lengths.clone()).unwrap_or(seen_s).clamp(seen_s, seen_s.max(1.0));
        let length_s = (lengths.iter().sum::<f64>() / lengths.len().max(1) as f64 - shortest_s).max(stride_s);
        let within: f64 = lengths.iter().sum();
        let height = self.high - self.low;
        ScoreModel {
            // Not beyond what a package may say.
            window_s: (self.window_s * 1000.0).floor() / 1000.0,
            low: tidy(self.low),
            high: tidy(self.high),
            deviation: tidy(self.deviation),
            correlation: tidy(self.correlation(scores, spans).clamp(0.0, 0.9)),
            shortest_s: tidy(shortest_s),
            pause_s: tidy(low_quantile(pauses.collect()).unwrap_or(1.0).clamp(seen_s, seen_s.max(1.5))),
            length_s: tidy(length_s),
            apart_s: tidy(((length_of_all_s - within) / lengths.len().max(1) as f64).clamp(1.0, 3600.0)),
            burst: tidy(0.6 * height),
            burst_s: tidy(3.0 * stride_s),
            bursts_per_hour: 60.0,
            dropouts_per_hour: 20.0,
        }
    }

    /// Of what the window does not explain, from one score to the next.
    fn correlation(&self, scores: &[Score], spans: &[Vec<(f64, f64)>]) -> f64 {
        let most = 3.0 * self.deviation;
        let rest = |s: &Score| {
            let share = filled(&spans[s.0], s.1 - self.delay_s, self.window_s);
            (s.2 - self.low - share * (self.high - self.low)).clamp(-most, most)
        };
        let next = scores.windows(2).filter(|w| w[0].0 == w[1].0);
        let (mut both, mut one) = (0.0, 0.0);
        for pair in next {
            let (a, b) = (rest(&pair[0]), rest(&pair[1]));
            both += a * b;
            one += f64::midpoint(a * a, b * b);
        }
        if one > 0.0 { both / one } else { 0.0 }
    }
}

/// Share of the window before `at` that actions fill.
fn filled(spans: &[(f64, f64)], at: f64, window_s: f64) -> f64 {
    let from = at - window_s;
    let overlap = |&(start, end): &(f64, f64)| (end.min(at) - start.max(from)).max(0.0);
    let share = spans.iter().map(overlap).sum::<f64>() / window_s;
    // Times are nanoseconds: a rounding error is no edge.
    if share > 1.0 - 1e-6 {
        1.0
    } else if share < 1e-6 {
        0.0
    } else {
        share
    }
}

/// Mean of the middle four fifths.
fn middle(mut values: Vec<f64>) -> Option<f64> {
    if values.len() < LEAST {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 10;
    let kept = &values[cut..values.len() - cut];
    Some(kept.iter().sum::<f64>() / kept.len() as f64)
}

fn low_quantile(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 20).copied()
}

fn tidy(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
