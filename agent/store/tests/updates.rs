//! What is known of updates survives `kill -9` at any moment, damage of any byte, and a second owner; no floor ever falls.
#![allow(clippy::unwrap_used)]

mod support;

use kinewatch_core::rollout::step::Note;
use kinewatch_core::rollout::{Code, Fault, Quarantined, Record, Release, Slot};
use kinewatch_store::StoreError;
use kinewatch_store::updates::{Change, Updates, read};

const CHILD: &str = "KINEWATCH_UPDATES_TEST_CHILD";

fn release(epoch: u64) -> Release {
    Release {
        channel: "stable".into(),
        epoch,
        version: semver::Version::new(1, epoch, 0),
        bundle: format!("models/falls/1.{epoch}.0/bundle.tar.zst"),
        sha256: format!("{epoch:064x}"),
        length: 1,
    }
}

/// The record after `epoch` steps: the floor, the newest quarantine and `current` all say the same number.
fn record(epoch: u64) -> Record {
    let mut record = Record::found("falls", Slot::Release(release(epoch)), None);
    let fault = Fault::new(Code::NotFinite, "x".repeat(200));
    record.quarantine.push(Quarantined { release: release(epoch), fault, at: "2026-12-01T12:00:00Z".parse().unwrap() });
    record
}

fn note(epoch: u64) -> Note {
    let at = "2026-12-01T12:00:00Z".parse().unwrap();
    Note { at, from: "idle".into(), to: "settling".into(), release: Some(release(epoch)), fault: None }
}

fn step(updates: &mut Updates, epoch: u64) -> Result<(), StoreError> {
    let (record, note, floors) = (record(epoch), note(epoch), epoch.to_string());
    updates.commit(Change { record: &record, note: Some(&note), repository: Some(("home", &floors)) })
}

fn fresh() -> Record {
    Record::new("falls")
}

#[test]
fn a_step_is_there_again_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("updates.db");
    assert!(matches!(read(&path, 9), Err(StoreError::NoStore { .. })));
    let mut updates = Updates::open(&path).unwrap();
    assert_eq!(updates.load("falls", fresh).unwrap().record, fresh());
    step(&mut updates, 7).unwrap();
    let seen = read(&path, 9).unwrap();
    assert_eq!((seen.records, seen.history["falls"].clone()), (vec![record(7)], vec![note(7)]), "beside its owner");
    assert!(matches!(Updates::open(&path), Err(StoreError::InUse { .. })));
    drop(updates);
    let updates = Updates::open(&path).unwrap();
    let loaded = updates.load("falls", fresh).unwrap();
    assert_eq!((loaded.record, loaded.damaged), (record(7), None));
    assert_eq!(updates.repository_floors("home").unwrap().as_deref(), Some("7"));
    assert_eq!(updates.load("fights", || Record::new("fights")).unwrap().record.floors.len(), 0, "of its model alone");
}

#[test]
fn floors_and_quarantine_only_grow_whatever_the_record_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("updates.db");
    let mut updates = Updates::open(&path).unwrap();
    step(&mut updates, 7).unwrap();
    updates.commit(Change { record: &fresh(), note: None, repository: None }).unwrap();
    let loaded = updates.load("falls", fresh).unwrap().record;
    assert_eq!(loaded.floors["stable"], 7);
    assert!(loaded.quarantined("stable", 7).is_some());
}

#[test]
fn the_history_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut updates = Updates::open(dir.path().join("updates.db")).unwrap();
    for epoch in 1..=1010 {
        step(&mut updates, epoch).unwrap();
    }
    let history = updates.history("falls", usize::MAX).unwrap();
    assert_eq!((history.len(), history.last()), (1000, Some(&note(1010))));
    assert_eq!(updates.history("falls", 2).unwrap(), [note(1009), note(1010)]);
}

/// A record that somebody has changed is made anew from what is installed, and the floors hold.
#[test]
fn a_record_that_cannot_be_read_takes_no_floor_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("updates.db");
    step(&mut Updates::open(&path).unwrap(), 7).unwrap();
    for (sql, said) in [
        ("UPDATE record SET json = replace(json, '1.7.0', '1.8.0')", "check sum"),
        ("UPDATE record SET json = '{}', crc = 2745614147", "missing field"),
    ] {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute(sql, []).unwrap();
        drop(connection);
        let loaded = Updates::open(&path).unwrap().load("falls", fresh).unwrap();
        assert!(loaded.damaged.as_ref().unwrap().contains(said), "{loaded:?}");
        assert_eq!((loaded.record.current.clone(), loaded.record.floors["stable"]), (Slot::Factory, 7));
        assert!(loaded.record.quarantined("stable", 7).is_some());
    }
}

