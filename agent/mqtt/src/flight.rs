//! Which message has which packet identifier: a ring in the order of submission. Pure.
//!
//! The library says what it sent in the order in which it was told to, so the n-th `sent` is the n-th `submit`. The ring
//! keeps acknowledged entries until all older ones are acknowledged too: its length is the *span* of identifiers in use,
//! and a span of at most half of them can never collide, in whatever order acknowledgements come.
//!
//! A connection starts with one message in flight and one more with each answer. So a line that breaks after some bytes, or a
//! broker that chokes on a burst, gets every message in the end instead of the same burst again and again; and when a broker
//! hangs up because of the first message, there is no doubt about which it was.

use std::collections::VecDeque;
use std::time::Instant;

use crate::blame::{Packet, Suspect};

/// What a packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ticket {
    /// A message of the outbox.
    Message { sequence: u64, topic: String, bytes: usize },
    /// A retained state.
    State { topic: String, bytes: usize, does: StateDoes },
    /// Birth or farewell.
    Status,
    /// A request for subscriptions, which takes an identifier as well.
    Subscription,
    /// An answer to a command.
    Reply { bytes: usize },
}

/// What a retained message does to its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateDoes {
    Set,
    Remove,
}

impl Ticket {
    /// Size of the packet, where it may be large.
    fn bytes(&self) -> usize {
        match self {
            Self::Message { bytes, .. } | Self::State { bytes, .. } | Self::Reply { bytes } => *bytes,
            Self::Status | Self::Subscription => 0,
        }
    }

    /// What it is to whoever looks for a culprit; `None` for what is not sent again, or has a remedy of its own.
    pub(crate) fn packet(&self) -> Option<Packet> {
        match self {
            Self::Message { sequence, .. } => Some(Packet::Message(*sequence)),
            Self::State { topic, .. } => Some(Packet::State(topic.clone())),
            Self::Status | Self::Subscription | Self::Reply { .. } => None,
        }
    }

