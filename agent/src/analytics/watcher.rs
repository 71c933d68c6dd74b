//! A model at a camera: its sampler, its stream of the model, its decoder. Owned by the inference thread.

use kinewatch_core::decode::Decoder;
use kinewatch_core::manifest::{Manifest, Plan};
use kinewatch_core::sampling::{HoleDetector, Windower};
use kinewatch_engine::Stream;

/// A model at a camera.
#[derive(Debug)]
pub(super) struct Watcher {
    /// In the schedule.
    pub lane: usize,
    /// Slot.
    pub model: usize,
    pub stream: Stream,
    pub sampler: Sampler,
    pub decoder: Decoder,
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

    pub(super) fn clear(&mut self) {
        match self {
            Self::Frames(holes) => holes.reset(),
            Self::Windows(windower) => windower.reset(),
        }
    }
}
