//! Looking into the store beside the daemon that owns it.
//!
//! A [`Reader`] opens the database read-only. It takes no lock that a writer waits for, migrates nothing, and sets
//! nothing aside. Each question is one short transaction, so that the writer's log does not grow meanwhile: long answers are
//! asked for in pieces.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use crate::outbox::to_sql;
use crate::state::HISTORY;
use crate::{Gap, HistoryRow, Status, StoreError, schema};

/// A read-only view.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

/// Which events to look at.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this camera alone.
    pub camera: Option<String>,
    /// Of this label alone.
    pub label: Option<String>,
    /// Stored at this Unix time or later, nanoseconds.
    pub since_unix_ns: Option<i64>,
}

/// What a message of the outbox waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// For the broker.
    Broker,
    /// For a consumer: the broker has it.
    Consumer,
    /// For nothing: the broker refuses it with this MQTT reason code.
    Parked(u8),
}

/// A message of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Sequence number.
    pub sequence: u64,
    /// Camera.
    pub camera: String,
    /// Label.
    pub label: String,
    /// Where the action stood after the event.
    pub status: Status,
    /// When it was stored.
    pub created_unix_ns: i64,
    /// Its bytes, as counted against the quota.
    pub bytes: u64,
    /// How often it was handed to the client.
    pub attempts: u32,
    /// What it waits for.
    pub waits_for: Waiting,
}

/// Messages of one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many.
    pub messages: u64,
    /// Their bytes, as counted against the quota.
    pub bytes: u64,
    /// When the oldest was stored.
    pub oldest_unix_ns: Option<i64>,
}

impl Reader {
    /// Opens the database at `path`.
    ///
    /// # Errors
    /// There is none, it cannot be read, or it is of another schema.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::NoStore { path: path.to_owned() });
        }
        let failed = |e| StoreError::sqlite(path, "opening", e);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(crate::open::BUSY_TIMEOUT).map_err(failed)?;
        let found = schema::version(&connection, path)?;
        if found < schema::NEWEST {
            return Err(StoreError::Older { path: path.to_owned(), found, known: schema::NEWEST });
        }
        Ok(Self { connection, path: path.to_owned() })
    }

    /// Up to `limit` events above `after`, oldest first.
    pub fn history(&self, filter: &Filter, after: u64, limit: usize) -> Result<Vec<HistoryRow>, StoreError> {
        self.events(filter, "ASC", after, limit)
    }

    /// The newest `limit` events, newest first.
    pub fn newest(&self, filter: &Filter, limit: usize) -> Result<Vec<HistoryRow>, StoreError> {
        self.events(filter, "DESC", 0, limit)
    }

    /// How much waits for the broker, for a consumer, and how much is parked.
    pub fn tally(&self) -> Result<[Tally; 3], StoreError> {
        let read = || -> Result<[Tally; 3], rusqlite::Error> {
            let of = |condition: &str| {
                let sql = format!(
                    "SELECT COUNT(*), COALESCE(SUM(o.bytes), 0), MIN(e.created_ns)
                     FROM outbox o JOIN event e ON e.sequence = o.sequence WHERE {condition}"
                );
                self.connection.query_row(&sql, [], |r| {
                    let number = |i| r.get::<_, i64>(i).map(|v| v as u64);
                    Ok(Tally { messages: number(0)?, bytes: number(1)?, oldest_unix_ns: r.get(2)? })
                })
            };
            Ok([
                of("o.parked_code IS NULL AND o.kept = 0")?,
                of("o.parked_code IS NULL AND o.kept = 1")?,
                of("o.parked_code IS NOT NULL")?,
            ])
        };
        read().map_err(|e| StoreError::sqlite(&self.path, "reading the outbox", e))
    }

    /// Up to `limit` messages of the outbox above `after`, oldest first.
    pub fn outbox(&self, after: u64, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        let read = || -> Result<Vec<OutboxRow>, rusqlite::Error> {
            let mut statement = self.connection.prepare_cached(
                "SELECT o.sequence, e.camera, e.label, o.status, e.created_ns, o.bytes, o.attempts, o.kept, o.parked_code
                 FROM outbox o JOIN event e ON e.sequence = o.sequence
                 WHERE o.sequence > ?1 ORDER BY o.sequence LIMIT ?2",
            )?;
            let rows = statement.query_map(params![to_sql(after), limit as i64], |r| {
                let waits_for = match (r.get::<_, Option<u8>>(8)?, r.get::<_, bool>(7)?) {
                    (Some(code), _) => Waiting::Parked(code),
                    (None, true) => Waiting::Consumer,
                    (None, false) => Waiting::Broker,
                };
                Ok(OutboxRow {
                    sequence: r.get::<_, i64>(0)? as u64,
                    camera: r.get(1)?,
                    label: r.get(2)?,
                    status: Status::from_sql(r.get(3)?),
                    created_unix_ns: r.get(4)?,
                    bytes: r.get::<_, i64>(5)? as u64,
                    attempts: r.get(6)?,
                    waits_for,
                })
            })?;
            rows.collect()
        };
        read().map_err(|e| StoreError::sqlite(&self.path, "reading the outbox", e))
    }

    /// Up to `limit` gaps that wait to be stated, lowest numbers first.
    pub fn gaps(&self, limit: usize) -> Result<Vec<Gap>, StoreError> {
        let read = || -> Result<Vec<Gap>, rusqlite::Error> {
            let sql =
                "SELECT first, last, reason, created_ns FROM gap WHERE parked_code IS NULL ORDER BY last LIMIT ?1";
            let mut statement = self.connection.prepare_cached(sql)?;
            let rows = statement.query_map([limit as i64], Gap::read)?;
            rows.collect()
        };
        read().map_err(|e| StoreError::sqlite(&self.path, "reading gaps", e))
    }

    fn events(
        &self,
        filter: &Filter,
        order: &'static str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<HistoryRow>, StoreError> {
        let read = || -> Result<Vec<HistoryRow>, rusqlite::Error> {
            let sql = format!(
                "{HISTORY} WHERE e.sequence > ?1 AND (?3 IS NULL OR e.camera = ?3) AND (?4 IS NULL OR e.label = ?4)
                 AND (?5 IS NULL OR e.created_ns >= ?5) ORDER BY e.sequence {order} LIMIT ?2"
            );
            let mut statement = self.connection.prepare_cached(&sql)?;
            let bound = params![to_sql(after), limit as i64, filter.camera, filter.label, filter.since_unix_ns];
            let rows = statement.query_map(bound, HistoryRow::read)?;
            rows.collect()
        };
        read().map_err(|e| StoreError::sqlite(&self.path, "reading the history", e))
    }
}
