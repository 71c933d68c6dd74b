//! The outbox through its public face: order, acknowledgement, gaps, damage.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use kinewatch_store::{Disposition, Draft, Floor, Handing, KeepUntil, Reader, Status, Store, StoreError, StoreOptions};
use support::{all, append, at, database, draft, open, open_with, options, payload, ranges, revs, waiting};

#[test]
fn append_ack_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    assert_eq!(store.next_session(0).unwrap(), 1);
    let drafts = [draft("a", Status::Started), draft("b", Status::Started)];
    let appended = store.append(&at(5), &drafts, Handing::Later).unwrap();
    assert_eq!((appended.sequences, appended.rows), (1..3, vec![]));
    let rows = store.offer(&at(6), 0, u64::MAX, 1).unwrap();
    assert_eq!((rows[0].sequence, rows[0].attempts, rows[0].stored), (1, 0, at(5)));
    assert_eq!(rows[0].payload, payload(1, 0));
    let rows = store.offer(&at(7), 0, u64::MAX, 10).unwrap();
    assert_eq!((rows[0].attempts, rows[1].attempts), (1, 0));
    assert_eq!(all(&store.offer(&at(7), 1, u64::MAX, 10).unwrap()), [2]);
    assert_eq!(all(&store.offer(&at(7), 0, 1, 10).unwrap()), [1]);
    store.acked(&[1, 1, 77]).unwrap();
    let appended = store.append(&at(8), &[draft("a", Status::Ended)], Handing::Now).unwrap();
    assert_eq!((appended.rows[0].sequence, appended.rows[0].payload.clone()), (3, payload(3, 1)));
    drop(store);

    let mut store = open(dir.path());
    assert_eq!(store.next_session(0).unwrap(), 2);
    assert_eq!(store.next_session(1_000).unwrap(), 1_000, "at least so much");
    let rows = store.pending(0, 10).unwrap();
    assert_eq!(all(&rows), [2, 3]);
    assert_eq!(rows[1].attempts, 1, "handed over at once is handed over");
    let open_actions = store.open_actions().unwrap();
    assert_eq!(open_actions.len(), 1);
    assert_eq!((open_actions[0].action_id.as_str(), open_actions[0].sequence), ("b", 2));
    assert_eq!(open_actions[0].last_payload, payload(2, 0));
    let history: Vec<_> = store.history(10, 0).unwrap().iter().map(|h| (h.sequence, h.acknowledged)).collect();
    assert_eq!(history, [(1, true), (2, false), (3, false)]);
    let stats = store.stats();
    assert_eq!((stats.waiting, stats.parked, stats.kept, stats.gaps, stats.oldest), (2, 0, 0, 0, Some(at(5))));
    // An empty outbox does not make numbers repeat.
    store.acked(&[2, 3]).unwrap();
    assert_eq!((store.stats().waiting, store.stats().bytes, store.stats().oldest), (0, 0, None));
    drop(store);
    assert_eq!(append(&mut open(dir.path()), "c", Status::Started), 4);
}

#[test]
fn revisions_are_counted_where_the_numbers_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for status in [Status::Started, Status::Updated, Status::Updated, Status::Ended] {
        append(&mut store, "a", status);
    }
    append(&mut store, "b", Status::Started);
    assert_eq!(revs(&store), [0, 1, 2, 3, 0]);
    // The store has lost the action and goes on with what its maker says.
    let late = Draft { rev: 7, ..draft("c", Status::Updated) };
    store.append(&at(0), &[late, draft("c", Status::Ended)], Handing::Later).unwrap();
    assert_eq!(revs(&store)[5..], [7, 8]);
}

#[test]
fn the_history_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_with(dir.path(), StoreOptions { history_rows: 3, ..options() });
    for second in 0..10 {
        store.append(&at(second), &[draft("a", Status::Updated)], Handing::Later).unwrap();
    }
    store.acked(&(1..=8).collect::<Vec<_>>()).unwrap();
    let sequences = |store: &Store| store.history(100, 0).unwrap().iter().map(|h| h.sequence).collect::<Vec<_>>();
    assert_eq!(sequences(&store), [6, 7, 8, 9, 10], "three acknowledged ones and what waits");
    drop(store);
    let mut store = open_with(dir.path(), StoreOptions { history_age: Duration::from_secs(100), ..options() });
    assert_eq!(store.tidy(&at(106)).unwrap(), []);
    assert_eq!(sequences(&store), [7, 8, 9, 10], "what was stored at 5 s is too old");
    store.tidy(&at(1_000)).unwrap();
    assert_eq!(sequences(&store), [9, 10], "what waits stays");
}

