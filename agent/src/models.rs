//! Opening model packages for use: verified, opened, and described for events and status.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kinewatch_core::event::ModelRef;
use kinewatch_core::manifest::Overrides;
use kinewatch_engine::{Model, OpenError, OpenOptions, Provider};
use kinewatch_ota::PackageError;

use crate::analytics::LoadedModel;
use crate::health::ModelInfo;

/// Why a package cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The package on disk is not what it should be.
    #[error(transparent)]
    Package(Box<PackageError>),
    /// No back end runs it.
    #[error("{}: {source}", path.display())]
    Open {
        /// The package.
        path: PathBuf,
        /// Why.
        source: Box<OpenError>,
    },
}

/// A model in use, with what is said of it.
#[derive(Debug)]
pub struct OpenedModel {
    /// For [`crate::analytics::Analytics`].
    pub loaded: LoadedModel,
    /// For events.
    pub reference: ModelRef,
    /// For status and metrics.
    pub info: ModelInfo,
    /// A better provider waits for an engine that has to be built.
    pub postponed: Option<Provider>,
}

/// Verifies and opens the package in `path`. Blocks for seconds.
///
/// # Errors
/// A file is missing or not the one that was packaged, or no back end runs the model.
pub fn open(name: &str, path: &Path, overrides: Overrides, options: &OpenOptions) -> Result<OpenedModel, ModelError> {
    let package = kinewatch_ota::open_verified(path).map_err(|e| ModelError::Package(Box::new(e)))?;
    let manifest = Arc::new(package.manifest);
    let model = Model::open(path, &manifest, &options.of_package(&package.digest))
        .map_err(|source| ModelError::Open { path: path.to_owned(), source: Box::new(source) })?;
    let report = model.report();
    tracing::info!("{}", report.summary());
    if let Some(caution) = report.caution() {
        tracing::warn!(model = manifest.name, "{caution}");
    }
    let (backend, provider, precision) = (report.backend.name(), report.provider.name(), report.precision.name());
    let accel = format!("{backend}-{provider}-{precision}");
    let postponed = report.postponed;
    let reference = ModelRef {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        sha256: package.digest.clone(),
        accel,
    };
    let info = ModelInfo {
        version: manifest.version.clone(),
        architecture: manifest.architecture.clone(),
        sha256: package.digest,
        backend: backend.into(),
        provider: provider.into(),
        precision: precision.into(),
        nodes: report.named_nodes(),
        why: report.why.clone(),
    };
    Ok(OpenedModel {
        loaded: LoadedModel { name: name.to_owned(), manifest, overrides, model },
        reference,
        info,
        postponed,
    })
}

/// Memory that an open model takes, where nobody has measured it: a guess from its files, bytes. On a Jetson the memory of the
/// GPU is the same.
#[must_use]
pub fn estimate(path: &Path) -> u64 {
    /// Weights in the file's and in the back end's order, activations, workspace.
    const FACTOR: u64 = 4;
    let files = walkdir::WalkDir::new(path).into_iter().filter_map(Result::ok);
    let bytes: u64 =
        files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|meta| meta.len()).sum();
    bytes.saturating_mul(FACTOR)
}
