//! The trusted set: verified metadata, and the rules by which the next version replaces it (sections 5.3 to 5.6).
//!
//! Pure: bytes, the time and the floors come in, a verdict comes out. A refused document changes nothing.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::delegation::Visit;
use super::document::{Document, MetaFile, Root, SnapshotBody, TargetsBody, TimestampBody};
use super::signature::Keyring;
use super::{Floors, Refused, Role};

const SNAPSHOT: &str = "snapshot.json";
const TARGETS: &str = "targets.json";

/// Verified metadata. What is `None` has not been seen yet, or does not verify under the present root.
#[derive(Debug, Clone)]
pub(super) struct Trusted {
    root: Document<Root>,
    timestamp: Option<Document<TimestampBody>>,
    snapshot: Option<Document<SnapshotBody>>,
    targets: Option<Document<TargetsBody>>,
}

/// What a new root means for what was trusted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rotation {
    /// All keys of timestamp and snapshot are still in use.
    None,
    /// A key was taken from timestamp or snapshot: their trusted metadata is forgotten, so that a repository can recover
    /// from a fast-forward attack (5.3.11).
    Forget,
}

impl Trusted {
    /// 5.2: a root that signs itself. Its expiry does not matter yet.
    pub(super) fn new(root: &[u8]) -> Result<Self, Refused> {
        let root = parse_root(root)?;
        keyring(&root, &Role::Root)?.verify(&root)?;
        Ok(Self { root, timestamp: None, snapshot: None, targets: None })
    }

    pub(super) fn root(&self) -> &Document<Root> {
        &self.root
    }

    pub(super) fn targets(&self) -> Option<&Document<TargetsBody>> {
        self.targets.as_ref()
    }

    pub(super) fn consistent(&self) -> bool {
        self.root.body.consistent_snapshot
    }

    /// When the first of the trusted documents expires.
    pub(super) fn expires(&self) -> Timestamp {
        let others = [
            self.timestamp.as_ref().map(|d| d.header.expires),
            self.snapshot.as_ref().map(|d| d.header.expires),
            self.targets.as_ref().map(|d| d.header.expires),
        ];
        others.into_iter().flatten().fold(self.root.header.expires, |first, expires| first.min(expires))
    }

    /// The keys of timestamp and snapshot, as [`Floors::keys`] has them.
    pub(super) fn online_keys(&self) -> BTreeSet<String> {
        online_keys(&self.root)
    }

    /// The versions reached, not below `floors`.
    pub(super) fn floors(&self, floors: &Floors) -> Floors {
        let reached = Floors {
            root: self.root.version(),
            timestamp: self.timestamp.as_ref().map_or(0, Document::version),
            snapshot: self.snapshot.as_ref().map_or(0, Document::version),
            targets: self.targets.as_ref().map_or(0, Document::version),
            ..floors.clone()
        };
        reached.max(floors)
    }

    /// 5.3.3 to 5.3.8: the next root, signed by enough keys of this one and of its own.
    pub(super) fn next_root(&mut self, bytes: &[u8]) -> Result<Rotation, Refused> {
        let next = parse_root(bytes)?;
        let (trusted, offered) = (self.root.version(), next.version());
        if offered <= trusted {
            return Err(Refused::Rollback { role: Role::Root, trusted, offered });
        }
        keyring(&self.root, &Role::Root)?.verify(&next)?;
        keyring(&next, &Role::Root)?.verify(&next)?;
        if offered != trusted + 1 {
            return Err(Refused::WrongVersion { role: Role::Root, listed: trusted + 1, found: offered });
        }
        let kept = self.online_keys().is_subset(&online_keys(&next));
        self.root = next;
        // Signatures of what was trusted before are judged by the new root when it is read again.
        (self.timestamp, self.snapshot, self.targets) = (None, None, None);
        Ok(if kept { Rotation::None } else { Rotation::Forget })
    }

    /// The root is the newest one that there is: it must not be older than one seen before, nor expired (5.3.10).
    pub(super) fn settle_root(&self, floors: &Floors, now: Timestamp) -> Result<(), Refused> {
        not_below(&Role::Root, floors.root, self.root.version())?;
        self.root.check_expiry(now)
    }

    /// Takes back what was trusted in an earlier run. What does not verify under the present root is left out; expiry does
    /// not matter, since it is only compared with.
    pub(super) fn recall(&mut self, timestamp: Option<Vec<u8>>, snapshot: Option<Vec<u8>>, targets: Option<Vec<u8>>) {
        let root = &self.root;
        self.timestamp = timestamp.and_then(|b| parse_timestamp(root, &b).ok());
        self.snapshot = snapshot.and_then(|b| parse_snapshot(root, &b).ok());
        self.targets = targets.and_then(|b| verified(&keyring(root, &Role::Targets).ok()?, &Role::Targets, &b).ok());
    }

