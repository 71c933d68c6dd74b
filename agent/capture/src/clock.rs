//! The clocks that frames are stamped by: monotonic, wall, and what the kernel knows of the latter's error.
//!
//! Reads only, never blocks; any thread.

use std::time::{SystemTime, UNIX_EPOCH};

use gstreamer as gst;

/// `CLOCK_MONOTONIC`, nanoseconds: the clock of [`kinewatch_core::time::Arrival`], and the one GStreamer runs by.
#[must_use]
pub fn mono_ns() -> i64 {
    i64::try_from(gst::get_timestamp().nseconds()).unwrap_or(i64::MAX)
}

/// Unix time, nanoseconds.
#[must_use]
pub fn wall_ns() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}

/// Nanoseconds since boot, suspended time included. Never set; starts anew with each boot.
#[must_use]
#[expect(unsafe_code, reason = "the standard library does not read CLOCK_BOOTTIME")]
pub fn boot_ns() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a value that we own and that outlives the call.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    debug_assert_eq!(answer, 0, "every kernel since 2.6.39 has this clock");
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// What the kernel knows of its wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelClock {
    /// A time service disciplines it, whichever.
    pub synced: bool,
    /// Largest error, as the time service stated it and grown since by 500 ppm, microseconds.
    pub max_error_us: i64,
}

/// Asks the kernel (`adjtimex(2)`, read only: needs no privilege). `None` where that is forbidden, as in some containers.
#[must_use]
#[expect(unsafe_code, reason = "no maintained crate reads adjtimex")]
pub fn kernel_clock() -> Option<KernelClock> {
    // SAFETY: `timex` is plain numbers, for which all zeroes is a valid value; `modes` of zero changes nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a value that we own and that outlives the call.
    let answer = unsafe { libc::adjtimex(&raw mut timex) };
    if answer < 0 {
        return None;
    }
    let max_error_us = timex.maxerror;
    // Chrony without `rtcsync` leaves STA_UNSYNC set; as systemd does, the error decides: it saturates at 16 s.
    Some(KernelClock { synced: max_error_us < 16_000_000, max_error_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_run_and_the_kernel_says_what_it_knows() {
        crate::init().unwrap();
        let (mono, wall) = (mono_ns(), wall_ns());
        assert!(mono > 0 && wall > 1_700_000_000_000_000_000);
        assert!(mono_ns() >= mono);
        assert!(boot_ns() >= mono, "it counts suspended time on top");
        if let Some(clock) = kernel_clock() {
            assert!((0..=16_000_000).contains(&clock.max_error_us), "{clock:?}");
        }
    }
}
