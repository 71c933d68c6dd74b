//! `updates.db`: what a device knows of its models over the air. A file of its own, so that the outbox neither waits for it nor
//! shares its fate.
//!
//! Each step of the rules ([`kinewatch_core::rollout::Machine`]) is one [`Updates::commit`]: the model's record, the line of its
//! history, and the floors of the repository that the step learned of stand or fall together, synced before it returns.
//!
//! Floors of epochs and the quarantine are in the record and also in tables of their own, which only ever grow: a record that
//! cannot be read takes neither with it. A damaged file is set aside; what can be read of these two is carried over.
//!
//! Blocks on the disk; one owner at a time (`updates.lock` beside it), and any number of [`read`]ers.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use kinewatch_core::rollout::step::Note;
use kinewatch_core::rollout::{Quarantined, RECORD_SCHEMA, Record};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

use crate::open::{BUSY_TIMEOUT, asides, check_writable, checked, set_aside};
use crate::record::sync_directory;
use crate::{StoreError, record};

const SCHEMA: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE record (model TEXT PRIMARY KEY, json TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE floor (model TEXT, channel TEXT, epoch INTEGER NOT NULL, PRIMARY KEY (model, channel)) WITHOUT ROWID;
    CREATE TABLE quarantine (model TEXT, channel TEXT, epoch INTEGER, json TEXT NOT NULL,
                             PRIMARY KEY (model, channel, epoch)) WITHOUT ROWID;
    CREATE TABLE repository (name TEXT PRIMARY KEY, floors TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE history (id INTEGER PRIMARY KEY, model TEXT NOT NULL, json TEXT NOT NULL);
    CREATE INDEX history_by_model ON history (model, id);
    INSERT INTO meta VALUES ('schema', 1);
    PRAGMA user_version = 1;
";
const NEWEST: i64 = 1;
/// Lines of history kept of each model.
const HISTORY_ROWS: i64 = 1000;
/// Releases in quarantine that are carried over from a damaged file at most.
const SALVAGED: i64 = 1000;

/// The database. Every method blocks on the disk.
#[derive(Debug)]
pub struct Updates {
    connection: Connection,
    path: PathBuf,
    set_aside: Option<PathBuf>,
    /// Held for as long as this is open.
    _lock: File,
}

/// A model's record as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The record; made anew where there was none or it could not be read, with the floors and the quarantine that could.
    pub record: Record,
    /// Why the stored record was not used.
    pub damaged: Option<String>,
}

/// What one step changes.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The record from now on.
    pub record: &'a Record,
    /// A line for its history.
    pub note: Option<&'a Note>,
    /// Name of a repository, and its floors as its client wrote them.
    pub repository: Option<(&'a str, &'a str)>,
}

