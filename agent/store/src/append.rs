//! Appending events: sequence, revision, outbox, history, open actions and the quota in one transaction.

use std::ops::Range;

use rusqlite::{OptionalExtension, Transaction, params};

use crate::counts::Counts;
use crate::open_action::seal;
use crate::{Gap, Row, Stamp, Store, StoreError, quota};

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

/// An event to store. The payload is built inside the transaction because it contains numbers that are given out there.
pub struct Draft<'a> {
    /// MQTT topic.
    pub topic: &'a str,
    /// Action the event belongs to.
    pub action_id: String,
    /// Label of the action.
    pub label: &'a str,
    /// Camera of the action.
    pub camera: &'a str,
    /// Where the action stands after this event.
    pub status: Status,
    /// Revision within the action, where the store does not know the action; else it counts on itself.
    pub rev: u32,
    /// Payload for a sequence number and a revision. Called once per attempt to append; must not block.
    pub build: &'a dyn Fn(u64, u32) -> Vec<u8>,
}

/// When the appended messages go to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handing {
    /// At once: they are returned, and stored as ones that a consumer may have seen.
    Now,
    /// When [`Store::offer`] returns them.
    Later,
}

/// What an append did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Sequence numbers of the drafts, in order.
    pub sequences: Range<u64>,
    /// The rows as they were stored, with [`Handing::Now`]; else none.
    pub rows: Vec<Row>,
    /// Ranges that the quota pushed out of the outbox. They are recorded as gaps already ([`Store::gaps`]).
    pub dropped: Vec<Gap>,
}

/// Bytes that a row costs beside its payload and topic, roughly.
pub(crate) const ROW_OVERHEAD: u64 = 96;

