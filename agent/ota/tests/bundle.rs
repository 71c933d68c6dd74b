//! Bundles: the good one, and each way to be an attack. Whatever is refused leaves nothing behind, inside or outside.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/relabelled.rs"]
mod relabelled;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::sha256;
use kinewatch_core::rollout::Disposition;
use kinewatch_ota::PackageError;
use kinewatch_ota::bundle::{Bounds, UnpackError, Unsafe, pack, unpack};
use tar::{EntryType, Header};
use tempfile::TempDir;

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/packages/tiny-bright")
}

/// An entry of an archive as an attacker would write it: nothing is checked.
#[derive(Clone)]
struct Entry {
    name: Vec<u8>,
    kind: EntryType,
    /// Declared, when it is not the data's.
    size: Option<u64>,
    data: Vec<u8>,
}

impl Entry {
    fn file(name: &str, data: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), kind: EntryType::Regular, size: None, data: data.into() }
    }

    fn of(name: &str, kind: EntryType) -> Self {
        Self { name: name.into(), kind, size: None, data: Vec::new() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..self.name.len()].copy_from_slice(&self.name);
        header.set_entry_type(self.kind);
        header.set_mode(0o4777);
        if self.kind.is_symlink() || self.kind.is_hard_link() {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_size(self.size.unwrap_or(self.data.len() as u64));
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(&self.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

/// The entries of a good bundle, in order.
fn good() -> Vec<Entry> {
    let package = kinewatch_ota::open_verified(tiny()).unwrap();
    let names = std::iter::once("model.toml".to_owned()).chain(package.manifest.files.into_keys());
    names.map(|name| Entry::file(&name, fs::read(tiny().join(&name)).unwrap())).collect()
}

fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(Entry::bytes).collect();
    bytes.extend([0; 1024]);
    bytes
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn bundle(entries: &[Entry]) -> Vec<u8> {
    zstd(&tar(entries))
}

/// A bundle with one more entry after `model.toml`.
fn with(entry: Entry) -> Vec<u8> {
    let mut entries = good();
    entries.insert(1, entry);
    bundle(&entries)
}

fn every_path(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.clone());
        if path.is_dir() && !path.is_symlink() {
            found.extend(every_path(&path));
        }
    }
    found.sort();
    found
}

/// Unpacks into a fresh folder among others; when refused, the whole neighbourhood must be as it was.
fn attempt(archive: impl Read, bounds: Bounds) -> Result<(TempDir, PathBuf), UnpackError> {
    let home = TempDir::new().unwrap();
    fs::create_dir_all(home.path().join("state/models")).unwrap();
    fs::write(home.path().join("state/outbox.db"), "precious").unwrap();
    let before = every_path(home.path());
    let into = home.path().join("state/models/new");
    match unpack(archive, &into, bounds) {
        Ok(package) => {
            assert_eq!(package.dir, into.canonicalize().unwrap());
            Ok((home, into))
        }
        Err(error) => {
            assert_eq!(every_path(home.path()), before, "{error} left something behind");
            assert_eq!(fs::read_to_string(home.path().join("state/outbox.db")).unwrap(), "precious");
            assert!(!error.to_string().contains('\n'), "{error}");
            Err(error)
        }
    }
}

fn refusal(archive: &[u8]) -> UnpackError {
    attempt(archive, Bounds::default()).unwrap_err()
}

#[track_caller]
fn refused(archive: &[u8], expected: Unsafe) -> String {
    match refusal(archive) {
        UnpackError::Unsafe { kind, detail } => {
            assert_eq!(kind, expected, "{detail}");
            detail
        }
        other => panic!("{expected:?} expected: {other}"),
    }
}

#[test]
fn a_package_comes_back_as_it_was_and_always_as_the_same_bytes() {
    let copy = TempDir::new().unwrap();
    for entry in good() {
        let path = copy.path().join(String::from_utf8(entry.name).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, entry.data).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::write(copy.path().join("notes-to-self.txt"), "not listed, not packed").unwrap();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let packed = pack(tiny(), &mut first).unwrap();
    pack(copy.path(), &mut second).unwrap();
    assert_eq!(sha256(&first), sha256(&second), "times, modes and folders leave no trace");

    let (_home, into) = attempt(first.as_slice(), Bounds::default()).unwrap();
    let names: Vec<PathBuf> = every_path(&into).into_iter().filter(|p| p.is_file()).collect();
    assert_eq!(names.len(), packed.package.manifest.files.len() + 1);
    let mut total = 0;
    for path in names {
        let original = tiny().join(path.strip_prefix(&into).unwrap());
        assert_eq!(fs::read(&path).unwrap(), fs::read(original).unwrap(), "{}", path.display());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7133, 0, "{}", path.display());
        total += path.metadata().unwrap().len();
    }
    assert_eq!(total, packed.unpacked_bytes);
    let exact = Bounds { unpacked_bytes: total };
    attempt(first.as_slice(), exact).unwrap();
    let error = attempt(first.as_slice(), Bounds { unpacked_bytes: total - 1 }).unwrap_err();
    assert!(matches!(error, UnpackError::Unsafe { kind: Unsafe::TooLarge, .. }), "{error}");
}

#[test]
fn an_archive_with_folders_is_taken_and_one_over_something_is_not() {
    let mut entries = good();
    entries.insert(1, Entry::of("golden/", EntryType::Directory));
    let archive = bundle(&entries);
    attempt(archive.as_slice(), Bounds::default()).unwrap();
    let (_home, into) = attempt(archive.as_slice(), Bounds::default()).unwrap();
    let error = unpack(archive.as_slice(), &into, Bounds::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Io { .. }), "{error}");
    assert!(into.join("model.toml").exists(), "what was there is left alone");
}

