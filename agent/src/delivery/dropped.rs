//! What the quota takes: counted range by range, and said once for all that goes at a time. Pure but for the log.

use kinewatch_store::Gap;

use crate::health::DeliveryView;

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
