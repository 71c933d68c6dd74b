//! The life of one label's actions: what a detector's edges mean, and when they may be told.
//!
//! What has been told is never taken back: an end is held for the merge gap instead of being revised, and a start is told
//! only when the action is sure to last its minimum.

use super::cusum::Cusum;
use super::evidence::Evidence;
use super::hmm::Hmm;
use super::hysteresis::Hysteresis;
use super::scores::{logit, probability};
use super::thresholds::Thresholds;
use super::{Confidence, Decision, EndReason, Status};
use crate::manifest::{DecoderKind, DecoderParams, Period, TimeOfDay};
use crate::time::{NANOS_PER_SECOND, Pts, seconds_to_nanos};

/// An open action is told again after this much media time.
pub(super) const RENEW_NS: i64 = 5 * NANOS_PER_SECOND;

/// One score of one label.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub at: Pts,
    /// Seconds that the score stands for; bounded, so that a hole adds no evidence.
    pub dt: f64,
    /// Time without scores before it, ns; 0 at the usual stride.
    pub hole: i64,
    /// What counts for the label, log-odds: its own, or less where a rival is as likely.
    pub l: f64,
    /// Log-odds of the label itself.
    pub own: f64,
}

/// A time at which a detector saw a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub at: Pts,
    /// How far this one may lie off, beyond what holds for all: half a hole, or what the scores leave open.
    pub spread_ms: f64,
    /// The first score after it: a hole does not make an action last.
    pub seen: Pts,
}

impl Change {
    /// At the score `s`; after a hole, in the middle of it.
    pub(super) fn at(s: &Step) -> Self {
        Self::within(s, s.hole)
    }

    /// At the score `s`, or up to `missing` nanoseconds before it.
    pub(super) fn within(s: &Step, missing: i64) -> Self {
        let half = missing.max(0) / 2;
        Self { at: s.at - half, spread_ms: half as f64 / 1e6, seen: s.at }
    }
}

/// What a detector saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Edge {
    None,
    On(Change),
    /// The end, and the begin as it is known by now if that is better than when it was seen.
    Off {
        end: Change,
        begin: Option<Change>,
    },
}

/// Where decisions go, and the numbers of actions.
pub(super) struct Emitter<'a> {
    pub out: &'a mut Vec<Decision>,
    pub next_action: &'a mut u64,
}

/// A time with its uncertainty.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bound {
    pub at: Pts,
    pub uncertainty_ms: f32,
}

/// An action that ended in this step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub start: Bound,
    pub end: Pts,
    pub confidence: Confidence,
    pub windows: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Off,
    /// Seen, too short to tell yet.
    Candidate,
    Open,
    /// Ended, but a repetition may still join.
    Closing(Bound),
    /// Cut at its longest; waits for the score to fall.
    Spent,
}

#[derive(Clone, Debug)]
enum Detector {
    Cusum(Cusum),
    Hysteresis(Hysteresis),
    Hmm(Box<Hmm>),
}

/// What of the parameters counts once an edge has been seen; nanoseconds, but for uncertainties.
#[derive(Clone, Copy, Debug)]
struct Rules {
    lag_start: i64,
    lag_end: i64,
    min_duration: i64,
    merge_gap: i64,
    max_duration: i64,
    cooldown: i64,
    uncertainty_start_ms: f64,
    uncertainty_end_ms: f64,
}

#[derive(Clone, Debug)]
pub(super) struct Track {
    detector: Detector,
    /// A score from here on surely belongs to an action that goes on, log-odds.
    surely: f64,
    pivot: f64,
    rules: Rules,
    published: Option<u16>,
    state: State,
    start: Bound,
    /// From when it has been seen to last.
    seen: Pts,
    /// Whether it went on after a pause.
    rejoined: bool,
    evidence: Evidence,
    last_end: Pts,
    /// An action that begins before is not told.
    cool_until: Pts,
    thresholds: Thresholds,
    told: Told,
    opened: bool,
    resumed: Option<Bound>,
    closed: Option<Closed>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    action: u64,
    rev: u32,
    at: Pts,
}

