//! The schema and its migrations, one SQL text per version; `PRAGMA user_version` counts them.
//!
//! `event` holds each message once; `outbox` lists those not yet acknowledged, so an acknowledgement deletes a row of a
//! few bytes and what remains is the history. Migrations are only appended, never edited.

use std::path::Path;

use rusqlite::Connection;

use crate::StoreError;

const MIGRATIONS: &[&str] = &["
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('next_sequence', 1), ('session', 0);
    CREATE TABLE event (
        sequence   INTEGER PRIMARY KEY,
        topic      TEXT NOT NULL,
        payload    BLOB NOT NULL,
        action_id  TEXT NOT NULL,
        camera     TEXT NOT NULL,
        label      TEXT NOT NULL,
        status     INTEGER NOT NULL,
        created_ns INTEGER NOT NULL);
    CREATE TABLE outbox (
        sequence      INTEGER PRIMARY KEY REFERENCES event (sequence),
        status        INTEGER NOT NULL,
        bytes         INTEGER NOT NULL,
        attempts      INTEGER NOT NULL DEFAULT 0,
        first_sent_ns INTEGER,
        parked_code   INTEGER);
    CREATE INDEX outbox_by_status ON outbox (status, sequence);
    CREATE INDEX outbox_parked ON outbox (sequence) WHERE parked_code IS NOT NULL;
    CREATE TABLE gap (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, reason TEXT NOT NULL,
                      created_ns INTEGER NOT NULL, parked_code INTEGER);
    CREATE TABLE open_action (
        action_id TEXT PRIMARY KEY,
        sequence  INTEGER NOT NULL,
        topic     TEXT NOT NULL,
        camera    TEXT NOT NULL,
        label     TEXT NOT NULL,
        payload   BLOB NOT NULL) WITHOUT ROWID;
"];

/// Bring `connection` to the newest schema, each step in its own transaction. True when the database was empty.
pub(crate) fn migrate(connection: &mut Connection, path: &Path) -> Result<bool, StoreError> {
    let known = MIGRATIONS.len() as i64;
    let failed = |e| StoreError::sqlite(path, "migrating the schema", e);
    let found: i64 = connection.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(failed)?;
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    for (version, sql) in MIGRATIONS.iter().enumerate().skip(found.max(0) as usize) {
        let tx = connection.transaction().map_err(failed)?;
        tx.execute_batch(sql).map_err(failed)?;
        tx.pragma_update(None, "user_version", version as i64 + 1).map_err(failed)?;
        tx.commit().map_err(failed)?;
    }
    Ok(found == 0)
}
