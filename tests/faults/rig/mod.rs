//! What every scenario is built from: a broker, a subscriber that forgets nothing, the agent, and RTSP cameras.
//!
//! Logs go to files in the scenario's folder, so that a failure can be read afterwards; nothing is waited for without a
//! deadline. Everything is killed with the value that started it.

mod agent;
mod broker;
mod cameras;
mod recorder;

pub(crate) use agent::{Agent, Setup};
pub(crate) use broker::Mosquitto;
pub(crate) use cameras::{Server, program};
pub(crate) use recorder::Recorder;

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;

/// Longest wait for what should happen at once, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until it is so, at most for `limit`; says how long it took.
pub(crate) fn wait_until(what: &str, limit: Duration, mut so: impl FnMut() -> bool) -> anyhow::Result<Duration> {
    let began = Instant::now();
    while !so() {
        if began.elapsed() > limit {
            bail!("waited {limit:?} for {what}");
        }
        pause(Duration::from_millis(25));
    }
    Ok(began.elapsed())
}

/// Lets time pass, where that is what the scenario is about: the length of a fault.
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}

fn log_file(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}
