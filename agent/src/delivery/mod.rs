//! Delivery: from decisions to the broker's acknowledgement.
//!
//! The `store` thread owns the SQLite store and the [`Feeder`]. Decisions come to it through a bounded queue (the sender
//! waits: every event beats fresh frames) and are on disk before anything is published. The outbox is the only truth: after
//! each connect the feeder starts again at the oldest row without an acknowledgement. Nothing here knows models or frames.

mod command;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use kinewatch_core::event::{ActionEvent, ActionStatus, ClockRecord, GapData, GapStatement, recovered_event};
use kinewatch_core::time::ClockStep;
use kinewatch_core::topic;
use kinewatch_mqtt::{Outgoing, Signal};
use kinewatch_store::{Draft, OpenAction, Row, Status, Store, StoreError};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

pub use self::command::{Command, ConsumerAck, NewEvent, Resending};
use crate::clock::wall_ns;
use crate::clock_journal::ClockJournal;
use crate::health::{DeliveryView, Shared};

/// Commands that may wait for the store thread before their sender does.
pub const QUEUE: usize = 1024;
/// A row that waited longer is late: it is marked `replayed`.
const LATE_AFTER: Duration = Duration::from_secs(10);
/// Events stored in one transaction at most.
const GROUP: usize = 64;
/// How long the thread sleeps when nothing comes; its heartbeat is not older than this.
const IDLE: Duration = Duration::from_secs(1);

/// The store thread's work.
#[derive(Debug)]
pub struct Delivery {
    store: Store,
    feeder: Feeder,
    shared: Arc<Shared>,
    clock: ClockJournal,
    unsaved: Vec<NewEvent>,
    acknowledged: Vec<u64>,
    /// The last round failed: say it once.
    failing: bool,
    draining: Option<oneshot::Sender<()>>,
}

impl Delivery {
    /// Ends the actions that a crash left open, with `recovered`, and prepares to publish through `outgoing`.
    ///
    /// # Errors
    /// The store could not be read or written.
    pub fn new(
        store: Store,
        window: usize,
        outgoing: mpsc::Sender<Outgoing>,
        shared: Arc<Shared>,
        clock: ClockJournal,
    ) -> Result<Self, StoreError> {
        let open = store.open_actions()?;
        let unsaved: Vec<_> = open.iter().filter_map(|action| recovered(action, clock.record(), wall_ns())).collect();
        if !unsaved.is_empty() {
            tracing::warn!(actions = unsaved.len(), "actions left open by the last run are ended with `recovered`");
        }
        let feeder = Feeder::new(window, outgoing);
        shared.clock.store(Some(Arc::new(clock.record().clone())));
        let mut delivery =
            Self { store, feeder, shared, clock, unsaved, acknowledged: Vec::new(), failing: false, draining: None };
        delivery.save()?;
        Ok(delivery)
    }

    /// Serves commands until [`Command::Stop`]; the heartbeat is touched at least once a second.
    pub fn run(mut self, mut commands: mpsc::Receiver<Command>, runtime: &Handle) {
        let mut stopping = false;
        while !stopping {
            if self.unsaved.len() >= QUEUE {
                // A disk that fails for long: senders wait, so frames are lost and no event is.
                runtime.block_on(tokio::time::sleep(IDLE));
                stopping = self.shared.stopping.load(Relaxed);
            } else {
                match runtime.block_on(async { tokio::time::timeout(IDLE, commands.recv()).await }) {
                    Ok(Some(command)) => stopping = self.take(command),
                    Ok(None) => stopping = true,
                    Err(_) => {}
                }
            }
            while !stopping && self.unsaved.len() < GROUP {
                let Ok(command) = commands.try_recv() else { break };
                stopping = self.take(command);
            }
            self.work();
            self.shared.beat(&self.shared.store_beat_ms);
        }
        while let Ok(command) = commands.try_recv() {
            self.take(command);
        }
        self.work();
        if !self.unsaved.is_empty() {
            self.view().decisions_lost.fetch_add(self.unsaved.len() as u64, Relaxed);
            tracing::error!(events = self.unsaved.len(), "events could not be stored before the end and are lost");
        }
    }