impl Store {
    /// Store `drafts` in order, durably, or nothing at all. After `Ok` they survive `kill -9` and power cuts; only then
    /// may they be published. On an error (full disk…) no number is used up: append the same drafts again later.
    pub fn append(&mut self, now: &Stamp, drafts: &[Draft<'_>], handing: Handing) -> Result<Appended, StoreError> {
        let first = self.next;
        let end = first + drafts.len() as u64;
        if drafts.is_empty() {
            return Ok(Appended { sequences: first..first, rows: Vec::new(), dropped: Vec::new() });
        }
        self.record.reserve(end)?;
        self.synchronous("FULL")?;
        let mut counts = self.counts.clone();
        let options = &self.options;
        let stored = (|| {
            let tx = self.connection.transaction()?;
            let mut rows = Vec::new();
            for (sequence, draft) in (first..end).zip(drafts) {
                let row = insert(&tx, sequence, draft, now, handing, &mut counts)?;
                rows.extend((handing == Handing::Now).then_some(row));
            }
            tx.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'next_sequence'")?.execute([end as i64])?;
            let dropped = quota::shrink(&tx, options, first, now, &mut counts)?;
            tx.commit()?;
            Ok((rows, dropped))
        })();
        let (rows, dropped) = stored.map_err(|e| StoreError::sqlite(&self.path, "storing events", e))?;
        self.next = end;
        self.counts = counts;
        self.record.note(end, self.counts.oldest(end));
        Ok(Appended { sequences: first..end, rows, dropped })
    }
}

/// What a bit that flips on the disk is found by.
pub(crate) fn check_sum(sequence: u64, topic: &str, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(topic.as_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn insert(
    tx: &Transaction<'_>,
    sequence: u64,
    draft: &Draft<'_>,
    now: &Stamp,
    handing: Handing,
    counts: &mut Counts,
) -> Result<Row, rusqlite::Error> {
    let (topic, id, number) = (draft.topic, &draft.action_id, sequence as i64);
    let before: Option<u32> = tx
        .prepare_cached("SELECT rev FROM open_action WHERE action_id = ?1")?
        .query_row([id], |r| r.get(0))
        .optional()?;
    let rev = before.map_or(draft.rev, |rev| rev.saturating_add(1));
    let payload = (draft.build)(sequence, rev);
    tx.prepare_cached(
        "INSERT INTO event (sequence, topic, payload, action_id, camera, label, status, created_ns, boot_ns, boot,
                            synced, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        number,
        topic,
        payload,
        id,
        draft.camera,
        draft.label,
        draft.status.to_sql(),
        now.unix_ns,
        now.boot_ns,
        now.boot,
        now.synced,
        check_sum(sequence, topic, &payload)
    ])?;
    let bytes = (payload.len() + topic.len()) as u64 + ROW_OVERHEAD;
    let (attempts, sent_ns) = match handing {
        Handing::Now => (1, Some(now.unix_ns)),
        Handing::Later => (0, None),
    };
    tx.prepare_cached(
        "INSERT INTO outbox (sequence, status, bytes, attempts, first_sent_ns, action_id, rev)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![number, draft.status.to_sql(), bytes as i64, attempts, sent_ns, id, rev])?;
    counts.added(sequence, bytes, *now);
    if draft.status == Status::Ended {
        tx.prepare_cached("DELETE FROM open_action WHERE action_id = ?1")?.execute([id])?;
    } else {
        tx.prepare_cached(
            "INSERT OR REPLACE INTO open_action (action_id, sequence, topic, camera, label, payload, rev, crc)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            id,
            number,
            topic,
            draft.camera,
            draft.label,
            payload,
            rev,
            seal([id, topic, draft.camera, draft.label], sequence, &payload, rev)
        ])?;
    }
    Ok(Row { sequence, topic: topic.to_owned(), payload, stored: *now, attempts: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Disposition, StoreOptions};

    /// That a level does what it says is SQLite's business, and tested there.
    #[test]
    fn what_a_subscriber_may_have_seen_is_synced_and_what_may_be_done_twice_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let now = Stamp::default();
        let mut store = Store::open(dir.path().join("events.db"), StoreOptions::default(), &now, None).unwrap();
        let level =
            |store: &Store| -> i64 { store.connection.query_row("PRAGMA synchronous", [], |r| r.get(0)).unwrap() };
        const NORMAL: i64 = 1;
        const FULL: i64 = 2;
        let build = |_, _| vec![];
        let (topic, label, camera, status, rev) = ("t", "l", "c", Status::Started, 0);
        let draft = || Draft { topic, action_id: "a".into(), label, camera, status, rev, build: &build };
        store.append(&now, &[draft(), draft()], Handing::Later).unwrap();
        assert_eq!(level(&store), FULL);
        store.acked(&[7]).unwrap();
        assert_eq!(level(&store), NORMAL);
        store.offer(&now, 0, u64::MAX, 9).unwrap();
        assert_eq!(level(&store), FULL, "told for the first time");
        store.offer(&now, 0, u64::MAX, 9).unwrap();
        assert_eq!(level(&store), NORMAL, "told again");
        store.park(&now, 1, 0x97).unwrap();
        assert_eq!(level(&store), FULL);
        store.stated(&[1..=1]).unwrap();
        assert_eq!(level(&store), NORMAL);
        store.next_session(0).unwrap();
        assert_eq!(level(&store), FULL);
    }

    #[test]
    fn a_full_disk_loses_nothing_and_is_overcome() {
        let dir = tempfile::tempdir().unwrap();
        let now = Stamp::default();
        let mut store = Store::open(dir.path().join("kinewatch.db"), StoreOptions::default(), &now, None).unwrap();
        let large = |sequence: u64, _| vec![sequence as u8; 200_000];
        let draft = || Draft {
            topic: "t",
            action_id: "a".into(),
            label: "l",
            camera: "c",
            status: Status::Started,
            rev: 0,
            build: &large,
        };
        store.append(&now, &[draft()], Handing::Later).unwrap();
        // SQLite's own limit gives the same error as a disk without space.
        store.connection.pragma_update(None, "max_page_count", 80).unwrap();
        let error = store.append(&now, &[draft(), draft()], Handing::Later).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        assert_eq!(error.disposition(), Disposition::Retry);
        assert_eq!(store.pending(0, 10).unwrap().len(), 1);
        store.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
        let appended = store.append(&now, &[draft(), draft()], Handing::Now).unwrap();
        assert_eq!(appended.sequences, 2..4, "no number was used up");
        assert_eq!(appended.rows.iter().map(|r| r.sequence).collect::<Vec<_>>(), [2, 3]);
    }
}
