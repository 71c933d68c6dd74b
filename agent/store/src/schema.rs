//! The schema and its migrations, one SQL text per version; `PRAGMA user_version` counts them.
//!
//! `event` holds each message once; `outbox` lists those not yet settled, so an acknowledgement deletes a row of a
//! few bytes and what remains is the history. Migrations are only appended, never edited.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::StoreError;

const MIGRATIONS: &[&str] = &[
    "
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
",
    // Ages by a clock that is not set, a check sum of each message, what compaction needs (the action and `rev` of what waits),
    // and the version a second time: `user_version` lies in a page that no check reads. Version 1 stored `rev` in the payload
    // alone, and `attempts` was not durable there: what it left may have been sent.
    "
    ALTER TABLE event ADD COLUMN boot_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE event ADD COLUMN boot INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE event ADD COLUMN synced INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE event ADD COLUMN crc INTEGER;
    ALTER TABLE outbox ADD COLUMN action_id TEXT NOT NULL DEFAULT '';
    ALTER TABLE outbox ADD COLUMN rev INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE outbox ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE open_action ADD COLUMN rev INTEGER NOT NULL DEFAULT 0;
    UPDATE outbox SET attempts = MAX(attempts, 1),
        action_id = COALESCE((SELECT action_id FROM event e WHERE e.sequence = outbox.sequence), ''),
        rev = COALESCE((SELECT CASE WHEN json_valid(CAST(payload AS TEXT))
                                    THEN json_extract(CAST(payload AS TEXT), '$.data.rev') END
                        FROM event e WHERE e.sequence = outbox.sequence), 0);
    UPDATE open_action SET rev = COALESCE(CASE WHEN json_valid(CAST(payload AS TEXT))
                                               THEN json_extract(CAST(payload AS TEXT), '$.data.rev') END, 0);
    DROP INDEX outbox_by_status;
    CREATE INDEX outbox_by_action ON outbox (action_id, sequence);
    INSERT INTO meta VALUES ('schema', 2);
",
    // A check sum of each open action too: what a crash leaves open is ended by what stands there. None of those before.
    "
    ALTER TABLE open_action ADD COLUMN crc INTEGER;
    UPDATE meta SET value = 3 WHERE key = 'schema';
",
];

/// Newest version of the schema.
pub(crate) const NEWEST: i64 = MIGRATIONS.len() as i64;

/// Version of the schema of a database, 0 of an empty one; an error when it is damaged or this build does not know it.
pub(crate) fn version(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let failed = |e| StoreError::sqlite(path, "reading the version of the schema", e);
    let found: i64 = connection.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(failed)?;
    let objects: i64 = connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(failed)?;
    if found == 0 && objects == 0 {
        return Ok(0);
    }
    let told = "SELECT value FROM meta WHERE key = 'schema'";
    let told: Option<i64> = connection.query_row(told, [], |r| r.get(0)).optional().map_err(failed)?;
    if told.map_or(!(found == 1 || found > NEWEST), |told| told != found) {
        let reason = format!("its header says schema {found}, and what it holds says {told:?}");
        return Err(StoreError::Corrupt { path: path.to_owned(), reason });
    }
    if found > NEWEST {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: NEWEST });
    }
    Ok(found)
}

