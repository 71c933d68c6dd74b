//! What the tests of the store share: messages that say what they are, and a state directory.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kinewatch_store::{Draft, Gap, Handing, Row, Stamp, Status, Store, StoreOptions};

/// A payload that says its number and revision.
pub fn payload(sequence: u64, rev: u32) -> Vec<u8> {
    format!("{sequence:020} {rev}").into_bytes()
}

/// Number and revision of a payload.
pub fn read(payload: &[u8]) -> (u64, u32) {
    let text = std::str::from_utf8(payload).unwrap();
    let (sequence, rev) = text.split_once(' ').unwrap();
    (sequence.parse().unwrap(), rev.trim_end().parse().unwrap())
}

fn renumber(stored: &[u8], rev: u32) -> Option<Vec<u8>> {
    Some(payload(read(stored).0, rev))
}

pub fn options() -> StoreOptions {
    StoreOptions { renumber, ..StoreOptions::default() }
}

pub fn draft(action: &str, status: Status) -> Draft<'static> {
    Draft {
        topic: "kinewatch/v1/home/box/evt/room/fall",
        action_id: action.into(),
        label: "fall",
        camera: "room",
        status,
        rev: 0,
        build: &payload,
    }
}

/// An instant of boot 1, whose clock is right.
pub fn at(second: i64) -> Stamp {
    let ns = second * 1_000_000_000;
    Stamp { unix_ns: 1_700_000_000_000_000_000 + ns, boot_ns: ns, boot: 1, synced: true }
}

pub fn database(dir: &Path) -> PathBuf {
    dir.join("events.db")
}

pub fn open_with(dir: &Path, options: StoreOptions) -> Store {
    Store::open(database(dir), options, &at(0), None).unwrap()
}

pub fn open(dir: &Path) -> Store {
    open_with(dir, options())
}

/// Appends one event to be sent later.
pub fn append(store: &mut Store, action: &str, status: Status) -> u64 {
    store.append(&at(0), &[draft(action, status)], Handing::Later).unwrap().sequences.start
}

pub fn all(rows: &[Row]) -> Vec<u64> {
    rows.iter().map(|row| row.sequence).collect()
}

/// Numbers that wait for the broker.
pub fn waiting(store: &Store) -> Vec<u64> {
    all(&store.pending(0, usize::MAX >> 1).unwrap())
}

/// Revisions of what waits for the broker.
pub fn revs(store: &Store) -> Vec<u32> {
    store.pending(0, usize::MAX >> 1).unwrap().iter().map(|row| read(&row.payload).1).collect()
}

pub fn ranges(gaps: &[Gap]) -> Vec<(u64, u64)> {
    gaps.iter().map(|gap| (gap.first, gap.last)).collect()
}

/// Runs the test `survives_kill_nine` of this program as a child, which finds `path` in the variable `child` and prints
/// `word NUMBER` for each promise; kills it after so many of them. Gives the highest number that it promised.
pub fn run_and_kill(child: &str, path: &Path, word: &str, promises: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["survives_kill_nine", "--exact", "--nocapture", "--test-threads=1"])
        .env(child, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let number = |line: String| {
        let (_, rest) = line.rsplit_once(word)?;
        rest.trim_start().parse::<u64>().ok()
    };
    let promised = lines.by_ref().filter_map(number).nth(promises as usize - 1).expect("the child promises");
    child.kill().unwrap();
    let promised = lines.filter_map(number).last().unwrap_or(promised).max(promised);
    child.wait().unwrap();
    promised
}
