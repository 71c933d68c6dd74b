//! Open actions that the disk has changed: mended from the action's last message, else stated; never told otherwise than they
//! were.
#![allow(clippy::unwrap_used)]

mod support;

use kinewatch_store::{OpenAction, Status, Store};
use rusqlite::Connection;
use support::{append, at, database, open, options, payload, ranges};

/// Two actions, of which the first goes on as number 3; what was settled is history. Then `damage`, and the store as the next
/// start finds it.
fn after(dir: &std::path::Path, damage: &str) -> Store {
    let mut store = open(dir);
    append(&mut store, "a", Status::Started);
    append(&mut store, "b", Status::Started);
    append(&mut store, "a", Status::Updated);
    append(&mut store, "b", Status::Ended);
    assert_eq!(store.open_actions().unwrap(), [action()]);
    store.acked(&[1, 2]).unwrap();
    drop(store);
    Connection::open(database(dir)).unwrap().execute_batch(damage).unwrap();
    Store::open(database(dir), options(), &at(9), None).unwrap()
}

fn action() -> OpenAction {
    OpenAction {
        action_id: "a".into(),
        sequence: 3,
        topic: "kinewatch/v1/home/box/evt/room/fall".into(),
        camera: "room".into(),
        label: "fall".into(),
        last_payload: payload(3, 1),
        rev: 1,
    }
}

#[test]
fn whatever_is_changed_is_as_it_was() {
    for damage in [
        "action_id = 'x'",
        "action_id = 'b'",
        "action_id = CAST(x'ff' AS TEXT)",
        "sequence = 2",
        "sequence = 3000",
        "sequence = -3",
        "sequence = 'three'",
        "topic = 'kinewatch/v1/home/box/evt/room/fale'",
        "topic = x'74'",
        "camera = 'roon'",
        "label = 'fale'",
        "payload = CAST('00000000000000000003 9' AS BLOB)",
        "payload = 5",
        "rev = 0",
        "rev = -1",
        "rev = 'x'",
        "crc = crc + 1",
        "crc = NULL",
        "crc = CAST(x'ff' AS TEXT)",
        // A letter goes over to the neighbour.
        "camera = 'roomf', label = 'all'",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = after(dir.path(), &format!("UPDATE open_action SET {damage}"));
        assert_eq!(store.open_actions().unwrap(), [action()], "{damage}");
        assert_eq!((store.stats().gaps, store.opened().set_aside.is_some()), (0, false), "{damage}");
        drop(store);
        assert_eq!(open(dir.path()).open_actions().unwrap(), [action()], "{damage}: and stays so");
    }
}

#[test]
fn what_cannot_be_mended_is_stated_and_gone() {
    let dir = tempfile::tempdir().unwrap();
    let damage = "UPDATE open_action SET payload = x'00'; UPDATE event SET payload = x'00' WHERE sequence IN (1, 3)";
    let mut store = after(dir.path(), damage);
    assert_eq!(store.open_actions().unwrap(), []);
    assert_eq!(ranges(&store.take_damaged()), [(3, 3)]);
    let gaps = store.gaps(9).unwrap();
    assert_eq!((ranges(&gaps), gaps[0].reason.as_str()), (vec![(3, 3)], "damaged"));
    store.stated(&[3..=3]).unwrap();
    drop(store);
    assert_eq!(open(dir.path()).stats().gaps, 0, "once");
    // One that ends with it and begins earlier stays as wide as it is.
    let dir = tempfile::tempdir().unwrap();
    let store = after(dir.path(), &format!("{damage}; INSERT INTO gap VALUES (3, 1, 'quota', 0, NULL)"));
    assert_eq!(ranges(&store.gaps(9).unwrap()), [(1, 3)]);
    // A number that was never given out is nobody's.
    let dir = tempfile::tempdir().unwrap();
    let store = after(dir.path(), "UPDATE open_action SET sequence = 77, action_id = 'x'");
    assert_eq!((store.open_actions().unwrap(), store.stats().gaps), (vec![], 0));
}

#[test]
fn an_older_message_stands_in_and_the_revision_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let gone = "DELETE FROM outbox WHERE sequence = 3; DELETE FROM event WHERE sequence = 3";
    let store = after(dir.path(), &format!("UPDATE open_action SET label = 'fale'; {gone}"));
    let expected = OpenAction { sequence: 1, last_payload: payload(1, 0), ..action() };
    assert_eq!(store.open_actions().unwrap(), [expected]);
}

#[test]
fn an_action_can_be_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = after(dir.path(), "");
    let actions = store.open_actions().unwrap();
    store.give_up(&at(9), &[&actions[0]]).unwrap();
    assert_eq!((store.open_actions().unwrap(), ranges(&store.take_damaged())), (vec![], vec![(3, 3)]));
    assert_eq!(store.stats().gaps, 1);
}
