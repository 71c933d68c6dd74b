//! Any interleaving of append, acknowledge, park and reopen loses nothing: numbers are contiguous, order is kept, and
//! what is pending is exactly what was appended and neither acknowledged nor parked.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use kinewatch_store::{Draft, Status, Store, StoreOptions};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(u8, u8)>),
    Ack(Vec<u16>),
    Park(u16),
    Sent(u16),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec((0_u8..6, 0_u8..3), 0..5).prop_map(Step::Append),
        3 => prop::collection::vec(any::<u16>(), 0..4).prop_map(Step::Ack),
        1 => any::<u16>().prop_map(Step::Park),
        1 => any::<u16>().prop_map(Step::Sent),
        1 => Just(Step::Reopen),
    ]
}

fn status(n: u8) -> Status {
    [Status::Started, Status::Updated, Status::Ended][usize::from(n)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn loses_nothing(steps in prop::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kinewatch.db");
        let mut store = Store::open(&path, StoreOptions::default()).unwrap();
        let payload = |sequence: u64| sequence.to_be_bytes().to_vec();
        let mut next = 1_u64;
        let mut pending = BTreeSet::new();
        let mut parked = BTreeSet::new();
        let mut open = BTreeMap::new();
        for step in steps {
            match step {
                Step::Append(drafts) => {
                    let drafts: Vec<_> = drafts.iter().map(|(action, s)| Draft {
                        topic: "t".into(), action_id: action.to_string(), label: "l".into(), camera: "c".into(),
                        status: status(*s), build: &payload,
                    }).collect();
                    let appended = store.append(&drafts).unwrap();
                    prop_assert_eq!(appended.sequences, next..next + drafts.len() as u64);
                    for draft in &drafts {
                        pending.insert(next);
                        if draft.status == Status::Ended {
                            open.remove(&draft.action_id);
                        } else {
                            open.insert(draft.action_id.clone(), next);
                        }
                        next += 1;
                    }
                }
                Step::Ack(picks) => {
                    let picked: Vec<u64> = picks.iter().map(|p| u64::from(*p) % next).collect();
                    store.acked(&picked).unwrap();
                    for s in picked {
                        pending.remove(&s);
                    }
                }
                Step::Park(pick) => {
                    let s = u64::from(pick) % next;
                    store.park(s, 0x97).unwrap();
                    if pending.remove(&s) {
                        parked.insert(s);
                    }
                }
                Step::Sent(pick) => store.mark_sent(&[u64::from(pick) % next]).unwrap(),
                Step::Reopen => {
                    drop(store);
                    store = Store::open(&path, StoreOptions::default()).unwrap();
                    prop_assert_eq!(store.opened(), &Default::default());
                }
            }
            let rows = store.pending(0, 10_000).unwrap();
            prop_assert!(rows.iter().all(|r| r.payload == payload(r.sequence)));
            let found: Vec<u64> = rows.iter().map(|r| r.sequence).collect();
            prop_assert_eq!(found, pending.iter().copied().collect::<Vec<_>>());
            let found: BTreeMap<_, _> = store.open_actions().unwrap().into_iter().map(|a| (a.action_id, a.sequence)).collect();
            prop_assert_eq!(&found, &open);
            let stats = store.stats();
            let expected = ((pending.len() + parked.len()) as u64, parked.len() as u64);
            prop_assert_eq!((stats.messages, stats.parked), expected);
        }
    }
}
