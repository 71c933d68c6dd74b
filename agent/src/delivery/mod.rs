//! Delivery: from decisions to the broker's acknowledgement.
//!
//! The `store` thread owns the SQLite store ([`Disk`]) and the feeder. Decisions come to it through a bounded queue (the
//! sender waits: every event beats fresh frames) and are on disk before anything is published. While there is no store
//! they wait in memory, and nothing is published; when that is full, none is taken, and everything else goes on. The outbox is
//! the only truth: after each connect the feeder starts again at the oldest row without an acknowledgement. Nothing here knows
//! models or frames. `agent/design/outbox.md` has the why.

mod asked;
mod command;
mod disk;
mod dropped;
mod feeder;
mod message;
mod rate;
mod stretch;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use kinewatch_core::time::ClockStep;
use kinewatch_mqtt::{Outgoing, Signal};
use kinewatch_store::{Draft, KeepUntil, Stamp, Status, StoreError, StoreOptions};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use self::asked::Asked;
pub use self::command::{Command, ConsumerAck, Decided, NewEvent, Queues, Resending};
use self::disk::Look;
pub use self::disk::{Disk, condition, database};
use self::dropped::Refusals;
pub use self::feeder::{FeedOptions, SendOrder};
use self::feeder::{Feeder, Kind};
use crate::clock::wall_ns;
use crate::clock_journal::ClockJournal;
use crate::health::{DeliveryView, Shared};

/// What may wait for the store thread in each of its queues before the sender does; and events that wait for the store.
pub const QUEUE: usize = 1024;
/// Events stored in one transaction at most.
const GROUP: usize = 64;
/// How long the thread sleeps when nothing comes; its heartbeat is not older than this.
const IDLE: Duration = Duration::from_secs(1);
/// How soon a stop is noticed while no decision is taken.
const HELD: Duration = Duration::from_millis(100);
/// How often what is too old is looked for.
const TIDY: Duration = Duration::from_secs(60);

/// Bounds of the store, with what it has to know of our messages.
#[must_use]
pub fn store_options(bounds: StoreOptions) -> StoreOptions {
    StoreOptions { renumber: message::renumber, ..bounds }
}

/// The store thread's work.
#[derive(Debug)]
pub struct Delivery {
    disk: Disk,
    feeder: Feeder,
    shared: Arc<Shared>,
    clock: ClockJournal,
    keep_until: KeepUntil,
    /// A step of the clock that came while no agent ran.
    first_step: Option<ClockStep>,
    /// Steps that came while there was no store, each after so many of `unsaved`.
    steps: Vec<(ClockStep, usize)>,
    unsaved: Vec<NewEvent>,
    acknowledged: Answers,
    refusals: Refusals,
    asked: Vec<Asked>,
    /// Actions that this process has begun to tell of and not ended.
    open: HashSet<Uuid>,
    draining: Option<oneshot::Sender<()>>,
    tidied: Instant,
    opened: bool,
}

/// Answers of the broker that are not on disk yet.
#[derive(Debug, Default)]
struct Answers {
    events: Vec<u64>,
    gaps: Vec<RangeInclusive<u64>>,
    /// Number, kind and reason code.
    refused: Vec<(u64, Kind, u8)>,
}

/// What has woken the thread.
enum First {
    Command(Option<Command>),
    Decided(Decided),
    Nothing,
}

impl Delivery {
    /// Prepares to store on `disk` and to publish through `outgoing`. `first_step`: a step of the clock that came while no
    /// agent ran.
    #[must_use]
    pub fn new(
        disk: Disk,
        keep_until: KeepUntil,
        feed: FeedOptions,
        outgoing: mpsc::Sender<Outgoing>,
        shared: Arc<Shared>,
        (clock, first_step): (ClockJournal, Option<ClockStep>),
    ) -> Self {
        let opened = disk.is_open();
        Self {
            disk,
            feeder: Feeder::new(feed, outgoing),
            shared,
            clock,
            keep_until,
            first_step,
            steps: Vec::new(),
            unsaved: Vec::new(),
            acknowledged: Answers::default(),
            refusals: Refusals::default(),
            asked: Vec::new(),
            open: HashSet::new(),
            draining: None,
            tidied: Instant::now(),
            opened,
        }
    }

