//! Actions that have begun and not ended: each is ended with `recovered` after a crash, by what stands here.
//!
//! So each row has a check sum. One that the disk has changed is made anew from the action's last message, which has a check sum
//! of its own; where that is gone or damaged too, the row goes and its number is recorded as a gap. Nothing here knows what is
//! in a payload. On the thread that owns the [`Store`].

use std::path::Path;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, params};

use crate::append::check_sum;
use crate::outbox::{blob, insert_gap, text, to_sql};
use crate::{Gap, Stamp, Status, Store, StoreError};

/// Actions read from a damaged database at most.
const SALVAGED: usize = 4096;

/// An action that has started and not ended. After a crash each is ended with `recovered`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAction {
    /// Action.
    pub action_id: String,
    /// Sequence number of its last message.
    pub sequence: u64,
    /// Topic of its messages.
    pub topic: String,
    /// Camera.
    pub camera: String,
    /// Label.
    pub label: String,
    /// Its last message as stored.
    pub last_payload: Vec<u8>,
    /// Revision of that.
    pub rev: u32,
}

impl Store {
    /// Actions without an end, in the order of their last message. What the disk had changed of them was mended, or stated as
    /// a gap, when the store was opened.
    pub fn open_actions(&self) -> Result<Vec<OpenAction>, StoreError> {
        let read = || -> Result<Vec<OpenAction>, rusqlite::Error> {
            let sql = format!("SELECT {FIELDS} FROM open_action ORDER BY sequence");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], OpenAction::read)?;
            rows.collect()
        };
        read().map_err(|e| StoreError::sqlite(&self.path, "reading open actions", e))
    }

    /// Goes on with actions that a database set aside held open, where this one does not know them.
    pub fn adopt(&mut self, actions: &[OpenAction]) -> Result<(), StoreError> {
        if actions.is_empty() {
            return Ok(());
        }
        self.transact("FULL", "going on with open actions", |tx, _| {
            actions.iter().try_for_each(|action| insert(tx, action, Some(action.seal())))
        })
    }

    /// Forgets open actions whose last message nobody can read, and records their numbers as gaps ([`Store::take_damaged`]).
    pub fn give_up(&mut self, now: &Stamp, actions: &[&OpenAction]) -> Result<(), StoreError> {
        let next = self.next;
        let gaps: Vec<_> = actions.iter().filter_map(|action| lost(action.sequence, next, now)).collect();
        self.transact("FULL", "giving up open actions", |tx, counts| {
            for action in actions {
                tx.execute("DELETE FROM open_action WHERE action_id = ?1", [&action.action_id])?;
            }
            gaps.iter().try_for_each(|gap| insert_gap(tx, gap))?;
            counts.refresh(tx)
        })?;
        self.damaged.extend(gaps);
        Ok(())
    }
}

/// The columns that [`OpenAction::read`] reads.
const FIELDS: &str = "action_id, sequence, topic, camera, label, payload, rev";

impl OpenAction {
    fn read(r: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            action_id: r.get(0)?,
            sequence: r.get::<_, i64>(1)? as u64,
            topic: r.get(2)?,
            camera: r.get(3)?,
            label: r.get(4)?,
            last_payload: r.get(5)?,
            rev: r.get(6)?,
        })
    }

    fn seal(&self) -> u32 {
        seal([&self.action_id, &self.topic, &self.camera, &self.label], self.sequence, &self.last_payload, self.rev)
    }
}

