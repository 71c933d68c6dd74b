//! Messages as they go on the wire: CloudEvents 1.0 in JSON, and the retained states.
//!
//! The order of fields is that of the structs; within version 1 fields are only ever added. Makes no identifiers and
//! reads no clock but for [`replay_ids`], which needs neither.

mod action;
mod clock;
mod ids;
mod make;
mod models;
mod state;

pub use action::{
    ACTION_SCHEMA, ACTION_TYPE, ActionData, ActionEvent, ActionStatus, CameraRef, ClockState, Instant, LEASE_NS,
    Latency, ModelRef,
};
pub use clock::{ClockRecord, DRIFT_PPM, MOST_STEPS, StepRecord};
pub use ids::{Ids, replay_ids};
pub use make::{Clocks, EventContext, action_event, recovered_event};
pub use models::{InstalledModel, ModelError, ModelProgress, ModelState, ModelsState, OfferedModel, QuarantinedModel};
pub use state::{
    CameraLink, CameraState, Decoding, Derated, DeviceState, DeviceStatus, GAP_TYPE, GapData, GapStatement, Scoring,
    StoreCondition, StoreStatus,
};

const SPECVERSION: &str = "1.0";
const SCHEMA_BASE: &str = "https://raw.githubusercontent.com/kinewatch/kinewatch/main/config/schema";

/// RFC 3339 in UTC with milliseconds.
#[must_use]
pub fn rfc3339(unix_ns: i64) -> String {
    let millisecond = jiff::Timestamp::from_millisecond(unix_ns.div_euclid(1_000_000)).unwrap_or(jiff::Timestamp::MAX);
    format!("{millisecond:.3}")
}

/// A sequence number as it is written: twenty digits, so that texts sort as numbers do.
#[must_use]
pub fn sequence_text(sequence: u64) -> String {
    format!("{sequence:020}")
}

/// File names and JSON Schemas (2020-12) of everything published, of the commands, and of the channel files of models.
#[must_use]
pub fn schemas() -> Vec<(&'static str, serde_json::Value)> {
    let events = [
        ("action-event-1.json", schema::<ActionEvent>()),
        ("gap-1.json", schema::<GapStatement>()),
        ("device-status-1.json", schema::<DeviceStatus>()),
        ("camera-state-1.json", schema::<CameraState>()),
        ("clock-1.json", schema::<ClockRecord>()),
        ("store-1.json", schema::<StoreStatus>()),
        ("model-state-1.json", schema::<ModelsState>()),
        ("model-progress-1.json", schema::<ModelProgress>()),
    ];
    let schemas = events.into_iter().chain(crate::command::schemas()).chain(crate::rollout::schemas());
    schemas.map(|(file, schema)| (file, identified(file, schema))).collect()
}

fn schema<T: schemars::JsonSchema>() -> schemars::Schema {
    schemars::generate::SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}

fn identified(file: &str, mut schema: schemars::Schema) -> serde_json::Value {
    schema.insert("$id".to_owned(), format!("{SCHEMA_BASE}/{file}").into());
    schema.to_value()
}

#[cfg(test)]
mod tests;
