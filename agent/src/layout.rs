//! Which camera carries which models, and what its capture and its rings need for that. Pure.

use std::time::Duration;

use kinewatch_core::frame::FrameSpec;
use kinewatch_core::manifest::{Manifest, ManifestError, Plan};
use kinewatch_core::region::Region;
use kinewatch_core::sampling::WindowPlan;
use kinewatch_core::schedule;
use kinewatch_engine::InferError;

/// One camera and the models that watch it.
#[derive(Clone, Debug)]
pub struct CameraPlan {
    /// Name.
    pub name: String,
    /// Slots of models, each at most once.
    pub models: Vec<usize>,
    /// Boxes of those models that take any.
    pub zones: Vec<Region>,
}

/// Models and cameras do not fit each other.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Decoder settings of the configuration do not fit a package.
    #[error(transparent)]
    Decoder(#[from] ManifestError),
    /// A camera has more zones than a model takes.
    #[error("camera {camera}: {source}")]
    Zones {
        /// Name.
        camera: String,
        /// Which model, and how many it takes.
        source: InferError,
    },
}

/// A branch of a camera's pipeline: one frame format, and the models that read it in the order of their samplers.
#[derive(Clone, Debug, PartialEq)]
pub struct BranchPlan {
    /// Frame format.
    pub spec: FrameSpec,
    /// Slots of models; sampler `i` of the branch belongs to `models[i]`.
    pub models: Vec<usize>,
    /// Sampling rates of those models, frames a second.
    pub rates_hz: Vec<f64>,
    /// Frames that the branch's ring holds; 0 when its models read frame by frame.
    pub ring_frames: usize,
    /// Media time that the ring reaches back, nanoseconds.
    pub ring_ns: i64,
    /// Frames that requests may hold beyond the ring while they wait for their turn.
    pub waiting_frames: usize,
}

/// Groups the models of a camera by the frames that they read. `manifest` is asked for each slot; a model that it does not
/// know watches nothing.
#[must_use]
pub fn branches<'a>(camera: &CameraPlan, manifest: impl Fn(usize) -> Option<&'a Manifest>) -> Vec<BranchPlan> {
    let mut branches: Vec<BranchPlan> = Vec::new();
    for (slot, manifest) in camera.models.iter().filter_map(|&slot| Some((slot, manifest(slot)?))) {
        let spec = manifest.input.spec;
        let at = branches.iter().position(|b| b.spec == spec).unwrap_or_else(|| {
            branches.push(BranchPlan {
                spec,
                models: Vec::new(),
                rates_hz: Vec::new(),
                ring_frames: 0,
                ring_ns: 0,
                waiting_frames: 0,
            });
            branches.len() - 1
        });
        branches[at].models.push(slot);
        branches[at].rates_hz.push(manifest.sampling.rate_hz);
        // A request that has waited longest is as old as the queue is long, and its window began a stride before.
        let waits = schedule::most_waiting(every(manifest)) as f64 * every(manifest).as_secs_f64();
        branches[at].waiting_frames += (waits * manifest.sampling.rate_hz).ceil() as usize;
        if manifest.plan != Plan::Online {
            branches[at].ring_ns = branches[at].ring_ns.max(WindowPlan::new(&manifest.sampling).history_ns());
        }
    }
    for branch in &mut branches {
        // Frames of every sampler of the branch lie in its ring.
        let per_second: f64 = branch.rates_hz.iter().sum();
        branch.ring_frames = (branch.ring_ns as f64 / 1e9 * per_second).ceil() as usize;
    }
    branches
}

/// Usual time between two requests of a model.
#[must_use]
pub fn every(manifest: &Manifest) -> Duration {
    match manifest.plan {
        Plan::Online => Duration::from_secs_f64(1.0 / manifest.sampling.rate_hz),
        Plan::Clip | Plan::Cached => Duration::from_nanos(u64::try_from(manifest.sampling.stride).unwrap_or(0)),
    }
}

/// For how long a model carries its state: one that reads frame by frame sees nothing once they come further apart.
#[must_use]
pub fn carried(manifest: &Manifest) -> Option<Duration> {
    let carried = Duration::from_nanos(u64::try_from(manifest.sampling.max_hole).unwrap_or(0));
    (manifest.plan == Plan::Online).then_some(carried)
}