/// What a bit that flips in an open action is found by. `texts`: action, topic, camera, label.
pub(crate) fn seal(texts: [&str; 4], sequence: u64, payload: &[u8], rev: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for text in texts {
        // Its length too, or a letter could go over to the neighbour.
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.update(&sequence.to_le_bytes());
    hasher.update(&rev.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// The revision of an open action goes down. Its check sum follows, unless the row has been damaged: that is to be found.
pub(crate) fn lower(tx: &Transaction<'_>, action: &str, by: u32) -> Result<(), rusqlite::Error> {
    let sql = format!("SELECT {FIELDS}, crc FROM open_action WHERE action_id = ?1");
    let found = tx.prepare_cached(&sql)?.query_row([action], Found::read).optional()?;
    let whole = found.filter(|found| found.state == State::Whole).and_then(|found| found.action);
    let crc = whole.map(|action| OpenAction { rev: action.rev.saturating_sub(by), ..action }.seal());
    let sql = "UPDATE open_action SET rev = rev - ?2, crc = COALESCE(?3, crc) WHERE action_id = ?1";
    tx.prepare_cached(sql)?.execute(params![action, by, crc])?;
    Ok(())
}

fn insert(c: &Connection, action: &OpenAction, crc: Option<u32>) -> Result<(), rusqlite::Error> {
    let sql = format!("INSERT OR IGNORE INTO open_action ({FIELDS}, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
    c.prepare_cached(&sql)?.execute(params![
        action.action_id,
        to_sql(action.sequence),
        action.topic,
        action.camera,
        action.label,
        action.last_payload,
        action.rev,
        crc
    ])?;
    Ok(())
}

/// A row as it is found, whatever the disk has made of it.
struct Found {
    action_id: Option<String>,
    sequence: Option<u64>,
    rev: Option<u32>,
    /// All of it, where each value is of its kind.
    action: Option<OpenAction>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// Of a version without check sums.
    Unknown,
    Damaged,
}

impl Found {
    /// Of a row of [`FIELDS`] and the check sum.
    fn read(r: &Row<'_>) -> Result<Self, rusqlite::Error> {
        let integer = |value: ValueRef<'_>| value.as_i64().ok();
        let action_id = text(r.get_ref(0)?);
        let sequence = integer(r.get_ref(1)?).and_then(|n| u64::try_from(n).ok());
        let rev = integer(r.get_ref(6)?).and_then(|n| u32::try_from(n).ok());
        let fields = (text(r.get_ref(2)?), text(r.get_ref(3)?), text(r.get_ref(4)?), blob(r.get_ref(5)?));
        let action = match (&action_id, sequence, rev, fields) {
            (Some(id), Some(sequence), Some(rev), (Some(topic), Some(camera), Some(label), Some(last_payload))) => {
                Some(OpenAction { action_id: id.clone(), sequence, topic, camera, label, last_payload, rev })
            }
            _ => None,
        };
        let state = match (&action, r.get_ref(7)?) {
            (Some(action), ValueRef::Integer(crc)) if crc == i64::from(action.seal()) => State::Whole,
            (Some(_), ValueRef::Null) => State::Unknown,
            _ => State::Damaged,
        };
        Ok(Self { action_id, sequence, rev, action, state })
    }

    /// The same made from the action's last message, which has its own check sum.
    fn anew(&self, c: &Connection) -> Result<Option<OpenAction>, rusqlite::Error> {
        // By action first: where that is right, its newest message is the last.
        let by_action = match &self.action_id {
            Some(id) => last_message(c, "action_id = ?1", Value::Text(id.clone()), self.rev)?,
            None => None,
        };
        let found = match (by_action, self.sequence) {
            (None, Some(sequence)) => last_message(c, "sequence = ?1", Value::Integer(to_sql(sequence)), self.rev)?,
            (found, _) => found,
        };
        Ok(match found {
            Some(found) if self.sequence == Some(found.sequence) => Some(found),
            // The last message may be gone from the disk, and the row is the only one that knows of it.
            Some(_) if self.state == State::Unknown => None,
            Some(found) => Some(OpenAction { rev: found.rev.max(self.rev.unwrap_or(0)), ..found }),
            None => None,
        })
    }
}

/// The newest message of which `condition` holds, if it is as it was stored and not the last of its action.
fn last_message(
    c: &Connection,
    condition: &str,
    value: Value,
    rev: Option<u32>,
) -> Result<Option<OpenAction>, rusqlite::Error> {
    // Its revision stands in the payload, where that is what the agent writes.
    let sql = format!(
        "SELECT sequence, topic, payload, action_id, camera, label, status, crc,
                COALESCE(CASE WHEN json_valid(CAST(payload AS TEXT))
                              THEN json_extract(CAST(payload AS TEXT), '$.data.rev') END,
                         (SELECT rev FROM outbox o WHERE o.sequence = event.sequence), ?2)
         FROM event WHERE {condition} ORDER BY sequence DESC LIMIT 1"
    );
    let read = |r: &Row<'_>| -> Result<Option<OpenAction>, rusqlite::Error> {
        let sequence = r.get::<_, i64>(0)? as u64;
        let (topic, payload) = (text(r.get_ref(1)?), blob(r.get_ref(2)?));
        let (id, camera, label) = (text(r.get_ref(3)?), text(r.get_ref(4)?), text(r.get_ref(5)?));
        let goes_on = r.get_ref(6)?.as_i64().is_ok_and(|status| Status::from_sql(status) != Status::Ended);
        let crc = r.get_ref(7)?.as_i64().ok();
        let rev = r.get_ref(8)?.as_i64().ok().and_then(|rev| u32::try_from(rev).ok()).unwrap_or(0);
        let (Some(topic), Some(last_payload), Some(action_id)) = (topic, payload, id) else { return Ok(None) };
        let whole = crc == Some(i64::from(check_sum(sequence, &topic, &last_payload)));
        let (camera, label) = (camera.unwrap_or_default(), label.unwrap_or_default());
        let action = OpenAction { action_id, sequence, topic, camera, label, last_payload, rev };
        Ok((whole && goes_on).then_some(action))
    };
    Ok(c.prepare(&sql)?.query_row(params![value, rev], read).optional()?.flatten())
}

/// Looks at every open action and mends what the disk has changed. Numbers of those that could not be mended are recorded as
/// gaps, which are returned.
pub(crate) fn mend(connection: &mut Connection, next: u64, now: &Stamp) -> Result<Vec<Gap>, rusqlite::Error> {
    let found = {
        let mut statement = connection.prepare(&format!("SELECT {FIELDS}, crc FROM open_action"))?;
        let rows = statement.query_map([], Found::read)?;
        rows.collect::<Result<Vec<_>, _>>()?
    };
    if found.iter().all(|found| found.state == State::Whole) {
        return Ok(Vec::new());
    }
    let tx = connection.transaction()?;
    // All of them: a key that has changed may not be found where it lies.
    tx.execute("DELETE FROM open_action", [])?;
    let mut gaps = Vec::new();
    for row in found {
        let anew = if row.state == State::Whole { None } else { row.anew(&tx)? };
        match (anew, row.action, row.state) {
            (Some(anew), _, state) => {
                if state == State::Damaged {
                    let (action, sequence) = (&anew.action_id, anew.sequence);
                    tracing::warn!(
                        action,
                        sequence,
                        "an open action was damaged on the disk: mended from its last message"
                    );
                }
                insert(&tx, &anew, Some(anew.seal()))?;
            }
            (None, Some(whole), State::Whole) => insert(&tx, &whole, Some(whole.seal()))?,
            (None, Some(unknown), State::Unknown) => insert(&tx, &unknown, None)?,
            (None, ..) => {
                tracing::error!(
                    action = row.action_id,
                    sequence = row.sequence,
                    "an open action was damaged on the disk, and so is its last message or it is gone: its end cannot be told; \
                     stated on sys/gap"
                );
                gaps.extend(row.sequence.and_then(|sequence| lost(sequence, next, now)));
            }
        }
    }
    gaps.iter().try_for_each(|gap| insert_gap(&tx, gap))?;
    tx.commit()?;
    Ok(gaps)
}

/// The gap of a number that was given out.
fn lost(sequence: u64, next: u64, now: &Stamp) -> Option<Gap> {
    (1..next).contains(&sequence).then(|| Gap::of(sequence, "damaged", now))
}

/// The open actions that can still be read from a damaged database: what a subscriber saw begin should end. Rows after
/// the first that cannot be read are given up.
pub(crate) fn salvage(path: &Path) -> Vec<OpenAction> {
    let read = |crc: &str| -> Result<Vec<OpenAction>, rusqlite::Error> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut statement = connection.prepare(&format!("SELECT {FIELDS}, {crc} FROM open_action"))?;
        let rows = statement.query_map([], Found::read)?;
        let found: Vec<Found> = rows.map_while(Result::ok).take(SALVAGED).collect();
        let mend = |row: Found| match row.state {
            State::Whole => row.action,
            State::Unknown => row.anew(&connection).ok().flatten().or(row.action),
            State::Damaged => row.anew(&connection).ok().flatten(),
        };
        let mut actions: Vec<_> = found.into_iter().filter_map(mend).collect();
        actions.sort_by_key(|action| action.sequence);
        Ok(actions)
    };
    // Version 2 has no check sum there.
    read("crc").or_else(|_| read("NULL")).unwrap_or_default()
}
