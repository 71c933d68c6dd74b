//! What was done to the device's clock since it booted, kept over restarts of the agent.
//!
//! The store thread owns it: it alone knows which `sequence` a step comes after. A file that cannot be read or written
//! costs corrections after a restart, never an event.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use kinewatch_core::event::{ClockRecord, ClockState, MOST_STEPS};
use kinewatch_core::time::{ClockStep, DeviceClock};
use serde::{Deserialize, Serialize};

use crate::replace::replace;

/// The record, and where it is kept.
#[derive(Debug)]
pub struct ClockJournal {
    path: PathBuf,
    kept: Kept,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    wall_minus_mono_ns: i64,
    record: ClockRecord,
}

impl ClockJournal {
    /// Goes on with what the last run of this boot left in `state_dir`, else begins. The step, if there is one, came while
    /// no agent ran: it is to be noted after the last event stored. `now`: [`crate::clock::both_ns`] and
    /// [`crate::clock::state`].
    #[must_use]
    pub fn open(
        state_dir: &Path,
        session: u64,
        ((mono_ns, wall_ns), state): ((i64, i64), &ClockState),
    ) -> (Self, DeviceClock, Option<ClockStep>) {
        let path = state_dir.join("clock.json");
        let kept = read(&path).filter(|kept| kept.record.steps.len() <= MOST_STEPS);
        let same_boot = kept.filter(|kept| kept.record.boot_id.is_some() && kept.record.boot_id == state.boot_id);
        let (kept, mut clock) = match same_boot {
            Some(mut kept) => {
                kept.record.session = session;
                let clock = DeviceClock::resumed(kept.wall_minus_mono_ns, kept.record.synced);
                (kept, clock)
            }
            None => {
                let clock = DeviceClock::new(mono_ns, wall_ns, state.synced);
                let record = ClockRecord::new(session, state);
                (Kept { wall_minus_mono_ns: clock.wall_minus_mono_ns(), record }, clock)
            }
        };
        let step = clock.look(mono_ns, wall_ns, state.synced);
        (Self { path, kept }, clock, step)
    }

    /// Notes a step that came after the event `last_sequence`, and says so.
    pub fn note(&mut self, step: &ClockStep, last_sequence: u64) {
        let step_s = step.step_ns() as f64 / 1e9;
        let synced = step.synced;
        if step_s == 0.0 {
            tracing::info!("the system clock is synchronised and was right");
        } else {
            tracing::warn!(
                step_s,
                synced,
                last_sequence,
                "the system clock was set: events up to this sequence bear the old time, and the retained message on \
                 clock says by how much"
            );
        }
        self.kept.wall_minus_mono_ns = step.new_unix_ns.saturating_sub(step.mono_ns);
        self.kept.record.note(step, last_sequence);
        self.save();
    }

    /// What subscribers are told.
    #[must_use]
    pub fn record(&self) -> &ClockRecord {
        &self.kept.record
    }

    /// Writes what is known; [`ClockJournal::note`] does so by itself.
    pub fn save(&self) {
        if let Err(error) = replace(&self.path, &serde_json::to_vec(&self.kept).unwrap_or_default()) {
            let path = self.path.display();
            tracing::warn!("{path}: {error}; after a restart, steps of the clock so far are not told again");
        }
    }
}

/// A record of 32 steps has 6 KB; what is larger was not written here.
fn read(path: &Path) -> Option<Kept> {
    const MAX_BYTES: u64 = 64 << 10;
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const S: i64 = 1_000_000_000;

    fn state(boot: &str, synced: bool) -> ClockState {
        ClockState { synced, source: "local".into(), max_err_ms: 0.0, boot_id: Some(boot.into()) }
    }

    #[test]
    fn steps_of_this_boot_survive_a_restart_and_those_of_another_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let open = |session, now, state: &ClockState, last_sequence| {
            let (mut journal, clock, step) = ClockJournal::open(dir.path(), session, (now, state));
            step.iter().for_each(|step| journal.note(step, last_sequence));
            journal.save();
            (journal, clock)
        };
        let (mut journal, mut clock) = open(1, (10 * S, 50 * S), &state("a", false), 0);
        assert_eq!(journal.record().steps.len(), 0);
        journal.note(&clock.look(20 * S, 3_660 * S, true).unwrap(), 7);
        // Set again while no agent ran.
        let (journal, clock) = open(2, (30 * S, 3_665 * S), &state("a", true), 9);
        let told: Vec<_> = journal.record().steps.iter().map(|s| (s.step_ms, s.last_sequence)).collect();
        assert_eq!(told, [(3_600_000.0, 7), (-5_000.0, 9)]);
        assert_eq!((journal.record().session, clock.wall_minus_mono_ns()), (2, 3_635 * S));
        let (journal, _) = open(3, (5 * S, 9_000 * S), &state("b", true), 9);
        assert_eq!(journal.record().steps.len(), 0);
        fs::write(dir.path().join("clock.json"), "{").unwrap();
        let (journal, _) = open(4, (6 * S, 9_001 * S), &state("b", true), 9);
        assert_eq!((journal.record().steps.len(), journal.record().session), (0, 4));
    }
}
