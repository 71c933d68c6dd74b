//! The depot: releases on the disk, the links that name what runs, and what is removed when space is short.
//!
//! ```text
//! <state>/models/
//!   parts/<sha256>.part            bundles that come (the client's); <sha256>.bundle once whole and verified
//!   unpacking/                     never anything but what a crash has left
//!   blobs/<sha256>                 files of packages, each once
//!   installed/<model>/<version>-<sha256 of the bundle, 12 digits>/     a package: hard links to blobs
//!   installed/<model>/<the same>.json                                  which release it is
//!   current/<model>, previous/<model>                                  links to installed packages
//! <state>/engines/
//!   <sha256 of the package, 16 digits>-<key>/      what an inference library made of a package, this depot's or not
//!   timings-<key>/                                 what it shares between packages
//! ```
//!
//! A package appears under `installed/` whole or not at all: it is unpacked beside, made durable, and renamed. Links are swapped
//! by rename and name only releases that have proven themselves, so whoever reads them needs no database. The factory model is
//! elsewhere (the configuration names it) and is never touched.
//!
//! Must never touch what is outside its two folders, the outbox above all, nor remove what [`Wanted`] names. Blocks on the disk;
//! it has no state but the disk, so any thread may use it, one call at a time.

mod collect;
mod error;
mod links;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kinewatch_core::rollout::Release;

pub use collect::{Freed, Wanted, sweep_engines};
pub use error::DepotError;
pub use links::Found;

use crate::durable::NEW;
use crate::{VerifiedPackage, durable};

/// Bounds of the depot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Space that updates never take: it is for the outbox, bytes.
    pub reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { reserve_bytes: 256 << 20 }
    }
}

/// Releases on the disk.
#[derive(Debug, Clone)]
pub struct Depot {
    root: PathBuf,
    engines: Option<PathBuf>,
    options: Options,
}

