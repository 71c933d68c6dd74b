//! Reading a bundle that may have been made by an enemy.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use kinewatch_core::manifest::Manifest;
use tar::{Archive, Entry, EntryType};

use super::{MANIFEST, UnpackError, Unsafe, WINDOW_LOG};
use crate::{Limits, PackageError, VerifiedPackage, durable, open_verified_within};

/// What an archive may have beside its files, bytes: headers, padding, and zeros at its end.
const OVERHEAD: u64 = 16 << 20;
/// Zeros after the end of the archive, bytes; `tar` pads to 10 KiB.
const MAX_PADDING: u64 = 1 << 20;

/// What a bundle may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// All files together, bytes.
    pub unpacked_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { unpacked_bytes: Limits::default().total_bytes }
    }
}

/// Unpacks a bundle into `into`, which must not be there yet, and verifies the package. When it returns, every file and
/// directory is on the disk (fsync), the parent's entry included. On any error `into` is gone again; after a crash it may be
/// there in part, and the caller removes it. Blocks on the disk; takes 8 MiB of memory beside its buffers.
///
/// # Errors
/// The archive is unsafe, its package is not what its manifest says, or the disk fails.
pub fn unpack(archive: impl Read, into: &Path, bounds: Bounds) -> Result<VerifiedPackage, UnpackError> {
    let made = DirBuilder::new().mode(0o755).create(into);
    made.map_err(|source| UnpackError::io(into, source))?;
    let unpacked = Unpacking { into, left: bounds.unpacked_bytes, dirs: BTreeSet::new() }.run(archive);
    if unpacked.is_err() {
        // The caller gets the first error; what cannot be removed now is removed with the rest of the folder later.
        let _ = fs::remove_dir_all(into);
    }
    unpacked
}

/// The manifest of a bundle, which is its first file; the rest is not read. Takes 8 MiB of memory.
///
/// # Errors
/// The archive does not begin with a manifest that can be read.
pub fn manifest(archive: impl Read) -> Result<Manifest, UnpackError> {
    let mut archive = opened(archive, OVERHEAD)?;
    let first = first(&mut archive.entries().map_err(broken)?.raw(true))?;
    Ok(parsed(&first)?)
}

struct Unpacking<'a> {
    into: &'a Path,
    /// Bytes that files may still take.
    left: u64,
    /// Directories made, relative.
    dirs: BTreeSet<PathBuf>,
}

