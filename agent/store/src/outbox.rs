//! The outbox as the publisher sees it: what is pending, what is handed over, acknowledged or refused, and the gaps.

use std::ops::RangeInclusive;
use std::time::Duration;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::append::check_sum;
use crate::counts::Counts;
use crate::stamp::COLUMNS;
use crate::{KeepUntil, Stamp, Store, StoreError};

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
    pub stored: Stamp,
    /// How often it was handed to the client before.
    pub attempts: u32,
}

/// A range of sequence numbers that will never be delivered, to be stated as `sys/gap`. It may grow while its statement is
/// under way: tell [`Store::stated`] which range was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// First missing number.
    pub first: u64,
    /// Last missing number.
    pub last: u64,
    /// `quota`, `age`, `refused`, `damaged` or `database_lost`.
    pub reason: String,
    /// When it was recorded.
    pub created_unix_ns: i64,
}

/// Size of the outbox. Kept in memory: cheap to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxStats {
    /// Messages that wait for the broker.
    pub waiting: u64,
    /// Messages that the broker refused for good; they stay until the quota needs their space.
    pub parked: u64,
    /// Messages that the broker has and that wait for a consumer.
    pub kept: u64,
    /// Bytes of them all, as counted against the quota.
    pub bytes: u64,
    /// When the oldest that waits for the broker was stored.
    pub oldest: Option<Stamp>,
    /// Gaps not yet stated.
    pub gaps: u64,
}

/// What the acknowledgement of a consumer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumed {
    /// Messages that left the outbox by it.
    pub released: u64,
    /// Messages that the broker has and that still wait for a consumer.
    pub kept: u64,
}

/// Messages that wait again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resend {
    /// The lowest number of them.
    pub first: Option<u64>,
    /// How many.
    pub messages: u64,
}

const WAITS: &str = "o.parked_code IS NULL AND o.kept = 0";

impl Store {
    /// Up to `limit` messages above `above` that wait for the broker, in order. For looking; to send them, ask [`Store::offer`].
    pub fn pending(&self, above: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        Ok(self.read(above, u64::MAX, limit)?.into_iter().map(|(row, _)| row).collect())
    }

