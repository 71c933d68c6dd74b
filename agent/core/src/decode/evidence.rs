//! Probabilities over the span of an action.

use super::Confidence;

/// Scores of the action so far: those that surely belong to it, and the tail that may turn out to lie after its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    sure: Sum,
    tail: Sum,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    total: f64,
    count: u32,
    peak: f32,
    last: f32,
}

impl Evidence {
    /// Adds a score; a sure one makes the tail before it sure too.
    pub(super) fn add(&mut self, p: f32, sure: bool) {
        self.tail.total += f64::from(p);
        self.tail.count = self.tail.count.saturating_add(1);
        self.tail.peak = self.tail.peak.max(p);
        self.tail.last = p;
        if sure {
            self.sure = self.sure.joined(self.tail);
            self.tail = Sum::default();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Begins anew with one score.
    pub(super) fn restart(&mut self, p: f32) {
        self.clear();
        self.add(p, true);
    }

    /// Over everything up to now.
    pub(super) fn so_far(&self) -> Confidence {
        self.sure.joined(self.tail).confidence()
    }

    /// Over what surely belongs to the action.
    pub(super) fn settled(&self) -> Confidence {
        if self.sure.count == 0 { self.so_far() } else { self.sure.confidence() }
    }

    /// Scores that surely belong to the action.
    pub(super) fn windows(&self) -> u32 {
        if self.sure.count == 0 { self.tail.count } else { self.sure.count }
    }
}

impl Sum {
    fn joined(self, later: Self) -> Self {
        if later.count == 0 {
            return self;
        }
        Self {
            total: self.total + later.total,
            count: self.count.saturating_add(later.count),
            peak: self.peak.max(later.peak),
            last: later.last,
        }
    }

    fn confidence(self) -> Confidence {
        let mean = if self.count == 0 { 0.0 } else { (self.total / f64::from(self.count)) as f32 };
        Confidence { mean: mean.min(self.peak), peak: self.peak, last: self.last }
    }
}
