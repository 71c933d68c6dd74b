//! The store thread's work without a thread: commands in, messages for the client out.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use kinewatch_core::event::{ActionStatus, ClockState, StoreCondition};
use kinewatch_core::time::DeviceClock;
use kinewatch_mqtt::{DisconnectReason, Outgoing, Signal, Version};
use kinewatch_store::{Handing, KeepUntil, StoreOptions};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

mod disk;
mod held;

use super::message::tests::example;
use super::*;

/// A store thread that the test is.
struct Bench {
    delivery: Delivery,
    outgoing: mpsc::Receiver<Outgoing>,
    shared: Arc<Shared>,
    clock: DeviceClock,
    generation: u64,
    state: PathBuf,
}

/// What was sent.
#[derive(Debug)]
struct Sent {
    sequence: u64,
    topic: String,
    value: Value,
}

const FEED: FeedOptions = FeedOptions { window: 4, order: SendOrder::Sequence, backlog_per_s: 10_000 };

impl Bench {
    fn new(state: impl Into<PathBuf>, options: StoreOptions, feed: FeedOptions) -> Self {
        let state = state.into();
        let shared = Arc::new(Shared::new("g", "d", "b", vec![], vec![]));
        let keep_until = options.keep_until;
        let disk = Disk::open(&state, store_options(options), Arc::clone(&shared)).unwrap();
        let boot = ClockState { boot_id: Some("b".into()), ..ClockState::default() };
        let (journal, clock, step) = ClockJournal::open(&state, disk.session(), ((0, 0), &boot));
        let (send, outgoing) = mpsc::channel(64);
        let mut delivery = Delivery::new(disk, keep_until, feed, send, Arc::clone(&shared), (journal, step));
        delivery.work();
        Self { delivery, outgoing, shared, clock, generation: 0, state }
    }

    fn usual(state: impl Into<PathBuf>) -> Self {
        Self::new(state, StoreOptions::default(), FEED)
    }

    /// An event of the action `action`; what it says of its revision does not count.
    fn event(&mut self, action: u128, status: ActionStatus) {
        let mut event = example();
        (event.id, event.data.action_id, event.data.status) = (Uuid::now_v7(), Uuid::from_u128(action), status);
        event.data.rev = 0;
        self.delivery.decided(Decided::Event(Box::new(NewEvent { topic: format!("t/{action}"), event })));
    }

    fn started(&mut self, actions: std::ops::Range<u128>) {
        actions.for_each(|action| self.event(action, ActionStatus::Started));
        self.delivery.work();
    }

    fn connect(&mut self) {
        self.generation += 1;
        self.signal(Signal::Connected { generation: self.generation, protocol: Version::V5 });
    }

    fn signal(&mut self, signal: Signal) {
        self.delivery.take(Command::Signal(signal));
        self.delivery.work();
    }

    fn ack(&mut self, sequence: u64) {
        self.signal(Signal::Acked { sequence });
    }

    fn sent(&mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        while let Ok(Outgoing { generation, sequence, topic, payload }) = self.outgoing.try_recv() {
            assert_eq!(generation, self.generation);
            all.push(Sent { sequence, topic, value: serde_json::from_slice(&payload).unwrap() });
        }
        all
    }

    fn sequences(&mut self) -> Vec<u64> {
        self.sent().iter().map(|sent| sent.sequence).collect()
    }

    /// Sends and acknowledges until nothing more comes; numbers in the order of sending.
    fn drain(&mut self) -> Vec<u64> {
        let mut all = Vec::new();
        loop {
            let sent = self.sequences();
            if sent.is_empty() {
                return all;
            }
            sent.iter().for_each(|sequence| self.ack(*sequence));
            all.extend(sent);
        }
    }

    fn condition(&self) -> StoreCondition {
        self.shared.store.status.load_full().unwrap().state
    }

    /// Lets the next round try the disk, whatever the time.
    fn retry(&mut self) {
        self.delivery.disk.hurry();
        self.delivery.work();
    }

    fn waiting(&mut self) -> u64 {
        self.delivery.disk.store().unwrap().stats().waiting
    }
}

fn is_replayed(sent: &Sent) -> bool {
    sent.value["data"]["replayed"] == true
}

