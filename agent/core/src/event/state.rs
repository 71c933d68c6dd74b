//! Retained states and the statement of lost sequence numbers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{SPECVERSION, rfc3339};
use crate::derate::Cause;

/// CloudEvents type of a gap statement.
pub const GAP_TYPE: &str = "io.kinewatch.gap.v1";

/// States that a range of `sequence` will never come: the only legal hole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GapStatement {
    /// Always `1.0`.
    #[schemars(extend("const" = "1.0"))]
    pub specversion: String,
    /// UUIDv7.
    pub id: Uuid,
    /// Always `io.kinewatch.gap.v1`.
    #[serde(rename = "type")]
    #[schemars(extend("const" = "io.kinewatch.gap.v1"))]
    pub kind: String,
    /// `//kinewatch/<group>/<device>`.
    pub source: String,
    /// When it was stated, RFC 3339, UTC.
    #[schemars(extend("format" = "date-time"))]
    pub time: String,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// The range.
    pub data: GapData,
}

/// A range of sequence numbers, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GapData {
    /// First number that will not come.
    pub first: u64,
    /// Last number that will not come.
    pub last: u64,
    /// Why, such as `quota`.
    pub reason: String,
}

impl GapStatement {
    /// States the range `first..=last`.
    #[must_use]
    pub fn new(group: &str, device: &str, id: Uuid, now_unix_ns: i64, data: GapData) -> Self {
        Self {
            specversion: SPECVERSION.to_owned(),
            id,
            kind: GAP_TYPE.to_owned(),
            source: format!("//kinewatch/{group}/{device}"),
            time: rfc3339(now_unix_ns),
            datacontenttype: "application/json".to_owned(),
            data,
        }
    }
}

/// Whether the device is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// Connected (the birth message).
    Online,
    /// The broker lost it (the will).
    Offline,
    /// It said goodbye.
    Stopped,
}

/// Retained on the device's `status` topic. A message of a lower `session` than one already seen is out of date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceStatus {
    /// Whether it is there.
    pub state: DeviceState,
    /// Larger with each start of the agent.
    pub session: u64,
    /// Version of the agent.
    pub version: String,
    /// In a birth: random, and another at each start of the agent. It tells two devices of one name apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

impl DeviceStatus {
    /// Published on each connection.
    #[must_use]
    pub fn birth(session: u64, version: &str) -> Self {
        Self { state: DeviceState::Online, session, version: version.to_owned(), instance: None }
    }

    /// With what tells this start of the agent from every other.
    #[must_use]
    pub fn of_instance(self, instance: &str) -> Self {
        Self { instance: Some(instance.to_owned()), ..self }
    }

    /// Left with the broker, which publishes it when the connection is lost.
    #[must_use]
    pub fn will(session: u64, version: &str) -> Self {
        Self { state: DeviceState::Offline, ..Self::birth(session, version) }
    }

    /// Published before a graceful stop.
    #[must_use]
    pub fn stopped(session: u64, version: &str) -> Self {
        Self { state: DeviceState::Stopped, ..Self::birth(session, version) }
    }
}

/// Whether a camera delivers frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CameraLink {
    /// Not yet, or again being tried.
    Connecting,
    /// Frames come.
    Up,
    /// No frames; waiting before the next attempt.
    Down,
}

/// Which windows of a camera are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scoring {
    /// Every one.
    #[default]
    All,
    /// The newest: the device does not keep up, so boundaries are less certain and short actions may be missed.
    Newest,
}

/// The device spares itself: fewer windows are scored, evenly, and short actions may be missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Derated {
    /// What stands, or stood last.
    pub causes: Vec<Cause>,
    /// One window of so many is scored; by some of its models more, where they would fall below the camera's minimum.
    pub one_of: u32,
}

/// How a camera's stream is decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decoding {
    /// As this machine does it.
    #[default]
    Usual,
    /// On the processor, since the hardware decoder failed.
    Fallback,
}

/// Retained on a camera's `state` topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CameraState {
    /// Whether frames come.
    pub state: CameraLink,
    /// The same as one flag.
    pub online: bool,
    /// Sampled frames per second.
    pub fps: f64,
    /// Which windows are scored.
    #[serde(default)]
    pub scoring: Scoring,
    /// Absent while every window is scored as far as the device's heat, power and memory go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derated: Option<Derated>,
    /// How the stream is decoded.
    #[serde(default)]
    pub decoding: Decoding,
    /// Labels of the actions going on.
    pub active: Vec<String>,
    /// Counts the sessions of the stream.
    pub stream_epoch: u32,
    /// Larger with each start of the agent.
    pub session: u64,
}

/// Whether events can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreCondition {
    /// They are.
    Ok,
    /// The disk is full.
    Full,
    /// The file system is read-only, or permissions are missing.
    ReadOnly,
    /// The state directory is not there, or was removed.
    Missing,
    /// The database is damaged, and could not be set aside yet.
    Damaged,
    /// Another program holds the database or the directory.
    Busy,
    /// Reading or writing fails for another reason.
    Failing,
}

/// Retained on the device's `store` topic. While it is not `ok`, events wait in the memory of the agent: nothing new is
/// published, and nothing is lost as long as the agent runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreStatus {
    /// Whether events can be stored.
    pub state: StoreCondition,
    /// Since when, RFC 3339, UTC.
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
    /// The database on the device.
    pub path: String,
    /// What is wrong and what to do; null while nothing is.
    pub error: Option<String>,
    /// Where a damaged database was moved since the agent started; its events are stated on `sys/gap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
    /// Larger with each start of the agent.
    pub session: u64,
}