    /// 5.4: replaces the timestamp. `Ok(false)`: it is the one that is trusted already (5.4.3).
    pub(super) fn update_timestamp(&mut self, bytes: &[u8], floors: &Floors, now: Timestamp) -> Result<bool, Refused> {
        let new = parse_timestamp(&self.root, bytes)?;
        let snapshot = listed(&new)?.version;
        if let Some(old) = &self.timestamp {
            not_below(&Role::Timestamp, old.version(), new.version())?;
            if old.version() == new.version() {
                return Ok(false);
            }
            not_below(&Role::Snapshot, listed(old)?.version, snapshot)?;
        }
        not_below(&Role::Timestamp, floors.timestamp, new.version())?;
        not_below(&Role::Snapshot, floors.snapshot, snapshot)?;
        new.check_expiry(now)?;
        self.timestamp = Some(new);
        Ok(true)
    }

    /// The timestamp that counts must be fresh, even when no newer one was offered.
    pub(super) fn settle_timestamp(&self, floors: &Floors, now: Timestamp) -> Result<(), Refused> {
        let timestamp = present(&self.timestamp, &Role::Timestamp)?;
        not_below(&Role::Timestamp, floors.timestamp, timestamp.version())?;
        not_below(&Role::Snapshot, floors.snapshot, listed(timestamp)?.version)?;
        timestamp.check_expiry(now)
    }

    /// How the snapshot to have is listed.
    pub(super) fn snapshot_listed(&self) -> Result<&MetaFile, Refused> {
        listed(present(&self.timestamp, &Role::Timestamp)?)
    }

    /// Whether the trusted snapshot is the listed one.
    pub(super) fn snapshot_is_current(&self) -> Result<bool, Refused> {
        let listed = self.snapshot_listed()?;
        Ok(self.snapshot.as_ref().is_some_and(|s| is(s, listed)))
    }

    /// 5.5: replaces the snapshot.
    pub(super) fn update_snapshot(&mut self, bytes: &[u8], floors: &Floors, now: Timestamp) -> Result<(), Refused> {
        let listed = self.snapshot_listed()?;
        listed.check(&Role::Snapshot, bytes)?;
        let new = parse_snapshot(&self.root, bytes)?;
        exactly(&new, listed)?;
        for (name, old) in self.snapshot.iter().flat_map(|s| &s.body.meta) {
            let role = role_listed_as(name);
            match new.body.meta.get(name) {
                None => return Err(Refused::Dropped { role, trusted: old.version }),
                Some(file) => not_below(&role, old.version, file.version)?,
            }
        }
        not_below(&Role::Targets, floors.targets, targets_in(&new)?.version)?;
        new.check_expiry(now)?;
        self.snapshot = Some(new);
        Ok(())
    }

    /// The snapshot that counts must be fresh, even when it was there already.
    pub(super) fn settle_snapshot(&self, floors: &Floors, now: Timestamp) -> Result<(), Refused> {
        let snapshot = present(&self.snapshot, &Role::Snapshot)?;
        not_below(&Role::Targets, floors.targets, targets_in(snapshot)?.version)?;
        snapshot.check_expiry(now)
    }

    /// How the metadata of `role` (targets or delegated) is listed.
    pub(super) fn listed(&self, role: &Role) -> Result<&MetaFile, Refused> {
        let snapshot = present(&self.snapshot, &Role::Snapshot)?;
        snapshot
            .body
            .meta
            .get(&role.listed_as())
            .ok_or_else(|| Refused::Invalid { role: Role::Snapshot, reason: format!("it does not list {role}") })
    }

    /// Whether the trusted targets metadata is the listed one.
    pub(super) fn targets_are_current(&self) -> Result<bool, Refused> {
        let listed = self.listed(&Role::Targets)?;
        Ok(self.targets.as_ref().is_some_and(|t| is(t, listed)))
    }

    /// 5.6: replaces the top-level targets metadata.
    pub(super) fn update_targets(&mut self, bytes: &[u8], now: Timestamp) -> Result<(), Refused> {
        let keys = keyring(&self.root, &Role::Targets)?;
        let targets = self.verified_targets(&Role::Targets, &keys, bytes, now)?;
        self.targets = Some(targets);
        Ok(())
    }

    /// The targets metadata that counts must be fresh.
    pub(super) fn settle_targets(&self, now: Timestamp) -> Result<(), Refused> {
        present(&self.targets, &Role::Targets)?.check_expiry(now)
    }

