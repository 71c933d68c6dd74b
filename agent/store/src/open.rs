//! Opening: lock, check, set a damaged file aside, migrate, reconcile the records of the sequence.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use crate::counts::Counts;
use crate::open_action::{OpenAction, mend, salvage};
use crate::outbox::insert_gap;
use crate::record::{Numbers, Record, sync_directory};
use crate::{Gap, Stamp, StoreError, schema};

pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a message is kept in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeepUntil {
    /// Until the broker has acknowledged it.
    #[default]
    Broker,
    /// Until a consumer says that it has it ([`Store::consumed`]), or the quota needs its space.
    Consumer,
}

/// Bounds of the store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Upper bound of the outbox, in bytes (payload + topic + a fixed overhead per row). What goes when an append passes
    /// it: parked rows, kept rows, `updated` that nobody has seen, other `updated`, `started` of actions that have ended, the
    /// oldest. Each loss is recorded as a [`Gap`].
    pub outbox_bytes: u64,
    /// What waits for longer is dropped ([`Store::tidy`]), and recorded as a [`Gap`].
    pub outbox_age: Duration,
    /// Settled events kept for `events history`, about this many at most.
    pub history_rows: u64,
    /// Settled events older than this are forgotten ([`Store::tidy`]).
    pub history_age: Duration,
    /// When a message leaves the outbox.
    pub keep_until: KeepUntil,
    /// The payload with another revision; `None` when it cannot be read. The store knows nothing of payloads.
    pub renumber: fn(&[u8], u32) -> Option<Vec<u8>>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let month = Duration::from_secs(30 * 86_400);
        Self {
            outbox_bytes: 64 << 20,
            outbox_age: month,
            history_rows: 10_000,
            history_age: month,
            keep_until: KeepUntil::Broker,
            renumber: |_, _| None,
        }
    }
}

/// What a process knows of the numbers from a store that it has had open before, for when that one is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Next number.
    pub next: u64,
    /// Oldest number of which neither the message nor the statement that it is lost was acknowledged; `next` when there is none.
    pub oldest: u64,
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
    /// Gaps of messages and open actions found damaged, not taken yet.
    pub(crate) damaged: Vec<Gap>,
    opened: Opened,
    /// Device and inode of the database.
    place: Option<(u64, u64)>,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// The damaged database was moved here and a new one begun.
    pub set_aside: Option<PathBuf>,
    /// Events of this range may be missing (recorded as a gap until it is stated).
    pub lost: Option<Gap>,
    /// Open actions that could still be read from a damaged database.
    pub salvaged: Vec<OpenAction>,
}

impl Store {
    /// Open or create the database at `path` (its directory must exist); the record file `sequence` lies beside it.
    /// Checks the whole file, so it takes about a second per 200 MB. A damaged file is renamed to `.corrupt-<n>`.
    /// `floor`: numbering goes on at least from there, whatever the files say.
    pub fn open(
        path: impl AsRef<Path>,
        options: StoreOptions,
        now: &Stamp,
        floor: Option<Floor>,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let (mut record, known) = Record::open(&path.with_file_name("sequence"))?;
        let mut opened = Opened::default();
        let (mut connection, fresh) = match connect(&path) {
            Err(StoreError::Corrupt { reason, .. }) => {
                opened.salvaged = salvage(&path);
                let aside = set_aside(&path)?;
                tracing::error!(path = %path.display(), aside = %aside.display(), reason, "database damaged: set aside, a new one begun");
                opened.set_aside = Some(aside);
                connect(&path)?
            }
            other => other?,
        };
        let stored = read_meta(&connection, &path, "next_sequence")?.max(1);
        let (next, lost) = resume(stored, fresh, known, floor);
        if next != stored {
            opened.lost = lost.map(|gap| Gap { created_unix_ns: now.unix_ns, ..gap });
            go_on_from(&mut connection, &path, next, opened.lost.as_ref())?;
        }
        if options.keep_until == KeepUntil::Broker {
            // Kept by an earlier configuration: the broker has them.
            let sql = "DELETE FROM outbox WHERE kept = 1 AND parked_code IS NULL";
            connection.execute(sql, []).map_err(|e| StoreError::sqlite(&path, "releasing kept messages", e))?;
        }
        connection
            .execute("UPDATE gap SET parked_code = NULL WHERE parked_code IS NOT NULL", [])
            .map_err(|e| StoreError::sqlite(&path, "offering refused statements again", e))?;
        let damaged =
            mend(&mut connection, next, now).map_err(|e| StoreError::sqlite(&path, "checking open actions", e))?;
        let counts = Counts::read(&mut connection, &path)?;
        let session = read_meta(&connection, &path, "session")?.max(known.map_or(0, |k| k.session));
        let ceiling = record.numbers().ceiling;
        let oldest = counts.oldest(next).min(ceiling);
        record.write_synced(Numbers { ceiling, next: next.min(ceiling), oldest, session })?;
        record.reserve(next)?;
        let place = place(&path);
        Ok(Self { connection, record, path, options, next, counts, damaged, opened, place })
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

    /// What is known of the numbers now; to be given to the next [`Store::open`] of this process.
    #[must_use]
    pub fn floor(&self) -> Floor {
        Floor { next: self.next, oldest: self.counts.oldest(self.next) }
    }

    /// Whether the database is still the file at its path. A file that was removed, or whose directory was, can be written
    /// for as long as it is open, and is gone with the process.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        place(&self.path) == self.place
    }

