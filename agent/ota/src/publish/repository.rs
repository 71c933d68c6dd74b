//! The folder: read as it is, and changed so that it is whole at every moment.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp as Time;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tough::TargetName;
use tough::editor::signed::SignedRole;
use tough::schema::{
    Hashes, Metafile, Role as ToughRole, RoleKeys, Root, Signed, Snapshot, Target, Targets, Timestamp,
};

use super::keys::{KeyFile, KeyRing};
use super::lock::Lock;
use super::signing::{EXPIRY_DAYS, SPEC_VERSION, expiry, sign};
use super::{PublishError, Reach, Role};
use crate::durable;
use crate::read::{bounded, hex};
use crate::tuf::Limits;

/// Days that metadata is valid from when it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of root.
    pub root: i64,
    /// Of targets.
    pub targets: i64,
    /// Of snapshot.
    pub snapshot: i64,
    /// Of timestamp: how long a mirror may keep the fleet from hearing news.
    pub timestamp: i64,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { root: 365, targets: 90, snapshot: 14, timestamp: 3 }
    }
}

impl Lifetimes {
    pub(super) fn days(self, role: Role) -> i64 {
        match role {
            Role::Root => self.root,
            Role::Targets => self.targets,
            Role::Snapshot => self.snapshot,
            Role::Timestamp => self.timestamp,
        }
    }
}

/// Keys of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// How many are made.
    pub count: u32,
    /// How many must sign.
    pub threshold: u32,
}

impl Quorum {
    /// One key, which signs.
    pub const ONE: Self = Self { count: 1, threshold: 1 };
}

/// Keys of the roles that people sign for. Snapshot and timestamp have one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorums {
    /// Of root.
    pub root: Quorum,
    /// Of targets: whoever has fewer of them than must sign publishes nothing, with the online keys as well.
    pub targets: Quorum,
}

impl Default for Quorums {
    fn default() -> Self {
        Self { root: Quorum::ONE, targets: Quorum::ONE }
    }
}

impl Quorums {
    fn of(self, role: Role) -> Quorum {
        match role {
            Role::Root => self.root,
            Role::Targets => self.targets,
            Role::Snapshot | Role::Timestamp => Quorum::ONE,
        }
    }
}

/// What `init` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Private keys.
    pub keys: Vec<PathBuf>,
    /// The trust anchor for devices.
    pub anchor: PathBuf,
}

/// A repository folder, as it is on the disk.
#[derive(Debug)]
pub struct Repository {
    pub(super) dir: PathBuf,
    pub(super) root: Signed<Root>,
    pub(super) targets: Signed<Targets>,
    pub(super) snapshot: Signed<Snapshot>,
    pub(super) timestamp: Signed<Timestamp>,
    _lock: Option<Lock>,
}

impl Repository {
    /// Makes an empty repository in `dir`, and its keys in `key_dir`: `root-1.key` …, `targets-1.key` …, `snapshot-1.key` and
    /// `timestamp-1.key`. Neither may be there in part already.
    ///
    /// # Errors
    /// There is a repository or a key already, the figures make no sense, or the disk fails.
    pub fn create(
        dir: &Path,
        key_dir: &Path,
        quorums: Quorums,
        lifetimes: Lifetimes,
        now: Time,
    ) -> Result<Created, PublishError> {
        for role in [Role::Root, Role::Targets] {
            let Quorum { count, threshold } = quorums.of(role);
            if threshold == 0 || threshold > count || count > 16 {
                let reason = format!("{role} needs 1 to 16 keys, and a threshold of 1 to as many");
                return Err(PublishError::refused(reason));
            }
        }
        if Role::ALL.iter().any(|role| !(1..=3650).contains(&lifetimes.days(*role))) {
            return Err(PublishError::refused("metadata is valid for 1 to 3650 days"));
        }
        DirBuilder::new().recursive(true).create(dir).map_err(PublishError::io(dir))?;
        let _alone = Lock::acquire(dir, Duration::ZERO, || {})?;
        if dir.join("metadata").exists() {
            return Err(PublishError::refused(format!("{}: there is a repository already", dir.display())));
        }
        let key = |role: Role, n: u32| KeyFile::generate(key_dir, |_| format!("{role}-{n}.key")).map(|key| (role, key));
        let wanted = Role::ALL.into_iter().flat_map(|role| (1..=quorums.of(role).count).map(move |n| (role, n)));
        let made: Vec<(Role, KeyFile)> = wanted.map(|(role, n)| key(role, n)).collect::<Result<_, _>>()?;
        let mut ring = KeyRing::read(&[])?;
        made.iter().for_each(|(_, key)| ring.add(key.clone()));
        let body = first_root(&made, quorums, lifetimes, now)?;
        let root = sign(Role::Root, body.clone(), &body, &ring)?;
        let targets = Targets::new(SPEC_VERSION.into(), NonZeroU64::MIN, expiry(&body, Role::Targets, now)?);
        DirBuilder::new().recursive(true).create(dir.join("targets")).map_err(PublishError::io(dir))?;
        let folder = Folder { dir: dir.to_owned() };
        folder.write_role(&root)?;
        folder.publish(&body, None, targets, &ring, now)?;
        let keys = made.into_iter().map(|(_, key)| key.path).collect();
        Ok(Created { keys, anchor: dir.join("metadata/1.root.json") })
    }

