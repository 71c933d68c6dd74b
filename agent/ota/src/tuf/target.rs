//! A target as the signed metadata describes it, and where it lies on a server.

use std::path::{Path, PathBuf};

use percent_encoding::utf8_percent_encode;
use url::Url;

use super::document::{Hashes, NAME, TargetFile};
use super::http::shown;
use super::{Refused, Role};

/// A file that the repository may deliver: its path, length and digest are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) path: String,
    pub(super) length: u64,
    pub(super) hashes: Hashes,
}

impl Target {
    /// As `role` lists it.
    pub(super) fn new(path: &str, file: &TargetFile, role: &Role) -> Result<Self, Refused> {
        check_path(path)?;
        let unknown = || Refused::Invalid {
            role: role.clone(),
            reason: format!("target {path:?} has neither a sha256 nor a sha512 hash"),
        };
        Ok(Self { path: path.to_owned(), length: file.length, hashes: file.hashes.clone().ok_or_else(unknown)? })
    }

    /// Its path in the repository.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What identifies its content: SHA-256 in hex (SHA-512 if the repository has only that).
    pub fn digest(&self) -> &str {
        self.hashes.prefix()
    }

    /// Where it lies below `base`; with consistent snapshots its digest stands before its name (7).
    pub(super) fn url(&self, base: &Url, consistent: bool) -> Result<Url, Refused> {
        let (folder, name) = self.path.rsplit_once('/').map_or(("", self.path.as_str()), |(f, n)| (f, n));
        let mut relative = String::new();
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            relative.extend([&*escaped(part), "/"]);
        }
        if consistent {
            relative.extend([self.hashes.prefix(), "."]);
        }
        relative.push_str(&escaped(name));
        base.join(&relative).map_err(|_| Refused::UnsafeTarget { path: self.path.clone() })
    }

    /// `bytes`, if they are what was signed.
    pub(super) fn verify(&self, url: &Url, bytes: Vec<u8>) -> Result<Vec<u8>, Refused> {
        let found = bytes.len() as u64;
        if found != self.length {
            return Err(Refused::WrongLength { url: shown(url), signed: self.length, found });
        }
        let mut hasher = self.hashes.hasher();
        hasher.update(&bytes);
        match self.hashes.difference(hasher) {
            None => Ok(bytes),
            Some(found) => Err(Refused::WrongHash { url: shown(url), signed: self.digest().to_owned(), found }),
        }
    }

    /// A file name for it that cannot leave `folder`.
    pub fn file_in(&self, folder: &Path) -> PathBuf {
        folder.join(escaped(&self.path))
    }
}

fn escaped(part: &str) -> String {
    utf8_percent_encode(part, NAME).to_string()
}

/// Nothing that a file system or a web server could take for a way out.
pub(super) fn check_path(path: &str) -> Result<(), Refused> {
    let unsafe_part = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(['\\', '\0']);
    if path.split('/').any(unsafe_part) {
        return Err(Refused::UnsafeTarget { path: path.to_owned() });
    }
    Ok(())
}