impl Depot {
    /// Open or create the depot in `root` (`<state>/models`), and remove what a crash has left half done.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(root: impl AsRef<Path>, options: Options) -> Result<Self, DepotError> {
        let depot = Self { root: root.as_ref().to_owned(), engines: None, options };
        for folder in ["parts", "unpacking", "blobs", "installed", "current", "previous"] {
            let path = depot.root.join(folder);
            fs::create_dir_all(&path).map_err(|e| DepotError::io(&path, "making it", e))?;
        }
        depot.repair()?;
        Ok(depot)
    }

    /// Where parts of bundles lie; the client of the repository keeps them.
    #[must_use]
    pub fn parts(&self) -> PathBuf {
        self.root.join("parts")
    }

    /// Where the bundle of a release is delivered, whole and verified.
    #[must_use]
    pub fn bundle(&self, release: &Release) -> PathBuf {
        self.parts().join(format!("{}.bundle", release.sha256))
    }

    /// Folder of an installed release.
    #[must_use]
    pub fn installed(&self, model: &str, release: &Release) -> PathBuf {
        self.root.join("installed").join(model).join(release.folder())
    }

    /// Looks after the folder in which inference libraries keep what they make of packages too: each entry's name begins with
    /// 16 digits of the package's digest. It need not exist.
    #[must_use]
    pub fn with_engines(mut self, folder: impl Into<PathBuf>) -> Self {
        self.engines = Some(folder.into());
        self
    }

    /// Whether the release is installed, and the disk still gives back what was written. Reads all of it.
    #[must_use]
    pub fn is_installed(&self, model: &str, release: &Release) -> bool {
        crate::open_verified(self.installed(model, release)).is_ok()
    }

    /// An empty place to unpack into: it does not exist, its parent does.
    ///
    /// # Errors
    /// What a crash has left there cannot be removed.
    pub fn place(&self, model: &str, release: &Release) -> Result<PathBuf, DepotError> {
        let place = self.root.join("unpacking").join(format!("{model}-{}", release.folder()));
        remove(&place)?;
        Ok(place)
    }

    /// Install what was unpacked into [`Depot::place`] and is durable there: its files become blobs, and it appears whole under
    /// its name. One that is installed already is replaced. The bundle is removed.
    ///
    /// # Errors
    /// The disk is full or fails; the package at `unpacked` may then be there still, and is removed with the next [`Depot::place`].
    pub fn install(&self, model: &str, release: &Release, unpacked: &VerifiedPackage) -> Result<PathBuf, DepotError> {
        self.share(unpacked)?;
        let into = self.installed(model, release);
        let parent = self.root.join("installed").join(model);
        fs::create_dir_all(&parent).map_err(|e| DepotError::io(&parent, "making it", e))?;
        sync(&self.root.join("installed"))?;
        remove(&into)?;
        let json = serde_json::to_vec_pretty(release).map_err(|e| DepotError::io(&into, "describing it", e.into()))?;
        let described = sidecar(&into);
        durable::write(&described, &json).map_err(|e| DepotError::io(&described, "writing it", e))?;
        durable::rename(&unpacked.dir, &into).map_err(|e| DepotError::io(&into, "moving it to its place", e))?;
        remove(&self.bundle(release))?;
        Ok(into)
    }

    /// Each file of the package becomes a link to its blob; where there is none, it becomes the blob.
    fn share(&self, package: &VerifiedPackage) -> Result<(), DepotError> {
        let blobs = self.root.join("blobs");
        let mut folders = BTreeSet::from([package.dir.clone()]);
        for (name, digest) in &package.manifest.files {
            let (file, blob) = (package.dir.join(name), blobs.join(digest.to_ascii_lowercase()));
            let failed = |what: &'static str| {
                let file = file.clone();
                move |e| DepotError::io(&file, what, e)
            };
            if self.holds(&blob, digest) {
                // A name of ours beside it, then over it: the package is never without the file.
                let new = file.with_file_name(format!("{NEW}{digest:.16}"));
                remove(&new)?;
                fs::hard_link(&blob, &new).map_err(failed("linking it to its blob"))?;
                fs::rename(&new, &file).map_err(failed("putting its blob in its place"))?;
            } else {
                remove(&blob)?;
                fs::hard_link(&file, &blob).map_err(failed("making it a blob"))?;
            }
            folders.extend(file.parent().map(Path::to_owned));
        }
        folders.insert(blobs);
        folders.iter().try_for_each(|folder| sync(folder))
    }

    /// Whether the blob is what its name says; the disk may have changed it.
    fn holds(&self, blob: &Path, digest: &str) -> bool {
        let Ok(file) = File::open(blob) else { return false };
        crate::read::hash(blob, file, u64::MAX).is_ok_and(|(found, _)| found.eq_ignore_ascii_case(digest))
    }

    /// What a crash has left: half an unpacking, names that were never finished, a package without its description or a
    /// description without its package, links that lead nowhere.
    fn repair(&self) -> Result<(), DepotError> {
        for left in entries(&self.root.join("unpacking"))? {
            remove(&left)?;
        }
        for folder in ["blobs", "current", "previous"] {
            let found = entries(&self.root.join(folder))?;
            found.iter().filter(|path| is_new(path)).try_for_each(|path| remove(path))?;
        }
        for model in entries(&self.root.join("installed"))? {
            let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let linked = ["current", "previous"].map(|kind| self.linked(kind, &name));
            for entry in entries(&model)? {
                let whole = if entry.is_dir() { sidecar(&entry).is_file() } else { package_of(&entry).is_dir() };
                // What a link names runs, or has run, whatever became of its description.
                if (!whole || is_new(&entry)) && !linked.contains(&entry.canonicalize().ok()) {
                    tracing::warn!(path = %entry.display(), "left half done: removed");
                    remove(&entry)?;
                }
            }
        }
        for link in ["current", "previous"].iter().map(|kind| entries(&self.root.join(kind))) {
            for link in link?.iter().filter(|link| !link.exists()) {
                tracing::warn!(path = %link.display(), "the link leads nowhere: removed");
                remove(link)?;
            }
        }
        Ok(())
    }
}

/// Beside a package: which release it is.
fn sidecar(package: &Path) -> PathBuf {
    let name = package.file_name().unwrap_or_default().to_string_lossy();
    package.with_file_name(format!("{name}.json"))
}

fn package_of(sidecar: &Path) -> PathBuf {
    let name = sidecar.file_name().unwrap_or_default().to_string_lossy();
    sidecar.with_file_name(name.trim_end_matches(".json"))
}

fn is_new(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NEW))
}

/// What is in a folder; nothing where there is none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DepotError> {
    let failed = |e| DepotError::io(folder, "reading it", e);
    match fs::read_dir(folder) {
        Ok(found) => found.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(failed),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(e) => Err(failed(e)),
    }
}

/// Remove a file, a link or a folder with all that is in it, and follow no link.
fn remove(path: &Path) -> Result<(), DepotError> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(DepotError::io(path, "removing it", e)),
        _ => Ok(()),
    }
}

/// Make the names in a folder durable.
fn sync(folder: &Path) -> Result<(), DepotError> {
    durable::sync(folder).map_err(|e| DepotError::io(folder, "making it durable", e))
}