    /// Opens the repository in `dir` as the only one who writes it, for as long as this lives. Waits for another one, for
    /// `patience` at most; `waits` is called once, where there is one.
    ///
    /// # Errors
    /// As [`Self::open`], or the other one does not come to an end.
    pub fn open_to_write(dir: &Path, patience: Duration, waits: impl FnOnce()) -> Result<Self, PublishError> {
        if !dir.join("metadata").is_dir() {
            return Err(none_there(dir));
        }
        let lock = Lock::acquire(dir, patience, waits)?;
        Ok(Self { _lock: Some(lock), ..Self::open(dir)? })
    }

    /// Reads the repository in `dir`: its newest root, its newest list of files, and what they hang from. Signatures of root
    /// are verified here; those of the others are when something is built on them. To change it, see [`Self::open_to_write`].
    ///
    /// # Errors
    /// There is none, or a file is not what it must be.
    pub fn open(dir: &Path) -> Result<Self, PublishError> {
        let folder = Folder { dir: dir.to_owned() };
        let newest = folder.newest("root.json")?.ok_or_else(|| none_there(dir))?;
        let root: Signed<Root> = folder.read(&format!("{newest}.root.json"))?;
        root.signed.verify_role(&root).map_err(|e| PublishError::Metadata {
            path: folder.metadata(&format!("{newest}.root.json")),
            reason: format!("{e}; restore it from the server"),
        })?;
        let timestamp: Signed<Timestamp> = folder.read("timestamp.json")?;
        let version = timestamp.signed.meta.get("snapshot.json").map_or(1, |meta| meta.version.get());
        let snapshot = folder.read(&format!("{version}.snapshot.json"))?;
        // A list that awaits the online keys is newer than the one in the snapshot.
        let version = folder.newest("targets.json")?.unwrap_or(1);
        let targets = folder.read(&format!("{version}.targets.json"))?;
        Ok(Self { dir: dir.to_owned(), root, targets, snapshot, timestamp, _lock: None })
    }

    /// Signs timestamp and snapshot anew, so that their expiry dates move on; with them whatever awaits the online keys. The
    /// list of files is signed anew too when enough of its keys are at hand and half of its time is over.
    ///
    /// # Errors
    /// A key is missing, or the disk fails.
    pub fn refresh(&mut self, keys: &KeyRing, now: Time) -> Result<Reach, PublishError> {
        let half =
            jiff::SignedDuration::from_hours(12 * super::signing::lifetime_days(&self.root.signed, Role::Targets));
        let old = super::signing::expires(&self.targets).duration_since(now) < half;
        let signable = keys.suffice(&self.root.signed, Role::Targets);
        let targets = self.targets.signed.clone();
        if old && signable || self.root.signed.verify_role(&self.targets).is_err() {
            return self.publish(targets, keys, now);
        }
        self.publish_online(keys, now)?;
        Ok(Reach::Published)
    }

    /// Signs a new list of files and, when their keys are at hand, what hangs from it.
    pub(super) fn publish(&mut self, targets: Targets, keys: &KeyRing, now: Time) -> Result<Reach, PublishError> {
        self.verify_targets()?;
        let folder = Folder { dir: self.dir.clone() };
        let mut targets = targets;
        targets.version = next(self.targets.signed.version);
        targets.expires = expiry(&self.root.signed, Role::Targets, now)?;
        let online = [Role::Snapshot, Role::Timestamp].iter().all(|role| keys.suffice(&self.root.signed, *role));
        if !online {
            let signed = sign(Role::Targets, targets, &self.root.signed, keys)?;
            folder.write_role(&signed)?;
            self.targets = signed.signed().clone();
            return Ok(Reach::AwaitsOnlineKeys);
        }
        let before = Some((&self.snapshot.signed, &self.timestamp.signed));
        (self.targets, (self.snapshot, self.timestamp)) =
            folder.publish(&self.root.signed, before, targets, keys, now)?;
        Ok(Reach::Published)
    }