#[test]
fn what_waits_too_long_is_dropped_and_stated() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_with(dir.path(), StoreOptions { outbox_age: Duration::from_secs(100), ..options() });
    for second in [0, 10, 50, 200] {
        store.append(&at(second), &[draft("a", Status::Updated)], Handing::Later).unwrap();
    }
    store.park(&at(0), 2, 0x97).unwrap();
    assert_eq!(ranges(&store.tidy(&at(205)).unwrap()), [(1, 1), (3, 3)], "2 was stated when it was refused");
    assert_eq!((waiting(&store), store.stats().parked), (vec![4], 0));
    let reasons: Vec<_> = store.gaps(10).unwrap().into_iter().map(|g| (g.last, g.reason)).collect();
    assert_eq!(reasons, [(1, "age".into()), (2, "refused".into()), (3, "age".into())]);
    // Another boot, whose clock is not set: nobody knows how old that is, so it stays.
    let unset = kinewatch_store::Stamp { unix_ns: 0, boot_ns: 5, boot: 2, synced: false };
    assert_eq!(store.tidy(&unset).unwrap(), []);
    assert_eq!(waiting(&store), [4]);
}

#[test]
fn the_acknowledgement_of_a_small_statement_leaves_what_was_lost_since() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for _ in 0..3 {
        append(&mut store, "a", Status::Updated);
    }
    store.park(&at(0), 3, 0x97).unwrap();
    assert_eq!(ranges(&store.gaps(10).unwrap()), [(3, 3)], "its statement goes out");
    store.park(&at(0), 2, 0x97).unwrap();
    // Also when it has been opened again.
    for _ in 0..2 {
        store.stated(&[3..=3]).unwrap();
        assert_eq!(ranges(&store.gaps(10).unwrap()), [(2, 3)], "lost after that statement, so it has to be stated too");
        drop(store);
        store = open(dir.path());
    }
    store.stated(&[2..=3]).unwrap();
    assert_eq!(store.gaps(10).unwrap(), []);
}

#[test]
fn the_acknowledgement_of_a_message_states_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for _ in 0..2 {
        append(&mut store, "a", Status::Updated);
    }
    store.park(&at(0), 2, 0x97).unwrap();
    store.acked(&[2]).unwrap();
    assert_eq!(ranges(&store.gaps(10).unwrap()), [(2, 2)], "only the statement's own acknowledgement counts");
}

#[test]
fn a_refused_message_is_parked_and_stated() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for _ in 0..3 {
        append(&mut store, "a", Status::Updated);
    }
    store.park(&at(0), 2, 0x97).unwrap();
    assert_eq!(waiting(&store), [1, 3]);
    assert_eq!(ranges(&store.gaps(10).unwrap()), [(2, 2)]);
    let stats = store.stats();
    assert_eq!((stats.waiting, stats.parked, stats.gaps), (2, 1, 1));
    // A broker that refuses the statement too must not be asked again and again.
    store.park_gap(2, 0x87).unwrap();
    assert_eq!(store.gaps(10).unwrap(), []);
    drop(store);
    let mut store = open(dir.path());
    assert_eq!(
        (ranges(&store.gaps(10).unwrap()), store.stats().gaps),
        (vec![(2, 2)], 1),
        "its rules may be others now"
    );
    store.park_gap(2, 0x87).unwrap();
    store.park(&at(0), 1, 0x97).unwrap();
    assert_eq!(ranges(&store.gaps(10).unwrap()), [(1, 2)], "no statement of it is under way: it may grow");
}

/// What a flipped bit does to a text, to its kind, and to the kind of the check sum.
#[test]
fn a_message_that_is_no_text_any_more_costs_no_other() {
    for damage in
        ["topic = CAST(x'74ff' AS TEXT)", "topic = x'74'", "topic = 5", "payload = 5", "payload = 'a'", "crc = 'a'"]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        for _ in 0..3 {
            append(&mut store, "a", Status::Updated);
        }
        drop(store);
        let connection = rusqlite::Connection::open(database(dir.path())).unwrap();
        connection.execute(&format!("UPDATE event SET {damage} WHERE sequence = 2"), []).unwrap();
        drop(connection);
        let mut store = open(dir.path());
        assert_eq!(all(&store.offer(&at(1), 0, u64::MAX, 9).unwrap()), [1, 3], "{damage}");
        assert_eq!(ranges(&store.gaps(9).unwrap()), [(2, 2)], "{damage}");
    }
}

#[test]
fn damaged_messages_do_not_hold_up_what_lies_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for _ in 0..6 {
        append(&mut store, "a", Status::Updated);
    }
    drop(store);
    let connection = rusqlite::Connection::open(database(dir.path())).unwrap();
    connection.execute("UPDATE event SET topic = 5 WHERE sequence BETWEEN 2 AND 5", []).unwrap();
    drop(connection);
    let mut store = open(dir.path());
    assert_eq!(all(&store.offer(&at(1), 1, u64::MAX, 2).unwrap()), [6], "two blocks of damaged ones before it");
    assert_eq!(ranges(&store.gaps(9).unwrap()), [(2, 5)]);
    assert_eq!(all(&store.offer(&at(1), 6, u64::MAX, 2).unwrap()), [0_u64; 0]);
}