    /// Write a copy of the whole database to `path`, where no file must be, and make it durable. For a database that is
    /// no longer in its place.
    pub fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let target = path.to_string_lossy();
        self.connection
            .execute("VACUUM INTO ?1", [&*target])
            .map_err(|e| StoreError::sqlite(path, "copying the database", e))?;
        let copied = std::fs::File::open(path).and_then(|file| file.sync_all());
        copied.map_err(|e| StoreError::io(path, "syncing the copy of the database", e))?;
        sync_directory(path);
        Ok(())
    }

    /// Move the database at `path`, which nobody has open, aside as damaged, though opening it would find it whole. Where it
    /// went, and the open actions that could be read.
    pub fn condemn(path: &Path) -> Result<(PathBuf, Vec<OpenAction>), StoreError> {
        let salvaged = salvage(path);
        set_aside(path).map(|aside| (aside, salvaged))
    }

    /// Count this start of the daemon: one more than the last, and at least `at_least`. Never repeats, also when the
    /// database was lost.
    pub fn next_session(&mut self, at_least: u64) -> Result<u64, StoreError> {
        let session = self.record.numbers().session.saturating_add(1).max(at_least);
        self.record.write_synced(Numbers { session, ..self.record.numbers() })?;
        self.synchronous("FULL")?;
        self.connection
            .execute("UPDATE meta SET value = ?1 WHERE key = 'session'", [session as i64])
            .map_err(|e| StoreError::sqlite(&self.path, "counting the session", e))?;
        Ok(session)
    }

    /// The newest session that the record beside the database at `path` knows of, where it can be read. Changes nothing.
    #[must_use]
    pub fn last_session(path: &Path) -> Option<u64> {
        Record::peek(&path.with_file_name("sequence")).map(|numbers| numbers.session)
    }

    /// `FULL` for what must survive a power cut, `NORMAL` for what may be done twice (see the crate documentation).
    pub(crate) fn synchronous(&self, level: &'static str) -> Result<(), StoreError> {
        self.connection
            .pragma_update(None, "synchronous", level)
            .map_err(|e| StoreError::sqlite(&self.path, "setting synchronous", e))
    }
}