#[test]
fn events_go_out_in_order_and_a_new_connection_begins_with_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.started(0..6);
    assert_eq!(bench.sequences(), [0; 0], "nobody to send to");
    bench.connect();
    let sent = bench.sent();
    assert_eq!(sent.iter().map(|s| s.sequence).collect::<Vec<_>>(), [1, 2, 3, 4], "the window");
    assert_eq!((sent[0].topic.as_str(), &sent[0].value["sequence"]), ("t/0", &"00000000000000000001".into()));
    assert!(!sent.iter().any(is_replayed), "a moment ago is no outage");
    bench.ack(2);
    bench.ack(1);
    assert_eq!(bench.sequences(), [5, 6]);
    bench.signal(Signal::Disconnected { reason: DisconnectReason::KeepAlive });
    bench.started(6..7);
    bench.connect();
    let sent = bench.sent();
    let told: Vec<_> = sent.iter().map(|s| (s.sequence, is_replayed(s))).collect();
    assert_eq!(told, [(3, true), (4, true), (5, true), (6, true)], "again");
    assert_eq!(bench.drain(), [0; 0]);
    for sequence in 3..=6 {
        bench.ack(sequence);
    }
    assert_eq!(bench.drain(), [7]);
    assert_eq!((bench.waiting(), bench.shared.delivery.acked.load(Relaxed)), (0, 7));
}

#[test]
fn what_is_stored_while_nothing_waits_goes_out_without_being_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.connect();
    bench.started(0..3);
    assert_eq!(bench.sequences(), [1, 2, 3]);
    let store = bench.delivery.disk.store().unwrap();
    assert!(store.pending(0, 9).unwrap().iter().all(|row| row.attempts == 1));
    bench.started(3..9);
    assert_eq!(bench.sequences(), [4]);
    (1..=4).for_each(|sequence| bench.ack(sequence));
    assert_eq!(bench.drain(), [5, 6, 7, 8, 9]);
}

#[test]
fn the_store_counts_the_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.connect();
    for status in [ActionStatus::Started, ActionStatus::Updated, ActionStatus::Ended] {
        bench.event(1, status);
    }
    bench.delivery.work();
    let revs: Vec<_> = bench.sent().iter().map(|s| s.value["data"]["rev"].as_u64().unwrap()).collect();
    assert_eq!(revs, [0, 1, 2]);
}

#[test]
fn a_refused_event_is_parked_and_stated_before_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.started(0..9);
    bench.connect();
    assert_eq!(bench.sequences(), [1, 2, 3, 4]);
    bench.signal(Signal::Refused { sequence: 2, code: 0x97 });
    let sent = bench.sent();
    assert_eq!(sent[0].topic, "kinewatch/v1/g/d/sys/gap");
    assert_eq!((&sent[0].value["data"]["first"], &sent[0].value["data"]["last"]), (&2.into(), &2.into()));
    assert_eq!(bench.shared.delivery.outbox_parked.load(Relaxed), 1);
    bench.ack(1);
    assert_eq!(bench.sequences(), [5]);
    bench.ack(2);
    assert_eq!(bench.sequences(), [6], "the statement has arrived and is not made again");
    [3, 4, 5, 6].into_iter().for_each(|sequence| bench.ack(sequence));
    assert_eq!(bench.drain(), [7, 8, 9]);
    assert_eq!((bench.waiting(), bench.shared.delivery.refused.load(Relaxed)), (0, 1));
}

#[test]
fn a_stop_waits_for_the_statement_of_what_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.started(0..1);
    bench.connect();
    assert_eq!(bench.sequences(), [1]);
    let (reply, mut drained) = oneshot::channel();
    bench.delivery.take(Command::Drain(reply));
    bench.signal(Signal::Refused { sequence: 1, code: 0x97 });
    assert_eq!((bench.sequences(), bench.waiting()), (vec![1], 0), "the statement is under way");
    assert!(drained.try_recv().is_err());
    bench.ack(1);
    assert_eq!(drained.try_recv(), Ok(()));
}

#[test]
fn a_refused_statement_is_no_refused_event_and_is_made_again_when_the_store_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.started(0..2);
    bench.connect();
    assert_eq!(bench.sequences(), [1, 2]);
    bench.signal(Signal::Refused { sequence: 2, code: 0x87 });
    assert_eq!(bench.sequences(), [2], "the statement");
    bench.signal(Signal::Refused { sequence: 2, code: 0x87 });
    assert_eq!((bench.sequences(), bench.shared.delivery.refused.load(Relaxed)), (vec![], 1));
    bench.delivery.disk.failed(StoreError::Moved { path: database(dir.path()) });
    bench.retry();
    let sent = bench.sent();
    assert_eq!((sent[0].sequence, sent[0].topic.as_str()), (2, "kinewatch/v1/g/d/sys/gap"));
}

