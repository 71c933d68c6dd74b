//! Every way to run a package that this machine may have, for `model check` and `model bench`: back end, provider and precision,
//! each opened by itself.
//!
//! Engines of TensorRT are the daemon's, where they may be: neither builds what the other has. Its folder is left alone where
//! this process is another user, whose files the daemon could not change, or loads a library that need not be the daemon's.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kinewatch_core::manifest::Manifest;
use kinewatch_engine::{Backend, Candidate, OpenError, OpenOptions, Provider, candidates};

use super::{Failure, ModelRunArgs};
use crate::config::plan::EnginePlan;
use crate::config::{self, DEFAULT_PATH, Environment, Probe, file};
use crate::inference;

/// One way to run a package.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// What it is.
    pub candidate: Candidate,
    /// They open it and nothing else.
    pub options: OpenOptions,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Candidate { backend, provider, precision } = self.candidate;
        match provider {
            Provider::Cpu => write!(f, "{} {}", backend.name(), precision.name()),
            gpu => write!(f, "{} {} {}", backend.name(), gpu.name(), precision.name()),
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Ways {
    /// tract first, then by provider and precision; never empty.
    pub list: Vec<Way>,
    /// Their providers were named, so that each has to be here.
    pub asked: bool,
}

/// Those that the arguments allow.
pub(super) fn of(args: &ModelRunArgs, manifest: &Manifest, digest: &str) -> Result<Ways, Failure> {
    let place = Place::of(args)?;
    let mut plan = EnginePlan::from(&args.engine);
    plan.max_batch = place.max_batch.unwrap_or(plan.max_batch);
    let (options, offered) = inference::comparing_options(&plan, place.engines)?;
    let options = options.of_package(digest);
    let told = |e: OpenError| Failure::say(format!("{}: {e}", args.dir.display()));
    kinewatch_engine::check_requires(manifest, &options).map_err(told)?;
    let mut all = candidates(&manifest.name, manifest.graphs.int8.is_some(), &options).map_err(told)?;
    all.retain(|one| one.backend == Backend::Ort || manifest.requires.is_none());
    if plan.backend != file::Backend::Tract && options.ort_library.is_none() {
        eprintln!(
            "kinewatch: ONNX Runtime was not found: tract alone is looked at; name the library with --ort-library"
        );
    }
    let wanted: Vec<Provider> = args.provider.iter().map(|provider| inference::provider(*provider)).collect();
    let list = choose(all, &wanted, &offered);
    if list.is_empty() {
        let names: Vec<&str> = wanted.iter().map(|provider| provider.name()).collect();
        return Err(Failure::say(format!(
            "{}: nothing is left that runs on {}; --provider goes with --backend, --precision and --require-provider, and a GPU \
             takes ONNX Runtime (--ort-library)",
            args.dir.display(),
            names.join(" or ")
        )));
    }
    if options.cache.is_none() && list.iter().any(|one| one.provider == Provider::TensorRt) {
        eprintln!(
            "kinewatch: engines of TensorRT are built for this command alone; run by the daemon's user (sudo -u kinewatch), or \
             with --state-dir, it keeps them"
        );
    }
    let way = |candidate| Way { candidate, options: OpenOptions { only: Some(candidate), ..options.clone() } };
    let asked = !wanted.is_empty() || plan.require_provider.is_some();
    Ok(Ways { list: list.into_iter().map(way).collect(), asked })
}

/// Calls `run` for each, in order. What else there is of a provider that has turned out not to be here is left out.
pub(super) fn each<T>(
    ways: Vec<Way>,
    mut run: impl FnMut(&Way) -> Result<T, OpenError>,
) -> Vec<(Way, Result<T, OpenError>)> {
    let (mut done, mut gone) = (Vec::new(), Vec::new());
    for way in ways {
        let Candidate { backend, provider, .. } = way.candidate;
        if backend == Backend::Ort && gone.contains(&provider) {
            continue;
        }
        let outcome = run(&way);
        if matches!(outcome, Err(OpenError::Provider { .. })) {
            gone.push(provider);
        }
        done.push((way, outcome));
    }
    done
}

/// Of all ways those on the `wanted` providers; where none is named, those that the library was built for. Where that leaves
/// nothing, all: opening them tells what is missing.
fn choose(mut all: Vec<Candidate>, wanted: &[Provider], offered: &[Provider]) -> Vec<Candidate> {
    let here = |one: &Candidate| one.backend == Backend::Tract || offered.contains(&one.provider);
    if !wanted.is_empty() {
        all.retain(|one| wanted.contains(&one.provider));
    } else if all.iter().any(here) {
        all.retain(here);
    }
    all.sort_by_key(|one| (one.backend == Backend::Ort, one.provider, one.precision));
    all
}

/// Where engines are looked for and kept.
#[derive(Debug, Default)]
struct Place {
    engines: Option<PathBuf>,
    /// Of the daemon: another has other engines.
    max_batch: Option<usize>,
}

impl Place {
    fn of(args: &ModelRunArgs) -> Result<Self, Failure> {
        let daemon = daemon();
        let max_batch = |dir: &Path| daemon.as_ref().filter(|(its, _)| its == dir).map(|(_, rows)| *rows);
        if let Some(dir) = &args.state_dir {
            if dir.exists() && !is_ours(dir) {
                return Err(Failure::say(format!(
                    "{}: is another user's, who could not change the engines that this command would keep there; run it as that \
                     user (sudo -u kinewatch), or leave --state-dir out",
                    dir.display()
                )));
            }
            return Ok(Self { engines: Some(inference::engines(dir)), max_batch: max_batch(dir) });
        }
        let other_library = args.engine.ort_library.is_some()
            || std::env::var_os("ORT_DYLIB_PATH").is_some_and(|name| !name.is_empty());
        Ok(match &daemon {
            // Engines of another library would take the place of the daemon's.
            Some((dir, rows)) if !other_library && is_ours(dir) => {
                Self { engines: Some(inference::engines(dir)), max_batch: Some(*rows) }
            }
            _ => Self::default(),
        })
    }
}

/// State directory and batch of the daemon that this machine has, by its configuration.
fn daemon() -> Option<(PathBuf, usize)> {
    let (path, environment) = (Path::new(DEFAULT_PATH), Environment::of_process());
    let rows = config::check(path, &environment, Probe::FileOnly).file?.engine.max_batch;
    let dir = config::state_dir(path, &environment).ok()?;
    Some((dir, rows.clamp(1, 64) as usize))
}

/// A directory of this process's user, who may write to it.
fn is_ours(dir: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let owner = std::fs::metadata(dir).is_ok_and(|meta| meta.uid() == rustix::process::geteuid().as_raw());
    owner && accessat(CWD, dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use kinewatch_engine::Precision;

    use super::*;

    const GPU: [Provider; 3] = Provider::ALL;

    fn all() -> Vec<Candidate> {
        let options = OpenOptions { ort_library: Some("/x/libonnxruntime.so".into()), ..OpenOptions::default() };
        candidates("m", true, &options).unwrap()
    }

    fn names(wanted: &[Provider], offered: &[Provider]) -> Vec<String> {
        choose(all(), wanted, offered).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_library_was_built_for_is_shown_provider_by_provider() {
        assert_eq!(names(&[], &[Provider::Cpu]), ["tract/cpu/fp32", "ort/cpu/fp32", "ort/cpu/int8"]);
        let with_gpu = [
            "tract/cpu/fp32",
            "ort/tensorrt/fp32",
            "ort/tensorrt/fp16",
            "ort/cuda/fp32",
            "ort/cpu/fp32",
            "ort/cpu/int8",
        ];
        assert_eq!(names(&[], &GPU), with_gpu);
    }

    #[test]
    fn a_provider_that_is_named_is_opened_whatever_the_library_says() {
        assert_eq!(names(&[Provider::Cuda], &GPU), ["ort/cuda/fp32"]);
        assert_eq!(names(&[Provider::Cuda], &[Provider::Cpu]), ["ort/cuda/fp32"], "which tells what is missing");
        assert_eq!(names(&[Provider::Cpu], &GPU), ["tract/cpu/fp32", "ort/cpu/fp32", "ort/cpu/int8"]);
        let tensorrt = Candidate { backend: Backend::Ort, provider: Provider::TensorRt, precision: Precision::Fp16 };
        assert_eq!(choose(vec![tensorrt], &[], &[Provider::Cpu]), [tensorrt], "the only one that fp16 leaves");
    }

    #[test]
    fn a_provider_that_is_not_here_is_tried_once() {
        let way = |candidate| Way { candidate, options: OpenOptions::default() };
        let ways = choose(all(), &[], &GPU).into_iter().map(way).collect();
        let absent = || OpenError::Provider {
            provider: "tensorrt",
            path: "m.onnx".into(),
            detail: "no libnvinfer.so.10".into(),
            otherwise: "choose another provider",
        };
        let tried = each(ways, |way| match way.candidate.provider {
            Provider::TensorRt => Err(absent()),
            _ => Ok(()),
        });
        let told: Vec<_> = tried.iter().map(|(way, outcome)| format!("{way} {}", outcome.is_ok())).collect();
        let expected =
            ["tract fp32 true", "ort tensorrt fp32 false", "ort cuda fp32 true", "ort fp32 true", "ort int8 true"];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_folder_is_ours_where_we_own_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_ours(dir.path()));
        assert!(!is_ours(&dir.path().join("none")));
    }
}
