//! Writing a bundle: the same package gives the same bytes, whoever packs it, whenever.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::{MANIFEST, PackError, WINDOW_LOG};
use crate::read::open_inside;
use crate::{VerifiedPackage, open_verified};

/// Weights hardly shrink; more effort than this costs minutes and gains nothing.
const LEVEL: i32 = 12;

/// What was packed.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The package.
    pub package: VerifiedPackage,
    /// Its files together, bytes.
    pub unpacked_bytes: u64,
}

/// Verifies the package in `dir` and writes it as a bundle: `model.toml` first, then the files that it lists in the order of
/// their names, with no time, owner or mode of this machine. What `[files]` does not list is left out. Blocks on the disk and
/// on the processor (about a second per 20 MB).
///
/// # Errors
/// The package is not what its manifest says, a name does not fit, or reading or writing fails.
pub fn pack(dir: impl AsRef<Path>, to: impl Write) -> Result<Packed, PackError> {
    let package = open_verified(dir)?;
    let io = |source| PackError::Io { path: package.dir.clone(), source };
    let mut encoder = zstd::Encoder::new(to, LEVEL).map_err(io)?;
    encoder.include_checksum(true).and_then(|()| encoder.window_log(WINDOW_LOG)).map_err(io)?;
    let mut archive = Builder::new(encoder);
    let mut unpacked_bytes = 0;
    for name in std::iter::once(MANIFEST).chain(package.manifest.files.keys().map(String::as_str)) {
        unpacked_bytes += append(&mut archive, &package.dir, name)?;
    }
    archive.into_inner().and_then(zstd::Encoder::finish).and_then(|mut to| to.flush()).map_err(io)?;
    Ok(Packed { package, unpacked_bytes })
}

/// One file. Returns its length.
fn append(archive: &mut Builder<impl Write>, dir: &Path, name: &str) -> Result<u64, PackError> {
    let (path, file) = open_inside(dir, name)?;
    let io = |source| PackError::Io { path: PathBuf::from(&path), source };
    let length = file.metadata().map_err(io)?.len();
    let mut header = Header::new_ustar();
    header.set_path(name).map_err(|reason| PackError::Name { path: name.to_owned(), reason })?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(length);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    // A file that grows meanwhile must not spoil the archive; its hash will tell.
    let mut data = file.take(length);
    archive.append(&header, &mut data).map_err(io)?;
    if data.limit() > 0 {
        return Err(io(std::io::Error::other("became shorter while it was packed: pack again")));
    }
    Ok(length)
}