#[test]
fn a_consumer_can_ask_again_until_it_has_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let keep = StoreOptions { keep_until: KeepUntil::Consumer, ..options() };
    let mut store = open_with(dir.path(), keep.clone());
    for _ in 0..5 {
        append(&mut store, "a", Status::Updated);
    }
    store.offer(&at(1), 0, u64::MAX, 4).unwrap();
    store.acked(&[1, 2, 3]).unwrap();
    assert_eq!((waiting(&store), store.stats().kept), (vec![4, 5], 3));
    let history: Vec<_> = store.history(10, 0).unwrap().iter().map(|h| h.acknowledged).collect();
    assert_eq!(history, [true, true, true, false, false]);
    let again = store.resend(2).unwrap();
    assert_eq!((again.first, again.messages, waiting(&store)), (Some(2), 2, vec![2, 3, 4, 5]));
    assert_eq!(store.offer(&at(2), 0, u64::MAX, 1).unwrap()[0].attempts, 1, "it went out before");
    drop(store);
    let mut store = open_with(dir.path(), keep);
    assert_eq!((store.stats().kept, waiting(&store)), (1, vec![2, 3, 4, 5]), "over a restart too");
    store.acked(&[2]).unwrap();
    let done = store.consumed(5).unwrap();
    assert_eq!((done.released, done.kept), (2, 0));
    assert_eq!(waiting(&store), [3, 4, 5], "on their way, or never sent: not for the consumer to say");
    assert_eq!(store.resend(1).unwrap().messages, 0);
    store.offer(&at(3), 0, u64::MAX, 4).unwrap();
    store.acked(&[5]).unwrap();
    assert_eq!(store.stats().kept, 1);
    drop(store);
    assert_eq!(open(dir.path()).stats().kept, 0, "kept no longer when the configuration says so");
}

#[test]
fn a_failed_append_uses_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, "a", Status::Started);
    let panicking = |_, _| -> Vec<u8> { panic!("a bug in the payload") };
    let bad = Draft { build: &panicking, ..draft("b", Status::Started) };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = store.append(&at(0), &[draft("b", Status::Started), bad], Handing::Later);
    }));
    assert!(result.is_err());
    assert_eq!(append(&mut store, "c", Status::Started), 2);
    assert_eq!(waiting(&store), [1, 2]);
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
        assert_eq!(store.next_session(0).unwrap(), 1);
        for _ in 0..50 {
            append(&mut store, "a", Status::Updated);
        }
        store.acked(&(1..=20).collect::<Vec<_>>()).unwrap();
        drop(store);
        let _ = fs::remove_file(dir.path().join("events.db-wal"));
        damage(&database(dir.path()));

        let mut store = open(dir.path());
        let set_aside = store.opened().set_aside.clone();
        assert_eq!(set_aside.is_some(), name != "removed", "{name}");
        if let Some(aside) = set_aside {
            assert!(aside.exists() && aside.to_string_lossy().ends_with(".corrupt-1"), "{name}");
        }
        let gap = store.opened().lost.clone().unwrap();
        assert_eq!(gap.first, 21, "{name}: from the oldest not acknowledged");
        let next = append(&mut store, "b", Status::Started);
        assert!(next > 50 && gap.last == next - 1, "{name}: {next}");
        assert_eq!(ranges(&store.gaps(10).unwrap()), [(21, next - 1)], "{name}");
        assert_eq!(store.next_session(0).unwrap(), 2, "{name}: sessions go on too");
        drop(store);
        assert_eq!(open(dir.path()).opened().lost, None, "{name}: said once");
    }
}

#[test]
fn a_loss_that_nobody_was_told_of_is_not_forgotten_with_the_database() {
    type Loses = fn(&mut Store, &Path);
    let loses: [(&str, Loses); 3] = [
        ("damaged", |store, db| {
            let connection = rusqlite::Connection::open(db).unwrap();
            connection.execute("UPDATE event SET topic = 5 WHERE sequence = 2", []).unwrap();
            assert_eq!(all(&store.offer(&at(1), 0, u64::MAX, 9).unwrap()), [1, 3]);
        }),
        ("refused", |store, _| store.park(&at(1), 2, 0x97).unwrap()),
        ("refused, and so is its statement", |store, _| {
            store.park(&at(1), 2, 0x97).unwrap();
            store.park_gap(2, 0x87).unwrap();
        }),
    ];
    for (what, lose) in loses {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        for _ in 0..3 {
            append(&mut store, "a", Status::Updated);
        }
        lose(&mut store, &database(dir.path()));
        store.acked(&[1, 3]).unwrap();
        append(&mut store, "a", Status::Updated);
        let floor = store.floor();
        assert_eq!(floor, Floor { next: 5, oldest: 2 }, "{what}");
        drop(store);
        // Once another process begins, once this one goes on.
        for floor in [None, Some(floor)] {
            fs::remove_file(database(dir.path())).unwrap();
            let store = Store::open(database(dir.path()), options(), &at(2), floor).unwrap();
            assert_eq!(store.gaps(9).unwrap()[0].first, 2, "{what}");
        }
        let mut store = open(dir.path());
        let gaps = ranges(&store.gaps(9).unwrap());
        store.stated(&gaps.iter().map(|gap| gap.0..=gap.1).collect::<Vec<_>>()).unwrap();
        assert_eq!(store.floor().oldest, gaps[0].1 + 1, "{what}: told, and done with");
    }
}

