//! Loads a library in a child process first: a truncated or foreign library ends that process, not the daemon.
//!
//! The agent's hidden command `engine-probe LIB` calls [`probe_library`] and prints [`LibraryInfo::to_line`], or the error
//! to stderr with a non-zero exit status.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ort::ep::{CUDA, ExecutionProvider, TensorRT};

use crate::error::{BackendError, LinkError, ProbeError, one_line};
use crate::guard::guarded;
use crate::library::{elf, load};
use crate::options::Provider;

/// How long a library may take to load.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// How often the child is looked at.
const TICK: Duration = Duration::from_millis(5);

/// A usable library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryInfo {
    /// Absolute.
    pub path: PathBuf,
    /// Such as `1.32.0`.
    pub version: String,
    /// Providers that it was built with, best first; empty where nobody asked.
    pub providers: Vec<Provider>,
}

impl LibraryInfo {
    /// What the child prints: one line of JSON.
    #[must_use]
    pub fn to_line(&self) -> String {
        let providers: Vec<&str> = self.providers.iter().map(|provider| provider.name()).collect();
        serde_json::json!({ "path": self.path.display().to_string(), "version": self.version, "providers": providers })
            .to_string()
    }

    fn from_line(path: &Path, line: &str) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        let named = |provider: &Provider| {
            let names = value.get("providers").and_then(serde_json::Value::as_array);
            names.is_some_and(|names| names.iter().any(|name| name.as_str() == Some(provider.name())))
        };
        Some(Self {
            path: path.into(),
            version: value.get("version")?.as_str()?.to_owned(),
            providers: Provider::ALL.into_iter().filter(named).collect(),
        })
    }
}

/// How the child is started: `program args… LIB`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeCommand {
    /// Usually the agent itself.
    pub program: PathBuf,
    /// Usually `engine-probe`.
    pub args: Vec<String>,
}

/// Loads the library into this process, starts ONNX Runtime, and says which version it is. Only for the child process:
/// a damaged library may end it.
///
/// # Errors
/// When the library cannot be used.
pub fn probe_library(path: &Path) -> Result<LibraryInfo, ProbeError> {
    let (_, version) = load::environment(path)?;
    Ok(LibraryInfo { path: path.into(), version, providers: built_in(path)? })
}

/// Asks the library, which is loaded, for the providers that it was built with; whether they work shows on a model.
fn built_in(path: &Path) -> Result<Vec<Provider>, ProbeError> {
    let ask = |provider: &Provider| match provider {
        Provider::TensorRt => TensorRT::is_available(),
        Provider::Cuda => CUDA::is_available(),
        Provider::Cpu => Ok(true),
    };
    let mut found = Vec::new();
    for provider in Provider::ALL {
        let has = guarded(|| ask(&provider).map_err(BackendError::new));
        if has.map_err(|error| ProbeError::Load { path: path.into(), detail: error.detail })? {
            found.push(provider);
        }
    }
    Ok(found)
}

/// Runs [`probe_library`] in a child process. Blocks for at most 10 seconds.
///
/// # Errors
/// When the library cannot be used: signals, time-outs and foreign architectures included.
pub fn probe_in_child(command: &ProbeCommand, library: &Path) -> Result<LibraryInfo, ProbeError> {
    if !library.is_absolute() {
        return Err(ProbeError::Relative { path: library.into() });
    }
    elf::check(library)?;
    let fail = |detail: String| ProbeError::Child { path: library.into(), detail };
    let Ended { status, line, complaint } = run(command, library).map_err(fail)?;
    if !status.success() {
        return Err(refusal(library, &complaint).unwrap_or_else(|| fail(describe(status, &complaint))));
    }
    LibraryInfo::from_line(library, &line).ok_or_else(|| fail(format!("it printed {:?}", one_line(&line))))
}

/// Runs [`crate::link_library`] in a child process: whether a library can be loaded with all that it needs. Blocks for at most 10
/// seconds.
///
/// # Errors
/// It cannot; in the words of the dynamic linker where it was reached.
pub fn link_in_child(command: &ProbeCommand, library: &Path) -> Result<(), LinkError> {
    let Ended { status, complaint, .. } = run(command, library).map_err(|detail| LinkError { detail })?;
    if status.success() { Ok(()) } else { Err(LinkError { detail: describe(status, &complaint) }) }
}

/// A child that has ended.
struct Ended {
    status: ExitStatus,
    line: String,
    complaint: String,
}

/// Starts it and waits; what went wrong before it could say anything is told in words.
fn run(command: &ProbeCommand, library: &Path) -> Result<Ended, String> {
    let mut child = Command::new(&command.program)
        .args(&command.args)
        .arg(library)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{} does not start: {error}", command.program.display()))?;
    let status = wait(&mut child)?;
    // The child has ended and writes one line, which fits the pipe.
    Ok(Ended { status, line: drained(child.stdout.take()), complaint: drained(child.stderr.take()) })
}

fn wait(child: &mut Child) -> Result<ExitStatus, &'static str> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if start.elapsed() < TIME_LIMIT => std::thread::sleep(TICK),
            _ => {
                // Both fail only when it has just ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                return Err("it did not finish within 10 s");
            }
        }
    }
}

fn drained(pipe: Option<impl Read>) -> String {
    let mut text = String::new();
    if let Some(pipe) = pipe {
        // What is not UTF-8 is of no use in a message.
        let _ = pipe.take(64 * 1024).read_to_string(&mut text);
    }
    text
}

/// The child's own message, if it got so far as to write one.
fn refusal(library: &Path, complaint: &str) -> Option<ProbeError> {
    let path = format!("{}: ", library.display());
    let line = complaint.lines().rev().find_map(|line| line.find(&path).map(|at| &line[at..]))?;
    Some(ProbeError::Refused { line: line.to_owned() })
}

fn describe(status: ExitStatus, complaint: &str) -> String {
    use std::os::unix::process::ExitStatusExt;
    let last = complaint.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    match (status.signal(), last) {
        (Some(7), _) => "the process was killed by SIGBUS (the file is damaged)".to_owned(),
        (Some(4), _) => "the process was killed by SIGILL (built for a newer processor)".to_owned(),
        (Some(11), _) => "the process was killed by SIGSEGV (the file is damaged)".to_owned(),
        (Some(signal), _) => format!("the process was killed by signal {signal}"),
        (None, "") => status.to_string(),
        (None, last) => one_line(last),
    }
}