impl Track {
    /// `published`: index among the published labels, `None` for a label that only serves sequences.
    pub(super) fn new(p: &DecoderParams, schedule: &[Period], stride: i64, published: Option<u16>) -> Self {
        // A checked package has a model of its scores exactly where the kind needs it.
        let detector = match (p.kind, &p.hmm) {
            (_, Some(model)) => Detector::Hmm(Box::new(Hmm::new(p, model, stride))),
            (DecoderKind::Cusum, None) => Detector::Cusum(Cusum::new(p)),
            (_, None) => Detector::Hysteresis(Hysteresis::new(p, stride as f64 / NANOS_PER_SECOND as f64)),
        };
        let (surely, pivot) = levels(p);
        Self {
            detector,
            surely,
            pivot,
            rules: Rules::from(p),
            published,
            state: State::Off,
            start: Bound::default(),
            seen: Pts::ZERO,
            rejoined: false,
            evidence: Evidence::default(),
            last_end: Pts::ZERO,
            cool_until: Pts::ZERO,
            thresholds: Thresholds::new(p, schedule),
            told: Told::default(),
            opened: false,
            resumed: None,
            closed: None,
        }
    }

    /// The time of day has changed.
    pub(super) fn at_time(&mut self, time: Option<TimeOfDay>) {
        let now = self.thresholds.at(time);
        (self.surely, self.pivot) = levels(now);
        match &mut self.detector {
            Detector::Cusum(d) => d.set(now),
            Detector::Hysteresis(d) => d.set(now),
            Detector::Hmm(d) => d.set(now),
        }
    }

    /// Takes other parameters of the same kind. What goes on goes on, and what was told stays told; they count from the next
    /// score on.
    pub(super) fn revise(&mut self, p: &DecoderParams, schedule: &[Period], stride: i64) {
        self.rules = Rules::from(p);
        self.thresholds = Thresholds::new(p, schedule);
        if let Detector::Hysteresis(d) = &mut self.detector {
            d.smooth_over(p.smooth_s, stride as f64 / NANOS_PER_SECOND as f64);
        }
        self.at_time(None);
    }

    /// Takes the next score.
    pub(super) fn step(&mut self, s: &Step, emit: &mut Emitter<'_>) {
        (self.opened, self.resumed, self.closed) = (false, None, None);
        let edge = match &mut self.detector {
            Detector::Cusum(d) => d.step(s),
            Detector::Hysteresis(d) => d.step(s),
            Detector::Hmm(d) => d.step(s),
        };
        self.weigh(s, edge);
        self.turn(s, edge, emit);
        self.elapse(s, emit);
    }

    fn weigh(&mut self, s: &Step, edge: Edge) {
        let p = probability(s.own);
        match self.state {
            State::Off | State::Spent if self.idle() => self.evidence.clear(),
            State::Off | State::Spent => self.evidence.add(p, true),
            State::Closing(_) => self.evidence.add(p, matches!(edge, Edge::On { .. })),
            State::Candidate | State::Open => self.evidence.add(p, s.own >= self.surely),
        }
    }

    /// What an edge changes.
    fn turn(&mut self, s: &Step, edge: Edge, emit: &mut Emitter<'_>) {
        match (self.state, edge) {
            (State::Off, Edge::On(begin)) => self.begin(s, begin),
            (State::Candidate, Edge::Off { .. }) => {
                self.state = State::Off;
                self.evidence.clear();
            }
            (State::Open, Edge::Off { end, begin }) => {
                // Of an action that went on after a pause, only the first begin counts.
                if let Some(begin) = begin.filter(|_| !self.rejoined) {
                    self.start = bound(begin, self.rules.lag_start, self.rules.uncertainty_start_ms);
                    self.start.at = self.start.at.max(self.last_end).clamped().min(s.at);
                }
                let mut end = bound(end, self.rules.lag_end, self.rules.uncertainty_end_ms);
                end.at = end.at.max(self.start.at).min(s.at);
                if end.at - self.start.at >= self.rules.max_duration {
                    end.at = self.start.at + self.rules.max_duration;
                    self.finish(s.at, end, EndReason::MaxDuration, emit);
                } else {
                    self.state = State::Closing(end);
                }
            }
            (State::Closing(end), Edge::On(begin)) => {
                if (begin.at - self.rules.lag_start) - end.at < self.rules.merge_gap {
                    self.state = State::Open;
                    self.rejoined = true;
                    let mut resumed = bound(begin, self.rules.lag_start, self.rules.uncertainty_start_ms);
                    resumed.at = resumed.at.max(end.at).min(s.at);
                    self.resumed = Some(resumed);
                } else {
                    self.finish(s.at, end, EndReason::Boundary, emit);
                    self.evidence.restart(probability(s.own));
                    self.begin(s, begin);
                }
            }
            (State::Spent, Edge::Off { .. }) => {
                self.reset_detector();
                self.state = State::Off;
            }
            _ => {}
        }
    }