#[test]
fn a_statement_waits_for_the_answer_to_the_message_of_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.started(0..2);
    bench.connect();
    assert_eq!(bench.sequences(), [1, 2]);
    // The quota takes what is in flight.
    let now = bench.delivery.disk.stamp();
    bench.delivery.disk.store().unwrap().park(&now, 2, 0).unwrap();
    bench.delivery.work();
    assert_eq!(bench.sequences(), [0; 0], "the number would have two answers");
    bench.ack(2);
    let sent = bench.sent();
    assert_eq!((sent.len(), sent[0].topic.as_str()), (1, "kinewatch/v1/g/d/sys/gap"));
}

#[test]
fn a_gap_does_not_overtake_the_message_of_its_number_that_was_read_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.started(0..9);
    bench.connect();
    assert_eq!(bench.sequences(), [1, 2, 3, 4], "the others are read ahead");
    // The quota takes one of those.
    let now = bench.delivery.disk.stamp();
    bench.delivery.disk.store().unwrap().park(&now, 6, 0).unwrap();
    for sequence in 1..=3 {
        bench.delivery.take(Command::Signal(Signal::Acked { sequence }));
    }
    bench.delivery.work();
    let topics: Vec<_> = bench.sent().into_iter().map(|sent| (sent.sequence, sent.topic)).collect();
    assert_eq!(topics, [5, 6, 7].map(|n: u64| (n, format!("t/{}", n - 1))), "the number would have two answers");
    bench.ack(6);
    let sent = bench.sent();
    assert_eq!((sent[0].sequence, sent[0].topic.as_str()), (6, "kinewatch/v1/g/d/sys/gap"));
}

#[test]
fn a_message_that_the_broker_does_not_take_now_goes_out_again_and_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.started(0..4);
    bench.connect();
    assert_eq!(bench.sequences(), [1, 2, 3, 4]);
    bench.signal(Signal::Deferred { sequence: 2, code: 0x83 });
    let due = bench.delivery.feeder.wake().expect("it is known when 2 goes out again");
    assert!(bench.delivery.rest() <= IDLE);
    bench.started(4..6);
    assert_eq!(bench.sequences(), [5], "there is room again, but not for 2");
    while Instant::now() < due {
        std::thread::yield_now();
    }
    bench.delivery.work();
    assert!(bench.delivery.rest() > Duration::from_millis(500), "the window is full: nothing to do but to wait");
    bench.ack(1);
    assert_eq!(bench.sequences(), [2], "what is older goes first");
    bench.signal(Signal::Deferred { sequence: 2, code: 0x83 });
    assert_eq!(bench.sequences(), [6]);
    bench.ack(3);
    assert!(bench.delivery.feeder.wake().unwrap() > Instant::now() + Duration::from_millis(1500), "it waits longer");
    bench.started(6..10);
    assert_eq!(bench.sequences(), [7]);
    // All are put off: nothing else is tried.
    for sequence in [4, 5, 6, 7] {
        bench.signal(Signal::Deferred { sequence, code: 0x83 });
    }
    assert_eq!(bench.sequences(), [8, 9], "as many wait as the window is large");
    assert_eq!(bench.shared.delivery.deferred.load(Relaxed), 6);
    bench.connect();
    assert_eq!(bench.sequences(), [2, 4, 5, 6], "a new connection is a new attempt");
}

#[test]
fn a_client_that_falls_behind_is_sent_everything_once_it_takes_messages_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.started(0..4);
    // Connections come and go while the client takes nothing: what was meant for them fills its queue.
    while bench.outgoing.capacity() > 0 {
        bench.connect();
    }
    bench.connect();
    while bench.outgoing.try_recv().is_ok() {}
    let wake = bench.delivery.feeder.wake().expect("nothing else happens: it has to look again by itself");
    while Instant::now() < wake {
        std::thread::yield_now();
    }
    bench.delivery.work();
    assert_eq!(bench.sequences(), [1, 2, 3, 4]);
}

#[test]
fn fresh_events_go_before_the_backlog_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let feed = FeedOptions { order: SendOrder::LiveFirst, ..FEED };
    let mut bench = Bench::new(dir.path(), StoreOptions::default(), feed);
    // Stored twenty seconds ago.
    let mut then = bench.delivery.disk.stamp();
    then.boot_ns -= 20_000_000_000;
    let build = |sequence, rev| message::numbered(&example(), sequence, rev);
    let new = NewEvent { topic: "t".into(), event: example() };
    let store = bench.delivery.disk.store().unwrap();
    for _ in 0..9 {
        store.append(&then, &[draft(&new, &build)], Handing::Later).unwrap();
    }
    bench.started(0..2);
    bench.connect();
    assert_eq!(bench.sequences(), [10, 11, 1, 2], "three quarters of the window for the backlog, and no more");
    bench.started(2..3);
    bench.ack(1);
    assert_eq!(bench.sequences(), [12]);
    for sequence in [10, 11, 12, 2] {
        bench.ack(sequence);
    }
    assert_eq!(bench.sequences(), [3, 4, 5], "one place stays free");
    bench.started(3..4);
    assert_eq!(bench.sequences(), [13]);
    for sequence in [3, 4, 5, 13] {
        bench.ack(sequence);
    }
    assert_eq!(bench.drain(), [6, 7, 8, 9]);
    assert_eq!(bench.waiting(), 0);
}

