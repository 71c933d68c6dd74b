//! The device's clock: what time it is, and how far that can be trusted. Pure code is handed its instants.
//!
//! Any thread; reads the kernel and two small files, never waits.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use kinewatch_capture::kernel_clock;
use kinewatch_core::event::ClockState;
use kinewatch_core::manifest::TimeOfDay;

use kinewatch_store::Stamp;

pub use kinewatch_capture::{boot_ns, mono_ns, wall_ns};

/// Made by systemd-timesyncd once it has set the clock.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Two clocks read within this are read at once, nanoseconds.
const AT_ONCE: i64 = 200_000;

/// Monotonic and wall clock at one instant, nanoseconds. A thread that is held up between the two readings would see a
/// step that never was, so it reads again.
#[must_use]
pub fn both_ns() -> (i64, i64) {
    let mut best = (i64::MAX, (0, 0));
    for _ in 0..8 {
        let before = mono_ns();
        let wall = wall_ns();
        let took = mono_ns().saturating_sub(before);
        if took < best.0 {
            best = (took, (before.saturating_add(took / 2), wall));
        }
        if took <= AT_ONCE {
            break;
        }
    }
    best.1
}

/// Whether the clock is set, by whichever time service, as the kernel says; where the kernel may not be asked, as
/// systemd-timesyncd says. An error of 0 is "not stated".
#[must_use]
pub fn state() -> ClockState {
    let (synced, max_err_ms) = match kernel_clock() {
        Some(clock) if clock.synced => (true, (clock.max_error_us as f64 / 1e3).ceil().max(1.0)),
        Some(_) => (false, 0.0),
        None => (Path::new(SYNCHRONIZED).exists(), 0.0),
    };
    ClockState { synced, source: if synced { "ntp" } else { "local" }.into(), max_err_ms, boot_id: boot_id() }
}

fn boot_id() -> Option<String> {
    static ID: OnceLock<Option<String>> = OnceLock::new();
    ID.get_or_init(|| fs::read_to_string(BOOT_ID).ok().map(|id| id.trim().to_owned())).clone()
}

/// Now, for ages that outlive a setting of the clock. `synced`: whether the wall clock is.
#[must_use]
pub fn stamp(synced: bool) -> Stamp {
    Stamp { unix_ns: wall_ns(), boot_ns: boot_ns(), boot: boot_number(), synced }
}

/// A number for this boot; where the kernel does not name it, one for this process.
fn boot_number() -> i64 {
    static NUMBER: OnceLock<i64> = OnceLock::new();
    *NUMBER.get_or_init(|| {
        let id = boot_id().and_then(|id| uuid::Uuid::parse_str(&id).ok());
        let number = id.map_or_else(|| fastrand::u64(..), |id| id.as_u64_pair().0 ^ id.as_u64_pair().1);
        ((number >> 1) as i64).max(1)
    })
}

/// What a clock on the wall showed so long ago: `12:03:05`.
#[must_use]
pub fn shown(ago: Duration) -> String {
    let now = jiff::ZonedDateTime::now();
    now.checked_sub(ago).unwrap_or(now).strftime("%H:%M:%S").to_string()
}

/// The time of day here, as the system's clock and time zone have it.
#[must_use]
pub fn time_of_day() -> Option<TimeOfDay> {
    let now = jiff::ZonedDateTime::now();
    let minutes = u16::try_from(now.hour()).ok()? * 60 + u16::try_from(now.minute()).ok()?;
    Some(TimeOfDay::from_minutes(minutes))
}
