//! Opening a package: load, check against the manifest, warm up, golden clips. Tries the candidates in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kinewatch_core::manifest::{Graph, Manifest, Plan as ManifestPlan, RequiredBackend};

use crate::backend::ort::{OrtSession, OrtSetup};
use crate::backend::tract::{TractSession, computed_nodes};
use crate::backend::{LoadFailure, Session};
use crate::cache::{self, Broken, Place};
use crate::contract::{self, GraphSpec};
use crate::error::{BackendError, InferError, OpenError};
use crate::golden;
use crate::guard::guarded;
use crate::library::{LibraryInfo, load};
use crate::model::Model;
use crate::options::{
    Backend, BackendChoice, Build, Candidate, OpenOptions, Precision, PrecisionChoice, Provider, candidates,
};
use crate::plan::cached::{CachedPlan, Names};
use crate::plan::clip::ClipPlan;
use crate::plan::online::OnlinePlan;
use crate::plan::{Padding, Plan, Runner};
use crate::report::{Misplaced, OpenReport, nodes_by_provider, placement, provider_in_use};

/// What to make of golden clips that do not match.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDeviation {
    Refuse,
    Report,
}

/// Opens the best candidate that passes.
pub(crate) fn open(
    dir: &Path,
    manifest: &Manifest,
    options: &OpenOptions,
    on_deviation: OnDeviation,
) -> Result<Model, OpenError> {
    open_telling(dir, manifest, options, on_deviation, &mut Vec::new())
}

/// [`open`]; what was tried before the last one, and why it would not do, goes to `passed`.
pub(crate) fn open_telling(
    dir: &Path,
    manifest: &Manifest,
    options: &OpenOptions,
    on_deviation: OnDeviation,
    passed: &mut Vec<OpenError>,
) -> Result<Model, OpenError> {
    check_requires(manifest, options)?;
    check_labels(dir, manifest)?;
    let mut refused = Vec::new();
    let mut unavailable: Option<Provider> = None;
    let mut last: Option<(Candidate, OpenError)> = None;
    let list = candidates(&manifest.name, manifest.graphs.int8.is_some(), options)?;
    let (put_off, mut postponed) = (options.put_off(&list), None);
    for candidate in list {
        if candidate.backend == Backend::Tract && manifest.requires.is_some() {
            continue;
        }
        if candidate.backend == Backend::Ort && unavailable == Some(candidate.provider) {
            continue;
        }
        let on_ort = candidate.backend == Backend::Ort;
        let kept = options.cache.as_ref().filter(|_| on_ort && candidate.provider == Provider::TensorRt);
        let place = kept.and_then(|cache| cache.place(candidate.precision, options.max_batch));
        let later = on_ort && put_off == Some(candidate.provider);
        let holds = || place.as_ref().is_some_and(cache::holds);
        if later && !holds() {
            if postponed.replace(candidate.provider).is_none() {
                refused.push(format!("{candidate}: its engine is not built yet"));
            }
            continue;
        }
        if let Some((candidate, error)) = last.take() {
            passed_over(manifest, candidate, &error);
            refused.push(format!("{candidate}: {error}"));
            passed.push(error);
        }
        let broken = if later || options.build == Build::Before { Broken::Leave } else { Broken::Rebuild };
        let run = |place: Option<&Place>| Opening { dir, manifest, options, candidate, place }.run(on_deviation);
        let outcome = cache::through(place.as_ref(), broken, run);
        match outcome {
            Ok(mut model) => {
                model.report.why = why(candidate, options, &refused);
                model.report.refused = refused;
                // Where one of its ways is kept and runs, nothing is left to be built.
                model.report.postponed =
                    postponed.filter(|put_off| candidate.backend == Backend::Tract || *put_off != candidate.provider);
                return Ok(model);
            }
            Err(error) => {
                if matches!(error, OpenError::Provider { .. } | OpenError::OtherProvider { .. }) {
                    unavailable = Some(candidate.provider);
                }
                if later && !holds() {
                    // It has been emptied: the engine can be built.
                    postponed.get_or_insert(candidate.provider);
                }
                last = Some((candidate, error));
            }
        }
    }
    Err(match (last, postponed) {
        (Some((_, error)), _) => error,
        (None, Some(provider)) => OpenError::NotBuilt { model: manifest.name.clone(), provider: provider.name() },
        (None, None) => OpenError::Options("no back end is left to try".to_owned()),
    })
}

/// The last failure is the caller's; those before it are told here.
fn passed_over(manifest: &Manifest, candidate: Candidate, error: &OpenError) {
    if matches!(error, OpenError::Provider { .. }) {
        tracing::info!(model = manifest.name, %candidate, %error, "not used");
    } else {
        tracing::warn!(model = manifest.name, %candidate, %error, "not used");
    }
}

