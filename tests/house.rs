//! The rules of the house that no compiler checks: which crate may use which, licences, and that the documents name only
//! what exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use kinewatch_core::rollout::Code;

const ADAPTERS: [&str; 5] =
    ["kinewatch-capture", "kinewatch-engine", "kinewatch-store", "kinewatch-mqtt", "kinewatch-ota"];

/// Libraries that only one of our crates may name.
const OWNERS: [(&str, &[&str]); 10] = [
    ("gstreamer", &["kinewatch-capture"]),
    ("gstreamer-app", &["kinewatch-capture"]),
    ("gstreamer-video", &["kinewatch-capture"]),
    ("v4l", &["kinewatch-capture"]),
    ("ort", &["kinewatch-engine"]),
    ("tract-onnx", &["kinewatch-engine"]),
    ("rumqttc", &["kinewatch-mqtt"]),
    ("rumqttd", &["kinewatch-mqtt"]),
    ("rusqlite", &["kinewatch-store"]),
    ("tokio", &["kinewatch-mqtt", "kinewatch-ota", "kinewatch"]),
];

/// SPDX identifiers that may enter a binary of ours. `OR` needs one of these, `AND` all.
const LICENCES: [&str; 15] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unlicense",
    "Unicode-3.0",
    "CC0-1.0",
    "MIT-0",
    "0BSD",
    "BlueOak-1.0.0",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("agent/ lies in the workspace").to_path_buf()
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .features(cargo_metadata::CargoOpt::AllFeatures)
        .exec()
        .expect("cargo metadata")
}

fn uses(package: &Package) -> impl Iterator<Item = &str> {
    package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development).map(|d| d.name.as_str())
}

#[test]
fn crates_depend_only_as_the_design_says() {
    let metadata = metadata();
    let mut faults = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        for used in uses(package) {
            let ours = used == "kinewatch" || used.starts_with("kinewatch-");
            if ours && name == "kinewatch-core" {
                faults.push(format!("core must not use {used}"));
            }
            if ours && ADAPTERS.contains(&name) && used != "kinewatch-core" {
                faults.push(format!("adapter {name} must not use {used}"));
            }
            if let Some((_, owners)) = OWNERS.iter().find(|(library, _)| *library == used)
                && !owners.contains(&name)
            {
                faults.push(format!("{name} must not name {used}: it belongs to {owners:?}"));
            }
        }
    }
    assert_eq!(faults, [""; 0]);
    let names: BTreeSet<_> = metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect();
    assert!(ADAPTERS.iter().all(|a| names.contains(*a)), "the table of adapters is out of date: {names:?}");
}

#[test]
fn every_licence_is_permissive() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let edges: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut seen = BTreeSet::new();
    let mut queue: Vec<_> = metadata.workspace_members.iter().collect();
    while let Some(id) = queue.pop() {
        if seen.insert(id) {
            let shipped =
                |d: &&cargo_metadata::NodeDep| d.dep_kinds.iter().any(|k| k.kind != DependencyKind::Development);
            queue.extend(edges[id].deps.iter().filter(shipped).map(|d| &d.pkg));
        }
    }
    let refused: Vec<_> = metadata
        .packages
        .iter()
        .filter(|p| seen.contains(&p.id) && !p.license.as_deref().is_some_and(permitted))
        .map(|p| format!("{} {}: {:?}", p.name, p.version, p.license))
        .collect();
    assert_eq!(refused, [""; 0]);
}

fn permitted(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" AND ").all(|all| all.split(" OR ").any(|one| LICENCES.contains(&one.trim())))
}

/// Back-ticked words of the documents that look like paths of this repository.
#[test]
fn documents_name_only_paths_that_exist() {
    let root = root();
    let tracked = Command::new("git").args(["ls-files", "*.md"]).current_dir(&root).output().expect("git");
    let mut missing = Vec::new();
    for document in String::from_utf8_lossy(&tracked.stdout).lines().filter(|d| !d.ends_with("MODEL_CARD.md")) {
        let path = root.join(document);
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let folder = path.parent().expect("a document lies in a folder");
        for word in text.split('`').skip(1).step_by(2) {
            let named = word.trim_end_matches('/');
            let ours = ["agent/", "models/", "config/", "systemd/", "cross/", "tests/", ".ci/"];
            let is_path = ours.iter().any(|top| named.starts_with(top)) && !named.contains([' ', '*', '{', '<', '…']);
            if is_path && !root.join(named).exists() && !folder.join(named).exists() {
                missing.push(format!("{document}: {named}"));
            }
        }
    }
    assert_eq!(missing, [""; 0]);
}

/// A code that nothing says promises operators what never comes.
#[test]
fn every_code_of_updates_is_said_somewhere() {
    let (root, mut sources) = (root(), String::new());
    for file in walkdir::WalkDir::new(root.join("agent")).into_iter().filter_map(Result::ok) {
        let path = file.path().strip_prefix(&root).expect("below it");
        let lies_in = |folder: &str| path.components().any(|part| part.as_os_str() == folder);
        let is_test = path.to_string_lossy().ends_with("tests.rs") || lies_in("tests");
        if path.extension().is_some_and(|e| e == "rs")
            && lies_in("src")
            && !is_test
            && !path.ends_with("rollout/code.rs")
        {
            let text = fs::read_to_string(file.path()).expect("a source");
            sources += text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        }
    }
    let unsaid: Vec<_> = Code::ALL.iter().filter(|code| !is_said(&format!("Code::{code:?}"), &sources)).collect();
    assert!(unsaid.is_empty(), "{unsaid:?}");
}

/// More than compared with.
fn is_said(code: &str, sources: &str) -> bool {
    sources.match_indices(code).any(|(at, _)| {
        let (before, after) = (sources[..at].trim_end(), &sources[at + code.len()..]);
        let is_whole = !after.starts_with(char::is_alphanumeric);
        let is_compared = before.ends_with("==") || before.ends_with("!=");
        let is_matched = after.trim_start().starts_with("=>") || after.trim_start().starts_with('|');
        is_whole && !is_compared && !is_matched
    })
}
