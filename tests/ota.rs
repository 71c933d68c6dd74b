//! Models over the air with real processes: a publisher, a web server, a broker, the daemon, a subscriber.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use serde_json::Value;
use support::candidates::{copy, graph, package, rewrite};
use support::check::assert_whole;
use support::fleet::{BLACK, MODEL, Publisher, QUICK, WHITE, config, fails_on_black, left_out, model, rests, state};
use support::{Broker, Daemon, RtspServer, wait_until};

fn event(subscriber: &mut support::Subscriber, camera: &str, status: &str, version: &str) -> Value {
    let topic = format!("/evt/{camera}/wave");
    subscriber.event(&format!("{camera}: {status} by {version}"), |t, e| {
        t.contains(&topic) && e["data"]["status"] == status && e["data"]["model"]["version"] == version
    })
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
    let text = config(&broker, &publisher.updates(), &cameras);
    let mut daemon = Daemon::start(dir.path(), &text);
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

    // What is installed stays in the place of what the configuration names.
    daemon.reload(dir.path(), &text);
    daemon.log.wait_for("a reload of the same", |line| line.contains("nothing is different"));

    publisher.add_package(&fails_on_black(&dir.path().join("bad"), "1.2.0"));
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
    daemon.stop();
    subscriber.event("the farewell", |t, e| t.ends_with("/status") && e["state"] == "stopped");
    assert_whole(subscriber.lines());
    let reasons = |line: &&String| line.contains("\"end_reason\":\"model_swap\"");
    assert_eq!(subscriber.lines().iter().filter(reasons).count(), 0);
}

/// Releases that are at fault, each found out before it takes over, while the model in use scores every window.
#[test]
fn each_release_that_is_at_fault_is_refused_with_its_code_and_the_model_in_use_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let publisher = Publisher::start(dir.path());
    let mut subscriber = broker.subscribe();
    let cameras = [("white", WHITE.to_owned()), ("more", WHITE.to_owned())];
    let mut text = config(&broker, &publisher.updates(), &cameras);
    let mut graphs: Vec<(&str, &str, &[&str])> = vec![
        ("not-finite", "not_finite", &[]),
        ("disagrees", "golden_mismatch", &[]),
        // The graph of the model in use: no graph is that fast.
        ("", "too_slow_model", &["--latency-p99-ms", "0.001"]),
    ];
    // What brings a process down brings down ONNX Runtime's; tract refuses it.
    if std::env::var_os("ORT_DYLIB_PATH").is_some_and(|library| !library.is_empty()) {
        text = text.replace("backend = \"tract\"", "backend = \"ort\"");
        graphs.insert(0, ("crashes", "worker_crashed", &[]));
        graphs.insert(1, ("eats-memory", "worker_memory", &["--peak-memory-mb", "1000"]));
    }
    let at_fault = graphs.len() as f64;
    let mut daemon = Daemon::start(dir.path(), &text);
    let started = event(&mut subscriber, "white", "started", "1.0.0");
    for (number, (name, code, gates)) in graphs.into_iter().enumerate() {
        let version = format!("2.{number}.0");
        publisher.add(&version, (!name.is_empty()).then(|| graph(name)).as_deref());
        publisher.set(&version, gates);
        let failed = state(&mut subscriber, &format!("{name}: {code}"), |m| {
            m["state"] == "idle" && m["error"]["code"] == code && m["waits_for"] == "quarantined"
        });
        assert_eq!((&failed["installed"]["version"], &failed["installed"]["epoch"]), (&"1.0.0".into(), &Value::Null));
        assert_eq!(failed["quarantine"].as_array().unwrap().len(), number + 1);
    }
    assert_eq!(left_out(&daemon), 0.0);
    let goes_on = event(&mut subscriber, "white", "updated", "1.0.0");
    assert_eq!(goes_on["data"]["action_id"], started["data"]["action_id"]);
    assert_eq!(daemon.metric("kinewatch_update_quarantined_total"), Some(at_fault));
    // Other labels, and that is meant: it takes over, and what is open cannot go on under another name.
    let other = copy(&package("tiny-bright"), &dir.path().join("labels"));
    let labels = std::fs::read_to_string(other.join("labels.txt")).unwrap().replace("wave", "greet");
    std::fs::write(other.join("labels.txt"), labels).unwrap();
    rewrite(&other, |text| text.replace("\"wave\"", "\"greet\"").replacen("\"1.0.0\"", "\"3.0.0\"", 1));
    publisher.add_package(&other);
    let gates =
        ["--latency-p99-ms", "1000", "--peak-memory-mb", "1000", "--probation-windows", "20", "--probation-s", "1"];
    let quick = [&["--labels", "changed"][..], &gates].concat();
    publisher.set("3.0.0", &quick);
    let ended = event(&mut subscriber, "white", "ended", "1.0.0");
    assert_eq!(ended["data"]["end_reason"], "model_swap");
    subscriber.event("greet", |t, e| t.ends_with("/evt/white/greet") && e["data"]["status"] == "started");
    state(&mut subscriber, "the other labels", |m| rests(m, "3.0.0"));
    daemon.stop();
    subscriber.event("the farewell", |t, e| t.ends_with("/status") && e["state"] == "stopped");
    assert_whole(subscriber.lines());
}

