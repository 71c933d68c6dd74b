//! What goes when the outbox is too large or too old, in which order, and how the revisions of an action stay without a
//! hole. `agent/design/outbox.md` argues it.
//!
//! An `updated` that no consumer can have seen is *compacted*: it goes, and the revisions of the later messages of its
//! action move down, which nobody can notice because none of those was seen either. A message that was handed to the
//! client never changes. Every number that goes is recorded as a gap in the same transaction.

use std::collections::{BTreeSet, HashSet};

use rusqlite::{OptionalExtension, Transaction, params};

use crate::append::{ROW_OVERHEAD, check_sum};
use crate::counts::Counts;
use crate::outbox::{blob, drop_row, insert_gap, text, to_sql};
use crate::{Gap, Stamp, Status, Store, StoreError, StoreOptions, open_action};

/// A history longer than its bound by this part of it is trimmed: not on every acknowledgement.
const HISTORY_SLACK: u64 = 16;
/// Rows looked at in one go for their age.
const CHUNK: usize = 256;

impl Store {
    /// Drop what waits for longer than [`StoreOptions::outbox_age`] and forget history that is too old. The ranges dropped
    /// are recorded as gaps already. For once a minute or so.
    pub fn tidy(&mut self, now: &Stamp) -> Result<Vec<Gap>, StoreError> {
        let options = self.options.clone();
        let mut dropped = Vec::new();
        self.transact("FULL", "dropping what is too old", |tx, counts| {
            let old = "SELECT o.sequence, o.parked_code IS NOT NULL, e.created_ns, e.boot_ns, e.boot, e.synced
                       FROM outbox o JOIN event e ON e.sequence = o.sequence ORDER BY o.sequence LIMIT ?1";
            let mut cut = Cut { tx, now, reason: "age", dropped: Vec::new() };
            loop {
                let read = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)? as u64, r.get(1)?, Stamp::read(r, 2)?));
                let rows: Vec<(u64, bool, Stamp)> =
                    tx.prepare_cached(old)?.query_map([CHUNK as i64], read)?.collect::<Result<_, _>>()?;
                // Sequence order is the order of age.
                let too_old = rows.iter().take_while(|(_, _, stored)| now.since(stored) > options.outbox_age);
                let too_old: Vec<_> = too_old.map(|(sequence, parked, _)| (*sequence, *parked)).collect();
                for &(sequence, parked) in &too_old {
                    cut.lose(sequence, parked, counts)?;
                }
                if too_old.len() < CHUNK {
                    break;
                }
            }
            dropped = cut.dropped;
            forget_old_history(tx, &options, now, counts)?;
            counts.refresh(tx)
        })?;
        Ok(dropped)
    }

    /// Forget settled events beyond the bound of the history, oldest first.
    pub(crate) fn trim_history_when_long(&mut self) -> Result<(), StoreError> {
        let bound = self.options.history_rows;
        if self.counts.history() <= bound.saturating_add(bound / HISTORY_SLACK) {
            return Ok(());
        }
        self.transact("NORMAL", "trimming the history", |tx, counts| {
            let sql = "DELETE FROM event WHERE sequence IN
                       (SELECT e.sequence FROM event e LEFT JOIN outbox o ON o.sequence = e.sequence
                        WHERE o.sequence IS NULL ORDER BY e.sequence LIMIT ?1)";
            let excess = counts.history().saturating_sub(bound);
            counts.forgotten(tx.prepare_cached(sql)?.execute([to_sql(excess)])? as u64);
            Ok(())
        })
    }
}

fn forget_old_history(
    tx: &Transaction<'_>,
    options: &StoreOptions,
    now: &Stamp,
    counts: &mut Counts,
) -> Result<(), rusqlite::Error> {
    while counts.history() > 0 {
        let sql = "SELECT e.sequence, e.created_ns, e.boot_ns, e.boot, e.synced FROM event e
                   LEFT JOIN outbox o ON o.sequence = e.sequence WHERE o.sequence IS NULL ORDER BY e.sequence LIMIT ?1";
        let read = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)?, Stamp::read(r, 1)?));
        let rows: Vec<(i64, Stamp)> =
            tx.prepare_cached(sql)?.query_map([CHUNK as i64], read)?.collect::<Result<_, _>>()?;
        let mut gone = 0;
        for (sequence, _) in rows.iter().take_while(|(_, stored)| now.since(stored) > options.history_age) {
            gone += tx.prepare_cached("DELETE FROM event WHERE sequence = ?1")?.execute([sequence])?;
        }
        counts.forgotten(gone as u64);
        if gone < CHUNK {
            break;
        }
    }
    Ok(())
}

