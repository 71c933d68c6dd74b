//! `current/<model>` and `previous/<model>`: which installed packages have proven themselves.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use kinewatch_core::rollout::{Record, Release, Slot};

use super::{Depot, DepotError, remove, sidecar};
use crate::durable;
use crate::read::bounded;

/// Largest description of a release, bytes.
const MAX_SIDECAR: u64 = 64 << 10;

/// What the links say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What runs when nobody knows better.
    pub current: Slot,
    /// What ran before.
    pub previous: Option<Slot>,
}

impl Found {
    /// A record that begins with this.
    #[must_use]
    pub fn record(self, model: &str) -> Record {
        Record::found(model, self.current, self.previous)
    }
}

impl Depot {
    /// What the links of `model` name. A link that is not there, or leads to what cannot be read, names the factory model.
    #[must_use]
    pub fn found(&self, model: &str) -> Found {
        let release = |kind: &str| self.linked(kind, model).and_then(|package| described(&package));
        let previous = match release("previous") {
            Some(release) => Some(Slot::Release(release)),
            None => self.linked("current", model).map(|_| Slot::Factory),
        };
        Found { current: release("current").map_or(Slot::Factory, Slot::Release), previous }
    }

    /// The package that `current` or `previous` names.
    #[must_use]
    pub fn linked(&self, kind: &str, model: &str) -> Option<PathBuf> {
        self.root.join(kind).join(model).canonicalize().ok().filter(|package| package.is_dir())
    }

    /// Make the links of `model` name these, durably. Between the two both name what has proven itself.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn link(&self, model: &str, current: &Slot, previous: Option<&Slot>) -> Result<(), DepotError> {
        self.point("current", model, current.release())?;
        self.point("previous", model, previous.and_then(Slot::release))
    }

    fn point(&self, kind: &str, model: &str, release: Option<&Release>) -> Result<(), DepotError> {
        let folder = self.root.join(kind);
        let link = folder.join(model);
        let Some(release) = release else {
            remove(&link)?;
            return durable::sync(&folder).map_err(|e| DepotError::io(&folder, "making it durable", e));
        };
        let target = Path::new("../installed").join(model).join(release.folder());
        if fs::read_link(&link).is_ok_and(|found| found == target) {
            return Ok(());
        }
        let new = durable::beside(&link);
        remove(&new)?;
        symlink(&target, &new).map_err(|e| DepotError::io(&new, "making the link", e))?;
        durable::rename(&new, &link).map_err(|e| DepotError::io(&link, "swapping the link", e))
    }
}

/// The release that a package is, as was written when it was installed.
fn described(package: &Path) -> Option<Release> {
    let path = sidecar(package);
    let bytes = bounded(&path, File::open(&path).ok()?, MAX_SIDECAR).ok()?;
    let release: Release = serde_json::from_slice(&bytes).ok()?;
    // A description that speaks of another package was put there by another hand.
    (package.file_name()?.to_string_lossy() == release.folder()).then_some(release)
}