    fn take(&mut self, command: Command) -> bool {
        match command {
            Command::Event(event) => self.unsaved.push(*event),
            Command::ClockStepped(step) => self.clock_stepped(&step),
            Command::Signal(signal) => self.signal(signal),
            Command::Consumed { reply, .. } => refuse(reply),
            Command::Resend { reply, .. } => refuse(reply),
            Command::Drain(reply) => self.draining = Some(reply),
            Command::Stop => return true,
        }
        false
    }

    fn clock_stepped(&mut self, step: &ClockStep) {
        // Numbers are given out without a hole: what waits to be stored will have the next ones.
        let last_sequence = self.store.last_sequence() + self.unsaved.len() as u64;
        self.clock.note(step, last_sequence);
        self.shared.clock.store(Some(Arc::new(self.clock.record().clone())));
    }

    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Connected { generation, .. } => self.feeder.connected(generation),
            Signal::Disconnected { .. } => self.feeder.disconnected(),
            Signal::Acked { sequence } => {
                self.feeder.settled(sequence);
                self.acknowledged.push(sequence);
            }
            Signal::Deferred { sequence, .. } => {
                self.feeder.deferred(sequence);
                self.view().deferred.fetch_add(1, Relaxed);
            }
            Signal::Subscribed { .. } => {}
            Signal::Refused { sequence, code } => {
                self.feeder.settled(sequence);
                self.view().refused.fetch_add(1, Relaxed);
                tracing::error!(
                    sequence,
                    code,
                    "the broker refuses this event for good; it is set aside and stated on sys/gap"
                );
                if let Err(error) = self.store.park(sequence, code) {
                    tracing::error!(%error, "setting the refused event aside failed");
                }
            }
        }
    }

    /// Stores, forgets what was acknowledged, sends on. A failing disk is said once and tried again on the next round.
    fn work(&mut self) {
        // Each on its own: a full disk is emptied by forgetting and sending what is stored.
        let forgotten = self.forget();
        let saved = self.save();
        let fed = self.feeder.feed(&mut self.store, &self.shared);
        let result = saved.and(forgotten).and(fed);
        self.note_outbox();
        let stats = self.store.stats();
        if stats.messages == stats.parked || !self.feeder.is_connected() {
            // Whoever asked may have stopped waiting.
            let _gone = self.draining.take().map(|reply| reply.send(()));
        }
        match result {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.view().store_errors.fetch_add(1, Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the store fails; events wait in memory and are tried again every second");
                }
            }
        }
    }

    fn note_outbox(&self) {
        let (stats, view) = (self.store.stats(), self.view());
        view.outbox_messages.store(stats.messages, Relaxed);
        view.outbox_bytes.store(stats.bytes, Relaxed);
        view.outbox_oldest_unix_ns.store(stats.oldest_unix_ns.unwrap_or(0), Relaxed);
        view.outbox_parked.store(stats.parked, Relaxed);
    }

    fn view(&self) -> &DeliveryView {
        &self.shared.delivery
    }

    fn save(&mut self) -> Result<(), StoreError> {
        while !self.unsaved.is_empty() {
            let chunk = &self.unsaved[..self.unsaved.len().min(GROUP)];
            let build: Vec<_> = chunk.iter().map(|new| move |sequence| with_sequence(&new.event, sequence)).collect();
            let drafts: Vec<_> = chunk
                .iter()
                .zip(&build)
                .map(|(new, build)| Draft {
                    topic: new.topic.clone(),
                    action_id: new.event.data.action_id.to_string(),
                    label: new.event.data.label.clone(),
                    camera: new.event.data.camera.id.clone(),
                    status: status(&new.event),
                    build,
                })
                .collect();
            let stored = drafts.len();
            let appended = self.store.append(&drafts)?;
            self.unsaved.drain(..stored);
            for gap in appended.dropped {
                self.view().outbox_dropped.fetch_add(gap.last - gap.first + 1, Relaxed);
                tracing::error!(first = gap.first, last = gap.last, "the outbox is over its quota: events dropped");
            }
        }
        Ok(())
    }

    fn forget(&mut self) -> Result<(), StoreError> {
        if !self.acknowledged.is_empty() {
            self.store.acked(&self.acknowledged)?;
            self.view().acked.fetch_add(self.acknowledged.len() as u64, Relaxed);
            self.acknowledged.clear();
        }
        Ok(())
    }
}

