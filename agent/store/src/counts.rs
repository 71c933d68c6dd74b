//! Counters that would be slow to ask for on every append; replaced only after a commit. Also the bounds of the history,
//! which need them.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::outbox::to_sql;
use crate::{StoreError, StoreOptions};

#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Rows of the outbox, parked ones included.
    pub(crate) outbox: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Rows of the outbox that are parked.
    pub(crate) parked: u64,
    /// Gaps not yet stated.
    pub(crate) gaps: u64,
    /// Oldest row of the outbox that is not parked: number and time.
    pub(crate) oldest: Option<(u64, i64)>,
    /// All events, acknowledged or not.
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
            counts.refresh(&tx)?;
            Ok(counts)
        };
        read().map_err(|e| StoreError::sqlite(path, "counting rows", e))
    }

    /// Oldest number that waits for its acknowledgement; `next` when none does.
    pub(crate) fn oldest(&self, next: u64) -> u64 {
        self.oldest.map_or(next, |(sequence, _)| sequence)
    }

    pub(crate) fn added(&mut self, sequence: u64, bytes: u64, created_ns: i64) {
        self.outbox += 1;
        self.events += 1;
        self.bytes += bytes;
        self.oldest.get_or_insert((sequence, created_ns));
    }

    pub(crate) fn removed(&mut self, bytes: u64, event_too: bool) {
        self.outbox = self.outbox.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.events = self.events.saturating_sub(u64::from(event_too));
    }

    /// Read again what removals and parking change.
    pub(crate) fn refresh(&mut self, tx: &Transaction<'_>) -> Result<(), rusqlite::Error> {
        let oldest = "SELECT o.sequence, e.created_ns FROM outbox o JOIN event e ON e.sequence = o.sequence
                      WHERE o.parked_code IS NULL ORDER BY o.sequence LIMIT 1";
        self.oldest =
            tx.prepare_cached(oldest)?.query_row([], |r| Ok((r.get::<_, i64>(0)? as u64, r.get(1)?))).optional()?;
        let count = |sql| tx.prepare_cached(sql)?.query_row([], |r| r.get::<_, i64>(0)).map(|n| n as u64);
        self.parked = count("SELECT COUNT(*) FROM outbox WHERE parked_code IS NOT NULL")?;
        self.gaps = count("SELECT COUNT(*) FROM gap WHERE parked_code IS NULL")?;
        Ok(())
    }

    /// Forget acknowledged events beyond the bounds of the history, oldest first.
    pub(crate) fn trim_history(
        &mut self,
        tx: &Transaction<'_>,
        options: &StoreOptions,
        now: i64,
    ) -> Result<(), rusqlite::Error> {
        let excess = (self.events - self.outbox).saturating_sub(options.history_rows);
        let too_old = now.saturating_sub(i64::try_from(options.history_age.as_nanos()).unwrap_or(i64::MAX));
        let acknowledged = "SELECT e.sequence FROM event e LEFT JOIN outbox o ON o.sequence = e.sequence
                            WHERE o.sequence IS NULL";
        let mut gone = 0;
        if excess > 0 {
            let sql = format!("DELETE FROM event WHERE sequence IN ({acknowledged} ORDER BY e.sequence LIMIT ?1)");
            gone += tx.prepare_cached(&sql)?.execute([to_sql(excess)])?;
        }
        // Sequence order is age order, so looking at the oldest few is enough; what remains goes next time.
        let oldest = format!("{acknowledged} ORDER BY e.sequence LIMIT 64");
        let sql = format!("DELETE FROM event WHERE created_ns < ?1 AND sequence IN ({oldest})");
        gone += tx.prepare_cached(&sql)?.execute([too_old])?;
        self.events = self.events.saturating_sub(gone as u64);
        Ok(())
    }
}
