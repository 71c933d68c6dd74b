//! The depot: a package appears whole, links lead to what is whole after a kill at any moment, and what is removed is what nobody
//! wants.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../../tests/support/mount.rs"]
mod mount;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::sha256;
use kinewatch_core::rollout::{Code, Record, Release, Slot};
use kinewatch_ota::depot::{Depot, DepotError, Options, Wanted};
use kinewatch_ota::open_verified;
use mount::Mount;

const CHILD: &str = "KINEWATCH_DEPOT_TEST_CHILD";
const NO_RESERVE: Options = Options { reserve_bytes: 0 };

/// A package of which only the graph and the manifest differ from version to version.
fn package(dir: &Path, minor: u64) {
    common::release(dir, &format!("1.{minor}.0"), &format!("graph of {minor}").repeat(1000));
}

fn release(minor: u64) -> Release {
    Release {
        channel: "stable".into(),
        epoch: minor,
        version: format!("1.{minor}.0").parse().unwrap(),
        bundle: format!("models/falls/1.{minor}.0/bundle.tar.zst"),
        sha256: sha256(format!("bundle {minor}")),
        length: 1000,
    }
}

fn install(depot: &Depot, minor: u64) -> PathBuf {
    let place = depot.place("falls", &release(minor)).unwrap();
    package(&place, minor);
    depot.install("falls", &release(minor), &open_verified(&place).unwrap()).unwrap()
}

fn slot(minor: u64) -> Slot {
    Slot::Release(release(minor))
}

fn wanted(current: Slot, previous: Option<Slot>) -> Wanted {
    Wanted::by([&Record::found("falls", current, previous)])
}

fn names(folder: PathBuf) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn packages_share_what_they_have_in_common() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path(), NO_RESERVE).unwrap();
    assert!(!depot.is_installed("falls", &release(1)));
    let (one, two) = (install(&depot, 1), install(&depot, 2));
    for package in [&one, &two] {
        open_verified(package).unwrap();
    }
    assert!(depot.is_installed("falls", &release(1)));
    let inode = |package: &Path, name: &str| package.join(name).metadata().unwrap().ino();
    assert_eq!(inode(&one, "labels.txt"), inode(&two, "labels.txt"));
    assert_ne!(inode(&one, "tiny.onnx"), inode(&two, "tiny.onnx"));
    assert_eq!(names(dir.path().join("blobs")).len(), 5, "two graphs, labels, a clip and its logits");
    assert_eq!(names(dir.path().join("unpacking")), [""; 0]);
}

#[test]
fn a_blob_that_the_disk_has_changed_does_not_spread() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path(), NO_RESERVE).unwrap();
    let one = install(&depot, 1);
    fs::write(one.join("labels.txt"), "background\nfalling!").unwrap();
    open_verified(install(&depot, 2)).unwrap();
    assert!(!depot.is_installed("falls", &release(1)), "so it is fetched again");
    open_verified(install(&depot, 1)).expect("installed anew");
}

#[test]
fn links_say_what_runs_without_any_database() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path(), NO_RESERVE).unwrap();
    let found = |depot: &Depot| {
        let found = depot.found("falls");
        (found.current, found.previous)
    };
    assert_eq!(found(&depot), (Slot::Factory, None));
    (1..=3).for_each(|minor| drop(install(&depot, minor)));
    depot.link("falls", &slot(2), Some(&Slot::Factory)).unwrap();
    assert_eq!(found(&depot), (slot(2), Some(Slot::Factory)));
    depot.link("falls", &slot(3), Some(&slot(2))).unwrap();
    assert_eq!(found(&depot), (slot(3), Some(slot(2))));
    assert_eq!(depot.found("falls").record("falls").floors["stable"], 3, "the epoch is a floor");
    assert!(depot.linked("current", "falls").unwrap().ends_with(release(3).folder()));
    depot.link("falls", &Slot::Factory, None).unwrap();
    assert_eq!(found(&depot), (Slot::Factory, None));
}

