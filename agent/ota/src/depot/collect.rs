//! Space: what is removed, in which order, and when an update may have any.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kinewatch_core::rollout::{Phase, Record, Release, Slot};

use super::{Depot, DepotError, entries, package_of, remove, sidecar};
use crate::Limits;
use crate::package::MANIFEST;
use crate::read::bounded;

/// A bundle becomes at most about so many times its length: itself, unpacked, and what an inference library makes of it.
const GROWTH: u64 = 4;
const MIB: u64 = 1 << 20;

/// What must stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Installed packages: model and folder.
    packages: BTreeSet<(String, String)>,
    /// Bundles, whole or in part, by digest.
    bundles: BTreeSet<String>,
    /// Digests of packages that are not in the depot, whose engines are (the factory models).
    engines: BTreeSet<String>,
}

/// What can be removed.
#[derive(Clone, Copy)]
enum Kind {
    Engines,
    Bundles,
    Packages,
    Blobs,
}

impl Kind {
    /// First what can be made again without a network, then what must be fetched again; blobs last, as packages hold them.
    const IN_ORDER: [Self; 4] = [Self::Engines, Self::Bundles, Self::Packages, Self::Blobs];
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// Engines of packages that nobody wants.
    pub engines: u64,
    /// Bundles and parts of bundles.
    pub bundles: u64,
    /// Installed packages.
    pub packages: u64,
    /// Files that were in no package any more.
    pub blobs: u64,
}

impl Wanted {
    /// What these records name: what runs, what ran before, what is on trial, and what will be wanted again. All records of the
    /// depot, or what belongs to the others is removed.
    #[must_use]
    pub fn by<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut wanted = Self::default();
        for record in records {
            let slots = [Some(&record.current), record.previous.as_ref()];
            for release in slots.into_iter().flatten().filter_map(Slot::release) {
                wanted.packages.insert((record.model.clone(), release.folder()));
            }
            let coming = match &record.phase {
                Phase::Idle => None,
                Phase::Trial { candidate, .. } => Some(&candidate.release),
                Phase::RollingBack { keep, .. } | Phase::Settling { keep, .. } => keep.as_ref(),
            };
            // While it pauses after a failure that was not its own, the record is idle and the offer is what will be tried.
            let pausing = record.offer.as_ref().map(|offer| offer.release()).filter(|release| {
                record.phase == Phase::Idle
                    && record.quarantined(&release.channel, release.epoch).is_none()
                    && record.attempts_at(&release.channel, release.epoch).is_some_and(|a| a.not_before.is_some())
            });
            for release in coming.cloned().into_iter().chain(pausing) {
                wanted.packages.insert((record.model.clone(), release.folder()));
                wanted.bundles.insert(release.sha256);
            }
        }
        wanted
    }

    /// Engines of a package outside of the depot stay too.
    #[must_use]
    pub fn with_engines_of(mut self, digest: &str) -> Self {
        self.engines.insert(format!("{digest:.16}"));
        self
    }
}

