//! Damage: a bit flips in, or the file ends at, each page of the database, each frame of its log and each byte of the
//! record. The store opens every time, gives no number out twice, publishes nothing that was damaged, and accounts for every
//! event: it is offered whole, or stated as a gap. So for the action that is open: it is known as it was, or stated.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fastrand::Rng;
use kinewatch_store::{Draft, Floor, Handing, OpenAction, Status, Store, StoreError, StoreOptions};
use support::{at, database, draft, options, payload, read};

const EVENTS: u64 = 401;
/// Those that the broker has.
const SETTLED: u64 = 100;
const PAGE: usize = 4096;

/// A large message, so that the file has many pages with nothing but messages.
fn large(sequence: u64, rev: u32) -> Vec<u8> {
    let mut message = payload(sequence, rev);
    message.resize(700, b' ');
    message
}

/// How the agent ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// By `kill -9`: pages in the database, and newer ones in the log.
    Killed,
    /// By itself: everything is in the database.
    Stopped,
}

/// A state directory as an agent leaves it.
fn scene(dir: &Path, end: End) {
    let live = tempfile::tempdir().unwrap();
    let mut store = Store::open(database(live.path()), options(), &at(0), None).unwrap();
    store.next_session(0).unwrap();
    for round in 0..EVENTS / 2 {
        let action = format!("{round}");
        let mut drafts = [draft(&action, Status::Started), draft(&action, Status::Ended)];
        drafts.iter_mut().for_each(|draft| draft.build = &large);
        store.append(&at(0), &drafts, Handing::Later).unwrap();
        if round == EVENTS / 4 {
            // All so far goes to the database proper, as after a clean stop.
            drop(store);
            store = Store::open(database(live.path()), options(), &at(0), None).unwrap();
        }
    }
    // The last one goes on.
    store.append(&at(0), &[Draft { build: &large, ..draft("open", Status::Started) }], Handing::Later).unwrap();
    store.offer(&at(0), 0, u64::MAX, EVENTS as usize).unwrap();
    store.acked(&(1..=SETTLED).collect::<Vec<_>>()).unwrap();
    if end == End::Stopped {
        drop(store);
    }
    copy(live.path(), dir);
}

/// The action that is open at the end.
fn goes_on() -> OpenAction {
    let draft = draft("open", Status::Started);
    OpenAction {
        action_id: draft.action_id,
        sequence: EVENTS,
        topic: draft.topic.into(),
        camera: draft.camera.into(),
        label: draft.label.into(),
        last_payload: large(EVENTS, 0),
        rev: 0,
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// What whoever owns a store does about damage: open, work, and when that finds damage that opening did not, begin anew.
struct Owner<'d> {
    dir: &'d Path,
    floor: Option<Floor>,
    /// How often the database was set aside.
    set_aside: u32,
}

impl Owner<'_> {
    fn open(&mut self) -> Store {
        let open = || Store::open(database(self.dir), StoreOptions { ..options() }, &at(0), self.floor);
        let store = open().unwrap_or_else(|error| {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
            Store::condemn(&database(self.dir)).unwrap();
            self.set_aside += 1;
            open().unwrap()
        });
        self.set_aside += u32::from(store.opened().set_aside.is_some());
        store
    }

    /// Runs `work` until it succeeds.
    fn work<T>(&mut self, store: &mut Store, mut work: impl FnMut(&mut Store) -> Result<T, StoreError>) -> T {
        for _ in 0..3 {
            match work(store) {
                Ok(done) => return done,
                Err(error) => {
                    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
                    self.floor = Some(store.floor());
                    let place = database(self.dir);
                    // A store that is no more, so that the file is closed.
                    let nowhere = tempfile::tempdir().unwrap();
                    *store = Store::open(database(nowhere.path()), options(), &at(0), None).unwrap();
                    Store::condemn(&place).unwrap();
                    self.set_aside += 1;
                    *store = self.open();
                }
            }
        }
        panic!("damaged for ever");
    }
}

/// Opens what is there and holds it against the promise. Whether the database had to be set aside.
fn check(what: &str, dir: &Path) -> bool {
    let mut owner = Owner { dir, floor: None, set_aside: 0 };
    let mut store = owner.open();
    let mut open = owner.work(&mut store, |store| store.open_actions());
    open.extend(store.opened().salvaged.iter().cloned());
    assert!(open.iter().all(|action| *action == goes_on()), "{what}: {open:?}");
    let (mut delivered, mut above) = (BTreeSet::new(), 0);
    loop {
        let rows = owner.work(&mut store, |store| store.offer(&at(0), above, u64::MAX, 64));
        let Some(last) = rows.last() else { break };
        above = last.sequence;
        for row in &rows {
            assert_eq!(read(&row.payload).0, row.sequence, "{what}: a damaged message would be published");
            assert_eq!(row.payload, large(row.sequence, read(&row.payload).1), "{what}");
        }
        let sequences: Vec<u64> = rows.iter().map(|row| row.sequence).collect();
        owner.work(&mut store, |store| store.acked(&sequences));
        delivered.extend(sequences);
    }
    let next = owner.work(&mut store, |store| store.append(&at(0), &[draft("n", Status::Started)], Handing::Later));
    assert!(next.sequences.start > EVENTS, "{what}: number {} was given out before", next.sequences.start);
    let mut stated = BTreeSet::new();
    for gap in owner.work(&mut store, |store| store.gaps(usize::MAX >> 1)) {
        stated.extend(gap.first..=gap.last);
    }
    assert!(!open.is_empty() || stated.contains(&EVENTS), "{what}: an action stays open without a word");
    for sequence in SETTLED + 1..next.sequences.start {
        assert!(
            delivered.contains(&sequence) || stated.contains(&sequence),
            "{what}: {sequence} is lost without a word"
        );
    }
    assert!(owner.work(&mut store, |store| store.next_session(0)) >= 2, "{what}: the session came again");
    owner.set_aside > 0
}

