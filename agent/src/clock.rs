//! The device's clock: what time it is, and how far that can be trusted. Pure code is handed its instants.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kinewatch_core::event::ClockState;

/// Made by systemd-timesyncd once it has set the clock.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Unix time, nanoseconds.
#[must_use]
pub fn wall_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Whether the clock is set, as systemd-timesyncd says; with another time service it counts as not known to be. The error
/// is not known either way: 0 is "not stated".
#[must_use]
pub fn state() -> ClockState {
    let synced = Path::new(SYNCHRONIZED).exists();
    let boot_id = fs::read_to_string(BOOT_ID).ok().map(|id| id.trim().to_owned());
    ClockState { synced, source: if synced { "ntp" } else { "local" }.into(), max_err_ms: 0.0, boot_id }
}