/// Whether the options leave the back end that the package cannot be run without. Opens nothing.
///
/// # Errors
/// They do not; the message quotes the package's reason.
pub fn check_requires(manifest: &Manifest, options: &OpenOptions) -> Result<(), OpenError> {
    let Some(requires) = &manifest.requires else { return Ok(()) };
    let RequiredBackend::Ort = requires.backend;
    let missing = match options.backend {
        BackendChoice::Tract => "backend is \"tract\"",
        BackendChoice::Auto | BackendChoice::Ort if options.ort_library.is_none() => "no usable library was found",
        BackendChoice::Auto | BackendChoice::Ort => return Ok(()),
    };
    Err(OpenError::NeedsOrt { because: requires.because.clone(), missing: missing.to_owned() })
}

fn why(candidate: Candidate, options: &OpenOptions, refused: &[String]) -> String {
    if options.only.is_some() || options.backend != BackendChoice::Auto {
        return "as configured".to_owned();
    }
    let library = if options.ort_library.is_some() { "an ONNX Runtime library" } else { "no ONNX Runtime library" };
    let precision = match (candidate.backend, candidate.provider, candidate.precision) {
        _ if options.precision != PrecisionChoice::Auto => format!("; {} as configured", candidate.precision.name()),
        (Backend::Tract, ..) => "; tract is fastest with the fp32 file".to_owned(),
        (Backend::Ort, Provider::Cpu, Precision::Int8) => "; its CPU provider is fastest with the int8 file".to_owned(),
        _ => String::new(),
    };
    match (candidate.backend, refused.last()) {
        (Backend::Tract, Some(reason)) if options.ort_library.is_some() => {
            format!("ONNX Runtime was refused ({reason})")
        }
        (Backend::Tract, None) if options.ort_library.is_some() => "a tract run was asked for".to_owned(),
        _ => format!("{library} was found{precision}"),
    }
}

fn check_labels(dir: &Path, manifest: &Manifest) -> Result<(), OpenError> {
    let path = dir.join("labels.txt");
    let text = std::fs::read_to_string(&path).map_err(|source| OpenError::Read { path: path.clone(), source })?;
    manifest.check_labels_txt(&text).map_err(|error| OpenError::Labels { path, mismatch: error.to_string() })
}

/// One candidate being tried.
struct Opening<'a> {
    dir: &'a Path,
    manifest: &'a Manifest,
    options: &'a OpenOptions,
    candidate: Candidate,
    /// Where TensorRT keeps what it builds.
    place: Option<&'a Place>,
}

/// What is learnt on the way.
#[derive(Default)]
struct Learnt {
    nodes: BTreeMap<Provider, usize>,
    files: Vec<PathBuf>,
    library: Option<LibraryInfo>,
    one_row: bool,
}

