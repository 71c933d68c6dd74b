//! What goes when the outbox is full, in which order, and that no consumer can see a hole that is not stated.
#![allow(clippy::unwrap_used)]

mod support;

use kinewatch_store::{Draft, Handing, KeepUntil, Status, Store, StoreOptions};
use support::{append, at, draft, open, open_with, options, ranges, read, revs, waiting};

use Status::{Ended, Started, Updated};

/// Bytes of one row of these tests.
fn row() -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, "x", Started);
    store.stats().bytes
}

/// A store for `rows` rows, that drops one at a time: the sixteenth more is less than a row.
fn small(dir: &std::path::Path, rows: u64) -> Store {
    assert!(rows < 16);
    open_with(dir, StoreOptions { outbox_bytes: rows * row() + row() - 1, ..options() })
}

#[test]
fn updates_of_ended_actions_go_first_and_leave_no_hole_in_the_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = small(dir.path(), 8);
    for status in [Started, Updated, Updated] {
        append(&mut store, "goes-on", status); // 1 2 3
    }
    for status in [Started, Updated, Updated, Updated, Ended] {
        append(&mut store, "ended", status); // 4 5 6 7 8
    }
    let dropped = store.append(&at(0), &[draft("new", Started)], Handing::Later).unwrap().dropped;
    assert_eq!(ranges(&dropped), [(5, 7)], "all of them: none says more than `ended`");
    assert_eq!((waiting(&store), revs(&store)), (vec![1, 2, 3, 4, 8, 9], vec![0, 1, 2, 0, 1, 0]));
    assert_eq!(ranges(&store.gaps(10).unwrap()), [(5, 7)]);
    assert_eq!(store.gaps(10).unwrap()[0].reason, "quota");
    assert_eq!(store.history(100, 0).unwrap().len(), 6, "what the quota dropped is gone from the disk");
}

#[test]
fn then_updates_of_open_actions_but_the_newest_and_the_next_counts_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = small(dir.path(), 6);
    for status in [Started, Updated, Updated, Updated, Updated, Updated] {
        append(&mut store, "a", status);
    }
    append(&mut store, "b", Started);
    assert_eq!((waiting(&store), revs(&store)), (vec![1, 6, 7], vec![0, 1, 0]));
    append(&mut store, "a", Updated);
    append(&mut store, "a", Ended);
    assert_eq!(revs(&store), [0, 1, 0, 2, 3]);
    drop(store);
    assert_eq!(revs(&open(dir.path())), [0, 1, 0, 2, 3], "on the disk, check sums and all");
}

#[test]
fn what_may_have_been_seen_keeps_its_revision_and_goes_after_what_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = small(dir.path(), 6);
    for status in [Started, Updated, Updated] {
        append(&mut store, "a", status); // 1 2 3
    }
    // A client has all that there is.
    store.offer(&at(1), 0, u64::MAX, 10).unwrap();
    for status in [Updated, Updated, Ended] {
        append(&mut store, "a", status); // 4 5 6
    }
    append(&mut store, "b", Started);
    assert_eq!(waiting(&store), [1, 2, 3, 6, 7]);
    assert_eq!(revs(&store), [0, 1, 2, 3, 0], "6 moves down to follow 3");
    for _ in 0..2 {
        append(&mut store, "b", Ended);
    }
    // Nothing unseen is left but what matters more.
    assert_eq!(waiting(&store), [1, 3, 6, 7, 8, 9]);
    assert_eq!(revs(&store)[..3], [0, 2, 3], "seen revisions stay, and 2 is stated");
    assert!(ranges(&store.gaps(10).unwrap()).contains(&(2, 2)));
}

#[test]
fn an_update_behind_which_something_was_seen_is_not_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = small(dir.path(), 6);
    for status in [Started, Updated, Updated, Updated] {
        append(&mut store, "a", status); // 1 2 3 4
    }
    // Fresh first: the newest went out, the rest waits.
    store.offer(&at(1), 3, u64::MAX, 10).unwrap();
    store.acked(&[4]).unwrap();
    for _ in 0..4 {
        append(&mut store, "b", Started); // 5 6 7 8
    }
    assert_eq!(waiting(&store), [1, 3, 5, 6, 7, 8]);
    assert_eq!(revs(&store)[..2], [0, 2], "4 bears revision 3, so 3 cannot move");
}

