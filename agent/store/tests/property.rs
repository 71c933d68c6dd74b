//! Any interleaving of append, hand over, acknowledge, refuse, resend and reopen, in an outbox that is too small for it: every
//! number is accounted for, what may have been seen never changes, and the revisions of an action never collide, nor tear
//! where only unseen updates had to go. `PROPTEST_CASES` makes it longer.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use kinewatch_store::{Handing, KeepUntil, OutboxRow, Reader, Status, Store, StoreOptions, Waiting};
use proptest::prelude::*;
use support::{at, database, draft, options, read};

#[derive(Debug, Clone)]
enum Step {
    /// (Slot of an action, whether it ends it), and whether the client gets them at once.
    Append(Vec<(u8, bool)>, bool),
    /// From somewhere, so many.
    Offer(u16, u8),
    Ack(Vec<u16>),
    Park(u16),
    Stated(u8),
    Consumed(u16),
    Resend(u16),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let slot = (0_u8..4, prop::bool::weighted(0.15));
    prop_oneof![
        8 => (prop::collection::vec(slot, 1..5), prop::bool::weighted(0.2)).prop_map(|(s, now)| Step::Append(s, now)),
        3 => (any::<u16>(), 1_u8..6).prop_map(|(above, n)| Step::Offer(above, n)),
        3 => prop::collection::vec(any::<u16>(), 0..4).prop_map(Step::Ack),
        1 => any::<u16>().prop_map(Step::Park),
        1 => any::<u8>().prop_map(Step::Stated),
        1 => any::<u16>().prop_map(Step::Consumed),
        1 => any::<u16>().prop_map(Step::Resend),
        1 => Just(Step::Reopen),
    ]
}

/// What is known from outside.
#[derive(Debug, Default)]
struct Model {
    /// Action and status of every number ever given out.
    events: BTreeMap<u64, (String, Status)>,
    /// Revision under which a number was handed to the client.
    seen: BTreeMap<u64, u32>,
    /// Settled by the broker or a consumer.
    settled: BTreeSet<u64>,
    /// Numbers whose gap was acknowledged.
    stated: BTreeSet<u64>,
    /// Numbers gone or refused so far.
    lost: BTreeSet<u64>,
    /// Actions that lost more than unseen updates at their end.
    torn: BTreeSet<String>,
    /// Action in each slot, and how many there were.
    slots: [Option<String>; 4],
    actions: u32,
}

impl Model {
    fn next(&self) -> u64 {
        self.events.len() as u64 + 1
    }

    /// A number among all that were given out.
    fn pick(&self, pick: u16) -> u64 {
        u64::from(pick) % self.next() + 1
    }

    fn status(&mut self, slot: usize, end: bool) -> (String, Status) {
        if let Some(action) = self.slots[slot].clone() {
            if end {
                self.slots[slot] = None;
            }
            return (action, if end { Status::Ended } else { Status::Updated });
        }
        self.actions += 1;
        let action = format!("action-{}", self.actions);
        self.slots[slot] = Some(action.clone());
        (action, Status::Started)
    }

    /// Holds what the store says now against what was done.
    fn check(&mut self, store: &Store, reader: &Reader, limit: u64) -> Result<(), TestCaseError> {
        let rows = reader.outbox(0, usize::MAX >> 1).unwrap();
        let rows: BTreeMap<u64, OutboxRow> = rows.into_iter().map(|row| (row.sequence, row)).collect();
        let of = |wanted: Waiting| rows.values().filter(|row| row.waits_for == wanted).count() as u64;
        let parked = rows.values().filter(|row| matches!(row.waits_for, Waiting::Parked(_))).count() as u64;
        let stats = store.stats();
        prop_assert_eq!(
            (stats.waiting, stats.kept, stats.parked),
            (of(Waiting::Broker), of(Waiting::Consumer), parked)
        );
        prop_assert_eq!(stats.bytes, rows.values().map(|row| row.bytes).sum::<u64>());
        prop_assert!(stats.bytes <= limit, "{} bytes of {limit}", stats.bytes);
        let mut gaps = BTreeSet::new();
        for gap in reader.gaps(usize::MAX >> 1).unwrap() {
            gaps.extend(gap.first..=gap.last);
        }
        for sequence in self.events.keys() {
            let waits = rows.get(sequence).is_some_and(|row| !matches!(row.waits_for, Waiting::Parked(_)));
            let stated = gaps.contains(sequence) || self.stated.contains(sequence);
            let settled = self.settled.contains(sequence);
            prop_assert!(waits || stated || settled, "{sequence} is not accounted for");
            prop_assert!(!(waits && gaps.contains(sequence)), "{sequence} waits and is stated as lost");
        }
        self.note_losses(&rows)?;
        self.check_revisions(store)
    }

