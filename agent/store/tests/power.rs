//! Power cuts: a child appends without end, is stopped at an arbitrary instant, and its state directory is copied as it
//! stands. Then everything that no `fsync` had reached is taken away or torn, as a disk without power may do. The copy must
//! open, hold every event that the child had been promised, and go on counting. `KINEWATCH_POWER_CUTS` makes it longer.
//!
//! What was synced is known exactly: the child prints, after each append, how long the log was then and which salt it bore
//! (from the log's shared index). Of a checkpoint that was under way, the pages it may have half written are torn too.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use fastrand::Rng;
use kinewatch_store::{Handing, Status, Store, StoreOptions};
use support::{append, at, database, draft, read, waiting};

const CHILD: &str = "KINEWATCH_STORE_TEST_POWER";
/// Cuts of one run of the child; then a fresh one, so that the files stay small.
const CUTS_PER_CHILD: u32 = 100;
/// The newest numbers that the child leaves without an acknowledgement.
const UNSETTLED: u64 = 40;
const PAGE: usize = 4096;
const FRAME: usize = 24 + PAGE;
const WAL_HEADER: usize = 32;

fn options() -> StoreOptions {
    StoreOptions { history_rows: 400, ..support::options() }
}

/// Log frames that count, and the salt of the log they are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Synced {
    frames: u32,
    salt: u32,
}

/// The shared index of the log: two copies of a header of 48 bytes, then what is known of the checkpoint.
fn index(shm: &[u8]) -> (Synced, u32, u32) {
    let number = |at: usize| shm.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes(b.try_into().unwrap()));
    // The salt is kept as it lies in the log, which is big-endian.
    let salt = shm.get(32..36).map_or(0, |b| u32::from_be_bytes(b.try_into().unwrap()));
    (Synced { frames: number(16), salt }, number(96), number(128))
}

fn append_for_ever(dir: &Path) {
    let mut store = Store::open(database(dir), options(), &at(0), None).unwrap();
    store.next_session(0).unwrap();
    for round in 0_u64.. {
        let action = format!("{round}");
        let drafts = [Status::Started, Status::Updated, Status::Ended].map(|status| draft(&action, status));
        let appended = store.append(&at(0), &drafts[..1 + (round % 3) as usize], Handing::Later).unwrap();
        let last = appended.sequences.end - 1;
        let (synced, ..) = index(&fs::read(dir.join("events.db-shm")).unwrap());
        println!("stored {last} {} {}", synced.frames, synced.salt);
        // These are not promised: they may be lost, and are done again.
        let old: Vec<u64> = waiting(&store).into_iter().filter(|s| *s + UNSETTLED <= last).collect();
        store.offer(&at(0), 0, last, 3).unwrap();
        store.acked(&old).unwrap();
    }
}

/// What a line of the child promises: the last number, and what of the log was synced then.
fn promise(line: &str) -> Option<(u64, Synced)> {
    let numbers: Vec<u64> = line.rsplit_once("stored ")?.1.split(' ').filter_map(|n| n.parse().ok()).collect();
    let [last, frames, salt] = numbers[..] else { return None };
    Some((last, Synced { frames: frames as u32, salt: salt as u32 }))
}

/// A running child, and what it has promised. It promises into a file: what a stopped child has written is there to be read.
struct Writer {
    child: Child,
    promises: File,
    /// Read, but not yet a whole line.
    rest: String,
    newest: (u64, Synced),
}

impl Writer {
    fn start(dir: &Path) -> Self {
        let promises = tempfile::NamedTempFile::new().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["survives_power_cuts", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir)
            .stdout(promises.reopen().unwrap())
            .spawn()
            .unwrap();
        Self { child, promises: promises.into_file(), rest: String::new(), newest: (0, Synced::default()) }
    }

    /// Lets it promise `more` times, then stops it wherever it is.
    fn stop_after(&mut self, more: usize) {
        let begun = Instant::now();
        let mut promised = 0;
        while promised < more {
            promised += self.read();
            assert!(begun.elapsed() < Duration::from_secs(60), "the child appends");
            std::thread::sleep(Duration::from_micros(200));
        }
        self.signal("STOP");
        let stat = format!("/proc/{}/stat", self.child.id());
        while !fs::read_to_string(&stat).unwrap().contains(") T ") {
            std::thread::yield_now();
        }
        self.read();
    }

