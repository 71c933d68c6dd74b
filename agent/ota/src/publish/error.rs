//! Why a command of the publisher did nothing. One line, with what to do.

use std::io;
use std::path::PathBuf;

use kinewatch_core::rollout::ChannelError;

use super::Role;
use crate::bundle::{PackError, UnpackError};

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A file of the repository is not what it must be.
    #[error("{}: {reason}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A key cannot be used.
    #[error("{}: {reason}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Somebody else is writing the repository.
    #[error("{}: another `kinewatch publish` has been at work here for {waited_s} s: try again when it has ended", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
        /// How long it was waited for.
        waited_s: u64,
    },
    /// Too few keys of a role are at hand.
    #[error("{role}: {have} of {need} keys that must sign are in {looked}; keys of this role: {}; give the folder that has them with --keys", ids.join(", "))]
    Keys {
        /// Role.
        role: Role,
        /// Found.
        have: usize,
        /// Wanted.
        need: u64,
        /// Where keys were looked for.
        looked: String,
        /// First digits of the identifiers of all keys of the role.
        ids: Vec<String>,
    },
    /// The repository's rules forbid it.
    #[error("{0}")]
    Refused(String),
    /// The package cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// What was packed would be refused by a device.
    #[error("a device would refuse it: {0}")]
    Unpack(#[from] UnpackError),
    /// The channel file breaks a rule.
    #[error("channel: {0}")]
    Channel(#[from] ChannelError),
    /// Signing failed.
    #[error("{role}: cannot be signed: {reason}")]
    Sign {
        /// Role.
        role: Role,
        /// tough's words.
        reason: String,
    },
}

impl PublishError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }
}