impl Depot {
    /// Free space that an update may take, bytes: what the file system gives this user, less the reserve.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn room(&self) -> Result<u64, DepotError> {
        Ok(self.free()?.saturating_sub(self.options.reserve_bytes))
    }

    /// Make sure that there is space for this release: at least `min_free_mb`, and several times its bundle, beside the reserve.
    /// Removes what nobody wants, and no more of it than is needed, in the order of [`Depot::collect`].
    ///
    /// # Errors
    /// [`DepotError::TooLittle`] when that is not enough; the file system fails.
    pub fn reserve(&self, release: &Release, min_free_mb: u64, wanted: &Wanted) -> Result<Freed, DepotError> {
        let needed = self.needed(release, min_free_mb);
        let freed = self.collect_until(wanted, Some(needed))?;
        let free = self.free()?;
        if free >= needed {
            return Ok(freed);
        }
        let (free_mb, needed_mb) = (free / MIB, needed.div_ceil(MIB));
        let reserve_mb = self.options.reserve_bytes / MIB;
        Err(DepotError::TooLittle { path: self.root.clone(), free_mb, needed_mb, reserve_mb })
    }

    /// Remove all that nobody wants: engines of packages that are not wanted, bundles and their parts, packages, and blobs that
    /// are in no package. Never what `wanted` names, what a link names, or anything outside of the depot.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn collect(&self, wanted: &Wanted) -> Result<Freed, DepotError> {
        self.collect_until(wanted, None)
    }

    /// `enough`: stop when so much is free.
    fn collect_until(&self, wanted: &Wanted, enough: Option<u64>) -> Result<Freed, DepotError> {
        let mut freed = Freed::default();
        let counts = [&mut freed.engines, &mut freed.bundles, &mut freed.packages, &mut freed.blobs];
        for (kind, count) in Kind::IN_ORDER.into_iter().zip(counts) {
            if let Some(enough) = enough
                && self.free()? >= enough
            {
                break;
            }
            *count = match kind {
                Kind::Engines => self.drop_engines(wanted),
                Kind::Bundles => self.drop_bundles(wanted),
                Kind::Packages => self.drop_packages(wanted),
                Kind::Blobs => self.drop_blobs(),
            }?;
        }
        if freed != Freed::default() {
            tracing::info!(?freed, "removed what no model needs any more");
        }
        Ok(freed)
    }

    /// Remove engines of packages that nobody wants, and nothing else.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn collect_engines(&self, wanted: &Wanted) -> Result<u64, DepotError> {
        let removed = self.drop_engines(wanted)?;
        if removed > 0 {
            tracing::info!(removed, "removed engines of models that are gone");
        }
        Ok(removed)
    }

    fn drop_engines(&self, wanted: &Wanted) -> Result<u64, DepotError> {
        let mut digests = wanted.engines.clone();
        for (model, folder) in &wanted.packages {
            let manifest = self.root.join("installed").join(model).join(folder).join(MANIFEST);
            let text =
                File::open(&manifest).ok().and_then(|file| bounded(&manifest, file, Limits::default().text_bytes).ok());
            if let Some(text) = text {
                digests.insert(format!("{:.16}", crate::read::digest(&text)));
            }
        }
        let Some(folder) = &self.engines else { return Ok(0) };
        sweep_engines(folder, &digests)
    }

    fn drop_bundles(&self, wanted: &Wanted) -> Result<u64, DepotError> {
        let is_wanted = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            wanted.bundles.iter().any(|digest| name.starts_with(digest.as_str()))
        };
        drop_all(entries(&self.parts())?.iter().filter(|path| !is_wanted(path)))
    }

    /// Remove every bundle and part, wanted or not, for a disk that is full: they can be fetched again, and what waits to be
    /// stored cannot. Whoever reads or writes one meanwhile fails.
    ///
    /// # Errors
    /// The file system fails.
    pub fn give_up_bundles(&self) -> Result<u64, DepotError> {
        self.drop_bundles(&Wanted::default())
    }

    fn drop_packages(&self, wanted: &Wanted) -> Result<u64, DepotError> {
        let mut removed = 0;
        for model in entries(&self.root.join("installed"))? {
            let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Should a record and the links disagree, both are right.
            let linked = ["current", "previous"].map(|kind| self.linked(kind, &name));
            for entry in entries(&model)? {
                let package = if entry.is_dir() { entry.clone() } else { package_of(&entry) };
                let folder = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let real = package.canonicalize().ok();
                let is_linked = real.is_some() && linked.contains(&real);
                if !wanted.packages.contains(&(name.clone(), folder)) && !is_linked {
                    // First the description: a package without one is removed at the next start, should this be the last moment.
                    remove(&sidecar(&package))?;
                    remove(&package)?;
                    removed += u64::from(real.is_some());
                }
            }
        }
        Ok(removed)
    }

    /// A blob with one name is in no package: its only link is this one.
    fn drop_blobs(&self) -> Result<u64, DepotError> {
        let alone = |path: &&std::path::PathBuf| path.symlink_metadata().is_ok_and(|m| m.is_file() && m.nlink() == 1);
        drop_all(entries(&self.root.join("blobs"))?.iter().filter(alone))
    }

    /// Free space to begin with, bytes. What is on the disk of this release already need not be free again.
    fn needed(&self, release: &Release, min_free_mb: u64) -> u64 {
        let here = |name: String| self.parts().join(name).metadata().map_or(0, |m| m.blocks() * 512);
        let here = here(format!("{}.part", release.sha256)).max(here(format!("{}.bundle", release.sha256)));
        let estimate = release.length.saturating_mul(GROWTH).saturating_sub(here.min(release.length));
        estimate.max(min_free_mb.saturating_mul(MIB)).saturating_add(self.options.reserve_bytes)
    }

    fn free(&self) -> Result<u64, DepotError> {
        let said = rustix::fs::statvfs(&self.root)
            .map_err(|e| DepotError::io(&self.root, "asking for its free space", e.into()))?;
        Ok(said.f_bavail.saturating_mul(said.f_frsize))
    }
}

/// Remove the entries of an engines folder whose names begin with none of these digests (16 digits or more of each), but not the
/// timings that all packages share. Without a depot, where models never come over the air. The folder need not exist.
///
/// # Errors
/// Something cannot be removed.
pub fn sweep_engines(folder: &Path, digests: &BTreeSet<String>) -> Result<u64, DepotError> {
    let is_wanted = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("timings-") || digests.iter().any(|digest| name.starts_with(&format!("{digest:.16}")))
    };
    drop_all(entries(folder)?.iter().filter(|path| !is_wanted(path)))
}

fn drop_all<'a>(paths: impl Iterator<Item = &'a std::path::PathBuf>) -> Result<u64, DepotError> {
    let mut removed = 0;
    for path in paths {
        remove(path)?;
        removed += 1;
    }
    Ok(removed)
}