    fn begin(&mut self, s: &Step, begin: Change) {
        self.start = bound(begin, self.rules.lag_start, self.rules.uncertainty_start_ms);
        self.start.at = self.start.at.max(self.last_end).clamped().min(s.at);
        self.rejoined = false;
        self.seen = (begin.seen - self.rules.lag_start).max(self.start.at);
        self.state = if self.start.at < self.cool_until { State::Spent } else { State::Candidate };
    }

    /// What the passing of time changes.
    fn elapse(&mut self, s: &Step, emit: &mut Emitter<'_>) {
        if matches!(self.state, State::Candidate) {
            let seen = self.latest_end(s.at) - self.rules.lag_end - self.seen;
            if seen >= self.rules.min_duration.max(0) {
                self.state = State::Open;
                self.opened = true;
                self.tell(s.at, Status::Started, emit);
            }
        }
        match self.state {
            State::Open if s.at - self.start.at >= self.rules.max_duration => {
                let end = Change { at: self.start.at + self.rules.max_duration, ..Change::at(s) };
                let end = bound(end, 0, self.rules.uncertainty_end_ms);
                self.finish(s.at, end, EndReason::MaxDuration, emit);
                self.state = State::Spent;
            }
            State::Closing(end) if (s.at - self.rules.lag_start) - end.at >= self.rules.merge_gap => {
                self.finish(s.at, end, EndReason::Boundary, emit);
            }
            State::Open | State::Closing(_) if s.at - self.told.at >= RENEW_NS => {
                self.tell(s.at, Status::Updated, emit);
            }
            _ => {}
        }
    }

    /// Closes whatever is open and forgets the scores. `last`: newest score.
    pub(super) fn interrupt(&mut self, now: Pts, last: Pts, reason: EndReason, emit: &mut Emitter<'_>) {
        (self.opened, self.resumed, self.closed) = (false, None, None);
        let end = match self.state {
            State::Open => {
                let spread_ms = (now - last).max(0) as f64 / 2e6;
                let at = last.max(self.start.at);
                Some(bound(Change { at, spread_ms, seen: last }, 0, self.rules.uncertainty_end_ms))
            }
            State::Closing(end) => Some(end),
            _ => None,
        };
        if let Some(end) = end {
            self.finish(now, end, reason, emit);
        }
        self.reset_detector();
        self.evidence.clear();
        self.state = State::Off;
    }

    /// From here on times count anew. Time without a stream does not cool: what is left of it counts from then.
    pub(super) fn new_session(&mut self, now: Pts) {
        (self.last_end, self.cool_until) = (Pts::ZERO, Pts((self.cool_until - now).max(0)));
    }

    fn finish(&mut self, now: Pts, end: Bound, reason: EndReason, emit: &mut Emitter<'_>) {
        let confidence = self.evidence.settled();
        self.closed = Some(Closed { start: self.start, end: end.at, confidence, windows: self.evidence.windows() });
        self.tell(now, Status::Ended { end: end.at, end_uncertainty_ms: end.uncertainty_ms, reason }, emit);
        self.evidence.clear();
        self.last_end = end.at;
        self.cool_until = if self.rules.cooldown > 0 { end.at + self.rules.cooldown } else { Pts::ZERO };
        self.state = State::Off;
    }

    /// Another of its group has begun at `begin`: what goes on here is over.
    pub(super) fn make_way(&mut self, now: Pts, begin: Bound, emit: &mut Emitter<'_>) {
        let cut = Bound { at: begin.at.max(self.start.at).min(now), ..begin };
        let end = match self.state {
            State::Open => Some(cut),
            State::Closing(end) => Some(if cut.at < end.at { cut } else { end }),
            _ => None,
        };
        if let Some(end) = end {
            self.finish(now, end, EndReason::Boundary, emit);
        }
        self.state = State::Off;
        self.reset_detector();
    }