    /// Up to `limit` messages above `above` and up to `to` that wait for the broker, in order, to be handed to the
    /// client. Before it returns it is on disk that a consumer may have seen them: from then on their revision stays.
    /// A message that the disk has damaged is left out, and its number recorded as a gap ([`Store::take_damaged`]).
    pub fn offer(&mut self, now: &Stamp, above: u64, to: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        let mut above = above;
        let mut rows = Vec::new();
        // However many damaged ones lie before it, a message that is whole is found: nobody would ask for it again.
        while rows.is_empty() {
            let block = self.read(above, to, limit)?;
            let Some((newest, _)) = block.last() else { return Ok(rows) };
            above = newest.sequence;
            for (row, whole) in block {
                if whole {
                    rows.push(row);
                    continue;
                }
                tracing::error!(
                    sequence = row.sequence,
                    "this event was damaged on the disk: it is dropped and stated on sys/gap"
                );
                self.drop_damaged(now, row.sequence)?;
            }
        }
        // What is told for the first time must not be forgotten by a power cut; that it was told again may be.
        let level = if rows.iter().any(|row| row.attempts == 0) { "FULL" } else { "NORMAL" };
        self.transact(level, "noting what is sent", |tx, _| {
            let mut statement = tx.prepare_cached(
                "UPDATE outbox SET attempts = attempts + 1, first_sent_ns = COALESCE(first_sent_ns, ?2) WHERE sequence = ?1",
            )?;
            for row in &rows {
                statement.execute(params![to_sql(row.sequence), now.unix_ns])?;
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// The newest message that waits for the broker and was stored longer than `age` ago; 0 when there is none.
    pub fn newest_older_than(&self, now: &Stamp, age: Duration) -> Result<u64, StoreError> {
        let find = || -> Result<u64, rusqlite::Error> {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT o.sequence, {COLUMNS} FROM outbox o JOIN event e ON e.sequence = o.sequence
                 WHERE {WAITS} ORDER BY o.sequence DESC"
            ))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                if now.since(&Stamp::read(row, 1)?) > age {
                    return Ok(row.get::<_, i64>(0)? as u64);
                }
            }
            Ok(0)
        };
        find().map_err(|e| StoreError::sqlite(&self.path, "reading the outbox", e))
    }

    /// Acknowledged by the broker: the messages leave the outbox and stay in the history, or are kept for a consumer
    /// ([`KeepUntil::Consumer`]). Unknown numbers are ignored: an acknowledgement may come twice.
    pub fn acked(&mut self, sequences: &[u64]) -> Result<(), StoreError> {
        let keep = self.options.keep_until == KeepUntil::Consumer;
        self.transact("NORMAL", "removing acknowledged messages", |tx, counts| {
            let sql = if keep {
                "UPDATE outbox SET kept = 1 WHERE sequence = ?1 AND parked_code IS NULL AND kept = 0 RETURNING bytes"
            } else {
                "DELETE FROM outbox WHERE sequence = ?1 AND parked_code IS NULL RETURNING bytes"
            };
            let mut statement = tx.prepare_cached(sql)?;
            for sequence in sequences {
                let bytes: Option<i64> = statement.query_row([to_sql(*sequence)], |r| r.get(0)).optional()?;
                match bytes {
                    Some(_) if keep => counts.kept += 1,
                    Some(bytes) => counts.settled(bytes as u64),
                    None => {}
                }
            }
            counts.refresh(tx)
        })?;
        self.trim_history_when_long()
    }

    /// A consumer has everything up to and including `up_to`: what is kept for it leaves the outbox. What the broker has
    /// not acknowledged stays, whatever a consumer says: that it was handed over is noted before it is sent.
    pub fn consumed(&mut self, up_to: u64) -> Result<Consumed, StoreError> {
        let mut released = 0;
        self.transact("NORMAL", "removing consumed messages", |tx, counts| {
            let mut statement = tx.prepare_cached(
                "DELETE FROM outbox WHERE sequence <= ?1 AND parked_code IS NULL AND kept = 1 RETURNING bytes",
            )?;
            let sizes = statement.query_map([to_sql(up_to)], |r| r.get::<_, i64>(0))?;
            for bytes in sizes {
                counts.settled(bytes? as u64);
                released += 1;
            }
            counts.recount(tx)
        })?;
        self.trim_history_when_long()?;
        Ok(Consumed { released, kept: self.counts.kept })
    }

    /// What is kept for a consumer waits for the broker again, from the number `from` on.
    pub fn resend(&mut self, from: u64) -> Result<Resend, StoreError> {
        let mut again = Resend { first: None, messages: 0 };
        self.transact("NORMAL", "sending kept messages again", |tx, counts| {
            let sql = "SELECT MIN(sequence) FROM outbox WHERE kept = 1 AND parked_code IS NULL AND sequence >= ?1";
            let first: Option<i64> = tx.query_row(sql, [to_sql(from)], |r| r.get(0))?;
            let sql = "UPDATE outbox SET kept = 0 WHERE kept = 1 AND parked_code IS NULL AND sequence >= ?1";
            again = Resend { first: first.map(|n| n as u64), messages: tx.execute(sql, [to_sql(from)])? as u64 };
            counts.recount(tx)
        })?;
        Ok(again)
    }

    /// Refused by the broker for good (MQTT reason `code`): the message stays on disk but is not offered again, and its
    /// number is recorded as a gap.
    pub fn park(&mut self, now: &Stamp, sequence: u64, code: u8) -> Result<(), StoreError> {
        self.transact("FULL", "parking a refused message", |tx, counts| {
            let sql = "UPDATE outbox SET parked_code = ?2 WHERE sequence = ?1 AND parked_code IS NULL AND kept = 0";
            if tx.execute(sql, params![to_sql(sequence), code])? == 1 {
                insert_gap(tx, &Gap::of(sequence, "refused", now))?;
            }
            counts.refresh(tx)
        })
    }

    /// Gaps not yet stated, lowest numbers first.
    pub fn gaps(&self, limit: usize) -> Result<Vec<Gap>, StoreError> {
        let read = || -> Result<Vec<Gap>, rusqlite::Error> {
            let mut statement = self.connection.prepare_cached(
                "SELECT first, last, reason, created_ns FROM gap WHERE parked_code IS NULL ORDER BY last LIMIT ?1",
            )?;
            let rows = statement.query_map([limit as i64], Gap::read)?;
            rows.collect()
        };
        read().map_err(|e| StoreError::sqlite(&self.path, "reading gaps", e))
    }

    /// The broker has the statements of these ranges: their gaps are forgotten. One that begins earlier by now, or that of
    /// another database, is stated again.
    pub fn stated(&mut self, ranges: &[RangeInclusive<u64>]) -> Result<(), StoreError> {
        self.transact("NORMAL", "removing stated gaps", |tx, counts| {
            let mut statement = tx.prepare_cached("DELETE FROM gap WHERE last = ?1 AND first >= ?2")?;
            for range in ranges {
                statement.execute([to_sql(*range.end()), to_sql(*range.start())])?;
            }
            counts.refresh(tx)
        })
    }

    /// The broker refuses the statement of the gap that ends with `last`: it is not offered again before the store is
    /// opened anew; the broker's rules may be others then.
    pub fn park_gap(&mut self, last: u64, code: u8) -> Result<(), StoreError> {
        self.transact("NORMAL", "parking a refused statement", |tx, counts| {
            tx.execute("UPDATE gap SET parked_code = ?2 WHERE last = ?1", params![to_sql(last), code])?;
            counts.refresh(tx)
        })
    }

    /// Size of the outbox. Does not touch the disk.
    pub fn stats(&self) -> OutboxStats {
        let counts = &self.counts;
        OutboxStats {
            waiting: counts.waiting(),
            parked: counts.parked,
            kept: counts.kept,
            bytes: counts.bytes,
            oldest: counts.oldest.map(|(_, stored)| stored),
            gaps: counts.gaps,
        }
    }

    /// Rows that wait, and of each whether it is as it was stored.
    fn read(&self, above: u64, to: u64, limit: usize) -> Result<Vec<(Row, bool)>, StoreError> {
        let read = || -> Result<Vec<(Row, bool)>, rusqlite::Error> {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT o.sequence, e.topic, e.payload, o.attempts, e.crc, {COLUMNS}
                 FROM outbox o JOIN event e ON e.sequence = o.sequence
                 WHERE o.sequence > ?1 AND o.sequence <= ?2 AND {WAITS} ORDER BY o.sequence LIMIT ?3"
            ))?;
            let rows = statement.query_map(params![to_sql(above), to_sql(to), limit as i64], |r| {
                let sequence = r.get::<_, i64>(0)? as u64;
                // One message that is not what it was must not cost the others.
                let (topic, payload) = (text(r.get_ref(1)?), blob(r.get_ref(2)?));
                let sum = |topic: &str, payload: &[u8]| i64::from(check_sum(sequence, topic, payload));
                let whole = match (&topic, &payload, r.get(4)?) {
                    (Some(topic), Some(payload), Value::Integer(stored)) => stored == sum(topic, payload),
                    // Of version 1.
                    (Some(_), Some(_), Value::Null) => true,
                    _ => false,
                };
                let (topic, payload) = (topic.unwrap_or_default(), payload.unwrap_or_default());
                Ok((Row { sequence, topic, payload, attempts: r.get(3)?, stored: Stamp::read(r, 5)? }, whole))
            })?;
            rows.collect()
        };
        read().map_err(|e| StoreError::sqlite(&self.path, "reading the outbox", e))
    }

    /// Gaps of messages and open actions found damaged since it was last asked, for whoever counts.
    pub fn take_damaged(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.damaged)
    }

    fn drop_damaged(&mut self, now: &Stamp, sequence: u64) -> Result<(), StoreError> {
        let gap = Gap::of(sequence, "damaged", now);
        self.transact("FULL", "dropping a damaged message", |tx, counts| {
            drop_row(tx, sequence, counts)?;
            insert_gap(tx, &gap)?;
            counts.refresh(tx)
        })?;
        self.damaged.push(gap);
        Ok(())
    }

    /// One transaction at a level of `synchronous` ([`crate`]); the counters and the record change only when it is committed.
    pub(crate) fn transact(
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
        self.record.note(self.next, self.counts.oldest(self.next));
        Ok(())
    }
}

