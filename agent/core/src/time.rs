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
    excess_sum: i128,
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
        let samples: i128 = known().map(|b| i128::from(b.samples)).sum();
        let above = |b: &Bucket| (i128::from(b.lowest) - i128::from(lowest)) * i128::from(b.samples);
        let excess = known().map(|b| b.excess_sum + above(b)).sum::<i128>() / samples.max(1);
        let excess = i64::try_from(excess).unwrap_or(i64::MAX);
        let unix_ns = pts.0.saturating_add(lowest).saturating_add(self.wall_minus_mono);
        WallTime { unix_ns, uncertainty_ns: FLOOR_NS.saturating_add(excess) }
    }
}

impl Bucket {
    fn add(&mut self, offset: i64) {
        if offset < self.lowest {
            self.excess_sum += (i128::from(self.lowest) - i128::from(offset)) * i128::from(self.samples);
            self.lowest = offset;
        }
        self.excess_sum += i128::from(offset) - i128::from(self.lowest);
        self.samples += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const WALL: i64 = 1_790_000_000_000_000_000;

    fn arrival(ns: i64) -> Arrival {
        Arrival { mono_ns: ns, wall_ns: WALL + ns }
    }

    #[test]
    fn late_frames_do_not_move_the_map() {
        let mut map = ClockMap::new();
        for k in 0..500 {
            let delay = if k % 10 == 0 { 30 * MS } else { 80 * MS };
            map.observe(Pts(k * 40 * MS), arrival(k * 40 * MS + delay));
        }
        let wall = map.wall(Pts(10_000 * MS));
        assert_eq!(wall.unix_ns, WALL + 10_030 * MS);
        assert_eq!(wall.uncertainty_ns / MS, 10 + 45, "the floor and the mean excess");
    }

    #[test]
    fn drift_of_the_camera_is_followed() {
        let mut map = ClockMap::new();
        // The camera's clock runs fast by 200 ppm: offsets rise.
        let mut last = (Pts::ZERO, 0);
        for k in 0..20_000i64 {
            let media = k * 40 * MS;
            last = (Pts(media), media + media / 5000);
            map.observe(last.0, arrival(last.1));
        }
        let error = map.wall(last.0).unix_ns - (WALL + last.1);
        assert!(error.abs() <= 7 * MS, "{error}");
    }

    #[test]
    fn a_corrected_wall_clock_is_followed_at_once() {
        let mut map = ClockMap::new();
        for k in 0..100 {
            map.observe(Pts(k * 40 * MS), arrival(k * 40 * MS));
        }
        let set_forward = Arrival { mono_ns: 4000 * MS, wall_ns: WALL + 3_600_000 * MS + 4000 * MS };
        map.observe(Pts(4000 * MS), set_forward);
        assert_eq!(map.wall(Pts(4000 * MS)).unix_ns, set_forward.wall_ns);
    }

    #[test]
    fn replay_is_exact_and_extremes_do_not_overflow() {
        assert_eq!(ClockMap::fixed(5).wall(Pts(7)), WallTime { unix_ns: 12, uncertainty_ns: 0 });
        let mut map = ClockMap::new();
        for pts in [i64::MIN, 0, i64::MAX] {
            for ns in [i64::MIN, i64::MAX] {
                map.observe(Pts(pts), Arrival { mono_ns: ns, wall_ns: -ns.saturating_add(1) });
                let _ = map.wall(Pts(pts));
            }
        }
    }
}