impl Unpacking<'_> {
    fn run(mut self, source: impl Read) -> Result<VerifiedPackage, UnpackError> {
        let total = self.left;
        let mut archive = opened(source, total.saturating_add(OVERHEAD))?;
        self.entries(&mut archive)?;
        padding(archive.into_inner())?;
        self.sync()?;
        let limits = Limits { total_bytes: total, ..Limits::default() };
        Ok(open_verified_within(self.into, limits)?)
    }

    fn entries(&mut self, archive: &mut Archive<impl Read>) -> Result<(), UnpackError> {
        let mut entries = archive.entries().map_err(broken)?.raw(true);
        let text = first(&mut entries)?;
        self.file(MANIFEST, text.len() as u64, &mut text.as_slice())?;
        let mut expected: BTreeSet<String> = parsed(&text)?.files.into_keys().collect();
        let folders: BTreeSet<PathBuf> = expected.iter().flat_map(|file| folders(file)).map(Path::to_owned).collect();
        let mut seen = BTreeSet::new();
        for entry in entries {
            let mut entry = entry.map_err(broken)?;
            let name = name(&entry)?;
            match entry.header().entry_type() {
                EntryType::Regular => {
                    if seen.contains(&name) || name == MANIFEST {
                        return Err(refused(Unsafe::Duplicate, format!("{name:?} is there twice")));
                    }
                    if !expected.remove(&name) {
                        return Err(refused(Unsafe::Unlisted, format!("model.toml does not list {name:?}")));
                    }
                    self.file(&name, entry.size(), &mut entry)?;
                    seen.insert(name);
                }
                // They come with the files in them.
                EntryType::Directory if folders.contains(Path::new(&name)) => {}
                EntryType::Directory => {
                    return Err(refused(Unsafe::Unlisted, format!("no file of model.toml lies in {name:?}")));
                }
                kind => return Err(refused(unsafe_kind(kind), format!("{name:?} is no regular file"))),
            }
        }
        match expected.first() {
            Some(missing) => Err(PackageError::Missing { path: self.into.join(missing) }.into()),
            None => Ok(()),
        }
    }

    /// Writes one file, whose declared size must fit in what is left. Its name has been checked.
    fn file(&mut self, name: &str, size: u64, content: &mut impl Read) -> Result<(), UnpackError> {
        self.left = self.left.checked_sub(size).ok_or_else(|| {
            refused(Unsafe::TooLarge, format!("{name:?} has {size} bytes, {} are left for it", self.left))
        })?;
        self.parents(name)?;
        let path = self.into.join(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)
            .map_err(|source| self.not_made(&path, name, source))?;
        let written = copy(content, &mut file, &path)?;
        if written != size {
            return Err(refused(Unsafe::Damaged, format!("it ends in the middle of {name:?}")));
        }
        file.sync_all().map_err(|e| UnpackError::io(&path, e))
    }

    fn parents(&mut self, name: &str) -> Result<(), UnpackError> {
        let parents: Vec<&Path> = folders(name).collect();
        for parent in parents.into_iter().rev() {
            if self.dirs.insert(parent.to_owned()) {
                let path = self.into.join(parent);
                let made = DirBuilder::new().mode(0o755).create(&path);
                made.map_err(|source| self.not_made(&path, name, source))?;
            }
        }
        Ok(())
    }

    /// The directory is new and ours, so what stands in the way came out of the archive.
    fn not_made(&self, path: &Path, name: &str, source: io::Error) -> UnpackError {
        match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                refused(Unsafe::Duplicate, format!("{name:?} is both a file and a directory"))
            }
            io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput => {
                refused(Unsafe::Path, format!("{name:?} cannot be the name of a file"))
            }
            _ => UnpackError::io(path, source),
        }
    }

    /// Files are on the disk; now the directories that name them, the innermost first.
    fn sync(&self) -> Result<(), UnpackError> {
        let inner = self.dirs.iter().rev().map(|dir| self.into.join(dir));
        let outer = [Some(self.into), self.into.parent()].into_iter().flatten().map(Path::to_owned);
        for dir in inner.chain(outer) {
            let dir = if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir };
            durable::sync(&dir).map_err(|e| UnpackError::io(&dir, e))?;
        }
        Ok(())
    }
}

fn refused(kind: Unsafe, detail: impl Into<String>) -> UnpackError {
    UnpackError::refused(kind, detail)
}

/// The entry's path: plain text whose parts are all plain names, without the `/` at the end of a directory.
fn name(entry: &Entry<'_, impl Read>) -> Result<String, UnpackError> {
    let bytes = entry.path_bytes();
    let shown = || format!("it names {:?}", String::from_utf8_lossy(&bytes));
    let text = std::str::from_utf8(&bytes).map_err(|_| refused(Unsafe::Path, shown()))?;
    let text = if entry.header().entry_type().is_dir() { text.strip_suffix('/').unwrap_or(text) } else { text };
    let plain = !text.is_empty() && Path::new(text).components().all(|c| matches!(c, Component::Normal(_)));
    // `components` passes over `a//b` and `a/./b`, which would be second names of one file.
    let odd = text.split('/').any(|part| part.is_empty() || part == ".") || text.contains('\0');
    if !plain || odd {
        return Err(refused(Unsafe::Path, shown()));
    }
    Ok(text.to_owned())
}

/// The directories that a file lies in, the innermost first.
fn folders(file: &str) -> impl Iterator<Item = &Path> {
    Path::new(file).ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty())
}

