//! SIGHUP on the real daemon, with a real broker, real RTSP servers and a subscriber: what is different is applied, who is
//! not named notices nothing, and a file that is wrong changes nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;

use serde_json::Value;
use support::check::assert_whole;
use support::{Broker, Daemon, RtspServer, Subscriber, kinewatch, root};

const BRIGHT: &str = "tests/data/packages/tiny-bright";

/// One model and cameras with their sources; `more` stands before the cameras.
fn config(broker: &Broker, package: &Path, more: &str, cameras: &[(&str, String)]) -> String {
    let mut text = format!(
        "[mqtt]\nurl = \"{}\"\n\n[engine]\nbackend = \"tract\"\n\n[[model]]\nname = \"m\"\npath = \"{}\"\n{more}",
        broker.url(),
        package.display()
    );
    for (name, source) in cameras {
        text += &format!("\n[[camera]]\nname = \"{name}\"\nsource = \"{source}\"\nstall_timeout_s = 3\n");
    }
    text
}

/// Always white: an action that goes on for as long as it is watched.
const WHITE: &str = "test:white?size=160x120&fps=25";

/// White for two of six seconds, again and again.
fn server(name: &str) -> RtspServer {
    RtspServer::start(&["--loop".into(), format!("{name}=tests/data/bright.mp4")])
}

fn event(subscriber: &mut Subscriber, camera: &str, status: &str) -> Value {
    let topic = format!("/evt/{camera}/wave");
    let what = format!("{camera}: {status}");
    subscriber.event(&what, |t, e| t.contains(&topic) && e["data"]["status"] == status)
}

/// How long an action took, seconds, and why it ended.
fn length(ended: &Value) -> (f64, &str) {
    let at = |key: &str| ended["data"][key]["pts_ns"].as_f64().unwrap() / 1e9;
    (at("end") - at("start"), ended["data"]["end_reason"].as_str().unwrap())
}

fn of(daemon: &Daemon, metric: &str, camera: &str) -> Option<f64> {
    daemon.metric(&format!("kinewatch_{metric}{{camera=\"{camera}\"}}"))
}