fn place(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// The checked and migrated database, and whether it was empty.
fn connect(path: &Path) -> Result<(Connection, bool), StoreError> {
    let mut connection = checked(path)?;
    let fresh = schema::migrate(&mut connection, path)?;
    check_writable(&connection, path)?;
    Ok((connection, fresh))
}

/// The database at `path`, set up for durable commits and read from end to end.
pub(crate) fn checked(path: &Path) -> Result<Connection, StoreError> {
    let failed = |operation: &'static str| move |e| StoreError::sqlite(path, operation, e);
    let connection = Connection::open(path).map_err(failed("opening"))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed("setting the busy timeout"))?;
    let mode: String = connection
        .query_row("PRAGMA journal_mode=WAL", [], |r| r.get(0))
        .map_err(failed("switching to write-ahead logging"))?;
    if mode != "wal" {
        tracing::warn!(path = %path.display(), mode, "no write-ahead log on this file system; commits are slower");
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed("setting synchronous"))?;
    connection.pragma_update(None, "foreign_keys", "OFF").map_err(failed("setting foreign_keys"))?;
    // A temporary file would be on a disk that may be full.
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(failed("setting temp_store"))?;
    let check: String =
        connection.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(failed("checking the file"))?;
    if check != "ok" {
        return Err(StoreError::Corrupt { path: path.to_owned(), reason: check });
    }
    Ok(connection)
}

/// SQLite writes to no file whose header names a format of the future; the file system has nothing against it.
pub(crate) fn check_writable(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let read_only = connection.is_readonly("main");
    let read_only = read_only.map_err(|e| StoreError::sqlite(path, "asking whether it can be written", e))?;
    if read_only && std::fs::OpenOptions::new().append(true).open(path).is_ok() {
        let reason = "its header says that it must not be written".to_owned();
        return Err(StoreError::Corrupt { path: path.to_owned(), reason });
    }
    Ok(())
}

/// The next number to give out, and the range that the loss of rows may have torn, when the database is behind what else
/// is known. `stored`: the next number, as the database has it.
fn resume(stored: u64, fresh: bool, known: Option<Numbers>, floor: Option<Floor>) -> (u64, Option<Gap>) {
    let range = |first: u64, next: u64| {
        let (last, reason) = (next.saturating_sub(1), "database_lost".to_owned());
        (first <= last).then_some(Gap { first, last, reason, created_unix_ns: 0 })
    };
    if let Some(floor) = floor {
        let first = if fresh { floor.oldest.max(1) } else { stored };
        return if stored < floor.next { (floor.next, range(first, floor.next)) } else { (stored, None) };
    }
    let Some(known) = known else { return (stored, None) };
    // The record is written after the commit, so a database that is behind it has lost commits. Beside an empty database
    // its unsynced half proves nothing: only the ceiling does.
    let whole = if fresh { known.ceiling <= 1 } else { stored >= known.next };
    if whole {
        return (stored, None);
    }
    let next = known.ceiling.max(stored);
    (next, range(if fresh { known.oldest.max(1) } else { stored }, next))
}

/// Record what is lost, and that what is left may have been seen: the note of that may be among what is lost.
fn go_on_from(connection: &mut Connection, path: &Path, next: u64, lost: Option<&Gap>) -> Result<(), StoreError> {
    let failed = |e| StoreError::sqlite(path, "continuing the sequence", e);
    let tx = connection.transaction().map_err(failed)?;
    tx.execute("UPDATE meta SET value = ?1 WHERE key = 'next_sequence'", [next as i64]).map_err(failed)?;
    tx.execute("UPDATE outbox SET attempts = 1 WHERE attempts = 0", []).map_err(failed)?;
    if let Some(gap) = lost {
        insert_gap(&tx, gap).map_err(failed)?;
        tracing::error!(first = gap.first, last = gap.last, "events of this range may be lost; sys/gap will say so");
    }
    tx.commit().map_err(failed)
}

fn read_meta(connection: &Connection, path: &Path, key: &str) -> Result<u64, StoreError> {
    connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |r| r.get::<_, i64>(0))
        .optional()
        .map(|v| v.unwrap_or(0).max(0) as u64)
        .map_err(|e| StoreError::sqlite(path, "reading the counters", e))
}

/// Damaged databases that [`set_aside`] has moved away, the oldest first.
pub(crate) fn asides(path: &Path) -> impl Iterator<Item = PathBuf> {
    (1..=10_000)
        .map(move |n| PathBuf::from(format!("{}.corrupt-{n}", path.display())))
        .take_while(|aside| aside.exists())
}

/// Move the database and its log away under the first free number.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
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