#[test]
fn a_damaged_database_still_says_which_actions_were_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, "a", Status::Started);
    let many: Vec<_> =
        (0..4_000).map(|n| draft("b", if n % 2 == 0 { Status::Started } else { Status::Ended })).collect();
    store.append(&at(0), &many, Handing::Later).unwrap();
    drop(store);
    // The middle of the file is full of messages.
    let mut bytes = fs::read(database(dir.path())).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0x5a);
    fs::write(database(dir.path()), bytes).unwrap();
    let store = open(dir.path());
    assert!(store.opened().set_aside.is_some());
    let salvaged: Vec<_> = store.opened().salvaged.iter().map(|a| a.action_id.as_str()).collect();
    assert_eq!(salvaged, ["a"]);
}

#[test]
fn what_the_process_knows_is_a_floor_for_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for _ in 0..9 {
        append(&mut store, "a", Status::Updated);
    }
    store.acked(&[1, 2, 3]).unwrap();
    let floor = store.floor();
    assert_eq!(floor, Floor { next: 10, oldest: 4 });
    drop(store);
    // Everything is gone, the record too.
    for entry in fs::read_dir(dir.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let mut store = Store::open(database(dir.path()), options(), &at(0), Some(floor)).unwrap();
    assert_eq!(ranges(&store.gaps(10).unwrap()), [(4, 9)], "exactly what was not settled");
    assert_eq!(append(&mut store, "b", Status::Started), 10);
    let settled = Floor { next: 20, oldest: 20 };
    drop(store);
    fs::remove_file(database(dir.path())).unwrap();
    let mut store = Store::open(database(dir.path()), options(), &at(0), Some(settled)).unwrap();
    assert_eq!((store.opened().lost.clone(), append(&mut store, "b", Status::Started)), (None, 20));
}

#[test]
fn a_removed_database_is_noticed_and_can_be_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    let mut store = open(&state);
    for _ in 0..300 {
        append(&mut store, "a", Status::Updated);
    }
    assert!(store.is_in_place());
    fs::remove_dir_all(&state).unwrap();
    assert!(!store.is_in_place());
    fs::create_dir(&state).unwrap();
    store.copy_to(&database(&state)).unwrap();
    let floor = store.floor();
    drop(store);
    let mut store = Store::open(database(&state), options(), &at(0), Some(floor)).unwrap();
    assert_eq!((waiting(&store).len(), store.opened().lost.clone()), (300, None));
    assert_eq!(append(&mut store, "a", Status::Ended), 301);
    assert_eq!(revs(&store)[300], 300);
}

#[test]
fn a_lost_record_file_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    append(&mut open(dir.path()), "a", Status::Started);
    fs::remove_file(dir.path().join("sequence")).unwrap();
    let mut store = open(dir.path());
    assert_eq!(store.opened().lost, None);
    assert_eq!(append(&mut store, "a", Status::Ended), 2);
}

#[test]
fn errors_name_the_path_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let error = Store::open(database(dir.path()), options(), &at(0), None).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert_eq!(error.disposition(), Disposition::Fatal);

    let missing = dir.path().join("none").join("events.db");
    let error = Store::open(&missing, options(), &at(0), None).unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
    assert!(error.to_string().contains("state_dir"), "{error}");
    assert_eq!(error.disposition(), Disposition::Reopen);
    let error = Reader::open(&missing).unwrap_err();
    assert!(matches!(error, StoreError::NoStore { .. }), "{error}");
}

#[test]
fn another_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let path = database(dir.path());
    let set = |version: i64| {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
        connection.execute("UPDATE meta SET value = ?1 WHERE key = 'schema'", [version]).unwrap();
    };
    set(99);
    let error = Store::open(&path, options(), &at(0), None).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
    assert!(Reader::open(&path).unwrap_err().to_string().contains("newer"));
    set(1);
    assert!(Reader::open(&path).unwrap_err().to_string().contains("start the daemon once"));
}
