//! What outlives the outbox: open actions (for `recovered` after a crash) and the history of events.

use rusqlite::params;

use crate::outbox::to_sql;
use crate::{Status, Store, StoreError};

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
}

/// A past event, acknowledged or not.
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
            let mut statement = self.connection.prepare_cached(
                "SELECT action_id, sequence, topic, camera, label, payload FROM open_action ORDER BY sequence",
            )?;
            let rows = statement.query_map([], |r| {
                Ok(OpenAction {
                    action_id: r.get(0)?,
                    sequence: r.get::<_, i64>(1)? as u64,
                    topic: r.get(2)?,
                    camera: r.get(3)?,
                    label: r.get(4)?,
                    last_payload: r.get(5)?,
                })
            })?;
            rows.collect()
        };
        read().map_err(|e| StoreError::sqlite(&self.path, "reading open actions", e))
    }

    /// Up to `limit` events above `after`, oldest first.
    pub fn history(&self, limit: usize, after: u64) -> Result<Vec<HistoryRow>, StoreError> {
        self.events("e.sequence > ?1 ORDER BY e.sequence LIMIT ?2", limit, to_sql(after))
    }

    /// The newest `limit` events, newest first.
    pub fn recent(&self, limit: usize) -> Result<Vec<HistoryRow>, StoreError> {
        self.events("e.sequence > ?1 ORDER BY e.sequence DESC LIMIT ?2", limit, 0)
    }

    fn events(&self, condition: &str, limit: usize, bound: i64) -> Result<Vec<HistoryRow>, StoreError> {
        let read = || -> Result<Vec<HistoryRow>, rusqlite::Error> {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT e.sequence, action_id, camera, label, e.status, topic, payload, created_ns, o.sequence IS NULL
                 FROM event e LEFT JOIN outbox o ON o.sequence = e.sequence WHERE {condition}"
            ))?;
            let rows = statement.query_map(params![bound, limit as i64], |r| {
                Ok(HistoryRow {
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
            })?;
            rows.collect()
        };
        read().map_err(|e| StoreError::sqlite(&self.path, "reading the history", e))
    }
}
