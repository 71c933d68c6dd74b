//! Disks that misbehave under the store thread.

use super::*;

#[test]
fn events_wait_for_a_directory_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("file").join("state");
    // A file where the directory should be: it cannot be made, by root neither.
    fs::write(dir.path().join("file"), "").unwrap();
    let mut bench = Bench::usual(&state);
    assert_eq!(bench.condition(), StoreCondition::Missing);
    let session = bench.delivery.disk.session();
    bench.connect();
    bench.started(0..3);
    assert_eq!((bench.sequences(), bench.shared.store.waiting.load(Relaxed)), (vec![], 3), "not on disk, not sent");
    let (reply, mut answer) = oneshot::channel();
    bench.delivery.take(Command::Consumed { up_to: 7, reply });
    bench.delivery.work();
    assert!(answer.try_recv().unwrap().unwrap_err().contains("state"));
    let (reply, mut drained) = oneshot::channel();
    bench.delivery.take(Command::Drain(reply));
    bench.delivery.work();
    assert_eq!(drained.try_recv(), Ok(()), "nothing will be sent before the end");
    assert!(bench.shared.store.errors().any(|(kind, n)| kind == "missing" && n > 0));

    fs::remove_file(dir.path().join("file")).unwrap();
    bench.retry();
    assert_eq!((bench.condition(), bench.sequences()), (StoreCondition::Ok, vec![1, 2, 3]));
    assert_eq!(bench.shared.store.waiting.load(Relaxed), 0);
    drop(bench);
    let bench = Bench::usual(&state);
    assert!(bench.delivery.disk.session() > session, "the number that stood in for the session is not given out again");
}

#[test]
fn a_directory_that_is_removed_is_put_back_with_all_that_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path().join("state"));
    bench.started(0..3);
    fs::remove_dir_all(&bench.state).unwrap();
    bench.started(3..5);
    assert_eq!(bench.condition(), StoreCondition::Ok, "put back and stored in one round");
    assert!(bench.shared.store.errors().any(|(kind, n)| kind == "missing" && n == 1));
    bench.connect();
    assert_eq!(bench.drain(), [1, 2, 3, 4, 5]);
    // Removed, and it cannot be put back for a while: what the open file holds is not given up.
    bench.started(5..6);
    fs::remove_dir_all(&bench.state).unwrap();
    fs::write(&bench.state, "in the way").unwrap();
    bench.started(6..7);
    assert_eq!((bench.condition(), bench.shared.store.waiting.load(Relaxed)), (StoreCondition::Missing, 1));
    fs::remove_file(&bench.state).unwrap();
    bench.retry();
    assert_eq!((bench.condition(), bench.drain()), (StoreCondition::Ok, vec![6, 7]));
    drop(bench);
    let mut bench = Bench::usual(dir.path().join("state"));
    assert_eq!(bench.waiting(), 7, "actions left open are ended, and nothing else waits");
}

#[test]
fn a_damaged_database_is_set_aside_while_events_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.started(0..3);
    // The file and its log are garbage from now on, for whoever reads them from the disk.
    let fault = || StoreError::Corrupt { path: database(dir.path()), reason: "a test".into() };
    for suffix in ["", "-wal"] {
        let path = dir.path().join(format!("events.db{suffix}"));
        let bytes = fs::metadata(&path).unwrap().len() as usize;
        fs::write(&path, vec![0x5a; bytes]).unwrap();
    }
    bench.delivery.disk.failed(fault());
    bench.started(3..4);
    let status = bench.shared.store.status.load_full().unwrap();
    assert!(status.set_aside.as_ref().is_some_and(|path| path.ends_with("events.db.corrupt-1")), "{status:?}");
    assert_eq!(status.state, StoreCondition::Ok);
    bench.connect();
    let sent = bench.sent();
    let gap = &sent[0].value["data"];
    assert_eq!(
        (sent[0].topic.as_str(), &gap["first"], &gap["last"]),
        ("kinewatch/v1/g/d/sys/gap", &1.into(), &3.into())
    );
    assert_eq!(sent[1].sequence, 4, "numbers go on");
    assert_eq!(bench.shared.delivery.outbox_damaged.load(Relaxed), 3);
    // An action of before goes on: it is known to be ours, and keeps its revisions' order.
    bench.event(1, ActionStatus::Ended);
    bench.delivery.work();
    assert_eq!(bench.sent()[0].value["data"]["action_id"], Uuid::from_u128(1).to_string());
    // Whole to look at, and failing again: it is not opened for ever.
    bench.delivery.disk.failed(fault());
    bench.started(4..5);
    assert!(dir.path().join("events.db.corrupt-2").exists());
    assert_eq!(bench.condition(), StoreCondition::Ok);
}