/// Bring the outbox below its bytes by dropping rows older than `before`, least useful first, and a sixteenth more, so
/// that this does not come with every append. The ranges dropped.
pub(crate) fn shrink(
    tx: &Transaction<'_>,
    options: &StoreOptions,
    before: u64,
    now: &Stamp,
    counts: &mut Counts,
) -> Result<Vec<Gap>, rusqlite::Error> {
    if counts.bytes <= options.outbox_bytes {
        return Ok(Vec::new());
    }
    let target = options.outbox_bytes - options.outbox_bytes / 16;
    let mut cut = Cut { tx, now, reason: "quota", dropped: Vec::new() };
    cut.oldest("parked_code IS NOT NULL", before, target, counts)?;
    cut.oldest("kept = 1", before, target, counts)?;
    for keep in [Survivor::OfEnded, Survivor::NewestOfOpen, Survivor::None] {
        cut.compact(keep, before, target, options.renumber, counts)?;
    }
    cut.oldest("status = 1", before, target, counts)?;
    let ended = "status = 0 AND NOT EXISTS (SELECT 1 FROM open_action a WHERE a.action_id = o.action_id)";
    cut.oldest(ended, before, target, counts)?;
    cut.oldest("TRUE", before, target, counts)?;
    counts.refresh(tx)?;
    Ok(cut.dropped)
}

/// Which unseen `updated` of an action compaction leaves, and of which actions it takes any.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Survivor {
    /// None, of actions that have ended: what `ended` says is better than all of them.
    OfEnded,
    /// The newest, of actions that go on: it renews the lease.
    NewestOfOpen,
    /// None, of any action.
    None,
}

/// Drops rows, and records what was lost.
struct Cut<'t> {
    tx: &'t Transaction<'t>,
    now: &'t Stamp,
    reason: &'static str,
    /// In the order of dropping, neighbours joined.
    dropped: Vec<Gap>,
}

/// A message of one action, newest first.
struct Message {
    sequence: u64,
    rev: u32,
    status: Status,
    /// A consumer may have it, or never will.
    fixed: bool,
}

