//! An opened model: streams in, logits out. Owned by the inference thread; opening may happen on another one.

use std::path::Path;

use kinewatch_core::frame::Frame;
use kinewatch_core::manifest::{Manifest, Plan as ManifestPlan};
use kinewatch_core::region::Region;

use crate::error::{InferError, OpenError};
use crate::logits::Logits;
use crate::open::{OnDeviation, open, open_telling};
use crate::options::OpenOptions;
use crate::plan::{Counters, Fault, Job, Jobs, Plan};
use crate::preprocess::Preprocessor;
use crate::report::OpenReport;
use crate::stream::{Slots, Stream};

/// What a stream wants scored.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Whose frames.
    pub stream: Stream,
    /// Plans `clip` and `cached`: the frames of a window, oldest first. Plan `online`: the next frame.
    pub frames: &'a [Frame],
}

/// A model package, checked and ready.
pub struct Model {
    name: String,
    plan: Box<dyn Plan>,
    preprocessor: Preprocessor,
    streams: Slots,
    counters: Counters,
    classes: usize,
    frames_per_request: usize,
    boxes: usize,
    /// Slots of the call at hand.
    slots: Vec<usize>,
    pub(crate) report: OpenReport,
}

impl Model {
    /// Loads the package's graph, checks it against the manifest, warms it up and runs the golden clips. Takes seconds
    /// (with TensorRT, minutes the first time); may be called on any thread.
    ///
    /// # Errors
    /// When no allowed back end passes; the message is of the last one tried, the log has the others.
    pub fn open(dir: &Path, manifest: &Manifest, options: &OpenOptions) -> Result<Self, OpenError> {
        open(dir, manifest, options, OnDeviation::Refuse)
    }

    /// [`Model::open`] with the errors of all candidates, in the order in which they were tried: what is wrong with a model shows
    /// best on the first that could have run it.
    ///
    /// # Errors
    /// When no allowed back end passes; never empty.
    pub fn open_or_all(dir: &Path, manifest: &Manifest, options: &OpenOptions) -> Result<Self, Vec<OpenError>> {
        let mut errors = Vec::new();
        open_telling(dir, manifest, options, OnDeviation::Refuse, &mut errors).map_err(|last| {
            errors.push(last);
            errors
        })
    }

    pub(crate) fn new(manifest: &Manifest, plan: Box<dyn Plan>, report: OpenReport) -> Self {
        Self {
            name: manifest.name.clone(),
            plan,
            preprocessor: Preprocessor::new(&manifest.input),
            streams: Slots::default(),
            counters: Counters::default(),
            classes: manifest.labels.len(),
            frames_per_request: match manifest.plan {
                ManifestPlan::Online => 1,
                ManifestPlan::Clip | ManifestPlan::Cached => manifest.frames_per_window(),
            },
            boxes: manifest.tensors.boxes.as_ref().map_or(0, |boxes| boxes.count),
            slots: Vec::new(),
            report,
        }
    }

    /// How it was opened.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.report
    }

    /// Frames of every request: those of a window, or one.
    #[must_use]
    pub fn frames_per_request(&self) -> usize {
        self.frames_per_request
    }

    /// Logits of a row.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// A new stream, with zero states, no features, and the whole picture for every box. Allocates.
    pub fn add_stream(&mut self) -> Stream {
        let stream = self.streams.add();
        if let Some(slot) = self.streams.slot(stream) {
            self.plan.grow(slot + 1);
            self.plan.reset(slot);
            self.plan.set_boxes(slot, &[]);
        }
        stream
    }

    /// Where a model with `[tensors.boxes]` looks in the stream's windows from now on; boxes that are not given are the
    /// whole picture. Outlives [`Self::reset`]; does nothing after [`Self::remove_stream`]. Never allocates.
    ///
    /// # Errors
    /// More boxes than the model takes; nothing is changed then.
    pub fn set_boxes(&mut self, stream: Stream, boxes: &[Region]) -> Result<(), InferError> {
        if boxes.len() > self.boxes {
            let (model, takes) = (self.name.clone(), self.boxes);
            return Err(InferError::TooManyBoxes { model, takes, given: boxes.len() });
        }
        if let Some(slot) = self.streams.slot(stream) {
            self.plan.set_boxes(slot, boxes);
        }
        Ok(())
    }

    /// The stream begins anew: states are zeroed, features forgotten. Does nothing after [`Self::remove_stream`].
    pub fn reset(&mut self, stream: Stream) {
        if let Some(slot) = self.streams.slot(stream) {
            self.plan.reset(slot);
        }
    }

    /// The stream is over; its place serves the next one.
    pub fn remove_stream(&mut self, stream: Stream) {
        self.streams.remove(stream);
    }

    /// Scores any number of requests, in batches of at most `max_batch`. Several of one stream are answered in the order
    /// given. Blocks until done. Allocates only when a call is larger than all before; what the back end allocates aside.
    ///
    /// # Errors
    /// [`InferError::NotFinite`]: the other requests are answered ([`Logits::is_valid`]). Anything else: none is.
    pub fn infer(&mut self, requests: &[Request<'_>], out: &mut Logits) -> Result<(), InferError> {
        out.prepare(requests.len(), self.classes);
        self.check(requests)?;
        let jobs = Checked { requests, slots: &self.slots };
        self.plan.infer(&jobs, &self.preprocessor, out, &mut self.counters).map_err(|fault| match fault {
            Fault::NotFinite { job, tensor } => {
                InferError::NotFinite { model: self.name.clone(), request: job, tensor }
            }
            Fault::Backend(error) => InferError::Backend {
                model: self.name.clone(),
                backend: self.report.backend.name(),
                detail: error.detail,
            },
        })
    }

    /// Work done since the model was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub(crate) fn forget_counts(&mut self) {
        self.counters = Counters::default();
    }

    fn check(&mut self, requests: &[Request<'_>]) -> Result<(), InferError> {
        self.slots.clear();
        for (request, Request { stream, frames }) in requests.iter().enumerate() {
            let model = || self.name.clone();
            let slot =
                self.streams.slot(*stream).ok_or_else(|| InferError::UnknownStream { model: model(), request })?;
            let (expected, found) = (self.frames_per_request, frames.len());
            if found != expected {
                return Err(InferError::FrameCount { model: model(), request, expected, found });
            }
            let expected = self.preprocessor.elements();
            if let Some(frame) = frames.iter().find(|frame| frame.pixels().len() != expected) {
                let found = frame.pixels().len();
                return Err(InferError::FrameSize { model: model(), request, expected, found });
            }
            self.slots.push(slot);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("report", &self.report).finish_non_exhaustive()
    }
}

/// Requests whose slots are known.
struct Checked<'a> {
    requests: &'a [Request<'a>],
    slots: &'a [usize],
}

impl Jobs for Checked<'_> {
    fn len(&self) -> usize {
        self.requests.len()
    }

    fn get(&self, index: usize) -> Job<'_> {
        Job { slot: self.slots[index], frames: self.requests[index].frames }
    }
}