/// Windows that no camera has scored.
fn left_out(daemon: &Daemon) -> f64 {
    let metrics = daemon.get("/metrics").unwrap();
    let rows = metrics.lines().filter(|line| line.starts_with("kinewatch_windows_dropped_total"));
    rows.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn last_reload(daemon: &Daemon) -> Value {
    let status: Value = serde_json::from_str(&daemon.get("/status").unwrap()).unwrap();
    status["configuration"]["last_reload"].clone()
}

/// Waits until each of these cameras has ended an action since, and gives those ends.
fn ends(subscriber: &mut Subscriber, cameras: &[&str]) -> Vec<Value> {
    let mut ends: Vec<Value> = Vec::new();
    let id = |event: &Value| event["data"]["camera"]["id"].as_str().unwrap_or_default().to_owned();
    subscriber.event(&format!("an end at each of {cameras:?}"), |topic, e| {
        if topic.contains("/evt/") && e["data"]["status"] == "ended" {
            ends.push(e.clone());
        }
        cameras.iter().all(|camera| ends.iter().any(|end| id(end) == *camera))
    });
    cameras.iter().map(|camera| ends.iter().find(|end| id(end) == *camera).unwrap().clone()).collect()
}

/// Ends by itself, after the two seconds that it is white.
fn is_whole(ended: &Value) -> bool {
    let (seconds, reason) = length(ended);
    reason == "boundary" && (seconds - 2.0).abs() <= 0.2
}

#[test]
fn cameras_come_go_and_move_and_one_that_stays_notices_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let (steady, other) = (server("a"), server("b"));
    let mut subscriber = broker.subscribe();
    let with = |cameras: &[(&str, String)]| config(&broker, &root().join(BRIGHT), "", cameras);
    let before = [("stays", steady.url("a")), ("goes", WHITE.into()), ("moves", WHITE.into())];
    let mut daemon = Daemon::start(dir.path(), &with(&before));
    let mut open = std::collections::BTreeMap::new();
    subscriber.event("an open action of each camera", |topic, e| {
        let camera = e["data"]["camera"]["id"].as_str().unwrap_or_default().to_owned();
        if topic.contains("/evt/") && e["data"]["status"] == "started" {
            open.insert(camera, e.clone());
        } else if topic.contains("/evt/") && e["data"]["status"] == "ended" {
            open.remove(&camera);
        }
        open.len() == 3
    });
    let sessions = of(&daemon, "stream_sessions_total", "stays").unwrap();

    let after = [("comes", other.url("b")), ("stays", steady.url("a")), ("moves", other.url("b"))];
    daemon.reload(dir.path(), &with(&after));
    daemon.log.wait_for("the reload", |line| line.contains("configuration reloaded: 3 changes"));
    let said = daemon.log.seen().join("\n");
    for part in ["camera comes: added", "camera moves: source changed", "camera goes: removed"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("camera stays"), "{said}");
    let ended = ends(&mut subscriber, &["goes", "moves", "stays"]);
    for (ended, camera) in ended.iter().zip(["goes", "moves", "stays"]) {
        assert_eq!(ended["data"]["action_id"], open[camera]["data"]["action_id"], "{camera}");
    }
    // Whoever is stopped ends its action at once and on purpose.
    assert_eq!((length(&ended[0]).1, length(&ended[1]).1), ("shutdown", "shutdown"));
    assert!(is_whole(&ended[2]), "{}", ended[2]);
    subscriber.removed("/cam/goes/state");
    let later = ends(&mut subscriber, &["comes", "moves", "stays"]);
    assert!(later.iter().all(is_whole), "{later:?}");
    let epoch = |event: &Value| event["data"]["camera"]["stream_epoch"].as_u64().unwrap();
    assert_eq!([&later[0], &later[1], &later[2]].map(epoch), [1, 2, epoch(&ended[2])], "no number is used again");
    for metric in ["stream_reconnects_total", "stream_stalls_total"] {
        assert_eq!(of(&daemon, metric, "stays"), Some(0.0), "{metric}");
    }
    assert_eq!(of(&daemon, "stream_sessions_total", "stays"), Some(sessions));
    let metrics = daemon.get("/metrics").unwrap();
    assert!(!metrics.contains("camera=\"goes\"") && metrics.contains("camera=\"comes\""));
    assert_eq!(daemon.metric("kinewatch_config_reloads_total{result=\"applied\"}"), Some(1.0));

    daemon.reload(dir.path(), &with(&after));
    daemon.log.wait_for("a reload of the same", |line| line.contains("nothing is different"));
    daemon.stop();
    subscriber.event("the farewell", |t, e| t.ends_with("/status") && e["state"] == "stopped");
    // One that goes while no agent runs.
    let mut daemon = Daemon::start(dir.path(), &with(&after[..2]));
    subscriber.removed("/cam/moves/state");
    daemon.stop();
    assert_whole(subscriber.lines());
    let unfinished = daemon.log.seen().iter().filter(|line| line.contains("left behind")).count();
    assert_eq!(unfinished, 0, "every pipeline stopped in time");
}