/// Bring `connection` to the newest schema, each step in its own transaction. True when the database was empty.
pub(crate) fn migrate(connection: &mut Connection, path: &Path) -> Result<bool, StoreError> {
    let found = version(connection, path)?;
    let failed = |e| StoreError::sqlite(path, "migrating the schema", e);
    for (version, sql) in MIGRATIONS.iter().enumerate().skip(found.max(0) as usize) {
        let tx = connection.transaction().map_err(failed)?;
        tx.execute_batch(sql).map_err(failed)?;
        tx.pragma_update(None, "user_version", version as i64 + 1).map_err(failed)?;
        tx.commit().map_err(failed)?;
    }
    if (1..NEWEST).contains(&found) {
        tracing::info!(path = %path.display(), from = found, to = NEWEST, "the event store was brought to a new schema");
    }
    Ok(found == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Handing, Stamp, Store, StoreOptions};

    const EVENT: &str = r#"INSERT INTO event (sequence, topic, payload, action_id, camera, label, status, created_ns)"#;

    /// A file as version 1 left it: an action that goes on, one that has ended, one message sent, one refused.
    fn version_1(path: &Path) {
        let connection = Connection::open(path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.execute_batch(MIGRATIONS[0]).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        let payload = |rev: u32| format!(r#"{{"sequence":"x","data":{{"rev":{rev}}}}}"#).into_bytes();
        for (sequence, action, rev, status, attempts) in
            [(7, "a", 0, 0, 1), (8, "b", 0, 0, 0), (9, "a", 1, 1, 0), (10, "b", 1, 2, 0), (11, "a", 2, 1, 0)]
        {
            let sql = format!("{EVENT} VALUES (?1, 't', ?2, ?3, 'c', 'l', ?4, 1000)");
            connection.execute(&sql, rusqlite::params![sequence, payload(rev), action, status]).unwrap();
            let sql = "INSERT INTO outbox (sequence, status, bytes, attempts) VALUES (?1, ?2, 100, ?3)";
            connection.execute(sql, [sequence, status, attempts]).unwrap();
        }
        connection.execute("UPDATE outbox SET parked_code = 151 WHERE sequence = 8", []).unwrap();
        connection.execute("INSERT INTO gap VALUES (8, 8, 'refused', 1000, NULL)", []).unwrap();
        let sql = "INSERT INTO open_action VALUES ('a', 11, 't', 'c', 'l', ?1)";
        connection.execute(sql, [payload(2)]).unwrap();
        connection.execute("UPDATE meta SET value = 12 WHERE key = 'next_sequence'", []).unwrap();
        connection.execute("UPDATE meta SET value = 4 WHERE key = 'session'", []).unwrap();
        std::fs::write(path.with_file_name("sequence"), format!("{:020} {:020} {:020} {:020}\n", 2048, 12, 7, 4))
            .unwrap();
    }

    /// A file as version 2 left it: two open actions, the copy of one's last message changed by the disk.
    fn version_2(path: &Path) {
        let connection = Connection::open(path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        MIGRATIONS[..2].iter().for_each(|sql| connection.execute_batch(sql).unwrap());
        connection.pragma_update(None, "user_version", 2).unwrap();
        for (sequence, action, copy) in [(1, "a", "one"), (2, "b", "twu")] {
            let payload = ["one", "two"][sequence - 1];
            let sum = crate::append::check_sum(sequence as u64, "t", payload.as_bytes());
            let sql = "INSERT INTO event (sequence, topic, payload, action_id, camera, label, status, created_ns, crc)
                       VALUES (?1, 't', ?2, ?3, 'c', 'l', 1, 1000, ?4)";
            connection.execute(sql, rusqlite::params![sequence as i64, payload.as_bytes(), action, sum]).unwrap();
            let sql = "INSERT INTO open_action VALUES (?3, ?1, 't', 'c', 'l', ?2, 3)";
            connection.execute(sql, rusqlite::params![sequence as i64, copy.as_bytes(), action]).unwrap();
        }
        // Its last message is not in the history any more.
        connection.execute("INSERT INTO open_action VALUES ('c', 3, 't', 'c', 'l', x'33', 4)", []).unwrap();
        connection.execute("UPDATE meta SET value = 4 WHERE key = 'next_sequence'", []).unwrap();
    }

    #[test]
    fn open_actions_of_a_version_2_file_are_taken_from_their_messages_where_those_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        version_2(&path);
        for _ in 0..2 {
            let store = Store::open(&path, StoreOptions::default(), &Stamp::default(), None).unwrap();
            assert_eq!((store.opened(), store.stats().gaps), (&Default::default(), 0));
            let found: Vec<_> = store.open_actions().unwrap().into_iter().map(|a| (a.last_payload, a.rev)).collect();
            assert_eq!(found, [(b"one".to_vec(), 3), (b"two".to_vec(), 3), (b"3".to_vec(), 4)]);
            assert_eq!(version(&store.connection, &path).unwrap(), 3);
        }
    }

    #[test]
    fn a_version_1_file_goes_on_as_if_nothing_were() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        version_1(&path);
        let now = Stamp { unix_ns: 5_000, boot_ns: 3_000, boot: 9, synced: true };
        let mut store = Store::open(&path, StoreOptions::default(), &now, None).unwrap();
        assert_eq!(store.opened(), &Default::default());
        let rows = store.pending(0, 10).unwrap();
        assert_eq!(
            rows.iter().map(|r| (r.sequence, r.attempts)).collect::<Vec<_>>(),
            [(7, 1), (9, 1), (10, 1), (11, 1)]
        );
        assert_eq!(now.since(&rows[0].stored).as_nanos(), 3_000, "the age of old rows is at least that of this boot");
        assert_eq!((store.stats().parked, store.stats().gaps), (1, 1));
        assert_eq!(store.open_actions().unwrap()[0].action_id, "a");
        assert_eq!(store.next_session(0).unwrap(), 5);
        let revs = std::cell::Cell::new(0);
        let build = |sequence: u64, rev: u32| {
            revs.set(rev);
            sequence.to_string().into_bytes()
        };
        let draft = crate::Draft {
            topic: "t",
            action_id: "a".into(),
            label: "l",
            camera: "c",
            status: crate::Status::Ended,
            rev: 0,
            build: &build,
        };
        assert_eq!(store.append(&now, &[draft], Handing::Later).unwrap().sequences, 12..13);
        assert_eq!(revs.get(), 3, "the action's revisions go on");
        assert_eq!(store.open_actions().unwrap(), []);
        drop(store);
        let store = Store::open(&path, StoreOptions::default(), &now, None).unwrap();
        assert_eq!(store.pending(0, 10).unwrap().len(), 5, "and it opens again");
    }
}
