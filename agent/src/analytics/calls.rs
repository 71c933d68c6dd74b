//! A model is called for those whose turn it is, and their decoders step; and the end of a stream, which closes what is
//! open.

use std::time::Duration;

use kinewatch_core::decode::{Decision, Decoder, EndReason};
use kinewatch_core::ring::Ring;
use kinewatch_core::sampling::Continuity;
use kinewatch_core::time::Pts;
use kinewatch_engine::{InferError, Request};

use super::watcher::Sampler;
use super::{Analytics, ModelTurn, Sink, WindowDrop, give_back};

impl Analytics {
    /// Makes one call of one model, for those whose turn it is, and steps their decoders. A hole since the frame before
    /// zeroes an online state first. Does nothing when nothing waits.
    ///
    /// # Errors
    /// The model failed. The windows concerned are counted as dropped.
    pub fn run_next(&mut self, sink: &mut impl Sink) -> Result<(), InferError> {
        let begun = (self.time.0)();
        self.schedule.next(begun, &mut self.running, &mut self.let_go);
        self.note_let_go(sink);
        self.run(begun, sink)
    }

    /// Makes calls until nothing waits.
    ///
    /// # Errors
    /// The first failure; everything else has run.
    pub fn run_all(&mut self, sink: &mut impl Sink) -> Result<(), InferError> {
        let mut result = Ok(());
        while self.waiting() > 0 {
            result = result.and(self.run_next(sink));
        }
        self.rest();
        result
    }

    /// A stream ended or broke: what waits of the camera runs first (under overload it is let go), then every open action
    /// of the camera is closed with `reason` and all its temporal state is forgotten.
    ///
    /// # Errors
    /// The first failure of a model; the gap has been applied all the same.
    pub fn gap(&mut self, camera_slot: usize, reason: EndReason, sink: &mut impl Sink) -> Result<(), InferError> {
        let mut result = Ok(());
        loop {
            let begun = (self.time.0)();
            self.schedule.next_of(camera_slot, begun, &mut self.running, &mut self.let_go);
            if self.running.is_empty() {
                break;
            }
            result = result.and(self.run(begun, sink));
        }
        self.schedule.clear(camera_slot, &mut self.let_go);
        self.note_let_go(sink);
        let Some(camera) = self.cameras.get_mut(camera_slot) else { return result };
        let at = camera.stream.newest.take().unwrap_or(Pts::ZERO);
        for index in 0..camera.watchers.len() {
            self.interrupt(camera_slot, index, |decoder, out| decoder.gap(at, reason, out), sink);
            let watcher = &mut self.cameras[camera_slot].watchers[index];
            watcher.sampler.clear();
            watcher.pace.reset();
            watcher.failures.interrupt();
            if let Some(trial) = &mut self.trial {
                trial.interrupt(watcher.lane);
            }
        }
        let camera = &mut self.cameras[camera_slot];
        camera.branches.iter_mut().filter_map(|b| b.ring.as_mut()).for_each(Ring::clear);
        result
    }

    /// What is open of a model at a camera ends with `stream_lost`, for nobody sees any more whether it goes on.
    pub(super) fn lose_sight(&mut self, camera: usize, index: usize, at: Pts, sink: &mut impl Sink) {
        self.interrupt(camera, index, |decoder, out| decoder.interrupt(at, EndReason::StreamLost, out), sink);
    }

    /// Closes what is open of a model at a camera, and forgets what has been seen.
    fn interrupt(
        &mut self,
        camera_slot: usize,
        index: usize,
        close: impl FnOnce(&mut Decoder, &mut Vec<Decision>),
        sink: &mut impl Sink,
    ) {
        let camera = &mut self.cameras[camera_slot];
        let watcher = &mut camera.watchers[index];
        close(&mut watcher.decoder, &mut self.decisions);
        if let (Some(loaded), Some(stream)) = (&mut self.models[watcher.model], watcher.stream) {
            loaded.model.reset(stream);
        }
        let origin = camera.origin(camera_slot, index);
        self.decisions.drain(..).for_each(|decision| sink.decision(origin, &decision));
    }

    /// Notes whether the window at `at` was scored, and what follows from that.
    pub(super) fn note(&mut self, camera: usize, index: usize, (at, scored): (Pts, bool), sink: &mut impl Sink) {
        let Some(turn) = self.cameras[camera].watchers[index].failures.note(at, scored) else { return };
        sink.model_turned(camera, index, turn);
        if turn == ModelTurn::Fails {
            self.lose_sight(camera, index, at, sink);
        }
    }