impl Gap {
    /// A gap of one number.
    pub(crate) fn of(sequence: u64, reason: &str, now: &Stamp) -> Self {
        Self { first: sequence, last: sequence, reason: reason.to_owned(), created_unix_ns: now.unix_ns }
    }

    pub(crate) fn read(row: &rusqlite::Row<'_>) -> Result<Self, rusqlite::Error> {
        let (first, last): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(Self { first: first as u64, last: last as u64, reason: row.get(2)?, created_unix_ns: row.get(3)? })
    }
}

/// A text, unless the disk has made something else of it.
pub(crate) fn text(value: ValueRef<'_>) -> Option<String> {
    value.as_str().ok().map(str::to_owned)
}

/// Bytes, unless the disk has made something else of them.
pub(crate) fn blob(value: ValueRef<'_>) -> Option<Vec<u8>> {
    value.as_blob().ok().map(<[u8]>::to_vec)
}

/// Sequence numbers are kept below `i64::MAX`.
pub(crate) fn to_sql(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

/// Remove a message from outbox and history.
pub(crate) fn drop_row(tx: &Transaction<'_>, sequence: u64, counts: &mut Counts) -> Result<(), rusqlite::Error> {
    let (bytes, kept): (i64, bool) = tx
        .prepare_cached("DELETE FROM outbox WHERE sequence = ?1 RETURNING bytes, kept = 1 AND parked_code IS NULL")?
        .query_row([to_sql(sequence)], |r| Ok((r.get(0)?, r.get(1)?)))?;
    tx.prepare_cached("DELETE FROM event WHERE sequence = ?1")?.execute([to_sql(sequence)])?;
    counts.dropped(bytes as u64);
    counts.kept = counts.kept.saturating_sub(u64::from(kept));
    Ok(())
}

/// Record a gap, joined to its neighbours when they touch, and to one that ends with it.
pub(crate) fn insert_gap(tx: &Transaction<'_>, gap: &Gap) -> Result<(), rusqlite::Error> {
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
    // The row of `after` becomes larger below: `last` is its key.
    last = after.unwrap_or(last);
    let sql = "INSERT INTO gap VALUES (?1, ?2, ?3, ?4, NULL)
               ON CONFLICT (last) DO UPDATE SET first = MIN(first, excluded.first), parked_code = NULL";
    tx.prepare_cached(sql)?.execute(params![last, first, gap.reason, gap.created_unix_ns])?;
    Ok(())
}
