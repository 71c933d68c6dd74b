//! Verification of a package directory: the good one, and each way to be wrong.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{FILES, package, sha256};
use kinewatch_ota::{Limits, PackageError, open_verified, open_verified_within};

#[test]
fn a_good_package_opens_and_is_identified_by_its_manifest() {
    let temp = tempfile::tempdir().unwrap();
    package(temp.path());
    let link = temp.path().join("current");
    std::os::unix::fs::symlink(temp.path(), &link).unwrap();
    let opened = open_verified(temp.path()).unwrap();
    assert_eq!(opened.manifest.name, "tiny");
    assert_eq!(opened.digest.len(), 64);
    assert_eq!(open_verified(&link).unwrap().digest, opened.digest, "the directory may be reached by a link");
    fs::write(temp.path().join("notes.txt"), "not listed, not read").unwrap();
    assert_eq!(open_verified(temp.path()).unwrap().digest, opened.digest);
}

#[test]
fn each_fault_is_named() {
    type Damage = fn(&Path);
    type Expected = fn(&PackageError) -> bool;
    let cases: [(&str, Damage, Expected); 12] = [
        ("no directory", |d| fs::remove_dir_all(d).unwrap(), |e| matches!(e, PackageError::NoPackage { .. })),
        (
            "no manifest",
            |d| fs::remove_file(d.join("model.toml")).unwrap(),
            |e| matches!(e, PackageError::Missing { .. }),
        ),
        ("no graph", |d| fs::remove_file(d.join("tiny.onnx")).unwrap(), |e| matches!(e, PackageError::Missing { .. })),
        (
            "truncated",
            |d| fs::write(d.join("tiny.onnx"), "not really").unwrap(),
            |e| matches!(e, PackageError::Differs { bytes: 10, .. }),
        ),
        (
            "not TOML",
            |d| fs::write(d.join("model.toml"), "name = ").unwrap(),
            |e| matches!(e, PackageError::Manifest { .. }),
        ),
        (
            "binary manifest",
            |d| fs::write(d.join("model.toml"), [0xff, 0xfe]).unwrap(),
            |e| matches!(e, PackageError::NotText { .. }),
        ),
        (
            "huge manifest",
            |d| fs::write(d.join("model.toml"), vec![b'#'; (1 << 20) + 1]).unwrap(),
            |e| matches!(e, PackageError::TooLarge { .. }),
        ),
        ("linked file", |d| swap_for_link(&d.join("tiny.onnx")), |e| matches!(e, PackageError::Link { .. })),
        ("linked directory", |d| swap_for_link(&d.join("golden")), |e| matches!(e, PackageError::Link { .. })),
        (
            "directory for a file",
            |d| {
                fs::remove_file(d.join("tiny.onnx")).unwrap();
                fs::create_dir(d.join("tiny.onnx")).unwrap();
            },
            |e| matches!(e, PackageError::NotAFile { .. }),
        ),
        ("other labels", |d| relabel(d, "background\nclap\n"), |e| matches!(e, PackageError::Labels { .. })),
        (
            "escaping name",
            |d| {
                let path = d.join("model.toml");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(&path, text + &format!("\"../secret\" = \"{}\"\n", "0".repeat(64))).unwrap();
            },
            |e| matches!(e, PackageError::Manifest { .. } | PackageError::Escapes { .. }),
        ),
    ];
    for (name, damage, expected) in cases {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("package");
        package(&dir);
        damage(&dir);
        let error = open_verified(&dir).unwrap_err();
        assert!(expected(&error), "{name}: {error:?}");
        let message = error.to_string();
        assert!(!message.contains('\n') && message.contains("package"), "{name}: {message}");
    }
}

#[test]
fn the_total_size_is_bounded() {
    let temp = tempfile::tempdir().unwrap();
    package(temp.path());
    let total: usize = FILES.iter().map(|(_, content)| content.len()).sum();
    let limits = |total_bytes| Limits { total_bytes, ..Limits::default() };
    assert!(open_verified_within(temp.path(), limits(total as u64)).is_ok());
    let error = open_verified_within(temp.path(), limits(total as u64 - 1)).unwrap_err();
    assert!(matches!(error, PackageError::TooLarge { .. }), "{error}");
}

fn swap_for_link(path: &Path) {
    let aside = path.parent().unwrap().parent().unwrap().join("aside");
    fs::rename(path, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, path).unwrap();
}

/// Another `labels.txt` with its right hash in the manifest.
fn relabel(dir: &Path, labels: &str) {
    let path = dir.join("model.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(&sha256(FILES[1].1), &sha256(labels))).unwrap();
    fs::write(dir.join("labels.txt"), labels).unwrap();
}
