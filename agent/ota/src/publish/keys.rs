//! Private keys in files: Ed25519, PKCS#8, PEM (`openssl pkey -in targets.key -text` reads them). Never printed.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use tough::key_source::KeySource;
use tough::schema::Root;
use tough::schema::key::Key;
use tough::sign::{Sign, parse_keypair};

use super::{PublishError, Role};
use crate::read::hex;

/// Largest key file, bytes.
const MAX_KEY: u64 = 64 << 10;

/// The private keys of some folders.
#[derive(Debug, Default)]
pub struct KeyRing {
    dirs: Vec<PathBuf>,
    keys: Vec<KeyFile>,
}

impl KeyRing {
    /// Reads every `*.key` of the folders. One that others may read is refused.
    ///
    /// # Errors
    /// A folder or a key cannot be read, or is no key.
    pub fn read(dirs: &[PathBuf]) -> Result<Self, PublishError> {
        let mut keys = Vec::new();
        for dir in dirs {
            let mut paths: Vec<PathBuf> = fs::read_dir(dir)
                .map_err(PublishError::io(dir))?
                .filter_map(|entry| entry.ok().map(|e| e.path()))
                .filter(|path| path.extension().is_some_and(|e| e == "key"))
                .collect();
            paths.sort();
            for path in paths {
                keys.push(KeyFile::read(&path)?);
            }
        }
        Ok(Self { dirs: dirs.to_vec(), keys })
    }

    /// Where they were looked for.
    pub(super) fn looked(&self) -> String {
        let dirs: Vec<String> = self.dirs.iter().map(|dir| dir.display().to_string()).collect();
        if dirs.is_empty() { "no folder (--keys)".into() } else { dirs.join(", ") }
    }

    /// Folder of new keys.
    pub(super) fn home(&self) -> Option<&Path> {
        self.dirs.first().map(PathBuf::as_path)
    }

    /// Keys that may sign for the role.
    pub(super) fn of<'a>(&'a self, root: &'a Root, role: Role) -> impl Iterator<Item = &'a KeyFile> {
        let wanted: Vec<&Key> = root.keys(role.tough()).collect();
        self.keys.iter().filter(move |key| wanted.contains(&&key.public))
    }

    /// How many keys of the role are at hand; one that lies in two folders counts once.
    pub(super) fn count(&self, root: &Root, role: Role) -> usize {
        self.of(root, role).map(|key| key_id(&key.public)).collect::<BTreeSet<_>>().len()
    }

    /// Whether as many are at hand as must sign for the role.
    pub(super) fn suffice(&self, root: &Root, role: Role) -> bool {
        let need = root.roles.get(&role.tough()).map_or(u64::MAX, |keys| keys.threshold.get());
        self.count(root, role) as u64 >= need
    }

    pub(super) fn add(&mut self, key: KeyFile) {
        self.keys.push(key);
    }
}

/// A key pair in a file.
#[derive(Clone)]
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    pub(super) public: Key,
    der: Vec<u8>,
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl KeyFile {
    fn read(path: &Path) -> Result<Self, PublishError> {
        let failed = |reason: String| PublishError::KeyFile { path: path.to_owned(), reason };
        let file = File::open(path).map_err(PublishError::io(path))?;
        let mode = file.metadata().map_err(PublishError::io(path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(failed("others may read this private key: `chmod 600` it".into()));
        }
        let mut text = Vec::new();
        file.take(MAX_KEY).read_to_end(&mut text).map_err(PublishError::io(path))?;
        let pem = pem::parse(&text).map_err(|_| failed("is no PEM file; keys are PKCS#8 in PEM".into()))?;
        Self::of(path, pem.into_contents())
    }

    fn of(path: &Path, der: Vec<u8>) -> Result<Self, PublishError> {
        let failed = |reason: String| PublishError::KeyFile { path: path.to_owned(), reason };
        let pair = parse_keypair(&der).map_err(|_| failed("is no private key of Ed25519 or ECDSA P-256".into()))?;
        Ok(Self { path: path.to_owned(), public: pair.tuf_key(), der })
    }

    /// Makes a key in a new file of `dir`, which only its owner may read. `name`: from the first digits of its identifier.
    pub(super) fn generate(dir: &Path, name: impl FnOnce(&str) -> String) -> Result<Self, PublishError> {
        let failed = || PublishError::KeyFile { path: dir.into(), reason: "the system gives no random numbers".into() };
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let der = document.map_err(|_| failed())?.as_ref().to_vec();
        let key = Self::of(dir, der)?;
        let path = dir.join(name(&key_id(&key.public)[..8]));
        let text = pem::encode(&pem::Pem::new("PRIVATE KEY", key.der.as_slice()));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(PublishError::io(dir))?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(PublishError::io(&path))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(PublishError::io(&path))?;
        Ok(Self { path, ..key })
    }

    pub(super) fn source(&self) -> Box<dyn KeySource> {
        Box::new(self.clone())
    }
}

/// SHA-256 of the public key in its canonical form, hexadecimal.
pub(super) fn key_id(key: &Key) -> String {
    key.key_id().map(|id| hex(&id.into_vec())).unwrap_or_default()
}

#[async_trait]
impl KeySource for KeyFile {
    async fn as_sign(&self) -> Result<Box<dyn Sign>, Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(Box::new(parse_keypair(&self.der)?))
    }

    async fn write(&self, _: &str, _: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Err("keys are written when they are made".into())
    }
}