#[test]
fn what_nobody_wants_is_removed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (home, engines) = (dir.path().join("models"), dir.path().join("engines"));
    let depot = Depot::open(&home, NO_RESERVE).unwrap().with_engines(&engines);
    (1..=4).for_each(|minor| drop(install(&depot, minor)));
    depot.link("falls", &slot(3), Some(&slot(2))).unwrap();
    let digest = |minor| sha256(fs::read(depot.installed("falls", &release(minor)).join("model.toml")).unwrap());
    for digest in [digest(1), digest(3), sha256("factory")] {
        let folder = engines.join(format!("{digest:.16}-ort1.23-trt10.3-cuda12.6-orin-fp16"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("falls.engine"), "built").unwrap();
    }
    fs::create_dir(engines.join("timings-ort1.23-trt10.3-cuda12.6-orin")).unwrap();
    for sha256 in [sha256("gone"), release(4).sha256] {
        fs::write(depot.parts().join(format!("{sha256}.part")), "half").unwrap();
    }
    let outside = dir.path().join("events.db");
    fs::write(&outside, "the outbox").unwrap();

    let mut record = Record::found("falls", slot(3), Some(slot(2)));
    record.phase = serde_json::from_value(serde_json::json!({"phase": "settling", "keep": release(4)})).unwrap();
    let wanted = Wanted::by([&record]).with_engines_of(&sha256("factory"));
    let freed = depot.collect(&wanted).unwrap();
    assert_eq!((freed.engines, freed.bundles, freed.packages, freed.blobs), (1, 1, 1, 1), "{freed:?}");
    for minor in [2, 3, 4] {
        open_verified(depot.installed("falls", &release(minor))).unwrap();
    }
    assert!(!depot.is_installed("falls", &release(1)));
    let kept = [digest(3), sha256("factory")].map(|digest| format!("{digest:.16}"));
    let left = names(engines.clone());
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.iter().any(|name| name.starts_with("timings-")), "they are of no package: {left:?}");
    assert!(kept.iter().all(|digest| left.iter().any(|name| name.starts_with(digest.as_str()))), "{left:?}");
    assert_eq!(names(depot.parts()), [format!("{}.part", release(4).sha256)]);
    assert_eq!(depot.collect(&wanted).unwrap(), Default::default(), "once is enough");

    // A package of the configuration that has been replaced takes its engines with it.
    assert_eq!(depot.collect_engines(&Wanted::by([&record])).unwrap(), 1);
    assert_eq!(names(engines).len(), 2);

    // A record that knows less than the links takes nothing from them.
    depot.collect(&Wanted::default()).unwrap();
    assert_eq!(depot.found("falls").current, slot(3));
    assert!(depot.is_installed("falls", &release(2)) && !depot.is_installed("falls", &release(4)));
    assert_eq!(fs::read_to_string(outside).unwrap(), "the outbox");
}

#[test]
fn what_a_crash_has_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path(), NO_RESERVE).unwrap();
    install(&depot, 1);
    depot.link("falls", &slot(1), None).unwrap();
    package(&depot.place("falls", &release(2)).unwrap(), 2);
    let half = depot.installed("falls", &release(3));
    fs::create_dir_all(half.join("golden")).unwrap();
    fs::write(dir.path().join("installed/falls/1.9.0-0123456789ab.json"), "{}").unwrap();
    std::os::unix::fs::symlink("../installed/falls/nothing", dir.path().join("previous/falls")).unwrap();
    std::os::unix::fs::symlink("../installed/falls/nothing", dir.path().join("current/.new-falls")).unwrap();
    let depot = Depot::open(dir.path(), NO_RESERVE).unwrap();
    assert_eq!(names(dir.path().join("unpacking")), [""; 0]);
    let folder = release(1).folder();
    assert_eq!(names(dir.path().join("installed/falls")), [folder.clone(), format!("{folder}.json")]);
    assert_eq!((names(dir.path().join("current")), names(dir.path().join("previous"))), (vec!["falls".into()], vec![]));
    open_verified(depot.linked("current", "falls").unwrap()).unwrap();
    fs::remove_file(dir.path().join(format!("installed/falls/{folder}.json"))).unwrap();
    let depot = Depot::open(dir.path(), NO_RESERVE).unwrap();
    assert!(depot.is_installed("falls", &release(1)), "what a link names stays");
}

