//! Changes of trust: new keys, lost keys, and a root that several people must sign.
//!
//! A new root needs the signatures of the root before and of itself. While they are being collected it waits in
//! `root.pending.json` of the repository folder, outside `metadata/`, where no device looks.

use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use tough::key_source::KeySource;
use tough::schema::{Root, Signed};

use super::keys::{KeyFile, KeyRing, key_id};
use super::repository::{Folder, Repository, next, write};
use super::signing::{expiry, sign_with};
use super::{PublishError, Reach, Role};
use crate::durable;
use crate::read::hex;

/// Where a root waits for signatures.
pub(super) const PENDING: &str = "root.pending.json";

/// Which key of a role goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goes {
    /// The only one it has.
    Only,
    /// The one whose identifier begins so.
    Id(String),
    /// The only one whose private half is not at hand.
    Lost,
}

/// What became of a change of trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotated {
    /// It is published.
    Published {
        /// Version of the root.
        version: u64,
        /// How far the rest came.
        reach: Reach,
    },
    /// More keys must sign it.
    Pending {
        /// The file to carry to who has them, and back.
        path: PathBuf,
        /// Valid signatures by keys of the root before.
        old: (usize, u64),
        /// Valid signatures by keys of the new root.
        new: (usize, u64),
    },
}

impl Repository {
    /// Replaces a key of a role by a new one, which is made in the first folder of `keys`. The old key is not needed, unless root
    /// cannot reach its threshold without it: so a key that is lost is replaced like any other. Returns the new key's file.
    ///
    /// # Errors
    /// It is not clear which key goes, no folder is given, or the disk fails.
    pub fn rotate(
        &mut self,
        role: Role,
        goes: &Goes,
        keys: &mut KeyRing,
        now: Timestamp,
    ) -> Result<(PathBuf, Rotated), PublishError> {
        self.none_pending()?;
        let mut root = self.root.signed.clone();
        let old = revoked(&root, role, goes, keys)?;
        let home = keys.home().ok_or_else(|| PublishError::refused("say with --keys where the new key goes"))?;
        let key = KeyFile::generate(home, |id| format!("{role}-{id}.key"))?;
        let path = key.path.clone();
        let id = key.public.key_id().map_err(|e| PublishError::Sign { role, reason: e.to_string() })?;
        root.keys.insert(id.clone(), key.public.clone());
        if let Some(of_role) = root.roles.get_mut(&role.tough()) {
            of_role.keyids.retain(|listed| hex(listed) != old);
            of_role.keyids.push(id);
        }
        let used = |id: &String| root.roles.values().any(|of| of.keyids.iter().any(|listed| hex(listed) == *id));
        if !used(&old) {
            root.keys.retain(|listed, _| hex(listed) != old);
        }
        keys.add(key);
        Ok((path, self.new_root(root, keys, now)?))
    }

    /// A new version of root with the same keys and a later expiry date.
    ///
    /// # Errors
    /// Another root waits for signatures, or the disk fails.
    pub fn renew_root(&mut self, keys: &KeyRing, now: Timestamp) -> Result<Rotated, PublishError> {
        self.none_pending()?;
        self.new_root(self.root.signed.clone(), keys, now)
    }

    /// Adds the signatures of the keys at hand to the root that waits for them.
    ///
    /// # Errors
    /// None waits, it follows from another root, no key fits, or the disk fails.
    pub fn sign_root(&mut self, keys: &KeyRing, now: Timestamp) -> Result<Rotated, PublishError> {
        let path = self.dir.join(PENDING);
        if !path.exists() {
            return Err(PublishError::refused("no root waits for signatures"));
        }
        let bytes = Folder { dir: self.dir.clone() }.bytes(&path)?;
        let pending: Signed<Root> = serde_json::from_slice(&bytes).map_err(|e| PublishError::Metadata {
            path: path.clone(),
            reason: format!("no root metadata ({e}): remove it and begin again"),
        })?;
        if pending.signed.version != next(self.root.signed.version) {
            let reason = format!("does not follow root {}: remove it and begin again", self.root.signed.version);
            return Err(PublishError::Metadata { path, reason });
        }
        if sources(&self.root.signed, &pending.signed, keys).is_empty() {
            return Err(PublishError::refused(format!("no key of root is in {}", keys.looked())));
        }
        self.collect(pending.signed.clone(), &pending, keys, now)
    }

    fn none_pending(&self) -> Result<(), PublishError> {
        let path = self.dir.join(PENDING);
        if path.exists() {
            return Err(PublishError::refused(format!(
                "{}: a root waits for signatures; finish it with `kinewatch publish sign`, or remove it",
                path.display()
            )));
        }
        Ok(())
    }

