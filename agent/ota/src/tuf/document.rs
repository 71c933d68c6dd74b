//! Metadata files as they are on the wire, parsed but not yet trusted.
//!
//! The signed part is kept as the JSON value that was received, so that fields which this client does not know are covered
//! by the signature, as section 4 demands. Only fields that the workflow needs are typed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest, Sha256, Sha512};

use super::Refused;
use crate::read::hex;

/// Letters, digits and `_.-~` stay; everything else is escaped, as RFC 3986 says. No name becomes a path.
pub(super) const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~');

/// Which metadata.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Keys and thresholds of all others.
    Root,
    /// Which snapshot is the newest one.
    Timestamp,
    /// Which versions of targets metadata belong together.
    Snapshot,
    /// Which files there are.
    Targets,
    /// Targets metadata of somebody to whom a part was delegated.
    Delegated(String),
}

impl Role {
    /// The name in the repository.
    pub fn name(&self) -> &str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
            Self::Delegated(name) => name,
        }
    }

    /// `_type` of its metadata.
    fn type_name(&self) -> &str {
        match self {
            Self::Delegated(_) => "targets",
            other => other.name(),
        }
    }

    /// The name of its file, without a version. Safe as a file name and in a URL.
    pub(super) fn file_name(&self) -> String {
        format!("{}.json", utf8_percent_encode(self.name(), NAME))
    }

    /// The name of its file, with the version where the repository has it.
    pub(super) fn versioned(&self, version: Option<u64>) -> Cow<'static, str> {
        match version {
            Some(version) => format!("{version}.{}", self.file_name()).into(),
            None => self.file_name().into(),
        }
    }

    /// Its entry in `meta` of the snapshot or the timestamp.
    pub(super) fn listed_as(&self) -> String {
        format!("{}.json", self.name())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The name comes from outside.
            Self::Delegated(name) => write!(f, "delegated targets {name:?}"),
            other => f.write_str(other.name()),
        }
    }
}

/// A signature, not yet verified.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Signature {
    pub(super) keyid: String,
    pub(super) sig: String,
}

#[derive(Deserialize)]
struct Envelope {
    signed: Value,
    signatures: Vec<Signature>,
}

/// What all metadata has.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Header {
    #[serde(rename = "_type")]
    type_name: String,
    spec_version: String,
    pub(super) version: u64,
    pub(super) expires: Timestamp,
}

/// Parsed metadata, not yet verified.
#[derive(Debug, Clone)]
pub(super) struct Document<T> {
    pub(super) role: Role,
    pub(super) header: Header,
    pub(super) body: T,
    pub(super) signed: Value,
    pub(super) signatures: Vec<Signature>,
    /// As received: what is stored and what hashes are taken of.
    pub(super) bytes: Vec<u8>,
}

impl<T: DeserializeOwned> Document<T> {
    pub(super) fn parse(role: &Role, bytes: &[u8]) -> Result<Self, Refused> {
        let invalid = |reason: String| Refused::Invalid { role: role.clone(), reason };
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
        let header = Header::deserialize(&envelope.signed).map_err(|e| invalid(e.to_string()))?;
        if header.type_name != role.type_name() {
            return Err(invalid(format!("it is {:?} metadata", header.type_name)));
        }
        if !header.spec_version.starts_with("1.") {
            return Err(invalid(format!("TUF {} is not supported, only 1", header.spec_version)));
        }
        if header.version == 0 {
            return Err(invalid("version 0: versions start at 1".to_owned()));
        }
        let body = T::deserialize(&envelope.signed).map_err(|e| invalid(e.to_string()))?;
        let Envelope { signed, signatures } = envelope;
        Ok(Self { role: role.clone(), header, body, signed, signatures, bytes: bytes.to_vec() })
    }
}

impl<T> Document<T> {
    pub(super) fn version(&self) -> u64 {
        self.header.version
    }

    /// The freeze check (5.3.10, 5.4.4, 5.5.6, 5.6.5).
    pub(super) fn check_expiry(&self, now: Timestamp) -> Result<(), Refused> {
        if self.header.expires <= now {
            return Err(Refused::Expired { role: self.role.clone(), expires: self.header.expires, now });
        }
        Ok(())
    }
}

/// Keys by identifier, and who needs how many of which.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Root {
    #[serde(default)]
    pub(super) consistent_snapshot: bool,
    pub(super) keys: BTreeMap<String, Value>,
    pub(super) roles: BTreeMap<String, RoleKeys>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct RoleKeys {
    pub(super) keyids: Vec<String>,
    pub(super) threshold: u64,
}