impl Opening<'_> {
    fn run(&self, on_deviation: OnDeviation) -> Result<Model, OpenError> {
        let start = Instant::now();
        let mut learnt = Learnt::default();
        let plan = self.plan(&mut learnt)?;
        let OpenOptions { require_provider, provider_order, .. } = self.options;
        let provider = provider_in_use(self.candidate.provider, *require_provider, provider_order, &learnt.nodes)
            .map_err(|misplaced| self.misplaced(misplaced, &learnt))?;
        let load_ms = milliseconds(start);
        let report = OpenReport {
            model: self.manifest.name.clone(),
            backend: self.candidate.backend,
            provider,
            nodes: learnt.nodes,
            precision: self.candidate.precision,
            files: learnt.files,
            library: learnt.library,
            batch: if learnt.one_row { 1 } else { self.batch() },
            why: String::new(),
            refused: Vec::new(),
            postponed: None,
            golden: Vec::new(),
            load_ms,
            golden_ms: 0.0,
        };
        let mut model = Model::new(self.manifest, plan, report);
        self.golden(&mut model, on_deviation)?;
        Ok(model)
    }

    fn golden(&self, model: &mut Model, on_deviation: OnDeviation) -> Result<(), OpenError> {
        let start = Instant::now();
        let tolerance = match self.candidate.precision {
            Precision::Fp32 => self.manifest.golden.tolerance_fp32,
            Precision::Fp16 | Precision::Int8 => self.manifest.golden.tolerance_int8,
        };
        let clips = golden::read(self.dir, self.manifest)?;
        let (results, deviation) = golden::run(model, &clips, tolerance).map_err(|error| self.not_run(model, error))?;
        model.report.golden = results;
        model.report.golden_ms = milliseconds(start);
        model.forget_counts();
        match deviation {
            Some(found) if on_deviation == OnDeviation::Refuse => Err(OpenError::Golden {
                path: found.path,
                backend: self.candidate.backend.name(),
                precision: self.candidate.precision.name(),
                row: found.row,
                label: self.manifest.labels[found.label].name.clone(),
                expected: found.expected,
                found: found.found,
                difference: (found.expected - found.found).abs(),
                tolerance: found.tolerance,
            }),
            _ => Ok(()),
        }
    }

    fn not_run(&self, model: &Model, error: InferError) -> OpenError {
        let (path, backend) = (model_file(&model.report.files), self.candidate.backend.name());
        match error {
            InferError::NotFinite { tensor, .. } => OpenError::NotFinite { path, backend, tensor },
            other => OpenError::WarmUp { path, backend, detail: other.to_string() },
        }
    }

    fn plan(&self, learnt: &mut Learnt) -> Result<Box<dyn Plan>, OpenError> {
        let graph = self.graph();
        let spec = contract::main_graph(self.manifest);
        let runner = self.runner(&graph.model, &spec, learnt)?;
        let tensors = &self.manifest.tensors;
        Ok(match self.manifest.plan {
            ManifestPlan::Clip => {
                let boxes = tensors.boxes.as_ref().map(|boxes| boxes.count);
                Box::new(ClipPlan::new(runner, &tensors.logits, boxes))
            }
            ManifestPlan::Online => {
                let sizes: Vec<usize> = tensors.states.iter().map(|state| state.shape.iter().product()).collect();
                let names = spec.outputs.into_iter().map(|output| output.name).collect();
                Box::new(OnlinePlan::new(runner, sizes, names))
            }
            ManifestPlan::Cached => {
                let feature = runner.single().output_shape(0).to_vec();
                let file = graph.head.as_deref().unwrap_or_default();
                let head = self.runner(file, &contract::head_graph(self.manifest, &feature), learnt)?;
                let names =
                    Names { feature: tensors.feature.clone().unwrap_or_default(), logits: tensors.logits.clone() };
                let frames = self.manifest.frames_per_window();
                Box::new(CachedPlan::new(runner, head, names, frames, cache_frames(self.manifest)))
            }
        })
    }

    fn graph(&self) -> &Graph {
        match (self.candidate.precision, &self.manifest.graphs.int8) {
            (Precision::Int8, Some(graph)) => graph,
            _ => &self.manifest.graphs.fp32,
        }
    }

    /// Rows of the larger plan; tract is slower a row with more of them.
    fn batch(&self) -> usize {
        match self.candidate.backend {
            Backend::Tract => 1,
            Backend::Ort => self.options.max_batch.max(1),
        }
    }

    fn runner(&self, file: &str, spec: &GraphSpec, learnt: &mut Learnt) -> Result<Runner, OpenError> {
        let path = self.dir.join(file);
        // Opening it here tells "cannot be read" from "is not a model".
        std::fs::File::open(&path).map_err(|source| OpenError::Read { path: path.clone(), source })?;
        learnt.files.push(path.clone());
        let single = self.session(&path, spec, 1, learnt)?;
        let batch = match self.batch() {
            1 => None,
            rows => match self.session(&path, spec, rows, learnt) {
                // It fits with one row, so its axis 0 is fixed at 1: run it row by row.
                Err(OpenError::Contract { .. }) => {
                    learnt.one_row = true;
                    None
                }
                session => Some(session?),
            },
        };
        let padding = if self.candidate.provider == Provider::Cpu { Padding::Never } else { Padding::Always };
        Ok(Runner::new(single, batch, padding))
    }

    fn session(
        &self,
        path: &Path,
        spec: &GraphSpec,
        rows: usize,
        learnt: &mut Learnt,
    ) -> Result<Box<dyn Session>, OpenError> {
        match self.candidate.backend {
            Backend::Tract => {
                let session = self.sheltered(path, || TractSession::open(path, spec))?;
                Ok(Box::new(session))
            }
            Backend::Ort => {
                let library = self.options.ort_library.as_deref().ok_or_else(no_library)?;
                let (environment, version) = load::environment(library)?;
                learnt.library = Some(LibraryInfo { path: library.into(), version, providers: Vec::new() });
                let setup = OrtSetup {
                    environment: &environment,
                    model: &self.manifest.name,
                    provider: self.candidate.provider,
                    allowed: &self.options.provider_order,
                    precision: self.candidate.precision,
                    required: self.options.require_provider.is_some(),
                    threads: self.options.threads,
                    batch: rows,
                    place: self.place,
                };
                let (session, nodes) = self.sheltered(path, || OrtSession::open(path, spec, &setup))?;
                if rows == 1 {
                    let engine = nodes.contains_key(Provider::TensorRt.runtime_name());
                    let graph = engine.then(|| computed_nodes(path)).flatten();
                    for (provider, count) in nodes_by_provider(&nodes, graph) {
                        *learnt.nodes.entry(provider).or_insert(0) += count;
                    }
                }
                Ok(Box::new(session))
            }
        }
    }

    /// Runs `open`, a panic included, and gives its failure a file name.
    fn sheltered<T>(&self, path: &Path, open: impl FnOnce() -> Result<T, LoadFailure>) -> Result<T, OpenError> {
        let backend = self.candidate.backend.name();
        let path = path.to_path_buf();
        let failure = match guarded(|| Ok(open())) {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(failure)) => failure,
            Err(panic) => LoadFailure::Load(panic),
        };
        Err(match failure {
            LoadFailure::Load(BackendError { detail }) => OpenError::Load { path, backend, detail },
            LoadFailure::WarmUp(BackendError { detail }) => OpenError::WarmUp { path, backend, detail },
            LoadFailure::Operators(operators) => OpenError::Operators { path, backend, operators },
            LoadFailure::Contract(mismatch) => OpenError::Contract { path, mismatch },
            LoadFailure::Provider(BackendError { detail }) => self.provider_error(&[path], detail),
        })
    }

    fn misplaced(&self, misplaced: Misplaced, learnt: &Learnt) -> OpenError {
        let nodes = placement(&learnt.nodes);
        match misplaced {
            Misplaced::Absent => {
                let detail = format!("ONNX Runtime registers it, but it computes no node of the graph ({nodes})");
                self.provider_error(&learnt.files, detail)
            }
            Misplaced::Unlisted(computes) => {
                let computes = computes.name();
                let detail = format!("{computes} computes most of the graph ({nodes}), and is not among the providers");
                self.provider_error(&learnt.files, detail)
            }
            Misplaced::Other(computes) => OpenError::OtherProvider {
                path: model_file(&learnt.files),
                required: self.options.require_provider.unwrap_or(self.candidate.provider).name(),
                computes: computes.name(),
                nodes,
            },
        }
    }

    fn provider_error(&self, files: &[PathBuf], detail: String) -> OpenError {
        let half = self.options.precision == PrecisionChoice::Fp16;
        let otherwise = match self.options.require_provider {
            Some(_) if half => "remove require_provider and set precision to \"auto\": nothing else computes fp16",
            None if half => "set precision to \"auto\" or \"fp32\": nothing else computes fp16",
            Some(_) => "remove require_provider, which permits no other",
            None => "choose another provider",
        };
        OpenError::Provider { provider: self.candidate.provider.name(), path: model_file(files), detail, otherwise }
    }
}

