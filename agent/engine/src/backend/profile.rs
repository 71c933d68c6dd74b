//! Which provider really computes a graph: ONNX Runtime's own profile of one run, because `is_available` says yes to
//! providers that cannot load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the next profile is written (ONNX Runtime appends a date).
pub(crate) fn prefix() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("kinewatch-profile-{}-{number}", std::process::id()))
}

/// Deletes what a session that never came to be left behind: ONNX Runtime opens the file before it reads the model.
pub(crate) fn discard(prefix: &Path) {
    let (Some(dir), Some(name)) = (prefix.parent(), prefix.file_name()) else { return };
    let start = format!("{}_", name.to_string_lossy());
    for entry in std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(&start) {
            // A file left behind in the temporary directory harms nobody.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Reads a profile and deletes it. Empty when it cannot be read.
pub(crate) fn take(path: &Path) -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // A file left behind in the temporary directory harms nobody.
    let _ = std::fs::remove_file(path);
    nodes_per_provider(&text)
}

/// Number of different nodes that each provider ran.
fn nodes_per_provider(text: &str) -> BTreeMap<String, usize> {
    let events: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let mut nodes = std::collections::BTreeSet::new();
    for event in events.as_array().into_iter().flatten() {
        let provider = event["args"]["provider"].as_str();
        let name = event["name"].as_str().and_then(|name| name.strip_suffix("_kernel_time"));
        if let (Some(provider), Some(name)) = (provider, name) {
            nodes.insert((provider.to_owned(), name.to_owned(), event["args"]["node_index"].to_string()));
        }
    }
    let mut counts = BTreeMap::new();
    for (provider, ..) in nodes {
        *counts.entry(provider).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_nodes_not_runs() {
        let text = r#"[
            {"cat":"Session","name":"model_run","args":{}},
            {"cat":"Node","name":"a_kernel_time","args":{"provider":"CUDAExecutionProvider","node_index":"1"}},
            {"cat":"Node","name":"a_kernel_time","args":{"provider":"CUDAExecutionProvider","node_index":"1"}},
            {"cat":"Node","name":"b_kernel_time","args":{"provider":"CPUExecutionProvider","node_index":"2"}},
            {"cat":"Node","name":"b_fence_before","args":{"provider":"CPUExecutionProvider"}}]"#;
        let counts = nodes_per_provider(text);
        assert_eq!(counts.get("CUDAExecutionProvider"), Some(&1));
        assert_eq!(counts.get("CPUExecutionProvider"), Some(&1));
        assert!(nodes_per_provider("[{").is_empty());
    }
}
