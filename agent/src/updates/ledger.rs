//! The state of updates on the disk, in words of the updater.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kinewatch_core::rollout::step::Note;
use kinewatch_core::rollout::{Code, Fault, Record};
use kinewatch_ota::tuf::Floors;
use kinewatch_store::StoreError;
use kinewatch_store::updates::{Change, Loaded, Updates};

/// The one repository that a device follows.
const REPOSITORY: &str = "models";

/// The database; one owner at a time. Blocks on the disk.
#[derive(Debug)]
pub(super) struct Ledger(Updates);

impl Ledger {
    /// Opens or makes it.
    pub(super) fn open(home: &Path) -> Result<Self, Fault> {
        std::fs::create_dir_all(home).map_err(|e| disk(home, &e))?;
        Updates::open(path(home)).map(Self).map_err(|e| fault(&e))
    }

    /// The record of a model; `found` makes one from what is installed, where there is none that can be read. One that takes the
    /// place of what was damaged says so.
    pub(super) fn record(&self, model: &str, found: impl FnOnce() -> Record) -> Result<Record, Fault> {
        let mut is_new = false;
        let found = || {
            is_new = true;
            found()
        };
        let Loaded { mut record, damaged } = self.0.load(model, found).map_err(|e| fault(&e))?;
        let aside = self.0.set_aside().filter(|_| is_new).map(|aside| format!("it is at {} now", aside.display()));
        if let Some(why) = damaged.map(|why| format!("the record of {model}: {why}")).or(aside) {
            let said = Fault::new(Code::StateDamaged, why);
            tracing::warn!(model, code = said.code.as_str(), detail = said.detail, "update: {}", said.code.explain());
            record.fault = Some(said);
        }
        Ok(record)
    }

    /// One step, and what the repository's metadata must not go below from then on: one transaction.
    pub(super) fn commit(
        &mut self,
        record: &Record,
        note: Option<&Note>,
        floors: Option<&Floors>,
    ) -> Result<(), Fault> {
        let floors = floors.map(|floors| serde_json::to_string(floors).unwrap_or_default());
        let repository = floors.as_deref().map(|floors| (REPOSITORY, floors));
        self.0.commit(Change { record, note, repository }).map_err(|e| fault(&e))
    }

    /// Every record that can be read.
    pub(super) fn records(&self) -> Result<Vec<Record>, Fault> {
        self.0.records().map_err(|e| fault(&e))
    }

    /// What the repository's metadata must not go below.
    pub(super) fn floors(&self) -> Result<Floors, Fault> {
        let floors = self.0.repository_floors(REPOSITORY).map_err(|e| fault(&e))?;
        let read = |text: String| serde_json::from_str(&text);
        // The client keeps floors of its own beside the metadata.
        Ok(floors.map(read).and_then(Result::ok).unwrap_or_default())
    }
}

/// Where it is.
pub(super) fn path(home: &Path) -> PathBuf {
    home.join("updates.db")
}

pub(super) fn fault(error: &StoreError) -> Fault {
    let code = match error {
        StoreError::DiskFull { .. } => Code::NoSpace,
        StoreError::Corrupt { .. } => Code::StateDamaged,
        _ => Code::DiskError,
    };
    Fault::new(code, error.to_string())
}

pub(super) fn disk(path: &Path, error: &std::io::Error) -> Fault {
    let code = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::NoSpace,
        _ => Code::DiskError,
    };
    Fault::new(code, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_said_of_each_model_and_stays_said() {
        let (dir, new) = (tempfile::tempdir().unwrap(), || Record::new("falls"));
        assert_eq!(Ledger::open(dir.path()).unwrap().record("falls", new).unwrap().fault, None);
        std::fs::write(path(dir.path()), b"no database at all, ".repeat(500)).unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        let record = ledger.record("falls", new).unwrap();
        let fault = record.fault.clone().unwrap();
        assert_eq!(fault.code, Code::StateDamaged);
        assert!(fault.detail.contains("updates.db.corrupt-"), "{fault}");
        ledger.commit(&record, None, None).unwrap();
        drop(ledger);
        assert_eq!(Ledger::open(dir.path()).unwrap().record("falls", new).unwrap().fault, Some(fault));
    }
}