fn no_library() -> OpenError {
    let detail = "none was given".to_owned();
    OpenError::Library(crate::error::ProbeError::NoneFound { detail })
}

fn model_file(files: &[PathBuf]) -> PathBuf {
    files.first().cloned().unwrap_or_default()
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Frames whose features later windows may still want: every frame sampled within a window's span.
fn cache_frames(manifest: &Manifest) -> usize {
    let sampling = &manifest.sampling;
    let span = usize::try_from(sampling.window / sampling.frame_interval().max(1)).unwrap_or(0);
    manifest.frames_per_window().max(span + sampling.snippet + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_that_of_the_provider_and_the_choice() {
        let library = || OpenOptions { ort_library: Some("/x/libonnxruntime.so".into()), ..OpenOptions::default() };
        let way = |provider, precision| Candidate { backend: Backend::Ort, provider, precision };
        let told = |way, options: &OpenOptions| why(way, options, &[]);
        assert_eq!(
            told(way(Provider::Cpu, Precision::Int8), &library()),
            "an ONNX Runtime library was found; its CPU provider is fastest with the int8 file"
        );
        let half = way(Provider::TensorRt, Precision::Fp16);
        assert_eq!(told(half, &library()), "an ONNX Runtime library was found");
        let int8 = OpenOptions { precision: PrecisionChoice::Int8, ..library() };
        let configured = "an ONNX Runtime library was found; int8 as configured";
        for provider in Provider::ALL {
            assert_eq!(told(way(provider, Precision::Int8), &int8), configured);
        }
        assert_eq!(told(half, &OpenOptions { backend: BackendChoice::Ort, ..library() }), "as configured");
        assert_eq!(told(half, &OpenOptions { only: Some(half), ..library() }), "as configured");

        let tract = |precision| Candidate { backend: Backend::Tract, provider: Provider::Cpu, precision };
        assert_eq!(
            told(tract(Precision::Fp32), &OpenOptions::default()),
            "no ONNX Runtime library was found; tract is fastest with the fp32 file"
        );
        let int8 = OpenOptions { precision: PrecisionChoice::Int8, ..OpenOptions::default() };
        assert_eq!(told(tract(Precision::Int8), &int8), "no ONNX Runtime library was found; int8 as configured");
        let refused = ["ort/cpu/fp32: no memory".to_owned()];
        assert_eq!(
            why(tract(Precision::Fp32), &library(), &refused),
            "ONNX Runtime was refused (ort/cpu/fp32: no memory)"
        );
    }
}
