//! What can go wrong with the state directory, and what the operator can do about it.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// What the owner of the store should do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Keep the events in memory and try again later; the cause may go away (full disk, busy).
    Retry,
    /// Close the store and open it again, now or later: opening sets a damaged file aside.
    Reopen,
    /// Only an operator can help (another owner, a newer schema).
    Fatal,
}

/// An error of the store. Every message names the path and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No space left (or quota exceeded).
    #[error("{path}: the disk is full: free some space; what belongs there waits in memory until it can be written")]
    DiskFull {
        /// Database or record file.
        path: PathBuf,
    },
    /// The file or its file system is read-only.
    #[error(
        "{path}: cannot be written (read-only file system or permissions): check `ls -ld` and `mount`, or set [device] state_dir to a writable directory"
    )]
    ReadOnly {
        /// Database or record file.
        path: PathBuf,
    },
    /// The state directory does not exist or the file cannot be opened.
    #[error("{path}: cannot be opened ({reason}): the directory of [device] state_dir must exist and be writable")]
    Open {
        /// Database or record file.
        path: PathBuf,
        /// The operating system's or SQLite's words.
        reason: String,
    },
    /// The file is damaged.
    #[error(
        "{path}: the database is damaged ({reason}): it is set aside and a new one begun when the store is opened again"
    )]
    Corrupt {
        /// Database file.
        path: PathBuf,
        /// SQLite's words.
        reason: String,
    },
    /// Another process owns this state directory.
    #[error(
        "{path}: another kinewatch uses this state directory: stop it, or give this one its own [device] state_dir"
    )]
    InUse {
        /// Record file that carries the lock.
        path: PathBuf,
    },
    /// The database is locked by another program for longer than the busy timeout.
    #[error("{path}: locked by another program for more than {waited_ms} ms: close whatever has it open")]
    Busy {
        /// Database file.
        path: PathBuf,
        /// Busy timeout.
        waited_ms: u64,
    },
    /// Written by a newer kinewatch.
    #[error(
        "{path}: schema {found} is newer than the {known} this version knows: upgrade kinewatch, or move the file away"
    )]
    Newer {
        /// Database file.
        path: PathBuf,
        /// `user_version` of the file.
        found: i64,
        /// Newest version this build can read.
        known: i64,
    },
    /// Written by an older kinewatch, and only looked at.
    #[error("{path}: schema {found} is older than {known}: start the daemon once, which brings it to the new schema")]
    Older {
        /// Database file.
        path: PathBuf,
        /// `user_version` of the file.
        found: i64,
        /// The version that this build reads.
        known: i64,
    },
    /// Nothing was ever stored there.
    #[error("{path}: no such file: name the state directory that the daemon uses, which makes it when it first starts")]
    NoStore {
        /// Database file.
        path: PathBuf,
    },
    /// The file was removed or replaced while it was open.
    #[error(
        "{path}: the file was removed or replaced while it was open (was the state directory removed, or a file system mounted over it?): it is opened anew"
    )]
    Moved {
        /// Database file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{path}: {operation} failed: {source}")]
    Sqlite {
        /// Database file.
        path: PathBuf,
        /// What was attempted.
        operation: &'static str,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// Reading or writing the record file failed.
    #[error("{path}: {operation} failed: {source}")]
    Io {
        /// Record or database file.
        path: PathBuf,
        /// What was attempted.
        operation: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },
}

impl StoreError {
    /// What to do next.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::DiskFull { .. } | Self::Busy { .. } => Disposition::Retry,
            // After a remount, an I/O error or a lost directory the open file may be dead for good: opening anew is what helps.
            Self::ReadOnly { .. }
            | Self::Open { .. }
            | Self::Corrupt { .. }
            | Self::Moved { .. }
            | Self::NoStore { .. }
            | Self::Sqlite { .. }
            | Self::Io { .. } => Disposition::Reopen,
            Self::InUse { .. } | Self::Newer { .. } | Self::Older { .. } => Disposition::Fatal,
        }
    }

    /// Making, or moving into, a directory that the store lives in has failed.
    #[must_use]
    pub fn directory(path: &Path, source: std::io::Error) -> Self {
        Self::io(path, "making the state directory", source)
    }

    pub(crate) fn sqlite(path: &Path, operation: &'static str, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        if is_content(&source) {
            return Self::Corrupt { path, reason: source.to_string() };
        }
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull { path },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly { path },
            Some(ErrorCode::CannotOpen) => Self::Open { path, reason: source.to_string() },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt { path, reason: source.to_string() }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Busy { path, waited_ms: crate::open::BUSY_TIMEOUT.as_millis() as u64 }
            }
            _ => Self::Sqlite { path, operation, source },
        }
    }

    pub(crate) fn io(path: &Path, operation: &'static str, source: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let path = path.to_owned();
        match source.kind() {
            K::StorageFull | K::QuotaExceeded => Self::DiskFull { path },
            K::ReadOnlyFilesystem | K::PermissionDenied => Self::ReadOnly { path },
            K::NotFound | K::NotADirectory | K::AlreadyExists => Self::Open { path, reason: source.to_string() },
            _ => Self::Io { path, operation, source },
        }
    }
}

/// Whether the error comes of what is in the file: what we ask never changes, so a question that SQLite does not understand,
/// or an answer of the wrong kind, means that the file is not what we wrote.
fn is_content(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    match error {
        E::SqliteFailure(failure, _) => failure.extended_code == rusqlite::ffi::SQLITE_ERROR,
        E::SqlInputError { .. }
        | E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::Utf8Error(..)
        | E::InvalidColumnType(..)
        | E::QueryReturnedNoRows => true,
        _ => false,
    }
}
