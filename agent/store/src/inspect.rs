//! Looks at a database without writing to it, also beside the daemon that owns it, for `kinewatch doctor`.
//!
//! Never migrates, never sets a damaged file aside, never takes the lock of the state directory. Blocks on the disk:
//! about a second per 200 MB.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, Row};

use crate::StoreError;
use crate::open::BUSY_TIMEOUT;
use crate::schema;

/// What a database holds, which is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inspected {
    /// Messages that wait for their acknowledgement.
    pub waiting: u64,
    /// Their bytes, as counted against the quota.
    pub bytes: u64,
    /// When the oldest of them was stored, Unix nanoseconds.
    pub oldest_unix_ns: Option<i64>,
    /// Messages that the broker refused for good.
    pub parked: u64,
    /// Actions that began and have not ended.
    pub open_actions: u64,
}

/// Checks the whole file and counts what it holds.
///
/// # Errors
/// It cannot be opened or read, is damaged, or holds something else.
pub fn inspect(path: &Path) -> Result<Inspected, StoreError> {
    match look(path) {
        // Without a log the file is read as one that nobody changes. If somebody began to meanwhile, it may seem torn.
        Err(StoreError::Corrupt { .. }) if has_log(path) => look(path),
        other => other,
    }
}

fn look(path: &Path) -> Result<Inspected, StoreError> {
    let failed = |operation: &'static str| move |e| StoreError::sqlite(path, operation, e);
    let connection = open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed("setting the busy timeout"))?;
    let check: String =
        connection.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(failed("checking the file"))?;
    if check != "ok" {
        return Err(StoreError::Corrupt { path: path.to_owned(), reason: check });
    }
    // What the broker has acknowledged may be kept for a consumer; version 1 did not do that.
    let waits = match schema::version(&connection, path)? {
        0 => return Ok(Inspected::default()),
        1 => "o.parked_code IS NULL",
        _ => "o.parked_code IS NULL AND o.kept = 0",
    };
    // One statement sees one state of the database, whoever writes.
    let sql = format!(
        "SELECT COUNT(*), COALESCE(SUM(o.bytes), 0), MIN(e.created_ns),
                (SELECT COUNT(*) FROM outbox WHERE parked_code IS NOT NULL), (SELECT COUNT(*) FROM open_action)
         FROM outbox o JOIN event e ON e.sequence = o.sequence WHERE {waits}"
    );
    let read = |r: &Row<'_>| {
        let number = |i| r.get::<_, i64>(i).map(|n| n.max(0) as u64);
        Ok(Inspected {
            waiting: number(0)?,
            bytes: number(1)?,
            oldest_unix_ns: r.get(2)?,
            parked: number(3)?,
            open_actions: number(4)?,
        })
    };
    connection.query_row(&sql, [], read).map_err(failed("counting what waits"))
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = if has_log(path) {
        Connection::open_with_flags(path, flags)
    } else {
        // Reading a database in WAL mode makes a log and its index; `immutable` makes nothing.
        flags |= OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(immutable(path), flags)
    };
    opened.map_err(|e| StoreError::sqlite(path, "opening", e))
}

/// The log exists while a process has the database open, and after one that did not close it.
fn has_log(path: &Path) -> bool {
    let log = PathBuf::from(format!("{}-wal", path.display()));
    log.metadata().is_ok_and(|meta| meta.len() > 0)
}

fn immutable(path: &Path) -> String {
    let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("file:{escaped}?immutable=1")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Draft, Handing, KeepUntil, Stamp, Status, Store, StoreOptions};

    fn append(store: &mut Store, action: &str) {
        let build = |_, _| b"{}".to_vec();
        let (topic, action_id, camera, label) = ("t", action.into(), "c", "l");
        let draft = Draft { topic, action_id, label, camera, status: Status::Started, rev: 0, build: &build };
        store.append(&Stamp::default(), &[draft], Handing::Later).unwrap();
    }

    fn counts(path: &Path) -> (u64, u64) {
        let found = inspect(path).unwrap();
        (found.waiting, found.open_actions)
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn counts_beside_a_writer_and_after_it_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("odd ?#%41 name");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("events.db");
        assert!(matches!(inspect(&path), Err(StoreError::Open { .. })));
        let mut store = Store::open(&path, StoreOptions::default(), &Stamp::default(), None).unwrap();
        append(&mut store, "a");
        assert_eq!(counts(&path), (1, 1));
        append(&mut store, "b");
        drop(store);
        let before = names(&folder);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(counts(&path), (2, 2));
        assert_eq!((names(&folder), fs::read(&path).unwrap()), (before, bytes));
    }

    #[test]
    fn what_is_kept_for_a_consumer_does_not_wait_for_the_broker() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        let options = StoreOptions { keep_until: KeepUntil::Consumer, ..StoreOptions::default() };
        let mut store = Store::open(&path, options, &Stamp::default(), None).unwrap();
        append(&mut store, "a");
        append(&mut store, "b");
        store.acked(&[1]).unwrap();
        assert_eq!(counts(&path), (1, 2));
    }

    #[test]
    fn damage_is_told_and_left_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        fs::write(&path, b"this is not a database, and long enough to be read as one".repeat(100)).unwrap();
        assert!(matches!(inspect(&path), Err(StoreError::Corrupt { .. })));
        assert_eq!(names(dir.path()), ["events.db"]);
        fs::write(&path, b"").unwrap();
        assert_eq!(inspect(&path).unwrap(), Inspected::default());
    }
}
