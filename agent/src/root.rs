//! The machine's own files, under `/` or under a folder of a test. Reads are bounded and never fail: what cannot be read is
//! not there.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest system file that is read, bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// Where the file system begins.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// The machine's own.
    #[must_use]
    pub fn machine() -> Self {
        Self(PathBuf::from("/"))
    }

    /// A tree below a folder.
    #[must_use]
    pub fn below(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Where an absolute path lies.
    #[must_use]
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether something is there.
    #[must_use]
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.at(path).exists()
    }

    /// A file's text without the white space (and zero bytes, as in the device tree) around it.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let mut bytes = Vec::new();
        File::open(self.at(path)).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        Some(text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
    }

    /// A file that holds one number.
    #[must_use]
    pub fn number(&self, path: impl AsRef<Path>) -> Option<i64> {
        self.read(path)?.parse().ok()
    }

    /// Names in a folder that begin with `prefix`, in order.
    #[must_use]
    pub fn names(&self, folder: impl AsRef<Path>, prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(folder)).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.retain(|name| name.starts_with(prefix));
        names.sort();
        names
    }
}
