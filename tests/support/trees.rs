//! File trees of boards, from `tests/data/boards`: one text file each, so that a tree is read at a glance.
//!
//! `=== PATH` begins a file, `=== PATH/` makes a folder (in place of a file: reading it then fails, as it does for sensors
//! that are switched off), `=== PATH -> TARGET` a link, `=== - PATH` removes. Several trees lie one above the other.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Trees of `tests/data/boards`, one above the other.
pub fn plant(names: &[&str]) -> TempDir {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/boards");
    let texts: Vec<String> =
        names.iter().map(|name| fs::read_to_string(folder.join(format!("{name}.tree"))).unwrap()).collect();
    plant_text(&texts.concat())
}

/// The same from a text.
pub fn plant_text(text: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for part in text.split("=== ").skip(1) {
        let (head, body) = part.split_once('\n').unwrap_or((part, ""));
        write(dir.path(), head.trim(), body);
    }
    dir
}

/// Where an absolute path of a tree lies.
pub fn at(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn write(root: &Path, head: &str, body: &str) {
    if let Some(gone) = head.strip_prefix("- ") {
        let path = at(root, gone);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        return;
    }
    let (path, target) = head.split_once(" -> ").map_or((head, None), |(path, target)| (path, Some(target)));
    let file = at(root, path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    match target {
        Some(target) => std::os::unix::fs::symlink(target, file).unwrap(),
        None if path.ends_with('/') => fs::create_dir_all(file).unwrap(),
        None => fs::write(file, body).unwrap(),
    }
}
