//! Box-smoothed hysteresis for clip scores.
//!
//! The mean log-odds over the last `smooth_s` seconds, each score weighted by the time it stands for, is compared with
//! two thresholds. Time without a score counts for the present state: a single score after a hole cannot flip it.

use std::collections::VecDeque;

use super::scores::logit;
use super::track::{Change, Edge, Step};
use crate::manifest::DecoderParams;
use crate::time::{Pts, seconds_to_nanos};

/// How far beyond its threshold, in log-odds, a missing score speaks for the present state.
const HOLD: f64 = 1.0;

#[derive(Clone, Debug)]
pub(super) struct Hysteresis {
    on: f64,
    off: f64,
    smooth_s: f64,
    smooth_ns: i64,
    window: VecDeque<Weighted>,
    /// Most scores of a window. Not its capacity, which a copy of a decoder does not keep.
    most: usize,
    weight: f64,
    weighted: f64,
    newest: f64,
    active: bool,
}

#[derive(Clone, Copy, Debug)]
struct Weighted {
    at: Pts,
    dt: f64,
    l: f64,
}

impl Hysteresis {
    /// `stride_s`: usual time between scores, which bounds the window's length.
    pub(super) fn new(p: &DecoderParams, stride_s: f64) -> Self {
        let most = most(p.smooth_s, stride_s);
        Self {
            on: logit(p.on),
            off: logit(p.off),
            smooth_s: p.smooth_s,
            smooth_ns: seconds_to_nanos(p.smooth_s),
            window: VecDeque::with_capacity(most),
            most,
            weight: 0.0,
            weighted: 0.0,
            newest: f64::NEG_INFINITY,
            active: false,
        }
    }

    /// Takes other thresholds.
    pub(super) fn set(&mut self, p: &DecoderParams) {
        (self.on, self.off) = (logit(p.on), logit(p.off));
    }

    /// Takes another span of the box filter; keeps as many of the newest scores as it may hold. Allocates.
    pub(super) fn smooth_over(&mut self, smooth_s: f64, stride_s: f64) {
        (self.smooth_s, self.smooth_ns, self.most) = (smooth_s, seconds_to_nanos(smooth_s), most(smooth_s, stride_s));
        while self.window.len() > self.most {
            self.pop();
        }
        self.window.reserve(self.most - self.window.len());
    }

    pub(super) fn step(&mut self, s: &Step) -> Edge {
        self.newest = s.l;
        let (mean, change) = if self.smooth_ns == 0 { (s.l, Change::at(s)) } else { self.smoothed(s) };
        if !self.active && mean >= self.on {
            self.active = true;
            return Edge::On(change);
        }
        if self.active && mean < self.off {
            self.active = false;
            return Edge::Off { end: change, begin: None };
        }
        Edge::None
    }

    /// The mean, and the change that it shows if it crosses a threshold: missing time makes it cross that much later.
    fn smoothed(&mut self, s: &Step) -> (f64, Change) {
        let from = s.at - self.smooth_ns;
        while self.window.front().is_some_and(|w| w.at <= from) || self.window.len() == self.most {
            self.pop();
        }
        self.window.push_back(Weighted { at: s.at, dt: s.dt, l: s.l });
        self.weight += s.dt;
        self.weighted += s.dt * s.l;
        let hold = if self.active { self.on + HOLD } else { self.off - HOLD };
        let missing = (self.smooth_s - self.weight).max(0.0);
        let mean = (self.weighted + missing * hold) / (self.weight + missing);
        (mean, Change::within(s, seconds_to_nanos(missing)))
    }

    fn pop(&mut self) {
        if let Some(old) = self.window.pop_front() {
            self.weight -= old.dt;
            self.weighted -= old.dt * old.l;
        }
        if self.window.is_empty() {
            (self.weight, self.weighted) = (0.0, 0.0);
        }
    }

    /// Whether there is no evidence of an action.
    pub(super) fn idle(&self) -> bool {
        !self.active && self.newest < self.off
    }

    pub(super) fn reset(&mut self) {
        self.window.clear();
        (self.weight, self.weighted, self.active) = (0.0, 0.0, false);
    }
}

/// Scores that a window over `smooth_s` may hold.
fn most(smooth_s: f64, stride_s: f64) -> usize {
    (2.0 * smooth_s / stride_s).ceil() as usize + 2
}
