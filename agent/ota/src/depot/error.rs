//! What the disk can do to the depot.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use kinewatch_core::rollout::{Code, Fault};

/// Why the depot could not do it. The depot is whole all the same: what was begun is finished or removed later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DepotError {
    /// After all that nobody needs was removed, too little is free.
    #[error(
        "{path}: {free_mb} MiB are free, {needed_mb} MiB are needed ({reserve_mb} of them are kept for events): free some space"
    )]
    TooLittle {
        /// The depot.
        path: PathBuf,
        /// Free for this user, MiB.
        free_mb: u64,
        /// Wanted with the reserve, MiB.
        needed_mb: u64,
        /// The reserve, MiB.
        reserve_mb: u64,
    },
    /// The disk filled up.
    #[error("{path}: {operation} failed, as the disk is full: free some space")]
    Full {
        /// What was worked on.
        path: PathBuf,
        /// What was attempted.
        operation: &'static str,
    },
    /// The disk refuses.
    #[error("{path}: {operation} failed: {source}")]
    Io {
        /// What was worked on.
        path: PathBuf,
        /// What was attempted.
        operation: &'static str,
        /// The operating system's error.
        source: Error,
    },
}

impl DepotError {
    pub(super) fn io(path: &Path, operation: &'static str, source: Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { path, operation },
            _ => Self::Io { path, operation, source },
        }
    }

    /// What is reported. The release is never to blame for the disk.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let code = match self {
            Self::TooLittle { .. } | Self::Full { .. } => Code::NoSpace,
            Self::Io { .. } => Code::DiskError,
        };
        Fault::new(code, self.to_string())
    }
}
