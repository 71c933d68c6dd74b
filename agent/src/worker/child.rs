//! The child: opens one model, measures it, says how it went. It may be killed by what it opens; that is what it is for.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kinewatch_core::manifest::Manifest;
use kinewatch_core::rollout::{Code, Fault};
use kinewatch_engine::{Model, OpenError, OpenReport, Provider, is_of_memory};
use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::limits::own_peak;
use super::protocol::{Job, MAX_LINE, Message, Proof, Step};
use crate::board::{Memory, is_jetson};
use crate::inference;
use crate::root::Root;

/// Reads a [`Job`] from `input`, tries the model out, and writes [`Message`]s. Ends the process when `input` ends before:
/// then the parent is gone, or wants no answer any more.
///
/// # Errors
/// There is no job, or nobody reads the answer.
pub fn run(input: impl Read + Send + 'static, mut output: impl Write) -> io::Result<()> {
    outlast_stop_signals()?;
    let mut input = BufReader::new(input);
    let mut line = String::new();
    input.by_ref().take(MAX_LINE).read_line(&mut line)?;
    let job: Job = serde_json::from_str(&line).map_err(io::Error::other)?;
    thread::Builder::new().name("lifeline".into()).spawn(move || {
        let _end = io::copy(&mut input, &mut io::sink());
        // Threads of a library may hang, so nothing less will do; it cannot fail for one's own process.
        let _ = kill_process(getpid(), Signal::KILL);
    })?;
    let verdict = match attempt(&job, &mut output) {
        Ok(proof) => Message::Done(proof),
        Err(Ended::Fault(fault)) => Message::Failed(fault),
        Err(Ended::Output(error)) => return Err(error),
    };
    say(&mut output, &verdict)
}

/// Who stops a service signals all of its processes at once. This one ends with its lifeline: were it the first to die, the
/// parent might take that for the model's fault.
fn outlast_stop_signals() -> io::Result<()> {
    // What is set is read by nobody. A handler, unlike a signal that is ignored, is not handed on to what this process starts.
    [SIGHUP, SIGINT, SIGTERM].into_iter().try_for_each(|signal| flag::register(signal, Arc::default()).map(drop))
}

enum Ended {
    Fault(Fault),
    Output(io::Error),
}

fn attempt(job: &Job, output: &mut impl Write) -> Result<Proof, Ended> {
    let fault = |code: Code, detail: String| Ended::Fault(Fault::new(code, detail));
    say(output, &Message::Step(Step::Open)).map_err(Ended::Output)?;
    let package = kinewatch_ota::open_verified(&job.package)
        .map_err(|e| fault(Code::PackageInvalid, inside(&job.package, &e.to_string())))?;
    let before = Memory::read(&Root::machine());
    let options = inference::open_options(&job.engine, job.cache_dir.clone())
        .map_err(|e| fault(Code::WorkerUnavailable, e.to_string()))?;
    let options = options.of_package(&package.digest);
    let (dir, manifest) = (&package.dir, &package.manifest);
    let mut model = Model::open_or_all(dir, manifest, &options).map_err(|errors| Ended::Fault(told(dir, &errors)))?;
    say(output, &Message::Step(Step::Bench)).map_err(Ended::Output)?;
    let mut proof = measured(job, dir, manifest, &mut model).map_err(|error| Ended::Fault(told(dir, &[error])))?;
    if is_jetson(&Root::machine()) && is_on_gpu(model.report()) {
        proof.peak_memory_mb = proof.peak_memory_mb.max(taken(&before, &Memory::read(&Root::machine())) >> 20);
    }
    Ok(proof)
}

/// Whether a part of the graph is, though the processor may have most of it.
fn is_on_gpu(report: &OpenReport) -> bool {
    report.provider != Provider::Cpu || report.nodes.keys().any(|provider| *provider != Provider::Cpu)
}

/// Memory that has gone while the model is open. What a Jetson's GPU takes is in no figure of the process, so this is the
/// nearest there is; what others took meanwhile is in it.
fn taken(before: &Memory, now: &Memory) -> u64 {
    before.available.zip(now.available).map_or(0, |(before, now)| before.saturating_sub(now))
}

