//! Opening: lock, check, set a damaged file aside, migrate, reconcile the two records of the sequence.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension};

use crate::counts::Counts;
use crate::outbox::insert_gap;
use crate::record::{Numbers, Record};
use crate::{Gap, StoreError, schema};

pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bounds of the store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Upper bound of the messages waiting for the broker, in bytes (payload + topic + a fixed overhead per row). When
    /// an append passes it, parked rows go first, then the oldest `updated`, then the oldest of all; each loss is
    /// recorded as a [`Gap`].
    pub outbox_bytes: u64,
    /// Acknowledged events kept for `events history`, at most this many.
    pub history_rows: u64,
    /// Acknowledged events older than this are forgotten.
    pub history_age: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { outbox_bytes: 64 << 20, history_rows: 10_000, history_age: Duration::from_secs(30 * 86_400) }
    }
}

/// The store. One thread owns it; every method blocks on the disk.
#[derive(Debug)]
pub struct Store {
    pub(crate) connection: Connection,
    pub(crate) record: Record,
    pub(crate) path: PathBuf,
    pub(crate) options: StoreOptions,
    /// Next sequence number to give out.
    pub(crate) next: u64,
    pub(crate) counts: Counts,
    /// `last` of the gaps that the publisher was given: their statements may be under way.
    pub(crate) offered: BTreeSet<u64>,
    opened: Opened,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// The damaged database was moved here and a new one begun.
    pub set_aside: Option<PathBuf>,
    /// Events of this range may be missing (recorded as a gap until it is stated).
    pub lost: Option<Gap>,
}

impl Store {
    /// Open or create the database at `path` (its directory must exist); the record file `sequence` lies beside it.
    /// Checks the whole file, so it takes about a second per 200 MB. A damaged file is renamed to `.corrupt-<n>`.
    pub fn open(path: impl AsRef<Path>, options: StoreOptions) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let (mut record, known) = Record::open(&path.with_file_name("sequence"))?;
        let mut opened = Opened::default();
        let (mut connection, fresh) = match connect(&path) {
            Err(StoreError::Corrupt { reason, .. }) => {
                let aside = set_aside(&path)?;
                tracing::error!(path = %path.display(), aside = %aside.display(), reason, "database damaged: set aside, a new one begun");
                opened.set_aside = Some(aside);
                connect(&path)?
            }
            other => other?,
        };
        let (next, lost) = reconcile(&mut connection, &path, fresh, known)?;
        if let Some(gap) = &lost {
            tracing::error!(
                first = gap.first,
                last = gap.last,
                "events of this range may be lost; sys/gap will say so"
            );
        }
        opened.lost = lost;
        let counts = Counts::read(&mut connection, &path)?;
        let session = read_meta(&connection, &path, "session")?.max(known.map_or(0, |k| k.session));
        let ceiling = record.numbers().ceiling;
        record.write_synced(Numbers {
            ceiling,
            next: next.min(ceiling),
            oldest: counts.oldest(next).min(ceiling),
            session,
        })?;
        record.reserve(next)?;
        Ok(Self { connection, record, path, options, next, counts, offered: BTreeSet::new(), opened })
    }

    /// What opening found: a damaged file set aside, a range that may be lost.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest sequence number given out; 0 when none was.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Count this start of the daemon; 1 for the first. Never repeats, also when the database was lost.
    pub fn next_session(&mut self) -> Result<u64, StoreError> {
        let session = self.record.numbers().session + 1;
        self.record.write_synced(Numbers { session, ..self.record.numbers() })?;
        self.synchronous("FULL")?;
        self.connection
            .execute("UPDATE meta SET value = ?1 WHERE key = 'session'", [session as i64])
            .map_err(|e| StoreError::sqlite(&self.path, "counting the session", e))?;
        Ok(session)
    }

    /// `FULL` for what must survive a power cut, `NORMAL` for what may be done twice (see the crate documentation).
    pub(crate) fn synchronous(&self, level: &'static str) -> Result<(), StoreError> {
        self.connection
            .pragma_update(None, "synchronous", level)
            .map_err(|e| StoreError::sqlite(&self.path, "setting synchronous", e))
    }
}

/// Nanoseconds since the Unix epoch; the store stamps rows itself so that their order of age is one clock's.
pub(crate) fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

/// The checked and migrated database, and whether it was empty.
fn connect(path: &Path) -> Result<(Connection, bool), StoreError> {
    let failed = |operation: &'static str| move |e| StoreError::sqlite(path, operation, e);
    let mut connection = Connection::open(path).map_err(failed("opening"))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed("setting the busy timeout"))?;
    let mode: String = connection
        .query_row("PRAGMA journal_mode=WAL", [], |r| r.get(0))
        .map_err(failed("switching to write-ahead logging"))?;
    if mode != "wal" {
        tracing::warn!(path = %path.display(), mode, "no write-ahead log on this file system; commits are slower");
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed("setting synchronous"))?;
    connection.pragma_update(None, "foreign_keys", "OFF").map_err(failed("setting foreign_keys"))?;
    let check: String =
        connection.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(failed("checking the file"))?;
    if check != "ok" {
        return Err(StoreError::Corrupt { path: path.to_owned(), reason: check });
    }
    let fresh = schema::migrate(&mut connection, path)?;
    Ok((connection, fresh))
}

/// The next sequence number from both records, and the range that the loss of rows may have torn.
fn reconcile(
    connection: &mut Connection,
    path: &Path,
    fresh: bool,
    known: Option<Numbers>,
) -> Result<(u64, Option<Gap>), StoreError> {
    let stored = read_meta(connection, path, "next_sequence")?.max(1);
    let Some(known) = known else { return Ok((stored, None)) };
    // The record is written after the commit, so a database that is behind it has lost commits. Beside an empty database
    // its unsynced half proves nothing: only the ceiling does.
    let whole = if fresh { known.ceiling <= 1 } else { stored >= known.next };
    if whole {
        return Ok((stored, None));
    }
    let next = known.ceiling.max(stored);
    let first = if fresh { known.oldest.max(1) } else { stored };
    let failed = |e| StoreError::sqlite(path, "continuing the sequence", e);
    let tx = connection.transaction().map_err(failed)?;
    tx.execute("UPDATE meta SET value = ?1 WHERE key = 'next_sequence'", [next as i64]).map_err(failed)?;
    let gap = Gap { first, last: next - 1, reason: "database_lost".to_owned(), created_unix_ns: now_ns() };
    insert_gap(&tx, &gap, &BTreeSet::new()).map_err(failed)?;
    tx.commit().map_err(failed)?;
    Ok((next, Some(gap)))
}

fn read_meta(connection: &Connection, path: &Path, key: &str) -> Result<u64, StoreError> {
    connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |r| r.get::<_, i64>(0))
        .optional()
        .map(|v| v.unwrap_or(0).max(0) as u64)
        .map_err(|e| StoreError::sqlite(path, "reading the counters", e))
}

/// Move the database and its log away under the first free number.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let with = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let aside = (1..10_000)
        .map(|n| with(&format!(".corrupt-{n}")))
        .find(|p| !p.exists())
        .unwrap_or_else(|| with(".corrupt-10000"));
    std::fs::rename(path, &aside).map_err(|e| StoreError::io(path, "setting the damaged file aside", e))?;
    for suffix in ["-wal", "-shm"] {
        let to = PathBuf::from(format!("{}{suffix}", aside.display()));
        match std::fs::rename(with(suffix), to) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io(path, "setting the damaged log aside", e));
            }
            _ => {}
        }
    }
    Ok(aside)
}
