//! A repository as JSON, signed with keys from seeds: everything can be published, also what no publisher would.

use std::collections::BTreeMap;
use std::path::Path;

use aws_lc_rs::signature::Ed25519KeyPair;
use olpc_cjson::CanonicalFormatter;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tough::sign::Sign;

pub(crate) const LATER: &str = "2030-01-01T00:00:00Z";

#[derive(Clone)]
pub(crate) struct Repository {
    /// The signed part of each role.
    pub(crate) signed: BTreeMap<String, Value>,
    /// Seeds of the keys with which each role is signed.
    pub(crate) signers: BTreeMap<String, Vec<u8>>,
    /// What is served, by path below the repository's address.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Versions are listed, but no lengths and digests.
    pub(crate) bare: bool,
}

impl Repository {
    /// One key a role, all at version 1, consistent snapshots, nothing in it.
    pub(crate) fn new() -> Self {
        let mut repository = Self {
            signed: ["root", "targets", "snapshot", "timestamp"]
                .map(|role| {
                    let common = json!({"_type": role, "spec_version": "1.0.31", "version": 0, "expires": LATER});
                    (role.to_owned(), common)
                })
                .into(),
            signers: BTreeMap::new(),
            files: BTreeMap::new(),
            bare: false,
        };
        repository.signed.get_mut("root").unwrap()["consistent_snapshot"] = true.into();
        repository.signed.get_mut("targets").unwrap()["targets"] = json!({});
        // A role that nobody delegates to, so that something can vanish.
        repository.signed.get_mut("snapshot").unwrap()["meta"]["others.json"] = json!({"version": 1});
        for (seed, role) in ["root", "targets", "snapshot", "timestamp"].into_iter().enumerate() {
            repository.keys(role, 1, &[seed as u8]);
        }
        repository.publish(&["root", "targets", "snapshot", "timestamp"]);
        repository
    }

    /// Gives `role` these keys and signs with them from now on.
    pub(crate) fn keys(&mut self, role: &str, threshold: u64, seeds: &[u8]) {
        let root = self.signed.get_mut("root").unwrap();
        for &seed in seeds {
            root["keys"][key_id(seed)] = serde_json::to_value(pair(seed).tuf_key()).unwrap();
        }
        let keyids: Vec<_> = seeds.iter().map(|&seed| key_id(seed)).collect();
        root["roles"][role] = json!({"keyids": keyids, "threshold": threshold});
        self.signers.insert(role.to_owned(), seeds.to_vec());
    }

    pub(crate) fn version(&self, role: &str) -> u64 {
        self.signed[role]["version"].as_u64().unwrap()
    }

    pub(crate) fn set(&mut self, role: &str, field: &str, value: impl Into<Value>) {
        self.signed.get_mut(role).unwrap()[field] = value.into();
    }

    /// The next version of each role, listed in the role above it.
    pub(crate) fn publish(&mut self, roles: &[&str]) {
        for role in roles {
            let version = self.version(role) + 1;
            self.set(role, "version", version);
            let bytes = self.sign(role);
            self.offer(role, version, &bytes);
        }
    }

    /// Targets, snapshot and timestamp.
    pub(crate) fn publish_all(&mut self) {
        self.publish(&["targets", "snapshot", "timestamp"]);
    }

    /// Puts metadata where clients look for `version`, and lists it.
    pub(crate) fn offer(&mut self, role: &str, version: u64, bytes: &[u8]) {
        let above = match role {
            "root" => None,
            "timestamp" => None,
            "snapshot" => Some("timestamp"),
            _ => Some("snapshot"),
        };
        if let Some(above) = above {
            let mut listed = json!({"version": version});
            if !self.bare {
                listed["length"] = bytes.len().into();
                listed["hashes"]["sha256"] = sha256(bytes).into();
            }
            self.signed.get_mut(above).unwrap()["meta"][format!("{role}.json")] = listed;
        }
        self.files.insert(metadata_path(role, version), bytes.to_vec());
    }

    pub(crate) fn sign(&self, role: &str) -> Vec<u8> {
        sign(&self.signed[role], &self.signers[role])
    }

    /// Adds a target to the list and to the files.
    pub(crate) fn add(&mut self, path: &str, bytes: &[u8]) {
        let listed = json!({"length": bytes.len(), "hashes": {"sha256": sha256(bytes)}});
        self.signed.get_mut("targets").unwrap()["targets"][path] = listed;
        self.files.insert(target_path(path, bytes), bytes.to_vec());
    }

    pub(crate) fn file(&mut self, role: &str, version: u64) -> &mut Vec<u8> {
        self.files.get_mut(&metadata_path(role, version)).unwrap()
    }

    pub(crate) fn anchor(&self) -> Vec<u8> {
        self.files["metadata/1.root.json"].clone()
    }

    /// As a folder for a web server.
    pub(crate) fn write(&self, folder: &Path) {
        for (path, bytes) in self.files.iter().filter(|(path, _)| !path.contains("..")) {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}

pub(crate) fn metadata_path(role: &str, version: u64) -> String {
    match role {
        "timestamp" => "metadata/timestamp.json".to_owned(),
        role => format!("metadata/{version}.{role}.json"),
    }
}

pub(crate) fn target_path(path: &str, bytes: &[u8]) -> String {
    let (folder, name) = path.rsplit_once('/').map_or((String::new(), path), |(f, n)| (format!("{f}/"), n));
    format!("targets/{folder}{}.{name}", sha256(bytes))
}

/// `signed` in an envelope with signatures by the keys from `seeds`.
pub(crate) fn sign(signed: &Value, seeds: &[u8]) -> Vec<u8> {
    let mut canonical = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut canonical, CanonicalFormatter::new());
    signed.serialize(&mut serializer).unwrap();
    let signatures: Vec<_> = seeds
        .iter()
        .map(|&seed| json!({"keyid": key_id(seed), "sig": hex(pair(seed).sign(&canonical).as_ref())}))
        .collect();
    serde_json::to_vec_pretty(&json!({"signed": signed, "signatures": signatures})).unwrap()
}

pub(crate) fn key_id(seed: u8) -> String {
    hex(&pair(seed).tuf_key().key_id().unwrap())
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