#[test]
fn paths_that_lead_elsewhere() {
    for name in [
        "../evil",
        "golden/../../evil",
        "/tmp/kinewatch-evil",
        "..",
        ".",
        "./labels.txt",
        "golden//shapes.npy",
        "golden/./shapes.npy",
        "labels.txt/.",
        "labels.txt/",
        "",
        "/",
    ] {
        refused(&with(Entry::file(name, "x")), Unsafe::Path);
    }
    let latin = Entry { name: b"caf\xe9".to_vec(), ..Entry::file("", "x") };
    refused(&with(latin), Unsafe::Path);
    assert!(!Path::new("/tmp/kinewatch-evil").exists());
    // An attacker who can write the manifest can list the path, and gets no further.
    let mut entries = good();
    let toml = String::from_utf8(entries[0].data.clone()).unwrap();
    entries[0].data = format!("{toml}\n\"../evil\" = \"{}\"\n", "0".repeat(64)).into();
    entries.push(Entry::file("../evil", "x"));
    let error = refusal(&bundle(&entries));
    assert!(matches!(error, UnpackError::Package(PackageError::Manifest { .. })), "{error}");
}

#[test]
fn links_devices_and_entries_of_other_kinds() {
    for (kind, expected) in [
        (EntryType::Symlink, Unsafe::SymbolicLink),
        (EntryType::Link, Unsafe::HardLink),
        (EntryType::Char, Unsafe::Device),
        (EntryType::Block, Unsafe::Device),
        (EntryType::Fifo, Unsafe::Pipe),
        (EntryType::XHeader, Unsafe::EntryKind),
        (EntryType::XGlobalHeader, Unsafe::EntryKind),
        (EntryType::GNULongName, Unsafe::EntryKind),
        (EntryType::GNULongLink, Unsafe::EntryKind),
        (EntryType::GNUSparse, Unsafe::EntryKind),
        (EntryType::Continuous, Unsafe::EntryKind),
        (EntryType::new(b'V'), Unsafe::EntryKind),
    ] {
        // Under a name that is expected, and as the first of all.
        refused(&with(Entry::of("labels.txt", kind)), expected);
        let mut entries = good();
        entries[0] = Entry::of("model.toml", kind);
        refused(&bundle(&entries), expected);
    }
    // A link through which the next file would be written.
    let mut entries = good();
    entries.insert(1, Entry::of("golden", EntryType::Symlink));
    refused(&bundle(&entries), Unsafe::SymbolicLink);
}