    /// 5.6.7: metadata of a delegated role, verified by the keys of whoever delegated to it.
    pub(super) fn delegated(
        &self,
        visit: &Visit,
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<Document<TargetsBody>, Refused> {
        self.verified_targets(&visit.role, &visit.keys, bytes, now)
    }

    fn verified_targets(
        &self,
        role: &Role,
        keys: &Keyring,
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<Document<TargetsBody>, Refused> {
        let listed = self.listed(role)?;
        listed.check(role, bytes)?;
        let targets = verified(keys, role, bytes)?;
        exactly(&targets, listed)?;
        targets.check_expiry(now)?;
        Ok(targets)
    }
}

fn parse_root(bytes: &[u8]) -> Result<Document<Root>, Refused> {
    let root: Document<Root> = Document::parse(&Role::Root, bytes)?;
    for role in [Role::Root, Role::Timestamp, Role::Snapshot, Role::Targets] {
        keyring(&root, &role)?;
    }
    Ok(root)
}

fn keyring(root: &Document<Root>, role: &Role) -> Result<Keyring, Refused> {
    let keys = root.body.roles.get(role.name()).filter(|keys| keys.threshold > 0);
    let invalid = || Refused::Invalid { role: Role::Root, reason: format!("it names no keys for {role}") };
    Ok(Keyring::new(&root.body.keys, keys.ok_or_else(invalid)?))
}

fn online_keys(root: &Document<Root>) -> BTreeSet<String> {
    let of = |role: &Role| {
        let keyring = keyring(root, role).ok();
        let keys: Vec<_> = keyring.iter().flat_map(Keyring::fingerprints).collect();
        keys.into_iter().map(move |key| format!("{}:{key}", role.name())).collect::<Vec<_>>()
    };
    [Role::Timestamp, Role::Snapshot].iter().flat_map(of).collect()
}

fn verified<T: serde::de::DeserializeOwned>(keys: &Keyring, role: &Role, bytes: &[u8]) -> Result<Document<T>, Refused> {
    let document = Document::parse(role, bytes)?;
    keys.verify(&document)?;
    Ok(document)
}

fn parse_timestamp(root: &Document<Root>, bytes: &[u8]) -> Result<Document<TimestampBody>, Refused> {
    let timestamp = verified(&keyring(root, &Role::Timestamp)?, &Role::Timestamp, bytes)?;
    listed(&timestamp)?;
    Ok(timestamp)
}

fn parse_snapshot(root: &Document<Root>, bytes: &[u8]) -> Result<Document<SnapshotBody>, Refused> {
    let snapshot = verified(&keyring(root, &Role::Snapshot)?, &Role::Snapshot, bytes)?;
    targets_in(&snapshot)?;
    Ok(snapshot)
}

fn listed(timestamp: &Document<TimestampBody>) -> Result<&MetaFile, Refused> {
    let missing = || Refused::Invalid { role: Role::Timestamp, reason: "it lists no snapshot".to_owned() };
    timestamp.body.meta.get(SNAPSHOT).ok_or_else(missing)
}

fn targets_in(snapshot: &Document<SnapshotBody>) -> Result<&MetaFile, Refused> {
    let missing = || Refused::Invalid { role: Role::Snapshot, reason: "it lists no targets".to_owned() };
    snapshot.body.meta.get(TARGETS).ok_or_else(missing)
}

fn role_listed_as(name: &str) -> Role {
    match name.strip_suffix(".json").unwrap_or(name) {
        "targets" => Role::Targets,
        other => Role::Delegated(other.to_owned()),
    }
}

fn present<'a, T>(document: &'a Option<Document<T>>, role: &Role) -> Result<&'a Document<T>, Refused> {
    document.as_ref().ok_or_else(|| Refused::Invalid { role: role.clone(), reason: "it was not received".to_owned() })
}

fn not_below(role: &Role, trusted: u64, offered: u64) -> Result<(), Refused> {
    if offered < trusted {
        return Err(Refused::Rollback { role: role.clone(), trusted, offered });
    }
    Ok(())
}

fn is<T>(document: &Document<T>, listed: &MetaFile) -> bool {
    document.version() == listed.version && listed.check(&document.role, &document.bytes).is_ok()
}

fn exactly<T>(document: &Document<T>, listed: &MetaFile) -> Result<(), Refused> {
    if document.version() != listed.version {
        let (role, listed, found) = (document.role.clone(), listed.version, document.version());
        return Err(Refused::WrongVersion { role, listed, found });
    }
    Ok(())
}