/// ONNX Runtime alone runs a loop that has no end.
#[test]
fn a_release_whose_proof_does_not_end_is_given_up() {
    if std::env::var_os("ORT_DYLIB_PATH").is_none_or(|library| library.is_empty()) {
        println!("without ONNX Runtime: no graph is known that hangs");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let publisher = Publisher::start(dir.path());
    publisher.add("1.1.0", Some(&graph("hangs")));
    publisher.set("1.1.0", &QUICK);
    let mut subscriber = broker.subscribe();
    let updates = publisher.updates().replace("poll_s", "proof_timeout_s = 10\npoll_s");
    let text = config(&broker, &updates, &[("white", WHITE.to_owned())]).replace("\"tract\"", "\"ort\"");
    let mut daemon = Daemon::start(dir.path(), &text);
    let failed = state(&mut subscriber, "the proof to be given up", |m| {
        m["error"]["code"] == "worker_timeout" && m["waits_for"] == "quarantined"
    });
    assert_eq!(failed["installed"]["version"], "1.0.0");
    assert_eq!(left_out(&daemon), 0.0);
    daemon.stop();
}

/// The child that proves a release, once it has taken over its signals.
fn worker_of(daemon: &Daemon) -> u32 {
    let read = |pid: u32, name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let parent = format!("PPid:\t{}\n", daemon.log.id());
    let is_it = |pid: &u32| {
        let status = read(*pid, "status");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap_or("0");
        let takes_term = u64::from_str_radix(caught, 16).unwrap() & (1 << (15 - 1)) != 0;
        status.contains(&parent) && takes_term && read(*pid, "cmdline").contains("model-worker")
    };
    let mut found = None;
    wait_until("the process that proves it", || {
        let all =
            std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        found = all.into_iter().find(is_it);
        found.is_some()
    });
    found.unwrap()
}

/// Who stops a service signals each of its processes, the one that proves a release among them.
#[test]
fn a_stop_in_the_middle_of_a_proof_says_nothing_about_the_release() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let publisher = Publisher::start(dir.path());
    // Its proof takes many seconds.
    let slow = copy(&package("tiny-slow"), &dir.path().join("slow"));
    rewrite(&slow, |text| text.replacen("tiny-slow", MODEL, 1).replacen("1.0.0", "1.1.0", 1));
    publisher.add_package(&slow);
    publisher.set("1.1.0", &["--shadow-windows", "0"]);
    let text = config(&broker, &publisher.updates(), &[("white", WHITE.to_owned())]);
    for _ in 0..2 {
        let mut daemon = Daemon::start(dir.path(), &text);
        let worker = worker_of(&daemon).to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &worker]).status().unwrap().success());
        daemon.stop();
        let (code, list, _) = model(dir.path(), &["list"]);
        assert!(code == Some(0) && list.contains("proving") && !list.contains("failed here"), "{list}");
        let (_, history, _) = model(dir.path(), &["history"]);
        assert!(!history.contains("worker_") && !history.contains("interrupted"), "{history}");
    }
}

/// For a hundred windows nothing is wrong with it.
#[test]
fn a_release_that_fails_late_in_its_probation_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let publisher = Publisher::start(dir.path());
    publisher.add_package(&fails_on_black(&dir.path().join("bad"), "1.1.0"));
    publisher.set("1.1.0", &["--shadow-windows", "0", "--probation-windows", "100000"]);
    let mut subscriber = broker.subscribe();
    let cameras = [("white", WHITE.to_owned()), ("black", BLACK.to_owned())];
    let mut daemon = Daemon::start(dir.path(), &config(&broker, &publisher.updates(), &cameras[..1]));
    subscriber.event("a hundred windows", |t, p| {
        t.ends_with("/model/progress") && p["state"] == "probation" && p["done"].as_u64() >= Some(100)
    });
    daemon.reload(dir.path(), &config(&broker, &publisher.updates(), &cameras));
    let failed = state(&mut subscriber, "the release to fail", |m| {
        rests(m, "1.0.0") && m["error"]["code"] == "probation_failed" && m["waits_for"] == "quarantined"
    });
    assert_eq!(failed["quarantine"][0]["version"], "1.1.0");
    daemon.stop();
    subscriber.event("the farewell", |t, e| t.ends_with("/status") && e["state"] == "stopped");
    assert_whole(subscriber.lines());
}

