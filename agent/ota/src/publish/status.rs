//! What is published, and until when it is valid.

use jiff::Timestamp;
use kinewatch_core::rollout::Channel;
use semver::Version;
use serde::Serialize;
use tough::schema::{Role as ToughRole, Root, Signed, Target, Targets};

use super::keys::{KeyRing, key_id};
use super::repository::Repository;
use super::signing::expires;
use super::{PublishError, Role};
use crate::read::hex;

/// What is published.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Roles, root first.
    pub roles: Vec<RoleStatus>,
    /// Channels, by name and model.
    pub channels: Vec<ChannelStatus>,
    /// Releases, by model and version.
    pub releases: Vec<ReleaseStatus>,
    /// Whether a root waits for signatures.
    pub pending_root: bool,
    /// The list of files is newer than what devices see: the online keys must sign.
    pub awaits_online_keys: bool,
}

/// A role.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoleStatus {
    /// Its name.
    pub role: &'static str,
    /// Version of its metadata.
    pub version: u64,
    /// From then on devices refuse it.
    pub expires: Timestamp,
    /// Whether it is signed by enough keys of the newest root.
    pub signed: bool,
    /// Signatures that it takes.
    pub threshold: u64,
    /// Keys.
    pub keys: Vec<KeyStatus>,
}

/// A key of a role.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeyStatus {
    /// Identifier.
    pub id: String,
    /// Its private half, when that is at hand.
    pub file: Option<std::path::PathBuf>,
}

/// A channel of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChannelStatus {
    /// The signed file.
    #[serde(flatten)]
    pub file: Channel,
}

/// A release.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReleaseStatus {
    /// Model.
    pub model: String,
    /// Version.
    #[serde(serialize_with = "as_text")]
    pub version: Version,
    /// Bundle, bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// Channels that name it.
    pub channels: Vec<String>,
}

fn as_text<S: serde::Serializer>(version: &Version, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(version)
}

impl Repository {
    /// What is published. `keys`: those at hand, which may be none.
    ///
    /// # Errors
    /// A channel file is not the one that was signed.
    pub fn status(&self, keys: &KeyRing) -> Result<Status, PublishError> {
        let mut channels = Vec::new();
        for name in self.targets.signed.targets.keys() {
            let name = name.raw();
            let parts = name.strip_prefix("channels/").and_then(|n| n.strip_suffix(".json")?.split_once('/'));
            if let Some((channel, model)) = parts
                && let Some(file) = self.channel(channel, model)?
            {
                channels.push(ChannelStatus { file });
            }
        }
        channels.sort_by(|a, b| (&a.file.channel, &a.file.model).cmp(&(&b.file.channel, &b.file.model)));
        let mut found: Vec<ReleaseStatus> = releases(&self.targets.signed)
            .map(|(model, version, target)| ReleaseStatus {
                channels: channels
                    .iter()
                    .filter(|c| c.file.model == model && c.file.version == version)
                    .map(|c| c.file.channel.clone())
                    .collect(),
                bytes: target.length,
                sha256: hex(&target.hashes.sha256),
                model,
                version,
            })
            .collect();
        found.sort_by(|a, b| (&a.model, &a.version).cmp(&(&b.model, &b.version)));
        let seen = self.snapshot.signed.meta.get("targets.json").map(|meta| meta.version);
        Ok(Status {
            roles: vec![
                role(Role::Root, &self.root.signed, &self.root, keys),
                role(Role::Targets, &self.root.signed, &self.targets, keys),
                role(Role::Snapshot, &self.root.signed, &self.snapshot, keys),
                role(Role::Timestamp, &self.root.signed, &self.timestamp, keys),
            ],
            channels,
            releases: found,
            pending_root: self.dir.join(super::rotate::PENDING).exists(),
            awaits_online_keys: seen != Some(self.targets.signed.version),
        })
    }
}

fn role<T: ToughRole + Serialize>(role: Role, root: &Root, signed: &Signed<T>, keys: &KeyRing) -> RoleStatus {
    let file = |key: &tough::schema::key::Key| {
        keys.of(root, role).find(|file| file.public == *key).map(|file| file.path.clone())
    };
    RoleStatus {
        role: role.name(),
        version: signed.signed.version().get(),
        expires: expires(signed),
        signed: root.verify_role(signed).is_ok(),
        threshold: root.roles.get(&role.tough()).map_or(0, |keys| keys.threshold.get()),
        keys: root.keys(role.tough()).map(|key| KeyStatus { id: key_id(key), file: file(key) }).collect(),
    }
}

/// Model, version and entry of every bundle in the list.
pub(super) fn releases(targets: &Targets) -> impl Iterator<Item = (String, Version, &Target)> {
    targets.targets.iter().filter_map(|(name, target)| {
        let inner = name.raw().strip_prefix("models/")?.strip_suffix("/bundle.tar.zst")?;
        let (model, version) = inner.split_once('/')?;
        Some((model.to_owned(), Version::parse(version).ok()?, target))
    })
}
