//! From `[engine]`, or the same options of a command, to what the engine takes: finds ONNX Runtime and says so.
//!
//! Blocks for up to ten seconds for each candidate library, which a child process loads first.

use std::path::{Path, PathBuf};

use kinewatch_engine::{
    BackendChoice, Build, EngineCache, LibraryInfo, LibrarySearch, OpenOptions, PrecisionChoice, ProbeCommand,
    Provider, find_library, link_in_child,
};

use crate::board::gpu;
use crate::cli::EngineArgs;
use crate::config::file;
use crate::config::plan::EnginePlan;
use crate::progress;
use crate::root::Root;

/// A library that was asked for cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "backend \"ort\": {reason}; install ONNX Runtime, name it with ort_library, or use backend \"auto\" or \"tract\""
)]
pub struct NoLibrary {
    /// What was found, and why it will not do.
    pub reason: String,
}

impl From<&EngineArgs> for EnginePlan {
    fn from(args: &EngineArgs) -> Self {
        let defaults = file::Engine::default();
        Self {
            backend: args.backend,
            precision: args.precision,
            ort_library: args.ort_library.clone(),
            providers: defaults.providers,
            require_provider: args.require_provider,
            threads: args.threads as usize,
            max_batch: defaults.max_batch as usize,
        }
    }
}

/// What the engine is opened with. `engines`: where TensorRT keeps its engines.
///
/// # Errors
/// When ONNX Runtime, or a library for it, was asked for by name and cannot be used.
pub fn open_options(engine: &EnginePlan, engines: Option<PathBuf>) -> Result<OpenOptions, NoLibrary> {
    found(engine).map(|search| with_library(engine, engines, search.found))
}

/// The same for the daemon: an engine that has to be built first is put off, where another provider serves meanwhile.
///
/// # Errors
/// As [`open_options`].
pub fn serving_options(engine: &EnginePlan, engines: PathBuf) -> Result<OpenOptions, NoLibrary> {
    let search = found(engine)?;
    let builds = search.found.as_ref().is_some_and(|info| builds_engines(engine, info));
    let build = if builds { Build::Later(Provider::TensorRt) } else { Build::Now };
    Ok(OpenOptions { build, ..with_library(engine, Some(engines), search.found) })
}

/// The same for who looks at what the daemon would do: builds nothing, as the daemon may be about it.
///
/// # Errors
/// As [`open_options`].
pub fn looking_options(engine: &EnginePlan, engines: PathBuf) -> Result<OpenOptions, NoLibrary> {
    let options = serving_options(engine, engines)?;
    let build = if options.build == Build::Now { Build::Now } else { Build::Never(Provider::TensorRt) };
    Ok(OpenOptions { build, ..options })
}

/// The same for who compares ways, with the providers that the library was built with; none without a library.
///
/// # Errors
/// As [`open_options`].
pub fn comparing_options(
    engine: &EnginePlan,
    engines: Option<PathBuf>,
) -> Result<(OpenOptions, Vec<Provider>), NoLibrary> {
    let search = found(engine)?;
    let offered = search.found.as_ref().map(|info| info.providers.clone()).unwrap_or_default();
    Ok((with_library(engine, engines, search.found), offered))
}

/// Whether there may be engines to build. A library that knows of TensorRT is no sign that it is installed: without it every
/// start would begin a build that fails.
fn builds_engines(engine: &EnginePlan, library: &LibraryInfo) -> bool {
    let wanted = engine.providers.contains(&file::Provider::Tensorrt);
    if !wanted || !library.providers.contains(&Provider::TensorRt) {
        return false;
    }
    let beside = |name: &str| library.path.with_file_name(name);
    let shared = beside("libonnxruntime_providers_shared.so").display().to_string();
    let command = child(["engine-probe", "--link", "--before", &shared]);
    match link_in_child(&command, &beside("libonnxruntime_providers_tensorrt.so")) {
        Ok(()) => true,
        Err(error) => {
            tracing::info!(%error, "TensorRT is not used");
            false
        }
    }
}

/// This binary with a hidden command.
fn child<const N: usize>(args: [&str; N]) -> ProbeCommand {
    let program = std::env::current_exe().unwrap_or_else(|_| "kinewatch".into());
    ProbeCommand { program, args: args.map(str::to_owned).to_vec() }
}

fn found(engine: &EnginePlan) -> Result<LibrarySearch, NoLibrary> {
    let search = progress::spin("looking for ONNX Runtime", || search(engine));
    let asked = engine.backend == file::Backend::Ort || engine.ort_library.is_some();
    if asked && engine.backend != file::Backend::Tract && search.found.is_none() {
        return Err(NoLibrary { reason: search.summary() });
    }
    if engine.backend != file::Backend::Tract {
        tracing::info!("{}", search.summary());
    }
    Ok(search)
}

fn with_library(engine: &EnginePlan, engines: Option<PathBuf>, library: Option<LibraryInfo>) -> OpenOptions {
    OpenOptions {
        backend: match engine.backend {
            file::Backend::Auto => BackendChoice::Auto,
            file::Backend::Tract => BackendChoice::Tract,
            file::Backend::Ort => BackendChoice::Ort,
        },
        precision: match engine.precision {
            file::Precision::Auto => PrecisionChoice::Auto,
            file::Precision::Fp32 => PrecisionChoice::Fp32,
            file::Precision::Fp16 => PrecisionChoice::Fp16,
            file::Precision::Int8 => PrecisionChoice::Int8,
        },
        cache: engines.zip(library.as_ref()).map(|(root, info)| cache(root, info)),
        build: Build::Now,
        ort_library: library.map(|info| info.path),
        provider_order: engine.providers.iter().copied().map(provider).collect(),
        require_provider: engine.require_provider.map(provider),
        only: None,
        threads: engine.threads,
        max_batch: engine.max_batch,
    }
}

/// Engines fit what built them alone.
fn cache(root: PathBuf, library: &LibraryInfo) -> EngineCache {
    let platform = gpu::platform(&Root::machine(), &library.version);
    EngineCache { root, platform, package: String::new() }
}

/// Where engines of a state directory are kept.
#[must_use]
pub fn engines(state_dir: &Path) -> PathBuf {
    state_dir.join("engines")
}

/// Removes engines of packages that are none of these. Where models come over the air the depot does it, which knows more.
pub fn sweep(engines: &Path, digests: impl Iterator<Item = String>) {
    match kinewatch_ota::depot::sweep_engines(engines, &digests.collect()) {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed engines of models that are gone"),
        Err(error) => tracing::warn!(%error, "engines of models that are gone stay on the disk"),
    }
}

/// Looks for ONNX Runtime as the configuration asks for it; for nothing where tract is asked for.
#[must_use]
pub fn search(engine: &EnginePlan) -> LibrarySearch {
    if engine.backend == file::Backend::Tract {
        return LibrarySearch::default();
    }
    let command = child(["engine-probe"]);
    // A relative path is the user's, relative to where the command runs.
    let library = engine.ort_library.as_ref().map(|l| std::path::absolute(l).unwrap_or_else(|_| l.clone()));
    find_library(library.as_deref(), &command)
}

/// The engine's word for a provider of the configuration.
#[must_use]
pub fn provider(provider: file::Provider) -> Provider {
    match provider {
        file::Provider::Tensorrt => Provider::TensorRt,
        file::Provider::Cuda => Provider::Cuda,
        file::Provider::Cpu => Provider::Cpu,
    }
}