impl Updates {
    /// Open or create the database at `path`, whose directory must exist. A damaged one is renamed to `.corrupt-<n>`; floors
    /// and quarantine are carried over as far as they can be read.
    ///
    /// # Errors
    /// It cannot be opened or written, another process has it, or a newer kinewatch has written it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let lock = lock(&path)?;
        let (connection, aside) = match connect(&path) {
            Err(StoreError::Corrupt { reason, .. }) => {
                let aside = set_aside(&path)?;
                tracing::error!(path = %path.display(), aside = %aside.display(), reason, "database of updates damaged: set aside, a new one begun");
                (connect(&path)?, Some(aside))
            }
            other => (other?, None),
        };
        sync_directory(&path);
        Ok(Self { connection, path, set_aside: aside, _lock: lock })
    }

    /// Where the damaged database went that opening found.
    #[must_use]
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// The record of `model`; `found` makes one from what is installed, where there is none that can be read. Either way no
    /// floor is lower and no release out of quarantine that the tables know of.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn load(&self, model: &str, found: impl FnOnce() -> Record) -> Result<Loaded, StoreError> {
        load(&self.connection, model, found).map_err(|e| StoreError::sqlite(&self.path, "reading a record", e))
    }

    /// All records that can be read.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn records(&self) -> Result<Vec<Record>, StoreError> {
        records(&self.connection).map_err(|e| StoreError::sqlite(&self.path, "reading the records", e))
    }

    /// Make one step durable, all of it or nothing. When it fails the step has not happened.
    ///
    /// # Errors
    /// The disk is full, or fails.
    pub fn commit(&mut self, change: Change<'_>) -> Result<(), StoreError> {
        let failed = |e| StoreError::sqlite(&self.path, "committing a step of an update", e);
        let tx = self.connection.transaction().map_err(failed)?;
        write(&tx, &change).map_err(failed)?;
        tx.commit().map_err(failed)
    }

    /// The floors of a repository as its client wrote them last.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn repository_floors(&self, name: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT floors FROM repository WHERE name = ?1";
        let read = self.connection.query_row(sql, [name], |r| r.get(0)).optional();
        read.map_err(|e| StoreError::sqlite(&self.path, "reading the floors of a repository", e))
    }

    /// Make the floors of a repository durable, without a step.
    ///
    /// # Errors
    /// The disk is full, or fails.
    pub fn keep_floors(&mut self, name: &str, floors: &str) -> Result<(), StoreError> {
        let kept = self.connection.execute(FLOORS, [name, floors]);
        kept.map(drop).map_err(|e| StoreError::sqlite(&self.path, "keeping the floors of a repository", e))
    }

    /// The newest `limit` lines of the history of `model`, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn history(&self, model: &str, limit: usize) -> Result<Vec<Note>, StoreError> {
        history(&self.connection, model, limit).map_err(|e| StoreError::sqlite(&self.path, "reading the history", e))
    }
}

/// What a reader sees, also beside the process that has the database open.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Seen {
    /// Records that can be read, by model.
    pub records: Vec<Record>,
    /// The newest lines of the history of each model, oldest first.
    pub history: BTreeMap<String, Vec<Note>>,
}

/// Look into the database at `path` without a change; `limit` lines of history of each model.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn read(path: impl AsRef<Path>, limit: usize) -> Result<Seen, StoreError> {
    let path = path.as_ref();
    if !path.exists() {
        return Err(StoreError::NoStore { path: path.to_owned() });
    }
    let look = || -> Result<Seen, rusqlite::Error> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let mut seen = Seen { records: records(&connection)?, history: BTreeMap::new() };
        let mut statement = connection.prepare("SELECT DISTINCT model FROM history")?;
        for model in statement.query_map([], |r| r.get::<_, String>(0))? {
            let model = model?;
            let lines = history(&connection, &model, limit)?;
            seen.history.insert(model, lines);
        }
        Ok(seen)
    };
    look().map_err(|e| StoreError::sqlite(path, "reading the records of updates", e))
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let path = path.with_extension("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|e| StoreError::io(&path, "opening the lock of the database of updates", e))?;
    record::lock(&file, &path)?;
    Ok(file)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let failed = |e| StoreError::sqlite(path, "preparing the database of updates", e);
    let mut connection = checked(path)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(failed)?;
    let objects: i64 = connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(failed)?;
    if objects == 0 {
        // In one transaction, so that no floor is lost when it fails: an empty database is begun again.
        let tx = connection.transaction().map_err(failed)?;
        tx.execute_batch(SCHEMA).map_err(failed)?;
        asides(path).try_for_each(|aside| carry_over(&aside, &tx)).map_err(failed)?;
        tx.commit().map_err(failed)?;
    } else {
        // The header lies in a page that no check reads, so the version is told a second time.
        let sql = "SELECT value FROM meta WHERE key = 'schema'";
        let told: Option<i64> = connection.query_row(sql, [], |r| r.get(0)).optional().map_err(failed)?;
        if told != Some(found) {
            let reason = format!("its header says schema {found}, and what it holds says {told:?}");
            return Err(StoreError::Corrupt { path: path.to_owned(), reason });
        }
        if found > NEWEST {
            return Err(StoreError::Newer { path: path.to_owned(), found, known: NEWEST });
        }
    }
    probe(&connection).map_err(failed)?;
    check_writable(&connection, path)?;
    Ok(connection)
}

