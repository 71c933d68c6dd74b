//! Everything that is parsed from outside, each as a function of bytes: what a fuzzer runs, and what the kept corpus is replayed
//! through.
//!
//! A target must bear any bytes: no panic, at most [`bounds::CPU`] of processor time and [`bounds::PEAK`] of memory. Where a
//! parser reads a file, so does its target, from memory (`/dev/shm`): bounds and encodings are a part of what is tried.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a part of two crates, both for tests")]

mod annotations;
mod bounds;
mod commands;
mod machine;
mod models;
mod stored;
mod updates;
mod words;

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A name and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("broker_url", words::broker_url),
    ("bundle", updates::bundle),
    ("channel", updates::channel),
    ("clock_journal", stored::clock_journal),
    ("command", commands::command),
    ("command_line", words::command_line),
    ("config", words::config),
    ("events", annotations::events),
    ("frame_labels", annotations::frame_labels),
    ("golden", models::golden),
    ("groups", annotations::groups),
    ("labels", models::labels),
    ("manifest", models::manifest),
    ("package", models::package),
    ("redact", words::redact),
    ("scores", annotations::scores),
    ("sequence", stored::sequence),
    ("source", words::source),
    ("stored_event", stored::event),
    ("systemd", machine::systemd),
    ("truth", annotations::truth),
];

/// Runs one input through a target, within bounds.
///
/// # Panics
/// The target does, or the input costs too much.
pub fn run(name: &str, data: &[u8]) {
    let (name, target) = TARGETS.iter().find(|(n, _)| *n == name).expect("a target of that name");
    bounds::within(name, data, *target);
}

/// A folder in memory for what parsers read from files; one a process.
fn scratch(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let shared = PathBuf::from("/dev/shm");
        let base = if shared.is_dir() { shared } else { std::env::temp_dir() };
        let folder = base.join(format!("kinewatch-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    });
    folder.join(name)
}

/// A file of that content.
fn file(name: &str, data: &[u8]) -> PathBuf {
    let path = scratch(name);
    fs::write(&path, data).unwrap();
    path
}

/// Parsers of texts are given texts by their callers.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// A message is one line that a person can read.
fn is_told(message: &str) {
    assert!(!message.trim().is_empty(), "an error without words");
}