fn opened<R: Read>(source: R, most: u64) -> Result<Archive<impl Read>, UnpackError> {
    let mut decoder = zstd::Decoder::new(source).map_err(broken)?;
    decoder.window_log_max(WINDOW_LOG).map_err(broken)?;
    Ok(Archive::new(Budget { inner: decoder, left: most }))
}

/// The bytes of the first entry, which must be the manifest.
fn first<'a, R: Read + 'a>(
    entries: &mut impl Iterator<Item = io::Result<Entry<'a, R>>>,
) -> Result<Vec<u8>, UnpackError> {
    let mut entry = entries.next().ok_or_else(|| refused(Unsafe::Damaged, "it is empty"))?.map_err(broken)?;
    let name = name(&entry)?;
    let kind = entry.header().entry_type();
    if kind != EntryType::Regular && kind != EntryType::Directory {
        return Err(refused(unsafe_kind(kind), format!("{name:?} is no regular file")));
    }
    if name != MANIFEST || kind == EntryType::Directory {
        return Err(refused(Unsafe::ManifestNotFirst, format!("it begins with {name:?}")));
    }
    let (size, limit) = (entry.size(), Limits::default().text_bytes);
    if size > limit {
        return Err(refused(Unsafe::TooLarge, format!("{MANIFEST} has {size} bytes, at most {limit}")));
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(broken)?;
    if text.len() as u64 != size {
        return Err(refused(Unsafe::Damaged, format!("it ends in the middle of {MANIFEST:?}")));
    }
    Ok(text)
}

fn parsed(text: &[u8]) -> Result<Manifest, PackageError> {
    let path = || PathBuf::from(MANIFEST);
    let text = std::str::from_utf8(text).map_err(|_| PackageError::NotText { path: path() })?;
    Manifest::parse(text).map_err(|source| PackageError::Manifest { path: path(), source })
}

fn unsafe_kind(kind: EntryType) -> Unsafe {
    match kind {
        EntryType::Symlink => Unsafe::SymbolicLink,
        EntryType::Link => Unsafe::HardLink,
        EntryType::Char | EntryType::Block => Unsafe::Device,
        EntryType::Fifo => Unsafe::Pipe,
        _ => Unsafe::EntryKind,
    }
}

/// Tells what reads from what writes: an error of the archive is not one of the disk.
fn copy(from: &mut impl Read, to: &mut File, path: &Path) -> Result<u64, UnpackError> {
    let mut buffer = vec![0; 128 << 10];
    let mut written = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(written),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(broken(e)),
        };
        to.write_all(&buffer[..n]).map_err(|e| UnpackError::io(path, e))?;
        written += n as u64;
    }
}

/// After the archive there are zeros, and then nothing.
fn padding(mut rest: impl Read) -> Result<(), UnpackError> {
    let mut buffer = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        let n = rest.read(&mut buffer).map_err(broken)?;
        length += n as u64;
        if n == 0 {
            return Ok(());
        }
        if length > MAX_PADDING || buffer[..n].iter().any(|byte| *byte != 0) {
            return Err(refused(Unsafe::Trailing, "something follows its end"));
        }
    }
}

/// The source's own errors come from the system and have its number; all others are the archive's.
fn broken(error: io::Error) -> UnpackError {
    if error.raw_os_error().is_some() {
        return UnpackError::io("the bundle", error);
    }
    if error.get_ref().is_some_and(|inner| inner.is::<Exceeded>()) {
        return refused(Unsafe::TooLarge, "it unpacks to more than is allowed");
    }
    refused(Unsafe::Damaged, error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Ends a stream that goes on beyond all bounds.
struct Budget<R> {
    inner: R,
    left: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("more bytes than allowed")]
struct Exceeded;

impl<R: Read> Read for Budget<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other(Exceeded));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.inner.read(&mut buffer[..most])?;
        self.left -= n as u64;
        Ok(n)
    }
}