    fn note_losses(&mut self, rows: &BTreeMap<u64, OutboxRow>) -> Result<(), TestCaseError> {
        let is_lost = |sequence: &u64| match rows.get(sequence) {
            Some(row) => matches!(row.waits_for, Waiting::Parked(_)),
            None => !self.settled.contains(sequence),
        };
        let lost: BTreeSet<u64> = self.events.keys().filter(|s| is_lost(s)).copied().collect();
        for sequence in lost.difference(&self.lost) {
            let (action, status) = &self.events[sequence];
            let of_action = self.events.range(sequence + 1..).filter(|(_, (a, _))| a == action);
            let later_known = of_action.clone().any(|(s, _)| self.seen.contains_key(s));
            let unseen_update = *status == Status::Updated && !self.seen.contains_key(sequence);
            if !unseen_update || later_known {
                self.torn.insert(action.clone());
            }
            if *status == Status::Ended && !self.seen.contains_key(sequence) {
                let started = self.events.iter().find(|(_, e)| e.0 == *action && e.1 == Status::Started);
                let started = started.and_then(|(s, _)| rows.get(s));
                prop_assert!(started.is_none_or(|r| r.waits_for != Waiting::Broker), "{action}: `ended` went first");
            }
        }
        self.lost = lost;
        Ok(())
    }

    fn check_revisions(&self, store: &Store) -> Result<(), TestCaseError> {
        let mut revisions: BTreeMap<&str, BTreeMap<u64, u32>> = BTreeMap::new();
        for (sequence, rev) in &self.seen {
            revisions.entry(&self.events[sequence].0).or_default().insert(*sequence, *rev);
        }
        for row in store.pending(0, usize::MAX >> 1).unwrap() {
            let (sequence, rev) = read(&row.payload);
            prop_assert_eq!(sequence, row.sequence);
            if let Some(seen) = self.seen.get(&sequence) {
                prop_assert_eq!(*seen, rev, "{} was seen, and changed", sequence);
            }
            revisions.entry(&self.events[&sequence].0).or_default().insert(sequence, rev);
        }
        for (action, revs) in revisions {
            let revs: Vec<u32> = revs.into_values().collect();
            prop_assert!(revs.windows(2).all(|w| w[0] < w[1]), "{action}: {revs:?}");
            if !self.torn.contains(action) {
                prop_assert!(revs.iter().enumerate().all(|(i, rev)| *rev == i as u32), "{action}: {revs:?}");
            }
        }
        Ok(())
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(32)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]
    #[test]
    fn every_number_is_accounted_for(
        steps in prop::collection::vec(step(), 1..70),
        rows in 8_u64..40,
        consumer in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let keep_until = if consumer { KeepUntil::Consumer } else { KeepUntil::Broker };
        let limit = rows * 160;
        let options = StoreOptions { outbox_bytes: limit, keep_until, history_rows: 1 << 40, ..options() };
        let open = || Store::open(database(dir.path()), options.clone(), &at(0), None).unwrap();
        let mut store = open();
        let reader = Reader::open(&database(dir.path())).unwrap();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Append(slots, now) => {
                    let made: Vec<_> = slots.iter().map(|(slot, end)| model.status(usize::from(*slot), *end)).collect();
                    let drafts: Vec<_> = made.iter().map(|(action, status)| draft(action, *status)).collect();
                    let handing = if now { Handing::Now } else { Handing::Later };
                    let appended = store.append(&at(0), &drafts, handing).unwrap();
                    prop_assert_eq!(appended.sequences.clone(), model.next()..model.next() + made.len() as u64);
                    model.events.extend(appended.sequences.zip(made));
                    model.seen.extend(appended.rows.iter().map(|row| read(&row.payload)));
                }
                Step::Offer(above, limit) => {
                    let above = model.pick(above) - 1;
                    let offered = store.offer(&at(0), above, u64::MAX, usize::from(limit)).unwrap();
                    model.seen.extend(offered.iter().map(|row| read(&row.payload)));
                }
                Step::Ack(picks) => {
                    let picked: Vec<u64> = picks.iter().map(|pick| model.pick(*pick)).collect();
                    let picked: Vec<u64> = picked.into_iter().filter(|s| model.seen.contains_key(s)).collect();
                    let waiting = support::waiting(&store);
                    store.acked(&picked).unwrap();
                    if !consumer {
                        model.settled.extend(picked.iter().filter(|s| waiting.contains(s)));
                    }
                }
                Step::Park(pick) => {
                    let sequence = model.pick(pick);
                    if model.seen.contains_key(&sequence) {
                        store.park(&at(0), sequence, 0x97).unwrap();
                    }
                }
                Step::Stated(n) => {
                    let gaps = store.gaps(usize::from(n)).unwrap();
                    store.stated(&gaps.iter().map(|gap| gap.first..=gap.last).collect::<Vec<_>>()).unwrap();
                    gaps.iter().for_each(|gap| model.stated.extend(gap.first..=gap.last));
                }
                Step::Consumed(pick) => {
                    let up_to = model.pick(pick);
                    let rows = reader.outbox(0, usize::MAX >> 1).unwrap();
                    let gone = |row: &&OutboxRow| row.sequence <= up_to && row.waits_for == Waiting::Consumer;
                    let gone: Vec<u64> = rows.iter().filter(gone).map(|row| row.sequence).collect();
                    prop_assert_eq!(store.consumed(up_to).unwrap().released, gone.len() as u64);
                    model.settled.extend(gone);
                }
                Step::Resend(pick) => {
                    let before = store.stats().kept;
                    let again = store.resend(model.pick(pick)).unwrap();
                    prop_assert_eq!(store.stats().kept, before - again.messages);
                }
                Step::Reopen => {
                    drop(store);
                    store = open();
                    prop_assert_eq!(store.opened(), &Default::default());
                }
            }
            model.check(&store, &reader, limit)?;
        }
    }
}
