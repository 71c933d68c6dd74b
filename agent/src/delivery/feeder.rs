//! Keeps the client's window full, from the store and nowhere else.
//!
//! In order (the default) everything goes out as it was numbered. With [`SendOrder::LiveFirst`] what is fresh goes first
//! and the backlog beside it, in at most three quarters of the window. Old messages are held to a rate in both. Statements of
//! gaps go before the first message behind them. Owned by the store thread; never waits.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kinewatch_core::event::{GapData, GapStatement};
use kinewatch_core::topic;
use kinewatch_mqtt::Outgoing;
use kinewatch_store::{Gap, Handing, Row, Stamp, Store, StoreError};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::message::{self, LATE_AFTER};
use super::rate::Rate;
use super::stretch::Stretch;
use crate::health::Shared;

/// How long a message that the broker did not take just now waits, at first and at most.
const PUT_OFF: Duration = Duration::from_secs(1);
const PUT_OFF_MOST: Duration = Duration::from_secs(10);
/// How soon it is looked again whether a client that is behind takes messages.
const BEHIND: Duration = Duration::from_millis(50);

/// Which messages go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendOrder {
    /// The oldest.
    #[default]
    Sequence,
    /// Fresh ones; the backlog goes beside them.
    LiveFirst,
}

/// How messages are sent.
#[derive(Clone, Copy, Debug)]
pub struct FeedOptions {
    /// Messages in flight at most.
    pub window: usize,
    /// Which go first.
    pub order: SendOrder,
    /// Old messages a second at most.
    pub backlog_per_s: u32,
}

/// What a number in flight stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message.
    Event,
    /// A message of the backlog, with [`SendOrder::LiveFirst`].
    Backlog,
    /// The statement of the gap that ends with the number; `first` is where it began when it was stated.
    Gap { first: u64 },
}

/// A message that the broker did not take just now.
#[derive(Debug)]
struct PutOff {
    /// When it goes out again; `None` while it is in flight again.
    due: Option<Instant>,
    wait: Duration,
    kind: Kind,
}

#[derive(Debug)]
pub(super) struct Feeder {
    options: FeedOptions,
    outgoing: mpsc::Sender<Outgoing>,
    /// Connection that messages are sent on; `None` while there is none.
    generation: Option<u64>,
    /// First those that go first. Empty until it is known where the backlog ends.
    stretches: Vec<Stretch>,
    in_flight: BTreeMap<u64, Kind>,
    put_off: BTreeMap<u64, PutOff>,
    rate: Rate,
    wake: Option<Instant>,
}

enum Next {
    Sent,
    /// Nothing to send, or not now.
    Nothing,
}

impl Feeder {
    pub(super) fn new(options: FeedOptions, outgoing: mpsc::Sender<Outgoing>) -> Self {
        let rate = Rate::new(options.backlog_per_s);
        let (in_flight, put_off) = (BTreeMap::new(), BTreeMap::new());
        Self { options, outgoing, generation: None, stretches: Vec::new(), in_flight, put_off, rate, wake: None }
    }

    /// A new connection: what was in flight is unknown, so all begins again with the oldest.
    pub(super) fn connected(&mut self, generation: u64) {
        self.generation = Some(generation);
        self.begin_again();
        self.in_flight.clear();
        self.put_off.clear();
    }

    pub(super) fn disconnected(&mut self) {
        self.generation = None;
    }

    pub(super) fn is_connected(&self) -> bool {
        self.generation.is_some()
    }

    /// Forget what was read: the store is another.
    pub(super) fn begin_again(&mut self) {
        self.stretches.clear();
        if self.options.order == SendOrder::Sequence {
            self.stretches.push(Stretch::new(0, u64::MAX));
        }
    }

    /// Kept messages wait again, from the number `from` on.
    pub(super) fn back_to(&mut self, from: u64) {
        let above = from.saturating_sub(1);
        match &mut self.stretches[..] {
            [only] => only.back_to(above),
            [live, backlog] => {
                backlog.extend_to(live.rewind());
                backlog.back_to(above);
            }
            _ => {}
        }
    }

