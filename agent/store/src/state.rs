//! What outlives the outbox: open actions (for `recovered` after a crash) and the history of events.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row, params};

use crate::outbox::to_sql;
use crate::{Status, Store, StoreError};

/// Actions read from a damaged database at most.
const SALVAGED: i64 = 4096;

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

/// A past event, settled or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// Sequence number.
    pub sequence: u64,
    /// Action.
    pub action_id: String,
    /// Camera.
    pub camera: String,
    /// Label.
    pub label: String,
    /// Where the action stood after the event.
    pub status: Status,
    /// MQTT topic.
    pub topic: String,
    /// MQTT payload.
    pub payload: Vec<u8>,
    /// When it was stored.
    pub created_unix_ns: i64,
    /// Whether the broker has acknowledged it.
    pub acknowledged: bool,
}

impl Store {
    /// Actions without an end, in the order of their last message.
    pub fn open_actions(&self) -> Result<Vec<OpenAction>, StoreError> {
        let read = || -> Result<Vec<OpenAction>, rusqlite::Error> {
            let mut statement = self.connection.prepare_cached(OPEN_ACTIONS)?;
            let rows = statement.query_map([i64::MAX], OpenAction::read)?;
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
            let mut statement = tx.prepare_cached(
                "INSERT OR IGNORE INTO open_action (action_id, sequence, topic, camera, label, payload, rev)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            for a in actions {
                statement.execute(params![
                    a.action_id,
                    to_sql(a.sequence),
                    a.topic,
                    a.camera,
                    a.label,
                    a.last_payload,
                    a.rev
                ])?;
            }
            Ok(())
        })
    }

    /// Up to `limit` events above `after`, oldest first.
    pub fn history(&self, limit: usize, after: u64) -> Result<Vec<HistoryRow>, StoreError> {
        let read = || -> Result<Vec<HistoryRow>, rusqlite::Error> {
            let sql = format!("{HISTORY} WHERE e.sequence > ?1 ORDER BY e.sequence LIMIT ?2");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params![to_sql(after), limit as i64], HistoryRow::read)?;
            rows.collect()
        };
        read().map_err(|e| StoreError::sqlite(&self.path, "reading the history", e))
    }
}

const OPEN_ACTIONS: &str =
    "SELECT action_id, sequence, topic, camera, label, payload, rev FROM open_action ORDER BY sequence LIMIT ?1";

/// The columns that [`HistoryRow::read`] reads.
pub(crate) const HISTORY: &str = "
    SELECT e.sequence, e.action_id, e.camera, e.label, e.status, e.topic, e.payload, e.created_ns,
           o.sequence IS NULL OR o.kept = 1
    FROM event e LEFT JOIN outbox o ON o.sequence = e.sequence";

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
}

impl HistoryRow {
    pub(crate) fn read(r: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            sequence: r.get::<_, i64>(0)? as u64,
            action_id: r.get(1)?,
            camera: r.get(2)?,
            label: r.get(3)?,
            status: Status::from_sql(r.get(4)?),
            topic: r.get(5)?,
            payload: r.get(6)?,
            created_unix_ns: r.get(7)?,
            acknowledged: r.get(8)?,
        })
    }
}

/// The open actions that can still be read from a damaged database: what a subscriber saw begin should end. Rows after
/// the first that cannot be read are given up.
pub(crate) fn salvage(path: &Path) -> Vec<OpenAction> {
    let read = || -> Result<Vec<OpenAction>, rusqlite::Error> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut statement = connection.prepare(OPEN_ACTIONS)?;
        let rows = statement.query_map([SALVAGED], OpenAction::read)?;
        Ok(rows.map_while(Result::ok).collect())
    };
    read().unwrap_or_default()
}
