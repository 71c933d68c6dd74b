//! Where an ONNX Runtime library may be: the configuration, `ORT_DYLIB_PATH`, the package that `cross/ort-deb.sh` makes, then
//! the places where distributions and pip put it.

use std::path::{Path, PathBuf};

use crate::error::ProbeError;
use crate::library::probe::{LibraryInfo, ProbeCommand, probe_in_child};

/// Directories looked into, in order; `*` stands for one directory level.
const PLACES: [&str; 11] = [
    // Of a package made for kinewatch: who installs it wants it used.
    "/usr/lib/kinewatch/onnxruntime",
    "/usr/local/lib",
    "/usr/lib/*-linux-gnu",
    "/usr/lib",
    "/usr/lib64",
    "/opt/onnxruntime/lib",
    "/opt/onnxruntime*/lib",
    "/opt/kinewatch/lib",
    "/usr/local/lib/python3*/dist-packages/onnxruntime/capi",
    "/usr/lib/python3*/dist-packages/onnxruntime/capi",
    "/opt/*/lib/python3*/site-packages/onnxruntime/capi",
];

const FILE_NAME: &str = "libonnxruntime.so";

/// What the search found, and why it passed over the rest.
#[derive(Clone, Debug, Default)]
pub struct LibrarySearch {
    /// The first usable library.
    pub found: Option<LibraryInfo>,
    /// Candidates that cannot be used, each with its reason.
    pub refused: Vec<ProbeError>,
}

impl LibrarySearch {
    /// One line for the log.
    #[must_use]
    pub fn summary(&self) -> String {
        match (&self.found, self.refused.as_slice()) {
            (Some(info), _) => format!("ONNX Runtime {} at {}", info.version, info.path.display()),
            (None, []) => "no ONNX Runtime library in the usual places".to_owned(),
            (None, refused) => refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        }
    }
}

/// Looks for a library. A configured one is the only candidate: it is what the user asked for. Each candidate is tested
/// in a child process, so this blocks for up to 10 seconds a candidate.
#[must_use]
pub fn find_library(configured: Option<&Path>, command: &ProbeCommand) -> LibrarySearch {
    let asked = configured.map(Path::to_path_buf).or_else(from_environment);
    let candidates = match asked {
        Some(path) => vec![path],
        None => well_known(Path::new("/")),
    };
    let mut search = LibrarySearch::default();
    for path in candidates {
        match probe_in_child(command, &path) {
            Ok(info) => {
                search.found = Some(info);
                break;
            }
            Err(error) => search.refused.push(error),
        }
    }
    search
}

fn from_environment() -> Option<PathBuf> {
    std::env::var_os("ORT_DYLIB_PATH").filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Libraries in the well-known places below `root`, absolute, links resolved, each once.
fn well_known(root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for place in PLACES {
        for directory in expand(root, place) {
            for library in libraries_in(&directory) {
                let real = library.canonicalize().unwrap_or(library);
                if !found.contains(&real) {
                    found.push(real);
                }
            }
        }
    }
    found
}

/// Directories that match a pattern of [`PLACES`].
fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut directories = vec![root.to_path_buf()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        directories = match part.split_once('*') {
            None => directories.into_iter().map(|directory| directory.join(part)).collect(),
            Some((before, after)) => {
                let fits = |name: &str| name.starts_with(before) && name.ends_with(after);
                directories.iter().flat_map(|directory| entries(directory, &fits)).collect()
            }
        };
    }
    directories
}

/// `libonnxruntime.so` first, then `libonnxruntime.so.1.32.0` and the like, newest name first.
fn libraries_in(directory: &Path) -> Vec<PathBuf> {
    let mut files = entries(directory, &|name| name == FILE_NAME || name.starts_with("libonnxruntime.so."));
    files.sort_by_key(|path| (path.file_name() != Some(FILE_NAME.as_ref()), std::cmp::Reverse(path.clone())));
    files
}

fn entries(directory: &Path, fits: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(fits))
        .map(|entry| entry.path())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_libraries_where_distributions_and_wheels_put_them() {
        let root = tempfile::tempdir().unwrap();
        for path in [
            "usr/lib/aarch64-linux-gnu/libonnxruntime.so.1.21.0",
            "usr/lib/aarch64-linux-gnu/libonnxruntime_providers_shared.so",
            "opt/onnxruntime-linux-aarch64-1.20.1/lib/libonnxruntime.so.1.20.1",
            "usr/local/lib/python3.10/dist-packages/onnxruntime/capi/libonnxruntime.so.1.18.0",
            "usr/lib/kinewatch/onnxruntime/libonnxruntime.so.1.23.0",
            "opt/venv/lib/python3.12/site-packages/onnxruntime/capi/libonnxruntime.so.1.24.0",
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let library = root.path().join("usr/lib/aarch64-linux-gnu/libonnxruntime.so");
        std::os::unix::fs::symlink("libonnxruntime.so.1.21.0", library).unwrap();
        let base = root.path().canonicalize().unwrap();
        let found: Vec<_> =
            well_known(root.path()).iter().map(|p| p.strip_prefix(&base).unwrap().display().to_string()).collect();
        assert_eq!(
            found,
            [
                "usr/lib/kinewatch/onnxruntime/libonnxruntime.so.1.23.0",
                "usr/lib/aarch64-linux-gnu/libonnxruntime.so.1.21.0",
                "opt/onnxruntime-linux-aarch64-1.20.1/lib/libonnxruntime.so.1.20.1",
                "usr/local/lib/python3.10/dist-packages/onnxruntime/capi/libonnxruntime.so.1.18.0",
                "opt/venv/lib/python3.12/site-packages/onnxruntime/capi/libonnxruntime.so.1.24.0",
            ],
            "a link and its target are one library"
        );
    }
}
