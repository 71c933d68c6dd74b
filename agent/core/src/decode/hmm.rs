//! A hidden Markov model with explicit durations (Rabiner 1989) of a score that looks back over a window.
//!
//! The forward filter gives the probability that an action has begun since the last one ended, and that the open one is
//! over; thresholds on them decide. When it decides, a forward-backward pass over the kept scores, in cells of half a
//! stride, says when: an edge lies where the probability of the action crosses one half, and is uncertain from where it
//! is 5 % to where it is 95 %.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lattice::{Lattice, Observed, Scratch};
use super::track::{Change, Edge, Step};
use crate::manifest::{DecoderParams, ScoreModel};
use crate::time::{NANOS_PER_SECOND, Pts};

/// Scores that are kept.
const KEPT: usize = 64;
/// Scores up to a decision that the begin is found from.
const KEPT_BEFORE: usize = 17;
/// Scores before the begin that it is found from when more is known.
const BEFORE_BEGIN: i64 = 8;
/// Strides after the begin in which the open action is not asked for its end.
const SETTLED: i64 = 2;
/// An action that is less likely than this has left no trace.
const TRACE: f64 = 0.05;

#[derive(Clone, Debug)]
pub(super) struct Hmm {
    on: f64,
    off: f64,
    stride: i64,
    decides: Arc<Lattice>,
    dates: Arc<Lattice>,
    belief: Vec<f64>,
    scratch: Scratch,
    kept: VecDeque<Kept>,
    /// Where the last action ended: the next cannot begin before.
    last_end: Pts,
    open: Option<Open>,
    /// Newest time at which the action was likelier than not.
    newest_on: Pts,
    trace: bool,
    pass: Pass,
}

/// The action that goes on.
#[derive(Clone, Copy, Debug)]
struct Open {
    begin: Change,
    /// Scores since it was decided.
    scores: usize,
    /// Found again once more scores were there.
    dated_again: bool,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    at: Pts,
    hole: i64,
    seen: Observed,
}

/// Scratch space for dating.
#[derive(Clone, Debug, Default)]
struct Pass {
    /// Beliefs of each kept score, in a row.
    beliefs: Vec<f64>,
    belief: Vec<f64>,
    after: Vec<f64>,
    /// Probability of the action in each cell.
    cells: Vec<f64>,
}

/// Begin and end of the likeliest action in a pass.
#[derive(Clone, Copy, Debug)]
struct Dates {
    begin: Change,
    end: Change,
}

impl Hmm {
    /// `stride`: usual time between scores, ns.
    pub(super) fn new(p: &DecoderParams, model: &ScoreModel, stride: i64) -> Self {
        let stride_s = stride as f64 / NANOS_PER_SECOND as f64;
        let decides = Arc::new(Lattice::new(model, stride_s, 1));
        let dates = Arc::new(Lattice::new(model, stride_s, 2));
        let pass = Pass {
            beliefs: Vec::with_capacity(KEPT * dates.states().len()),
            belief: Vec::with_capacity(dates.states().len()),
            after: Vec::with_capacity(dates.states().len()),
            cells: Vec::with_capacity(KEPT * dates.cells),
        };
        let mut scratch = Scratch::default();
        decides.reserve(&mut scratch);
        dates.reserve(&mut scratch);
        Self {
            on: p.on,
            off: p.off,
            stride,
            belief: decides.idle(),
            decides,
            dates,
            scratch,
            kept: VecDeque::with_capacity(KEPT),
            last_end: Pts(i64::MIN),
            open: None,
            newest_on: Pts::ZERO,
            trace: false,
            pass,
        }
    }

    /// Takes other thresholds.
    pub(super) fn set(&mut self, p: &DecoderParams) {
        (self.on, self.off) = (p.on, p.off);
    }

