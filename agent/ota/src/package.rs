//! A package directory, verified: every listed file is there with its hash, and the labels agree.

use std::path::{Path, PathBuf};

use kinewatch_core::manifest::{Decoding, Manifest, ManifestError};

use crate::read::{Limits, bounded, digest, hash, open_inside};

/// What describes a package; the first file of a bundle.
pub(crate) const MANIFEST: &str = "model.toml";
const LABELS: &str = "labels.txt";

/// A package whose files are what its manifest says.
#[derive(Debug, Clone)]
pub struct VerifiedPackage {
    /// The directory, absolute and without links.
    pub dir: PathBuf,
    /// Its contract.
    pub manifest: Manifest,
    /// SHA-256 of the bytes of `model.toml`, hex. Since that lists the hash of every other file, it identifies the
    /// whole package: it is `model.sha256` in events and in `model/state`.
    pub digest: String,
}

/// Why a package is refused. One line, with the path and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// The directory is not there.
    #[error("{path}: no such model package: give the directory that contains model.toml")]
    NoPackage {
        /// As given.
        path: PathBuf,
    },
    /// A file is not there.
    #[error("{path}: missing: copy the whole model package again")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("{path}: cannot be read ({reason}): check that the user kinewatch may read it")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
    /// Larger than a package may be.
    #[error("{path}: more than {limit} bytes: not a model package, or damaged")]
    TooLarge {
        /// The file at which the limit was passed.
        path: PathBuf,
        /// The limit that was left for it.
        limit: u64,
    },
    /// A symbolic link.
    #[error("{path}: is a symbolic link: a model package contains only plain files; copy it with `cp -rL`")]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// A directory, device or pipe.
    #[error("{path}: is not a regular file")]
    NotAFile {
        /// What was found.
        path: PathBuf,
    },
    /// A listed name leads out of the directory.
    #[error("{dir}: lists {name:?}, which lies outside the package: do not use it")]
    Escapes {
        /// The package.
        dir: PathBuf,
        /// The name in `[files]`.
        name: String,
    },
    /// `model.toml` or `labels.txt` is not UTF-8.
    #[error("{path}: is not text (UTF-8)")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// The manifest is wrong.
    #[error("{path}: {source}")]
    Manifest {
        /// `model.toml`.
        path: PathBuf,
        /// What is wrong.
        source: ManifestError,
    },
    /// A file has another hash than the manifest says.
    #[error(
        "{path}: truncated or altered ({bytes} bytes, sha256 {found:.12}…, model.toml says {expected:.12}…): copy the model package again"
    )]
    Differs {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// Its hash.
        found: String,
        /// The hash in `[files]`.
        expected: String,
    },
    /// `labels.txt` is not in `[files]`.
    #[error("{path}: [files] does not list {name}")]
    NotListed {
        /// `model.toml`.
        path: PathBuf,
        /// The file that must be listed.
        name: String,
    },
    /// `labels.txt` and the manifest disagree.
    #[error("{path}: {source}")]
    Labels {
        /// `labels.txt`.
        path: PathBuf,
        /// The first difference.
        source: ManifestError,
    },
}

/// Open the package in `dir` and verify all of it. Reads every listed file once: about a second per 300 MB on a slow
/// processor. Blocks on the disk.
pub fn open_verified(dir: impl AsRef<Path>) -> Result<VerifiedPackage, PackageError> {
    open_verified_within(dir, Limits::default())
}

/// [`open_verified`] with other limits.
pub fn open_verified_within(dir: impl AsRef<Path>, limits: Limits) -> Result<VerifiedPackage, PackageError> {
    let (dir, (toml_path, text, digest)) = open_text(dir.as_ref(), limits)?;
    let manifest =
        Manifest::parse(&text).map_err(|source| PackageError::Manifest { path: toml_path.clone(), source })?;

    verify_files(&dir, &manifest, limits.total_bytes)?;
    verify_labels(&dir, &toml_path, &manifest, limits)?;
    Ok(VerifiedPackage { dir, manifest, digest })
}

/// The decoder settings of the package in `dir`, and the SHA-256 of its `model.toml`. No graph is run, so no other file is
/// read: a package may consist of these settings alone. Blocks on the disk.
pub fn open_decoding(dir: impl AsRef<Path>) -> Result<(Decoding, String), PackageError> {
    let (path, text, digest) = open_text(dir.as_ref(), Limits::default())?.1;
    let decoding = Decoding::parse(&text).map_err(|source| PackageError::Manifest { path, source })?;
    Ok((decoding, digest))
}

/// The package's directory, and `model.toml`: path, text, SHA-256.
fn open_text(given: &Path, limits: Limits) -> Result<(PathBuf, (PathBuf, String, String)), PackageError> {
    // The directory itself may be reached by a link (`current -> …`); nothing inside may be one.
    let dir = given.canonicalize().ok().filter(|d| d.is_dir());
    let dir = dir.ok_or_else(|| PackageError::NoPackage { path: given.to_owned() })?;
    let (path, file) = open_inside(&dir, MANIFEST)?;
    let bytes = bounded(&path, file, limits.text_bytes)?;
    let digest = digest(&bytes);
    let text = text(&path, bytes)?;
    Ok((dir, (path, text, digest)))
}

fn verify_files(dir: &Path, manifest: &Manifest, mut budget: u64) -> Result<(), PackageError> {
    for (name, expected) in &manifest.files {
        let (path, file) = open_inside(dir, name)?;
        let (found, bytes) = hash(&path, file, budget)?;
        if !found.eq_ignore_ascii_case(expected) {
            return Err(PackageError::Differs { path, bytes, found, expected: expected.clone() });
        }
        budget -= bytes;
    }
    Ok(())
}

fn verify_labels(dir: &Path, toml: &Path, manifest: &Manifest, limits: Limits) -> Result<(), PackageError> {
    if !manifest.files.contains_key(LABELS) {
        return Err(PackageError::NotListed { path: toml.to_owned(), name: LABELS.to_owned() });
    }
    let (path, file) = open_inside(dir, LABELS)?;
    let text = text(&path, bounded(&path, file, limits.text_bytes)?)?;
    manifest.check_labels_txt(&text).map_err(|source| PackageError::Labels { path, source })
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, PackageError> {
    String::from_utf8(bytes).map_err(|_| PackageError::NotText { path: path.to_owned() })
}