    /// The broker has answered for this number, for good.
    pub(super) fn settled(&mut self, sequence: u64) -> Kind {
        self.put_off.remove(&sequence);
        self.in_flight.remove(&sequence).unwrap_or(Kind::Event)
    }

    /// The broker does not take this number just now.
    pub(super) fn put_off(&mut self, sequence: u64, now: Instant) {
        let kind = self.in_flight.remove(&sequence).unwrap_or(Kind::Event);
        let wait = self.put_off.get(&sequence).map_or(PUT_OFF, |p| (p.wait * 2).min(PUT_OFF_MOST));
        self.put_off.insert(sequence, PutOff { due: Some(now + wait), wait, kind });
    }

    /// What is stored next goes to the client at once, when nothing older is left to be read.
    pub(super) fn handing(&self, store: &Store) -> Handing {
        let follows = self.stretches.first().is_some_and(|stretch| stretch.is_at(store.last_sequence()));
        if self.generation.is_some() && follows { Handing::Now } else { Handing::Later }
    }

    /// Messages stored with [`Handing::Now`].
    pub(super) fn push(&mut self, rows: Vec<Row>) {
        if let Some(stretch) = self.stretches.first_mut() {
            stretch.push(rows);
        }
    }

    /// When there may be something to send without anything else happening.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// Fills the window.
    pub(super) fn feed(&mut self, store: &mut Store, shared: &Shared, now: &Stamp) -> Result<(), StoreError> {
        self.wake = None;
        if self.generation.is_none() {
            return Ok(());
        }
        if self.stretches.is_empty() {
            let boundary = store.newest_older_than(now, LATE_AFTER)?;
            self.stretches = vec![Stretch::new(boundary, u64::MAX), Stretch::new(0, boundary)];
        }
        self.send_put_off(store, now)?;
        let mut gaps = self.gaps(store)?;
        while self.has_room() {
            if matches!(self.step(store, shared, &mut gaps, now)?, Next::Nothing) {
                break;
            }
        }
        let due = self.put_off.values().filter_map(|p| p.due).min().filter(|_| self.is_open() && self.client_takes());
        // What was meant for an earlier connection may fill the client's queue: nothing tells when it has drained.
        let again = (self.is_open() && !self.client_takes()).then(|| Instant::now() + BEHIND);
        self.wake = self.wake.into_iter().chain(due).chain(again).min();
        Ok(())
    }

    fn has_room(&self) -> bool {
        let waiting = self.put_off.values().filter(|p| p.due.is_some()).count();
        self.is_open() && self.client_takes() && waiting < self.options.window
    }

    /// There is a connection, and fewer are in flight than may be.
    fn is_open(&self) -> bool {
        self.generation.is_some() && self.in_flight.len() < self.options.window
    }

    /// The client takes a message now, or never will again: nobody else sends it any.
    fn client_takes(&self) -> bool {
        self.outgoing.is_closed() || self.outgoing.capacity() > 0
    }

    /// Gaps to be stated now, lowest first.
    fn gaps(&self, store: &Store) -> Result<VecDeque<Gap>, StoreError> {
        if store.stats().gaps == 0 {
            return Ok(VecDeque::new());
        }
        let mut gaps: VecDeque<Gap> = store.gaps(2 * self.options.window)?.into();
        // A number may be in flight as a message that the quota has dropped since: one answer at a time.
        gaps.retain(|gap| {
            !self.in_flight.contains_key(&gap.last) && self.put_off.get(&gap.last).is_none_or(|p| p.due.is_none())
        });
        Ok(gaps)
    }

