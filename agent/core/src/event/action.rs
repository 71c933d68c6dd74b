//! The action event as it goes on the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::decode::{Confidence, EndReason};
use crate::time::NANOS_PER_SECOND;

/// CloudEvents type of an action event.
pub const ACTION_TYPE: &str = "io.kinewatch.action.v1";
/// Address of its schema.
pub const ACTION_SCHEMA: &str =
    "https://raw.githubusercontent.com/kinewatch/kinewatch/main/config/schema/action-event-1.json";
/// How long after `decided_at` a subscriber may believe an open action without hearing more.
pub const LEASE_NS: i64 = 15 * NANOS_PER_SECOND;

/// One message about one action: a CloudEvents 1.0 envelope in structured JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActionEvent {
    /// Always `1.0`.
    #[schemars(extend("const" = "1.0"))]
    pub specversion: String,
    /// UUIDv7, one per message; a repeated `id` is the same message.
    pub id: Uuid,
    /// Always `io.kinewatch.action.v1`.
    #[serde(rename = "type")]
    #[schemars(extend("const" = "io.kinewatch.action.v1"))]
    pub kind: String,
    /// `//kinewatch/<group>/<device>/cam/<camera>`.
    #[schemars(regex(pattern = r"^//kinewatch/[a-z0-9_-]{1,64}/[a-z0-9_-]{1,64}/cam/[a-z0-9_-]{1,64}$"))]
    pub source: String,
    /// When it was decided, RFC 3339, UTC.
    #[schemars(extend("format" = "date-time"))]
    pub time: String,
    /// The label.
    pub subject: String,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// Address of this schema.
    pub dataschema: String,
    /// 20 digits, contiguous per device; a hole is stated on `sys/gap`.
    #[schemars(regex(pattern = r"^[0-9]{20}$"))]
    pub sequence: String,
    /// The action.
    pub data: ActionData,
}

/// The action as known now. Keep it where `rev` is larger than what you have for `action_id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend(
    "if" = { "properties": { "status": { "const": "ended" } } },
    "then" = { "properties": { "end": { "type": "object" }, "end_reason": { "type": "string" } } },
    "else" = { "required": ["valid_until"] }
))]
pub struct ActionData {
    /// UUIDv7, one per action.
    pub action_id: Uuid,
    /// 0, 1, 2, … within the action.
    pub rev: u32,
    /// Where the action is in its life.
    pub status: ActionStatus,
    /// What happens.
    #[schemars(regex(pattern = r"^[a-z0-9_-]{1,64}$"))]
    pub label: String,
    /// Index of the label among the model's logits; absent for a sequence of labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_id: Option<u16>,
    /// When it began in front of the camera.
    pub start: Instant,
    /// When it ended in front of the camera; null while it goes on.
    pub end: Option<Instant>,
    /// Why it ended; null while it goes on.
    pub end_reason: Option<EndReason>,
    /// When this was known.
    pub decided_at: Instant,
    /// Until when an open action may be believed without another message; absent when it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub valid_until: Option<String>,
    /// How sure the model is.
    pub confidence: Confidence,
    /// Scores that speak for it.
    pub windows: u32,
    /// Which model saw it.
    pub model: ModelRef,
    /// Which camera it was seen by.
    pub camera: CameraRef,
    /// How far the times can be trusted.
    pub clock: ClockState,
    /// How late it was.
    pub latency: Latency,
    /// Whether it was delivered long after it was made.
    pub replayed: bool,
}

/// Where the action is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionStatus {
    /// It began; always `rev` 0.
    Started,
    /// It goes on.
    Updated,
    /// It is over; nothing follows.
    Ended,
}

/// A point in time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Instant {
    /// RFC 3339, UTC, milliseconds.
    #[schemars(extend("format" = "date-time"))]
    pub time: String,
    /// Media time: nanoseconds since the first frame of the camera's stream epoch.
    #[schemars(range(min = 0))]
    pub pts_ns: i64,
    /// The true time lies this near, milliseconds, but for the error of the device's own clock (`clock.max_err_ms`).
    #[schemars(range(min = 0))]
    pub uncertainty_ms: f64,
}

/// Which model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelRef {
    /// Name of the package.
    pub name: String,
    /// Version of the package.
    pub version: String,
    /// SHA-256 of the package's `model.toml`, which lists those of its files.
    pub sha256: String,
    /// Back end, provider and precision in use, such as `ort-cuda-fp32`.
    pub accel: String,
}

/// Which camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CameraRef {
    /// Its name.
    pub id: String,
    /// Counts the sessions of its stream; media times of different epochs are not comparable.
    pub stream_epoch: u32,
}

/// How far the device's clock can be trusted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClockState {
    /// Whether the system clock is synchronised.
    pub synced: bool,
    /// Where wall time comes from, such as `ntp`, `local` or `replay`.
    pub source: String,
    /// Largest error of a synchronised clock that the system reports, milliseconds; 0 when it is not stated.
    pub max_err_ms: f64,
    /// Boot of the device, to tell clocks apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
}

/// How late a message was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// From the capture of the deciding frame to the making of the message.
    pub capture_to_event_ms: f64,
    /// From there to its delivery.
    pub queued_ms: f64,
}

impl ActionEvent {
    /// As it goes on the wire.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Maps with text keys and finite numbers only: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Marks a stored message that is delivered late.
    pub fn mark_replayed(&mut self, queued_ms: f64) {
        self.data.replayed = true;
        self.data.latency.queued_ms = queued_ms;
    }
}
