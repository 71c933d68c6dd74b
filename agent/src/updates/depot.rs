//! Stand-in for the depot.

use std::fs;
use std::path::{Path, PathBuf};

use kinewatch_core::manifest::Manifest;
use kinewatch_core::rollout::{Code, Fault, Record, Release, Slot};
use kinewatch_ota::bundle;

pub(super) fn installed(home: &Path, model: &str, release: &Release) -> PathBuf {
    home.join("installed").join(model).join(release.folder())
}

pub(super) fn bundle(home: &Path, release: &Release) -> PathBuf {
    home.join("blobs").join(&release.sha256)
}

pub(super) fn is_here(home: &Path, model: &str, release: &Release) -> bool {
    installed(home, model, release).join("model.toml").exists()
}

pub(super) fn found(_home: &Path, model: &str) -> Record {
    Record::new(model)
}

pub(super) fn reserve(
    _home: &Path,
    _model: &str,
    _release: &Release,
    _min_free_mb: u64,
    _reserve: u64,
    _keep: &[Slot],
) -> Result<(), Fault> {
    Ok(())
}

pub(super) fn install(
    home: &Path,
    model: &str,
    release: &Release,
    fits: impl FnOnce(&Manifest) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let disk = |e: std::io::Error| Fault::new(Code::DiskError, e.to_string());
    let into = installed(home, model, release);
    if into.exists() {
        return Ok(());
    }
    let staged = home.join("staged");
    let _ = fs::remove_dir_all(&staged);
    let archive = fs::File::open(bundle(home, release)).map_err(disk)?;
    let package = bundle::unpack(archive, &staged, bundle::Bounds::default()).map_err(|e| refused(&e))?;
    fits(&package.manifest)?;
    fs::create_dir_all(into.parent().unwrap_or(home)).map_err(disk)?;
    fs::rename(&staged, &into).map_err(disk)
}

fn refused(error: &bundle::UnpackError) -> Fault {
    let code = match error {
        bundle::UnpackError::Unsafe { .. } => Code::BundleUnsafe,
        bundle::UnpackError::Package(_) => Code::PackageInvalid,
        bundle::UnpackError::NoSpace { .. } => Code::NoSpace,
        _ => Code::DiskError,
    };
    Fault::new(code, error.to_string())
}

pub(super) fn settle(
    _home: &Path,
    _model: &str,
    _current: &Slot,
    _previous: Option<&Slot>,
    _keep: Option<&Release>,
) -> Result<(), Fault> {
    Ok(())
}
