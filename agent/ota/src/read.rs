//! Reading files of a package within bounds and without following links.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::PackageError;

/// Upper bounds of what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `model.toml` and `labels.txt`, bytes each.
    pub text_bytes: u64,
    /// All files together, bytes.
    pub total_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { text_bytes: 1 << 20, total_bytes: 2 << 30 }
    }
}

/// Open `relative` below `dir`: a regular file, reached without links.
pub(crate) fn open_inside(dir: &Path, relative: &str) -> Result<(PathBuf, File), PackageError> {
    let mut path = dir.to_owned();
    for component in Path::new(relative).components() {
        let Component::Normal(name) = component else {
            return Err(PackageError::Escapes { dir: dir.to_owned(), name: relative.to_owned() });
        };
        path.push(name);
        let kind = path.symlink_metadata().map_err(|e| failed(&path, &e))?.file_type();
        if kind.is_symlink() {
            return Err(PackageError::Link { path });
        }
    }
    // Opening a pipe would wait for a writer for ever, so look before opening.
    if !path.symlink_metadata().map_err(|e| failed(&path, &e))?.is_file() {
        return Err(PackageError::NotAFile { path });
    }
    let file = File::open(&path).map_err(|e| failed(&path, &e))?;
    Ok((path, file))
}

/// The whole file, when it has at most `limit` bytes.
pub(crate) fn bounded(path: &Path, file: File, limit: u64) -> Result<Vec<u8>, PackageError> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| failed(path, &e))?;
    if bytes.len() as u64 > limit {
        return Err(PackageError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// SHA-256 and length, when `budget` bytes are enough.
pub(crate) fn hash(path: &Path, mut file: File, budget: u64) -> Result<(String, u64), PackageError> {
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        let n = match file.read(&mut buffer) {
            Ok(0) => return Ok((hex(&sha.finalize()), length)),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(failed(path, &e)),
        };
        length += n as u64;
        if length > budget {
            return Err(PackageError::TooLarge { path: path.to_owned(), limit: budget });
        }
        sha.update(&buffer[..n]);
    }
}

/// SHA-256, hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn failed(path: &Path, error: &std::io::Error) -> PackageError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => PackageError::Missing { path: path.to_owned() },
        _ => PackageError::Unreadable { path: path.to_owned(), reason: error.to_string() },
    }
}
