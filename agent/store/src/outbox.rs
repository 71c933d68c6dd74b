//! The outbox as the publisher sees it: what is pending, what was sent, acknowledged or refused, and the gaps.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Transaction, params};

use crate::counts::Counts;
use crate::open::now_ns;
use crate::{Store, StoreError};

/// A message that waits for its acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Sequence number.
    pub sequence: u64,
    /// MQTT topic.
    pub topic: String,
    /// MQTT payload.
    pub payload: Vec<u8>,
    /// When it was stored.
    pub created_unix_ns: i64,
    /// How often it was handed to the client already.
    pub attempts: u32,
    /// When it was handed over first.
    pub first_sent_unix_ns: Option<i64>,
}

/// A range of sequence numbers that will never be delivered, to be stated as `sys/gap`. `last` identifies it: publish it
/// under `sequence = last` and acknowledge that with [`Store::acked`]; no message has that number any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// First missing number.
    pub first: u64,
    /// Last missing number.
    pub last: u64,
    /// `quota`, `refused` or `database_lost`.
    pub reason: String,
    /// When it was recorded.
    pub created_unix_ns: i64,
}

/// Size of the outbox. Kept in memory: cheap to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxStats {
    /// Messages not acknowledged, parked ones included.
    pub messages: u64,
    /// Their bytes, as counted against the quota.
    pub bytes: u64,
    /// When the oldest that is not parked was stored.
    pub oldest_unix_ns: Option<i64>,
    /// Of them, messages the broker refused for good; they stay until the quota needs their space.
    pub parked: u64,
    /// Gaps not yet stated.
    pub gaps: u64,
}

impl Store {
    /// Up to `limit` messages above `after` in order, parked ones left out.
    pub fn pending(&self, after: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        let read = || -> Result<Vec<Row>, rusqlite::Error> {
            let mut statement = self.connection.prepare_cached(
                "SELECT o.sequence, e.topic, e.payload, e.created_ns, o.attempts, o.first_sent_ns
                 FROM outbox o JOIN event e ON e.sequence = o.sequence
                 WHERE o.sequence > ?1 AND o.parked_code IS NULL ORDER BY o.sequence LIMIT ?2",
            )?;
            let rows = statement.query_map(params![to_sql(after), limit as i64], |r| {
                Ok(Row {
                    sequence: r.get::<_, i64>(0)? as u64,
                    topic: r.get(1)?,
                    payload: r.get(2)?,
                    created_unix_ns: r.get(3)?,
                    attempts: r.get(4)?,
                    first_sent_unix_ns: r.get(5)?,
                })
            })?;
            rows.collect()
        };
        read().map_err(|e| StoreError::sqlite(&self.path, "reading the outbox", e))
    }

    /// Count an attempt for messages that are about to be handed to the client.
    pub fn mark_sent(&mut self, sequences: &[u64]) -> Result<(), StoreError> {
        self.transact("NORMAL", "counting attempts", |tx, _| {
            let mut statement = tx.prepare_cached(
                "UPDATE outbox SET attempts = attempts + 1, first_sent_ns = COALESCE(first_sent_ns, ?2) WHERE sequence = ?1",
            )?;
            for sequence in sequences {
                statement.execute(params![to_sql(*sequence), now_ns()])?;
            }
            Ok(())
        })
    }

    /// Acknowledged by the broker: the messages leave the outbox (and stay in the history), stated gaps are forgotten.
    /// Unknown numbers are ignored: an acknowledgement may come twice.
    pub fn acked(&mut self, sequences: &[u64]) -> Result<(), StoreError> {
        let options = self.options.clone();
        self.transact("NORMAL", "removing acknowledged messages", |tx, counts| {
            for sequence in sequences {
                let bytes: Option<i64> = tx
                    .prepare_cached("DELETE FROM outbox WHERE sequence = ?1 AND parked_code IS NULL RETURNING bytes")?
                    .query_row([to_sql(*sequence)], |r| r.get(0))
                    .optional()?;
                match bytes {
                    Some(bytes) => counts.removed(bytes as u64, false),
                    // Not waiting: then it may be the statement of a gap that ends with this number.
                    None => {
                        tx.prepare_cached("DELETE FROM gap WHERE last = ?1")?.execute([to_sql(*sequence)])?;
                    }
                }
            }
            counts.refresh(tx)?;
            counts.trim_history(tx, &options, now_ns())
        })?;
        self.offered.retain(|last| !sequences.contains(last));
        self.record.note(self.next, self.counts.oldest(self.next));
        Ok(())
    }