/// Messages leave the disk on the broker's acknowledgement.
fn refuse<T>(reply: oneshot::Sender<Result<T, String>>) {
    let _gone = reply.send(Err("messages are not kept for a consumer here".into()));
}

fn with_sequence(event: &ActionEvent, sequence: u64) -> Vec<u8> {
    let mut event = event.clone();
    event.sequence = format!("{sequence:020}");
    event.to_json()
}

fn status(event: &ActionEvent) -> Status {
    match event.data.status {
        ActionStatus::Started => Status::Started,
        ActionStatus::Updated => Status::Updated,
        ActionStatus::Ended => Status::Ended,
    }
}

/// The `ended` of an action that a crash left open, dated by the clock as it is now; `None`, said in the log, when its last message cannot be read.
fn recovered(action: &OpenAction, clock: &ClockRecord, now_unix_ns: i64) -> Option<NewEvent> {
    match serde_json::from_slice::<ActionEvent>(&action.last_payload) {
        Ok(mut last) => {
            clock.correct(&mut last);
            let event = recovered_event(&last, Uuid::now_v7(), now_unix_ns, 0);
            Some(NewEvent { topic: action.topic.clone(), event })
        }
        Err(error) => {
            tracing::error!(action = action.action_id, %error, "an open action cannot be read and stays open");
            None
        }
    }
}

/// Keeps the client's window full of the oldest rows that are not acknowledged.
#[derive(Debug)]
struct Feeder {
    window: usize,
    outgoing: mpsc::Sender<Outgoing>,
    /// Connection that rows are sent on; `None` while there is none.
    generation: Option<u64>,
    /// Everything up to this sequence was handed to the client on this connection.
    cursor: u64,
    /// Gaps stated on this connection, by their last number; their order is not that of the numbers.
    stated: BTreeSet<u64>,
    /// What the client has and the broker has not answered.
    in_flight: BTreeSet<u64>,
}

impl Feeder {
    fn new(window: usize, outgoing: mpsc::Sender<Outgoing>) -> Self {
        Self { window, outgoing, generation: None, cursor: 0, stated: BTreeSet::new(), in_flight: BTreeSet::new() }
    }

    fn connected(&mut self, generation: u64) {
        self.generation = Some(generation);
        self.cursor = 0;
        self.stated.clear();
        self.in_flight.clear();
    }

    fn disconnected(&mut self) {
        self.generation = None;
    }

    fn is_connected(&self) -> bool {
        self.generation.is_some()
    }

    fn settled(&mut self, sequence: u64) {
        self.in_flight.remove(&sequence);
    }

    /// The broker does not take it now: it goes out again, before what follows it.
    fn deferred(&mut self, sequence: u64) {
        self.settled(sequence);
        self.stated.remove(&sequence);
        self.cursor = self.cursor.min(sequence.saturating_sub(1));
    }

    fn feed(&mut self, store: &mut Store, shared: &Shared) -> Result<(), StoreError> {
        let Some(generation) = self.generation else { return Ok(()) };
        while self.in_flight.len() < self.window {
            let mut rows = store.pending(self.cursor, self.window - self.in_flight.len())?;
            let Some(last) = rows.last().map(|row| row.sequence) else {
                return self.state_gaps(generation, store, shared);
            };
            rows.retain(|row| !self.in_flight.contains(&row.sequence));
            let sequences: Vec<_> = rows.iter().map(|row| row.sequence).collect();
            store.mark_sent(&sequences)?;
            for row in rows {
                let (sequence, topic) = (row.sequence, row.topic.clone());
                let payload = payload(row, wall_ns());
                if self.outgoing.try_send(Outgoing { generation, sequence, topic, payload }).is_err() {
                    // The client is gone or behind: it starts again with its next connection.
                    self.generation = None;
                    return Ok(());
                }
                self.in_flight.insert(sequence);
            }
            self.cursor = last;
        }
        Ok(())
    }