#[test]
fn a_file_that_is_wrong_is_refused_as_check_config_prints_it_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let steady = server("a");
    let mut subscriber = broker.subscribe();
    let with = |more: &str, cameras: &[(&str, String)]| config(&broker, &root().join(BRIGHT), more, cameras);
    let stays = ("stays", steady.url("a"));
    let mut daemon = Daemon::start(dir.path(), &with("", std::slice::from_ref(&stays)));
    event(&mut subscriber, "stays", "started");
    // Right for the most part: the new camera would start, were it not for the rest.
    let wrong = with("[model.labels.wavee]\non = 0.7\n", &[stays.clone(), ("Küche", steady.url("a"))]);
    let path = daemon.reload(dir.path(), &wrong);
    daemon.log.wait_for("the refusal", |line| line.contains("configuration refused"));
    let checked = kinewatch().args(["check-config", "--config"]).arg(&path).output().unwrap();
    assert_eq!(checked.status.code(), Some(78));
    let checked = String::from_utf8(checked.stderr).unwrap();
    let problems: Vec<_> = checked.lines().filter(|line| line.contains("kinewatch.toml:")).collect();
    assert!(problems.len() >= 2, "{checked}");
    let log = daemon.log.seen().join("\n");
    assert!(problems.iter().all(|problem| log.contains(problem)), "{problems:?} in {log}");
    let told = last_reload(&daemon);
    assert_eq!((&told["result"], told["problems"].as_array().unwrap().len()), (&"refused".into(), problems.len()));
    assert_eq!(daemon.metric("kinewatch_config_last_reload_successful"), Some(0.0));
    let ended = event(&mut subscriber, "stays", "ended");
    assert_eq!(length(&ended).1, "boundary", "it went on");

    daemon.reload(dir.path(), &with("", &[stays, ("kitchen", steady.url("a"))]));
    daemon.log.wait_for("the repaired file", |line| line.contains("camera kitchen: added"));
    event(&mut subscriber, "kitchen", "started");
    assert_eq!(daemon.metric("kinewatch_config_last_reload_successful"), Some(1.0));
    assert_eq!(of(&daemon, "stream_reconnects_total", "stays"), Some(0.0));
    assert_eq!(last_reload(&daemon)["problems"], serde_json::json!([]));
    daemon.stop();
    subscriber.event("the farewell", |t, e| t.ends_with("/status") && e["state"] == "stopped");
    assert_whole(subscriber.lines());
}

#[test]
fn thresholds_and_log_level_are_taken_at_once_and_the_broker_s_keys_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let steady = server("a");
    let mut subscriber = broker.subscribe();
    let cameras = [("stays", steady.url("a"))];
    let text = config(&broker, &root().join(BRIGHT), "", &cameras);
    let mut daemon = Daemon::start(dir.path(), &text);
    let started = event(&mut subscriber, "stays", "started");
    // No action of two seconds is told from now on, but the one that was.
    let never = config(&broker, &root().join(BRIGHT), "[model.labels.wave]\nmin_duration_s = 50.0\n", &cameras);
    daemon.reload(
        dir.path(),
        &(never.replace("[engine]", "window = 16\n\n[engine]") + "\n[log]\nlevel = \"info,rumqttc=debug\"\n"),
    );
    daemon
        .log
        .wait_for("the key", |l| l.contains("[mqtt] window changed: takes effect after `systemctl restart kinewatch`"));
    daemon.log.wait_for("the reload", |line| line.contains("configuration reloaded: 2 changes"));
    let said = daemon.log.seen().join("\n");
    assert!(
        said.contains("model m: thresholds of wave changed") && said.contains("log level: info,rumqttc=debug"),
        "{said}"
    );
    let ended = event(&mut subscriber, "stays", "ended");
    assert_eq!(ended["data"]["action_id"], started["data"]["action_id"]);
    assert!(is_whole(&ended), "{ended}");
    // The clip is played once more, and nothing is told of it.
    let windows = of(&daemon, "windows_total", "stays").unwrap();
    let end = std::time::Instant::now() + support::DEADLINE;
    while of(&daemon, "windows_total", "stays").unwrap() < windows + 70.0 {
        assert!(std::time::Instant::now() < end, "windows are scored");
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
    let begun = |daemon: &Daemon| {
        daemon.metric("kinewatch_events_total{camera=\"stays\",label=\"wave\",status=\"started\"}").unwrap()
    };
    assert_eq!(begun(&daemon), 1.0);
    daemon.reload(dir.path(), &text);
    daemon.log.wait_for("a line of debug", |line| line.contains("DEBUG"));
    event(&mut subscriber, "stays", "started");
    assert_eq!(of(&daemon, "stream_reconnects_total", "stays"), Some(0.0));
    daemon.stop();
}

