//! One camera: its stream, the rings of its branches, and the models that watch it. Owned by the inference thread once it
//! has joined; laid out on any other, so that what may fail and what takes memory happens there.

use std::time::Duration;

use kinewatch_core::decode::Decoder;
use kinewatch_core::frame::FrameMeta;
use kinewatch_core::manifest::{Manifest, Overrides};
use kinewatch_core::region::Region;
use kinewatch_core::ring::Ring;
use kinewatch_core::schedule::{MINIMUM, Pace};
use kinewatch_core::time::{ClockMap, Pts, SessionId};
use kinewatch_engine::InferError;

use super::Origin;
use super::watcher::{Sampler, Watcher};
use crate::layout::{CameraPlan, LayoutError, branches, carried, every};

/// A camera laid out for the models that watch it, to be handed to [`super::Analytics::join`].
#[derive(Debug)]
pub struct NewCamera {
    pub(super) branches: Vec<Branch>,
    pub(super) watchers: Vec<NewWatcher>,
    pub(super) zones: Vec<Region>,
}

/// A model at a camera that has not joined.
#[derive(Debug)]
pub(super) struct NewWatcher {
    pub model: usize,
    pub every: Duration,
    /// How far apart its frames may come.
    pub carried: Option<Duration>,
    pub pace: Pace,
    pub sampler: Sampler,
    pub decoder: Decoder,
}

/// A camera that has joined, or a free slot.
#[derive(Debug, Default)]
pub(super) struct Camera {
    pub stream: StreamState,
    pub branches: Vec<Branch>,
    pub watchers: Vec<Watcher>,
    pub zones: Vec<Region>,
}

/// Where a camera's stream is.
#[derive(Debug)]
pub(super) struct StreamState {
    pub session: SessionId,
    pub clock: ClockMap,
    pub newest: Option<Pts>,
}

#[derive(Debug)]
pub(super) struct Branch {
    pub ring: Option<Ring>,
    /// Watcher (index within the camera) of each sampler bit.
    pub watchers: Vec<usize>,
}

impl NewCamera {
    /// Lays out decoders, samplers and rings. `contract` is asked for the slots in `plan.models`; a model that it does not
    /// know watches nothing.
    ///
    /// # Errors
    /// Decoder settings or zones of the configuration do not fit a package.
    pub fn lay_out<'a>(
        plan: &CameraPlan,
        contract: impl Fn(usize) -> Option<(&'a Manifest, &'a Overrides)>,
    ) -> Result<Self, LayoutError> {
        let mut camera = Self { branches: Vec::new(), watchers: Vec::new(), zones: plan.zones.clone() };
        for branch in branches(plan, |slot| Some(contract(slot)?.0)) {
            let mut watchers = Vec::with_capacity(branch.models.len());
            for (bit, &model) in (0u32..).zip(&branch.models) {
                let Some((manifest, overrides)) = contract(model) else { continue };
                check_zones(plan, manifest)?;
                watchers.push(camera.watchers.len());
                camera.watchers.push(NewWatcher {
                    model,
                    every: every(manifest),
                    carried: carried(manifest),
                    pace: Pace::new(every(manifest), carried(manifest).unwrap_or(MINIMUM)),
                    sampler: Sampler::new(manifest, bit),
                    decoder: Decoder::new(manifest, overrides)?,
                });
            }
            let bytes = branch.ring_frames * branch.spec.bytes();
            let ring = (branch.ring_frames > 0).then(|| Ring::new(branch.ring_ns, bytes, branch.ring_frames));
            camera.branches.push(Branch { ring, watchers });
        }
        Ok(camera)
    }

    /// While the device is spared, each of its models still scores so many windows a second, or what its package asks for.
    #[must_use]
    pub fn at_least(mut self, rate_hz: f64) -> Self {
        let apart = Duration::try_from_secs_f64(1.0 / rate_hz).unwrap_or(MINIMUM);
        for watcher in &mut self.watchers {
            watcher.pace = Pace::new(watcher.every, watcher.carried.map_or(apart, |carried| carried.min(apart)));
        }
        self
    }

    /// However far the device is spared, one window of so many is scored by each of its models at least.
    #[must_use]
    pub fn furthest(&self) -> u32 {
        self.watchers.iter().map(|watcher| watcher.pace.stretch(u32::MAX)).max().unwrap_or(1)
    }

    /// Slots of the models that watch it, each with its decoder, by [`super::Origin::watcher`].
    pub fn decoders(&self) -> impl Iterator<Item = (usize, &Decoder)> {
        self.watchers.iter().map(|watcher| (watcher.model, &watcher.decoder))
    }
}

fn check_zones(plan: &CameraPlan, manifest: &Manifest) -> Result<(), LayoutError> {
    let given = plan.zones.len();
    match &manifest.tensors.boxes {
        Some(boxes) if given > boxes.count => {
            let source = InferError::TooManyBoxes { model: manifest.name.clone(), takes: boxes.count, given };
            Err(LayoutError::Zones { camera: plan.name.clone(), source })
        }
        _ => Ok(()),
    }
}

impl Camera {
    /// What a decision of the model `index` at this camera belongs to.
    pub(super) fn origin(&self, slot: usize, index: usize) -> Origin<'_> {
        let StreamState { session, clock, .. } = &self.stream;
        Origin { camera: slot, model: self.watchers[index].model, watcher: index, session: *session, clock }
    }
}

impl Default for StreamState {
    fn default() -> Self {
        Self { session: SessionId::default(), clock: ClockMap::new(), newest: None }
    }
}

impl StreamState {
    pub(super) fn observe(&mut self, meta: &FrameMeta, new_clock: &ClockMap) {
        if meta.session != self.session {
            self.session = meta.session;
            self.clock = new_clock.clone();
            self.newest = None;
        }
        // A frame comes once for each branch, and is one piece of evidence.
        let known = self.newest == Some(meta.pts);
        if let Some(arrival) = meta.arrival.filter(|_| !known) {
            self.clock.observe(meta.pts, arrival);
        }
        self.newest = Some(meta.pts);
    }
}
