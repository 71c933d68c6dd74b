//! Who comes and goes: cameras and models between two frames, and other thresholds. What concerns one camera touches
//! nothing of another: no decoder, no ring, no waiting request, no state of a model.

use kinewatch_core::decode::{Decoder, EndReason};
use kinewatch_core::manifest::{ManifestError, Overrides};
use kinewatch_core::schedule::Lane;
use kinewatch_engine::InferError;

use super::camera::{Camera, StreamState};
use super::watcher::{Failures, Watcher};
use super::{Analytics, LoadedModel, NewCamera, Sink};

impl Analytics {
    /// From here on frames of `slot` are `camera`'s. Where one is there already, it is the same camera with other models:
    /// its open actions end with `model_swap`, its session and its clock go on, its windows begin anew. Allocates.
    ///
    /// # Errors
    /// As [`Analytics::leave`]; the camera has joined all the same.
    pub fn join(&mut self, slot: usize, camera: NewCamera, sink: &mut impl Sink) -> Result<(), InferError> {
        let (stream, result) = match self.cameras.get_mut(slot) {
            Some(before) if !before.watchers.is_empty() => {
                let newest = before.stream.newest;
                let result = self.gap(slot, EndReason::ModelSwap, sink);
                let stream = StreamState { newest, ..std::mem::take(&mut self.cameras[slot].stream) };
                self.vacate(slot);
                (stream, result)
            }
            _ => (StreamState::default(), Ok(())),
        };
        self.seat(slot, camera);
        if let Some(newest) = stream.newest {
            self.cameras[slot].watchers.iter_mut().for_each(|watcher| watcher.sampler.join_at(newest));
        }
        self.cameras[slot].stream = stream;
        result
    }

    /// The camera in `slot` is no more: what waits of it runs first (under overload it is let go), its open actions end
    /// with `reason`, and the slot is free.
    ///
    /// # Errors
    /// The first failure of a model; the camera has left all the same.
    pub fn leave(&mut self, slot: usize, reason: EndReason, sink: &mut impl Sink) -> Result<(), InferError> {
        let result = self.gap(slot, reason, sink);
        self.vacate(slot);
        result
    }

    /// A model in a free slot.
    pub fn add_model(&mut self, slot: usize, loaded: LoadedModel) {
        if self.models.len() <= slot {
            self.models.resize_with(slot + 1, || None);
        }
        self.schedule.set_model(slot, loaded.model.report().batch);
        self.withdrawn.retain(|(withdrawn, _)| *withdrawn != slot);
        self.models[slot] = Some(loaded);
    }

    /// The model in `slot` back, once no camera is watched by it; `None` until then.
    pub fn take_model(&mut self, slot: usize) -> Option<LoadedModel> {
        if self.watchers().any(|watcher| watcher.model == slot) {
            return None;
        }
        self.trial.take_if(|trial| trial.slot() == slot);
        self.models.get_mut(slot)?.take()
    }

    /// Whether nobody is watched by the model in `slot`, and none is there.
    #[must_use]
    pub fn is_vacant(&self, slot: usize) -> bool {
        self.models.get(slot).is_none_or(Option::is_none) && self.watchers().all(|watcher| watcher.model != slot)
    }

    /// Other changes of the configuration to the decoders of the model in `slot`, from the next score on. Nothing ends by
    /// that. Allocates.
    ///
    /// # Errors
    /// They do not fit the package; nothing is changed then.
    pub fn revise(&mut self, slot: usize, overrides: Overrides) -> Result<(), ManifestError> {
        let Some(loaded) = self.models.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        overrides.check(&loaded.manifest)?;
        let watchers = self.cameras.iter_mut().flat_map(|camera| &mut camera.watchers);
        for watcher in watchers.filter(|watcher| watcher.model == slot) {
            watcher.decoder.revise(&loaded.manifest, &overrides)?;
        }
        loaded.overrides = overrides;
        Ok(())
    }

    /// Puts a camera into a free slot.
    pub(super) fn seat(&mut self, slot: usize, camera: NewCamera) {
        if self.cameras.len() <= slot {
            self.cameras.resize_with(slot + 1, Camera::default);
        }
        let NewCamera { branches, watchers, zones } = camera;
        for (index, mut new) in watchers.into_iter().enumerate() {
            // Models are added before the cameras that they watch; one may be withdrawn, and gives streams when it is back.
            if self.models.len() <= new.model {
                self.models.resize_with(new.model + 1, || None);
            }
            let stream = self.models[new.model].as_mut().map(|loaded| {
                // The model or its thresholds may have changed since this was laid out.
                if let Ok(decoder) = Decoder::new(&loaded.manifest, &loaded.overrides) {
                    new.decoder = decoder;
                }
                loaded.add_stream(&zones)
            });
            let lane = self.schedule.add(Lane { camera: slot, model: new.model, every: new.every });
            if self.places.len() <= lane {
                self.places.resize(lane + 1, (0, 0));
            }
            self.places[lane] = (slot, index);
            if let Some(trial) = self.trial.as_mut().filter(|trial| trial.slot() == new.model) {
                trial.add_lane(lane, &zones);
            }
            let (model, sampler, pace, decoder) = (new.model, new.sampler, new.pace, new.decoder);
            let failures = Failures::default();
            self.cameras[slot].watchers.push(Watcher { lane, model, stream, sampler, pace, decoder, failures });
        }
        (self.cameras[slot].branches, self.cameras[slot].zones) = (branches, zones);
    }

    /// Empties a slot after its gap: nothing waits and nothing is open.
    fn vacate(&mut self, slot: usize) {
        let Some(camera) = self.cameras.get_mut(slot) else { return };
        for watcher in std::mem::take(camera).watchers {
            self.schedule.remove(watcher.lane, &mut self.let_go);
            if let Some(trial) = &mut self.trial {
                trial.remove_lane(watcher.lane);
            }
            if let (Some(Some(loaded)), Some(stream)) = (self.models.get_mut(watcher.model), watcher.stream) {
                loaded.model.remove_stream(stream);
            }
        }
    }
}
