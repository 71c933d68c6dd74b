//! The daemon with real cameras (RTSP over loopback), a real broker and a real subscriber.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::check::assert_whole;
use support::{Broker, Daemon, RtspServer, root, wait_until};

fn config(broker: &Broker, model: &str, cameras: &[(&str, String)]) -> String {
    let model = root().join(model);
    let mut text = format!(
        "[mqtt]\nurl = \"{}\"\n\n[engine]\nbackend = \"tract\"\n\n[[model]]\nname = \"m\"\npath = \"{}\"\n",
        broker.url(),
        model.display()
    );
    for (name, source) in cameras {
        text +=
            &format!("\n[[camera]]\nname = \"{name}\"\nsource = \"{source}\"\nmodels = [\"m\"]\nstall_timeout_s = 3\n");
    }
    text
}

fn is(event: &Value, status: &str) -> bool {
    event["data"]["status"] == status
}

fn seconds(event: &Value, key: &str) -> f64 {
    event["data"][key]["pts_ns"].as_f64().unwrap() / 1e9
}

#[test]
fn live_gives_the_actions_of_replay() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let server = RtspServer::start(&["bright=tests/data/bright.mp4".into()]);
    let mut subscriber = broker.subscribe();
    let config = config(&broker, "tests/data/packages/tiny-bright", &[("bright", server.url("bright"))]);
    let mut daemon = Daemon::start(dir.path(), &config);
    let started =
        subscriber.event("the action to start", |topic, e| topic.contains("/evt/bright/wave") && is(e, "started"));
    let ended = subscriber.event("the action to end", |topic, e| topic.contains("/evt/bright/wave") && is(e, "ended"));
    assert_eq!(started["data"]["action_id"], ended["data"]["action_id"]);
    assert_eq!(ended["data"]["end_reason"], "boundary");
    // The truth is 2 s to 4 s and the stride 0.1 s.
    assert!((seconds(&ended, "start") - 2.0).abs() <= 0.1, "{ended}");
    assert!((seconds(&ended, "end") - 4.0).abs() <= 0.1, "{ended}");
    assert!(seconds(&started, "decided_at") < seconds(&ended, "end"), "known while it goes on");
    let wall: jiff::Timestamp = ended["data"]["end"]["time"].as_str().unwrap().parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(wall).as_secs_f64().abs();
    assert!(age < 30.0, "wall time of the end is {age} s away from now");
    daemon.stop();
}

#[test]
fn one_camera_down_touches_no_other_and_its_action_ends() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    // Looped, bright for two of six seconds: the server is killed as soon as the action is heard of.
    let steady = RtspServer::start(&["--loop".into(), "a=tests/data/bright.mp4".into()]);
    let mut fragile = RtspServer::start(&["--loop".into(), "b=tests/data/bright.mp4".into()]);
    let mut subscriber = broker.subscribe();
    let cameras: Vec<(&str, String)> = vec![
        ("one", steady.url("a")),
        ("two", steady.url("a")),
        ("three", steady.url("a")),
        ("four", fragile.url("b")),
    ];
    let mut daemon = Daemon::start(dir.path(), &config(&broker, "tests/data/packages/tiny-bright", &cameras));
    let open = subscriber.event("an open action", |topic, e| topic.contains("/evt/four/") && is(e, "started"));
    fragile.kill();
    let lost = subscriber.event("its end", |topic, e| topic.contains("/evt/four/") && is(e, "ended"));
    assert_eq!(lost["data"]["action_id"], open["data"]["action_id"]);
    assert_eq!(lost["data"]["end_reason"], "stream_lost");
    // The other three go on while the fourth is away: each opens and closes another action.
    for camera in ["one", "two", "three"] {
        let topic = format!("/evt/{camera}/");
        subscriber.event("an action elsewhere", |t, e| t.contains(&topic) && is(e, "ended"));
    }
    let before: Vec<_> = frames(&daemon);
    fragile.restart();
    let back = Instant::now();
    let again = subscriber.event("the fourth camera", |t, e| {
        t.ends_with("/cam/four/state") && e["online"] == true && e["stream_epoch"].as_u64() >= Some(2)
    });
    assert!(back.elapsed() < Duration::from_secs(10), "back after {:?}: {again}", back.elapsed());
    let after = frames(&daemon);
    assert!((0..3).all(|i| after[i] > before[i]), "frames paused: {before:?} {after:?}");
    for camera in ["one", "two", "three"] {
        let prefix = format!("kinewatch_stream_reconnects_total{{camera=\"{camera}\"}}");
        assert_eq!(daemon.metric(&prefix), Some(0.0), "{camera} never reconnected");
    }
    daemon.log.signal("TERM");
    let stop = Instant::now();
    assert!(daemon.log.wait().success());
    assert!(stop.elapsed() < Duration::from_secs(5), "stopped after {:?}", stop.elapsed());
    subscriber.event("the farewell", |t, e| t.ends_with("/status") && e["state"] == "stopped");
    assert_whole(subscriber.lines());
}

