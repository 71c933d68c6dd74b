//! What a stored event becomes on the wire, and what an event becomes in the store.

use std::time::Duration;

use bytes::Bytes;
use kinewatch_core::event::{ActionEvent, ActionStatus, ClockRecord, recovered_event, sequence_text};
use kinewatch_store::{OpenAction, Row, Stamp, Status};
use uuid::Uuid;

use super::NewEvent;

/// A message that waited longer is late: it is marked `replayed`.
pub(super) const LATE_AFTER: Duration = Duration::from_secs(10);

/// Whether a consumer is to be told that this is no news.
pub(super) fn is_old(row: &Row, now: &Stamp) -> bool {
    row.attempts > 0 || now.since(&row.stored) > LATE_AFTER
}

/// The payload to send: as stored, but marked when it is late or goes out again.
pub(super) fn payload(row: Row, now: &Stamp) -> Bytes {
    if !is_old(&row, now) {
        return Bytes::from(row.payload);
    }
    match serde_json::from_slice::<ActionEvent>(&row.payload) {
        Ok(mut event) => {
            event.mark_replayed((now.since(&row.stored).as_secs_f64() * 1e3).round());
            Bytes::from(event.to_json())
        }
        Err(_) => Bytes::from(row.payload),
    }
}

/// The payload to store.
pub(super) fn numbered(event: &ActionEvent, sequence: u64, rev: u32) -> Vec<u8> {
    let mut event = event.clone();
    event.sequence = sequence_text(sequence);
    event.data.rev = rev;
    event.to_json()
}

/// A stored payload with another revision; `None` when it cannot be read.
pub(super) fn renumber(payload: &[u8], rev: u32) -> Option<Vec<u8>> {
    let mut event = serde_json::from_slice::<ActionEvent>(payload).ok()?;
    event.data.rev = rev;
    Some(event.to_json())
}

pub(super) fn status(event: &ActionEvent) -> Status {
    match event.data.status {
        ActionStatus::Started => Status::Started,
        ActionStatus::Updated => Status::Updated,
        ActionStatus::Ended => Status::Ended,
    }
}

/// The `ended` of an action that a crash left open, dated by the clock as it is now; `None`, said in the log, when its
/// last message cannot be read, or is another's.
pub(super) fn recovered(action: &OpenAction, clock: &ClockRecord, now_unix_ns: i64) -> Option<NewEvent> {
    let fault = match serde_json::from_slice::<ActionEvent>(&action.last_payload) {
        Ok(mut last) if last.data.action_id.to_string() == action.action_id => {
            clock.correct(&mut last);
            let event = recovered_event(&last, Uuid::now_v7(), now_unix_ns, 0);
            return Some(NewEvent { topic: action.topic.clone(), event });
        }
        Ok(last) => format!("its last message is of {}", last.data.action_id),
        Err(error) => error.to_string(),
    };
    let (action, sequence) = (&action.action_id, action.sequence);
    tracing::error!(
        action,
        sequence,
        fault,
        "an open action cannot be read, so its end cannot be told; stated on sys/gap"
    );
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::delivery) fn example() -> ActionEvent {
        serde_json::from_str(include_str!("../../../config/schema/example-action-event.json")).unwrap()
    }

    fn row(attempts: u32, stored: Stamp) -> Row {
        Row { sequence: 1, topic: "t".into(), payload: example().to_json(), stored, attempts }
    }

    fn sent(row: Row, now: &Stamp) -> (bool, f64) {
        let event: ActionEvent = serde_json::from_slice(&payload(row, now)).unwrap();
        (event.data.replayed, event.data.latency.queued_ms)
    }

    const S: i64 = 1_000_000_000;

    #[test]
    fn what_is_late_or_goes_out_again_says_so() {
        let at = |unix_s: i64, boot_s: i64| Stamp { unix_ns: unix_s * S, boot_ns: boot_s * S, boot: 1, synced: false };
        let now = at(100, 100);
        assert!(!sent(row(0, at(99, 99)), &now).0, "a second is not late");
        assert_eq!(sent(row(0, at(89, 89)), &now), (true, 11_000.0));
        assert_eq!(sent(row(1, now), &now), (true, 0.0));
        // The clock is set by a year between storing and sending.
        assert!(!sent(row(0, at(99, 99)), &at(99 + 31_536_000, 100)).0);
        assert_eq!(sent(row(1, at(99, 99)), &at(99 + 31_536_000, 100)), (true, 1_000.0));
    }

    #[test]
    fn numbers_are_put_in() {
        let stored = numbered(&example(), 77, 5);
        let event: ActionEvent = serde_json::from_slice(&stored).unwrap();
        assert_eq!((event.sequence.as_str(), event.data.rev), ("00000000000000000077", 5));
        let moved: ActionEvent = serde_json::from_slice(&renumber(&stored, 4).unwrap()).unwrap();
        assert_eq!(moved.data.rev, 4);
        assert_eq!(moved.data.action_id, event.data.action_id);
        assert_eq!(renumber(b"{", 1), None);
    }
}
