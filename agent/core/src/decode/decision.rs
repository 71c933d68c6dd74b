//! What a decoder decides.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Pts;

/// Why an action is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The model saw it end.
    Boundary,
    /// The camera's stream was lost while it went on.
    StreamLost,
    /// The model was changed while it went on.
    ModelSwap,
    /// The agent stopped while it went on.
    Shutdown,
    /// It went on for longer than the model allows.
    MaxDuration,
    /// The agent died while it went on.
    Recovered,
}

/// Where an action is in its life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Status {
    /// It began; revision 0.
    Started,
    /// It goes on: renews the lease.
    Updated,
    /// It is over; nothing follows.
    Ended {
        /// When it ended in front of the camera.
        end: Pts,
        /// Milliseconds.
        end_uncertainty_ms: f32,
        /// Why.
        reason: EndReason,
    },
}

/// Calibrated probability of the label over the action's span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Confidence {
    /// Over the scores of the span.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub mean: f32,
    /// Highest of the span.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub peak: f32,
    /// Of the newest score of the span.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub last: f32,
}

/// One revision of one action: what becomes a message. Always `start <= end <= decided_at`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Counts the published actions of a decoder.
    pub action: u64,
    /// 0, 1, 2, … within the action.
    pub rev: u32,
    /// Index into [`super::Decoder::published_labels`].
    pub label: u16,
    /// When it began in front of the camera. Corrected, at most, once its end has been seen.
    pub start: Pts,
    /// Milliseconds.
    pub start_uncertainty_ms: f32,
    /// When this was known: media time of the newest frame.
    pub decided_at: Pts,
    /// How sure the model is.
    pub confidence: Confidence,
    /// Scores of the span.
    pub windows: u32,
    /// Where the action is in its life.
    pub status: Status,
}