    /// Ranges that will never come are stated once the rows before them have been sent.
    fn state_gaps(&mut self, generation: u64, store: &mut Store, shared: &Shared) -> Result<(), StoreError> {
        let room = self.window.saturating_sub(self.in_flight.len());
        let gaps = store.gaps(self.window)?;
        self.stated.retain(|last| gaps.iter().any(|gap| gap.last == *last));
        for gap in gaps.into_iter().take(room) {
            if self.stated.contains(&gap.last) {
                continue;
            }
            let (group, device) = (&shared.group, &shared.device);
            let data = GapData { first: gap.first, last: gap.last, reason: gap.reason };
            let statement = GapStatement::new(group, device, Uuid::now_v7(), wall_ns(), data);
            let payload = Bytes::from(serde_json::to_vec(&statement).unwrap_or_default());
            let outgoing = Outgoing { generation, sequence: gap.last, topic: topic::gap(group, device), payload };
            if self.outgoing.try_send(outgoing).is_err() {
                self.generation = None;
                return Ok(());
            }
            self.stated.insert(gap.last);
            self.in_flight.insert(gap.last);
        }
        Ok(())
    }
}

/// The payload to send: as stored, but marked when it is late or goes out again.
fn payload(row: Row, now_unix_ns: i64) -> Bytes {
    let waited = now_unix_ns.saturating_sub(row.created_unix_ns);
    if row.attempts == 0 && waited < LATE_AFTER.as_nanos() as i64 {
        return Bytes::from(row.payload);
    }
    match serde_json::from_slice::<ActionEvent>(&row.payload) {
        Ok(mut event) => {
            event.mark_replayed((waited as f64 / 1e6).round());
            Bytes::from(event.to_json())
        }
        Err(_) => Bytes::from(row.payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(attempts: u32, created_unix_ns: i64) -> Row {
        let last = include_str!("../../../config/schema/example-action-event.json");
        let payload = last.trim().as_bytes().to_vec();
        Row { sequence: 1, topic: "t".into(), payload, created_unix_ns, attempts, first_sent_unix_ns: None }
    }

    fn replayed(payload: &[u8]) -> bool {
        serde_json::from_slice::<ActionEvent>(payload).unwrap().data.replayed
    }

    #[test]
    fn what_is_late_or_goes_out_again_says_so() {
        let now = 100_000_000_000;
        assert!(!replayed(&payload(row(0, now - 1_000_000_000), now)), "a second is not late");
        assert!(replayed(&payload(row(0, now - 11_000_000_000), now)));
        assert!(replayed(&payload(row(1, now), now)));
    }

    #[test]
    fn events_that_wait_for_the_disk_are_counted_as_of_before_the_step() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("events.db"), kinewatch_store::StoreOptions::default()).unwrap();
        let state = kinewatch_core::event::ClockState { boot_id: Some("b".into()), ..Default::default() };
        let (journal, mut clock) = ClockJournal::open(dir.path(), 1, 0, ((0, 0), &state));
        let (outgoing, _sent) = mpsc::channel(1);
        let shared = Arc::new(Shared::new("g", "d", "b", vec![], vec![]));
        let mut delivery = Delivery::new(store, 1, outgoing, Arc::clone(&shared), journal).unwrap();
        let event = |id: u128| {
            let text = include_str!("../../../config/schema/example-action-event.json");
            let mut event: ActionEvent = serde_json::from_str(text).unwrap();
            (event.id, event.data.action_id) = (Uuid::from_u128(id), Uuid::from_u128(id));
            Command::Event(Box::new(NewEvent { topic: "t".into(), event }))
        };
        delivery.take(event(1));
        delivery.save().unwrap();
        delivery.take(event(2));
        delivery.take(Command::ClockStepped(clock.look(0, 3_600_000_000_000, true).unwrap()));
        delivery.take(event(3));
        delivery.save().unwrap();
        assert_eq!(delivery.store.last_sequence(), 3);
        let record = shared.clock.load_full().unwrap();
        assert_eq!((record.steps[0].last_sequence, record.steps[0].step_ms), (2, 3_600_000.0));
    }
}