    /// Whether the list of files, on which all else is built, is the publisher's own: signed under the newest root, or under the
    /// one before when a rotation was cut off. Else whoever can write the folder would have it signed.
    fn verify_targets(&self) -> Result<(), PublishError> {
        let folder = Folder { dir: self.dir.clone() };
        let before = |error| {
            let version = self.root.signed.version.get() - 1;
            let root: Signed<Root> = folder.read(&format!("{version}.root.json")).map_err(|_| error)?;
            // One that the newest root does not follow on is not ours either.
            root.signed.verify_role(&self.root)?;
            root.signed.verify_role(&self.targets)
        };
        self.root.signed.verify_role(&self.targets).or_else(before).map_err(|e| PublishError::Metadata {
            path: folder.metadata(&self.targets.signed.filename(true)),
            reason: format!("{e}; restore it from the server"),
        })
    }

    /// Signs snapshot and timestamp over the newest list of files.
    pub(super) fn publish_online(&mut self, keys: &KeyRing, now: Time) -> Result<(), PublishError> {
        self.verify_targets()?;
        let folder = Folder { dir: self.dir.clone() };
        let before = Some((&self.snapshot.signed, &self.timestamp.signed));
        let bytes = folder.bytes(&folder.metadata(&self.targets.signed.filename(true)))?;
        (self.snapshot, self.timestamp) =
            folder.publish_online(&self.root.signed, before, (&self.targets.signed, &bytes), keys, now)?;
        Ok(())
    }

    /// A file of the repository that its signed list has, whole.
    pub(super) fn target(&self, name: &str) -> Result<Option<Vec<u8>>, PublishError> {
        let Some(target) = self.listed(name) else { return Ok(None) };
        let path = self.target_path(name, target);
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(PublishError::io(&path))?;
        file.take(target.length + 1).read_to_end(&mut bytes).map_err(PublishError::io(&path))?;
        if Sha256::digest(&bytes)[..] != target.hashes.sha256[..] {
            let reason = "is not the file that was signed: restore it from the server".to_owned();
            return Err(PublishError::Metadata { path, reason });
        }
        Ok(Some(bytes))
    }

    pub(super) fn listed(&self, name: &str) -> Option<&Target> {
        self.targets.signed.targets.iter().find(|(listed, _)| listed.raw() == name).map(|(_, target)| target)
    }

    /// Where a target lies: beside its name stands its digest (TUF specification 6.2), so old and new can be there together.
    pub(super) fn target_path(&self, name: &str, target: &Target) -> PathBuf {
        target_path(&self.dir, name, &hex(&target.hashes.sha256))
    }
}

/// See [`Repository::target_path`].
pub(super) fn target_path(dir: &Path, name: &str, sha256: &str) -> PathBuf {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    dir.join("targets").join(folder).join(format!("{sha256}.{file}"))
}

fn none_there(dir: &Path) -> PublishError {
    PublishError::refused(format!("{}: no repository; make one with `kinewatch publish init`", dir.display()))
}

/// What the list says of a file.
pub(super) fn target(sha256: &[u8], length: u64) -> Target {
    let hashes = Hashes { sha256: sha256.to_vec().into(), _extra: Default::default() };
    Target { length, hashes, custom: Default::default(), _extra: Default::default() }
}

pub(super) fn target_name(name: &str) -> Result<TargetName, PublishError> {
    TargetName::new(name).map_err(|e| PublishError::refused(e.to_string()))
}

pub(super) fn next(version: NonZeroU64) -> NonZeroU64 {
    version.saturating_add(1)
}

