//! Models over the air with real processes: a publisher, a web server, a broker, the daemon, a subscriber.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use serde_json::Value;
use support::candidates::{copy, package, rewrite};
use support::check::assert_whole;
use support::fleet::{MODEL, Publisher, config, rests, state};
use support::{Broker, Daemon, RtspServer, example, kinewatch};

/// Always white: an action that goes on for as long as it is watched.
const WHITE: &str = "test:white?size=160x120&fps=25";
/// On which `tiny-nan` computes what is no number.
const BLACK: &str = "test:black?size=160x120&fps=25";
const QUICK: [&str; 8] =
    ["--shadow-windows", "60", "--shadow-agreement", "0.9", "--probation-windows", "60", "--probation-s", "2"];

/// Windows that no camera has scored.
fn left_out(daemon: &Daemon) -> f64 {
    let metrics = daemon.get("/metrics").unwrap();
    let rows = metrics.lines().filter(|line| line.starts_with("kinewatch_windows_dropped_total"));
    rows.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn event(subscriber: &mut support::Subscriber, camera: &str, status: &str, version: &str) -> Value {
    let topic = format!("/evt/{camera}/wave");
    subscriber.event(&format!("{camera}: {status} by {version}"), |t, e| {
        t.contains(&topic) && e["data"]["status"] == status && e["data"]["model"]["version"] == version
    })
}

/// `kinewatch model …` against the daemon of this folder: exit code, standard output, standard error.
fn model(folder: &std::path::Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output =
        kinewatch().arg("model").args(args).arg("--config").arg(folder.join("kinewatch.toml")).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_better_model_takes_over_without_a_window_lost_and_a_bad_one_goes_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let publisher = Publisher::start(dir.path());
    let loops = RtspServer::start(&["--loop".into(), "a=tests/data/bright.mp4".into()]);
    let mut subscriber = broker.subscribe();
    let cameras = [
        ("white", WHITE.to_owned()),
        ("black", BLACK.to_owned()),
        ("loop", loops.url("a")),
        ("more", WHITE.to_owned()),
    ];
    let mut daemon = Daemon::start(dir.path(), &config(&broker, &publisher.updates(), &cameras));
    let started = event(&mut subscriber, "white", "started", "1.0.0");
    state(&mut subscriber, "the channel is missing", |m| m["repository_error"]["code"] == "channel_missing");

    publisher.add("1.1.0", None);
    publisher.set("1.1.0", &QUICK);
    let installed = state(&mut subscriber, "1.1.0 to prove itself", |m| rests(m, "1.1.0"));
    assert_eq!((&installed["previous"]["version"], &installed["error"]), (&"1.0.0".into(), &Value::Null));
    assert_eq!(left_out(&daemon), 0.0, "no window was left out, at none of four cameras");
    let goes_on = event(&mut subscriber, "white", "updated", "1.1.0");
    assert_eq!(goes_on["data"]["action_id"], started["data"]["action_id"], "what goes on goes on");
    let at = |event: &Value, key: &str| event["data"][key]["pts_ns"].as_f64().unwrap() / 1e9;
    let due = (at(&goes_on, "decided_at") - at(&goes_on, "start")) * 10.0;
    assert!((goes_on["data"]["windows"].as_f64().unwrap() - due).abs() <= 2.0, "{goes_on}");
    assert!(daemon.metric("kinewatch_update_commits_total").unwrap() == 1.0);

    // It computes what it should on its golden clips, and no number on black.
    let bad = copy(&package("tiny-nan"), &dir.path().join("bad"));
    rewrite(&bad, |text| text.replacen("tiny-nan", MODEL, 1).replacen("1.0.0", "1.2.0", 1));
    publisher.add_package(&bad);
    publisher.set("1.2.0", &["--shadow-windows", "0"]);
    let failed =
        state(&mut subscriber, "1.2.0 to fail", |m| rests(m, "1.1.0") && m["error"]["code"] == "probation_failed");
    assert_eq!(failed["quarantine"][0]["version"], "1.2.0");
    assert_eq!(failed["waits_for"], "quarantined");
    let seen = daemon.log.seen().join("\n");
    assert!(seen.contains("probation_failed") && seen.contains("the one before is back"), "{seen}");
    // With a shadow it does not even take over.
    publisher.set("1.2.0", &QUICK);
    let failed = state(&mut subscriber, "1.2.0 to fail earlier", |m| {
        rests(m, "1.1.0") && m["error"]["code"] == "not_finite" && m["offered"]["epoch"] == 3
    });
    assert_eq!(failed["installed"]["version"], "1.1.0");

    publisher.add("1.3.0", None);
    publisher.set("1.3.0", &QUICK);
    publisher.halt();
    state(&mut subscriber, "the halt to be heard", |m| m["offered"]["halted"] == true);
    let (code, list, _) = model(dir.path(), &["list"]);
    assert!(code == Some(0) && list.contains("1.1.0 (epoch 1)") && list.contains("halted"), "{list}");
    let (code, _, said) = model(dir.path(), &["install", MODEL]);
    assert!(code == Some(1) && said.contains("halted"), "{said}");
    let (code, history, _) = model(dir.path(), &["history"]);
    assert!(code == Some(0) && history.contains("probation") && history.contains("probation_failed"), "{history}");

    let (code, _, said) = model(dir.path(), &["rollback", MODEL]);
    assert_eq!(code, Some(0), "{said}");
    state(&mut subscriber, "the factory model", |m| m["state"] == "idle" && m["installed"]["epoch"].is_null());
    daemon.log.signal("TERM");
    assert!(daemon.log.wait().success());
    subscriber.event("the farewell", |t, e| t.ends_with("/status") && e["state"] == "stopped");
    assert_whole(subscriber.lines());
    let reasons = |line: &&String| line.contains("\"end_reason\":\"model_swap\"");
    assert_eq!(subscriber.lines().iter().filter(reasons).count(), 0);
}

/// Where a process is killed, and what must hold afterwards: a good model is loaded, and the release is installed in the end.
#[test]
fn killed_at_any_state_it_goes_on_or_back() {
    let states = ["reserving", "downloading", "unpacking", "proving", "shadowing", "swapping", "probation", "settling"];
    let publishing = tempfile::tempdir().unwrap();
    let publisher = Publisher::start(publishing.path());
    publisher.add("1.1.0", None);
    publisher.set("1.1.0", &QUICK);
    let broker = Broker::start(publishing.path(), "");
    let text = config(&broker, &publisher.updates(), &[("white", WHITE.to_owned())]);
    for at in states.iter().flat_map(|state| [format!("update {state}"), format!("update {state} done")]) {
        // Nothing is asked for in these.
        if at == "update probation done" {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut faulty = example("faulty");
        faulty.env("KINEWATCH_TEST_KILL", format!("{at}:0"));
        let mut killed = Daemon::start_program(faulty, dir.path(), &text);
        assert!(!killed.log.wait().success(), "{at}: it was not killed");
        let mut subscriber = broker.subscribe();
        let mut daemon = Daemon::start(dir.path(), &text);
        let end = state(&mut subscriber, &format!("{at}: the release"), |m| {
            m["state"] == "idle" && (rests(m, "1.1.0") || !m["error"].is_null())
        });
        assert!(rests(&end, "1.1.0"), "{at}: {end}");
        daemon.log.signal("TERM");
        assert!(daemon.log.wait().success(), "{at}");
    }
}
