//! The task that looks at the board every [`LOOK_EVERY`], shows what it read, and decides how far the device is spared.
//!
//! Runs on the control runtime; the reading itself on a thread that may block, since a sensor behind a hung bus must not
//! stop the delivery of events. Never on the way of a frame: the `infer` thread only reads what was decided.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kinewatch_core::derate::{Cause, Derating, Step};
use kinewatch_core::event::Derated;

use super::Board;
use super::strain::{self, Strain};
use crate::health::Shared;
use crate::root::Root;

/// How often.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A look that takes longer hangs: nothing is known of the board then.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// Runs until its task is aborted.
pub async fn run(shared: Arc<Shared>, root: Root) {
    watch(shared, root, LOOK_EVERY, READ_LIMIT).await;
}

async fn watch(shared: Arc<Shared>, root: Root, every: Duration, limit: Duration) {
    let begun = Instant::now();
    let mut derating = Derating::default();
    let mut before: Option<(Arc<Board>, Instant)> = None;
    let mut causes = Vec::new();
    let (mut reading, mut introduced) = (None, false);
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let begin = || {
            let root = root.clone();
            tokio::task::spawn_blocking(move || Board::read(&root))
        };
        // One that hangs is waited for further, and no second one begun.
        let hangs = reading.is_some();
        let look = reading.get_or_insert_with(begin);
        let Ok(read) = tokio::time::timeout(limit, &mut *look).await else {
            if !hangs {
                tracing::warn!(
                    "a sensor of the board does not answer: nothing is known of heat, power and memory until it does"
                );
            }
            shared.board.store(None);
            before = None;
            if let Some(step) = derating.look(&[], begun.elapsed()) {
                tell(step, &[]);
            }
            publish(&shared, derating.one_of(), &causes);
            continue;
        };
        reading = None;
        let Ok(board) = read else { continue };
        let (board, now) = (Arc::new(board), Instant::now());
        shared.board.store(Some(Arc::clone(&board)));
        if !introduced {
            introduce(&board);
            introduced = true;
        }
        let Some((last, at)) = before.replace((Arc::clone(&board), now)) else { continue };
        let strains = strain::between(&last, &board, now.duration_since(at).as_secs_f64());
        let standing: Vec<Cause> = strains.iter().map(|strain| strain.cause).collect();
        let step = derating.look(&standing, begun.elapsed());
        if !standing.is_empty() {
            causes = standing;
        }
        if let Some(step) = step {
            tell(step, &strains);
        }
        publish(&shared, derating.one_of(), &causes);
    }
}

/// Says once what the board is.
fn introduce(board: &Board) {
    let Some(model) = &board.model else { return };
    let release = board.l4t.as_ref().map_or_else(String::new, |l4t| {
        let jetpack = board.jetpack.map_or_else(String::new, |jetpack| format!(" ({jetpack})"));
        format!(", L4T {l4t}{jetpack}")
    });
    let mode = board.power_mode.as_ref().map_or_else(String::new, |mode| format!(", power mode {mode}"));
    tracing::info!("{model}{release}{mode}");
}

/// Shows what is in force, where it is other than what is shown.
fn publish(shared: &Shared, one_of: u32, causes: &[Cause]) {
    let now = (one_of > 1).then(|| Derated { causes: causes.to_vec(), one_of });
    if shared.derated.load().as_deref() != now.as_ref() {
        shared.derated.store(now.map(Arc::new));
    }
}

fn tell(step: Step, strains: &[Strain]) {
    match step {
        Step::Down(one_of) => {
            let seen: Vec<String> = strains.iter().map(|s| format!("{}: {}", s.cause.name(), s.detail)).collect();
            tracing::warn!(
                "the device is strained ({}): one window of {one_of} is scored, the others are left out and counted \
                 (windows_dropped, derated), until it recovers; `kinewatch doctor` says what to do",
                seen.join("; ")
            );
        }
        Step::Up(1) => tracing::info!("the device has recovered: every window is scored again"),
        Step::Up(one_of) => tracing::info!("the device recovers: one window of {one_of} is scored"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;
    use crate::board::trees;

    /// Waits for the board to be known, or not.
    async fn until(shared: &Shared, known: bool) {
        let wait = async {
            while shared.board.load().is_some() != known {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_sensor_that_hangs_ends_what_was_known_and_its_answer_brings_it_back() {
        let dir = trees::plant(&["orin-nano-jp62"]);
        let shared = Arc::new(Shared::new("g", "d", "", Vec::new(), Vec::new()));
        let (every, limit) = (Duration::from_millis(5), Duration::from_millis(100));
        let task = tokio::spawn(watch(Arc::clone(&shared), Root::below(dir.path()), every, limit));
        until(&shared, true).await;
        // Opening a pipe waits for a writer, as a read waits for a bus that hangs.
        let sensor = trees::at(dir.path(), "/sys/class/thermal/cooling_device1/cur_state");
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        fs::rename(&pipe, &sensor).unwrap();
        until(&shared, false).await;
        // Gone first, so that the next look finds no pipe.
        fs::hard_link(&sensor, &pipe).unwrap();
        let new = dir.path().join("new");
        fs::write(&new, "0\n").unwrap();
        fs::rename(&new, &sensor).unwrap();
        fs::write(&pipe, "0\n").unwrap();
        until(&shared, true).await;
        task.abort();
    }
}