    fn new_root(&mut self, mut root: Root, keys: &KeyRing, now: Timestamp) -> Result<Rotated, PublishError> {
        root.version = next(self.root.signed.version);
        root.expires = expiry(&root, Role::Root, now)?;
        let unsigned = Signed { signed: root.clone(), signatures: Vec::new() };
        self.collect(root, &unsigned, keys, now)
    }

    /// Signs with what is at hand, keeps what had been signed before, and publishes when it is enough.
    fn collect(
        &mut self,
        root: Root,
        before: &Signed<Root>,
        keys: &KeyRing,
        now: Timestamp,
    ) -> Result<Rotated, PublishError> {
        let failed = |reason: String| PublishError::Sign { role: Role::Root, reason };
        // The editor signs for keys of one root; those that only the old one has sign by way of that.
        let mut signatures = before.signatures.clone();
        for holder in [&root, &self.root.signed] {
            let sources: Vec<Box<dyn KeySource>> = keys.of(holder, Role::Root).map(KeyFile::source).collect();
            if !sources.is_empty() {
                let signed = sign_with(Role::Root, root.clone(), holder, &sources)?;
                signatures = signed
                    .add_old_signatures(signatures)
                    .map_err(|e| failed(e.to_string()))?
                    .signed()
                    .signatures
                    .clone();
            }
        }
        let merged = Signed { signed: root, signatures };
        let mut bytes = serde_json::to_vec_pretty(&merged).map_err(|e| failed(e.to_string()))?;
        bytes.push(b'\n');
        let path = self.dir.join(PENDING);
        write(&path, &bytes)?;
        if self.root.signed.verify_role(&merged).is_err() || merged.signed.verify_role(&merged).is_err() {
            let old = signed_by(&self.root.signed, &merged);
            let new = signed_by(&merged.signed, &merged);
            return Ok(Rotated::Pending { path, old, new });
        }
        let version = merged.signed.version.get();
        self.root = merged;
        // From here on devices want what follows to be signed by the new keys; where that fails, `refresh` does it.
        let published = self.dir.join("metadata").join(format!("{version}.root.json"));
        durable::rename(&path, &published).map_err(PublishError::io(&published))?;
        let reach = self.renewed(keys, now)?;
        Ok(Rotated::Published { version, reach })
    }

    /// Under a new root, signs anew whatever its keys no longer cover.
    fn renewed(&mut self, keys: &KeyRing, now: Timestamp) -> Result<Reach, PublishError> {
        let root = &self.root.signed;
        let has = |role| keys.suffice(root, role);
        let targets = root.verify_role(&self.targets).is_err();
        let online = root.verify_role(&self.snapshot).is_err() || root.verify_role(&self.timestamp).is_err();
        if targets && has(Role::Targets) {
            return self.publish(self.targets.signed.clone(), keys, now);
        }
        if !targets && !online {
            return Ok(Reach::Published);
        }
        if !targets && has(Role::Snapshot) && has(Role::Timestamp) {
            self.publish_online(keys, now)?;
            return Ok(Reach::Published);
        }
        Ok(Reach::AwaitsOnlineKeys)
    }

    /// Throws away a root that waits for signatures. Whether there was one.
    ///
    /// # Errors
    /// The disk fails.
    pub fn discard_pending(&self) -> Result<bool, PublishError> {
        let path = self.dir.join(PENDING);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(PublishError::io(path)(e)),
        }
    }
}

/// The identifier of the key that goes.
fn revoked(root: &Root, role: Role, goes: &Goes, keys: &KeyRing) -> Result<String, PublishError> {
    let ids: Vec<String> = root.keys(role.tough()).map(key_id).collect();
    let at_hand: Vec<String> = keys.of(root, role).map(|key| key_id(&key.public)).collect();
    let fits = |id: &&String| match goes {
        Goes::Only => true,
        Goes::Id(digits) => !digits.is_empty() && id.starts_with(digits.as_str()),
        Goes::Lost => !at_hand.contains(*id),
    };
    let found: Vec<&String> = ids.iter().filter(fits).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        found => {
            let short: Vec<&str> = ids.iter().map(|id| &id[..id.len().min(8)]).collect();
            Err(PublishError::refused(format!(
                "{role} has the keys {}, of which {} could be meant: say with --revoke which one goes",
                short.join(", "),
                found.len()
            )))
        }
    }
}

fn sources(old: &Root, new: &Root, keys: &KeyRing) -> Vec<PathBuf> {
    [old, new].into_iter().flat_map(|root| keys.of(root, Role::Root)).map(|key| key.path.clone()).collect()
}

/// Signatures by keys of `root`'s root role, and how many it takes.
fn signed_by(root: &Root, signed: &Signed<Root>) -> (usize, u64) {
    let Some(role) = root.roles.get(&Role::Root.tough()) else { return (0, u64::MAX) };
    let count = signed.signatures.iter().filter(|s| role.keyids.contains(&s.keyid)).count();
    (count, role.threshold.get())
}
