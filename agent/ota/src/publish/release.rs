//! Releases and channels: what a package becomes in the repository, and who is to run it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kinewatch_core::manifest::{Manifest, labels_changed, same_frames};
use kinewatch_core::rollout::{Channel, Gates, Labels, Requires, SCHEMA, Wave};
use semver::{Version, VersionReq};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::keys::KeyRing;
use super::repository::{Repository, target, target_name, target_path, write};
use super::{PublishError, Reach};
use crate::bundle::{Bounds, pack, unpack};
use crate::read::hex;
use crate::{VerifiedPackage, durable};

/// Key of a target's `custom` part.
const CUSTOM: &str = "kinewatch";

/// What a channel shall say. What is `None` stays as it was on this channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChannelChange {
    /// Who may begin when; empty: everyone at once. Never kept from before.
    pub waves: Vec<Wave>,
    /// Other labels than the release before are meant. Never kept from before.
    pub labels_changed: bool,
    /// Versions of kinewatch.
    pub agent: Option<VersionReq>,
    /// Free disk space, MiB. `None`: what the release needs.
    pub min_free_mb: Option<u64>,
    /// What it must prove.
    pub gates: Option<Gates>,
}

impl Repository {
    /// Packs the package in `dir` and publishes it as a release. No device runs it before a channel names it. A release that
    /// is there with the same content is left as it is.
    ///
    /// # Errors
    /// The package is not what its manifest says, the version is there with other content, a key is missing, or the disk fails.
    pub fn add(
        &mut self,
        dir: &Path,
        keys: &KeyRing,
        now: Timestamp,
    ) -> Result<(VerifiedPackage, Option<Reach>), PublishError> {
        let work = Work::begin(&self.dir)?;
        let Bundle { package, sha256, length, unpacked_bytes, file } = bundle(dir, &work.0)?;
        let version = version(&package.manifest)?;
        let name = Channel::bundle_target(&package.manifest.name, &version);
        if let Some(listed) = self.listed(&name) {
            let same = listed.hashes.sha256[..] == sha256[..];
            return if same { Ok((package, None)) } else { Err(already(&package.manifest)) };
        }
        let path = target_path(&self.dir, &name, &hex(&sha256));
        let folder = path.parent().unwrap_or(&self.dir);
        DirBuilder::new().recursive(true).create(folder).map_err(PublishError::io(folder))?;
        durable::rename(&file, &path).map_err(PublishError::io(&path))?;
        let mut listed = target(&sha256, length);
        let facts = json!({ "package": package.digest, "unpacked_bytes": unpacked_bytes });
        listed.custom.insert(CUSTOM.into(), facts);
        let mut targets = self.targets.signed.clone();
        targets.add_target(target_name(&name)?, listed);
        let reach = self.publish(targets, keys, now)?;
        Ok((package, Some(reach)))
    }

    /// The channel file that devices read, when there is one.
    ///
    /// # Errors
    /// It is not the file that was signed, or breaks a rule.
    pub fn channel(&self, channel: &str, model: &str) -> Result<Option<Channel>, PublishError> {
        match self.target(&Channel::target(channel, model))? {
            Some(bytes) => Ok(Some(Channel::parse(&bytes)?)),
            None => Ok(None),
        }
    }

    /// Names the release of `model` that devices on `channel` shall run, with an epoch one higher than before. Going back to an
    /// older version is a change like any other.
    ///
    /// # Errors
    /// There is no such release, its labels differ and that is not said to be meant, it is to agree with one that it cannot be
    /// compared with, a key is missing, or the disk fails.
    pub fn set_channel(
        &mut self,
        channel: &str,
        model: &str,
        version: &Version,
        change: ChannelChange,
        keys: &KeyRing,
        now: Timestamp,
    ) -> Result<(Channel, Reach), PublishError> {
        let bundle = Channel::bundle_target(model, version);
        let Some(listed) = self.listed(&bundle) else {
            let there = self.releases(model).join(", ");
            let there = if there.is_empty() { "none".to_owned() } else { there };
            return Err(PublishError::refused(format!(
                "no release {version} of {model} (there: {there}); add the package first with `kinewatch publish add`"
            )));
        };
        let unpacked = listed.custom.get(CUSTOM).and_then(|facts| facts["unpacked_bytes"].as_u64()).unwrap_or(0);
        let needed = (listed.length + unpacked).div_ceil(1 << 20);
        let before = self.channel(channel, model)?;
        let kept = before.as_ref();
        let gates = change.gates.or_else(|| kept.map(|c| c.gates.clone())).unwrap_or_default();
        // What is published again is, to a device that was away, as new as it was.
        let again = kept.filter(|c| c.bundle == bundle).is_some_and(|c| c.labels == Labels::Changed);
        let labels = if change.labels_changed || again { Labels::Changed } else { Labels::Same };
        if let Some(before) = kept {
            succeeds(&self.manifest(&before.bundle)?, &self.manifest(&bundle)?, labels, &gates)?;
        }
        askable(labels, &gates)?;
        let new = Channel {
            schema: SCHEMA,
            channel: channel.into(),
            model: model.into(),
            version: version.clone(),
            epoch: kept.map_or(1, |c| c.epoch.saturating_add(1)),
            bundle,
            requires: Requires {
                agent: change.agent.or_else(|| kept.and_then(|c| c.requires.agent.clone())),
                min_free_mb: change.min_free_mb.unwrap_or(needed),
            },
            waves: change.waves,
            halt: false,
            labels,
            gates,
        };
        let reach = self.put_channel(&new, keys, now)?;
        Ok((new, reach))
    }

