//! How a decision becomes an action event.

use uuid::Uuid;

use super::action::{
    ACTION_SCHEMA, ACTION_TYPE, ActionData, ActionEvent, ActionStatus, CameraRef, ClockState, Instant, LEASE_NS,
    Latency, ModelRef,
};
use super::ids::Ids;
use super::{SPECVERSION, rfc3339};
use crate::decode::{Decision, EndReason, Status};
use crate::time::{ClockMap, Pts, SessionId, WallTime};

/// What all events of one (camera, model) pair share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventContext {
    /// Group of the device, a valid name.
    pub group: String,
    /// Name of the device.
    pub device: String,
    /// Name of the camera.
    pub camera: String,
    /// The model.
    pub model: ModelRef,
    /// By [`Decision::label`]: [`crate::decode::Decoder::published_labels`].
    pub labels: Vec<String>,
    /// By [`Decision::label`]: [`crate::decode::Decoder::published_label_ids`].
    pub label_ids: Vec<Option<u16>>,
}

/// The clocks at the time an event is made.
#[derive(Clone, Copy, Debug)]
pub struct Clocks<'a> {
    /// Of the session.
    pub map: &'a ClockMap,
    /// Of the device.
    pub state: &'a ClockState,
    /// From the monotonic clock to the wall clock of the device, nanoseconds; without meaning in replay.
    pub wall_minus_mono_ns: i64,
    /// Now, Unix nanoseconds; `None` in replay, where latency has no meaning.
    pub now_unix_ns: Option<i64>,
}

impl EventContext {
    /// `//kinewatch/<group>/<device>/cam/<camera>`.
    #[must_use]
    pub fn source(&self) -> String {
        format!("//kinewatch/{}/{}/cam/{}", self.group, self.device, self.camera)
    }

    /// Label of a decision.
    #[must_use]
    pub fn label(&self, decision: &Decision) -> &str {
        self.labels.get(usize::from(decision.label)).map_or("unknown", String::as_str)
    }

    /// Where the event of a decision is published.
    #[must_use]
    pub fn topic(&self, decision: &Decision) -> String {
        crate::topic::event(&self.group, &self.device, &self.camera, self.label(decision))
    }
}

/// Makes the message of a decision.
#[must_use]
pub fn action_event(
    ctx: &EventContext,
    decision: &Decision,
    session: SessionId,
    clocks: &Clocks<'_>,
    ids: Ids,
    sequence: u64,
) -> ActionEvent {
    let start = instant(clocks, decision.start, decision.start_uncertainty_ms);
    let decided_at = instant(clocks, decision.decided_at, 0.0);
    let decided_wall = clocks.wall(decision.decided_at).unix_ns;
    let (status, end, end_reason) = match decision.status {
        Status::Started => (ActionStatus::Started, None, None),
        Status::Updated => (ActionStatus::Updated, None, None),
        Status::Ended { end, end_uncertainty_ms, reason } => {
            (ActionStatus::Ended, Some(instant(clocks, end, end_uncertainty_ms)), Some(reason))
        }
    };
    let open = status != ActionStatus::Ended;
    let late = clocks.now_unix_ns.map_or(0, |now| now.saturating_sub(decided_wall).max(0));
    let label = ctx.label(decision).to_owned();
    ActionEvent {
        specversion: SPECVERSION.to_owned(),
        id: ids.id,
        kind: ACTION_TYPE.to_owned(),
        source: ctx.source(),
        time: decided_at.time.clone(),
        subject: label.clone(),
        datacontenttype: "application/json".to_owned(),
        dataschema: ACTION_SCHEMA.to_owned(),
        sequence: super::sequence_text(sequence),
        data: ActionData {
            action_id: ids.action_id,
            rev: decision.rev,
            status,
            label,
            label_id: ctx.label_ids.get(usize::from(decision.label)).copied().flatten(),
            start,
            end,
            end_reason,
            decided_at,
            valid_until: open.then(|| rfc3339(decided_wall.saturating_add(LEASE_NS))),
            confidence: decision.confidence,
            windows: decision.windows,
            model: ctx.model.clone(),
            camera: CameraRef { id: ctx.camera.clone(), stream_epoch: session.0 },
            clock: clocks.state.clone(),
            latency: Latency { capture_to_event_ms: millis(late), queued_ms: 0.0 },
            replayed: false,
        },
    }
}

/// Closes an action that a crash left open, from the last message stored about it: it was seen up to that message's
/// `decided_at`, and may have gone on for a lease longer.
#[must_use]
pub fn recovered_event(previous: &ActionEvent, id: Uuid, now_unix_ns: i64, sequence: u64) -> ActionEvent {
    let mut event = previous.clone();
    event.id = id;
    event.time = rfc3339(now_unix_ns);
    event.sequence = super::sequence_text(sequence);
    let data = &mut event.data;
    data.rev = data.rev.saturating_add(1);
    data.status = ActionStatus::Ended;
    data.end = Some(Instant { uncertainty_ms: millis(LEASE_NS), ..previous.data.decided_at.clone() });
    data.end_reason = Some(EndReason::Recovered);
    data.decided_at = Instant { time: rfc3339(now_unix_ns), ..previous.data.decided_at.clone() };
    data.valid_until = None;
    data.latency = Latency::default();
    data.replayed = false;
    event
}

impl Clocks<'_> {
    fn wall(&self, pts: Pts) -> WallTime {
        self.map.wall(pts, self.wall_minus_mono_ns)
    }
}

fn instant(clocks: &Clocks<'_>, pts: Pts, uncertainty_ms: f32) -> Instant {
    let wall = clocks.wall(pts.clamped());
    let uncertainty_ms = (f64::from(uncertainty_ms.max(0.0)) + millis(wall.uncertainty_ns)).round();
    Instant { time: rfc3339(wall.unix_ns), pts_ns: pts.clamped().0, uncertainty_ms }
}

fn millis(ns: i64) -> f64 {
    (ns as f64 / 1e6).round()
}