/// Damages a copy of the scene and checks it.
fn with_damage(scene: &Path, what: &str, damage: impl FnOnce(&Path)) -> bool {
    let dir = tempfile::tempdir().unwrap();
    copy(scene, dir.path());
    damage(dir.path());
    check(what, dir.path())
}

fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path, to: usize) {
    fs::File::options().write(true).open(path).unwrap().set_len(to as u64).unwrap();
}

/// Each n-th place is tried; all with `KINEWATCH_DAMAGE=all`.
fn stride(n: usize) -> usize {
    if std::env::var("KINEWATCH_DAMAGE").is_ok_and(|all| all == "all") { 1 } else { n }
}

#[test]
fn every_page_of_the_database() {
    let dir = tempfile::tempdir().unwrap();
    scene(dir.path(), End::Stopped);
    let mut rng = Rng::with_seed(5);
    let pages = fs::metadata(database(dir.path())).unwrap().len() as usize / PAGE;
    assert!(pages > 40, "{pages}");
    let mut set_aside = 0;
    for page in (0..pages).step_by(stride(3)) {
        let at = page * PAGE + rng.usize(0..PAGE);
        let bit = rng.u8(0..8);
        let flipped = format!("bit {bit} of byte {at} of the database");
        set_aside += u32::from(with_damage(dir.path(), &flipped, |dir| flip(&database(dir), at, bit)));
        let end = page * PAGE + rng.usize(0..2) * rng.usize(0..PAGE);
        let cut = format!("the database ends at byte {end}");
        set_aside += u32::from(with_damage(dir.path(), &cut, |dir| truncate(&database(dir), end)));
    }
    assert!(set_aside > 10, "{set_aside}: the damage does nothing");
}

#[test]
fn every_byte_of_the_header() {
    let dir = tempfile::tempdir().unwrap();
    scene(dir.path(), End::Stopped);
    // Versions of the format and of the schema, sizes: every bit.
    let decides = |at: usize| (16..24).contains(&at) || (44..48).contains(&at) || (56..64).contains(&at);
    for at in 0..100 {
        for bit in (0..8).step_by(if decides(at) { 1 } else { stride(8) }) {
            let what = format!("bit {bit} of byte {at} of the header");
            with_damage(dir.path(), &what, |dir| flip(&database(dir), at, bit));
        }
    }
}

#[test]
fn every_frame_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    scene(dir.path(), End::Killed);
    let mut rng = Rng::with_seed(7);
    let log = |dir: &Path| dir.join("events.db-wal");
    let (header, frame) = (32, 24 + PAGE);
    let frames = (fs::metadata(log(dir.path())).unwrap().len() as usize - header) / frame;
    assert!(frames > 100, "{frames}");
    for index in (0..frames).step_by(stride(17)) {
        let at = header + index * frame + rng.usize(0..frame);
        let bit = rng.u8(0..8);
        with_damage(dir.path(), &format!("bit {bit} of byte {at} of the log"), |dir| flip(&log(dir), at, bit));
        with_damage(dir.path(), &format!("the log ends at byte {at}"), |dir| truncate(&log(dir), at));
    }
    for at in 0..header {
        with_damage(dir.path(), &format!("byte {at} of the log"), |dir| flip(&log(dir), at, rng.u8(0..8)));
    }
    with_damage(dir.path(), "no log", |dir| fs::remove_file(log(dir)).unwrap());
}

#[test]
fn every_byte_of_the_record() {
    let dir = tempfile::tempdir().unwrap();
    scene(dir.path(), End::Killed);
    let record = |dir: &Path| dir.join("sequence");
    let bytes = fs::metadata(record(dir.path())).unwrap().len() as usize;
    let mut rng = Rng::with_seed(9);
    for at in (0..bytes).step_by(stride(5)) {
        let bit = rng.u8(0..8);
        with_damage(dir.path(), &format!("bit {bit} of byte {at} of the record"), |dir| flip(&record(dir), at, bit));
        with_damage(dir.path(), &format!("the record ends at byte {at}"), |dir| truncate(&record(dir), at));
    }
}