#[test]
fn duplicates_strangers_and_the_wrong_order() {
    let entries = good();
    for again in 0..entries.len() {
        let mut doubled = entries.clone();
        doubled.push(Entry { data: b"another".to_vec(), ..entries[again].clone() });
        refused(&bundle(&doubled), Unsafe::Duplicate);
    }
    refused(&with(Entry::file("payload.so", "x")), Unsafe::Unlisted);
    refused(&with(Entry::of("elsewhere/", EntryType::Directory)), Unsafe::Unlisted);
    let mut folder_for_file = good();
    folder_for_file.insert(1, Entry::of("labels.txt/", EntryType::Directory));
    refused(&bundle(&folder_for_file), Unsafe::Unlisted);
    let mut reversed = good();
    reversed.reverse();
    refused(&bundle(&reversed), Unsafe::ManifestNotFirst);
    refused(&bundle(&[]), Unsafe::Damaged);
    for missing in 1..entries.len() {
        let mut fewer = entries.clone();
        let name = String::from_utf8(fewer.remove(missing).name).unwrap();
        match refusal(&bundle(&fewer)) {
            UnpackError::Package(PackageError::Missing { path }) => assert!(path.ends_with(&name), "{path:?}"),
            other => panic!("{name} is missing: {other}"),
        }
    }
}

#[test]
fn bombs_end_at_their_bound() {
    let bounds = Bounds { unpacked_bytes: 4 << 20 };
    // Declared honestly: refused before a byte of it is written.
    let mut honest = good();
    honest[1].data = vec![0; 64 << 20];
    let archive = bundle(&honest);
    assert!(archive.len() < 100_000, "a bomb is small: {}", archive.len());
    let error = attempt(archive.as_slice(), bounds).unwrap_err();
    assert!(matches!(error, UnpackError::Unsafe { kind: Unsafe::TooLarge, .. }), "{error}");
    // Declared as more than there can be.
    for size in [u64::MAX, 1 << 62, 3 << 30] {
        let mut entries = good();
        entries[1].size = Some(size);
        let error = refusal(&bundle(&entries));
        assert!(matches!(error, UnpackError::Unsafe { kind: Unsafe::TooLarge | Unsafe::Damaged, .. }), "{error}");
    }
    let mut entries = good();
    entries[0].data.resize(2 << 20, b'#');
    refused(&bundle(&entries), Unsafe::TooLarge);
    // No entry at all, only folders without end, or zeros without end.
    let mut folders = good();
    folders.extend(std::iter::repeat_n(Entry::of("golden", EntryType::Directory), 50_000));
    let error = attempt(zstd(&folders.iter().flat_map(Entry::bytes).collect::<Vec<u8>>()).as_slice(), bounds);
    let error = error.unwrap_err();
    assert!(matches!(error, UnpackError::Unsafe { kind: Unsafe::TooLarge, .. }), "{error}");
    let mut zeros = zstd::Encoder::new(Vec::new(), 3).unwrap();
    zeros.write_all(&tar(&good())).unwrap();
    io::copy(&mut io::repeat(0).take(64 << 20), &mut zeros).unwrap();
    refused(&zeros.finish().unwrap(), Unsafe::Trailing);
    // Frames that ask the decoder for memory.
    let mut wide = zstd::Encoder::new(Vec::new(), 3).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(&tar(&good())).unwrap();
    wide.write_all(&vec![0; 16 << 20]).unwrap();
    let detail = refused(&wide.finish().unwrap(), Unsafe::Damaged);
    assert!(detail.contains("memory"), "{detail}");
}

#[test]
fn damage_of_the_stream() {
    let mut archive = Vec::new();
    pack(tiny(), &mut archive).unwrap();
    for tenth in 0..10 {
        refused(&archive[..archive.len() * tenth / 10], Unsafe::Damaged);
    }
    refused(&archive[..archive.len() - 1], Unsafe::Damaged);
    let plain = tar(&good());
    for cut in [plain.len() / 3, plain.len() / 2] {
        let error = refusal(&zstd(&plain[..cut]));
        let told = matches!(
            error,
            UnpackError::Unsafe { kind: Unsafe::Damaged, .. } | UnpackError::Package(PackageError::Missing { .. })
        );
        assert!(told, "{error}");
    }
    refused(b"PK\x03\x04 this is a zip", Unsafe::Damaged);
    refused(&zstd(b"this is text"), Unsafe::Damaged);
    let mut longer = archive.clone();
    longer.extend(b"garbage");
    refused(&longer, Unsafe::Damaged);
    let mut twice = archive.clone();
    twice.extend(&archive);
    refused(&twice, Unsafe::Trailing);
    for at in (8..archive.len()).step_by(archive.len() / 50) {
        let mut flipped = archive.clone();
        flipped[at] ^= 0x10;
        refusal(&flipped);
    }
}