/// The power may go, or the disk be full, between the two.
#[test]
fn what_was_set_aside_is_carried_over_at_whichever_start_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("updates.db");
    step(&mut Updates::open(&path).unwrap(), 7).unwrap();
    std::fs::rename(&path, dir.path().join("updates.db.corrupt-1")).unwrap();
    let updates = Updates::open(&path).unwrap();
    let loaded = updates.load("falls", fresh).unwrap().record;
    assert_eq!((loaded.floors["stable"], loaded.quarantined("stable", 7).is_some()), (7, true));
    assert_eq!(updates.repository_floors("home").unwrap().as_deref(), Some("7"));
}

/// A bit of each 64 bytes in turn: it opens, and says what is true or that it is damaged.
#[test]
fn damage_anywhere_is_noticed_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole.db");
    let mut updates = Updates::open(&whole).unwrap();
    (1..=20).for_each(|epoch| step(&mut updates, epoch).unwrap());
    drop(updates);
    let bytes = std::fs::read(&whole).unwrap();
    let (mut told, mut kept) = (0, 0);
    for at in (0..bytes.len()).step_by(64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("updates.db");
        let mut damaged = bytes.clone();
        damaged[at + at / 64 % 64] ^= 1 << (at / 64 % 8);
        std::fs::write(&path, damaged).unwrap();
        let opened = Updates::open(&path).unwrap_or_else(|e| panic!("byte {at}: {e}"));
        let loaded = opened.load("falls", fresh).unwrap_or_else(|e| panic!("byte {at}: {e}"));
        let noticed = opened.set_aside().is_some() || loaded.damaged.is_some();
        assert!(noticed || loaded.record == record_of_20(&loaded.record), "byte {at}: {:?}", loaded.record);
        told += usize::from(noticed);
        kept += usize::from(loaded.record.floors.get("stable") >= Some(&20));
    }
    let all = bytes.len() / 64;
    println!("{all} bits: {told} noticed; the floor was kept in {kept}");
    assert!(told > 0 && kept * 10 > all * 9, "{told} noticed, floor kept in {kept} of {all}");
}

/// The quarantine of a record is that of the table too, so it has all twenty; what else it says is fixed.
fn record_of_20(found: &Record) -> Record {
    let quarantine = found.quarantine.clone();
    assert!(quarantine.iter().any(|q| q.release.epoch == 20));
    let mut floors = record(20).floors;
    // A floor that a bit has raised only asks for a higher epoch.
    floors.insert("stable".into(), found.floors["stable"].max(20));
    floors.extend(found.floors.iter().filter(|(channel, _)| *channel != "stable").map(|(c, e)| (c.clone(), *e)));
    Record { quarantine, floors, ..record(20) }
}

#[test]
fn survives_kill_nine() {
    if let Ok(path) = std::env::var(CHILD) {
        let mut updates = Updates::open(path).unwrap();
        let first = updates.load("falls", fresh).unwrap().record.floors.get("stable").copied().unwrap_or(0) + 1;
        for epoch in first.. {
            step(&mut updates, epoch).unwrap();
            println!("committed {epoch}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("updates.db");
    let mut promised = 0;
    for round in 0..12 {
        promised = promised.max(support::run_and_kill(CHILD, &path, "committed", 1 + round * 3));
        let updates = Updates::open(&path).unwrap();
        assert_eq!(updates.set_aside(), None);
        let Record { floors, current, .. } = updates.load("falls", fresh).unwrap().record;
        let epoch = floors["stable"];
        assert!(epoch >= promised, "{promised} was promised, {epoch} is on the disk");
        assert_eq!(current, Slot::Release(release(epoch)), "one step, whole");
        assert_eq!(updates.repository_floors("home").unwrap().unwrap(), epoch.to_string());
        assert_eq!(updates.history("falls", 1).unwrap(), [note(epoch)]);
    }
}