/// Which snapshot.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TimestampBody {
    pub(super) meta: BTreeMap<String, MetaFile>,
}

/// Which targets metadata.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SnapshotBody {
    pub(super) meta: BTreeMap<String, MetaFile>,
}

/// How a metadata file is listed.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct MetaFile {
    pub(super) version: u64,
    pub(super) length: Option<u64>,
    pub(super) hashes: Option<Hashes>,
}

/// Targets, and to whom others are delegated.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TargetsBody {
    pub(super) targets: BTreeMap<String, TargetFile>,
    pub(super) delegations: Option<Delegations>,
}

/// How a target is listed.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TargetFile {
    pub(super) length: u64,
    /// `None`: of algorithms alone that this client does not know. It cannot be fetched, and its neighbours can.
    #[serde(deserialize_with = "known_hashes")]
    pub(super) hashes: Option<Hashes>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Delegations {
    pub(super) keys: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) roles: Vec<Delegation>,
    pub(super) succinct_roles: Option<Succinct>,
}

/// A named delegation.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Delegation {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) keys: RoleKeys,
    pub(super) paths: Option<Vec<String>>,
    pub(super) path_hash_prefixes: Option<Vec<String>>,
    #[serde(default)]
    pub(super) terminating: bool,
}

/// Delegation to hash bins (TAP 15).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Succinct {
    #[serde(flatten)]
    pub(super) keys: RoleKeys,
    pub(super) bit_length: u32,
    pub(super) name_prefix: String,
}

/// Digests by algorithm, hex. At least one that this client knows; every known one must match.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub(super) struct Hashes {
    sha256: Option<String>,
    sha512: Option<String>,
}

impl TryFrom<BTreeMap<String, String>> for Hashes {
    type Error = String;

    fn try_from(mut named: BTreeMap<String, String>) -> Result<Self, String> {
        let mut take = |algorithm: &str, digits: usize| match named.remove(algorithm).map(|h| h.to_ascii_lowercase()) {
            Some(hash) if hash.len() != digits || !hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Err(format!("{algorithm}: not {digits} hexadecimal digits"))
            }
            hash => Ok(hash),
        };
        let hashes = Self { sha256: take("sha256", 64)?, sha512: take("sha512", 128)? };
        if hashes.sha256.is_none() && hashes.sha512.is_none() {
            return Err("hashes: neither sha256 nor sha512".to_owned());
        }
        Ok(hashes)
    }
}

fn known_hashes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Hashes>, D::Error> {
    let named = BTreeMap::<String, String>::deserialize(deserializer)?;
    let unknown = !named.is_empty() && !named.contains_key("sha256") && !named.contains_key("sha512");
    if unknown { Ok(None) } else { Hashes::try_from(named).map(Some).map_err(D::Error::custom) }
}

impl Hashes {
    /// The digest that a consistent snapshot puts before a target's name.
    pub(super) fn prefix(&self) -> &str {
        self.sha256.as_deref().or(self.sha512.as_deref()).unwrap_or_default()
    }

    pub(super) fn hasher(&self) -> Hasher {
        Hasher { sha256: self.sha256.is_some().then(Sha256::new), sha512: self.sha512.is_some().then(Sha512::new) }
    }

    /// The digest found instead of the expected one, or `None` when all agree.
    pub(super) fn difference(&self, hasher: Hasher) -> Option<String> {
        let sha256 = hasher.sha256.map(|h| hex(&h.finalize())).filter(|h| Some(h) != self.sha256.as_ref());
        let sha512 = hasher.sha512.map(|h| hex(&h.finalize())).filter(|h| Some(h) != self.sha512.as_ref());
        sha256.or(sha512)
    }
}

/// Takes the digests of [`Hashes`] as bytes come in.
#[derive(Debug, Clone)]
pub(super) struct Hasher {
    sha256: Option<Sha256>,
    sha512: Option<Sha512>,
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }
}

impl MetaFile {
    /// 5.5.2 and 5.6.2: what is listed of the file must be true of it.
    pub(super) fn check(&self, role: &Role, bytes: &[u8]) -> Result<(), Refused> {
        if let Some(length) = self.length.filter(|&l| l != bytes.len() as u64) {
            return Err(Refused::MetadataLength { role: role.clone(), listed: length, found: bytes.len() as u64 });
        }
        let Some(hashes) = &self.hashes else { return Ok(()) };
        let mut hasher = hashes.hasher();
        hasher.update(bytes);
        match hashes.difference(hasher) {
            None => Ok(()),
            Some(found) => Err(Refused::MetadataHash { role: role.clone(), listed: hashes.prefix().to_owned(), found }),
        }
    }
}
