//! What outlives the outbox: the history of events.

use rusqlite::{Row, params};

use crate::outbox::to_sql;
use crate::{Status, Store, StoreError};

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

/// The columns that [`HistoryRow::read`] reads.
pub(crate) const HISTORY: &str = "
    SELECT e.sequence, e.action_id, e.camera, e.label, e.status, e.topic, e.payload, e.created_ns,
           o.sequence IS NULL OR o.kept = 1
    FROM event e LEFT JOIN outbox o ON o.sequence = e.sequence";

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
