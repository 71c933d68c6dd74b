//! A candidate beside the model that it may replace: it scores the windows that the model has scored, in the time that the
//! device has left, and nothing is decided by it.
//!
//! What it is given are requests that have run, so the frames are in memory anyway. They wait here, few of them and the
//! oldest goes first when there are too many; the thread runs them only when nothing else waits, and then pauses for as
//! long as the call took, so that the candidate never takes more than half of what is left.

use std::collections::VecDeque;
use std::time::Duration;

use kinewatch_core::decode::spoken_for;
use kinewatch_core::manifest::{Output, Plan};
use kinewatch_core::region::Region;
use kinewatch_core::sampling::{Continuity, HoleDetector};
use kinewatch_core::schedule::{Load, most_waiting};
use kinewatch_core::time::Pts;
use kinewatch_engine::{InferError, Logits, Request, Stream};

use super::{Analytics, LoadedModel, Sink, Waiting, give_back};
use crate::layout;

/// Requests that may wait here of a candidate that reads windows: each holds on to frames that would be free.
const MOST_WINDOWS: usize = 2;

/// One call of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// How long it took.
    pub took: Duration,
    /// Requests in it.
    pub requests: usize,
    /// Of those, how many the back end failed on.
    pub failed: usize,
    /// How many gave a number that is not finite.
    pub not_finite: usize,
    /// How many could be compared with the model in use.
    pub compared: usize,
    /// Of those, how many spoke for the same label, or both for none.
    pub agreed: usize,
}

/// The candidate.
#[derive(Debug)]
pub(super) struct Trial {
    slot: usize,
    loaded: LoadedModel,
    /// For each label of the candidate its index among those of the model.
    labels: Vec<usize>,
    lanes: Vec<Lane>,
    waiting: VecDeque<Scored>,
    most: usize,
    pauses_until: Duration,
    logits: Logits,
}

#[derive(Debug)]
struct Lane {
    lane: usize,
    stream: Stream,
    /// Of an online candidate.
    holes: Option<HoleDetector>,
    /// An online state that was zeroed says little until then.
    settles_at: Option<Pts>,
}

/// A request that the model has scored, and what it spoke for.
#[derive(Debug)]
struct Scored {
    lane: usize,
    waiting: Waiting,
    spoke: Option<usize>,
}

impl Trial {
    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    /// The model, and of each lane its stream, and the last frame of an online one.
    pub(super) fn into_parts(self) -> (LoadedModel, Vec<(usize, Stream, Option<HoleDetector>)>) {
        (self.loaded, self.lanes.into_iter().map(|lane| (lane.lane, lane.stream, lane.holes)).collect())
    }

    pub(super) fn add_lane(&mut self, lane: usize, zones: &[Region]) {
        let stream = self.loaded.add_stream(zones);
        let sampling = &self.loaded.manifest.sampling;
        let online = self.loaded.manifest.plan == Plan::Online;
        let holes = online.then(|| HoleDetector::new(sampling.max_hole));
        self.lanes.push(Lane { lane, stream, holes, settles_at: None });
    }

    pub(super) fn remove_lane(&mut self, lane: usize) {
        if let Some(at) = self.lanes.iter().position(|l| l.lane == lane) {
            self.loaded.model.remove_stream(self.lanes.swap_remove(at).stream);
        }
        self.waiting.retain(|scored| scored.lane != lane);
    }

    /// The stream of a lane has broken off.
    pub(super) fn interrupt(&mut self, lane: usize) {
        self.waiting.retain(|scored| scored.lane != lane);
        for lane in self.lanes.iter_mut().filter(|l| l.lane == lane) {
            self.loaded.model.reset(lane.stream);
            lane.holes.iter_mut().for_each(HoleDetector::reset);
            lane.settles_at = None;
        }
    }

    /// The oldest requests, each of another lane, as many as one call takes.
    fn pick(&mut self) -> Vec<Scored> {
        let batch = self.loaded.model.report().batch.max(1);
        let mut picked: Vec<Scored> = Vec::with_capacity(batch);
        let mut at = 0;
        while at < self.waiting.len() && picked.len() < batch {
            let taken = picked.iter().any(|scored| scored.lane == self.waiting[at].lane);
            if taken {
                at += 1;
            } else {
                picked.extend(self.waiting.remove(at));
            }
        }
        picked
    }

    /// Zeroes states that would be carried over a hole. Gives for each request its stream, and whether it can be compared.
    fn ready(&mut self, picked: &[Scored]) -> Vec<(Stream, bool)> {
        let settle = self.loaded.manifest.sampling.window.max(self.loaded.manifest.sampling.stride);
        let mut ready = Vec::with_capacity(picked.len());
        for scored in picked {
            let Some(lane) = self.lanes.iter_mut().find(|l| l.lane == scored.lane) else { continue };
            let at = scored.waiting.at;
            if let Some(holes) = &mut lane.holes
                && (matches!(holes.offer(at), Continuity::Hole(_)) || lane.settles_at.is_none())
            {
                self.loaded.model.reset(lane.stream);
                lane.settles_at = Some(at + settle);
            }
            ready.push((lane.stream, lane.settles_at.is_none_or(|settled| at >= settled)));
        }
        ready
    }