#[test]
fn no_space_is_taken_from_the_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path(), Options { reserve_bytes: 1 << 60 }).unwrap();
    (1..=2).for_each(|minor| drop(install(&depot, minor)));
    let error = depot.reserve(&release(3), 0, &wanted(slot(2), None)).unwrap_err();
    assert!(matches!(error, DepotError::TooLittle { .. }), "{error}");
    assert_eq!((error.fault().code, depot.room().unwrap()), (Code::NoSpace, 0));
    assert!(!depot.is_installed("falls", &release(1)) && depot.is_installed("falls", &release(2)), "it has tried");

    let plenty = Depot::open(dir.path(), NO_RESERVE).unwrap();
    install(&plenty, 1);
    assert_eq!(plenty.reserve(&release(3), 1, &wanted(slot(2), None)).unwrap(), Default::default());
    assert!(plenty.is_installed("falls", &release(1)), "nothing is removed where there is space");
    assert!(plenty.reserve(&release(3), u64::MAX >> 21, &wanted(slot(2), None)).is_err(), "what the channel asks for");
}

/// Engines first, then bundles, then packages, and no more than is needed.
#[test]
fn space_is_made_in_order_and_no_further_than_is_needed() {
    let Some(disk) = Mount::new("8m") else { return };
    let (home, engines) = (disk.0.path().join("models"), disk.0.path().join("engines"));
    let depot = Depot::open(&home, NO_RESERVE).unwrap().with_engines(&engines);
    (1..=2).for_each(|minor| drop(install(&depot, minor)));
    let engine = engines.join(format!("{:.16}-fp16", sha256("a package that is gone")));
    fs::create_dir_all(&engine).unwrap();
    for file in [engine.join("falls.engine"), depot.parts().join(format!("{}.part", sha256("gone")))] {
        fs::write(file, vec![0; 1 << 20]).unwrap();
    }
    let fill = |number: u32| {
        let free = rustix::fs::statvfs(disk.0.path()).unwrap();
        let free = usize::try_from(free.f_bavail * free.f_frsize).unwrap();
        fs::write(disk.0.path().join(format!("filler {number}")), vec![0; free]).unwrap();
    };
    let make = || depot.reserve(&release(3), 1, &wanted(slot(2), None));
    fill(0);
    let freed = make().unwrap();
    assert_eq!((freed.engines, freed.bundles, freed.packages), (1, 0, 0), "{freed:?}");
    fill(1);
    let freed = make().unwrap();
    assert_eq!((freed.engines, freed.bundles, freed.packages), (0, 1, 0), "{freed:?}");
    assert!(depot.is_installed("falls", &release(1)));
    fill(2);
    assert!(make().is_err(), "a package of a few kilobytes does not make a megabyte");
    assert!(!depot.is_installed("falls", &release(1)) && depot.is_installed("falls", &release(2)));
}

#[test]
fn a_disk_that_fills_up_at_any_step() {
    let Some(disk) = Mount::new("4m") else { return };
    let depot = Depot::open(disk.0.path().join("models"), NO_RESERVE).unwrap();
    install(&depot, 1);
    depot.link("falls", &slot(1), None).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    package(elsewhere.path(), 2);
    let (mut installed, mut refused) = (0, 0);
    for left_kib in (0..=80).step_by(4) {
        let filler = disk.0.path().join("another program's");
        let free = rustix::fs::statvfs(disk.0.path()).unwrap();
        let free = free.f_bavail * free.f_frsize;
        fs::write(&filler, vec![0; (free as usize).saturating_sub(left_kib << 10)]).unwrap();
        match try_install(&depot, elsewhere.path()) {
            Ok(()) => installed += 1,
            Err(fault) => {
                assert_eq!(fault.code, Code::NoSpace, "{left_kib} KiB free: {fault}");
                refused += 1;
            }
        }
        let depot = Depot::open(disk.0.path().join("models"), NO_RESERVE).unwrap();
        open_verified(depot.linked("current", "falls").unwrap()).unwrap();
        fs::remove_file(filler).unwrap();
        if depot.is_installed("falls", &release(2)) {
            open_verified(depot.installed("falls", &release(2))).unwrap();
        }
        depot.collect(&wanted(slot(1), None)).unwrap();
        assert!(!depot.is_installed("falls", &release(2)), "space comes back");
    }
    println!("{installed} times installed, {refused} times refused");
    assert!(installed > 0 && refused > 0);
}

