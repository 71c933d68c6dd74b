//! Actions made of labels in order, such as a fall: falling, then lying.

use super::track::{Bound, Closed, Emitter, Track};
use super::{Confidence, Decision, EndReason, Status};
use crate::time::Pts;

/// Finds one sequence. It is told, begun and ended, in the step in which its last part opens, or goes on after a pause.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    label: u16,
    parts: Vec<usize>,
    within: i64,
    longest: Option<i64>,
    found: Vec<Option<Found>>,
    last_end: Pts,
}

/// A chain found up to some part.
#[derive(Clone, Copy, Debug)]
struct Found {
    start: Bound,
    /// Of that part, once told.
    end: Option<Pts>,
    /// Of the parts before it, and of it once it has ended.
    weakest: Confidence,
    windows: u32,
}

const CERTAIN: Confidence = Confidence { mean: 1.0, peak: 1.0, last: 1.0 };

impl Chain {
    /// `parts` are indices of tracks, at least two; `within` and `longest` as in the manifest.
    pub(super) fn new(label: u16, parts: Vec<usize>, within: i64, longest: Option<i64>) -> Self {
        let found = vec![None; parts.len().saturating_sub(1)];
        Self { label, parts, within, longest, found, last_end: Pts::ZERO }
    }

    /// Takes other limits; what was found so far stays found.
    pub(super) fn revise(&mut self, within: i64, longest: Option<i64>) {
        (self.within, self.longest) = (within, longest);
    }

    /// Looks at what the tracks did in this step. `stride`: shortest length told, ns.
    pub(super) fn step(&mut self, tracks: &[Track], at: Pts, stride: i64, emit: &mut Emitter<'_>) {
        for k in 0..self.parts.len() {
            let track = &tracks[self.parts[k]];
            let opened = track.opened();
            if let (Some(closed), None) = (track.closed(), opened) {
                self.close(k, closed);
            }
            let Some(start) = opened.or_else(|| self.resumed(k, track)) else { continue };
            let Some(before) = self.before(k, start.at, tracks) else { continue };
            let (confidence, windows) = track.so_far();
            if k + 1 == self.parts.len() {
                let whole = (weaker(before.weakest, confidence), before.windows.saturating_add(windows));
                self.tell(before.start, start, whole, at, stride, emit);
            } else {
                let first = if k == 0 { start } else { before.start };
                self.found[k] = Some(Found { start: first, ..before });
                if track.open().is_none() {
                    let over = Closed { start, end: at, confidence, windows };
                    self.close(k, track.closed().unwrap_or(over));
                }
            }
        }
    }

    /// Where a later part that flickered just before its chain goes on: it does not open again. One that had gone on for longer
    /// is no sign of what came between.
    fn resumed(&self, k: usize, track: &Track) -> Option<Bound> {
        let before = self.found[k.checked_sub(1)?]?;
        track.resumed().filter(|_| track.open().is_some_and(|began| began.at >= before.start.at - self.within))
    }

    fn close(&mut self, k: usize, closed: Closed) {
        if let Some(Some(found)) = self.found.get_mut(k)
            && found.end.is_none()
        {
            // The end of the first part may have corrected its start.
            found.start = if k == 0 { closed.start } else { found.start };
            found.end = Some(closed.end);
            found.weakest = weaker(found.weakest, closed.confidence);
            found.windows = found.windows.saturating_add(closed.windows);
        }
    }

    /// The chain that part `k`, beginning at `start`, continues; it is used up.
    fn before(&mut self, k: usize, start: Pts, tracks: &[Track]) -> Option<Found> {
        if k == 0 {
            return Some(Found { start: Bound::default(), end: None, weakest: CERTAIN, windows: 0 });
        }
        let mut found = self.found[k - 1].take()?;
        let part = &tracks[self.parts[k - 1]];
        if found.end.is_none() {
            let (confidence, windows) = part.so_far();
            found.weakest = weaker(found.weakest, confidence);
            found.windows = found.windows.saturating_add(windows);
            found.end = part.held_end();
            found.start = part.open().filter(|_| k == 1).unwrap_or(found.start);
        }
        let end = found.end.take();
        end.is_none_or(|end| start <= end + self.within).then_some(found)
    }

    fn tell(
        &mut self,
        first: Bound,
        last: Bound,
        (confidence, windows): (Confidence, u32),
        at: Pts,
        stride: i64,
        emit: &mut Emitter<'_>,
    ) {
        let first = self.longest.map_or(first, |longest| no_longer(longest, first, last));
        let start = first.at.max(self.last_end).min(at);
        let end = if last.at > start { last.at } else { start + stride }.min(at);
        self.last_end = end;
        let action = *emit.next_action;
        *emit.next_action += 1;
        let started = Decision {
            action,
            rev: 0,
            label: self.label,
            start,
            start_uncertainty_ms: first.uncertainty_ms,
            decided_at: at,
            confidence,
            windows,
            status: Status::Started,
        };
        emit.out.push(started);
        let status = Status::Ended { end, end_uncertainty_ms: last.uncertainty_ms, reason: EndReason::Boundary };
        emit.out.push(Decision { rev: 1, status, ..started });
    }

    /// Forgets what was found: the stream is interrupted.
    pub(super) fn interrupt(&mut self) {
        self.found.fill(None);
    }

    /// From here on times count anew.
    pub(super) fn new_session(&mut self) {
        self.last_end = Pts::ZERO;
    }
}

/// Where a chain of at most `longest` ns begins. If its first part went on for longer, something else set that off, too:
/// the chain then began at any time within `longest` of its last part.
fn no_longer(longest: i64, first: Bound, last: Bound) -> Bound {
    let earliest = last.at - longest;
    if first.at >= earliest {
        return first;
    }
    Bound { at: earliest, uncertainty_ms: first.uncertainty_ms.max(longest as f32 / 1e6) }
}

/// A chain is as sure as its weakest part.
fn weaker(a: Confidence, b: Confidence) -> Confidence {
    Confidence { mean: a.mean.min(b.mean), peak: a.peak.min(b.peak), last: a.last.min(b.last) }
}