#[test]
fn a_damaged_message_is_stated_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.event(1, ActionStatus::Ended);
    bench.delivery.work();
    drop(bench);
    let mut bytes = fs::read(database(dir.path())).unwrap();
    let at = bytes.windows(11).position(|window| window == b"specversion").unwrap();
    bytes[at] ^= 1;
    fs::write(database(dir.path()), bytes).unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.connect();
    bench.delivery.work();
    assert_eq!(bench.sent()[0].topic, "kinewatch/v1/g/d/sys/gap");
    assert_eq!(bench.shared.delivery.outbox_damaged.load(Relaxed), 1);
}

#[test]
fn damage_that_no_check_of_the_file_finds_is_set_aside_at_the_start_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.started(0..1);
    drop(bench);
    // One bit makes the time of storing a float: the file is whole, and cannot be counted.
    let event = example();
    let text = |text: &str| 13 + 2 * text.len() as u8;
    let (action, camera, label) = (Uuid::from_u128(0).to_string(), &event.data.camera.id, &event.data.label);
    let types = [text(&action), text(camera), text(label), 8, 6];
    let mut bytes = fs::read(database(dir.path())).unwrap();
    let at = bytes.windows(types.len()).position(|window| window == types).unwrap();
    bytes[at + 4] ^= 1;
    fs::write(database(dir.path()), bytes).unwrap();
    let mut bench = Bench::usual(dir.path());
    assert_eq!(bench.condition(), StoreCondition::Ok);
    assert!(dir.path().join("events.db.corrupt-1").exists());
    bench.connect();
    let sent = bench.sent();
    assert_eq!((sent[0].topic.as_str(), &sent[0].value["data"]["first"]), ("kinewatch/v1/g/d/sys/gap", &1.into()));
    assert_eq!(sent[1].value["data"]["end_reason"], "recovered");
}

#[test]
fn actions_of_an_earlier_run_are_ended_once_and_ours_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.started(0..2);
    drop(bench);
    let mut bench = Bench::usual(dir.path());
    bench.started(2..3);
    // A store that is opened again holds an open action of ours.
    bench.delivery.disk.failed(StoreError::Moved { path: database(dir.path()) });
    bench.retry();
    bench.connect();
    let sent = bench.sent();
    let told: Vec<_> = sent.iter().map(|s| (s.sequence, s.value["data"]["end_reason"].as_str())).collect();
    assert_eq!(told[2..], [(3, Some("recovered")), (4, Some("recovered"))]);
    assert_eq!(sent[2].value["data"]["rev"], 1);
    for sequence in 1..=4 {
        bench.ack(sequence);
    }
    assert_eq!(bench.drain(), [5], "the third goes on");
}

/// What is told of the end of an open action to which the disk has done `damage`: topics and messages.
fn told_after(damage: &str) -> Vec<(String, Value)> {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.connect();
    bench.started(7..8);
    bench.sent();
    bench.ack(1);
    drop(bench);
    let connection = rusqlite::Connection::open(database(dir.path())).unwrap();
    connection.execute_batch(damage).unwrap();
    drop(connection);
    let mut bench = Bench::usual(dir.path());
    bench.connect();
    let sent = bench.sent();
    assert_eq!(bench.delivery.disk.store().unwrap().open_actions().unwrap(), [], "{damage}: it is over");
    drop(bench);
    let events = sent.iter().filter(|sent| !sent.topic.ends_with("/sys/gap")).count() as u64;
    assert_eq!(Bench::usual(dir.path()).waiting(), events, "{damage}: the next start finds nothing to end");
    sent.into_iter().map(|sent| (sent.topic, sent.value)).collect()
}

