//! Which frames a model reads, decided by timestamps alone: never by counting frames.
//!
//! Every rate has a grid of ticks `k / rate`, anchored at media time zero (the session's first frame). The frame of tick
//! `k` is the first at or after `k / rate - tolerance`, where the tolerance is an eighth of a tick, so that the jitter of
//! a camera cannot move the choice by a frame. Live capture and replay share this grid, so they choose alike.

mod selector;
mod window;

pub use selector::{FrameSelector, MAX_RATES, Verdict};
pub use window::{Continuity, Hole, HoleDetector, Span, WindowPlan, WindowRequest, Windower};

use crate::time::{NANOS_PER_SECOND, Pts};

/// The grid of one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ticks {
    interval: f64,
    tolerance: f64,
}

impl Ticks {
    pub(crate) fn new(rate_hz: f64) -> Self {
        let interval = NANOS_PER_SECOND as f64 / rate_hz;
        Self { interval, tolerance: interval / 8.0 }
    }

    /// The last tick whose catchment has begun at `pts`; negative before the first.
    pub(crate) fn of(&self, pts: Pts) -> i64 {
        // A nanosecond of grace: tick times are rounded to whole nanoseconds.
        ((pts.0 as f64 + self.tolerance + 1.0) / self.interval).floor() as i64
    }

    /// Media time of a tick.
    pub(crate) fn at(&self, tick: i64) -> Pts {
        Pts((tick as f64 * self.interval).round() as i64)
    }

    pub(crate) fn interval_ns(&self) -> i64 {
        self.interval.round() as i64
    }
}

#[cfg(test)]
mod tests;