    pub(crate) fn topic(&self) -> Option<&str> {
        match self {
            Self::Message { topic, .. } | Self::State { topic, .. } => Some(topic),
            Self::Status | Self::Subscription | Self::Reply { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Slot {
    ticket: Ticket,
    packet: Option<u16>,
    acked: bool,
    submitted: Instant,
}

#[derive(Debug)]
pub(crate) struct Flight {
    window: usize,
    /// How far the window is open.
    open: usize,
    /// One at a time: one of these makes the broker hang up.
    narrow: bool,
    slots: VecDeque<Slot>,
    /// Slots acknowledged before an older one.
    early: usize,
    last_ack: Option<Instant>,
}

impl Flight {
    pub(crate) fn new(window: usize) -> Self {
        Self { window: window.max(1), open: 1, narrow: false, slots: VecDeque::new(), early: 0, last_ack: None }
    }

    /// The broker takes at most `receive_maximum` unacknowledged messages.
    pub(crate) fn limit(&mut self, receive_maximum: u16) {
        self.window = self.window.min(usize::from(receive_maximum) / 2).max(1);
    }

    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() < if self.narrow { 1 } else { self.window.min(self.open) }
    }

    /// Whether to have one packet in flight at a time.
    pub(crate) fn narrow(&mut self, narrow: bool) {
        self.narrow = narrow;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(crate) fn submit(&mut self, ticket: Ticket, now: Instant) {
        self.slots.push_back(Slot { ticket, packet: None, acked: false, submitted: now });
    }

    /// The library gave `packet` to the oldest message that had none. False when there is no such message.
    pub(crate) fn sent(&mut self, packet: u16) -> bool {
        let slot = self.slots.iter_mut().find(|s| s.packet.is_none());
        slot.map(|s| s.packet = Some(packet)).is_some()
    }

    /// What `packet` carried. `None` for an acknowledgement that belongs to nothing.
    pub(crate) fn acked(&mut self, packet: u16, now: Instant) -> Option<Ticket> {
        let slot = self.slots.iter_mut().find(|s| s.packet == Some(packet) && !s.acked)?;
        slot.acked = true;
        let ticket = slot.ticket.clone();
        self.early += 1;
        self.open = self.window.min(self.open + 1);
        self.last_ack = Some(now);
        while self.slots.front().is_some_and(|s| s.acked) {
            self.slots.pop_front();
            self.early -= 1;
        }
        Some(ticket)
    }

    /// Since when the broker owes an acknowledgement. On a slow line a message waits for those before it, so every
    /// acknowledgement is a new begin; but not for a message that was passed over by later ones.
    pub(crate) fn owed_since(&self) -> Option<Instant> {
        let submitted = self.slots.front()?.submitted;
        if self.early > 0 { Some(submitted) } else { Some(submitted.max(self.last_ack.unwrap_or(submitted))) }
    }

    /// Outbox messages not acknowledged.
    pub(crate) fn unacked(&self) -> usize {
        self.tickets().filter(|ticket| matches!(ticket, Ticket::Message { .. })).count()
    }

    /// The largest packet not acknowledged: the suspect when a broker hangs up because one is too large.
    pub(crate) fn largest(&self) -> Option<&Ticket> {
        self.tickets().max_by_key(|ticket| ticket.bytes())
    }

    /// Messages and states not acknowledged: those that come again.
    pub(crate) fn suspects(&self) -> Vec<Suspect> {
        let suspect = |ticket: &Ticket| Some(Suspect { packet: ticket.packet()?, topic: ticket.topic()?.to_owned() });
        self.tickets().filter_map(suspect).collect()
    }

    /// Whether a single packet is not acknowledged, and it was sent.
    pub(crate) fn is_one_alone(&self) -> bool {
        let mut unanswered = self.slots.iter().filter(|slot| !slot.acked);
        unanswered.next().is_some_and(|slot| slot.packet.is_some()) && unanswered.next().is_none()
    }

    fn tickets(&self) -> impl Iterator<Item = &Ticket> {
        self.slots.iter().filter(|s| !s.acked).map(|s| &s.ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64) -> Ticket {
        Ticket::Message { sequence, topic: format!("t/{sequence}"), bytes: sequence as usize }
    }

    /// As after many acknowledgements.
    fn opened(window: usize) -> Flight {
        Flight { open: window, ..Flight::new(window) }
    }

    #[test]
    fn opens_with_every_answer() {
        let (mut flight, now) = (Flight::new(3), Instant::now());
        let mut sizes = Vec::new();
        for packet in 1..=5 {
            while flight.has_room() {
                flight.submit(message(1), now);
                flight.sent(0);
            }
            sizes.push(flight.slots.len());
            flight.slots[0].packet = Some(packet);
            flight.acked(packet, now);
        }
        assert_eq!(sizes, [1, 2, 3, 3, 3]);
    }

    #[test]
    fn maps_in_order_and_bounds_the_span() {
        let mut flight = opened(3);
        let now = Instant::now();
        for (sequence, packet) in [(10, 1), (11, 2), (12, 3)] {
            assert!(flight.has_room());
            flight.submit(message(sequence), now);
            assert!(flight.sent(packet));
        }
        assert!(!flight.sent(4));
        assert!(!flight.has_room());
        assert_eq!(flight.acked(3, now), Some(message(12)));
        assert_eq!(flight.acked(3, now), None, "a repeated acknowledgement belongs to nothing");
        assert!(!flight.has_room(), "packet 1 is still out: the span is 3");
        assert_eq!(flight.unacked(), 2);
        assert_eq!(flight.largest(), Some(&message(11)));
        assert_eq!(flight.acked(1, now), Some(message(10)));
        assert!(flight.has_room());
        assert_eq!(flight.acked(2, now), Some(message(11)));
        assert!(flight.is_empty());
        assert_eq!(flight.acked(9, now), None);
    }

    #[test]
    fn a_slow_line_is_given_time_and_a_message_passed_over_is_not() {
        let (mut flight, start) = (Flight::new(4), Instant::now());
        let at = |s| start + std::time::Duration::from_secs(s);
        assert_eq!(flight.owed_since(), None);
        for sequence in 1..=4 {
            flight.submit(message(sequence), at(0));
            flight.sent(sequence as u16);
        }
        assert_eq!(flight.owed_since(), Some(at(0)));
        flight.acked(1, at(20));
        assert_eq!(flight.owed_since(), Some(at(20)), "the line is slow");
        flight.acked(3, at(40));
        assert_eq!(flight.owed_since(), Some(at(0)), "the second was passed over");
        flight.acked(2, at(41));
        assert_eq!(flight.owed_since(), Some(at(41)));
    }

    #[test]
    fn the_largest_is_to_blame_whatever_it_is() {
        let mut flight = opened(4);
        let state = Ticket::State { topic: "state".to_owned(), bytes: 4_000, does: StateDoes::Set };
        for ticket in [message(500), state.clone(), message(900), Ticket::Status] {
            flight.submit(ticket, Instant::now());
        }
        assert_eq!(flight.largest(), Some(&state));
        assert_eq!(flight.unacked(), 2);
    }

    #[test]
    fn a_culprit_is_alone_and_was_sent() {
        let (mut flight, now) = (opened(4), Instant::now());
        flight.narrow(true);
        flight.submit(message(7), now);
        assert!(!flight.has_room() && !flight.is_one_alone(), "not sent yet");
        flight.sent(1);
        assert!(flight.is_one_alone());
        assert_eq!(flight.suspects(), [Suspect { packet: Packet::Message(7), topic: "t/7".into() }]);
        flight.narrow(false);
        assert!(flight.has_room());
        flight.submit(Ticket::Status, now);
        flight.sent(2);
        assert!(!flight.is_one_alone());
        flight.acked(1, now);
        assert!(flight.is_one_alone() && flight.suspects().is_empty(), "the birth has no stand-in");
    }

    #[test]
    fn respects_the_receive_maximum() {
        let mut flight = Flight::new(32);
        flight.limit(1);
        flight.submit(message(1), Instant::now());
        assert!(!flight.has_room());
    }
}
