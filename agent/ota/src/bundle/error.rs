//! Why a package cannot be packed, and why a bundle is not unpacked.

use std::io;
use std::path::PathBuf;

use kinewatch_core::rollout::{Code, Fault};

use crate::PackageError;

/// What makes a bundle unsafe. Nothing of the offending entry has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unsafe {
    /// A path that is absolute, climbs with `..`, or is not plain text.
    Path,
    /// A symbolic link.
    SymbolicLink,
    /// A hard link.
    HardLink,
    /// A character or block device.
    Device,
    /// A named pipe.
    Pipe,
    /// Any other entry that is no regular file: long names, pax records, sparse files.
    EntryKind,
    /// A path that was there before.
    Duplicate,
    /// A file that the manifest does not list.
    Unlisted,
    /// The first entry is not `model.toml`.
    ManifestNotFirst,
    /// More bytes than allowed: a decompression bomb, or a package that is too large here.
    TooLarge,
    /// Not a whole zstd stream with a whole tar archive.
    Damaged,
    /// Something follows the end of the archive.
    Trailing,
}

impl Unsafe {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Path,
        Self::SymbolicLink,
        Self::HardLink,
        Self::Device,
        Self::Pipe,
        Self::EntryKind,
        Self::Duplicate,
        Self::Unlisted,
        Self::ManifestNotFirst,
        Self::TooLarge,
        Self::Damaged,
        Self::Trailing,
    ];

    /// In reports: stable, snake case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::SymbolicLink => "symbolic_link",
            Self::HardLink => "hard_link",
            Self::Device => "device",
            Self::Pipe => "pipe",
            Self::EntryKind => "entry_kind",
            Self::Duplicate => "duplicate",
            Self::Unlisted => "unlisted",
            Self::ManifestNotFirst => "manifest_not_first",
            Self::TooLarge => "too_large",
            Self::Damaged => "damaged",
            Self::Trailing => "trailing",
        }
    }
}

/// A bundle that is not unpacked. Nothing of it is left on the disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The archive is not what a bundle may be; it never will be.
    #[error("bundle refused ({}): {detail}", kind.name())]
    Unsafe {
        /// What is wrong.
        kind: Unsafe,
        /// Where, in one line.
        detail: String,
    },
    /// Unpacked, the package is not what its manifest says; it never will be.
    #[error("the bundle's package is refused: {0}")]
    Package(#[from] PackageError),
    /// The disk is full.
    #[error("{}: no space left on the device to unpack the bundle: free some, or give the state directory more room", path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// The disk or the source fails; nothing is said about the bundle.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

impl UnpackError {
    /// What is reported, and whether the release is at fault.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unsafe { kind, detail } => Fault::new(Code::BundleUnsafe, format!("{}: {detail}", kind.name())),
            Self::Package(error) => Fault::new(Code::PackageInvalid, error.to_string()),
            Self::NoSpace { .. } => Fault::new(Code::NoSpace, self.to_string()),
            Self::Io { .. } => Fault::new(Code::DiskError, self.to_string()),
        }
    }

    pub(super) fn refused(kind: Unsafe, detail: impl Into<String>) -> Self {
        Self::Unsafe { kind, detail: detail.into() }
    }

    pub(super) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path },
            _ => Self::Io { path, source },
        }
    }
}

/// A package that is not packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// It is not what its manifest says.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A path that a bundle cannot hold.
    #[error("{path:?}: {reason}: give the file a shorter name, and its new name in model.toml")]
    Name {
        /// In `[files]`.
        path: String,
        /// The archive's limits.
        reason: io::Error,
    },
    /// A file cannot be read, or the bundle cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}