    /// Sends one message or statement.
    fn step(
        &mut self,
        store: &mut Store,
        shared: &Shared,
        gaps: &mut VecDeque<Gap>,
        now: &Stamp,
    ) -> Result<Next, StoreError> {
        for index in 0..self.stretches.len() {
            let is_last = index + 1 == self.stretches.len();
            let is_backlog = index > 0;
            if is_backlog && self.backlog_in_flight() >= self.options.window - self.options.window / 4 {
                continue;
            }
            self.skip_known(index, store, now)?;
            // The message of that number was read before the quota dropped it, and went out a moment ago.
            while gaps.front().is_some_and(|gap| self.in_flight.contains_key(&gap.last)) {
                gaps.pop_front();
            }
            let row = self.stretches[index].peek(store, now)?;
            let gap = gaps.front().filter(|gap| is_last && row.is_none_or(|row| gap.last < row.sequence));
            let old = match (gap, row) {
                (Some(_), _) => true,
                (None, Some(row)) => message::is_old(row, now),
                (None, None) => continue,
            };
            let states_gap = gap.is_some();
            if old && let Err(next) = self.rate.take(Instant::now()) {
                self.wake = Some(next);
                continue;
            }
            if states_gap {
                gaps.pop_front().into_iter().for_each(|gap| self.state(gap, shared, now));
            } else if let Some(row) = self.stretches[index].take() {
                self.send(row, if is_backlog { Kind::Backlog } else { Kind::Event }, now);
            }
            return Ok(Next::Sent);
        }
        Ok(Next::Nothing)
    }

    /// Messages that are in flight, or wait for their time, are not sent a second time.
    fn skip_known(&mut self, index: usize, store: &mut Store, now: &Stamp) -> Result<(), StoreError> {
        while let Some(row) = self.stretches[index].peek(store, now)? {
            if !self.in_flight.contains_key(&row.sequence) && !self.put_off.contains_key(&row.sequence) {
                break;
            }
            self.stretches[index].take();
        }
        Ok(())
    }

    fn backlog_in_flight(&self) -> usize {
        self.in_flight.values().filter(|kind| **kind == Kind::Backlog).count()
    }

    /// What was put off and has waited long enough goes before everything else: it is older.
    fn send_put_off(&mut self, store: &mut Store, now: &Stamp) -> Result<(), StoreError> {
        let instant = Instant::now();
        let is_due = |p: &PutOff| p.due.is_some_and(|due| due <= instant);
        let due: Vec<(u64, Kind)> =
            self.put_off.iter().filter(|(_, p)| is_due(p)).map(|(sequence, p)| (*sequence, p.kind)).collect();
        for (sequence, kind) in due {
            if !self.is_open() || !self.client_takes() {
                break;
            }
            let row = match kind {
                // The statement is found among the gaps again.
                Kind::Gap { .. } => None,
                Kind::Event | Kind::Backlog => store.offer(now, sequence - 1, sequence, 1)?.pop(),
            };
            if let Some(put_off) = self.put_off.get_mut(&sequence) {
                put_off.due = None;
            }
            match row {
                Some(row) => self.send(row, kind, now),
                None if matches!(kind, Kind::Gap { .. }) => {}
                None => {
                    self.put_off.remove(&sequence);
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, row: Row, kind: Kind, now: &Stamp) {
        let sequence = row.sequence;
        let topic = row.topic.clone();
        self.hand_over(sequence, topic, message::payload(row, now), kind);
    }

    fn state(&mut self, gap: Gap, shared: &Shared, now: &Stamp) {
        let (group, device) = (&shared.group, &shared.device);
        let first = gap.first;
        let data = GapData { first, last: gap.last, reason: gap.reason };
        let statement = GapStatement::new(group, device, Uuid::now_v7(), now.unix_ns, data);
        let payload = Bytes::from(serde_json::to_vec(&statement).unwrap_or_default());
        self.hand_over(gap.last, topic::gap(group, device), payload, Kind::Gap { first });
    }

    fn hand_over(&mut self, sequence: u64, topic: String, payload: Bytes, kind: Kind) {
        let Some(generation) = self.generation else { return };
        if self.outgoing.try_send(Outgoing { generation, sequence, topic, payload }).is_err() {
            // The client is gone.
            self.generation = None;
            return;
        }
        self.in_flight.insert(sequence, kind);
    }
}