    /// Serves both queues until [`Command::Stop`]; the heartbeat is touched at least once a second, whatever the disk does but
    /// hang.
    pub fn run(mut self, mut queues: Queues, runtime: &Handle) {
        self.alive();
        self.work();
        let mut stopping = false;
        while !stopping {
            stopping = self.listen(&mut queues, runtime);
            self.work();
            self.alive();
        }
        // Who comes from here on is told that nobody listens, and counts it.
        queues.decided.close();
        while let Some(decided) = queues.decided.blocking_recv() {
            self.decided(decided);
        }
        self.finish();
    }

    /// Waits until there is something to do, and takes what has come. Whether it is time to end.
    fn listen(&mut self, queues: &mut Queues, runtime: &Handle) -> bool {
        let Queues { decided, commands } = queues;
        let takes = self.takes_decisions();
        let wait = if takes { self.rest() } else { self.rest().min(HELD) };
        let first = runtime.block_on(async {
            let next = async {
                tokio::select! {
                    command = commands.recv() => First::Command(command),
                    Some(decided) = decided.recv(), if takes => First::Decided(decided),
                }
            };
            tokio::time::timeout(wait, next).await.unwrap_or(First::Nothing)
        });
        let mut stopping = false;
        match first {
            First::Command(Some(command)) => stopping = self.take(command),
            First::Command(None) => stopping = true,
            First::Decided(decided) => self.decided(decided),
            First::Nothing => {}
        }
        while !stopping && let Ok(command) = commands.try_recv() {
            stopping = self.take(command);
        }
        // After the commands: who asks for a drain has handed over all its decisions before.
        while self.takes_decisions()
            && let Ok(decided) = decided.try_recv()
        {
            self.decided(decided);
        }
        stopping
    }

    /// Not while memory is full: then inference waits, so that frames are lost and no event is. A stop has no time for that, and
    /// what may still come of it is little: the ends of what is open.
    fn takes_decisions(&self) -> bool {
        self.unsaved.len() < QUEUE || self.shared.stopping.load(Relaxed)
    }

    fn alive(&self) {
        self.shared.stages.store.touch(Instant::now());
    }

    /// One last attempt; what cannot be stored is lost, and said.
    fn finish(mut self) {
        self.disk.hurry();
        self.work();
        let lost = self.unsaved.len();
        if lost > 0 {
            self.view().decisions_lost.fetch_add(lost as u64, Relaxed);
            // None of them had a number, so no subscriber sees a hole; their actions are ended at the next start.
            tracing::error!(events = lost, "events could not be stored before the end and are lost");
        }
        self.shared.stages.store.rest(Instant::now());
    }

