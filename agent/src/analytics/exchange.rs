//! Another model takes the place of one, between two calls, while streams, rings and what waits go on.
//!
//! Only for a model that reads the same frames ([`kinewatch_core::manifest::same_frames`]) and has the same labels: then no window is
//! left out. Where the decoders can go on ([`kinewatch_core::decode::carries`]) open actions do too; else they end with
//! `model_swap` at the last score of the old model. A model that is withdrawn leaves its place empty for a while, for
//! devices whose memory does not hold two: windows are then left out and counted ([`WindowDrop::Swap`]).

use std::sync::Arc;

use kinewatch_core::decode::{Decoder, EndReason, carries};
use kinewatch_core::manifest::{Manifest, Overrides, labels_changed, same_frames};
use kinewatch_core::time::Pts;

use super::watcher::Sampler;
use super::{Analytics, LoadedModel, Sink, WindowDrop, give_back};

/// What takes the place of a model.
#[derive(Debug)]
pub enum Successor {
    /// A model that has just been opened.
    Opened(Box<LoadedModel>),
    /// The candidate that is tried beside it: its features and states are warm.
    Tried,
}

impl Analytics {
    /// From the next call on, `successor` is the model in `slot`, with `overrides`. Gives the model before, unless it was
    /// withdrawn already. Does nothing where the successor is to be the candidate and none is tried here. Allocates.
    pub fn exchange(
        &mut self,
        slot: usize,
        successor: Successor,
        overrides: Overrides,
        sink: &mut impl Sink,
    ) -> Option<LoadedModel> {
        let trial = self.trial.take_if(|trial| trial.slot() == slot);
        let (mut new, tried) = match (successor, trial) {
            (Successor::Opened(new), _) => (*new, Vec::new()),
            (Successor::Tried, Some(trial)) => trial.into_parts(),
            (Successor::Tried, None) => return None,
        };
        new.overrides = overrides;
        let before = self.models.get_mut(slot)?.take();
        let contract = before.as_ref().map(|model| Arc::clone(&model.manifest));
        let contract = contract.or_else(|| self.withdrawn.iter().find(|(s, _)| *s == slot).map(|(_, m)| Arc::clone(m)));
        self.withdrawn.retain(|(withdrawn, _)| *withdrawn != slot);
        let carried = contract.is_some_and(|contract| carries(&contract, &new.manifest));
        for (camera, index) in self.watching(slot) {
            let went_on = carried && {
                let decoder = &mut self.cameras[camera].watchers[index].decoder;
                decoder.carry_over(&new.manifest, &new.overrides).is_ok()
            };
            if !went_on {
                self.decode_anew(camera, index, &new, sink);
            }
            let camera = &mut self.cameras[camera];
            let watcher = &mut camera.watchers[index];
            let warm = tried.iter().find(|(lane, ..)| *lane == watcher.lane);
            watcher.stream = Some(warm.map_or_else(|| new.add_stream(&camera.zones), |(_, stream, _)| *stream));
            // Its state is of the frame that it has scored last, which is not the newest.
            if let Some((.., Some(holes))) = warm {
                watcher.sampler = Sampler::Frames(*holes);
            }
        }
        self.schedule.set_model(slot, new.model.report().batch);
        self.models[slot] = Some(new);
        before
    }

    /// Takes the model out of `slot` although cameras are watched by it: until the exchange their windows are left out.
    pub fn withdraw(&mut self, slot: usize) -> Option<LoadedModel> {
        let model = self.models.get_mut(slot)?.take()?;
        self.trial.take_if(|trial| trial.slot() == slot);
        self.withdrawn.push((slot, Arc::clone(&model.manifest)));
        for (camera, index) in self.watching(slot) {
            self.cameras[camera].watchers[index].stream = None;
        }
        Some(model)
    }

    /// The model that was withdrawn from `slot` does not come back for now: what is open of it ends with `stream_lost`.
    pub fn lose(&mut self, slot: usize, sink: &mut impl Sink) {
        if self.models.get(slot).is_some_and(Option::is_some) {
            return;
        }
        for (camera, index) in self.watching(slot) {
            let at = self.cameras[camera].stream.newest.unwrap_or(Pts::ZERO);
            if let Some(turn) = self.cameras[camera].watchers[index].failures.fail() {
                sink.model_turned(camera, index, turn);
            }
            self.lose_sight(camera, index, at, sink);
        }
    }

    /// Camera and index of each watcher of a model.
    pub(super) fn watching(&self, slot: usize) -> Vec<(usize, usize)> {
        let of = |(camera, c): (usize, &super::Camera)| {
            let indices = c.watchers.iter().enumerate().filter(|(_, w)| w.model == slot);
            indices.map(|(index, _)| (camera, index)).collect::<Vec<_>>()
        };
        self.cameras.iter().enumerate().flat_map(of).collect()
    }

    /// The call that was to be made has no model: what it was to score is left out.
    pub(super) fn leave_out_running(&mut self, sink: &mut impl Sink) {
        self.schedule.done(std::time::Duration::ZERO);
        let mut running = std::mem::take(&mut self.running);
        for ticket in running.drain(..) {
            let (camera, index) = self.places[ticket.lane];
            sink.windows_dropped(camera, index, WindowDrop::Swap, 1);
            self.note(camera, index, (ticket.request.at, false), sink);
            give_back(&mut self.spare, ticket.request);
        }
        self.running = running;
    }

    fn decode_anew(&mut self, camera_slot: usize, index: usize, new: &LoadedModel, sink: &mut impl Sink) {
        let camera = &mut self.cameras[camera_slot];
        let at = camera.stream.newest.unwrap_or(Pts::ZERO);
        camera.watchers[index].decoder.gap(at, EndReason::ModelSwap, &mut self.decisions);
        let origin = camera.origin(camera_slot, index);
        self.decisions.drain(..).for_each(|decision| sink.decision(origin, &decision));
        // Checked before it was handed over; one that does not fit decodes as before.
        if let Ok(decoder) = Decoder::new(&new.manifest, &new.overrides) {
            self.cameras[camera_slot].watchers[index].decoder = decoder;
        }
    }
}

/// Whether a model can take the place of another without laying its cameras out anew: the same frames, and the same names
/// for what it finds.
#[must_use]
pub fn exchangeable(before: &Manifest, after: &Manifest) -> bool {
    same_frames(before, after) && labels_changed(before, after).is_none()
}