fn first_root(
    keys: &[(Role, KeyFile)],
    quorums: Quorums,
    lifetimes: Lifetimes,
    now: Time,
) -> Result<Root, PublishError> {
    let mut root = Root {
        spec_version: SPEC_VERSION.into(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        // Replaced below, once the root says how long it lasts.
        expires: Default::default(),
        keys: Default::default(),
        roles: Default::default(),
        _extra: Default::default(),
    };
    for role in Role::ALL {
        let mut keyids = Vec::new();
        for (_, key) in keys.iter().filter(|(of, _)| *of == role) {
            let id = key.public.key_id().map_err(|e| PublishError::Sign { role, reason: e.to_string() })?;
            root.keys.insert(id.clone(), key.public.clone());
            keyids.push(id);
        }
        let threshold = NonZeroU64::new(quorums.of(role).threshold.into()).unwrap_or(NonZeroU64::MIN);
        let extra = [(EXPIRY_DAYS.to_owned(), lifetimes.days(role).into())].into_iter().collect();
        root.roles.insert(role.tough(), RoleKeys { keyids, threshold, _extra: extra });
    }
    root.expires = expiry(&root, Role::Root, now)?;
    Ok(root)
}

/// Files of the folder.
pub(super) struct Folder {
    pub(super) dir: PathBuf,
}

type Before<'a> = Option<(&'a Snapshot, &'a Timestamp)>;
type Online = (Signed<Snapshot>, Signed<Timestamp>);

impl Folder {
    pub(super) fn metadata(&self, name: &str) -> PathBuf {
        self.dir.join("metadata").join(name)
    }

    /// Highest version among files `N.NAME`.
    pub(super) fn newest(&self, name: &str) -> Result<Option<u64>, PublishError> {
        let dir = self.dir.join("metadata");
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(PublishError::io(&dir))?,
        };
        let version = |file: String| file.strip_suffix(name)?.strip_suffix('.')?.parse().ok();
        Ok(entries.filter_map(|entry| version(entry.ok()?.file_name().into_string().ok()?)).max())
    }

    pub(super) fn bytes(&self, path: &Path) -> Result<Vec<u8>, PublishError> {
        let file = File::open(path).map_err(PublishError::io(path))?;
        bounded(path, file, Limits::default().targets).map_err(|e| PublishError::Metadata {
            path: path.to_owned(),
            reason: format!("{e}; restore it from the server"),
        })
    }

    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Signed<T>, PublishError> {
        let path = self.metadata(name);
        let bytes = self.bytes(&path)?;
        serde_json::from_slice(&bytes).map_err(|e| PublishError::Metadata {
            path,
            reason: format!("no metadata of the expected role ({e}): restore it from the server"),
        })
    }

    pub(super) fn write_role<T: ToughRole + Serialize>(&self, role: &SignedRole<T>) -> Result<(), PublishError> {
        let path = self.metadata(&role.signed().signed.filename(true));
        if role.buffer().len() as u64 > Limits::default().targets {
            let reason = "it would be larger than devices accept: take old releases out of the repository".to_owned();
            return Err(PublishError::Metadata { path, reason });
        }
        write(&path, role.buffer())
    }

    /// Targets, snapshot and timestamp, in this order.
    fn publish(
        &self,
        root: &Root,
        before: Before<'_>,
        targets: Targets,
        keys: &KeyRing,
        now: Time,
    ) -> Result<(Signed<Targets>, Online), PublishError> {
        let targets = sign(Role::Targets, targets, root, keys)?;
        self.write_role(&targets)?;
        let of = (&targets.signed().signed, targets.buffer().as_slice());
        let online = self.publish_online(root, before, of, keys, now)?;
        Ok((targets.signed().clone(), online))
    }

    fn publish_online(
        &self,
        root: &Root,
        before: Before<'_>,
        targets: (&Targets, &[u8]),
        keys: &KeyRing,
        now: Time,
    ) -> Result<Online, PublishError> {
        let (snapshot_version, timestamp_version) =
            before.map_or((NonZeroU64::MIN, NonZeroU64::MIN), |(s, t)| (next(s.version), next(t.version)));
        let expires = expiry(root, Role::Snapshot, now)?;
        let mut snapshot = Snapshot::new(SPEC_VERSION.into(), snapshot_version, expires);
        snapshot.meta.insert("targets.json".into(), metafile(targets.0.version, targets.1));
        let snapshot = sign(Role::Snapshot, snapshot, root, keys)?;
        let expires = expiry(root, Role::Timestamp, now)?;
        let mut timestamp = Timestamp::new(SPEC_VERSION.into(), timestamp_version, expires);
        timestamp.meta.insert("snapshot.json".into(), metafile(snapshot_version, snapshot.buffer()));
        // Both signatures before the first file: a key that is missing must change nothing.
        let timestamp = sign(Role::Timestamp, timestamp, root, keys)?;
        self.write_role(&snapshot)?;
        self.write_role(&timestamp)?;
        Ok((snapshot.signed().clone(), timestamp.signed().clone()))
    }
}

fn metafile(version: NonZeroU64, bytes: &[u8]) -> Metafile {
    let hashes = Hashes { sha256: Sha256::digest(bytes).to_vec().into(), _extra: Default::default() };
    Metafile { length: Some(bytes.len() as u64), hashes: Some(hashes), version, _extra: Default::default() }
}

/// A whole file or none, in a folder that may be new.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), PublishError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).create(dir).map_err(PublishError::io(dir))?;
    durable::write(path, bytes).map_err(PublishError::io(path))
}
