//! Releases that misbehave: `tiny-bright` with another graph (`tests/data/candidates`), another name, version or labels, as
//! a whole package whose hashes are right.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::root;

/// One of the packages in `tests/data/packages`.
pub fn package(name: &str) -> PathBuf {
    root().join("tests/data/packages").join(name)
}

/// A graph of `tests/data/candidates`, for example `hangs`.
pub fn graph(name: &str) -> PathBuf {
    root().join(format!("tests/data/candidates/{name}.onnx"))
}

/// A copy of the package `from`, to be changed.
pub fn copy(from: &Path, into: &Path) -> PathBuf {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let to = into.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(&to).unwrap();
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
    into.to_owned()
}

/// Changes the text of `model.toml`, and writes the hashes of the files as they are now.
pub fn rewrite(dir: &Path, change: impl FnOnce(String) -> String) {
    let path = dir.join("model.toml");
    let text = change(fs::read_to_string(&path).unwrap());
    let (head, files) = text.split_once("[files]\n").unwrap();
    let hash = |name: &str| -> String {
        let bytes = fs::read(dir.join(name)).unwrap();
        Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
    };
    let names = files.lines().filter_map(|line| line.split('"').nth(1));
    let listed: String = names.map(|name| format!("\"{name}\" = \"{}\"\n", hash(name))).collect();
    fs::write(&path, format!("{head}[files]\n{listed}")).unwrap();
    kinewatch_ota::open_verified(dir).unwrap();
}

/// `tiny-bright` as release `version` of `name`, with `graph` as its only graph.
pub fn release(into: &Path, name: &str, version: &str, graph: Option<&Path>) -> PathBuf {
    let dir = copy(&package("tiny-bright"), into);
    if let Some(graph) = graph {
        fs::copy(graph, dir.join("tiny.fp32.onnx")).unwrap();
    }
    rewrite(&dir, |text| {
        text.replacen("name = \"tiny-bright\"", &format!("name = \"{name}\""), 1).replacen(
            "version = \"1.0.0\"",
            &format!("version = \"{version}\""),
            1,
        )
    });
    dir
}
