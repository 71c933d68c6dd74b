//! Counters that would be slow to ask for on every append; replaced only after a commit.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::stamp::COLUMNS;
use crate::{Stamp, StoreError};

#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Rows of the outbox, parked and kept ones included.
    pub(crate) outbox: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Rows of the outbox that are parked.
    pub(crate) parked: u64,
    /// Rows of the outbox that the broker has and a consumer has not.
    pub(crate) kept: u64,
    /// Gaps not yet stated.
    pub(crate) gaps: u64,
    /// First number of the gaps not yet stated, those included whose statement the broker refuses.
    unstated: Option<u64>,
    /// Oldest row of the outbox that waits for the broker: number and time.
    pub(crate) oldest: Option<(u64, Stamp)>,
    /// All events, settled or not.
    events: u64,
}

impl Counts {
    pub(crate) fn read(connection: &mut Connection, path: &Path) -> Result<Self, StoreError> {
        let sql = "SELECT (SELECT COUNT(*) FROM outbox), (SELECT COALESCE(SUM(bytes), 0) FROM outbox),
                   (SELECT COUNT(*) FROM event)";
        let mut read = || -> Result<Self, rusqlite::Error> {
            let tx = connection.transaction()?;
            let mut counts = tx.query_row(sql, [], |r| {
                let number = |i| r.get::<_, i64>(i).map(|v| v as u64);
                Ok(Self { outbox: number(0)?, bytes: number(1)?, events: number(2)?, ..Self::default() })
            })?;
            counts.recount(&tx)?;
            Ok(counts)
        };
        read().map_err(|e| StoreError::sqlite(path, "counting rows", e))
    }

    /// Oldest number of which the broker has neither the message nor the statement that it is lost; `next` when there is none.
    pub(crate) fn oldest(&self, next: u64) -> u64 {
        let waits = self.oldest.map(|(sequence, _)| sequence);
        waits.into_iter().chain(self.unstated).min().unwrap_or(next)
    }

    /// Rows that wait for the broker.
    pub(crate) fn waiting(&self) -> u64 {
        self.outbox.saturating_sub(self.parked + self.kept)
    }

    /// Settled events that are kept to be looked at.
    pub(crate) fn history(&self) -> u64 {
        self.events.saturating_sub(self.outbox)
    }

    pub(crate) fn added(&mut self, sequence: u64, bytes: u64, stored: Stamp) {
        self.outbox += 1;
        self.events += 1;
        self.bytes += bytes;
        self.oldest.get_or_insert((sequence, stored));
    }

    /// A row has left the outbox and is history.
    pub(crate) fn settled(&mut self, bytes: u64) {
        self.outbox = self.outbox.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// A row is gone from the disk.
    pub(crate) fn dropped(&mut self, bytes: u64) {
        self.settled(bytes);
        self.events = self.events.saturating_sub(1);
    }

    /// Rows of the history are gone.
    pub(crate) fn forgotten(&mut self, rows: u64) {
        self.events = self.events.saturating_sub(rows);
    }

    /// Read again what removals and parking change. Rows below the oldest that waited stay settled, so only what is above is
    /// looked at; where rows come back to the outbox, [`Counts::recount`].
    pub(crate) fn refresh(&mut self, tx: &Transaction<'_>) -> Result<(), rusqlite::Error> {
        if let Some((from, _)) = self.oldest {
            let sql = format!(
                "SELECT o.sequence, {COLUMNS} FROM outbox o JOIN event e ON e.sequence = o.sequence
                 WHERE o.sequence >= ?1 AND o.parked_code IS NULL AND o.kept = 0 ORDER BY o.sequence LIMIT 1"
            );
            let read = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)? as u64, Stamp::read(r, 1)?));
            self.oldest = tx.prepare_cached(&sql)?.query_row([from as i64], read).optional()?;
        }
        let parked = "SELECT COUNT(*) FROM outbox WHERE parked_code IS NOT NULL";
        self.parked = tx.prepare_cached(parked)?.query_row([], |r| r.get::<_, i64>(0)).map(|n| n as u64)?;
        let gaps = "SELECT COUNT(*) FILTER (WHERE parked_code IS NULL), MIN(first) FROM gap";
        (self.gaps, self.unstated) = tx.prepare_cached(gaps)?.query_row([], |r| {
            Ok((r.get::<_, i64>(0)? as u64, r.get::<_, Option<i64>>(1)?.map(|first| first as u64)))
        })?;
        Ok(())
    }

    /// Read everything again but the bytes.
    pub(crate) fn recount(&mut self, tx: &Transaction<'_>) -> Result<(), rusqlite::Error> {
        let kept = "SELECT COUNT(*) FROM outbox WHERE kept = 1 AND parked_code IS NULL";
        self.kept = tx.query_row(kept, [], |r| r.get::<_, i64>(0)).map(|n| n as u64)?;
        self.oldest = Some((0, Stamp::default()));
        self.refresh(tx)
    }
}