fn frames(daemon: &Daemon) -> Vec<f64> {
    ["one", "two", "three", "four"]
        .iter()
        .map(|camera| daemon.metric(&format!("kinewatch_frames_total{{camera=\"{camera}\"}}")).unwrap_or(-1.0))
        .collect()
}

#[test]
fn a_stop_ends_open_actions_with_shutdown() {
    for signal in ["TERM", "INT"] {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path(), "");
        let server = RtspServer::start(&["bright=tests/data/bright.mp4".into()]);
        let mut subscriber = broker.subscribe();
        let cameras = [("bright", server.url("bright"))];
        let mut daemon = Daemon::start(dir.path(), &config(&broker, "tests/data/packages/tiny-bright", &cameras));
        subscriber.event("an open action", |topic, e| topic.contains("/evt/") && is(e, "started"));
        daemon.log.signal(signal);
        let stop = Instant::now();
        let ended = subscriber.event("its end", |topic, e| topic.contains("/evt/") && is(e, "ended"));
        assert_eq!(ended["data"]["end_reason"], "shutdown");
        assert!(daemon.log.wait().success());
        assert!(stop.elapsed() < Duration::from_secs(5), "{signal}: stopped after {:?}", stop.elapsed());
    }
}

#[test]
fn events_wait_for_a_broker_and_survive_its_death_and_ours() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let port = broker.port;
    let server = RtspServer::start(&["--loop".into(), "bright=tests/data/bright.mp4".into()]);
    let text = config(&broker, "tests/data/packages/tiny-bright", &[("bright", server.url("bright"))]);
    drop(broker);
    // No broker at the start: events are stored.
    let mut daemon = Daemon::start(dir.path(), &text);
    // Killed in the middle of an action, with events unsent: started, ended, started, all stored.
    let stored = |n: f64| n >= 3.0 && n % 2.0 == 1.0;
    wait_until("an open action in the outbox", || daemon.metric("kinewatch_outbox_messages ").is_some_and(stored));
    daemon.log.kill();
    let mut broker = Broker::start_on(port, dir.path(), "");
    let mut subscriber = broker.subscribe();
    let mut daemon = Daemon::start(dir.path(), &text);
    let first = subscriber.event("the first stored event", |topic, _| topic.contains("/evt/"));
    assert_eq!(first["sequence"], format!("{:020}", 1), "nothing was forgotten");
    subscriber.event("the action left open", |t, e| t.contains("/evt/") && e["data"]["end_reason"] == "recovered");
    // The broker dies midway; what was not acknowledged comes again.
    broker.kill();
    let lines_before = subscriber.lines().to_vec();
    wait_until("an event in the outbox", || daemon.metric("kinewatch_outbox_messages ").is_some_and(|n| n >= 1.0));
    let broker = Broker::start_on(port, dir.path(), "");
    let mut subscriber = broker.subscribe();
    subscriber.event("an event after the broker is back", |topic, e| topic.contains("/evt/") && is(e, "ended"));
    daemon.stop();
    subscriber.event("the farewell", |t, e| t.ends_with("/status") && e["state"] == "stopped");
    let mut lines = lines_before;
    lines.extend(subscriber.lines().to_vec());
    assert_whole(&lines);
}