/// Memory for one model at a time: windows between are left out, and the action goes on.
#[test]
fn where_memory_holds_one_model_the_old_one_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let publisher = Publisher::start(dir.path());
    let mut subscriber = broker.subscribe();
    let updates =
        publisher.updates().replace("\"hot\"", "\"serial\"").replace("[updates]", "[updates]\npolicy = \"manual\"");
    let mut daemon = Daemon::start(dir.path(), &config(&broker, &updates, &[("white", WHITE.to_owned())]));
    let started = event(&mut subscriber, "white", "started", "1.0.0");
    publisher.add("1.1.0", None);
    publisher.set("1.1.0", &QUICK);
    state(&mut subscriber, "the offer to wait for somebody", |m| m["waits_for"] == "approval");
    broker.send("_all", "model-check", &["-m", "{}"]);
    let answer = broker.ask("model-install", &format!(r#"{{"model":"{MODEL}"}}"#));
    assert!(answer["ok"] == true && answer["result"]["model"] == MODEL, "{answer}");
    state(&mut subscriber, "the release", |m| rests(m, "1.1.0"));
    let (_, history, _) = model(dir.path(), &["history", "--json"]);
    assert!(history.contains("\"code\":\"not_compared\""), "it was to agree with one that was not there: {history}");
    let goes_on = event(&mut subscriber, "white", "updated", "1.1.0");
    assert_eq!(goes_on["data"]["action_id"], started["data"]["action_id"]);
    let swapped =
        daemon.metric("kinewatch_windows_dropped_total{camera=\"white\",model=\"tiny-bright\",reason=\"swap\"}");
    assert_eq!(Some(left_out(&daemon)), swapped, "nothing but what had to be left out");
    // Pinned, nothing moves; a newer release is only seen.
    assert_eq!(model(dir.path(), &["pin", MODEL]).0, Some(0));
    publisher.add("1.2.0", None);
    publisher.set("1.2.0", &QUICK);
    state(&mut subscriber, "the pin", |m| {
        m["pinned"] == true && m["waits_for"] == "pinned" && m["offered"]["version"] == "1.2.0"
    });
    assert_eq!(model(dir.path(), &["install", MODEL]).0, Some(1));
    daemon.stop();
    assert_eq!(model(dir.path(), &["list"]).0, Some(0), "also where no agent runs");
}

/// The release cannot be laid out here, and the model before it goes from the disk while that is proven.
#[test]
fn where_neither_model_can_be_opened_what_is_open_ends_and_a_reload_brings_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let publisher = Publisher::start(dir.path());
    let mut subscriber = broker.subscribe();
    let factory = copy(&package(MODEL), &dir.path().join("factory"));
    // It takes two zones; the camera has three.
    let boxes = copy(&package("tiny-boxes"), &dir.path().join("boxes"));
    // Its proof takes seconds.
    let clip = "[[golden.clips]]\nframes = \"golden/none.npy\"\nlogits = \"golden/none.logits.npy\"\n";
    rewrite(&boxes, |text| {
        text.replacen("tiny-boxes", MODEL, 1).replacen("1.0.0", "1.1.0", 1).replace(clip, &clip.repeat(98))
    });
    publisher.add_package(&boxes);
    publisher.set("1.1.0", &["--shadow-windows", "0"]);
    let updates =
        publisher.updates().replace("\"hot\"", "\"serial\"").replace("[updates]", "[updates]\npolicy = \"manual\"");
    let text = config(&broker, &updates, &[("white", WHITE.to_owned())]);
    let text = text.replace(&package(MODEL).display().to_string(), &factory.display().to_string())
        + "zones = [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], [0.2, 0.2, 0.8, 0.8]]\n";
    let mut daemon = Daemon::start(dir.path(), &text);
    event(&mut subscriber, "white", "started", "1.0.0");
    state(&mut subscriber, "the offer to wait for somebody", |m| m["waits_for"] == "approval");

    let (graph, away) = (factory.join("tiny.fp32.onnx"), dir.path().join("away"));
    assert_eq!(model(dir.path(), &["install", MODEL]).0, Some(0));
    worker_of(&daemon);
    std::fs::rename(&graph, &away).unwrap();
    let ended = event(&mut subscriber, "white", "ended", "1.0.0");
    assert_eq!(ended["data"]["end_reason"], "stream_lost", "{}", daemon.log.seen().join("\n"));
    let failing = |daemon: &Daemon| daemon.metric("kinewatch_model_failing{camera=\"white\",model=\"tiny-bright\"}");
    wait_until("the model to fail", || failing(&daemon) == Some(1.0));
    assert!(
        daemon.log.seen().iter().any(|line| line.contains("a reload of the configuration (SIGHUP) tries it again"))
    );

    std::fs::rename(&away, &graph).unwrap();
    daemon.reload(dir.path(), &text);
    event(&mut subscriber, "white", "started", "1.0.0");
    wait_until("the model to work", || failing(&daemon) == Some(0.0));
    daemon.stop();
    subscriber.event("the farewell", |t, e| t.ends_with("/status") && e["state"] == "stopped");
    assert_whole(subscriber.lines());
}

