//! A run of stored messages on its way to the client: read from the store in blocks, handed over one by one.

use std::collections::VecDeque;

use kinewatch_store::{Row, Stamp, Store, StoreError};

/// Rows read, and noted as handed over, in one go.
pub(super) const BLOCK: usize = 128;

/// Everything in the outbox above `cursor` and up to `to`, in order.
#[derive(Debug)]
pub(super) struct Lane {
    /// Everything up to here was read.
    cursor: u64,
    to: u64,
    rows: VecDeque<Row>,
}

impl Lane {
    pub(super) fn new(above: u64, to: u64) -> Self {
        Self { cursor: above, to, rows: VecDeque::new() }
    }

    /// The next message; reads a block when there is none at hand.
    pub(super) fn peek(&mut self, store: &mut Store, now: &Stamp) -> Result<Option<&Row>, StoreError> {
        let end = self.to.min(store.last_sequence());
        if self.rows.is_empty() && self.cursor < end {
            self.rows = store.offer(now, self.cursor, self.to, BLOCK)?.into();
            self.cursor = self.rows.back().map_or(end, |row| row.sequence);
        }
        Ok(self.rows.front())
    }

    pub(super) fn take(&mut self) -> Option<Row> {
        self.rows.pop_front()
    }

    /// Whether what is stored next follows here at once.
    pub(super) fn is_at(&self, last_sequence: u64) -> bool {
        self.cursor >= last_sequence && self.rows.len() < BLOCK
    }

    /// Messages just stored behind what was read.
    pub(super) fn push(&mut self, rows: Vec<Row>) {
        if let Some(last) = rows.last() {
            self.cursor = last.sequence;
        }
        self.rows.extend(rows);
    }

    /// Give back what was read and not handed over. The number up to which everything was.
    pub(super) fn rewind(&mut self) -> u64 {
        if let Some(first) = self.rows.front() {
            self.cursor = first.sequence - 1;
        }
        self.rows.clear();
        self.cursor
    }

    /// Begin again above `above` if that is lower.
    pub(super) fn back_to(&mut self, above: u64) {
        let here = self.rewind();
        self.cursor = here.min(above);
    }

    /// Reach at least up to `to`.
    pub(super) fn extend_to(&mut self, to: u64) {
        self.to = self.to.max(to);
    }
}