    pub(super) fn step(&mut self, s: &Step) -> Edge {
        self.keep(s);
        let Some(newest) = self.kept.back() else { return Edge::None };
        self.decides.forward(&mut self.belief, &newest.seen, &mut self.scratch);
        self.look(s.at);
        match self.open {
            None => self.maybe_open(s.at),
            Some(open) => self.maybe_close(s.at, open),
        }
    }

    fn keep(&mut self, s: &Step) {
        let before = self.kept.back().filter(|_| s.hole == 0).map(|k| k.seen.score);
        let missed = u32::try_from(s.hole.saturating_add(self.stride / 2) / self.stride).unwrap_or(u32::MAX);
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Kept { at: s.at, hole: s.hole, seen: Observed { score: s.l, before, missed } });
    }

    fn look(&mut self, at: Pts) {
        let (mut now, mut any) = (0.0, 0.0);
        for (state, b) in self.decides.states().iter().zip(&self.belief) {
            any += if state.since_begin > 0 { *b } else { 0.0 };
            now += if state.since_off == 1 { 0.0 } else { *b };
        }
        if now >= 0.5 {
            self.newest_on = at;
        }
        self.trace = any >= TRACE;
    }

    fn maybe_open(&mut self, at: Pts) -> Edge {
        let since_end = self.strides(at, self.last_end);
        let begun = |since: u8| since > 0 && i64::from(since) <= since_end;
        let p = self.sum(|s| begun(s.since_begin));
        if p < self.on {
            return Edge::None;
        }
        let from = self.kept.len().saturating_sub(KEPT_BEFORE);
        let Some(dates) = self.date(from) else { return Edge::None };
        self.open = Some(Open { begin: dates.begin, scores: 0, dated_again: false });
        self.newest_on = self.newest_on.max(dates.end.at);
        Edge::On(dates.begin)
    }

    fn maybe_close(&mut self, at: Pts, mut open: Open) -> Edge {
        open.scores += 1;
        // The begin is dated again by all scores about it, before the first of them is forgotten.
        if !open.dated_again && open.scores + KEPT_BEFORE >= KEPT {
            open.begin = self.date(self.before(open.begin.at)).map_or(open.begin, |dates| dates.begin);
            open.dated_again = true;
        }
        self.open = Some(open);
        let since_begin = self.strides(at, open.begin.at) - SETTLED;
        let over = |since: u8| since > 0 && i64::from(since) <= since_begin;
        if 1.0 - self.sum(|s| over(s.since_off)) >= self.off {
            return Edge::None;
        }
        let from = if open.dated_again { 0 } else { self.before(open.begin.at) };
        let Some(dates) = self.date(from) else { return Edge::None };
        self.open = None;
        self.last_end = dates.end.at;
        let begin = if open.dated_again { open.begin } else { dates.begin };
        Edge::Off { end: dates.end, begin: Some(begin) }
    }

    /// Index of the score from which a begin near `at` can be found.
    fn before(&self, at: Pts) -> usize {
        let from = at - BEFORE_BEGIN * self.stride;
        self.kept.iter().position(|kept| kept.at >= from).unwrap_or(0)
    }

    fn strides(&self, at: Pts, since: Pts) -> i64 {
        (at - since).saturating_add(self.stride / 2) / self.stride
    }

    fn sum(&self, wanted: impl Fn(&super::lattice::State) -> bool) -> f64 {
        self.decides.states().iter().zip(&self.belief).filter(|(s, _)| wanted(s)).map(|(_, b)| b).sum()
    }

    /// Forward and backward over the kept scores from index `from`, but not before the end of the last action.
    fn date(&mut self, from: usize) -> Option<Dates> {
        let from = from.max(self.kept.iter().position(|k| k.at > self.last_end)?);
        let lattice = Arc::clone(&self.dates);
        let states = lattice.states().len();
        let pass = &mut self.pass;
        pass.belief.clear();
        pass.belief.resize(states, 0.0);
        if self.open.is_some_and(|open| open.dated_again) && from == 0 {
            lattice.busy(&mut pass.belief);
        } else {
            pass.belief[0] = 1.0;
        }
        pass.beliefs.clear();
        pass.beliefs.extend_from_slice(&pass.belief);
        for kept in self.kept.range(from + 1..) {
            lattice.forward(&mut pass.belief, &kept.seen, &mut self.scratch);
            pass.beliefs.extend_from_slice(&pass.belief);
        }
        pass.after.clear();
        pass.after.resize(states, 1.0);
        pass.cells.clear();
        for (k, kept) in self.kept.iter().enumerate().skip(from).rev() {
            let belief = &pass.beliefs[(k - from) * states..][..states];
            pass.cells.extend(lattice.newest(belief, &pass.after));
            let last = pass.cells.len() - lattice.cells;
            pass.cells[last..].reverse();
            if k > from {
                let before = &pass.beliefs[(k - from - 1) * states..][..states];
                lattice.backward(&mut pass.after, before, &kept.seen, &mut self.scratch);
            }
        }
        pass.cells.reverse();
        self.likeliest(from)
    }

    /// The run of cells in which the action is likelier than not, and there are most of them.
    fn likeliest(&self, from: usize) -> Option<Dates> {
        let p = &self.pass.cells;
        let mut best: Option<(f64, usize, usize)> = None;
        let mut cell = 0;
        while cell < p.len() {
            let run = p[cell..].iter().take_while(|p| **p > 0.5).count();
            let weight: f64 = p[cell..cell + run].iter().sum();
            if run > 0 && best.is_none_or(|(most, ..)| weight > most) {
                best = Some((weight, cell, cell + run));
            }
            cell += run.max(1);
        }
        let highest = || (0..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b])).map(|c| (c, c + 1));
        let (begin, end) = best.map(|(_, begin, end)| (begin, end)).or_else(highest)?;
        let (low, high) = (0.05, 0.95);
        let sure_before = p[..begin].iter().rposition(|p| *p < low).map_or(0, |c| c + 1);
        let sure_after = p[begin..end].iter().position(|p| *p > high).map_or(end, |c| begin + c);
        let still_sure = p[begin..end].iter().rposition(|p| *p > high).map_or(begin, |c| begin + c + 1);
        let surely_over = p[end..].iter().position(|p| *p < low).map_or(p.len(), |c| end + c);
        let date = |edge, least: usize, most: usize| {
            let (at, half) = (self.edge(from, edge), self.hole(from, edge) / 2);
            let spread = (at - self.edge(from, least)).max(self.edge(from, most) - at);
            Change { at: at - half, spread_ms: (spread + half) as f64 / 1e6, seen: at }
        };
        Some(Dates { begin: date(begin, sure_before, sure_after), end: date(end, still_sure, surely_over) })
    }

    /// The time between cell `edge - 1` and cell `edge` of a pass from `from`.
    fn edge(&self, from: usize, edge: usize) -> Pts {
        let cells = self.dates.cells;
        let last = self.kept.len() - 1;
        let kept = &self.kept[(from + edge / cells).min(last)];
        let within = if from + edge / cells > last { cells } else { edge % cells };
        kept.at - self.stride + self.stride * within as i64 / cells as i64
    }

    fn hole(&self, from: usize, edge: usize) -> i64 {
        self.kept.get(from + edge / self.dates.cells).map_or(0, |kept| kept.hole)
    }

    /// Where the action would end if it ended now.
    pub(super) fn latest_end(&self) -> Pts {
        self.newest_on
    }

    /// Whether there is no evidence of an action.
    pub(super) fn idle(&self) -> bool {
        self.open.is_none() && !self.trace
    }

    pub(super) fn reset(&mut self) {
        self.belief.fill(0.0);
        self.belief[0] = 1.0;
        self.kept.clear();
        self.last_end = Pts(i64::MIN);
        (self.open, self.trace, self.newest_on) = (None, false, Pts::ZERO);
    }
}
