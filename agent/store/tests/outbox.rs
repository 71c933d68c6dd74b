//! The outbox through its public face: order, acknowledgement, quota, gaps, damage.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kinewatch_store::{Disposition, Draft, Gap, Status, Store, StoreError, StoreOptions};

fn payload(sequence: u64) -> Vec<u8> {
    format!("{{\"sequence\":\"{sequence:020}\"}}").into_bytes()
}

fn draft(action: &str, status: Status) -> Draft<'static> {
    Draft {
        topic: "kinewatch/v1/home/box/evt/room/fall".into(),
        action_id: action.into(),
        label: "fall".into(),
        camera: "room".into(),
        status,
        build: &payload,
    }
}

fn database(dir: &Path) -> PathBuf {
    dir.join("kinewatch.db")
}

fn open(dir: &Path) -> Store {
    Store::open(database(dir), StoreOptions::default()).unwrap()
}

fn sequences(store: &Store) -> Vec<u64> {
    store.pending(0, usize::MAX >> 1).unwrap().iter().map(|r| r.sequence).collect()
}

fn ranges(gaps: &[Gap]) -> Vec<(u64, u64)> {
    gaps.iter().map(|g| (g.first, g.last)).collect()
}

#[test]
fn append_ack_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    assert_eq!(store.next_session().unwrap(), 1);
    let appended = store.append(&[draft("a", Status::Started), draft("b", Status::Started)]).unwrap();
    assert_eq!(appended.sequences, 1..3);
    store.mark_sent(&[1]).unwrap();
    store.mark_sent(&[1]).unwrap();
    let rows = store.pending(0, 10).unwrap();
    assert_eq!((rows[0].attempts, rows[1].attempts), (2, 0));
    assert!(rows[0].first_sent_unix_ns.is_some() && rows[0].payload == payload(1));
    assert_eq!(store.pending(1, 10).unwrap()[0].sequence, 2);
    store.acked(&[1, 1, 77]).unwrap();
    store.append(&[draft("a", Status::Ended)]).unwrap();
    drop(store);

    let mut store = open(dir.path());
    assert_eq!(store.next_session().unwrap(), 2);
    assert_eq!(sequences(&store), [2, 3]);
    let open_actions = store.open_actions().unwrap();
    assert_eq!(open_actions.len(), 1);
    assert_eq!((open_actions[0].action_id.as_str(), open_actions[0].sequence), ("b", 2));
    assert_eq!(open_actions[0].last_payload, payload(2));
    let history: Vec<_> = store.history(10, 0).unwrap().iter().map(|h| (h.sequence, h.acknowledged)).collect();
    assert_eq!(history, [(1, true), (2, false), (3, false)]);
    assert_eq!(store.recent(1).unwrap()[0].sequence, 3);
    let stats = store.stats();
    assert_eq!((stats.messages, stats.parked, stats.gaps), (2, 0, 0));
    assert!(stats.bytes > 0 && stats.oldest_unix_ns.is_some());
    // An empty outbox does not make numbers repeat.
    store.acked(&[2, 3]).unwrap();
    drop(store);
    assert_eq!(open(dir.path()).append(&[draft("c", Status::Started)]).unwrap().sequences, 4..5);
}

#[test]
fn the_history_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { history_rows: 3, ..StoreOptions::default() };
    let mut store = Store::open(database(dir.path()), options).unwrap();
    for _ in 0..10 {
        store.append(&[draft("a", Status::Updated)]).unwrap();
    }
    store.acked(&(1..=8).collect::<Vec<_>>()).unwrap();
    let history: Vec<_> = store.history(100, 0).unwrap().iter().map(|h| h.sequence).collect();
    assert_eq!(history, [6, 7, 8, 9, 10], "three acknowledged ones and what waits");
    drop(store);
    let options = StoreOptions { history_age: Duration::ZERO, ..StoreOptions::default() };
    let mut store = Store::open(database(dir.path()), options).unwrap();
    store.acked(&[9]).unwrap();
    assert_eq!(sequences(&store), [10]);
    assert_eq!(store.history(100, 0).unwrap().len(), 1, "too old, all but what waits");
}

#[test]
fn the_quota_drops_updates_first_and_states_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = open(dir.path());
    probe.append(&[draft("x", Status::Started)]).unwrap();
    let row = probe.stats().bytes;
    drop(probe);

    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { outbox_bytes: 5 * row, ..StoreOptions::default() };
    let mut store = Store::open(database(dir.path()), options.clone()).unwrap();
    for status in [Status::Started, Status::Updated, Status::Updated, Status::Ended, Status::Started] {
        assert_eq!(store.append(&[draft("a", status)]).unwrap().dropped, []);
    }
    let dropped = store.append(&[draft("b", Status::Ended), draft("c", Status::Started)]).unwrap().dropped;
    assert_eq!(ranges(&dropped), [(2, 3)]);
    let dropped = store.append(&[draft("d", Status::Started)]).unwrap().dropped;
    assert_eq!(ranges(&dropped), [(1, 1)], "no updates left: the oldest");
    assert_eq!(sequences(&store), [4, 5, 6, 7, 8]);
    let gaps = store.gaps(10).unwrap();
    assert_eq!(ranges(&gaps), [(1, 3)], "neighbours are stated as one");
    assert_eq!(gaps[0].reason, "quota");
    drop(store);
    let mut store = Store::open(database(dir.path()), options).unwrap();
    assert_eq!(ranges(&store.gaps(10).unwrap()), [(1, 3)], "stored until it is stated");
    store.acked(&[3]).unwrap();
    assert_eq!(store.gaps(10).unwrap(), []);
    assert_eq!(store.stats().bytes, 5 * row);
    assert_eq!(store.history(100, 0).unwrap().len(), 5, "what the quota dropped is gone from the disk");
}

