//! A disk that is full, read-only, and then neither: on a small file system of the test's own. Where a process may not mount
//! one, the test says so and ends; a full disk is then shown by the unit test beside `append` alone.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/support/mount.rs"]
mod mount;
mod support;

use std::fs;

use kinewatch_store::{Disposition, Draft, Handing, Status, Store, StoreError};
use mount::Mount;
use support::{at, database, draft, open, options, payload, waiting};

fn large(sequence: u64, rev: u32) -> Vec<u8> {
    let mut message = payload(sequence, rev);
    message.resize(1600, b' ');
    message
}

fn append(store: &mut Store, action: &str) -> Result<u64, StoreError> {
    let draft = Draft { build: &large, ..draft(action, Status::Started) };
    store.append(&at(0), &[draft], Handing::Later).map(|appended| appended.sequences.start)
}

#[test]
fn a_disk_that_fills_up_and_is_emptied_again() {
    let Some(disk) = Mount::new("8m") else { return };
    let dir = disk.0.path();
    fs::write(dir.join("another program's"), vec![0; 6 << 20]).unwrap();
    let mut store = open(dir);
    let mut stored = 0;
    let error = loop {
        match append(&mut store, &stored.to_string()) {
            Ok(sequence) => stored = sequence,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::DiskFull { .. }) && stored > 20, "{error} after {stored}");
    assert_eq!(error.disposition(), Disposition::Retry);
    assert_eq!(waiting(&store), (1..=stored).collect::<Vec<_>>(), "what was stored can be read");
    // A start on the full disk says so, or works as far as it can; and loses nothing.
    drop(store);
    match Store::open(database(dir), options(), &at(0), None) {
        Ok(store) => assert_eq!(waiting(&store).len() as u64, stored),
        Err(error) => assert!(matches!(error, StoreError::DiskFull { .. }), "{error}"),
    }
    fs::remove_file(dir.join("another program's")).unwrap();
    let mut store = open(dir);
    assert_eq!(store.opened(), &Default::default());
    assert_eq!(append(&mut store, "after").unwrap(), stored + 1, "no number was used up");
    assert_eq!(waiting(&store).len() as u64, stored + 1);
}

#[test]
fn a_first_start_on_a_full_disk() {
    let Some(disk) = Mount::new("1m") else { return };
    let dir = disk.0.path();
    let filler = dir.join("another program's");
    // To the last byte: the write that does not fit fails, and what fits stays.
    let _full = fs::write(&filler, vec![0; 2 << 20]);
    let error = Store::open(database(dir), options(), &at(0), None).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    fs::remove_file(&filler).unwrap();
    let mut store = open(dir);
    assert_eq!(store.opened(), &Default::default());
    assert_eq!(append(&mut store, "a").unwrap(), 1);
}

#[test]
fn a_disk_that_is_read_only_for_a_while() {
    let Some(disk) = Mount::new("8m") else { return };
    let dir = disk.0.path();
    append(&mut open(dir), "a").unwrap();
    disk.remount("ro");
    let error = Store::open(database(dir), options(), &at(0), None).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    assert_eq!(Store::last_session(&database(dir)), Some(0), "the record can still be looked at");
    disk.remount("rw");
    let mut store = open(dir);
    assert_eq!(store.opened(), &Default::default());
    assert_eq!(append(&mut store, "b").unwrap(), 2);
}
