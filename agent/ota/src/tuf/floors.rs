//! The versions below which a repository may not go, whatever happened to the stored metadata.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The newest versions seen. The caller keeps them where a torn or deleted metadata file cannot lower them, and gives them
/// to the next [`super::Client::refresh`].
///
/// A repository that was taken over may have published versions near 2⁶³ (a fast-forward attack). It recovers by a new
/// root that takes a key from the timestamp or the snapshot role; the versions of those roles and of targets then start
/// anew. Only the root's version never does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floors {
    /// SHA-256 of the trust anchor, hex. Another anchor is another repository to the root's version.
    pub anchor: String,
    /// Of root metadata.
    pub root: u64,
    /// Of timestamp metadata.
    pub timestamp: u64,
    /// Of snapshot metadata.
    pub snapshot: u64,
    /// Of the top-level targets metadata.
    pub targets: u64,
    /// The keys of timestamp and snapshot under which these were seen.
    pub keys: BTreeSet<String>,
}

impl Floors {
    /// What of these still binds under `anchor` and a root with `keys`.
    pub(super) fn under(&self, anchor: &str, keys: &BTreeSet<String>) -> Self {
        let mut bound = Self { anchor: anchor.to_owned(), keys: keys.clone(), ..Self::default() };
        if self.anchor == anchor {
            bound.root = self.root;
        }
        if self.keys.is_subset(keys) {
            (bound.timestamp, bound.snapshot, bound.targets) = (self.timestamp, self.snapshot, self.targets);
        }
        bound
    }

    /// The higher of each, for two that are bound to the same anchor and keys.
    pub(super) fn max(mut self, other: &Self) -> Self {
        self.root = self.root.max(other.root);
        self.timestamp = self.timestamp.max(other.timestamp);
        self.snapshot = self.snapshot.max(other.snapshot);
        self.targets = self.targets.max(other.targets);
        self
    }
}