#[test]
fn the_backlog_is_held_to_its_rate_and_fresh_events_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench =
        Bench::new(dir.path(), StoreOptions::default(), FeedOptions { backlog_per_s: 2, window: 100, ..FEED });
    bench.started(0..9);
    bench.connect();
    assert_eq!(bench.sequences().len(), 9, "fresh");
    bench.connect();
    assert_eq!(bench.sequences(), [1, 2], "told before: one second's worth");
    let wake = bench.delivery.feeder.wake().expect("it is known when there is more to do");
    assert!(wake <= Instant::now() + Duration::from_millis(501));
    while Instant::now() < wake {
        std::thread::yield_now();
    }
    bench.delivery.work();
    assert_eq!(bench.sequences(), [3]);
}

#[test]
fn a_consumer_acknowledges_and_asks_again() {
    let dir = tempfile::tempdir().unwrap();
    let keep = StoreOptions { keep_until: KeepUntil::Consumer, ..StoreOptions::default() };
    let mut bench = Bench::new(dir.path(), keep, FEED);
    bench.connect();
    bench.started(0..6);
    assert_eq!(bench.drain(), [1, 2, 3, 4, 5, 6]);
    assert_eq!((bench.waiting(), bench.shared.delivery.outbox_kept.load(Relaxed)), (0, 6));
    bench.connect();
    assert_eq!(bench.drain(), [0; 0], "the broker has them: a reconnection is no reason");
    let (reply, mut answer) = oneshot::channel();
    bench.delivery.take(Command::Resend { from: 4, reply });
    bench.delivery.work();
    assert_eq!(answer.try_recv().unwrap(), Ok(Resending { from: 4, first: Some(4), messages: 3 }));
    let sent = bench.sent();
    assert_eq!(
        sent.iter().map(|s| (s.sequence, is_replayed(s))).collect::<Vec<_>>(),
        [(4, true), (5, true), (6, true)]
    );
    let (reply, mut answer) = oneshot::channel();
    bench.delivery.take(Command::Consumed { up_to: 5, reply });
    bench.delivery.work();
    assert_eq!(answer.try_recv().unwrap(), Ok(ConsumerAck { up_to: 5, released: 3, kept: 0 }), "4 and 5 are in flight");
    let (reply, mut answer) = oneshot::channel();
    bench.delivery.take(Command::Consumed { up_to: 7, reply });
    bench.delivery.work();
    assert_eq!(answer.try_recv().unwrap(), Err("the newest sequence number is 6".into()));
    [4, 5, 6].into_iter().for_each(|sequence| bench.ack(sequence));
    assert_eq!(bench.shared.delivery.outbox_kept.load(Relaxed), 3, "for the next acknowledgement");
    drop(bench);
    let mut bench = Bench::usual(dir.path());
    let (reply, mut answer) = oneshot::channel();
    bench.delivery.take(Command::Resend { from: 1, reply });
    bench.delivery.work();
    assert!(answer.try_recv().unwrap().unwrap_err().contains("keep_until"));
}

#[test]
fn an_acknowledgement_by_a_consumer_takes_nothing_that_the_broker_has_not() {
    let dir = tempfile::tempdir().unwrap();
    let keep = StoreOptions { keep_until: KeepUntil::Consumer, ..StoreOptions::default() };
    let mut bench = Bench::new(dir.path(), keep, FEED);
    bench.started(0..9);
    bench.connect();
    assert_eq!(bench.sequences(), [1, 2, 3, 4], "the others are read ahead");
    bench.ack(1);
    let (reply, mut answer) = oneshot::channel();
    bench.delivery.take(Command::Consumed { up_to: 9, reply });
    bench.delivery.work();
    assert_eq!(answer.try_recv().unwrap(), Ok(ConsumerAck { up_to: 9, released: 1, kept: 0 }));
    // A new connection before the rest was sent: only what is on the disk comes.
    bench.sent();
    bench.connect();
    assert_eq!(bench.drain(), [2, 3, 4, 5, 6, 7, 8, 9]);
}
