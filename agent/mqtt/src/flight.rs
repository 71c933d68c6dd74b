//! Which message has which packet identifier: a ring in the order of submission. Pure.
//!
//! The library says what it sent in the order in which it was told to, so the n-th `sent` is the n-th `submit`. The ring
//! keeps acknowledged entries until all older ones are acknowledged too: its length is the *span* of identifiers in use,
//! and a span of at most half of them can never collide, in whatever order acknowledgements come.

use std::collections::VecDeque;
use std::time::Instant;

/// What a packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ticket {
    /// A message of the outbox.
    Message { sequence: u64, bytes: usize },
    /// A retained state.
    State { topic: String },
    /// Birth or farewell.
    Status,
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
    slots: VecDeque<Slot>,
}

impl Flight {
    pub(crate) fn new(window: usize) -> Self {
        Self { window: window.max(1), slots: VecDeque::new() }
    }

    /// The broker takes at most `receive_maximum` unacknowledged messages.
    pub(crate) fn limit(&mut self, receive_maximum: u16) {
        self.window = self.window.min(usize::from(receive_maximum) / 2).max(1);
    }

    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() < self.window
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
    pub(crate) fn acked(&mut self, packet: u16) -> Option<Ticket> {
        let slot = self.slots.iter_mut().find(|s| s.packet == Some(packet) && !s.acked)?;
        slot.acked = true;
        let ticket = slot.ticket.clone();
        while self.slots.front().is_some_and(|s| s.acked) {
            self.slots.pop_front();
        }
        Some(ticket)
    }

    /// When the oldest message not acknowledged was submitted.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.slots.front().map(|s| s.submitted)
    }

    /// Outbox messages not acknowledged.
    pub(crate) fn unacked(&self) -> usize {
        self.messages().count()
    }

    /// The largest message not acknowledged: the suspect when a broker hangs up because a packet is too large.
    pub(crate) fn largest(&self) -> Option<u64> {
        self.messages().max_by_key(|(_, bytes)| *bytes).map(|(sequence, _)| sequence)
    }

    fn messages(&self) -> impl Iterator<Item = (u64, usize)> {
        self.slots.iter().filter(|s| !s.acked).filter_map(|s| match s.ticket {
            Ticket::Message { sequence, bytes } => Some((sequence, bytes)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64) -> Ticket {
        Ticket::Message { sequence, bytes: sequence as usize }
    }

    #[test]
    fn maps_in_order_and_bounds_the_span() {
        let mut flight = Flight::new(3);
        let now = Instant::now();
        for (sequence, packet) in [(10, 1), (11, 2), (12, 3)] {
            assert!(flight.has_room());
            flight.submit(message(sequence), now);
            assert!(flight.sent(packet));
        }
        assert!(!flight.sent(4));
        assert!(!flight.has_room());
        assert_eq!(flight.acked(3), Some(message(12)));
        assert_eq!(flight.acked(3), None, "a repeated acknowledgement belongs to nothing");
        assert!(!flight.has_room(), "packet 1 is still out: the span is 3");
        assert_eq!(flight.unacked(), 2);
        assert_eq!(flight.largest(), Some(11));
        assert_eq!(flight.acked(1), Some(message(10)));
        assert!(flight.has_room());
        assert_eq!(flight.acked(2), Some(message(11)));
        assert!(flight.is_empty());
        assert_eq!(flight.acked(9), None);
    }

    #[test]
    fn respects_the_receive_maximum() {
        let mut flight = Flight::new(32);
        flight.limit(1);
        flight.submit(message(1), Instant::now());
        assert!(!flight.has_room());
    }
}
