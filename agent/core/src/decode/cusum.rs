//! Two-sided CUSUM (Page 1954) for per-frame scores.
//!
//! Evidence `clip(l - threshold, -4, 4) * dt` is summed and kept at or above zero; the change is where the sum was last
//! zero, which is its maximum-likelihood time. A clean step of height `g` is decided after `h / g` seconds.

use super::scores::logit;
use super::track::{Change, Edge, Step};
use crate::manifest::DecoderParams;
use crate::time::Pts;

const CLIP: f64 = 4.0;

#[derive(Clone, Debug)]
pub(super) struct Cusum {
    on: f64,
    off: f64,
    h_on: f64,
    h_off: f64,
    active: bool,
    sum: f64,
    change: Change,
}

impl Cusum {
    pub(super) fn new(p: &DecoderParams) -> Self {
        Self {
            on: logit(p.on),
            off: logit(p.off),
            h_on: p.h_on,
            h_off: p.h_off,
            active: false,
            sum: 0.0,
            change: Change { at: Pts::ZERO, spread_ms: 0.0, seen: Pts::ZERO },
        }
    }

    /// Takes other thresholds; what was summed stays.
    pub(super) fn set(&mut self, p: &DecoderParams) {
        (self.on, self.off, self.h_on, self.h_off) = (logit(p.on), logit(p.off), p.h_on, p.h_off);
    }

    pub(super) fn step(&mut self, s: &Step) -> Edge {
        if self.sum == 0.0 {
            self.change = Change::at(s);
        }
        let (gain, level) = if self.active { (self.off - s.l, self.h_off) } else { (s.l - self.on, self.h_on) };
        self.sum = (self.sum + gain.clamp(-CLIP, CLIP) * s.dt).max(0.0);
        if self.sum < level {
            return Edge::None;
        }
        self.sum = 0.0;
        self.active = !self.active;
        if self.active { Edge::On(self.change) } else { Edge::Off { end: self.change, begin: None } }
    }

    /// Where the action would end if it ended now.
    pub(super) fn latest_end(&self, now: Pts) -> Pts {
        if self.sum > 0.0 { self.change.at } else { now }
    }

    /// Whether there is no evidence of an action.
    pub(super) fn idle(&self) -> bool {
        !self.active && self.sum == 0.0
    }

    pub(super) fn reset(&mut self) {
        self.active = false;
        self.sum = 0.0;
    }
}