    fn infer(&mut self, picked: &[Scored]) -> (Tried, Result<(), InferError>) {
        let ready = self.ready(picked);
        let requests: Vec<_> = ready
            .iter()
            .zip(picked)
            .map(|((stream, _), scored)| Request { stream: *stream, frames: &scored.waiting.frames })
            .collect();
        let result = self.loaded.model.infer(&requests, &mut self.logits);
        let mut tried = Tried { requests: requests.len(), ..Tried::default() };
        let output: &Output = &self.loaded.manifest.output;
        for (row, (scored, (_, comparable))) in picked.iter().zip(&ready).enumerate() {
            if !self.logits.is_valid(row) {
                let broken = matches!(result, Err(InferError::NotFinite { .. }));
                *(if broken { &mut tried.not_finite } else { &mut tried.failed }) += 1;
                let lane = self.lanes.iter_mut().find(|lane| lane.lane == scored.lane);
                lane.and_then(|lane| lane.holes.as_mut()).into_iter().for_each(HoleDetector::retract);
                continue;
            }
            let speaks = spoken_for(output, self.logits.row(row)).map(|label| self.labels[label]);
            tried.compared += usize::from(*comparable);
            tried.agreed += usize::from(*comparable && speaks == scored.spoke);
        }
        (tried, result)
    }
}

impl Analytics {
    /// From here on `candidate` is tried beside the model in `slot`. It has to read the same frames. Gives a candidate that
    /// was tried before, of whichever slot.
    pub fn begin_trial(&mut self, slot: usize, candidate: LoadedModel) -> Option<LoadedModel> {
        let before = self.end_trial();
        let Some(Some(model)) = self.models.get(slot) else { return before };
        let index = |name: &str| model.manifest.labels.iter().position(|label| label.name == name);
        let labels = candidate.manifest.labels.iter().map(|label| index(&label.name).unwrap_or(usize::MAX)).collect();
        let watching = self.watching(slot);
        let every = layout::every(&candidate.manifest);
        let each = if candidate.manifest.plan == Plan::Online { most_waiting(every) } else { MOST_WINDOWS };
        let (most, lanes) = (each * watching.len().max(1), Vec::new());
        let (waiting, pauses_until, logits) = (VecDeque::new(), Duration::ZERO, Logits::default());
        let mut trial = Trial { slot, loaded: candidate, labels, lanes, waiting, most, pauses_until, logits };
        for (camera, index) in watching {
            let camera = &self.cameras[camera];
            trial.add_lane(camera.watchers[index].lane, &camera.zones);
        }
        self.trial = Some(trial);
        before
    }

    /// The candidate back; nothing is tried any more.
    pub fn end_trial(&mut self) -> Option<LoadedModel> {
        self.trial.take().map(|trial| trial.loaded)
    }

    /// How long the candidate's turn is away; `None` when nothing waits for it.
    #[must_use]
    pub fn trial_due(&self) -> Option<Duration> {
        let trial = self.trial.as_ref().filter(|trial| !trial.waiting.is_empty())?;
        Some(trial.pauses_until.saturating_sub((self.time.0)()))
    }

    /// One call of the candidate. To be made when nothing else waits.
    pub fn run_trial(&mut self, sink: &mut impl Sink) {
        let Some(trial) = &mut self.trial else { return };
        let begun = (self.time.0)();
        let picked = trial.pick();
        let (mut tried, result) = trial.infer(&picked);
        let ended = (self.time.0)();
        tried.took = ended.saturating_sub(begun);
        trial.pauses_until = ended + tried.took;
        let slot = trial.slot;
        picked.into_iter().for_each(|scored| give_back(&mut self.spare, scored.waiting));
        sink.tried(slot, &tried, result.as_ref().err());
    }

    /// The request has been scored: kept for the candidate where there is one, else let go.
    pub(super) fn scored(&mut self, lane: usize, waiting: Waiting, row: usize) {
        if self.trial.is_none() {
            return give_back(&mut self.spare, waiting);
        }
        let (camera, index) = self.places[lane];
        let model = self.cameras[camera].watchers[index].model;
        let keeps = self.schedule.load() == Load::Kept && self.logits.is_valid(row);
        let trial = self.trial.as_mut().filter(|trial| keeps && trial.slot == model);
        let (Some(trial), Some(Some(loaded))) = (trial, self.models.get(model)) else {
            return give_back(&mut self.spare, waiting);
        };
        let spoke = spoken_for(&loaded.manifest.output, self.logits.row(row));
        if trial.waiting.len() >= trial.most
            && let Some(oldest) = trial.waiting.pop_front()
        {
            give_back(&mut self.spare, oldest.waiting);
        }
        trial.waiting.push_back(Scored { lane, waiting, spoke });
    }
}

impl LoadedModel {
    /// A stream of a camera with these zones.
    pub(super) fn add_stream(&mut self, zones: &[Region]) -> Stream {
        let stream = self.model.add_stream();
        if self.manifest.tensors.boxes.is_some() {
            // Laying out has counted them.
            let _fits = self.model.set_boxes(stream, zones);
        }
        stream
    }
}
