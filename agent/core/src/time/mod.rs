//! Media time, stream sessions, and the way from media time to the wall clock (`agent/design/time.md`).
//!
//! Never reads a clock: every instant is handed in. Used by every thread, owned by none. Three parts, in the order of a
//! frame: [`MediaClock`] keeps media time going when a camera sets its clock (capture thread), [`ClockMap`] gives the
//! monotonic instant of a media time, [`DeviceClock`] the wall time of that instant (inference thread).

mod device;
mod envelope;
mod map;
mod media;

pub use device::{ClockStep, DeviceClock, STEP_NS};
pub use map::{ClockMap, DelaySource};
pub use media::MediaClock;

use std::fmt;
use std::ops::{Add, Sub};

/// Media time in nanoseconds since the first frame of its [`SessionId`].
///
/// Back-dated boundaries may compute to a time before the first frame; [`Pts::clamped`] is what gets published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pts(pub i64);

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: i64 = 1_000_000_000;

impl Pts {
    /// The first frame of a session.
    pub const ZERO: Self = Self(0);

    /// From seconds; fractions below a nanosecond are rounded.
    #[must_use]
    pub fn from_seconds(seconds: f64) -> Self {
        Self(seconds_to_nanos(seconds))
    }

    /// In seconds.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / NANOS_PER_SECOND as f64
    }

    /// Not before the first frame.
    #[must_use]
    pub fn clamped(self) -> Self {
        Self(self.0.max(0))
    }
}

impl Add<i64> for Pts {
    type Output = Self;
    fn add(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<i64> for Pts {
    type Output = Self;
    fn sub(self, nanos: i64) -> Self {
        Self(self.0.saturating_sub(nanos))
    }
}

impl Sub for Pts {
    type Output = i64;
    fn sub(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Pts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", self.seconds())
    }
}

/// Seconds to nanoseconds, rounded, saturating; not-a-number becomes zero.
#[must_use]
pub fn seconds_to_nanos(seconds: f64) -> i64 {
    (seconds * NANOS_PER_SECOND as f64).round() as i64
}

/// One uninterrupted run of a stream (the "stream epoch" on the wire). A reconnect, a loop of a file and a jump of its
/// timestamps each begin a new one; media times of different sessions are not comparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u32);

impl SessionId {
    /// The session after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// When a frame reached this process, and what its sender says of its age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: i64,
    /// How long before it was captured, by the sender's clock and ours, nanoseconds; `None` where the sender tells nothing.
    pub reported_delay_ns: Option<i64>,
    /// How often [`MediaClock`] has joined the camera's clock anew so far.
    pub rebases: u32,
}

/// A wall time with what is not known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallTime {
    /// Unix time, nanoseconds, on the device's clock.
    pub unix_ns: i64,
    /// The true time lies this near but for the error of the device's own clock, nanoseconds.
    pub uncertainty_ns: i64,
}