fn try_install(depot: &Depot, from: &Path) -> Result<(), kinewatch_core::rollout::Fault> {
    let place = depot.place("falls", &release(2)).map_err(|e| e.fault())?;
    let full = |e: std::io::Error| {
        assert_eq!(e.kind(), std::io::ErrorKind::StorageFull);
        kinewatch_core::rollout::Fault::from(Code::NoSpace)
    };
    fs::create_dir_all(place.join("golden")).map_err(full)?;
    for name in ["model.toml", "tiny.onnx", "labels.txt", "golden/a.npy", "golden/a.logits.npy"] {
        fs::write(place.join(name), fs::read(from.join(name)).unwrap()).map_err(full)?;
    }
    depot.install("falls", &release(2), &open_verified(&place).unwrap()).map_err(|e| e.fault())?;
    depot.link("falls", &slot(1), Some(&slot(2))).map_err(|e| e.fault())?;
    depot.link("falls", &slot(1), None).map_err(|e| e.fault())
}

/// Installs, links and collects without end, from wherever it was stopped.
fn work_for_ever(root: &str) {
    let depot = Depot::open(root, NO_RESERVE).unwrap();
    if depot.found("falls").current == Slot::Factory {
        install(&depot, 1);
        depot.link("falls", &slot(1), None).unwrap();
    }
    let mut at = depot.found("falls").current.release().map_or(1, |release| release.epoch);
    loop {
        let next = at % 5 + 1;
        install(&depot, next);
        depot.link("falls", &slot(next), Some(&slot(at))).unwrap();
        println!("linked {next}");
        depot.collect(&wanted(slot(next), Some(slot(at)))).unwrap();
        at = next;
    }
}

#[test]
fn survives_kill_nine() {
    if let Ok(root) = std::env::var(CHILD) {
        work_for_ever(&root);
    }
    let dir = tempfile::tempdir().unwrap();
    for round in 0..40 {
        let linked = run_and_kill(dir.path(), 1 + round % 7);
        let depot = Depot::open(dir.path(), NO_RESERVE).unwrap();
        let found = depot.found("falls");
        let Slot::Release(current) = &found.current else { panic!("round {round}: no model is linked") };
        assert!(current.epoch == linked || current.epoch == linked % 5 + 1, "round {round}: {linked} was linked");
        for kind in ["current", "previous"] {
            open_verified(depot.linked(kind, "falls").unwrap())
                .unwrap_or_else(|e| panic!("round {round}: {kind}: {e}"));
        }
        for entry in names(dir.path().join("installed/falls")).iter().filter(|name| !name.ends_with(".json")) {
            open_verified(dir.path().join("installed/falls").join(entry)).unwrap_or_else(|e| panic!("{entry}: {e}"));
        }
        depot.collect(&wanted(found.current.clone(), found.previous.clone())).unwrap();
        let files = names(dir.path().join("blobs")).len();
        assert!(files <= 5, "round {round}: {files} blobs of two packages");
    }
}

/// Kill the child after so many swaps; the last one it told of.
fn run_and_kill(root: &Path, swaps: usize) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["survives_kill_nine", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let number = |line: String| line.rsplit_once("linked ").and_then(|(_, n)| n.parse::<u64>().ok());
    let told = lines.by_ref().filter_map(number).nth(swaps - 1).expect("the child works");
    child.kill().unwrap();
    let told = lines.filter_map(number).last().unwrap_or(told);
    child.wait().unwrap();
    told
}
