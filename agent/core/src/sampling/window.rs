//! Windows of sampled frames for one (camera, model) pair.
//!
//! A window of `F = round(window * rate)` ticks ends at tick `F - 1 + m * S`, `S = round(stride * rate)`, `m = 0, 1, …`:
//! the first is the first full one, and all depend only on media time. Tick `j` of a window (from 0) stands for the
//! time between the tick before it and itself. Segment `i` of `T` begins at tick
//! `floor((i + 1/2) F/T - (n - 1)/2)`, `n` being the frames of a snippet: the middle of its share of the window, as in
//! TSN's test sampling; when `F = T n` these are exactly the last `F` ticks.

use super::Ticks;
use crate::frame::Frame;
use crate::manifest::Sampling;
use crate::ring::Ring;
use crate::time::Pts;

/// Where the windows of a model lie, and which ticks they read.
#[derive(Clone, Debug)]
pub struct WindowPlan {
    ticks: Ticks,
    offsets: Vec<i64>,
    length: i64,
    stride: i64,
    max_hole: i64,
}

impl WindowPlan {
    /// The plan of a validated manifest.
    #[must_use]
    pub fn new(sampling: &Sampling) -> Self {
        let ticks = Ticks::new(sampling.rate_hz);
        let whole = |ns: i64| ((ns as f64 / ticks.interval_ns() as f64).round() as i64).max(1);
        let (t, n) = (sampling.segments as i64, sampling.snippet as i64);
        let length = whole(sampling.window).max(t * n);
        let start = |i: i64| ((2 * i + 1) * length - (n - 1) * t).div_euclid(2 * t);
        let offsets = (0..t).flat_map(|i| (0..n).map(move |j| start(i) + j)).collect();
        Self { ticks, offsets, length, stride: whole(sampling.stride), max_hole: sampling.max_hole }
    }

    /// The tick of the newest window that is due once a frame of `newest` is there; `None` before the first full one.
    fn due(&self, newest: Pts) -> Option<i64> {
        let first = self.length - 1;
        let past = self.ticks.of(newest) - first;
        (past >= 0).then(|| first + past / self.stride * self.stride)
    }

    /// Media time at which the next window becomes due after a frame of `newest`.
    #[must_use]
    pub fn next_due(&self, newest: Pts) -> Pts {
        self.ticks.at(self.due(newest).map_or(self.length - 1, |tick| tick + self.stride))
    }

    /// Frames of a window.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.offsets.len()
    }

    /// Media time that a [`Ring`] has to reach back, ns.
    #[must_use]
    pub fn history_ns(&self) -> i64 {
        (self.length + 1) * self.ticks.interval_ns() + self.max_hole
    }
}

/// A window that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRequest {
    /// Time of its last tick.
    pub end: Pts,
    /// Windows due since the one before that no frame came for: count them as skipped.
    pub skipped: u32,
    tick: i64,
}

/// Frames of a gathered window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Of the oldest frame.
    pub first: Pts,
    /// Of the newest frame: the time that a per-frame score speaks of.
    pub last: Pts,
}

/// A wanted time without a frame near enough: the window is to be skipped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no frame near {wanted}, the nearest is at {nearest:?}")]
pub struct Hole {
    /// The wanted time.
    pub wanted: Pts,
    /// The nearest frame of the ring.
    pub nearest: Option<Pts>,
}

/// Tells when a window is due and finds its frames. One per (camera, model) pair.
#[derive(Clone, Debug)]
pub struct Windower {
    plan: WindowPlan,
    mask: u32,
    last: Option<i64>,
}

