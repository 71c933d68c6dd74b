//! Names that lead to what is whole, also after a power cut: written beside, synchronised, renamed, the folder synchronised.
//!
//! Blocks on the disk. One writer of a path at a time is the caller's affair.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Begin of the names of what is not there yet; what is left of it after a crash may be removed.
pub(crate) const NEW: &str = ".new-";

/// The place beside `path` where it is made.
pub(crate) fn beside(path: &Path) -> PathBuf {
    path.with_file_name(format!("{NEW}{}", path.file_name().unwrap_or_default().to_string_lossy()))
}

/// A file that holds either what was there before or `bytes`.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path);
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    rename(&new, path)
}

/// Moves what has been synchronised to its name.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    // Of a relative name, the folder is that of the process.
    sync(to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Makes the names in a folder last.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
