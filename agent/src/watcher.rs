//! A model at a camera: its sampler, its stream of the model, its decoder. Owned by the inference thread.

use kinewatch_core::decode::Decoder;
use kinewatch_core::manifest::Plan;
use kinewatch_core::sampling::{HoleDetector, Windower};
use kinewatch_engine::Stream;

use crate::analytics::LoadedModel;
use crate::layout::{CameraPlan, LayoutError};

/// A model at a camera.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) id: usize,
    pub(crate) model: usize,
    pub(crate) stream: Stream,
    pub(crate) sampler: Sampler,
    pub(crate) decoder: Decoder,
}

#[derive(Debug)]
pub(crate) enum Sampler {
    /// Every sampled frame is a request.
    Frames(HoleDetector),
    /// Windows over the branch's ring.
    Windows(Windower),
}

impl Watcher {
    pub(crate) fn new(
        id: usize,
        bit: u32,
        model: usize,
        loaded: &mut LoadedModel,
        plan: &CameraPlan,
    ) -> Result<Self, LayoutError> {
        let manifest = &loaded.manifest;
        let sampler = match manifest.plan {
            Plan::Online => Sampler::Frames(HoleDetector::new(manifest.sampling.max_hole)),
            Plan::Clip | Plan::Cached => Sampler::Windows(Windower::new(&manifest.sampling, bit)),
        };
        let decoder = Decoder::new(manifest, &loaded.overrides)?;
        let stream = loaded.model.add_stream();
        if manifest.tensors.boxes.is_some() {
            let told = |source| LayoutError::Zones { camera: plan.name.clone(), source };
            loaded.model.set_boxes(stream, &plan.zones).map_err(told)?;
        }
        Ok(Self { id, model, stream, sampler, decoder })
    }
}

impl Sampler {
    pub(crate) fn clear(&mut self) {
        match self {
            Self::Frames(holes) => holes.reset(),
            Self::Windows(windower) => windower.reset(),
        }
    }
}