#[test]
fn the_acknowledgement_of_a_small_statement_leaves_what_was_lost_since() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.append(&[draft("a", Status::Started), draft("a", Status::Updated), draft("a", Status::Ended)]).unwrap();
    store.park(3, 0x97).unwrap();
    assert_eq!(ranges(&store.gaps(10).unwrap()), [(3, 3)], "its statement goes out");
    store.park(2, 0x97).unwrap();
    store.acked(&[3]).unwrap();
    assert_eq!(ranges(&store.gaps(10).unwrap()), [(2, 2)], "lost after that statement, so it has to be stated too");
}

#[test]
fn a_refused_message_is_parked_and_stated() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.append(&[draft("a", Status::Started), draft("a", Status::Updated), draft("a", Status::Ended)]).unwrap();
    store.park(2, 0x97).unwrap();
    assert_eq!(sequences(&store), [1, 3]);
    assert_eq!(ranges(&store.gaps(10).unwrap()), [(2, 2)]);
    let stats = store.stats();
    assert_eq!((stats.messages, stats.parked, stats.gaps), (3, 1, 1));
    // A broker that refuses the statement too must not be asked again and again.
    store.park(2, 0x87).unwrap();
    assert_eq!(store.gaps(10).unwrap(), []);
}

#[test]
fn a_failed_append_uses_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.append(&[draft("a", Status::Started)]).unwrap();
    let panicking = |_| -> Vec<u8> { panic!("a bug in the payload") };
    let bad = Draft { build: &panicking, ..draft("b", Status::Started) };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = store.append(&[draft("b", Status::Started), bad]);
    }));
    assert!(result.is_err());
    assert_eq!(store.append(&[draft("c", Status::Started)]).unwrap().sequences, 2..3);
    assert_eq!(sequences(&store), [1, 2]);
}

#[test]
fn damage_is_set_aside_and_numbers_go_on() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("overwritten", |db| {
            let mut bytes = fs::read(db).unwrap();
            bytes[..4096].fill(0x5a);
            fs::write(db, bytes).unwrap();
        }),
        ("not a database", |db| fs::write(db, b"hello, this is a text file and no database at all").unwrap()),
        ("removed", |db| fs::remove_file(db).unwrap()),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        assert_eq!(store.next_session().unwrap(), 1);
        for _ in 0..50 {
            store.append(&[draft("a", Status::Updated)]).unwrap();
        }
        store.acked(&(1..=20).collect::<Vec<_>>()).unwrap();
        drop(store);
        let wal = dir.path().join("kinewatch.db-wal");
        let _ = fs::remove_file(wal);
        damage(&database(dir.path()));

        let mut store = open(dir.path());
        let set_aside = store.opened().set_aside.clone();
        assert_eq!(set_aside.is_some(), name != "removed", "{name}");
        if let Some(aside) = set_aside {
            assert!(aside.exists() && aside.to_string_lossy().ends_with(".corrupt-1"), "{name}");
        }
        let gap = store.opened().lost.clone().unwrap();
        assert_eq!(gap.first, 21, "{name}: from the oldest not acknowledged");
        let next = store.append(&[draft("b", Status::Started)]).unwrap().sequences.start;
        assert!(next > 50 && gap.last == next - 1, "{name}: {next}");
        assert_eq!(ranges(&store.gaps(10).unwrap()), [(21, next - 1)], "{name}");
        assert_eq!(store.next_session().unwrap(), 2, "{name}: sessions go on too");
        drop(store);
        assert_eq!(open(dir.path()).opened().lost, None, "{name}: said once");
    }
}

#[test]
fn a_lost_record_file_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.append(&[draft("a", Status::Started)]).unwrap();
    drop(store);
    fs::remove_file(dir.path().join("sequence")).unwrap();
    let mut store = open(dir.path());
    assert_eq!(store.opened().lost, None);
    assert_eq!(store.append(&[draft("a", Status::Ended)]).unwrap().sequences, 2..3);
}

#[test]
fn errors_name_the_path_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let error = Store::open(database(dir.path()), StoreOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");

    let missing = dir.path().join("none").join("kinewatch.db");
    let error = Store::open(&missing, StoreOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
    assert!(error.to_string().contains("state_dir"), "{error}");
    assert_eq!(error.disposition(), Disposition::Fatal);
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    // `user_version` lies at offset 60 of the file, big-endian.
    let path = database(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(&path, bytes).unwrap();
    let error = Store::open(&path, StoreOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
}
