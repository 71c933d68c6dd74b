//! The folder with the trusted metadata.
//!
//! `root.json`, `timestamp.json`, `snapshot.json`, `targets.json` and delegated roles under their escaped names, byte for
//! byte as they were received; `floors` with the versions below which nothing is accepted. Each file is replaced whole. A file
//! that is missing, too large or not readable counts as missing: what is read here is verified again, and [`super::Floors`] hold
//! even if all of it is lost.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Floors, Refused, Role};
use crate::durable;

const FLOORS: &str = "floors";
/// No trusted file is larger: [`super::Limits`] bound what comes in.
const LARGEST: u64 = 32 << 20;

#[derive(Debug, Clone)]
pub(super) struct Store {
    directory: PathBuf,
}

impl Store {
    /// Creates the folder if need be. Blocks on the disk, as everything here does.
    pub(super) fn open(directory: &Path) -> Result<Self, Refused> {
        fs::create_dir_all(directory).map_err(|e| Refused::disk(directory, &e))?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// The stored metadata of `role`, unverified.
    pub(super) fn read(&self, role: &Role) -> Option<Vec<u8>> {
        self.file(&role.file_name())
    }

    /// Replaces the stored metadata of `role`.
    pub(super) fn write(&self, role: &Role, bytes: &[u8]) -> Result<(), Refused> {
        replace(&self.directory.join(role.file_name()), bytes)
    }

    pub(super) fn remove(&self, role: &Role) -> Result<(), Refused> {
        let path = self.directory.join(role.file_name());
        match fs::remove_file(&path) {
            Ok(()) => durable::sync(&self.directory).map_err(|e| Refused::disk(&self.directory, &e)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Refused::disk(&path, &e)),
        }
    }

    /// The floors kept here; none if they are missing or damaged.
    pub(super) fn floors(&self) -> Floors {
        self.file(FLOORS).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    pub(super) fn write_floors(&self, floors: &Floors) -> Result<(), Refused> {
        let path = self.directory.join(FLOORS);
        let bytes = serde_json::to_vec(floors).map_err(|e| Refused::disk(&path, &e.into()))?;
        replace(&path, &bytes)
    }

    fn file(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.directory.join(name)).ok()?;
        file.take(LARGEST + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= LARGEST).then_some(bytes)
    }
}

/// One file at a time: two clients of one process write to the same name beside the file.
static WRITING: Mutex<()> = Mutex::new(());

/// Replaces the file at `path`, so that after a power cut either the old or the new bytes are there.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Refused> {
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    durable::write(path, bytes).map_err(|e| Refused::disk(path, &e))
}