    /// Refused by the broker for good (MQTT reason `code`): the message stays on disk but is not offered again, and its
    /// number is recorded as a gap. The statement of a gap can be refused too; then it is not offered again either.
    pub fn park(&mut self, sequence: u64, code: u8) -> Result<(), StoreError> {
        let offered = self.offered.clone();
        self.transact("FULL", "parking a refused message", |tx, counts| {
            let waiting = tx.execute(
                "UPDATE outbox SET parked_code = ?2 WHERE sequence = ?1 AND parked_code IS NULL",
                params![to_sql(sequence), code],
            )?;
            if waiting == 1 {
                let reason = "refused".to_owned();
                insert_gap(tx, &Gap { first: sequence, last: sequence, reason, created_unix_ns: now_ns() }, &offered)?;
            } else {
                tx.execute("UPDATE gap SET parked_code = ?2 WHERE last = ?1", params![to_sql(sequence), code])?;
            }
            counts.refresh(tx)
        })
    }

    /// Gaps not yet acknowledged, oldest first.
    pub fn gaps(&mut self, limit: usize) -> Result<Vec<Gap>, StoreError> {
        let read = || -> Result<Vec<Gap>, rusqlite::Error> {
            let mut statement = self.connection.prepare_cached(
                "SELECT first, last, reason, created_ns FROM gap WHERE parked_code IS NULL ORDER BY last LIMIT ?1",
            )?;
            let rows = statement.query_map([limit as i64], |r| {
                let (first, last): (i64, i64) = (r.get(0)?, r.get(1)?);
                Ok(Gap { first: first as u64, last: last as u64, reason: r.get(2)?, created_unix_ns: r.get(3)? })
            })?;
            rows.collect()
        };
        let gaps = read().map_err(|e| StoreError::sqlite(&self.path, "reading gaps", e))?;
        self.offered.extend(gaps.iter().map(|gap| gap.last));
        Ok(gaps)
    }

    /// Size of the outbox. Does not touch the disk.
    pub fn stats(&self) -> OutboxStats {
        let counts = &self.counts;
        OutboxStats {
            messages: counts.outbox,
            bytes: counts.bytes,
            oldest_unix_ns: counts.oldest.map(|(_, created)| created),
            parked: counts.parked,
            gaps: counts.gaps,
        }
    }

    /// One transaction at a level of `synchronous` ([`crate`]); the counters change only when it is committed.
    fn transact(
        &mut self,
        level: &'static str,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>, &mut Counts) -> Result<(), rusqlite::Error>,
    ) -> Result<(), StoreError> {
        self.synchronous(level)?;
        let mut counts = self.counts.clone();
        let result = (|| {
            let tx = self.connection.transaction()?;
            work(&tx, &mut counts)?;
            tx.commit()
        })();
        result.map_err(|e| StoreError::sqlite(&self.path, operation, e))?;
        self.counts = counts;
        Ok(())
    }
}

/// Sequence numbers are kept below `i64::MAX`.
pub(crate) fn to_sql(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

/// Record a gap, joined to its neighbours when they touch. `offered` are the `last` of gaps whose statement may be under
/// way: none of them becomes larger under the same `last`, or the acknowledgement of the smaller statement would remove it.
pub(crate) fn insert_gap(tx: &Transaction<'_>, gap: &Gap, offered: &BTreeSet<u64>) -> Result<(), rusqlite::Error> {
    let (mut first, mut last) = (to_sql(gap.first), to_sql(gap.last));
    let before: Option<i64> = tx
        .prepare_cached("DELETE FROM gap WHERE last = ?1 - 1 AND reason = ?2 RETURNING first")?
        .query_row(params![first, gap.reason], |r| r.get(0))
        .optional()?;
    first = before.unwrap_or(first);
    let after: Option<i64> = tx
        .prepare_cached("SELECT last FROM gap WHERE first = ?1 + 1 AND reason = ?2")?
        .query_row(params![last, gap.reason], |r| r.get(0))
        .optional()?;
    if let Some(after) = after.filter(|after| !offered.contains(&(*after as u64))) {
        // The row of `after` is replaced below: `last` is its key.
        last = after;
    }
    tx.prepare_cached("INSERT OR REPLACE INTO gap VALUES (?1, ?2, ?3, ?4, NULL)")?.execute(params![
        last,
        first,
        gap.reason,
        gap.created_unix_ns
    ])?;
    Ok(())
}