    /// Stops the rollout of what the channel names, or lets it go on. `None`: it was so already.
    ///
    /// # Errors
    /// There is no such channel, a key is missing, or the disk fails.
    pub fn halt(
        &mut self,
        channel: &str,
        model: &str,
        halt: bool,
        keys: &KeyRing,
        now: Timestamp,
    ) -> Result<(Channel, Option<Reach>), PublishError> {
        let Some(mut file) = self.channel(channel, model)? else {
            return Err(PublishError::refused(format!(
                "no channel {channel} for {model}: `kinewatch publish status` lists them"
            )));
        };
        if file.halt == halt {
            return Ok((file, None));
        }
        file.halt = halt;
        let reach = self.put_channel(&file, keys, now)?;
        Ok((file, Some(reach)))
    }

    fn put_channel(&mut self, channel: &Channel, keys: &KeyRing, now: Timestamp) -> Result<Reach, PublishError> {
        let bytes = channel.to_json()?;
        let name = Channel::target(&channel.channel, &channel.model);
        let sha256 = Sha256::digest(&bytes);
        write(&target_path(&self.dir, &name, &hex(&sha256)), &bytes)?;
        let mut targets = self.targets.signed.clone();
        targets.add_target(target_name(&name)?, target(&sha256, bytes.len() as u64));
        self.publish(targets, keys, now)
    }

    /// Versions of a model that are there, as text, in order.
    fn releases(&self, model: &str) -> Vec<String> {
        let mut found: Vec<Version> = super::status::releases(&self.targets.signed)
            .filter(|(name, _, _)| name == model)
            .map(|(_, version, _)| version)
            .collect();
        found.sort();
        found.iter().map(ToString::to_string).collect()
    }

    /// The manifest inside a bundle.
    fn manifest(&self, bundle: &str) -> Result<Manifest, PublishError> {
        let bytes = self.target(bundle)?.ok_or_else(|| PublishError::refused(format!("{bundle}: is not published")))?;
        Ok(crate::bundle::manifest(bytes.as_slice())?)
    }
}

/// Where a release is made; gone at the end, whichever that is.
struct Work(PathBuf);

impl Work {
    fn begin(repository: &Path) -> Result<Self, PublishError> {
        let dir = repository.join(".work");
        match fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(PublishError::io(&dir)(e)),
            _ => {}
        }
        DirBuilder::new().create(&dir).map_err(PublishError::io(&dir))?;
        Ok(Self(dir))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the next release is made.
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Bundle {
    package: VerifiedPackage,
    sha256: Vec<u8>,
    length: u64,
    unpacked_bytes: u64,
    file: PathBuf,
}

/// The bundle in a working folder, proven by unpacking it as a device would.
fn bundle(dir: &Path, work: &Path) -> Result<Bundle, PublishError> {
    let file = work.join("bundle.tar.zst");
    let output = File::create(&file).map_err(PublishError::io(&file))?;
    let mut hashing = Hashing { inner: BufWriter::new(output), sha: Sha256::new(), length: 0 };
    let packed = pack(dir, &mut hashing)?;
    let output = hashing.inner.into_inner().map_err(|e| PublishError::io(&file)(e.into_error()))?;
    output.sync_all().map_err(PublishError::io(&file))?;
    let read = File::open(&file).map_err(PublishError::io(&file))?;
    unpack(read, &work.join("unpacked"), Bounds::default())?;
    Ok(Bundle {
        package: packed.package,
        sha256: hashing.sha.finalize().to_vec(),
        length: hashing.length,
        unpacked_bytes: packed.unpacked_bytes,
        file,
    })
}

fn version(manifest: &Manifest) -> Result<Version, PublishError> {
    Version::parse(&manifest.version).map_err(|e| {
        PublishError::refused(format!("version {:?} of model.toml is no semantic version: {e}", manifest.version))
    })
}

fn already(manifest: &Manifest) -> PublishError {
    let Manifest { name, version, .. } = manifest;
    PublishError::refused(format!(
        "{name} {version} is published with other content, and devices may have it: give the package a new version in model.toml"
    ))
}

/// Whether a release may follow on another one.
fn succeeds(before: &Manifest, after: &Manifest, labels: Labels, gates: &Gates) -> Result<(), PublishError> {
    if let Some(difference) = labels_changed(before, after).filter(|_| labels == Labels::Same) {
        return Err(PublishError::refused(format!(
            "{difference}: devices refuse other labels, and consumers may rely on them; say --labels changed if that is meant"
        )));
    }
    if gates.shadow_agreement.is_some() && !same_frames(before, after) {
        return Err(incomparable(&format!("it reads other frames than {}", before.version)));
    }
    Ok(())
}

/// Whether devices can ask what the gates want to know.
fn askable(labels: Labels, gates: &Gates) -> Result<(), PublishError> {
    match (gates.shadow_agreement, labels) {
        (None, _) => Ok(()),
        (Some(_), Labels::Changed) => Err(incomparable("its labels are others")),
        (Some(_), Labels::Same) if gates.shadow_windows == 0 => Err(PublishError::refused(
            "--shadow-agreement means nothing without --shadow-windows: say on how many, or drop it with --shadow-windows 0",
        )),
        (Some(_), Labels::Same) => Ok(()),
    }
}

/// What is said of a gate that no device could ask.
fn incomparable(why: &str) -> PublishError {
    PublishError::refused(format!(
        "{why}, so no device can compare the two, and the channel asks for an agreement: drop that with --shadow-windows 0"
    ))
}

struct Hashing<W> {
    inner: W,
    sha: Sha256,
    length: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.sha.update(&bytes[..n]);
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