    fn tell(&mut self, now: Pts, status: Status, emit: &mut Emitter<'_>) {
        let Some(label) = self.published else { return };
        if matches!(status, Status::Started) {
            self.told = Told { action: *emit.next_action, rev: 0, at: now };
            *emit.next_action += 1;
        } else {
            self.told = Told { rev: self.told.rev + 1, at: now, ..self.told };
        }
        let ended = matches!(status, Status::Ended { .. });
        emit.out.push(Decision {
            action: self.told.action,
            rev: self.told.rev,
            label,
            start: self.start.at,
            start_uncertainty_ms: self.start.uncertainty_ms,
            decided_at: now,
            confidence: if ended { self.evidence.settled() } else { self.evidence.so_far() },
            windows: self.evidence.windows(),
            status,
        });
    }

    fn latest_end(&self, now: Pts) -> Pts {
        match &self.detector {
            Detector::Cusum(d) => d.latest_end(now),
            Detector::Hysteresis(_) => now,
            Detector::Hmm(d) => d.latest_end(),
        }
    }

    fn idle(&self) -> bool {
        match &self.detector {
            Detector::Cusum(d) => d.idle(),
            Detector::Hysteresis(d) => d.idle(),
            Detector::Hmm(d) => d.idle(),
        }
    }

    fn reset_detector(&mut self) {
        match &mut self.detector {
            Detector::Cusum(d) => d.reset(),
            Detector::Hysteresis(d) => d.reset(),
            Detector::Hmm(d) => d.reset(),
        }
    }

    /// When the last action ended.
    pub(super) fn last_end(&self) -> Pts {
        self.last_end
    }

    /// An action that has not been told yet does not begin before `at`.
    pub(super) fn not_before(&mut self, at: Pts) {
        self.last_end = self.last_end.max(at);
        if matches!(self.state, State::Candidate) {
            self.start.at = self.start.at.max(at);
        }
    }

    /// Index among the published labels.
    pub(super) fn published(&self) -> Option<u16> {
        self.published
    }

    /// Start of the action that goes on (its end not yet told).
    pub(super) fn open(&self) -> Option<Bound> {
        matches!(self.state, State::Open | State::Closing(_)).then_some(self.start)
    }

    /// Start of the last action, when it opened in the last step, whether or not it is over again.
    pub(super) fn opened(&self) -> Option<Bound> {
        self.opened.then_some(self.start)
    }

    /// Where an action began again after a pause shorter than the merge gap, when it did in the last step.
    pub(super) fn resumed(&self) -> Option<Bound> {
        self.resumed
    }

    /// The action that ended in the last step.
    pub(super) fn closed(&self) -> Option<Closed> {
        self.closed
    }

    /// The end that is being held for the merge gap.
    pub(super) fn held_end(&self) -> Option<Pts> {
        if let State::Closing(end) = self.state { Some(end.at) } else { None }
    }

    /// Of the action that goes on, or that ended in the last step.
    pub(super) fn so_far(&self) -> (Confidence, u32) {
        match self.closed {
            Some(closed) if self.open().is_none() => (closed.confidence, closed.windows),
            _ => (self.evidence.so_far(), self.evidence.windows()),
        }
    }

    /// Log-odds from which evidence speaks for the action.
    pub(super) fn pivot(&self) -> f64 {
        self.pivot
    }
}

impl From<&DecoderParams> for Rules {
    fn from(p: &DecoderParams) -> Self {
        Self {
            lag_start: seconds_to_nanos(p.lag_start_s),
            lag_end: seconds_to_nanos(p.lag_end_s),
            min_duration: seconds_to_nanos(p.min_duration_s),
            merge_gap: seconds_to_nanos(p.merge_gap_s),
            max_duration: seconds_to_nanos(p.max_duration_s),
            cooldown: seconds_to_nanos(p.cooldown_s),
            uncertainty_start_ms: p.uncertainty_start_ms,
            uncertainty_end_ms: p.uncertainty_end_ms,
        }
    }
}

/// From where a score surely belongs to an action that goes on, and from where it speaks for one.
fn levels(p: &DecoderParams) -> (f64, f64) {
    match &p.hmm {
        Some(model) => {
            let middle = f64::midpoint(model.low, model.high);
            (middle, middle)
        }
        None => (logit(p.off), logit(p.on)),
    }
}

fn bound(change: Change, lag: i64, uncertainty_ms: f64) -> Bound {
    Bound { at: change.at - lag, uncertainty_ms: (uncertainty_ms + change.spread_ms) as f32 }
}
