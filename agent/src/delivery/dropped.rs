//! What will never arrive, said without flooding the log: what the quota takes in one line for all that goes at a time, what the
//! broker refuses once a minute. Pure but for the log.

use std::time::{Duration, Instant};

use kinewatch_store::Gap;

use crate::health::DeliveryView;

/// Refusals are said this often at most.
const AGAIN: Duration = Duration::from_secs(60);

/// Refusals of the broker that were not said.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    said: Option<Instant>,
    unsaid: u64,
}

impl Refusals {
    /// How many a line is to tell of now, where some were not told of for a while.
    pub(super) fn late(&mut self, now: Instant) -> Option<u64> {
        let is_due = self.said.is_some_and(|said| now.saturating_duration_since(said) >= AGAIN);
        (is_due && self.unsaid > 0).then(|| {
            self.said = Some(now);
            std::mem::take(&mut self.unsaid)
        })
    }

    /// One more. How many a line is to tell of now, this one included; `None` when it is too soon for one.
    pub(super) fn note(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < AGAIN) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Ranges that went together, in one line.
#[derive(Debug, PartialEq, Eq)]
struct Sum<'g> {
    events: u64,
    ranges: usize,
    first: u64,
    last: u64,
    reason: &'g str,
}

/// Counts and says what was dropped in one go, for one reason.
pub(super) fn note(view: &DeliveryView, dropped: &[Gap]) {
    dropped.iter().for_each(|gap| view.note_dropped(gap));
    let Some(Sum { events, ranges, first, last, reason }) = sum(dropped) else { return };
    let why = match reason {
        "age" => "they have waited longer than [outbox] max_age_d",
        _ => "the outbox is over its quota, [outbox] max_mb",
    };
    tracing::error!(events, ranges, first, last, reason, "events dropped, and each range stated on sys/gap: {why}");
}

fn sum(dropped: &[Gap]) -> Option<Sum<'_>> {
    let first = dropped.iter().map(|gap| gap.first).min()?;
    let last = dropped.iter().map(|gap| gap.last).max()?;
    let events = dropped.iter().map(|gap| gap.last.saturating_sub(gap.first) + 1).sum();
    Some(Sum { events, ranges: dropped.len(), first, last, reason: &dropped[0].reason })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn a_forbidden_topic_does_not_fill_the_log() {
        let (mut refusals, begun) = (Refusals::default(), Instant::now());
        let said: Vec<_> = (0..180).map(|s| refusals.note(begun + Duration::from_secs(s))).collect();
        let lines: Vec<_> = said.iter().enumerate().filter_map(|(s, events)| Some((s, (*events)?))).collect();
        assert_eq!(lines, [(0, 1), (60, 60), (120, 60)]);
    }

    #[test]
    fn however_many_ranges_go_there_is_one_line() {
        let gap = |first, last| Gap { first, last, reason: "quota".into(), created_unix_ns: 0 };
        assert_eq!(sum(&[]), None);
        // Updates of several actions first, then the oldest: not in order.
        let dropped = [gap(40, 41), gap(44, 44), gap(7, 9)];
        assert_eq!(sum(&dropped), Some(Sum { events: 6, ranges: 3, first: 7, last: 44, reason: "quota" }));
        let view = DeliveryView::default();
        note(&view, &dropped);
        assert_eq!(view.outbox_dropped.load(Relaxed), 6);
    }
}
