//! Appending events: sequence, outbox, history, open actions and the quota in one transaction.

use std::collections::BTreeSet;
use std::ops::Range;

use rusqlite::{Transaction, params};

use crate::counts::Counts;
use crate::open::now_ns;
use crate::outbox::insert_gap;
use crate::{Gap, Store, StoreError};

/// Where an action stands after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// First message of the action.
    Started,
    /// A later message; the first to go when the outbox is over its quota.
    Updated,
    /// Last message of the action.
    Ended,
}

impl Status {
    pub(crate) fn to_sql(self) -> i64 {
        match self {
            Self::Started => 0,
            Self::Updated => 1,
            Self::Ended => 2,
        }
    }

    pub(crate) fn from_sql(value: i64) -> Self {
        match value {
            0 => Self::Started,
            1 => Self::Updated,
            _ => Self::Ended,
        }
    }
}

/// An event to store. The payload is built inside the transaction because it contains the sequence number.
pub struct Draft<'a> {
    /// MQTT topic.
    pub topic: String,
    /// Action the event belongs to.
    pub action_id: String,
    /// Label of the action.
    pub label: String,
    /// Camera of the action.
    pub camera: String,
    /// Where the action stands after this event.
    pub status: Status,
    /// Payload for a sequence number. Called once per attempt to append; must not block.
    pub build: &'a dyn Fn(u64) -> Vec<u8>,
}

/// What an append did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Sequence numbers of the drafts, in order.
    pub sequences: Range<u64>,
    /// Ranges that the quota pushed out of the outbox. They are recorded as gaps already ([`Store::gaps`]).
    pub dropped: Vec<Gap>,
}

/// Bytes that a row costs beside its payload and topic, roughly.
pub(crate) const ROW_OVERHEAD: u64 = 96;

impl Store {
    /// Store `drafts` in order, durably, or nothing at all. After `Ok` they survive `kill -9` and power cuts; only then
    /// may they be published. On an error (full disk…) no number is used up: append the same drafts again later.
    pub fn append(&mut self, drafts: &[Draft<'_>]) -> Result<Appended, StoreError> {
        let first = self.next;
        let end = first + drafts.len() as u64;
        if drafts.is_empty() {
            return Ok(Appended { sequences: first..first, dropped: Vec::new() });
        }
        self.record.reserve(end)?;
        self.synchronous("FULL")?;
        let mut counts = self.counts.clone();
        let mut dropped = Vec::new();
        let path = self.path.clone();
        let options = self.options.clone();
        let result = (|| {
            let tx = self.connection.transaction()?;
            let now = now_ns();
            for (sequence, draft) in (first..end).zip(drafts) {
                insert(&tx, sequence, draft, now, &mut counts)?;
            }
            tx.execute("UPDATE meta SET value = ?1 WHERE key = 'next_sequence'", [end as i64])?;
            shrink(&tx, options.outbox_bytes, first, &self.offered, &mut counts, &mut dropped)?;
            counts.trim_history(&tx, &options, now)?;
            tx.commit()
        })();
        result.map_err(|e| StoreError::sqlite(&path, "storing events", e))?;
        self.next = end;
        self.counts = counts;
        self.record.note(end, self.counts.oldest(end));
        Ok(Appended { sequences: first..end, dropped })
    }
}

fn insert(
    tx: &Transaction<'_>,
    sequence: u64,
    draft: &Draft<'_>,
    now: i64,
    counts: &mut Counts,
) -> Result<(), rusqlite::Error> {
    let payload = (draft.build)(sequence);
    let (topic, id, camera, label) = (&draft.topic, &draft.action_id, &draft.camera, &draft.label);
    let (sequence, status) = (sequence as i64, draft.status.to_sql());
    tx.prepare_cached("INSERT INTO event VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute(params![sequence, topic, payload, id, camera, label, status, now])?;
    let bytes = (payload.len() + topic.len()) as u64 + ROW_OVERHEAD;
    tx.prepare_cached("INSERT INTO outbox (sequence, status, bytes) VALUES (?1, ?2, ?3)")?.execute(params![
        sequence,
        status,
        bytes as i64
    ])?;
    counts.added(sequence as u64, bytes, now);
    if draft.status == Status::Ended {
        tx.prepare_cached("DELETE FROM open_action WHERE action_id = ?1")?.execute([id])?;
    } else {
        tx.prepare_cached("INSERT OR REPLACE INTO open_action VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![id, sequence, topic, camera, label, payload])?;
    }
    Ok(())
}

/// Drop rows older than `before` until the outbox fits: parked ones, then the oldest `updated`, then the oldest.
fn shrink(
    tx: &Transaction<'_>,
    limit: u64,
    before: u64,
    offered: &BTreeSet<u64>,
    counts: &mut Counts,
    dropped: &mut Vec<Gap>,
) -> Result<(), rusqlite::Error> {
    if counts.bytes <= limit {
        return Ok(());
    }
    let parked = "SELECT sequence, bytes FROM outbox WHERE parked_code IS NOT NULL AND sequence < ?1 ORDER BY sequence";
    let victims = [
        parked,
        "SELECT sequence, bytes FROM outbox WHERE status = 1 AND sequence < ?1 ORDER BY sequence",
        "SELECT sequence, bytes FROM outbox WHERE sequence < ?1 ORDER BY sequence",
    ];
    for query in victims {
        let mut chosen: Vec<(i64, u64)> = Vec::new();
        let mut over = counts.bytes.saturating_sub(limit);
        let mut statement = tx.prepare_cached(query)?;
        let mut rows = statement.query([before as i64])?;
        while over > 0 {
            let Some(row) = rows.next()? else { break };
            let bytes = row.get::<_, i64>(1)? as u64;
            chosen.push((row.get(0)?, bytes));
            over = over.saturating_sub(bytes);
        }
        drop(rows);
        for (sequence, bytes) in chosen {
            tx.prepare_cached("DELETE FROM outbox WHERE sequence = ?1")?.execute([sequence])?;
            tx.prepare_cached("DELETE FROM event WHERE sequence = ?1")?.execute([sequence])?;
            counts.removed(bytes, true);
            if query == parked {
                continue; // Its gap was recorded when it was parked.
            }
            let sequence = sequence as u64;
            let gap = Gap { first: sequence, last: sequence, reason: "quota".to_owned(), created_unix_ns: now_ns() };
            insert_gap(tx, &gap, offered)?;
            match dropped.last_mut() {
                Some(previous) if previous.last + 1 == sequence => previous.last = sequence,
                _ => dropped.push(gap),
            }
        }
        if counts.bytes <= limit {
            break;
        }
    }
    counts.refresh(tx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Disposition, StoreOptions};

    #[test]
    fn a_full_disk_loses_nothing_and_is_overcome() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path().join("kinewatch.db"), StoreOptions::default()).unwrap();
        let large = |sequence: u64| vec![sequence as u8; 200_000];
        let draft = || Draft {
            topic: "t".into(),
            action_id: "a".into(),
            label: "l".into(),
            camera: "c".into(),
            status: Status::Started,
            build: &large,
        };
        store.append(&[draft()]).unwrap();
        // SQLite's own limit gives the same error as a disk without space.
        store.connection.pragma_update(None, "max_page_count", 80).unwrap();
        let error = store.append(&[draft(), draft()]).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        assert_eq!(error.disposition(), Disposition::Retry);
        assert_eq!(store.pending(0, 10).unwrap().len(), 1);
        store.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
        assert_eq!(store.append(&[draft(), draft()]).unwrap().sequences, 2..4, "no number was used up");
    }
}
