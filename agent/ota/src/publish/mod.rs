//! The publisher's side: a TUF repository of static files, made and maintained from model packages.
//!
//! A repository is a folder that any web server can serve as it is: `metadata/` and `targets/`. Every change is signed by
//! tough's editor and written so that a device, or a copy made at any moment, sees the state before or the one after: files
//! of targets first, then the metadata that names them, `timestamp.json` last, each by renaming. Private keys never enter
//! the folder. One command writes at a time, under a lock.
//!
//! Must never sign what it has not verified: a bundle is unpacked as a device would before it is published. Blocking; owned
//! by the command that calls it. The time is handed in.

mod error;
mod keys;
mod lock;
mod release;
mod repository;
mod rotate;
mod signing;
mod status;
mod waves;

pub use error::PublishError;
pub use keys::KeyRing;
pub use release::ChannelChange;
pub use repository::{Created, Lifetimes, Quorum, Quorums, Repository};
pub use rotate::{Goes, Rotated};
pub use status::{ChannelStatus, ReleaseStatus, RoleStatus, Status};
pub use waves::{WaveError, parse_waves};

use std::fmt;

/// A role of the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Says whose keys the others are. Its keys are kept offline.
    Root,
    /// Says which files there are.
    Targets,
    /// Says which version of the list is the latest.
    Snapshot,
    /// Says, every few days, that this is so still.
    Timestamp,
}

impl Role {
    /// Every role, the most precious first.
    pub const ALL: [Self; 4] = [Self::Root, Self::Targets, Self::Snapshot, Self::Timestamp];

    /// As in TUF's metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
        }
    }

    fn tough(self) -> tough::schema::RoleType {
        match self {
            Self::Root => tough::schema::RoleType::Root,
            Self::Targets => tough::schema::RoleType::Targets,
            Self::Snapshot => tough::schema::RoleType::Snapshot,
            Self::Timestamp => tough::schema::RoleType::Timestamp,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Devices see it as soon as the folder has been copied.
    Published,
    /// The list of files is signed; the keys of snapshot and timestamp are elsewhere, and must sign it there.
    AwaitsOnlineKeys,
}