#[test]
fn another_package_under_the_same_name_is_exchanged_without_a_reconnect() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let steady = server("a");
    let mut subscriber = broker.subscribe();
    let package = dir.path().join("package");
    let copied = std::process::Command::new("cp").arg("-r").arg(root().join(BRIGHT)).arg(&package).status().unwrap();
    assert!(copied.success());
    let text = config(&broker, &package, "", &[("white", WHITE.into()), ("loop", steady.url("a"))]);
    let mut daemon = Daemon::start(dir.path(), &text);
    let started = event(&mut subscriber, "white", "started");
    event(&mut subscriber, "loop", "ended");
    let manifest = package.join("model.toml");
    let newer = std::fs::read_to_string(&manifest).unwrap().replace("version = \"1.0.0\"", "version = \"1.1.0\"");
    std::fs::write(&manifest, newer).unwrap();
    daemon.reload(dir.path(), &text);
    daemon.log.wait_for("the exchange", |line| line.contains("model m: package changed"));
    // The same labels, found in the same way: what goes on goes on, under the new model.
    let next = event(&mut subscriber, "white", "updated");
    assert_eq!(next["data"]["model"]["version"], "1.1.0");
    for same in ["/action_id", "/camera", "/start/pts_ns"] {
        assert_eq!(next["data"].pointer(same), started["data"].pointer(same), "{same}");
    }
    // Ten windows a second since it began, and none of them was left out.
    let at = |event: &Value, key: &str| event["data"][key]["pts_ns"].as_f64().unwrap() / 1e9;
    let due = (at(&next, "decided_at") - at(&next, "start")) * 10.0;
    assert!((next["data"]["windows"].as_f64().unwrap() - due).abs() <= 2.0, "{next}");
    assert_eq!(left_out(&daemon), 0.0);
    // One that judges holes in another way cannot take its place: the camera is laid out anew, and what is open ends.
    let other = std::fs::read_to_string(&manifest).unwrap();
    let other =
        other.replace("max_hole_s = 0.5", "max_hole_s = 0.4").replace("version = \"1.1.0\"", "version = \"1.2.0\"");
    std::fs::write(&manifest, other).unwrap();
    daemon.reload(dir.path(), &text);
    daemon.log.wait_for("the exchange", |line| line.contains("model m: package changed"));
    let ended = event(&mut subscriber, "white", "ended");
    assert_eq!((&ended["data"]["action_id"], length(&ended).1), (&started["data"]["action_id"], "model_swap"));
    let next = event(&mut subscriber, "white", "started");
    assert_eq!(next["data"]["model"]["version"], "1.2.0");
    assert_eq!(next["data"]["camera"], started["data"]["camera"], "the same session of the stream");
    assert_eq!(of(&daemon, "stream_reconnects_total", "loop"), Some(0.0));
    assert_eq!(of(&daemon, "stream_sessions_total", "loop"), Some(1.0));
    assert_eq!(daemon.metric("kinewatch_model_info{model=\"m\",version=\"1.2.0\""), Some(1.0));
    // A package that is damaged is refused, and the one that runs goes on.
    std::fs::write(package.join("labels.txt"), "other\n").unwrap();
    daemon.reload(dir.path(), &text);
    daemon.log.wait_for("the refusal", |line| line.contains("configuration refused"));
    assert!(is_whole(&ends(&mut subscriber, &["loop"])[0]));
    daemon.stop();
    subscriber.event("the farewell", |t, e| t.ends_with("/status") && e["state"] == "stopped");
    assert_whole(subscriber.lines());
}
