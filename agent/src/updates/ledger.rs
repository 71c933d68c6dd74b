//! The state of updates on the disk, in words of the updater: every transition is one commit.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use kinewatch_core::rollout::step::Note;
use kinewatch_core::rollout::{Code, Fault, Record};
use kinewatch_ota::tuf::Floors;
use serde::{Deserialize, Serialize};

use super::HistoryLine;

/// Lines of the history that are kept.
const HISTORY: usize = 1000;

#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    content: Content,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Content {
    records: BTreeMap<String, Record>,
    floors: Floors,
    history: Vec<HistoryLine>,
}

impl Ledger {
    pub(super) fn open(home: &Path) -> Result<Self, Fault> {
        let path = home.join("updates.json");
        fs::create_dir_all(home).map_err(|e| disk(home, &e))?;
        let content = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| Fault::new(Code::StateDamaged, format!("{e}")))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Content::default(),
            Err(e) => return Err(disk(&path, &e)),
        };
        Ok(Self { path, content })
    }

    pub(super) fn record(&self, model: &str) -> Result<Option<Record>, Fault> {
        Ok(self.content.records.get(model).cloned())
    }

    pub(super) fn records(&self) -> Result<Vec<Record>, Fault> {
        Ok(self.content.records.values().cloned().collect())
    }

    pub(super) fn commit(&mut self, record: &Record, note: Option<&Note>) -> Result<(), Fault> {
        let mut next = self.content.clone();
        next.records.insert(record.model.clone(), record.clone());
        next.history.extend(note.map(|note| HistoryLine::new(&record.model, note)));
        let excess = next.history.len().saturating_sub(HISTORY);
        next.history.drain(..excess);
        self.write(next)
    }

    pub(super) fn floors(&self) -> Result<Floors, Fault> {
        Ok(self.content.floors.clone())
    }

    pub(super) fn keep_floors(&mut self, floors: &Floors) -> Result<(), Fault> {
        if *floors == self.content.floors {
            return Ok(());
        }
        self.write(Content { floors: floors.clone(), ..self.content.clone() })
    }

    pub(super) fn history(&self, model: Option<&str>, limit: usize) -> Result<Vec<HistoryLine>, Fault> {
        let of = |line: &&HistoryLine| model.is_none_or(|model| line.model == model);
        let mut lines: Vec<_> = self.content.history.iter().filter(of).cloned().collect();
        lines.drain(..lines.len().saturating_sub(limit));
        Ok(lines)
    }

    fn write(&mut self, next: Content) -> Result<(), Fault> {
        let part = self.path.with_extension("part");
        let written = (|| {
            let mut file = File::create(&part)?;
            file.write_all(&serde_json::to_vec(&next)?)?;
            file.sync_all()?;
            fs::rename(&part, &self.path)?;
            File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
        })();
        written.map_err(|e| disk(&self.path, &e))?;
        self.content = next;
        Ok(())
    }
}

fn disk(path: &Path, error: &std::io::Error) -> Fault {
    let code = if error.kind() == std::io::ErrorKind::StorageFull { Code::NoSpace } else { Code::DiskError };
    Fault::new(code, format!("{}: {error}", path.display()))
}
