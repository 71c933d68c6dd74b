//! What the agent had decided, read from its own database, and compared with what the subscriber heard.
//!
//! Reads a copy, in plain SQL: the judge shares no code with the agent, and leaves its files as they are.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use rusqlite::Connection;
use serde_json::Value;
use uuid::Uuid;

/// Every event that was on the disk, by id.
#[derive(Default)]
pub(crate) struct Decided {
    ids: HashMap<Uuid, u64>,
    newest: u64,
}

impl Decided {
    /// Reads what is new in the state directory of an agent that does not run; `copy` is a folder for the copy.
    pub(crate) fn read(&mut self, state: &Path, copy: &Path) -> anyhow::Result<()> {
        let _ = fs::remove_dir_all(copy);
        fs::create_dir_all(copy)?;
        for file in ["events.db", "events.db-wal"] {
            if state.join(file).exists() {
                fs::copy(state.join(file), copy.join(file))?;
            }
        }
        let database = Connection::open(copy.join("events.db"))?;
        if !database.table_exists(None, "event")? {
            // It was killed before it had begun its first.
            return Ok(());
        }
        let mut statement =
            database.prepare("SELECT sequence, payload FROM event WHERE sequence > ?1 ORDER BY sequence")?;
        let mut rows = statement.query([i64::try_from(self.newest)?])?;
        while let Some(row) = rows.next()? {
            let (sequence, payload): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let sequence = u64::try_from(sequence)?;
            let payload: Value = serde_json::from_slice(&payload)?;
            let id: Uuid = payload["id"].as_str().context("an event has an id")?.parse()?;
            let twice = self.ids.insert(id, sequence);
            ensure!(twice.is_none(), "id {id} was stored as {twice:?} and as {sequence}");
            self.newest = sequence;
        }
        Ok(())
    }

    /// How many there were.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The highest sequence number.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// An error when one of them was not heard with its number. `heard` gives the number that an id came with.
    pub(crate) fn compare(&self, heard: impl Fn(Uuid) -> Option<u64>) -> anyhow::Result<()> {
        let lost: Vec<_> = self.ids.iter().filter(|(id, sequence)| heard(**id) != Some(**sequence)).collect();
        let (of, first) = (self.ids.len(), lost.first());
        ensure!(lost.is_empty(), "{} of {of} decided events never came, such as {first:?}", lost.len());
        Ok(())
    }
}
