//! Media time, stream sessions, and the map from media time to the wall clock.
//!
//! Never reads a clock: every instant is handed in. Used by every thread, owned by none.

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

/// One uninterrupted run of a stream (the "stream epoch" on the wire). A reconnect, a loop of a file and a jump of the
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

/// When a frame reached this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: i64,
    /// Unix time, nanoseconds.
    pub wall_ns: i64,
}

/// A wall time with what is not known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallTime {
    /// Unix time, nanoseconds.
    pub unix_ns: i64,
    /// The true time lies this near, as far as arrivals tell, nanoseconds.
    pub uncertainty_ns: i64,
}

const BUCKET_NS: i64 = 5 * NANOS_PER_SECOND;
const BUCKETS: usize = 6;
/// Delay of capture and delivery that no arrival can show.
const FLOOR_NS: i64 = 10_000_000;

/// From media time to wall time, for one session.
///
/// A frame arrives some delay after it was captured, and the delay only ever adds: so the lowest `arrival - pts` of the
/// last 30 s of media (on the monotonic clock, in buckets of 5 s, so that slow drift is followed) is the best offset, and
/// the mean excess over it is the jitter. The step from the monotonic to the wall clock is that of the newest arrival: a
/// correction of the wall clock is followed at once and cannot look like drift.
#[derive(Clone, Debug, Default)]
pub struct ClockMap {
    buckets: [Option<Bucket>; BUCKETS],
    wall_minus_mono: i64,
    fixed: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    index: i64,
    lowest: i64,
    excess_sum: i64,
    samples: i64,
}

impl ClockMap {
    /// A map that knows nothing yet; [`ClockMap::wall`] gives the epoch plus the media time until it has observed one arrival.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A map for replay: media time zero is `unix_ns`, exactly.
    #[must_use]
    pub fn fixed(unix_ns: i64) -> Self {
        Self { fixed: Some(unix_ns), ..Self::default() }
    }

    /// Learns from one frame. Constant time; no effect on a fixed map.
    pub fn observe(&mut self, pts: Pts, arrival: Arrival) {
        self.wall_minus_mono = arrival.wall_ns.saturating_sub(arrival.mono_ns);
        let offset = arrival.mono_ns.saturating_sub(pts.0);
        let index = pts.0.div_euclid(BUCKET_NS);
        let slot = &mut self.buckets[index.rem_euclid(BUCKETS as i64) as usize];
        match slot {
            Some(bucket) if bucket.index == index => bucket.add(offset),
            _ => *slot = Some(Bucket { index, lowest: offset, excess_sum: 0, samples: 1 }),
        }
        // What a jump over several buckets left behind is older than the window.
        for old in &mut self.buckets {
            if old.is_some_and(|b| b.index <= index - BUCKETS as i64) {
                *old = None;
            }
        }
    }

    /// The wall time of a media time of this session.
    #[must_use]
    pub fn wall(&self, pts: Pts) -> WallTime {
        if let Some(zero) = self.fixed {
            return WallTime { unix_ns: zero.saturating_add(pts.0), uncertainty_ns: 0 };
        }
        let known = || self.buckets.iter().flatten();
        let Some(lowest) = known().map(|b| b.lowest).min() else {
            return WallTime { unix_ns: pts.0, uncertainty_ns: i64::MAX };
        };
        let samples: i64 = known().map(|b| b.samples).sum();
        let excess: i64 = known().map(|b| (b.excess_sum / samples) + (b.lowest - lowest) / samples * b.samples).sum();
        let unix_ns = pts.0.saturating_add(lowest).saturating_add(self.wall_minus_mono);
        WallTime { unix_ns, uncertainty_ns: FLOOR_NS.saturating_add(excess) }
    }
}

impl Bucket {
    fn add(&mut self, offset: i64) {
        if offset < self.lowest {
            let lower = (self.lowest - offset).saturating_mul(self.samples);
            self.excess_sum = self.excess_sum.saturating_add(lower);
            self.lowest = offset;
        }
        self.excess_sum = self.excess_sum.saturating_add(offset - self.lowest);
        self.samples += 1;
    }
}