/// A disk without room beside what is kept for events: said, tried later, and nothing of the release is left on it.
#[test]
fn a_release_that_finds_no_space_waits_and_one_that_was_proven_is_loaded_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut publisher = Publisher::start(dir.path());
    publisher.add("1.1.0", None);
    publisher.set("1.1.0", &QUICK);
    let mut subscriber = broker.subscribe();
    let cameras = [("white", WHITE.to_owned())];
    let text = config(&broker, &publisher.updates(), &cameras);
    let full = text.replace("reserve_mb = 0", "reserve_mb = 1000000");
    let mut daemon = Daemon::start(dir.path(), &full);
    let failed = state(&mut subscriber, "no space", |m| m["state"] == "idle" && m["error"]["code"] == "no_space");
    assert_eq!((&failed["installed"]["version"], &failed["quarantine"]), (&"1.0.0".into(), &Value::Array(Vec::new())));
    assert!(std::fs::read_dir(dir.path().join("state/models/parts")).unwrap().next().is_none());
    daemon.stop();

    // Somebody has made room, and does not wait for the pause to be over.
    let mut daemon = Daemon::start(dir.path(), &text);
    event(&mut subscriber, "white", "started", "1.0.0");
    assert_eq!(model(dir.path(), &["install", MODEL]).0, Some(0));
    state(&mut subscriber, "the release", |m| rests(m, "1.1.0"));
    daemon.stop();

    // Without the repository, and with the database gone: the links name what has proven itself.
    publisher.cut();
    for name in ["updates.db", "updates.db-wal", "updates.db-shm"] {
        let _not_there = std::fs::remove_file(dir.path().join("state/models").join(name));
    }
    let mut daemon = Daemon::start(dir.path(), &text);
    event(&mut subscriber, "white", "started", "1.1.0");
    state(&mut subscriber, "the repository is away", |m| {
        m["repository_error"]["code"] == "unreachable" && m["installed"]["version"] == "1.1.0"
    });
    daemon.stop();
    assert_whole(subscriber.lines());
}

/// Who asks whether there is something newer is told what the repository says, not that it is being asked.
#[test]
fn a_look_at_the_repository_says_what_came_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut publisher = Publisher::start(dir.path());
    let mut subscriber = broker.subscribe();
    let updates = publisher.updates().replace("poll_s = 1\n", "poll_s = 86400\npolicy = \"manual\"\n");
    let mut daemon = Daemon::start(dir.path(), &config(&broker, &updates, &[("white", WHITE.to_owned())]));
    event(&mut subscriber, "white", "started", "1.0.0");
    let (code, _, told) = model(dir.path(), &["check-update"]);
    assert!(code == Some(1) && told.contains("tiny-bright: channel_missing: "), "{told}");
    publisher.add("1.1.0", None);
    publisher.set("1.1.0", &QUICK);
    let (code, said, told) = model(dir.path(), &["check-update"]);
    let expected =
        "tiny-bright: offered 1.1.0 (epoch 1), waits: for approval, by `kinewatch model install tiny-bright`";
    assert_eq!((code, said.trim()), (Some(0), expected), "{told}");
    assert_eq!(model(dir.path(), &["install", MODEL]).0, Some(0));
    state(&mut subscriber, "the release", |m| rests(m, "1.1.0"));
    let (code, said, _) = model(dir.path(), &["check-update"]);
    assert_eq!((code, said.trim()), (Some(0), "tiny-bright: up to date, 1.1.0 (epoch 1) runs"));
    let (code, said, _) = model(dir.path(), &["check-update", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["models"][0]["offered"]["epoch"]), (Some(0), &1.into()));
    publisher.cut();
    let (code, said, told) = model(dir.path(), &["check-update"]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(told.contains("tiny-bright: unreachable: the repository cannot be reached"), "{told}");
    daemon.stop();
}
