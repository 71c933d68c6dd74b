//! Paths and checksums of a package.

use std::collections::BTreeMap;

use super::Manifest;
use super::validate::{Checked, count, fail};

/// Checks the list itself.
pub(super) fn listed(files: &BTreeMap<String, String>) -> Checked<()> {
    count("files", files.len(), 10_000)?;
    for (path, sum) in files {
        relative(&format!("files.{path:?}"), path)?;
        if path == "model.toml" {
            return fail("files.\"model.toml\"", "a file cannot hold its own checksum; remove it");
        }
        if sum.len() != 64 || !sum.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return fail(format!("files.{path:?}"), "must be a SHA-256: 64 lower-case hexadecimal digits");
        }
    }
    Ok(())
}

fn relative(key: &str, path: &str) -> Checked<()> {
    let odd = |part: &str| part.is_empty() || part == "." || part == "..";
    if path.split('/').any(odd) || path.contains(['\\', ':', '\0', '\n']) || path.len() > 255 {
        return fail(key, "must be a path inside the package: relative, parts separated by '/', no '..'");
    }
    Ok(())
}

/// Every file that the manifest names is listed.
pub(super) fn referenced(m: &Manifest) -> Checked<()> {
    let mut wanted = vec![("labels.txt".to_owned(), "labels.txt")];
    let graphs = [("graphs.fp32", Some(&m.graphs.fp32)), ("graphs.int8", m.graphs.int8.as_ref())];
    for (key, graph) in graphs {
        let Some(graph) = graph else { continue };
        wanted.push((format!("{key}.model"), &graph.model));
        wanted.extend(graph.head.iter().map(|head| (format!("{key}.head"), head.as_str())));
    }
    for (i, clip) in m.golden.clips.iter().enumerate() {
        wanted.push((format!("golden.clips[{i}].frames"), &clip.frames));
        wanted.push((format!("golden.clips[{i}].logits"), &clip.logits));
    }
    for (key, path) in wanted {
        relative(&key, path)?;
        if !m.files.contains_key(path) {
            return fail(key, format!("{path:?} is not listed in [files]; add it with its SHA-256"));
        }
    }
    Ok(())
}