#[test]
fn an_open_action_that_the_disk_has_changed_ends_under_its_own_name() {
    let label = example().data.label;
    let other = format!("{}x", &label[..label.len() - 1]);
    let changed = format!(
        "UPDATE open_action SET payload = CAST(replace(CAST(payload AS TEXT), '\"{label}\"', '\"{other}\"') AS BLOB)"
    );
    let no_json = "UPDATE open_action SET payload = CAST('x' || substr(CAST(payload AS TEXT), 2) AS BLOB)";
    // Of a version that had no check sums.
    let unchecked = format!("{changed}, crc = NULL");
    for damage in [changed.as_str(), unchecked.as_str(), no_json, "UPDATE open_action SET topic = 't/8'"] {
        let told = told_after(damage);
        assert_eq!(told.len(), 1, "{damage}: {told:?}");
        let (topic, value) = &told[0];
        assert_eq!((topic.as_str(), &value["data"]["end_reason"]), ("t/7", &"recovered".into()), "{damage}");
        assert_eq!((&value["data"]["label"], &value["data"]["rev"]), (&label.clone().into(), &1.into()), "{damage}");
        assert_eq!(value["data"]["action_id"], Uuid::from_u128(7).to_string(), "{damage}");
    }
}

#[test]
fn an_open_action_that_nobody_can_read_is_stated_and_not_found_again() {
    for damage in [
        // The message is gone from the history too.
        "DELETE FROM event; UPDATE open_action SET payload = x'00'",
        "DELETE FROM event; UPDATE open_action SET payload = x'00', crc = NULL",
        "UPDATE event SET payload = x'00'; UPDATE open_action SET label = 'other'",
    ] {
        let told = told_after(damage);
        assert_eq!(told.len(), 1, "{damage}: {told:?}");
        let (topic, value) = &told[0];
        assert_eq!(topic, "kinewatch/v1/g/d/sys/gap", "{damage}");
        let data = &value["data"];
        assert_eq!(
            (&data["first"], &data["last"], &data["reason"]),
            (&1.into(), &1.into(), &"damaged".into()),
            "{damage}"
        );
    }
}

#[test]
fn an_action_that_outlives_its_database_is_ended_by_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::usual(dir.path());
    bench.started(0..2);
    bench.event(1, ActionStatus::Updated);
    bench.delivery.work();
    for _ in 0..2 {
        bench.delivery.disk.failed(StoreError::Corrupt { path: database(dir.path()), reason: "a test".into() });
        bench.retry();
    }
    assert!(dir.path().join("events.db.corrupt-1").exists());
    // Killed before either says anything more.
    drop(bench);
    let mut bench = Bench::usual(dir.path());
    bench.connect();
    let ended = |sent: &Sent| sent.value["data"]["end_reason"] == "recovered";
    let revs: Vec<_> = bench.sent().iter().filter(|s| ended(s)).map(|s| s.value["data"]["rev"].clone()).collect();
    assert_eq!(revs, [1, 2]);
}

#[test]
fn events_that_wait_for_the_disk_are_counted_as_of_before_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut bench = Bench::usual(&state);
    bench.started(0..1);
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "in the way").unwrap();
    bench.started(1..2);
    let step = bench.clock.look(0, 3_600_000_000_000, true).unwrap();
    bench.delivery.decided(Decided::ClockStepped(step));
    bench.started(2..3);
    assert!(bench.shared.clock.load_full().unwrap().steps.is_empty(), "nobody knows its number yet");
    fs::remove_file(&state).unwrap();
    bench.retry();
    let record = bench.shared.clock.load_full().unwrap();
    assert_eq!((record.steps[0].last_sequence, record.steps[0].step_ms), (2, 3_600_000.0));
    assert_eq!(bench.delivery.disk.last_sequence(), 3);
}

#[test]
fn a_stop_without_a_store_says_how_much_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let mut bench = Bench::usual(dir.path().join("file").join("state"));
    bench.started(0..3);
    let shared = Arc::clone(&bench.shared);
    bench.delivery.finish();
    assert_eq!(shared.delivery.decisions_lost.load(Relaxed), 3);
}
