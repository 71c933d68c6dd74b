//! The task that looks at the board every [`LOOK_EVERY`], shows what it read, and decides how far the device is spared.
//!
//! Runs on the control runtime; the reading itself on a thread that may block, since a sensor behind a hung bus must not
//! stop the delivery of events. Never on the way of a frame: the `infer` thread only reads what was decided.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kinewatch_core::derate::{Cause, Derating, Step};
use kinewatch_core::event::Derated;

use super::strain::{self, Strain};
use super::{Board, jetpack};
use crate::health::Shared;
use crate::root::Root;

/// How often.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Runs until its task is aborted.
pub async fn run(shared: Arc<Shared>, root: Root) {
    let begun = Instant::now();
    let mut derating = Derating::default();
    let mut before: Option<(Arc<Board>, Instant)> = None;
    let mut causes = Vec::new();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let root = root.clone();
        let Ok(board) = tokio::task::spawn_blocking(move || Board::read(&root)).await else { continue };
        let (board, now) = (Arc::new(board), Instant::now());
        shared.board.store(Some(Arc::clone(&board)));
        let Some((last, at)) = before.replace((Arc::clone(&board), now)) else {
            introduce(&board);
            continue;
        };
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
        let jetpack = jetpack(l4t).map_or_else(String::new, |major| format!(" (JetPack {major})"));
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
