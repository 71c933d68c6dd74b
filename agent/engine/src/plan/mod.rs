//! The three ways to run a model (DESIGN §4), each over the same sessions. A plan is owned by the inference thread, and
//! allocates nothing once it has seen its largest call.

pub(crate) mod boxes;
pub(crate) mod cached;
pub(crate) mod clip;
pub(crate) mod features;
pub(crate) mod online;
pub(crate) mod states;

use kinewatch_core::frame::Frame;
use kinewatch_core::region::Region;

use crate::backend::Session;
use crate::error::BackendError;
use crate::logits::Logits;
use crate::preprocess::Preprocessor;

/// A request whose stream is known and whose frames have the right number and size.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) slot: usize,
    pub(crate) frames: &'a [Frame],
}

/// Calls of one [`crate::Model::infer`], checked.
pub(crate) trait Jobs {
    fn len(&self) -> usize;
    fn get(&self, index: usize) -> Job<'_>;
}

/// Work done since the model was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that went through the backbone (plan `clip`: frames of all windows).
    pub backbone_runs: u64,
    /// Windows (plan `online`: frames) for which logits were computed.
    pub head_runs: u64,
    /// Runs of a graph, whatever the batch.
    pub batches: u64,
}

/// Why a job failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// This job's output is not finite; the others were answered.
    NotFinite { job: usize, tensor: String },
    /// Nothing is to be trusted.
    Backend(BackendError),
}

impl From<BackendError> for Fault {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

/// One of the three plans.
pub(crate) trait Plan: Send {
    /// Makes room for `slots` streams.
    fn grow(&mut self, slots: usize);

    /// The stream begins anew.
    fn reset(&mut self, slot: usize);

    /// Where the stream's windows are looked at. Only plan `clip` has such an input.
    fn set_boxes(&mut self, _slot: usize, _boxes: &[Region]) {}

    /// Answers every job; rows of jobs that failed stay invalid. The first failure is returned.
    fn infer(
        &mut self,
        jobs: &dyn Jobs,
        preprocessor: &Preprocessor,
        out: &mut Logits,
        counters: &mut Counters,
    ) -> Result<(), Fault>;
}

/// A graph for one row and, where it pays, for many.
pub(crate) struct Runner {
    single: Box<dyn Session>,
    batch: Option<Box<dyn Session>>,
    padding: Padding,
}

/// Whether a batch that is not full is filled up with rows that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// A GPU takes about the same time for a full batch as for one row.
    Always,
    /// A CPU takes its time for every row.
    Never,
}

impl Runner {
    pub(crate) fn new(single: Box<dyn Session>, batch: Option<Box<dyn Session>>, padding: Padding) -> Self {
        Self { single, batch, padding }
    }

    /// Rows that the next run takes of `left` rows, and the session for it.
    pub(crate) fn next(&mut self, left: usize) -> (usize, &mut dyn Session) {
        match &mut self.batch {
            Some(batch) => {
                let rows = left.min(batch.batch());
                if rows == batch.batch() || (rows > 1 && self.padding == Padding::Always) {
                    (rows, batch.as_mut())
                } else {
                    (1, self.single.as_mut())
                }
            }
            None => (1, self.single.as_mut()),
        }
    }

    /// Most rows of one run.
    pub(crate) fn max_rows(&self) -> usize {
        self.batch.as_ref().map_or(1, |batch| batch.batch())
    }

    /// The session for one row.
    pub(crate) fn single(&self) -> &dyn Session {
        self.single.as_ref()
    }
}

/// Whether every value is a number.
pub(crate) fn finite(values: &[f32]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// Keeps the first failure.
pub(crate) fn first(outcome: &mut Result<(), Fault>, fault: Fault) {
    if outcome.is_ok() {
        *outcome = Err(fault);
    }
}