    /// Reads what it has promised since; gives how many promises those are.
    fn read(&mut self) -> usize {
        self.promises.read_to_string(&mut self.rest).unwrap();
        let whole = self.rest.rfind('\n').map_or(0, |end| end + 1);
        let lines: String = self.rest.drain(..whole).collect();
        let promises: Vec<_> = lines.lines().filter_map(promise).collect();
        self.newest = promises.last().copied().unwrap_or(self.newest);
        promises.len()
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes away or tears what was not synced.
fn cut(dir: &Path, (promised, synced): (u64, Synced), rng: &mut Rng) {
    let wal_path = dir.join("events.db-wal");
    let Ok(mut wal) = fs::read(&wal_path) else { return };
    let (now, backfilled, backfilling) = index(&fs::read(dir.join("events.db-shm")).unwrap_or_default());
    let salt = |at: usize| wal.get(at..at + 4).map_or(0, |b| u32::from_be_bytes(b.try_into().unwrap()));
    let in_header = salt(16);
    // Before a checkpoint writes the first page to the database, it syncs the log.
    let kept = if in_header == synced.salt {
        let checkpointed = if now.salt == synced.salt { backfilling } else { 0 };
        WAL_HEADER + synced.frames.max(checkpointed) as usize * FRAME
    } else {
        // A log begun anew since: all that was before is in the database, which was synced for that.
        0
    };
    if in_header == synced.salt && now.salt == synced.salt {
        tear_pages(&dir.join("events.db"), &wal, backfilled as usize..backfilling as usize, rng);
    }
    if kept < wal.len() {
        match rng.u8(0..4) {
            0 => wal.truncate(rng.usize(kept..=wal.len())),
            1 => tear(&mut wal[kept..], rng),
            2 => wal[kept..].fill(0),
            _ => {}
        }
        fs::write(&wal_path, wal).unwrap();
    }
    // Pages of this file are in memory alone; whoever opens the database makes it anew.
    match rng.u8(0..3) {
        0 => fs::remove_file(dir.join("events.db-shm")).unwrap_or_default(),
        1 => fs::write(dir.join("events.db-shm"), [0x5a; 100]).unwrap(),
        _ => {}
    }
    forget_hints(&dir.join("sequence"), promised, rng);
}

/// Overwrites some 512-byte sectors, in no order.
fn tear(bytes: &mut [u8], rng: &mut Rng) {
    for sector in bytes.chunks_mut(512) {
        match rng.u8(0..6) {
            0 => sector.fill(0),
            1 => sector.iter_mut().for_each(|b| *b = rng.u8(..)),
            _ => {}
        }
    }
}

/// Tears those pages of the database that these frames of the log hold.
fn tear_pages(database: &Path, wal: &[u8], frames: std::ops::Range<usize>, rng: &mut Rng) {
    let mut bytes = fs::read(database).unwrap();
    for frame in frames {
        let at = WAL_HEADER + frame * FRAME;
        let page = u32::from_be_bytes(wal[at..at + 4].try_into().unwrap()) as usize - 1;
        if let Some(page) = bytes.get_mut(page * PAGE..(page + 1) * PAGE) {
            tear(page, rng);
        }
    }
    fs::write(database, bytes).unwrap();
}

/// The record's hints are written without a sync: older ones may be found. They follow the sync of what they speak of, so
/// of an append that has not been told, whose frames were taken away, none can be found.
fn forget_hints(record: &Path, promised: u64, rng: &mut Rng) {
    let text = fs::read_to_string(record).unwrap();
    let mut numbers: Vec<u64> = text.lines().next().unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
    numbers[1] = numbers[1].min(promised + 1);
    numbers[2] = numbers[2].min(numbers[1]);
    if rng.bool() {
        numbers[1] = rng.u64(0..=numbers[1]);
        numbers[2] = rng.u64(0..=numbers[2].min(numbers[1]));
    }
    let line: Vec<String> = numbers.iter().map(|n| format!("{n:020}")).collect();
    fs::write(record, format!("{}\n", line.join(" ")).repeat(2)).unwrap();
}

fn check(dir: &Path, promised: u64) {
    let mut store = Store::open(database(dir), options(), &at(0), None).unwrap();
    assert_eq!(store.opened(), &Default::default(), "nothing set aside, nothing lost");
    let history = store.history(usize::MAX >> 1, 0).unwrap();
    assert!(history.iter().all(|row| read(&row.payload).0 == row.sequence), "every message is whole");
    let all: Vec<u64> = history.iter().map(|row| row.sequence).collect();
    let (first, last) = (*all.first().unwrap(), *all.last().unwrap());
    assert_eq!(all, (first..=last).collect::<Vec<_>>(), "contiguous and in order");
    assert!(last >= promised, "number {promised} was promised, {last} is the last on disk");
    let waiting: BTreeSet<u64> = waiting(&store).into_iter().collect();
    let unsettled = (promised.saturating_sub(UNSETTLED) + 1).max(1)..=promised;
    assert!(unsettled.clone().all(|s| waiting.contains(&s)), "{unsettled:?} was not acknowledged: {waiting:?}");
    let offered = store.offer(&at(0), 0, u64::MAX, usize::MAX >> 1).unwrap();
    assert_eq!(offered.len(), waiting.len());
    assert_eq!(append(&mut store, "next", Status::Started), last + 1);
    assert_eq!(store.next_session(0).unwrap(), 2);
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn survives_power_cuts() {
    if let Ok(dir) = std::env::var(CHILD) {
        return append_for_ever(Path::new(&dir));
    }
    let cuts: u32 = std::env::var("KINEWATCH_POWER_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let mut rng = Rng::with_seed(11);
    let (mut done, mut logs_begun_anew, mut checkpoints) = (0, 0, 0);
    while done < cuts {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::start(dir.path());
        for _ in 0..CUTS_PER_CHILD.min(cuts - done) {
            writer.stop_after(rng.usize(1..12));
            let (promised, synced) = writer.newest;
            let at_the_cut = tempfile::tempdir().unwrap();
            copy(dir.path(), at_the_cut.path());
            writer.signal("CONT");
            let (now, backfilled, backfilling) = index(&fs::read(at_the_cut.path().join("events.db-shm")).unwrap());
            logs_begun_anew += u32::from(now.salt != synced.salt);
            checkpoints += u32::from(backfilled != backfilling);
            cut(at_the_cut.path(), (promised, synced), &mut rng);
            check(at_the_cut.path(), promised);
            done += 1;
        }
    }
    println!("{done} cuts, {logs_begun_anew} of them in a log begun anew, {checkpoints} in a checkpoint");
}
