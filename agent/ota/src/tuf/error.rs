//! Why metadata or a file was refused, or could not be had.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use kinewatch_core::rollout::{Code, Fault};
use rustix::io::Errno;

use super::Role;

/// A refusal, with what was expected and what was found. [`Refused::code`] is its word on the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Expiry cannot be judged.
    #[error("the clock is not synchronised")]
    Clock,
    /// The trust anchor cannot be used.
    #[error("trust anchor: {reason}")]
    Anchor {
        /// What is wrong.
        reason: String,
    },
    /// No TUF metadata, or it breaks a rule of the specification.
    #[error("{role} metadata: {reason}")]
    Invalid {
        /// Which metadata.
        role: Role,
        /// The rule.
        reason: String,
    },
    /// Two signatures in the name of one key (section 4.2).
    #[error("{role} metadata carries two signatures of key {keyid:?}")]
    SignedTwice {
        /// Which metadata.
        role: Role,
        /// The key's name in it.
        keyid: String,
    },
    /// Too few valid signatures.
    #[error("{role} metadata is signed by {valid} of the {threshold} keys that it needs")]
    BelowThreshold {
        /// Which metadata.
        role: Role,
        /// Valid signatures of different keys.
        valid: u64,
        /// How many it takes.
        threshold: u64,
    },
    /// Older than what this device has seen.
    #[error("{role} metadata of version {offered} is offered, but version {trusted} has been seen")]
    Rollback {
        /// Which metadata.
        role: Role,
        /// The version seen before.
        trusted: u64,
        /// The version offered now.
        offered: u64,
    },
    /// A role that the trusted snapshot lists is not in the new one (5.5.5).
    #[error("the new snapshot no longer lists {role}, of which version {trusted} is trusted")]
    Dropped {
        /// The role that is gone.
        role: Role,
        /// Its version in the trusted snapshot.
        trusted: u64,
    },
    /// Not the version that the metadata above it lists.
    #[error("{role} metadata is of version {found}, but version {listed} is due")]
    WrongVersion {
        /// Which metadata.
        role: Role,
        /// The version listed, or the next one of a root.
        listed: u64,
        /// The version found.
        found: u64,
    },
    /// Not the length that the metadata above it lists.
    #[error("{role} metadata has {found} bytes, but {listed} are listed")]
    MetadataLength {
        /// Which metadata.
        role: Role,
        /// Bytes listed.
        listed: u64,
        /// Bytes found.
        found: u64,
    },
    /// Not the digest that the metadata above it lists.
    #[error("{role} metadata has the digest {found:.16}…, but {listed:.16}… is listed")]
    MetadataHash {
        /// Which metadata.
        role: Role,
        /// Hex.
        listed: String,
        /// Hex.
        found: String,
    },
    /// More bytes than any honest file of its kind.
    #[error("{url}: more than {limit} bytes")]
    TooLarge {
        /// The file.
        url: String,
        /// The bound.
        limit: u64,
    },
    /// No longer valid (freeze attack, or a publisher who forgot).
    #[error("{role} metadata expired at {expires}; it is {now}")]
    Expired {
        /// Which metadata.
        role: Role,
        /// When.
        expires: Timestamp,
        /// The time by which it was judged.
        now: Timestamp,
    },
    /// Delegations lead through too many roles.
    #[error("target {path:?} was not found in {limit} delegated roles; no more are searched")]
    TooManyDelegations {
        /// The target.
        path: String,
        /// The bound.
        limit: usize,
    },
    /// The metadata lists no such target.
    #[error("target {path:?} is not in the repository")]
    NoTarget {
        /// The target.
        path: String,
    },
    /// The name of a target could lead out of its folder.
    #[error("target {path:?} has an unsafe name")]
    UnsafeTarget {
        /// The target.
        path: String,
    },
    /// The server does not have a file that metadata lists.
    #[error("{url}: not on the server (HTTP {status})")]
    NotFound {
        /// The file.
        url: String,
        /// 403, 404 or 410.
        status: u16,
    },
    /// A target with another length than was signed.
    #[error("{url}: {found} bytes, but {signed} are signed")]
    WrongLength {
        /// The file.
        url: String,
        /// Bytes signed.
        signed: u64,
        /// Bytes that the server has, or after which it was cut off.
        found: u64,
    },
    /// A target with another digest than was signed.
    #[error("{url}: digest {found:.16}…, but {signed:.16}… is signed")]
    WrongHash {
        /// The file.
        url: String,
        /// Hex.
        signed: String,
        /// Hex.
        found: String,
    },
    /// Fewer bytes per second than the least that is accepted.
    #[error("{url}: {bytes} bytes in {seconds} s, less than {minimum} B/s")]
    TooSlow {
        /// The file.
        url: String,
        /// Bytes that came.
        bytes: u64,
        /// In this time.
        seconds: u64,
        /// [`super::Pace::minimum_bytes_per_s`].
        minimum: u64,
    },
    /// The server does not answer, or answers with an error.
    #[error("{url}: {reason}")]
    Unreachable {
        /// The file.
        url: String,
        /// What happened.
        reason: String,
        /// When the server asked to be tried again (`Retry-After`).
        retry_after: Option<Duration>,
    },
    /// The server's certificate is not accepted.
    #[error("{url}: certificate: {reason}")]
    Certificate {
        /// The file.
        url: String,
        /// rustls' words.
        reason: String,
    },
    /// The file system is full.
    #[error("{path}: no space left")]
    NoSpace {
        /// What was written.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("{path}: {reason}")]
    Disk {
        /// What was read or written.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
}

impl Refused {
    /// The word on the wire.
    pub fn code(&self) -> Code {
        match self {
            Self::Clock => Code::ClockNotSynchronised,
            Self::Anchor { .. } => Code::AnchorInvalid,
            Self::Rollback { role, .. } | Self::Dropped { role, .. } => match role {
                Role::Root => Code::RootRollback,
                Role::Timestamp => Code::TimestampRollback,
                Role::Snapshot => Code::SnapshotRollback,
                Role::Targets | Role::Delegated(_) => Code::TargetsRollback,
            },
            Self::BelowThreshold { .. } | Self::SignedTwice { .. } => Code::BelowThreshold,
            Self::Expired { .. } => Code::Expired,
            Self::TooLarge { .. } => Code::MetadataTooLarge,
            Self::Invalid { .. }
            | Self::WrongVersion { .. }
            | Self::MetadataLength { .. }
            | Self::MetadataHash { .. }
            | Self::TooManyDelegations { .. } => Code::MetadataInvalid,
            Self::NoTarget { .. } | Self::NotFound { .. } => Code::TargetMissing,
            Self::UnsafeTarget { .. } => Code::TargetUnsafe,
            Self::WrongLength { .. } => Code::WrongLength,
            Self::WrongHash { .. } => Code::WrongHash,
            Self::TooSlow { .. } => Code::TooSlow,
            Self::Unreachable { .. } => Code::Unreachable,
            Self::Certificate { .. } => Code::Certificate,
            Self::NoSpace { .. } => Code::NoSpace,
            Self::Disk { .. } => Code::DiskError,
        }
    }

    /// When the server asked to be tried again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unreachable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What the server said or sent is at fault, not the way to it: no use to try the same server again at once.
    pub(super) fn is_content(&self) -> bool {
        !matches!(
            self,
            Self::TooSlow { .. }
                | Self::Unreachable { .. }
                | Self::Certificate { .. }
                | Self::NoSpace { .. }
                | Self::Disk { .. }
        )
    }

    /// This device is at fault: no use to try another server.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::Disk { .. } | Self::Clock | Self::Anchor { .. })
    }

    pub(super) fn disk(path: &Path, error: &std::io::Error) -> Self {
        let full = [Errno::NOSPC, Errno::DQUOT].map(Errno::raw_os_error);
        match error.raw_os_error() {
            Some(errno) if full.contains(&errno) => Self::NoSpace { path: path.to_owned() },
            _ => Self::Disk { path: path.to_owned(), reason: error.to_string() },
        }
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        Self::new(refused.code(), refused.to_string())
    }
}
