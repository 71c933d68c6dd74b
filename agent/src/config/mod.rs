//! The configuration: read once, checked whole, turned into a [`plan::Plan`].
//!
//! [`check`] finds every mistake, not the first, and says of each where it stands and what to do. Relative paths are
//! relative to the configuration file. Secrets come from files alone.

mod broker;
mod cameras;
pub mod diff;
pub(crate) mod document;
pub mod file;
mod models;
mod outbox;
pub mod plan;
mod resolve;
pub mod secret;
mod shape;
mod updates;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use self::document::Document;
pub use self::document::{Position, Problem, Severity};
use self::file::File;
use self::plan::{Parts, Plan};
use self::resolve::Resolver;
pub use self::shape::{nearest, schema};

/// Where the configuration is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/kinewatch/kinewatch.toml";
/// Largest configuration file that is read, bytes.
pub const MAX_BYTES: u64 = 1 << 20;

/// How far a check goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The file alone: for a configuration of another machine. No plan comes of it.
    FileOnly,
    /// Also the models, devices and directories that it names. No plan comes of it either where it names secrets.
    WithoutSecrets,
    /// All of that, and its secrets.
    Machine,
}

/// What the surroundings say; a value, so that tests have their own.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Name of this machine.
    pub host_name: String,
    /// `$CREDENTIALS_DIRECTORY`, where systemd puts secrets.
    pub credentials_directory: Option<PathBuf>,
    /// `$STATE_DIRECTORY`, which systemd made for us.
    pub state_directory: Option<PathBuf>,
    /// What tells this machine from all others. Confidential: it is only ever shown through a hash.
    pub machine: Option<String>,
    /// Credentials that the service is given and this process is not, by name: where systemd takes them from.
    pub credentials: BTreeMap<String, PathBuf>,
}

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let dir = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        Self {
            host_name,
            credentials_directory: dir("CREDENTIALS_DIRECTORY"),
            state_directory: dir("STATE_DIRECTORY"),
            machine: machine(),
            credentials: BTreeMap::new(),
        }
    }
}

/// The machine identifier, and the board's serial number where the firmware tells one: boxes made from one disk image share
/// the former.
fn machine() -> Option<String> {
    let read = |path| std::fs::read_to_string(path).ok();
    let texts = [read("/etc/machine-id"), read("/proc/device-tree/serial-number")];
    let parts: Vec<_> = texts.iter().flatten().map(|text| text.trim_matches(['\0', '\n', ' '])).collect();
    let known: Vec<_> = parts.into_iter().filter(|part| !matches!(*part, "" | "uninitialized")).collect();
    (!known.is_empty()).then(|| known.join(" "))
}

/// What a check found.
#[derive(Debug)]
pub struct Report {
    /// The file, as it was named.
    pub path: PathBuf,
    /// Problems in the order of the file.
    pub problems: Vec<Problem>,
    /// Set when there is no error and the machine was looked at.
    pub plan: Option<Plan>,
    /// As much of the plan as could be made, whatever is wrong with the rest.
    pub parts: Parts,
    /// The file as it was read, with defaults, when its shape was right.
    pub file: Option<File>,
}

impl Report {
    /// Whether the configuration can be used.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.problems.iter().all(|p| p.severity != Severity::Error)
    }

    /// Each problem as `FILE:LINE:COLUMN: …`.
    #[must_use]
    pub fn lines(&self, severity: Severity) -> Vec<String> {
        let shown = self.path.display().to_string();
        self.problems.iter().filter(|p| p.severity == severity).map(|p| p.render(&shown)).collect()
    }
}

/// Reads and checks a configuration file.
#[must_use]
pub fn check(path: &Path, environment: &Environment, probe: Probe) -> Report {
    match read(path) {
        Ok(text) => check_text(path, &text, environment, probe),
        Err(message) => {
            let problem = Problem { severity: Severity::Error, at: None, message };
            Report { path: path.to_owned(), problems: vec![problem], plan: None, parts: Parts::default(), file: None }
        }
    }
}

/// The state directory that a configuration names. Of the rest, only the form is checked.
///
/// # Errors
/// The file cannot be read or understood; each problem as `FILE:LINE:COLUMN: …`.
pub fn state_dir(path: &Path, environment: &Environment) -> Result<PathBuf, Vec<String>> {
    let report = check(path, environment, Probe::FileOnly);
    match &report.file {
        Some(file) => Ok(state_dir_of(&file.device, &base_of(path), environment)),
        None => Err(report.lines(Severity::Error)),
    }
}

/// Paths of a configuration are relative to its directory. Made absolute: `ancestors()` of a relative path never reaches the
/// current folder.
pub(crate) fn base_of(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    whole.parent().unwrap_or(Path::new("/")).to_owned()
}

fn state_dir_of(device: &file::Device, base: &Path, environment: &Environment) -> PathBuf {
    match &device.state_dir {
        Some(dir) => base.join(dir),
        None => environment.state_directory.clone().unwrap_or_else(|| "/var/lib/kinewatch".into()),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            "no such file; name one with --config, or copy the reference from /usr/share/doc/kinewatch".to_owned()
        }
        _ => format!("cannot be read: {e}"),
    })?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err("larger than 1 MiB; this cannot be a configuration".into());
    }
    String::from_utf8(bytes).map_err(|e| format!("not UTF-8 text after byte {}", e.utf8_error().valid_up_to()))
}

fn check_text(path: &Path, text: &str, environment: &Environment, probe: Probe) -> Report {
    let mut report =
        Report { path: path.to_owned(), problems: Vec::new(), plan: None, parts: Parts::default(), file: None };
    let (document, syntax) = Document::parse(text);
    report.problems = syntax;
    if !report.is_ok() {
        return report;
    }
    report.problems = shape::check(&document);
    if report.is_ok() {
        match toml::from_str::<File>(text) {
            Ok(file) => {
                let base = base_of(path);
                let resolver = Resolver { document: &document, base, environment, probe, problems: Vec::new() };
                let (parts, problems) = resolve::resolve(&file, resolver);
                report.problems.extend(problems);
                report.plan = parts.clone().whole(path).filter(|_| report.is_ok());
                report.parts = parts;
                report.file = Some(file);
            }
            Err(e) => {
                let at = e.span().map(|s| document.position_of(&s));
                report.problems.push(Problem {
                    severity: Severity::Error,
                    at,
                    message: document::one_line(e.message()),
                });
            }
        }
    }
    report.problems.sort_by_key(|p| p.at);
    report
}

#[cfg(test)]
mod tests;
