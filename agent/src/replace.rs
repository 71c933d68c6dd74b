//! Small files of the state directory that are replaced whole. They outlive the process, not a power cut: what must does so in
//! the store.

use std::io;
use std::path::Path;

/// Writes `bytes` beside `path`, and renames them to it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_file_name(format!("{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
    std::fs::write(&beside, bytes)?;
    std::fs::rename(&beside, path)
}