#[test]
fn ended_outlives_started_which_outlives_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = small(dir.path(), 4);
    append(&mut store, "goes-on", Started); // 1
    for status in [Started, Ended] {
        append(&mut store, "a", status); // 2 3
    }
    append(&mut store, "b", Started); // 4
    append(&mut store, "c", Started); // 5
    assert_eq!((waiting(&store), revs(&store)), (vec![1, 3, 4, 5], vec![0, 1, 0, 0]), "`ended` alone says it all");
    append(&mut store, "d", Started); // 6
    assert_eq!(waiting(&store), [3, 4, 5, 6], "the oldest, when there is nothing better");
    assert_eq!(ranges(&store.gaps(10).unwrap()), [(1, 2)], "neighbours are stated as one");
    drop(store);
    let mut store = small(dir.path(), 4);
    assert_eq!(ranges(&store.gaps(10).unwrap()), [(1, 2)], "stored until it is stated");
    store.stated(&[1..=2]).unwrap();
    assert_eq!(store.gaps(10).unwrap(), []);
}

#[test]
fn refused_and_kept_messages_go_before_any_that_waits() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = 4 * row() + row() - 1;
    let kept = StoreOptions { outbox_bytes: bytes, keep_until: KeepUntil::Consumer, ..options() };
    let mut store = open_with(dir.path(), kept);
    for action in ["a", "b", "c", "d"] {
        append(&mut store, action, Started);
    }
    store.offer(&at(1), 0, u64::MAX, 10).unwrap();
    store.park(&at(0), 3, 0x97).unwrap();
    store.acked(&[1, 2]).unwrap();
    let dropped = store.append(&at(0), &[draft("e", Started)], Handing::Later).unwrap().dropped;
    assert_eq!((dropped, store.stats().parked), (vec![], 0), "stated when it was refused");
    let dropped = store.append(&at(0), &[draft("f", Started)], Handing::Later).unwrap().dropped;
    assert_eq!((ranges(&dropped), store.stats().kept), (vec![(1, 1)], 1));
    assert_eq!(waiting(&store), [4, 5, 6]);
}

#[test]
fn a_payload_that_cannot_be_read_keeps_its_action_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = 4 * row() + row() - 1;
    let mut store = open_with(dir.path(), StoreOptions { outbox_bytes: bytes, renumber: |_, _| None, ..options() });
    for status in [Started, Updated, Updated, Ended] {
        append(&mut store, "a", status);
    }
    append(&mut store, "b", Started);
    assert_eq!((waiting(&store), revs(&store)), (vec![1, 3, 4, 5], vec![0, 2, 3, 0]), "one update, and stated");
}

#[test]
fn a_large_backlog_is_compacted_in_moderate_time() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 20_000 * row();
    let mut store = open_with(dir.path(), StoreOptions { outbox_bytes: limit, ..options() });
    let (mut dropped, mut longest) = (0, std::time::Duration::ZERO);
    // Forty actions at a time, each with ninety-eight updates, for as long as four quotas last.
    for round in 0..20 {
        let names: Vec<_> = (0..40).map(|n| format!("{round}-{n}")).collect();
        let status = |step| match step {
            0 => Started,
            99 => Ended,
            _ => Updated,
        };
        let drafts: Vec<Draft<'_>> =
            (0..100).flat_map(|step| names.iter().map(move |name| draft(name, status(step)))).collect();
        for group in drafts.chunks(500) {
            let began = std::time::Instant::now();
            dropped += store.append(&at(0), group, Handing::Later).unwrap().dropped.len();
            longest = longest.max(began.elapsed());
        }
    }
    let rows = store.pending(0, usize::MAX >> 1).unwrap();
    assert!(dropped > 0 && store.stats().bytes <= limit);
    let boundaries = rows.iter().filter(|row| read(&row.payload).1 == 0).count();
    assert_eq!(boundaries, 800, "every `started` is still there");
    println!("{dropped} ranges dropped; the longest append of 500 took {longest:?}");
}