/// What the archive cannot know, the manifest does: content that was exchanged, and labels that were.
#[test]
fn content_that_is_not_what_the_manifest_says() {
    let at = |entries: &[Entry], end: &str| {
        entries.iter().position(|e| String::from_utf8_lossy(&e.name).ends_with(end)).unwrap()
    };
    let mut entries = good();
    let graph = at(&entries, ".onnx");
    entries[graph].data[100] ^= 1;
    let error = refusal(&bundle(&entries));
    assert!(matches!(error, UnpackError::Package(PackageError::Differs { .. })), "manifest/graph mismatch: {error}");

    let mut entries = good();
    let labels = at(&entries, "labels.txt");
    entries[labels].data = b"background\nfall\n".to_vec();
    let error = refusal(&bundle(&entries));
    assert!(matches!(error, UnpackError::Package(PackageError::Differs { .. })), "labels.txt alone: {error}");

    let old = good()[labels].clone();
    let toml = String::from_utf8(entries[0].data.clone()).unwrap();
    entries[0].data = toml.replace(&sha256(&old.data), &sha256(&entries[labels].data)).into();
    let error = refusal(&bundle(&entries));
    assert!(matches!(error, UnpackError::Package(PackageError::Labels { .. })), "with its hash: {error}");
}

/// A source that fails says nothing about the bundle.
#[test]
fn an_error_of_the_disk_is_not_the_bundles() {
    struct Failing<'a>(&'a [u8]);
    impl Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::from_raw_os_error(5)),
                n => Ok(n),
            }
        }
    }
    let mut archive = Vec::new();
    pack(tiny(), &mut archive).unwrap();
    let error = attempt(Failing(&archive[..archive.len() / 2]), Bounds::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Io { .. }), "{error}");
    let error = unpack(archive.as_slice(), Path::new("/dev/full/new"), Bounds::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Io { .. }), "{error}");
}