    fn run(&mut self, begun: Duration, sink: &mut impl Sink) -> Result<(), InferError> {
        let Some(first) = self.running.first() else { return Ok(()) };
        let (camera, index) = self.places[first.lane];
        let model = self.cameras[camera].watchers[index].model;
        if self.models.get(model).is_none_or(Option::is_none) {
            self.leave_out_running(sink);
            return Ok(());
        }
        self.zero_after_holes(model, sink);
        let mut requests = recycle(std::mem::take(&mut self.requests));
        for ticket in &self.running {
            let (camera, index) = self.places[ticket.lane];
            // Whoever watches a model that is there has a stream of it.
            if let Some(stream) = self.cameras[camera].watchers[index].stream {
                requests.push(Request { stream, frames: &ticket.request.frames });
            }
        }
        let count = requests.len();
        debug_assert_eq!(count, self.running.len());
        let result = match &mut self.models[model] {
            Some(loaded) => loaded.model.infer(&requests, &mut self.logits),
            None => Ok(()),
        };
        self.requests = recycle(requests);
        let took = (self.time.0)().saturating_sub(begun);
        self.schedule.done(took);
        sink.inferred(model, count, took);
        let valid = (0..count).filter(|&row| self.logits.is_valid(row)).count();
        let not_finite = if let Err(InferError::NotFinite { .. }) = result { count - valid } else { 0 };
        sink.answered(model, valid, count - valid - not_finite, not_finite);
        self.decide(sink);
        result
    }

    /// A state carried over a hole would speak of another moment. Judged when a frame runs, since those that were let go
    /// are holes too.
    fn zero_after_holes(&mut self, model: usize, sink: &mut impl Sink) {
        for ticket in &self.running {
            let (camera, index) = self.places[ticket.lane];
            let watcher = &mut self.cameras[camera].watchers[index];
            if let Sampler::Frames(holes) = &mut watcher.sampler
                && let Continuity::Hole(_) = holes.offer(ticket.request.at)
                && let (Some(loaded), Some(stream)) = (&mut self.models[model], watcher.stream)
            {
                loaded.model.reset(stream);
                sink.windows_dropped(camera, index, WindowDrop::Hole, 1);
            }
        }
    }

    /// Steps the decoders of the call that has run.
    fn decide(&mut self, sink: &mut impl Sink) {
        let mut running = std::mem::take(&mut self.running);
        for (row, ticket) in running.drain(..).enumerate() {
            let (camera_slot, index) = self.places[ticket.lane];
            let at = ticket.request.at;
            self.scored(ticket.lane, ticket.request, row);
            let valid = self.logits.is_valid(row);
            if !valid && let Sampler::Frames(holes) = &mut self.cameras[camera_slot].watchers[index].sampler {
                holes.retract();
            }
            self.note(camera_slot, index, (at, valid), sink);
            if !valid {
                sink.windows_dropped(camera_slot, index, WindowDrop::Failed, 1);
                continue;
            }
            let camera = &mut self.cameras[camera_slot];
            let watcher = &mut camera.watchers[index];
            if watcher.decoder.is_scheduled() {
                watcher.decoder.at_time(sink.time_of_day());
            }
            watcher.decoder.step(at, self.logits.row(row), &mut self.decisions);
            let (origin, decoder) = (camera.origin(camera_slot, index), &camera.watchers[index].decoder);
            sink.scores(origin, at, decoder.scores(), decoder.score_labels());
            self.decisions.drain(..).for_each(|decision| sink.decision(origin, &decision));
        }
        self.running = running;
    }

    pub(super) fn note_let_go(&mut self, sink: &mut impl Sink) {
        for ticket in self.let_go.drain(..) {
            let (camera, index) = self.places[ticket.lane];
            sink.windows_dropped(camera, index, WindowDrop::Overload, 1);
            self.left_out += 1;
            give_back(&mut self.spare, ticket.request);
        }
    }
}

/// The same allocation for requests of another lifetime: an emptied vector collects in place.
fn recycle<'b>(mut requests: Vec<Request<'_>>) -> Vec<Request<'b>> {
    requests.clear();
    requests.into_iter().map(|_| unreachable!("the vector was emptied")).collect()
}
