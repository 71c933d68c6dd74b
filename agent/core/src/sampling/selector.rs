//! The choice among decoded frames, before they cost anything: called by the capture thread for every frame.

use super::Ticks;
use crate::time::{NANOS_PER_SECOND, Pts};

/// Most rates of a [`FrameSelector`]: one bit each.
pub const MAX_RATES: usize = 32;

const BACKWARD_JUMP: i64 = NANOS_PER_SECOND;
const FORWARD_JUMP: i64 = 10 * NANOS_PER_SECOND;

/// Chooses frames for several samplers of one branch.
#[derive(Clone, Debug)]
pub struct FrameSelector {
    rates: Vec<Rate>,
    newest: Option<Pts>,
}

#[derive(Clone, Debug)]
struct Rate {
    ticks: Ticks,
    next: i64,
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Keep it; bit `i` is set when rate `i` wants it.
    Take {
        /// Never zero.
        wanted: u32,
    },
    /// No sampler wants it.
    Skip,
    /// Its timestamp is that of the newest frame.
    Duplicate,
    /// It is up to 1 s older than the newest frame.
    Backward,
    /// More than 1 s backward or more than 10 s forward: the caller begins a new session with [`FrameSelector::reset`].
    Jump,
}

impl FrameSelector {
    /// A selector over rates in frames per second. At most [`MAX_RATES`]; a rate that is not above zero wants nothing.
    #[must_use]
    pub fn new(rates_hz: &[f64]) -> Self {
        debug_assert!(rates_hz.len() <= MAX_RATES, "one bit per rate");
        let rate = |&hz: &f64| Rate { ticks: Ticks::new(hz), next: if hz > 0.0 { 0 } else { i64::MAX } };
        Self { rates: rates_hz.iter().take(MAX_RATES).map(rate).collect(), newest: None }
    }

    /// Judges the next frame of the session. Never allocates.
    pub fn offer(&mut self, pts: Pts) -> Verdict {
        if let Some(newest) = self.newest {
            match pts - newest {
                0 => return Verdict::Duplicate,
                d if !(-BACKWARD_JUMP..=FORWARD_JUMP).contains(&d) => return Verdict::Jump,
                d if d < 0 => return Verdict::Backward,
                _ => {}
            }
        }
        self.newest = Some(pts);
        let mut wanted = 0;
        for (bit, rate) in self.rates.iter_mut().enumerate() {
            let tick = rate.ticks.of(pts);
            if tick >= rate.next {
                rate.next = tick.saturating_add(1);
                wanted |= 1 << bit;
            }
        }
        if wanted == 0 { Verdict::Skip } else { Verdict::Take { wanted } }
    }

    /// Forgets everything: a new session begins.
    pub fn reset(&mut self) {
        self.newest = None;
        for rate in &mut self.rates {
            if rate.next != i64::MAX {
                rate.next = 0;
            }
        }
    }
}