impl Windower {
    /// For the frames that sampler `bit` (of [`crate::frame::FrameMeta::wanted`]) chose.
    #[must_use]
    pub fn new(sampling: &Sampling, bit: u32) -> Self {
        Self { plan: WindowPlan::new(sampling), mask: 1u32.checked_shl(bit).unwrap_or(0), last: None }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &WindowPlan {
        &self.plan
    }

    /// To be told of each frame that this sampler chose, in order. When several windows became due at once (frames were
    /// missing), the newest is asked for.
    pub fn push(&mut self, pts: Pts) -> Option<WindowRequest> {
        let tick = self.plan.due(pts)?;
        let before = self.last.unwrap_or(self.plan.length - 1 - self.plan.stride);
        if tick <= before {
            return None;
        }
        self.last = Some(tick);
        let skipped = u32::try_from((tick - before) / self.plan.stride - 1).unwrap_or(u32::MAX);
        Some(WindowRequest { end: self.plan.ticks.at(tick), skipped, tick })
    }

    /// Fills `frames` (emptied first) with the frames of a window, oldest first; a frame may stand for several ticks.
    ///
    /// # Errors
    /// A wanted tick has no frame of its own and none within the model's `max_hole`; `frames` is then incomplete.
    pub fn gather(&self, ring: &Ring, request: &WindowRequest, frames: &mut Vec<Frame>) -> Result<Span, Hole> {
        frames.clear();
        for offset in &self.plan.offsets {
            frames.push(self.find(ring, request.tick - (self.plan.length - 1) + offset)?.clone());
        }
        let at = |frame: Option<&Frame>| frame.map_or(request.end, |f| f.meta().pts);
        Ok(Span { first: at(frames.first()), last: at(frames.last()) })
    }

    fn find<'r>(&self, ring: &'r Ring, tick: i64) -> Result<&'r Frame, Hole> {
        let wanted = self.plan.ticks.at(tick);
        let interval = self.plan.ticks.interval_ns();
        let mut near =
            ring.range(wanted - interval, wanted + interval + 1).filter(|f| f.meta().wanted & self.mask != 0);
        if let Some(own) = near.find(|f| self.plan.ticks.of(f.meta().pts) == tick) {
            return Ok(own);
        }
        let nearest = ring.nearest(wanted, self.mask);
        match nearest {
            Some(frame) if (frame.meta().pts - wanted).abs() <= self.plan.max_hole => Ok(frame),
            _ => Err(Hole { wanted, nearest: nearest.map(|f| f.meta().pts) }),
        }
    }

    /// Forgets the windows asked for: a new session begins.
    pub fn reset(&mut self) {
        self.last = None;
    }

    /// The session has come to `newest` already: windows that begin until then are nobody's.
    pub fn join_at(&mut self, newest: Pts) {
        self.last = self.plan.due(newest + (self.plan.length - 1) * self.plan.ticks.interval_ns());
    }
}

/// Whether a frame follows the one before it without a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// The first frame of the session, or after a state that was zeroed and took nothing in.
    First,
    /// No hole.
    Continuous,
    /// A hole of this many nanoseconds: carried states are to be zeroed.
    Hole(i64),
}

/// Watches the spacing of the frames of one online model.
#[derive(Clone, Copy, Debug)]
pub struct HoleDetector {
    max_hole: i64,
    last: Option<Pts>,
    /// What `last` was before the last offer, where a state was carried to it.
    carried: Option<Pts>,
}

impl HoleDetector {
    /// A hole is a spacing above `max_hole` ns.
    #[must_use]
    pub fn new(max_hole: i64) -> Self {
        Self { max_hole, last: None, carried: None }
    }

    /// Judges the next frame.
    pub fn offer(&mut self, pts: Pts) -> Continuity {
        let last = self.last.replace(pts);
        self.carried = last.filter(|last| pts - *last <= self.max_hole);
        match last {
            None => Continuity::First,
            Some(last) if pts - last > self.max_hole => Continuity::Hole(pts - last),
            Some(_) => Continuity::Continuous,
        }
    }

    /// The frame offered last was not taken in: the state is still of the one before, or zero.
    pub fn retract(&mut self) {
        self.last = self.carried.take();
    }

    /// Forgets the last frame: a new session begins.
    pub fn reset(&mut self) {
        (self.last, self.carried) = (None, None);
    }
}
