//! The daemon at a real broker: commands with mosquitto's own clients, and two daemons that share a client identifier.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use support::{Broker, Daemon, root};

/// A daemon with a test picture; `mqtt` is added to its `[mqtt]`.
fn daemon(folder: &Path, broker: &Broker, mqtt: &str) -> Daemon {
    watching(folder, broker, mqtt, "test:")
}

fn watching(folder: &Path, broker: &Broker, mqtt: &str, source: &str) -> Daemon {
    std::fs::create_dir_all(folder).unwrap();
    let model = root().join("tests/data/packages/tiny-bright");
    let text = format!(
        "[mqtt]\nurl = \"{}\"\n{mqtt}\n\n[engine]\nbackend = \"tract\"\n\n[[model]]\nname = \"m\"\npath = \"{}\"\n\n\
         [[camera]]\nname = \"front\"\nsource = \"{source}\"\n",
        broker.url(),
        model.display()
    );
    Daemon::start(folder, &text)
}

#[test]
fn commands_are_done_and_answered() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    broker.send("box", "reload", &["-r", "-m", "{}"]);
    let mut subscriber = broker.subscribe();
    let mut daemon = daemon(dir.path(), &broker, "");
    let mut said = [false; 2];
    daemon.log.wait_for("the retained command to be said, and the daemon to watch", |l| {
        said[0] |= l.contains("a retained command is ignored");
        said[1] |= l.contains("watching");
        said == [true; 2]
    });
    let pong = broker.ask("ping", r#"{"id":"one"}"#);
    assert_eq!((&pong["ok"], &pong["id"]), (&json!(true), &json!("one")), "{pong}");
    assert_eq!(pong["result"]["version"], json!(env!("CARGO_PKG_VERSION")));
    assert!(pong["result"]["session"].as_u64() >= Some(1), "{pong}");
    let status = broker.ask("status", "");
    let cameras = &status["result"]["cameras"];
    assert_eq!(
        (&cameras[0]["name"], &status["result"]["mqtt"]["commands"]),
        (&json!("front"), &json!(true)),
        "{status}"
    );
    let code = |name, payload| broker.ask(name, payload)["error"]["code"].clone();
    assert_eq!(code("reboot", ""), "unknown_command");
    assert_eq!(code("ack", r#"{"upto":1,"force":true}"#), "invalid_payload");
    assert_eq!(code("camera-restart", r#"{"camera":"Front Door"}"#), "unknown_camera");
    // Without MQTT 5's properties, as of 3.1.1.
    broker.send("box", "ping", &["-V", "mqttv311", "-n"]);
    subscriber.event("the answer on its own topic", |topic, e| topic.ends_with("/box/rsp/ping") && e["ok"] == true);
    // To all: asked for on a topic of the asker, after a moment.
    let console = "kinewatch/v1/test/console/rsp/roll-call";
    broker.send("_all", "ping", &["-V", "5", "-D", "publish", "response-topic", console, "-n"]);
    let present = subscriber.event("the answer to a command to all", |topic, _| topic == console);
    assert_eq!(present["device"], "box");
    // Where an answer may not go, none goes.
    let abuse = "kinewatch/v1/test/box/evt/front/wave";
    broker.send("box", "ping", &["-V", "5", "-D", "publish", "response-topic", abuse, "-n"]);
    subscriber.event("the refusal", |_, e| e["error"]["code"] == "invalid_response");
    let count =
        |name, outcome| daemon.metric(&format!("kinewatch_commands_total{{command=\"{name}\",outcome=\"{outcome}\"}}"));
    assert_eq!(
        (count("ping", "ok"), count("ping", "refused"), count("unknown", "refused")),
        (Some(3.0), Some(1.0), Some(1.0))
    );
    assert_eq!(daemon.metric("kinewatch_commands_dropped_total{reason=\"retained\"}"), Some(1.0));
    assert_eq!(daemon.metric("kinewatch_commands_listening "), Some(1.0));
    assert!(!subscriber.lines().iter().any(|l| l.starts_with(abuse) && l.contains("\"ok\"")));
    daemon.stop();
}

/// What is done about cameras and the configuration is done by the parts that own them: here it is asked for over MQTT.
#[test]
fn cameras_and_configuration_are_reached() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut daemon = daemon(dir.path(), &broker, "");
    daemon.log.wait_for("frames", |l| l.contains("frames arrive"));
    let restarted = broker.ask("camera-restart", r#"{"camera":"front"}"#);
    assert_eq!(restarted["result"], json!({"camera": "front"}));
    daemon.log.wait_for("frames again", |l| l.contains("frames arrive"));
    assert_eq!(broker.ask("camera-restart", r#"{"camera":"back"}"#)["error"]["code"], "unknown_camera");
    let reloaded = broker.ask("reload", "");
    assert_eq!((&reloaded["ok"], &reloaded["result"]["result"]), (&json!(true), &json!("applied")), "{reloaded}");
    let file = dir.path().join("kinewatch.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("source = \"test:\"", "source = \"tset:\"")).unwrap();
    let refused = broker.ask("reload", "");
    assert_eq!(refused["error"]["code"], "failed");
    assert!(refused["error"]["message"].as_str().unwrap().contains("kinewatch.toml:"), "{refused}");
    daemon.stop();
}

/// A consumer that lost something has it sent again, and then lets it go.
#[test]
fn a_consumer_asks_for_events_again_and_acknowledges_them() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut subscriber = broker.subscribe();
    let source = format!("file:{}", root().join("tests/data/bright.mp4").display());
    let mut daemon = watching(dir.path(), &broker, "[outbox]\nkeep_until = \"consumer\"", &source);
    let sequence = |e: &Value| e["sequence"].as_str().unwrap().parse::<u64>().unwrap();
    let ended = subscriber.event("an action to end", |t, e| t.contains("/evt/") && e["data"]["status"] == "ended");
    let again = broker.ask("resend", r#"{"from":1}"#);
    assert_eq!(
        (&again["result"]["first"], &again["result"]["messages"]),
        (&json!(1), &json!(sequence(&ended))),
        "{again}"
    );
    let is_again = |e: &Value| e["data"]["replayed"] == true && e["data"]["status"] == "ended";
    let once_more = subscriber.event("the same again", |t, e| t.contains("/evt/") && is_again(e));
    assert_eq!((&once_more["id"], &once_more["sequence"]), (&ended["id"], &ended["sequence"]));
    let far = format!(r#"{{"upto":{}}}"#, sequence(&ended) + 1000);
    assert_eq!(broker.ask("ack", &far)["error"]["code"], "unavailable", "of numbers that are still to come");
    let acked = broker.ask("ack", &format!(r#"{{"upto":{}}}"#, ended["sequence"]));
    assert_eq!(
        (&acked["result"]["released"], &acked["result"]["kept"]),
        (&json!(sequence(&ended)), &json!(0)),
        "{acked}"
    );
    let nothing = broker.ask("resend", r#"{"from":1}"#);
    assert_eq!(nothing["result"]["messages"], 0, "{nothing}");
    daemon.stop();
}

/// Two boxes with one name and identifiers of their own: nobody throws anybody out, so it takes an ear.
#[test]
fn a_device_of_the_same_name_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut first = daemon(&dir.path().join("a"), &broker, "client_id = \"one\"");
    first.log.wait_for("the first to watch", |l| l.contains("watching"));
    broker.ask("ping", "");
    let second = daemon(&dir.path().join("b"), &broker, "client_id = \"two\"");
    first.log.wait_for("the other to be noticed", |l| l.contains("another device has the same name"));
    assert_eq!(first.metric("kinewatch_namesakes_total "), Some(1.0));
    drop(second);
    first.log.signal("TERM");
    assert!(first.log.wait().success());
}

/// A flood costs the flooder its answers, and nobody else anything.
#[test]
fn a_flood_of_commands_is_borne() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut subscriber = broker.subscribe();
    let mut daemon = daemon(dir.path(), &broker, "");
    daemon.log.wait_for("the daemon to watch", |l| l.contains("watching"));
    broker.ask("ping", "");
    let lines = "{}\n".repeat(2000);
    let file = dir.path().join("lines");
    std::fs::write(&file, lines).unwrap();
    let topic = "kinewatch/v1/test/box/cmd/ping";
    let script = format!("mosquitto_pub -h 127.0.0.1 -p {} -q 1 -t {topic} -l < {}", broker.port, file.display());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let metric = |daemon: &Daemon, prefix: &str| daemon.metric(prefix).unwrap_or(0.0);
    let sum = |daemon: &Daemon| {
        metric(daemon, "kinewatch_commands_total{command=\"ping\",outcome=\"ok\"}")
            + metric(daemon, "kinewatch_commands_dropped_total{reason=\"too_many\"}")
            + metric(daemon, "kinewatch_commands_dropped_total{reason=\"unread\"}")
    };
    // One of those that follow brings the count of those that were not read.
    let end = Instant::now() + support::DEADLINE;
    while sum(&daemon) < 2001.0 {
        assert!(Instant::now() < end, "{} of 2000", sum(&daemon));
        broker.send("box", "status", &["-n"]);
    }
    let dropped = sum(&daemon) - metric(&daemon, "kinewatch_commands_total{command=\"ping\",outcome=\"ok\"}");
    assert!(dropped > 1000.0, "{dropped}");
    let told = subscriber.lines().iter().filter(|l| l.contains("rate_limited")).count();
    assert!((1..60).contains(&told), "{told} refusals in words");
    assert!(daemon.log.seen().len() < 60, "the log is not flooded: {} lines", daemon.log.seen().len());
    assert_eq!(daemon.metric("kinewatch_mqtt_connections_total "), Some(1.0));
    daemon.stop();
}

#[test]
fn commands_can_be_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut subscriber = broker.subscribe();
    let mut daemon = daemon(dir.path(), &broker, "commands = false");
    subscriber.event("the birth", |topic, e| topic.ends_with("/status") && e["state"] == "online");
    daemon.log.wait_for("the daemon to watch", |l| l.contains("watching"));
    broker.send("box", "ping", &["-n"]);
    daemon.stop();
    subscriber.event("the farewell", |topic, e| topic.ends_with("/status") && e["state"] == "stopped");
    assert!(!subscriber.lines().iter().any(|l| l.contains("/rsp/")), "no answer");
    assert!(!broker.log().iter().any(|l| l.contains("Received SUBSCRIBE from kinewatch-")), "nothing was asked for");
}

/// Two boxes from one image, each of which throws the other out: said by both, once, and without a frenzy.
#[test]
fn twins_find_each_other_and_stay_calm() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let same = "client_id = \"one-of-two\"";
    let mut twins = ["a", "b"].map(|name| daemon(&dir.path().join(name), &broker, same));
    let about = |line: &str| line.contains("another client uses the same client identifier");
    for twin in &mut twins {
        twin.log.wait_for("the twin to be noticed", about);
    }
    broker.log();
    let (begin, mut more) = (Instant::now(), 0);
    broker.wait_for("six more connections", |line| {
        more += usize::from(line.contains("New client connected"));
        more == 6
    });
    let rate = 6.0 / begin.elapsed().as_secs_f64();
    assert!(rate < 1.0, "{rate} connections a second");
    for twin in &mut twins {
        let said = twin.log.seen().iter().filter(|l| about(l)).count();
        assert_eq!(said, 1, "said once: {:#?}", twin.log.seen());
        let lines = twin.log.seen().iter().filter(|l| l.contains("MQTT")).count();
        assert!(lines <= 10, "{lines} lines");
    }
}
