//! What the `infer` thread is told between two frames: cameras and models that come and go, and other thresholds.
//!
//! Made on the main thread, from what was laid out and opened elsewhere; it travels through the mailbox, in order with the
//! frames that it concerns. A camera's queue begins with [`Change::Joins`] and ends with [`Change::Leaves`]. A model is
//! told before the cameras that it watches.

use std::sync::Arc;

use kinewatch_core::decode::EndReason;
use kinewatch_core::event::ModelRef;
use kinewatch_core::manifest::Overrides;
use tokio::sync::oneshot;

use crate::analytics::{LoadedModel, NewCamera, Successor};
use crate::health::ModelView;
use crate::live::LiveCamera;

/// One thing that is different from here on.
#[derive(Debug)]
pub enum Change {
    /// Frames of `slot` are this camera's. Where it is there already, with other models, its open actions end with
    /// `model_swap`.
    Joins {
        /// Of the camera's inbox.
        slot: usize,
        /// What it is.
        camera: Box<Joining>,
    },
    /// The camera is no more.
    Leaves {
        /// Of the camera's inbox.
        slot: usize,
        /// Of its open actions.
        reason: EndReason,
    },
    /// A model can be watched with.
    ModelJoins {
        /// A free one.
        slot: usize,
        /// The model.
        model: Box<LoadedModel>,
        /// Where its work is shown.
        view: Arc<ModelView>,
    },
    /// The model is sent back, with all its memory, once the last camera has left it.
    ModelLeaves {
        /// Of the model.
        slot: usize,
        /// Where to.
        back: oneshot::Sender<LoadedModel>,
    },
    /// Another model takes the place of one; nobody who is watched by it notices but by its scores.
    Exchanged(Box<Exchange>),
    /// The model in this slot is sent back although cameras are watched by it: what they ask for is left out until another
    /// takes its place.
    Withdrawn {
        /// Of the model.
        slot: usize,
        /// Where to.
        back: oneshot::Sender<LoadedModel>,
    },
    /// The model that was withdrawn from this slot cannot be put back: what is open of it ends.
    Lost {
        /// Of the model.
        slot: usize,
    },
    /// A candidate is tried beside the model in this slot.
    TrialBegins {
        /// Of the model.
        slot: usize,
        /// The candidate.
        candidate: Box<LoadedModel>,
    },
    /// The candidate is sent back.
    TrialEnds {
        /// Where to.
        back: oneshot::Sender<LoadedModel>,
    },
    /// Other decoder settings of a model, for scores from here on; nothing ends by that.
    Revised {
        /// Slot of the model.
        slot: usize,
        /// All of them; checked against the package.
        overrides: Overrides,
    },
}

/// A model that takes the place of another which reads the same frames and has the same labels.
#[derive(Debug)]
pub struct Exchange {
    /// Of both.
    pub slot: usize,
    /// The new one.
    pub successor: Successor,
    /// Its decoder settings; checked against the package.
    pub overrides: Overrides,
    /// Where its work is shown.
    pub view: Arc<ModelView>,
    /// What events say of it.
    pub reference: ModelRef,
    /// Where the old one goes, if it is still there; closed where it is not.
    pub back: oneshot::Sender<LoadedModel>,
}

/// A camera as analytics and the sink take it over.
#[derive(Debug)]
pub struct Joining {
    /// Rings, samplers, decoders.
    pub camera: NewCamera,
    /// Events and counters.
    pub live: LiveCamera,
}
