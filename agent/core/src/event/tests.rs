//! Events: the wire form as reviewed, identifiers, and the committed schemas.

use super::*;
use crate::decode::{Confidence, Decision, EndReason, Status};
use crate::time::{Arrival, ClockMap, Pts, SessionId};

fn context() -> EventContext {
    EventContext {
        group: "home".into(),
        device: "box-1".into(),
        camera: "front".into(),
        model: ModelRef {
            name: "falls".into(),
            version: "0.1.0".into(),
            sha256: "9f".repeat(32),
            accel: "tract-cpu-fp32".into(),
        },
        labels: vec!["lying".into(), "fall".into()],
        label_ids: vec![Some(2), None],
    }
}

fn decision(rev: u32, label: u16, status: Status) -> Decision {
    Decision {
        action: 3,
        rev,
        label,
        start: Pts(1_200_000_000),
        start_uncertainty_ms: 100.0,
        decided_at: Pts(2_400_000_000),
        confidence: Confidence { mean: 0.75, peak: 0.875, last: 0.5 },
        windows: 7,
        status,
    }
}

fn replayed(d: &Decision) -> ActionEvent {
    let state = ClockState { synced: false, source: "replay".into(), ..ClockState::default() };
    let clocks = Clocks { map: &ClockMap::fixed(0), state: &state, wall_minus_mono_ns: 7, now_unix_ns: None };
    let ids = replay_ids("sha256 of the video", d.action, d.rev, (d.decided_at.0 / 1_000_000) as u64);
    action_event(&context(), d, SessionId(1), &clocks, ids, 42)
}

fn ended() -> Status {
    Status::Ended { end: Pts(2_000_000_000), end_uncertainty_ms: 200.0, reason: EndReason::StreamLost }
}

#[test]
fn events_look_like_this() {
    let text = |e: &ActionEvent| serde_json::to_string_pretty(e).unwrap();
    insta::assert_snapshot!("started", text(&replayed(&decision(0, 0, Status::Started))));
    insta::assert_snapshot!("ended", text(&replayed(&decision(1, 1, ended()))));
}

#[test]
fn live_times_are_wall_times_with_the_uncertainty_of_the_clock() {
    let mut map = ClockMap::new();
    let wall = 1_790_000_000_000_000_000;
    for k in 0..600 {
        let late = 40_000_000 + (k % 3) * 6_000_000;
        map.observe(Pts(k * 40_000_000), Arrival { mono_ns: k * 40_000_000 + late, ..Arrival::default() });
    }
    let state = ClockState { synced: true, source: "ntp".into(), max_err_ms: 4.0, boot_id: Some("b".into()) };
    let now = Some(wall + 2_500_000_000);
    let d = decision(0, 0, Status::Started);
    let ids = replay_ids("x", 0, 0, 0);
    let clocks = Clocks { map: &map, state: &state, wall_minus_mono_ns: wall, now_unix_ns: now };
    let e = action_event(&context(), &d, SessionId(4), &clocks, ids, 1);
    assert_eq!(e.data.decided_at.time, rfc3339(wall + 2_400_000_000));
    assert_eq!(
        e.data.start.uncertainty_ms, 150.0,
        "100 of the decoder, 40 of a delay unseen, 3, 6 of jitter, 1 of few frames"
    );
    assert_eq!(e.data.latency.capture_to_event_ms, 100.0);
    assert_eq!(e.data.valid_until, Some(rfc3339(wall + 17_400_000_000)));
    assert_eq!(e.data.camera.stream_epoch, 4);
}

#[test]
fn ids_are_version_7_and_follow_from_content() {
    let ids = replay_ids("key", 5, 1, 1234);
    assert_eq!(ids, replay_ids("key", 5, 1, 1234));
    assert_eq!((ids.id.get_version_num(), ids.action_id.get_version_num()), (7, 7));
    assert_eq!(ids.id.get_variant(), uuid::Variant::RFC4122);
    let later = replay_ids("key", 5, 2, 9999);
    assert_eq!(ids.action_id, later.action_id);
    assert_ne!(ids.id, later.id);
    assert_ne!(ids.action_id, replay_ids("key", 6, 1, 1234).action_id);
    assert_ne!(ids.action_id, replay_ids("kez", 5, 1, 1234).action_id);
    let bytes = ids.id.as_bytes();
    assert_eq!(u64::from_be_bytes([0, 0, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]), 1234);
}

#[test]
fn a_crash_is_closed_from_the_stored_message() {
    let stored = replayed(&decision(0, 0, Status::Started)).to_json();
    let stored: ActionEvent = serde_json::from_slice(&stored).unwrap();
    let e = recovered_event(&stored, uuid::Uuid::nil(), 1_790_000_000_000_000_000, 77);
    assert_eq!((e.data.rev, e.data.status, e.data.end_reason), (1, ActionStatus::Ended, Some(EndReason::Recovered)));
    let end = e.data.end.unwrap();
    assert_eq!((end.pts_ns, end.uncertainty_ms), (2_400_000_000, 15_000.0));
    assert_eq!((e.data.action_id, e.data.start), (stored.data.action_id, stored.data.start));
    assert_eq!((e.sequence.as_str(), e.data.valid_until), ("00000000000000000077", None));
}

#[test]
fn boundaries_before_the_first_frame_are_clamped() {
    let d = Decision { start: Pts(-300), ..decision(0, 0, Status::Started) };
    assert_eq!(replayed(&d).data.start.pts_ns, 0);
}

#[test]
fn states_look_like_this() {
    let status = serde_json::to_string(&DeviceStatus::will(9, "0.1.0")).unwrap();
    assert_eq!(status, r#"{"state":"offline","session":9,"version":"0.1.0"}"#);
    let data = GapData { first: 4, last: 9, reason: "quota".into() };
    let gap = GapStatement::new("home", "box-1", uuid::Uuid::nil(), 0, data);
    let gap = serde_json::to_value(gap).unwrap();
    assert_eq!((gap["data"]["first"].as_u64(), gap["data"]["last"].as_u64()), (Some(4), Some(9)));
}

/// The schemas in `config/schema/` are those of the types. `KINEWATCH_BLESS=1` writes them.
#[test]
fn committed_schemas_are_up_to_date() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/schema");
    for (file, schema) in schemas() {
        let path = dir.join(file);
        let want = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("KINEWATCH_BLESS").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(&path, &want).unwrap();
        }
        let have = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(have == want, "{} is out of date: run the tests with KINEWATCH_BLESS=1", path.display());
    }
}
