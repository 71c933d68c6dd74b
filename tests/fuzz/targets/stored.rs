//! What the agent itself left in its state directory, and a disk may have changed.

use std::fs;

use kinewatch::clock_journal::ClockJournal;
use kinewatch_core::event::{ActionEvent, ClockState, recovered_event};
use kinewatch_core::time::DeviceClock;
use kinewatch_store::{Stamp, Store, StoreOptions};
use uuid::Uuid;

use super::{is_told, scratch};

/// A payload of the database, from which an action left open is ended.
pub fn event(data: &[u8]) {
    let Ok(event) = serde_json::from_slice::<ActionEvent>(data) else { return };
    let ended = recovered_event(&event, Uuid::from_u128(7), 1_700_000_000_000_000_000, u64::MAX);
    let again: ActionEvent = serde_json::from_slice(&ended.to_json()).unwrap();
    assert_eq!(again.to_json(), ended.to_json());
}

pub fn clock_journal(data: &[u8]) {
    let dir = scratch("clock");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("clock.json"), data).unwrap();
    let state = ClockState { synced: true, source: "ntp".into(), max_err_ms: 1.0, boot_id: Some("boot".into()) };
    let (mut journal, mut clock, _) = ClockJournal::open(&dir, 3, ((5_000_000_000, 1_700_000_000_000_000_000), &state));
    if let Some(step) = clock.look(6_000_000_000, 1_800_000_000_000_000_000, true) {
        journal.note(&step, 10);
    }
    assert!(journal.record().steps.len() <= 32, "the retained message stays small");
    let clock: DeviceClock = clock;
    let _ = clock.wall_minus_mono_ns();
}

/// The record of the sequence, beside a database that is gone.
pub fn sequence(data: &[u8]) {
    let dir = scratch("store");
    let _gone = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("sequence"), data).unwrap();
    match Store::open(dir.join("events.db"), StoreOptions::default(), &Stamp::default(), None) {
        Ok(mut store) => {
            let last = store.last_sequence();
            assert!(i64::try_from(last).is_ok(), "numbers stay below what SQLite holds");
            store.next_session(0).unwrap();
        }
        Err(e) => is_told(&e.to_string()),
    }
}