fn measured(job: &Job, dir: &Path, manifest: &Manifest, model: &mut Model) -> Result<Proof, OpenError> {
    let at_most = Duration::try_from_secs_f64(job.measure_s).unwrap_or(Duration::ZERO);
    let result = kinewatch_engine::measure(model, dir, manifest, job.windows as usize, at_most)?;
    let report = model.report();
    // The daemon goes on beside this process, which is last in line: where the processor computes, what it was kept waiting
    // for says nothing about the model. With several threads their time adds up, and the clock is the smaller one.
    let (wall, cpu) = (result.wall, result.cpu);
    let alone = |wall: f64, cpu: f64| if is_on_gpu(report) { wall } else { wall.min(cpu) };
    Ok(Proof {
        backend: report.backend.name().into(),
        provider: report.provider.name().into(),
        precision: report.precision.name().into(),
        nodes: report.named_nodes(),
        why: report.why.clone(),
        refused: report.refused.clone(),
        golden_max_diff: report.golden_max_diff(),
        golden_tolerance: report.golden.first().map_or(0.0, |golden| golden.tolerance),
        open_ms: report.load_ms + report.golden_ms,
        windows: result.runs as u64,
        p50_ms: alone(wall.median, cpu.median),
        p99_ms: alone(wall.p99, cpu.p99),
        stride_ms: manifest.sampling.stride as f64 / 1e6,
        peak_memory_mb: own_peak().div_ceil(1 << 20),
    })
}

fn say(output: &mut impl Write, message: &Message) -> io::Result<()> {
    let mut line = serde_json::to_string(message).map_err(io::Error::other)?;
    line.push('\n');
    output.write_all(line.as_bytes())?;
    output.flush()
}

/// The first candidate that could have run the model says best what is wrong with it.
fn told(dir: &Path, errors: &[OpenError]) -> Fault {
    let unavailable = |e: &&OpenError| matches!(e, OpenError::Provider { .. } | OpenError::Library(_));
    let error = errors.iter().find(|e| !unavailable(e)).or(errors.last());
    match error {
        Some(error) => Fault::new(code(error), inside(dir, &error.to_string())),
        None => Fault::new(Code::WorkerFailed, "no back end is left to try"),
    }
}

fn code(error: &OpenError) -> Code {
    match error {
        OpenError::NotFinite { .. } => Code::NotFinite,
        OpenError::Golden { .. } => Code::GoldenMismatch,
        OpenError::Labels { .. } | OpenError::GoldenFile { .. } | OpenError::Contract { .. } => Code::PackageInvalid,
        OpenError::NoGraph { .. } | OpenError::Options(_) => Code::PackageInvalid,
        OpenError::Read { .. } => Code::DiskError,
        OpenError::Library(_) => Code::WorkerUnavailable,
        // A GPU that has no memory left refuses to be a provider at all.
        OpenError::Load { detail, .. } | OpenError::WarmUp { detail, .. } | OpenError::Provider { detail, .. }
            if is_of_memory(detail) =>
        {
            memory(detail)
        }
        _ => Code::WorkerFailed,
    }
}

/// The limit of this process is one for the memory of the machine alone: a GPU has no more to give than others leave.
fn memory(detail: &str) -> Code {
    let detail = detail.to_ascii_lowercase();
    let is_of_gpu = ["cuda", "cublas", "cudnn"].iter().any(|library| detail.contains(library));
    if is_of_gpu { Code::NoMemory } else { Code::WorkerMemory }
}

/// Without the folder, which is no part of the release.
fn inside(dir: &Path, message: &str) -> String {
    message.replace(&format!("{}/", dir.display()), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_candidate_that_could_run_it_says_what_is_wrong() {
        let provider =
            OpenError::Provider { provider: "cuda", path: "m.onnx".into(), detail: "no driver".into(), otherwise: "" };
        let nan = OpenError::NotFinite { path: "/p/m.onnx".into(), backend: "ort", tensor: "logits".into() };
        let operators = OpenError::Operators { path: "m.onnx".into(), backend: "tract", operators: "Loop".into() };
        let fault = told(Path::new("/p"), &[provider, nan, operators]);
        assert_eq!(fault.code, Code::NotFinite);
        assert!(fault.detail.starts_with("m.onnx: "), "{fault}");
        let load = |detail: &str| OpenError::Load { path: "m".into(), backend: "ort", detail: detail.into() };
        assert_eq!(code(&load("std::bad_alloc")), Code::WorkerMemory);
        assert_eq!(
            code(&load("Failed to allocate memory for requested buffer of size 40000000000")),
            Code::WorkerMemory
        );
        let full = "CUDA failure 2: out of memory ; GPU=0";
        let refuses =
            OpenError::Provider { provider: "cuda", path: "m.onnx".into(), detail: full.into(), otherwise: "" };
        assert_eq!([code(&load(full)), code(&refuses)], [Code::NoMemory; 2]);
        assert_eq!(code(&load("no protobuf")), Code::WorkerFailed);
        assert_eq!(told(Path::new("/p"), &[]).code, Code::WorkerFailed);
    }
}
