//! Events survive `kill -9`: this test binary runs itself as a child that appends and acknowledges without end, and kills
//! it at arbitrary moments. The child prints each number after the append returned; what was printed must be on disk,
//! contiguous, in order.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use kinewatch_store::{Handing, Status, Store, StoreOptions};
use support::{at, draft, run_and_kill, waiting};

const CHILD: &str = "KINEWATCH_STORE_TEST_CHILD";
const ROUNDS: u64 = 12;

fn options() -> StoreOptions {
    StoreOptions { history_rows: u64::MAX >> 1, ..support::options() }
}

fn append_for_ever(path: &str) {
    let mut store = Store::open(path, options(), &at(0), None).unwrap();
    store.next_session(0).unwrap();
    for round in 0_u64.. {
        let action = format!("{round}");
        let drafts = [Status::Started, Status::Updated, Status::Ended].map(|status| draft(&action, status));
        let appended = store.append(&at(0), &drafts, Handing::Later).unwrap();
        println!("stored {}", appended.sequences.end - 1);
        let first = appended.sequences.start;
        store.offer(&at(0), first - 1, first, 1).unwrap();
        store.acked(&[first]).unwrap();
    }
}

#[test]
fn survives_kill_nine() {
    if let Ok(path) = std::env::var(CHILD) {
        return append_for_ever(&path);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let mut promised = 0;
    for round in 0..ROUNDS {
        promised = promised.max(run_and_kill(CHILD, &path, "stored", 1 + round * 3));
        let store = Store::open(&path, options(), &at(0), None).unwrap();
        assert_eq!(store.opened(), &Default::default(), "nothing damaged, nothing lost");
        let all: Vec<u64> = store.history(usize::MAX >> 1, 0).unwrap().iter().map(|h| h.sequence).collect();
        let last = *all.last().unwrap();
        assert_eq!(all, (1..=last).collect::<Vec<_>>(), "contiguous and in order");
        assert!(last >= promised, "number {promised} was promised, {last} is the last on disk");
        assert_eq!(last % 3, 0, "an append is whole or not at all");
        let waiting: BTreeSet<u64> = waiting(&store).into_iter().collect();
        assert!((1..=last).filter(|s| s % 3 != 1).all(|s| waiting.contains(&s)), "only acknowledged ones left");
        assert_eq!(store.open_actions().unwrap(), [], "ended in the same transaction");
    }
}
