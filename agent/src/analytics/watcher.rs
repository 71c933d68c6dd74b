//! A model at a camera: its sampler, its stream of the model, its decoder. Owned by the inference thread.

use kinewatch_core::decode::Decoder;
use kinewatch_core::manifest::{Manifest, Plan};
use kinewatch_core::sampling::{HoleDetector, Windower};
use kinewatch_core::schedule::Pace;
use kinewatch_core::time::Pts;
use kinewatch_engine::Stream;

/// A model at a camera.
#[derive(Debug)]
pub(super) struct Watcher {
    /// In the schedule.
    pub lane: usize,
    /// Slot.
    pub model: usize,
    /// `None` while there is no model.
    pub stream: Option<Stream>,
    pub sampler: Sampler,
    /// Which requests run while the device is spared.
    pub pace: Pace,
    pub decoder: Decoder,
    pub failures: Failures,
}

/// A model that has scored nothing for so many seconds of media time, for failures or for want of whole windows, fails for
/// good.
pub const FAILING_AFTER_S: i64 = 10;

/// A change for the worse or the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelTurn {
    /// Nothing was scored for [`FAILING_AFTER_S`], or there is no model any more.
    Fails,
    /// The first success after that.
    Works,
}

/// Windows in a row that were not scored.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Media time of the first.
    since: Option<Pts>,
    told: bool,
}

impl Failures {
    /// Notes how the window at `at` went.
    pub(super) fn note(&mut self, at: Pts, valid: bool) -> Option<ModelTurn> {
        if valid {
            self.since = None;
            return std::mem::take(&mut self.told).then_some(ModelTurn::Works);
        }
        let since = *self.since.get_or_insert(at);
        let fails = !self.told && at - since >= FAILING_AFTER_S * 1_000_000_000;
        self.told |= fails;
        fails.then_some(ModelTurn::Fails)
    }

    /// There is no model, and none is to come.
    pub(super) fn fail(&mut self) -> Option<ModelTurn> {
        (!std::mem::replace(&mut self.told, true)).then_some(ModelTurn::Fails)
    }

    /// Media times begin anew.
    pub(super) fn interrupt(&mut self) {
        self.since = None;
    }
}

#[derive(Debug)]
pub(super) enum Sampler {
    /// Every sampled frame is a request.
    Frames(HoleDetector),
    /// Windows over the branch's ring.
    Windows(Windower),
}

impl Sampler {
    /// `bit`: of the model among the samplers of its branch.
    pub(super) fn new(manifest: &Manifest, bit: u32) -> Self {
        match manifest.plan {
            Plan::Online => Self::Frames(HoleDetector::new(manifest.sampling.max_hole)),
            Plan::Clip | Plan::Cached => Self::Windows(Windower::new(&manifest.sampling, bit)),
        }
    }

    /// The session has come to `newest` already.
    pub(super) fn join_at(&mut self, newest: Pts) {
        if let Self::Windows(windower) = self {
            windower.join_at(newest);
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Frames(holes) => holes.reset(),
            Self::Windows(windower) => windower.reset(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_of_nothing_but_failures_are_told_once_and_so_is_the_first_success() {
        let mut failures = Failures::default();
        let mut note = |s: i64, valid| failures.note(Pts(s * 1_000_000_000), valid);
        assert_eq!((note(0, false), note(9, false), note(9, true)), (None, None, None), "a success within");
        assert_eq!((note(10, false), note(19, false)), (None, None));
        assert_eq!((note(20, false), note(40, false)), (Some(ModelTurn::Fails), None));
        assert_eq!((note(41, true), note(42, true)), (Some(ModelTurn::Works), None));
        note(50, false);
        failures.interrupt();
        assert_eq!(failures.note(Pts(61_000_000_000), false), None, "another session has other times");
    }
}
