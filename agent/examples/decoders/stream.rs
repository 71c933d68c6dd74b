//! The scores of one label in one video, and the intervals that a decoder makes of them.

use kinewatch::intervals::Detection;
use kinewatch::replay::Replayed;

/// Scores of one label, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    pub at_s: Vec<f64>,
    pub log_odds: Vec<f64>,
    /// Usual time between scores.
    pub stride_s: f64,
}

impl Stream {
    /// `None` where the label has no scores.
    pub(crate) fn of(replayed: &Replayed, label: &str, stride_s: f64) -> Option<Self> {
        let column = replayed.score_labels.iter().position(|l| l == label)?;
        let at_s = replayed.scores.iter().map(|(at, _)| at.seconds()).collect();
        let log_odds = replayed.scores.iter().map(|(_, row)| f64::from(row[column])).collect();
        Some(Self { at_s, log_odds, stride_s })
    }

    /// Strides in a time, at least one.
    pub(crate) fn strides(&self, seconds: f64) -> usize {
        (seconds / self.stride_s).round().max(1.0) as usize
    }

    /// Highest probability among the scores `from..to`.
    pub(crate) fn peak(&self, from: usize, to: usize) -> f64 {
        probability(self.log_odds[from..to].iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }
}

/// An interval, dated by scores: no lag is taken off yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub start_s: f64,
    pub end_s: f64,
    /// When its start was known.
    pub decided_s: f64,
    pub peak: f64,
}

impl Span {
    pub(crate) fn detection(&self, camera: &str, label: &str) -> Detection {
        Detection {
            camera: camera.to_owned(),
            label: label.to_owned(),
            start_s: self.start_s,
            end_s: Some(self.end_s),
            decided_s: self.decided_s,
            peak: self.peak,
            ..Detection::default()
        }
    }
}

pub(crate) fn probability(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

/// Runs of scores at which `on` holds. Shorter ones than `least_s` are never told; after a pause shorter than `join_s` the
/// last one goes on.
pub(crate) fn runs(stream: &Stream, on: &[bool], least_s: f64, join_s: f64) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut open: Option<(Span, bool)> = None;
    for (k, &on) in on.iter().enumerate() {
        let (at_s, p) = (stream.at_s[k], probability(stream.log_odds[k]));
        open = match (open, on) {
            (None, true) => Some(match spans.pop_if(|last| at_s - last.end_s < join_s) {
                Some(last) => (last, true),
                None => (Span { start_s: at_s, end_s: at_s, decided_s: at_s, peak: p }, false),
            }),
            (Some((span, told)), false) => {
                spans.extend(told.then_some(Span { end_s: at_s, ..span }));
                None
            }
            (open, _) => open,
        };
        if let Some((span, told)) = &mut open {
            span.peak = span.peak.max(p);
            if !*told && at_s - span.start_s >= least_s {
                (span.decided_s, *told) = (at_s, true);
            }
        }
    }
    let last_s = stream.at_s.last().copied().unwrap_or_default();
    spans.extend(open.filter(|(_, told)| *told).map(|(span, _)| Span { end_s: last_s, ..span }));
    spans
}

/// Of a sequence of two: from where the first began, at most `longest_s` ago, to where the second begins, at most `within_s`
/// after the first ended. Each is used once.
pub(crate) fn sequence(first: &[Span], then: &[Span], within_s: f64, longest_s: f64) -> Vec<Span> {
    let mut used = 0;
    let mut found = Vec::new();
    for last in then {
        let before = first.iter().take_while(|f| f.start_s < last.start_s).count();
        if let Some(f) = first[..before].last().filter(|f| before > used && last.start_s - f.end_s <= within_s) {
            let decided_s = last.decided_s.max(f.decided_s);
            let start_s = f.start_s.max(last.start_s - longest_s);
            found.push(Span { start_s, end_s: last.start_s, decided_s, peak: f.peak.min(last.peak) });
            used = before;
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One score a second, the first at second 0.
    pub(crate) fn stream(log_odds: &[f64]) -> Stream {
        Stream { at_s: (0..log_odds.len()).map(|k| k as f64).collect(), log_odds: log_odds.to_vec(), stride_s: 1.0 }
    }

    pub(crate) fn edges(spans: &[Span]) -> Vec<(f64, f64)> {
        spans.iter().map(|s| (s.start_s, s.end_s)).collect()
    }

    const ON: [bool; 9] = [false, true, false, true, true, true, false, false, true];

    #[test]
    fn runs_end_where_they_stop_and_the_last_with_the_stream() {
        let found = runs(&stream(&[0.0; 9]), &ON, 0.0, 0.0);
        assert_eq!(edges(&found), [(1.0, 2.0), (3.0, 6.0), (8.0, 8.0)]);
        assert_eq!(found[1].decided_s, 3.0);
    }

    #[test]
    fn short_runs_are_not_told_and_long_ones_when_they_are_long_enough() {
        let found = runs(&stream(&[0.0; 9]), &ON, 2.0, 0.0);
        assert_eq!(edges(&found), [(3.0, 6.0)]);
        assert_eq!(found[0].decided_s, 5.0);
    }

    #[test]
    fn a_pause_that_is_short_joins() {
        let found = runs(&stream(&[0.0; 9]), &ON, 0.0, 1.5);
        assert_eq!(edges(&found), [(1.0, 6.0), (8.0, 8.0)]);
        assert_eq!(found[0].decided_s, 1.0);
    }

    #[test]
    fn a_sequence_needs_its_parts_in_order_and_near() {
        let span = |start_s, end_s| Span { start_s, end_s, decided_s: end_s, peak: 0.9 };
        let (falls, lies) = ([span(1.0, 2.0), span(10.0, 11.0)], [span(2.5, 6.0), span(7.0, 8.0), span(14.0, 16.0)]);
        assert_eq!(edges(&sequence(&falls, &lies, 2.0, f64::INFINITY)), [(1.0, 2.5)]);
        assert_eq!(edges(&sequence(&falls, &lies, 3.0, 3.0)), [(1.0, 2.5), (11.0, 14.0)]);
    }
}