/// Read all there is, as it will be read later: what cannot be is found here, where the file can still be set aside.
fn probe(c: &Connection) -> Result<(), rusqlite::Error> {
    for table in ["record", "floor", "quarantine", "history"] {
        let mut statement = c.prepare(&format!("SELECT DISTINCT model FROM {table}"))?;
        let models: Result<Vec<String>, _> = statement.query_map([], |r| r.get(0))?.collect();
        for model in models? {
            load(c, &model, || Record::new(&model))?;
            history(c, &model, usize::MAX)?;
        }
    }
    let mut statement = c.prepare("SELECT name, floors FROM repository")?;
    let rows: Result<Vec<(String, String)>, _> = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect();
    rows.map(drop)
}

fn load(c: &Connection, model: &str, found: impl FnOnce() -> Record) -> Result<Loaded, rusqlite::Error> {
    let sql = "SELECT json, crc FROM record WHERE model = ?1";
    let row: Option<(String, u32)> = c.query_row(sql, [model], |r| Ok((r.get(0)?, r.get(1)?))).optional()?;
    let stored = row.map(|(json, crc)| parse(model, &json, crc));
    let (mut record, damaged) = match stored {
        Some(Ok(record)) => (record, None),
        Some(Err(reason)) => (found(), Some(reason)),
        None => (found(), None),
    };
    record.merge(&floors(c, model)?, &quarantine(c, model)?);
    Ok(Loaded { record, damaged })
}

fn records(c: &Connection) -> Result<Vec<Record>, rusqlite::Error> {
    let mut statement = c.prepare_cached("SELECT model FROM record ORDER BY model")?;
    let models: Result<Vec<String>, _> = statement.query_map([], |r| r.get(0))?.collect();
    let mut records = Vec::new();
    for model in models? {
        let loaded = load(c, &model, || Record::new(&model))?;
        records.extend(loaded.damaged.is_none().then_some(loaded.record));
    }
    Ok(records)
}

fn parse(model: &str, json: &str, crc: u32) -> Result<Record, String> {
    if crc32fast::hash(json.as_bytes()) != crc {
        return Err("its check sum does not fit".to_owned());
    }
    let record: Record = serde_json::from_str(json).map_err(|e| e.to_string())?;
    if record.schema != RECORD_SCHEMA || record.model != model {
        return Err(format!("schema {} of model {:?}", record.schema, record.model));
    }
    Ok(record)
}

fn floors(c: &Connection, model: &str) -> Result<BTreeMap<String, u64>, rusqlite::Error> {
    let mut statement = c.prepare_cached("SELECT channel, epoch FROM floor WHERE model = ?1")?;
    let rows = statement.query_map([model], |r| Ok((r.get(0)?, r.get::<_, i64>(1)?.max(0) as u64)))?;
    rows.collect()
}

/// One that cannot be read is passed over: it would be of no use to anybody.
fn quarantine(c: &Connection, model: &str) -> Result<Vec<Quarantined>, rusqlite::Error> {
    let mut statement = c.prepare_cached("SELECT json FROM quarantine WHERE model = ?1 ORDER BY channel, epoch")?;
    let rows = statement.query_map([model], |r| r.get::<_, String>(0))?;
    let rows: Result<Vec<String>, _> = rows.collect();
    Ok(rows?.iter().filter_map(|json| serde_json::from_str(json).ok()).collect())
}

fn history(c: &Connection, model: &str, limit: usize) -> Result<Vec<Note>, rusqlite::Error> {
    let mut statement = c.prepare_cached("SELECT json FROM history WHERE model = ?1 ORDER BY id DESC LIMIT ?2")?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows: Result<Vec<String>, _> = statement.query_map(params![model, limit], |r| r.get(0))?.collect();
    let mut notes: Vec<Note> = rows?.iter().filter_map(|json| serde_json::from_str(json).ok()).collect();
    notes.reverse();
    Ok(notes)
}