#[test]
fn too_slow_a_model_still_tells_every_camera_s_action_and_when() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut subscriber = broker.subscribe();
    // Cameras that ask for ten windows a second each: as many as make it about three times what this machine can do.
    let video = format!("file:{}", root().join("tests/data/bright.mp4").display());
    let count = (300.0 / ms_per_window("tests/data/packages/tiny-slow")).ceil().clamp(2.0, 8.0) as usize;
    let names: Vec<_> = (0..count).map(|k| format!("c{k}")).collect();
    let cameras: Vec<_> = names.iter().map(|name| (name.as_str(), video.clone())).collect();
    let mut daemon = Daemon::start(dir.path(), &config(&broker, "tests/data/packages/tiny-slow", &cameras));
    daemon.log.wait_for("the one line about it", |line| line.contains("inference does not keep up"));
    let (mut ended, mut thinned) = (Vec::new(), std::collections::BTreeSet::new());
    subscriber.event("an action of each camera, and each camera's state to say that it is thinned", |topic, e| {
        if topic.contains("/evt/") && is(e, "ended") {
            ended.push(e.clone());
        } else if topic.ends_with("/state") && e["scoring"] == "newest" {
            thinned.insert(topic.to_owned());
        }
        (ended.len(), thinned.len()) == (count, count)
    });
    for event in &ended {
        assert_eq!(event["data"]["end_reason"], "boundary", "{event}");
        for (key, truth) in [("start", 2.0), ("end", 4.0)] {
            let sure = event["data"][key]["uncertainty_ms"].as_f64().unwrap() / 1e3;
            let off = (seconds(event, key) - truth).abs();
            // A stride as ever; beyond it what is stated (half of the hole that the edge is dated in).
            assert!(off <= 0.1 + sure, "{key} is off by {off}, {sure} stated: {event}");
        }
    }
    let of_cameras: std::collections::BTreeSet<_> = ended.iter().map(|e| e["data"]["camera"].to_string()).collect();
    assert_eq!(of_cameras.len(), count, "one of each camera: {of_cameras:?}");
    let of = |name: &str, metric: &str, labels: &str| {
        daemon.metric(&format!("kinewatch_{metric}{{camera=\"{name}\"{labels}}}")).unwrap_or(-1.0)
    };
    let scored: Vec<_> = names.iter().map(|name| of(name, "windows_total", "")).collect();
    let left_out: Vec<_> =
        names.iter().map(|name| of(name, "windows_dropped_total", ",model=\"m\",reason=\"overload\"")).collect();
    assert!(left_out.iter().all(|n| *n > 0.0), "{left_out:?}");
    let (least, most) = (scored.iter().copied().fold(f64::MAX, f64::min), scored.iter().copied().fold(0.0, f64::max));
    assert!(least > 0.0 && most - least <= 3.0, "each camera is served alike: {scored:?}");
    let mean = |metric: &str, label: &str| {
        let of = |what: &str| daemon.metric(&format!("kinewatch_{metric}_seconds_{what}{{{label}}}")).unwrap();
        of("sum") / of("count")
    };
    // A turn of each camera and the call at hand, and what the first second adds; a queue that stands would add its length.
    let turn = (count + 1) as f64 * mean("inference_duration", "model=\"m\"");
    for name in &names {
        let age = mean("score_age", &format!("camera=\"{name}\""));
        assert!(age <= turn + 0.5, "{name}: scores are {age} s old, a turn takes {turn} s");
    }
    daemon.stop();
    let said = daemon.log.seen().iter().filter(|line| line.contains("does not keep up")).count();
    assert_eq!(said, 1, "said once, not for every window");
    assert_whole(subscriber.lines());
    let events = subscriber.lines().iter().filter(|l| l.contains("/evt/") && l.contains("\"ended\"")).count();
    assert_eq!(events, count, "nothing was invented");
}

fn ms_per_window(package: &str) -> f64 {
    let arguments = ["model", "bench", package, "--backend", "tract", "--seconds", "1", "--json"];
    let out = support::kinewatch().args(arguments).current_dir(root()).output().unwrap();
    let measured: Value = serde_json::from_slice(&out.stdout).unwrap();
    measured["results"][0]["ms_per_window"].as_f64().unwrap()
}

/// The clock was an hour ahead until somebody set it while no agent ran.
#[test]
fn a_clock_that_was_set_is_told_and_an_open_action_ends_on_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let server = RtspServer::start(&["--loop".into(), "bright=tests/data/bright.mp4".into()]);
    let text = config(&broker, "tests/data/packages/tiny-bright", &[("bright", server.url("bright"))]);
    let mut subscriber = broker.subscribe();
    let mut daemon = Daemon::start(dir.path(), &text);
    let record = subscriber.event("the record of the clock", |topic, _| topic.ends_with("/test/box/clock"));
    assert_eq!(record["steps"], serde_json::json!([]));
    let open = subscriber.event("an open action", |topic, e| topic.contains("/evt/") && is(e, "started"));
    assert_eq!(open["data"]["clock"]["boot_id"], record["boot_id"]);
    daemon.log.kill();
    let path = dir.path().join("state/clock.json");
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let ahead = kept["wall_minus_mono_ns"].as_i64().unwrap() + 3_600_000_000_000;
    kept["wall_minus_mono_ns"] = ahead.into();
    std::fs::write(&path, kept.to_string()).unwrap();
    let daemon = Daemon::start(dir.path(), &text);
    let mut later = broker.subscribe();
    let record = later.event("the step", |topic, e| topic.ends_with("/clock") && e["steps"][0].is_object());
    let step = &record["steps"][0];
    assert!((step["step_ms"].as_f64().unwrap() + 3_600_000.0).abs() < 50.0, "{record}");
    assert!(step["last_sequence"].as_u64().unwrap() >= open["sequence"].as_str().unwrap().parse().unwrap());
    let ended = subscriber.event("its end", |t, e| t.contains("/evt/") && e["data"]["end_reason"] == "recovered");
    assert_eq!(ended["data"]["action_id"], open["data"]["action_id"]);
    let start = |event: &Value| event["data"]["start"]["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let moved = start(&open).duration_since(start(&ended)).as_secs_f64();
    assert!((moved - 3600.0).abs() < 0.05, "moved by {moved} s");
    assert_eq!(daemon.metric("kinewatch_clock_synced "), Some(f64::from(u8::from(record["synced"] == true))));
}