impl Cut<'_> {
    fn lose(&mut self, sequence: u64, parked: bool, counts: &mut Counts) -> Result<(), rusqlite::Error> {
        drop_row(self.tx, sequence, counts)?;
        if parked {
            return Ok(()); // Its gap was recorded when it was parked.
        }
        let gap = Gap::of(sequence, self.reason, self.now);
        insert_gap(self.tx, &gap)?;
        match self.dropped.last_mut() {
            Some(previous) if previous.last + 1 == sequence => previous.last = sequence,
            _ => self.dropped.push(gap),
        }
        Ok(())
    }

    /// Drop the oldest rows of a kind, until the outbox fits.
    fn oldest(&mut self, kind: &str, before: u64, target: u64, counts: &mut Counts) -> Result<(), rusqlite::Error> {
        let sql = format!(
            "SELECT o.sequence, o.parked_code IS NOT NULL, o.bytes FROM outbox o
             WHERE {kind} AND o.sequence < ?1 ORDER BY o.sequence"
        );
        let mut chosen: Vec<(u64, bool)> = Vec::new();
        let mut over = counts.bytes.saturating_sub(target);
        let mut statement = self.tx.prepare_cached(&sql)?;
        let mut rows = statement.query([to_sql(before)])?;
        while over > 0 {
            let Some(row) = rows.next()? else { break };
            chosen.push((row.get::<_, i64>(0)? as u64, row.get(1)?));
            over = over.saturating_sub(row.get::<_, i64>(2)? as u64);
        }
        drop(rows);
        for (sequence, parked) in chosen {
            self.lose(sequence, parked, counts)?;
        }
        Ok(())
    }

    /// Compact action after action, in the order of their oldest `updated` that nobody has seen.
    fn compact(
        &mut self,
        leave: Survivor,
        before: u64,
        target: u64,
        renumber: fn(&[u8], u32) -> Option<Vec<u8>>,
        counts: &mut Counts,
    ) -> Result<(), rusqlite::Error> {
        let sql = "SELECT sequence, action_id FROM outbox WHERE status = 1 AND attempts = 0 AND kept = 0
                   AND parked_code IS NULL AND sequence > ?1 AND sequence < ?2 ORDER BY sequence LIMIT 1";
        let mut seen = HashSet::new();
        let mut at = 0;
        while counts.bytes > target {
            let read = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?));
            let candidate = self.tx.prepare_cached(sql)?.query_row([at, to_sql(before)], read).optional()?;
            let Some((sequence, action)) = candidate else { break };
            at = sequence;
            if !seen.contains(&action) {
                self.compact_action(&action, leave, before, renumber, counts)?;
                seen.insert(action);
            }
        }
        Ok(())
    }

    fn compact_action(
        &mut self,
        action: &str,
        leave: Survivor,
        before: u64,
        renumber: fn(&[u8], u32) -> Option<Vec<u8>>,
        counts: &mut Counts,
    ) -> Result<(), rusqlite::Error> {
        let open: Option<u32> = self
            .tx
            .prepare_cached("SELECT rev FROM open_action WHERE action_id = ?1")?
            .query_row([action], |r| r.get(0))
            .optional()?;
        if leave == Survivor::OfEnded && open.is_some() {
            return Ok(());
        }
        let tail = self.unseen_tail(action, open)?;
        let updates: Vec<u64> = tail.iter().filter(|m| m.status == Status::Updated).map(|m| m.sequence).collect();
        let spared = usize::from(leave == Survivor::NewestOfOpen && open.is_some());
        let gone: BTreeSet<u64> = updates.into_iter().skip(spared).filter(|sequence| *sequence < before).collect();
        let lower = |m: &Message| (gone.range(..m.sequence).count() as u32, m.sequence);
        let moved: Vec<(u32, u64)> =
            tail.iter().filter(|m| !gone.contains(&m.sequence)).map(lower).filter(|(down, _)| *down > 0).collect();
        let mut renumbered = Vec::with_capacity(moved.len());
        for (down, sequence) in moved {
            match self.renumbered(sequence, down, renumber)? {
                Some(row) => renumbered.push(row),
                // A payload that nobody can read keeps its number, and so does all of its action.
                None => return Ok(()),
            }
        }
        for sequence in &gone {
            self.lose(*sequence, false, counts)?;
        }
        for row in renumbered {
            self.rewrite(&row, counts)?;
        }
        if open.is_some() {
            open_action::lower(self.tx, action, gone.len() as u32)?;
        }
        Ok(())
    }

    /// The newest messages of an action that no consumer can have seen and that follow each other, newest first: only
    /// their revisions may change. `open`: the revision of the newest message while the action goes on.
    fn unseen_tail(&self, action: &str, open: Option<u32>) -> Result<Vec<Message>, rusqlite::Error> {
        let sql = "SELECT sequence, rev, status, attempts > 0 OR kept = 1 OR parked_code IS NOT NULL
                   FROM outbox WHERE action_id = ?1 ORDER BY sequence DESC";
        let mut statement = self.tx.prepare_cached(sql)?;
        let mut rows = statement.query([action])?;
        let mut tail: Vec<Message> = Vec::new();
        while let Some(row) = rows.next()? {
            let message = Message {
                sequence: row.get::<_, i64>(0)? as u64,
                rev: row.get(1)?,
                status: Status::from_sql(row.get(2)?),
                fixed: row.get(3)?,
            };
            let follows = match (tail.last(), open) {
                (Some(later), _) => message.rev + 1 == later.rev,
                (None, Some(rev)) => message.rev == rev,
                (None, None) => message.status == Status::Ended,
            };
            if message.fixed || !follows {
                break;
            }
            tail.push(message);
        }
        Ok(tail)
    }

    fn renumbered(
        &self,
        sequence: u64,
        down: u32,
        renumber: fn(&[u8], u32) -> Option<Vec<u8>>,
    ) -> Result<Option<Renumbered>, rusqlite::Error> {
        let sql = "SELECT e.topic, e.payload, o.rev FROM event e JOIN outbox o ON o.sequence = e.sequence
                   WHERE e.sequence = ?1";
        let read = |r: &rusqlite::Row<'_>| Ok((text(r.get_ref(0)?), blob(r.get_ref(1)?), r.get(2)?));
        let (topic, payload, rev): (_, _, u32) = self.tx.prepare_cached(sql)?.query_row([to_sql(sequence)], read)?;
        let (Some(topic), Some(payload)) = (topic, payload) else { return Ok(None) };
        let rev = rev.saturating_sub(down);
        Ok(renumber(&payload, rev).map(|payload| Renumbered { sequence, topic, payload, rev }))
    }

    fn rewrite(&self, row: &Renumbered, counts: &mut Counts) -> Result<(), rusqlite::Error> {
        let number = to_sql(row.sequence);
        let sum = check_sum(row.sequence, &row.topic, &row.payload);
        self.tx.prepare_cached("UPDATE event SET payload = ?2, crc = ?3 WHERE sequence = ?1")?.execute(params![
            number,
            row.payload,
            sum
        ])?;
        let bytes = (row.payload.len() + row.topic.len()) as u64 + ROW_OVERHEAD;
        let before: i64 = self
            .tx
            .prepare_cached("SELECT bytes FROM outbox WHERE sequence = ?1")?
            .query_row([number], |r| r.get(0))?;
        self.tx.prepare_cached("UPDATE outbox SET rev = ?2, bytes = ?3 WHERE sequence = ?1")?.execute(params![
            number,
            row.rev,
            bytes as i64
        ])?;
        counts.bytes = counts.bytes.saturating_sub(before as u64).saturating_add(bytes);
        Ok(())
    }
}

struct Renumbered {
    sequence: u64,
    topic: String,
    payload: Vec<u8>,
    rev: u32,
}