    /// Until when there is nothing to do unless a command comes.
    fn rest(&self) -> Duration {
        // While there is no store, nothing can be sent.
        let due = self.disk.retry_at().or_else(|| self.feeder.wake());
        due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()).min(IDLE))
    }

    fn decided(&mut self, decided: Decided) {
        match decided {
            Decided::Event(event) => self.unsaved.push(*event),
            Decided::ClockStepped(step) => self.steps.push((step, self.unsaved.len())),
        }
    }

    fn take(&mut self, command: Command) -> bool {
        match command {
            Command::Signal(signal) => self.signal(signal),
            Command::Consumed { up_to, reply } => self.asked.push(Asked::Consumed(up_to, reply)),
            Command::Resend { from, reply } => self.asked.push(Asked::Resend(from, reply)),
            Command::Drain(reply) => self.draining = Some(reply),
            Command::Stop => return true,
        }
        false
    }

    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Connected { generation, .. } => self.feeder.connected(generation),
            Signal::Disconnected { .. } => self.feeder.disconnected(),
            Signal::Acked { sequence } => match self.feeder.settled(sequence) {
                Kind::Gap { first } => self.acknowledged.gaps.push(first..=sequence),
                Kind::Event | Kind::Backlog => self.acknowledged.events.push(sequence),
            },
            Signal::Refused { sequence, code } => {
                let kind = self.feeder.settled(sequence);
                if matches!(kind, Kind::Gap { .. }) {
                    tracing::error!(
                        last = sequence,
                        code,
                        "the broker refuses the statement of a gap: allow sys/gap in its access rules; it is made again at \
                         the next start"
                    );
                } else {
                    self.view().refused.fetch_add(1, Relaxed);
                    if let Some(events) = self.refusals.note(Instant::now()) {
                        tracing::error!(
                            sequence,
                            code,
                            events,
                            "the broker refuses events for good, this one last; each is set aside and stated on sys/gap"
                        );
                    }
                }
                self.acknowledged.refused.push((sequence, kind, code));
            }
            Signal::Subscribed { .. } => {}
            Signal::Deferred { sequence, .. } => {
                self.view().deferred.fetch_add(1, Relaxed);
                self.feeder.put_off(sequence, Instant::now());
            }
        }
    }

    /// Stores, forgets what was acknowledged, sends on; or waits for the store to come back.
    fn work(&mut self) {
        match self.disk.look() {
            // Nothing leaves before the store is back: nobody need wait for that.
            Look::Away => self.drained(),
            Look::Opened => {
                self.feeder.begin_again();
                self.opened = true;
                self.round();
            }
            Look::There => self.round(),
        }
        self.refuse();
        self.note_outbox();
    }

    fn round(&mut self) {
        match self.run_round() {
            Ok(()) => self.disk.worked(),
            Err(error) => self.disk.failed(error),
        }
    }

    fn run_round(&mut self) -> Result<(), StoreError> {
        if self.opened {
            self.begin()?;
            self.opened = false;
        }
        self.place_steps();
        // What the broker has said first: on a full disk that makes room.
        let forgotten = self.forget();
        self.save()?;
        forgotten?;
        self.answer()?;
        self.tidy()?;
        let now = self.disk.stamp();
        let Some(store) = self.disk.store() else { return Ok(()) };
        let fed = self.feeder.feed(store, &self.shared, &now);
        // Each was said when it was found.
        store.take_damaged().iter().for_each(|gap| self.shared.delivery.note_dropped(gap));
        fed?;
        let stats = store.stats();
        if (stats.waiting == 0 && stats.gaps == 0) || !self.feeder.is_connected() {
            self.drained();
        }
        Ok(())
    }

    fn drained(&mut self) {
        // Whoever asked may have stopped waiting.
        let _gone = self.draining.take().map(|reply| reply.send(()));
    }

    /// A store was opened: what an earlier run, or a lost database, left open is ended before anything else is sent.
    fn begin(&mut self) -> Result<(), StoreError> {
        let Some(store) = self.disk.store() else { return Ok(()) };
        let last_sequence = store.last_sequence();
        let left = store.open_actions()?;
        if let Some(step) = self.first_step.take() {
            self.clock.note(&step, last_sequence);
        }
        let ours = |id: &str| Uuid::parse_str(id).is_ok_and(|id| self.open.contains(&id));
        let clock = self.clock.record();
        let (mut recovered, mut unreadable) = (Vec::new(), Vec::new());
        for action in left.iter().filter(|action| !ours(&action.action_id)) {
            match message::recovered(action, clock, wall_ns()) {
                Some(ended) => recovered.push(ended),
                None => unreadable.push(action),
            }
        }
        // Before anything else that cannot be taken back: it may fail, and is then done again.
        if !unreadable.is_empty() {
            let now = self.disk.stamp();
            let Some(store) = self.disk.store() else { return Ok(()) };
            store.give_up(&now, &unreadable)?;
        }
        if !recovered.is_empty() {
            tracing::warn!(actions = recovered.len(), "actions left open by the last run are ended with `recovered`");
        }
        // From here on they are ours: a store that goes away again must not bring them a second time.
        self.open.extend(recovered.iter().map(|new| new.event.data.action_id));
        self.steps.iter_mut().for_each(|(_, position)| *position += recovered.len());
        self.unsaved.splice(0..0, recovered);
        self.clock.save();
        self.shared.clock.store(Some(Arc::new(self.clock.record().clone())));
        Ok(())
    }

    /// Notes steps of the clock after the events that bear the old time. Numbers are given out without a hole: what waits
    /// to be stored will have the next ones.
    fn place_steps(&mut self) {
        let last_sequence = self.disk.last_sequence();
        for (step, position) in std::mem::take(&mut self.steps) {
            self.clock.note(&step, last_sequence + position as u64);
            self.shared.clock.store(Some(Arc::new(self.clock.record().clone())));
        }
    }

    fn save(&mut self) -> Result<(), StoreError> {
        while !self.unsaved.is_empty() {
            self.alive();
            let now = self.disk.stamp();
            let Some(store) = self.disk.store() else { return Ok(()) };
            let chunk = &self.unsaved[..self.unsaved.len().min(GROUP)];
            let build: Vec<_> =
                chunk.iter().map(|new| move |sequence, rev| message::numbered(&new.event, sequence, rev)).collect();
            let drafts: Vec<_> = chunk.iter().zip(&build).map(|(new, build)| draft(new, build)).collect();
            let stored = drafts.len();
            let appended = store.append(&now, &drafts, self.feeder.handing(store))?;
            self.feeder.push(appended.rows);
            for new in self.unsaved.drain(..stored) {
                match message::status(&new.event) {
                    Status::Ended => self.open.remove(&new.event.data.action_id),
                    Status::Started | Status::Updated => self.open.insert(new.event.data.action_id),
                };
            }
            dropped::note(self.view(), &appended.dropped);
        }
        Ok(())
    }

    fn forget(&mut self) -> Result<(), StoreError> {
        let now = self.disk.stamp();
        let Some(store) = self.disk.store() else { return Ok(()) };
        let answers = &mut self.acknowledged;
        if !answers.events.is_empty() {
            store.acked(&answers.events)?;
            self.shared.delivery.acked.fetch_add(answers.events.len() as u64, Relaxed);
            answers.events.clear();
        }
        if !answers.gaps.is_empty() {
            store.stated(&answers.gaps)?;
            answers.gaps.clear();
        }
        while let Some(&(sequence, kind, code)) = answers.refused.last() {
            match kind {
                Kind::Gap { .. } => store.park_gap(sequence, code)?,
                Kind::Event | Kind::Backlog => store.park(&now, sequence, code)?,
            }
            answers.refused.pop();
        }
        Ok(())
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        if self.tidied.elapsed() < TIDY {
            return Ok(());
        }
        if let Some(events) = self.refusals.late(Instant::now()) {
            tracing::error!(
                events,
                "the broker has refused more events for good; each is set aside and stated on sys/gap"
            );
        }
        let now = self.disk.stamp();
        let Some(store) = self.disk.store() else { return Ok(()) };
        let dropped = store.tidy(&now)?;
        self.tidied = Instant::now();
        dropped::note(self.view(), &dropped);
        Ok(())
    }

    fn note_outbox(&mut self) {
        let now = self.disk.stamp();
        let view = &self.shared.delivery;
        self.note_memory();
        self.shared.store.waiting.store(self.unsaved.len() as u64, Relaxed);
        let Some(stats) = self.disk.store().map(|store| store.stats()) else { return };
        view.outbox_messages.store(stats.waiting, Relaxed);
        view.outbox_kept.store(stats.kept, Relaxed);
        view.outbox_bytes.store(stats.bytes, Relaxed);
        view.outbox_parked.store(stats.parked, Relaxed);
        let since = |stored: Stamp| now.boot_ns.saturating_sub(now.since(&stored).as_nanos() as i64);
        view.outbox_oldest_boot_ns.set(stats.oldest.map(since));
    }

    /// Says when memory is full of events that cannot be stored, and when no longer.
    fn note_memory(&self) {
        let full = self.unsaved.len() >= QUEUE;
        if self.shared.store.memory_full.swap(full, Relaxed) == full {
            return;
        }
        if full {
            tracing::error!(
                events = self.unsaved.len(),
                "memory is full of events that cannot be stored: nothing is watched until the store is back; frames are left out \
                 and counted, events are not lost"
            );
        } else {
            tracing::warn!("the events that waited in memory are stored: it is watched again");
        }
    }

    fn view(&self) -> &DeliveryView {
        &self.shared.delivery
    }
}

fn draft<'a>(new: &'a NewEvent, build: &'a dyn Fn(u64, u32) -> Vec<u8>) -> Draft<'a> {
    let data = &new.event.data;
    Draft {
        topic: &new.topic,
        action_id: data.action_id.to_string(),
        label: &data.label,
        camera: &data.camera.id,
        status: message::status(&new.event),
        rev: data.rev,
        build,
    }
}