fn write(tx: &Transaction<'_>, change: &Change<'_>) -> Result<(), rusqlite::Error> {
    let record = change.record;
    let model = &record.model;
    let json = to_json(record)?;
    let sql = "INSERT OR REPLACE INTO record (model, json, crc) VALUES (?1, ?2, ?3)";
    tx.prepare_cached(sql)?.execute(params![model, json, crc32fast::hash(json.as_bytes())])?;
    for (channel, epoch) in &record.floors {
        let epoch = i64::try_from(*epoch).unwrap_or(i64::MAX);
        tx.prepare_cached(RAISE)?.execute(params![model, channel, epoch])?;
    }
    for q in &record.quarantine {
        let epoch = i64::try_from(q.release.epoch).unwrap_or(i64::MAX);
        tx.prepare_cached(CONFINE)?.execute(params![model, q.release.channel, epoch, to_json(q)?])?;
    }
    if let Some(note) = change.note {
        tx.prepare_cached("INSERT INTO history (model, json) VALUES (?1, ?2)")?
            .execute(params![model, to_json(note)?])?;
        let sql = "DELETE FROM history WHERE model = ?1 AND id <=
                   (SELECT id FROM history WHERE model = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
        tx.prepare_cached(sql)?.execute(params![model, HISTORY_ROWS])?;
    }
    if let Some((name, floors)) = change.repository {
        tx.prepare_cached(FLOORS)?.execute([name, floors])?;
    }
    Ok(())
}

/// Never lowers one.
const RAISE: &str = "INSERT INTO floor (model, channel, epoch) VALUES (?1, ?2, ?3)
    ON CONFLICT (model, channel) DO UPDATE SET epoch = MAX(epoch, excluded.epoch)";
/// What of two is higher is known to the client alone.
const FLOORS: &str = "INSERT OR REPLACE INTO repository (name, floors) VALUES (?1, ?2)";
/// The first reason stays.
const CONFINE: &str = "INSERT OR IGNORE INTO quarantine (model, channel, epoch, json) VALUES (?1, ?2, ?3, ?4)";

fn to_json(value: &impl serde::Serialize) -> Result<String, rusqlite::Error> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}

/// Floors, quarantine and repositories of a damaged database, row by row until one cannot be read.
fn carry_over(aside: &Path, tx: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    if let Ok(from) = Connection::open_with_flags(aside, OpenFlags::SQLITE_OPEN_READ_ONLY) {
        type Row = (String, String, i64);
        let sql = "SELECT model, channel, epoch FROM floor LIMIT ?1";
        for (model, channel, epoch) in salvage::<Row>(&from, sql, |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))) {
            tx.execute(RAISE, params![model, channel, epoch])?;
        }
        type Confined = (String, String, i64, String);
        let sql = "SELECT model, channel, epoch, json FROM quarantine LIMIT ?1";
        let read = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?));
        for (model, channel, epoch, json) in salvage::<Confined>(&from, sql, read) {
            tx.execute(CONFINE, params![model, channel, epoch, json])?;
        }
        let sql = "SELECT name, floors FROM repository LIMIT ?1";
        for (name, floors) in salvage::<(String, String)>(&from, sql, |r| Ok((r.get(0)?, r.get(1)?))) {
            tx.execute(FLOORS, [name, floors])?;
        }
    }
    Ok(())
}

fn salvage<T>(from: &Connection, sql: &str, read: fn(&rusqlite::Row<'_>) -> Result<T, rusqlite::Error>) -> Vec<T> {
    let rows = || -> Result<Vec<T>, rusqlite::Error> {
        let mut statement = from.prepare(sql)?;
        let rows = statement.query_map([SALVAGED], read)?;
        Ok(rows.map_while(Result::ok).collect())
    };
    rows().unwrap_or_default()
}