/// Each attack by name, what it is, and the archive.
fn attacks() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let entries = good();
    let at = |end: &str| entries.iter().position(|e| e.name.ends_with(end.as_bytes())).unwrap();
    let changed = |end: &str, change: &dyn Fn(&mut Entry)| {
        let mut entries = entries.clone();
        change(&mut entries[at(end)]);
        bundle(&entries)
    };
    let twice = |name: &str| {
        let mut entries = entries.clone();
        entries.push(Entry { data: b"another".to_vec(), ..entries[at(name)].clone() });
        bundle(&entries)
    };
    let without = |name: &str| {
        let mut entries = entries.clone();
        entries.remove(at(name));
        bundle(&entries)
    };
    let of = |kind| with(Entry::of("labels.txt", kind));
    let whole = bundle(&entries);
    let mut wide = zstd::Encoder::new(Vec::new(), 3).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(&tar(&entries)).unwrap();
    wide.write_all(&vec![0; 16 << 20]).unwrap();
    let mut zeros = tar(&entries);
    zeros.resize(zeros.len() + (32 << 20), 0);
    let mut relabelled = entries.clone();
    let labels = at("labels.txt");
    let old = sha256(&relabelled[labels].data);
    relabelled[labels].data = b"background\nfall\njump\n".to_vec();
    let toml = String::from_utf8(relabelled[0].data.clone()).unwrap();
    relabelled[0].data = toml.replace(&old, &sha256(&relabelled[labels].data)).into();
    let mut reversed = entries.clone();
    reversed.reverse();
    vec![
        ("traversal", "a file named ../evil", with(Entry::file("../evil", "x"))),
        (
            "traversal-inside",
            "a path that climbs out of a folder of the package",
            with(Entry::file("golden/../../evil", "x")),
        ),
        ("absolute", "a file named /etc/cron.d/evil", with(Entry::file("/etc/cron.d/evil", "x"))),
        ("second-name", "./labels.txt beside labels.txt", with(Entry::file("./labels.txt", "x"))),
        ("symbolic-link", "a link to /etc/passwd in the place of a file", of(EntryType::Symlink)),
        (
            "link-to-folder",
            "a link through which the next file would be written",
            with(Entry::of("golden", EntryType::Symlink)),
        ),
        ("hard-link", "a hard link to /etc/passwd in the place of a file", of(EntryType::Link)),
        ("device", "a character device in the place of a file", of(EntryType::Char)),
        ("block-device", "a block device in the place of a file", of(EntryType::Block)),
        ("pipe", "a named pipe in the place of a file", of(EntryType::Fifo)),
        ("pax", "a pax record that gives the next entry another name or size", of(EntryType::XHeader)),
        ("long-name", "a GNU long name", of(EntryType::GNULongName)),
        ("sparse", "a sparse file", of(EntryType::GNUSparse)),
        ("duplicate", "labels.txt twice, with other content", twice("labels.txt")),
        ("duplicate-manifest", "model.toml twice, the second for other files", twice("model.toml")),
        ("stranger", "a file that the manifest does not list", with(Entry::file("payload.so", "x"))),
        ("out-of-order", "files before the manifest", bundle(&reversed)),
        ("missing", "a listed file is not there", without("labels.txt")),
        ("bomb", "a file of 3 GiB that weighs nothing", changed("labels.txt", &|e| e.size = Some(3 << 30))),
        ("bomb-of-zeros", "zeros without end after the archive", zstd(&zeros)),
        ("memory", "a frame for which the decoder would need 128 MiB", wide.finish().unwrap()),
        ("truncated", "the first half", whole[..whole.len() / 2].to_vec()),
        ("appended", "a second archive after the first", [whole.clone(), whole.clone()].concat()),
        ("other-format", "a zip file", b"PK\x03\x04 and so on".to_vec()),
        ("graph-exchanged", "another graph than the manifest's", changed(".onnx", &|e| e.data[100] ^= 1)),
        (
            "labels-exchanged",
            "other labels.txt than the manifest's",
            changed("labels.txt", &|e| e.data = b"fall\n".to_vec()),
        ),
        ("labels-renamed", "the same with the right hash, but not the labels of the manifest", bundle(&relabelled)),
        ("manifest-broken", "a manifest that is none", changed("model.toml", &|e| e.data = b"format = 1".to_vec())),
    ]
}

/// Every attack, and what a device reports of it. `KINEWATCH_BLESS=1` writes the table anew.
#[test]
fn every_attack_is_refused_and_the_table_says_how() {
    use std::fmt::Write as _;
    let mut table = String::from(
        "# Attacks by way of a bundle, and what the device says\n\n\
         Written by `agent/ota/tests/bundle.rs`, which tries each of them on the unpacker: refused with this code, nothing of it\n\
         left on the disk, inside or outside the folder. All of them are signed: whoever holds the keys is the attacker.\n\n\
         | attack | what the bundle holds | refused with | detail |\n|---|---|---|---|\n",
    );
    for (name, what, archive) in attacks() {
        let error = attempt(archive.as_slice(), Bounds::default()).unwrap_err();
        let fault = error.fault();
        assert_eq!(fault.code.disposition(), Disposition::Quarantine, "{name}: {fault}");
        let detail = fault.detail.rsplit("state/models/new/").next().unwrap();
        let shown = if fault.detail.contains("state/models/new/") { detail } else { &fault.detail };
        writeln!(table, "| {name} | {what} | `{}` | {shown} |", fault.code).unwrap();
    }
    table += "\nWhole packages, beside the model that runs, under a channel that says `labels: same`: refused before \
              they are installed.\n\n| attack | what the package holds | refused with | detail |\n|---|---|---|---|\n";
    for (name, what, fault) in relabelled::attacks() {
        writeln!(table, "| {name} | {what} | `{}` | {} |", fault.code, fault.detail).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../design/bundle-attacks.md");
    if std::env::var_os("KINEWATCH_BLESS").is_some() {
        fs::write(&path, &table).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), table, "KINEWATCH_BLESS=1 writes it anew");
}

#[test]
fn kinds_have_names_of_their_own() {
    let names: std::collections::BTreeSet<&str> = Unsafe::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), Unsafe::ALL.len());
}
