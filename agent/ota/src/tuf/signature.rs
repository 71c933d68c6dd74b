//! Who signed what: the keys of one role, and whether a document carries signatures of enough of them.
//!
//! `tough` parses the keys and verifies the signatures. This file only chooses which keys and signatures it is given.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU64;

use serde::{Serialize, Serializer};
use serde_json::Value;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::Key;
use tough::schema::{self, RoleType, Signed};

use super::Refused;
use super::document::{Document, RoleKeys};
use crate::read;

/// The keys of a role, each once, and how many of them must sign.
#[derive(Debug, Clone)]
pub(super) struct Keyring {
    /// By `KEYID`, which is only a name here: keys are told apart by what they are.
    keys: BTreeMap<String, Key>,
    threshold: u64,
}

impl Keyring {
    /// The keys that `role` names out of `declared`. A key of a kind that this client does not know cannot count, and is
    /// left out; the same key under two names counts once.
    pub(super) fn new(declared: &BTreeMap<String, Value>, role: &RoleKeys) -> Self {
        let mut seen = HashSet::new();
        let mut keys = BTreeMap::new();
        for keyid in &role.keyids {
            let Some(key) = declared.get(keyid).and_then(|k| serde_json::from_value::<Key>(k.clone()).ok()) else {
                continue;
            };
            if seen.insert(fingerprint(&key)) {
                keys.insert(keyid.clone(), key);
            }
        }
        Self { keys, threshold: role.threshold }
    }

    /// What identifies each key, whatever it is called.
    pub(super) fn fingerprints(&self) -> impl Iterator<Item = String> {
        self.keys.values().map(fingerprint)
    }

    /// At least a threshold of signatures by different keys (5.3.4, 5.4.2, 5.5.3, 5.6.3).
    pub(super) fn verify<T>(&self, document: &Document<T>) -> Result<(), Refused> {
        let mut named = HashSet::new();
        if let Some(twice) = document.signatures.iter().find(|s| !named.insert(&s.keyid)) {
            return Err(Refused::SignedTwice { role: document.role.clone(), keyid: twice.keyid.clone() });
        }
        let refused = |valid| Refused::BelowThreshold { role: document.role.clone(), valid, threshold: self.threshold };
        let threshold = NonZeroU64::new(self.threshold).ok_or_else(|| refused(0))?;

        // The names are ours, so that `tough` cannot be made to see two keys in one.
        let name = |index: usize| Decoded::<Hex>::from(index.to_be_bytes().to_vec());
        let mut root = bare_root();
        let mut signatures = Vec::new();
        for (index, (keyid, key)) in self.keys.iter().enumerate() {
            root.keys.insert(name(index), key.clone());
            let signature = document.signatures.iter().find(|s| s.keyid == *keyid);
            let decoded = signature.and_then(|s| serde_json::from_value(Value::String(s.sig.clone())).ok());
            signatures.extend(decoded.map(|sig| schema::Signature { keyid: name(index), sig }));
        }
        let keyids = (0..self.keys.len()).map(name).collect();
        root.roles.insert(RoleType::Targets, schema::RoleKeys { keyids, threshold, _extra: HashMap::new() });
        root.verify_role(&Signed { signed: Payload(&document.signed), signatures }).map_err(|error| match error {
            schema::Error::SignatureThreshold { valid, .. } => refused(valid),
            other => Refused::Invalid { role: document.role.clone(), reason: other.to_string() },
        })
    }
}

fn fingerprint(key: &Key) -> String {
    let (kind, public) = match key {
        Key::Rsa { keyval, .. } => ("rsa", &*keyval.public),
        Key::Ed25519 { keyval, .. } => ("ed25519", &*keyval.public),
        Key::Ecdsa { keyval, .. } | Key::EcdsaOld { keyval, .. } => ("ecdsa", &*keyval.public),
    };
    format!("{kind}:{}", read::digest(public))
}

/// Carries keys to `tough`'s verification and nothing else.
fn bare_root() -> schema::Root {
    schema::Root {
        spec_version: "1.0.0".to_owned(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: tough_jiff::Timestamp::UNIX_EPOCH,
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    }
}

/// The signed part as received, for `tough` to verify. It is asked for nothing but its JSON.
struct Payload<'a>(&'a Value);

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl schema::Role for Payload<'_> {
    const TYPE: RoleType = RoleType::Targets;

    fn expires(&self) -> tough_jiff::Timestamp {
        tough_jiff::Timestamp::UNIX_EPOCH
    }

    fn version(&self) -> NonZeroU64 {
        NonZeroU64::MIN
    }

    fn filename(&self, _consistent_snapshot: bool) -> String {
        String::new()
    }
}
