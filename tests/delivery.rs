//! Events on their way: a real broker that is away for long, and the daemon on disks that are full, damaged or gone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/mount.rs"]
mod mount;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use kinewatch::clock_journal::ClockJournal;
use kinewatch::delivery::{self, Command as Tell, Decided, Delivery, Disk, FeedOptions, NewEvent, Queues, SendOrder};
use kinewatch::health::Shared;
use kinewatch_core::event::{ActionEvent, ActionStatus, ClockState};
use kinewatch_core::topic;
use kinewatch_mqtt::{Client, Endpoint, Options};
use kinewatch_store::{KeepUntil, StoreOptions};
use mount::Mount;
use serde_json::Value;
use support::{Broker, Daemon, Process, Stream, free_port, kinewatch, root, wait_until};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// Store thread and MQTT client as the daemon has them, without cameras: events come from the test.
struct Bench {
    runtime: tokio::runtime::Runtime,
    commands: mpsc::Sender<Tell>,
    decided: mpsc::Sender<Decided>,
    shared: Arc<Shared>,
    thread: std::thread::JoinHandle<()>,
}

impl Bench {
    fn start(state: &Path, port: u16, keep_until: KeepUntil, feed: FeedOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let shared = Arc::new(Shared::new("test", "box", "b", vec![], vec![]));
        let options = StoreOptions { keep_until, outbox_bytes: 256 << 20, ..StoreOptions::default() };
        let disk = Disk::open(state, delivery::store_options(options), Arc::clone(&shared)).unwrap();
        let endpoint = Endpoint::parse(&format!("mqtt://127.0.0.1:{port}")).unwrap();
        let options = Options { window: feed.window, ..Options::new(endpoint, "bench") };
        let (client, mut signals) = Client::spawn(options, runtime.handle());
        let (commands, command_queue) = mpsc::channel(delivery::QUEUE);
        let (decided, decision_queue) = mpsc::channel(delivery::QUEUE);
        let queues = Queues { decided: decision_queue, commands: command_queue };
        let to = commands.clone();
        runtime.spawn(async move {
            while let Some(signal) = signals.recv().await {
                if to.send(Tell::Signal(signal)).await.is_err() {
                    break;
                }
            }
        });
        let (journal, _, step) = ClockJournal::open(state, disk.session(), ((0, 0), &ClockState::default()));
        let outgoing = client.outgoing();
        let delivery = Delivery::new(disk, keep_until, feed, outgoing, Arc::clone(&shared), (journal, step));
        let handle = runtime.handle().clone();
        let thread = std::thread::spawn(move || {
            delivery.run(queues, &handle);
            drop(client);
        });
        Self { runtime, commands, decided, shared, thread }
    }

    /// Stores `actions` of ten messages each.
    fn decide(&self, actions: u32) {
        for _ in 0..actions {
            let action_id = Uuid::now_v7();
            for step in 0..10 {
                let status = match step {
                    0 => ActionStatus::Started,
                    9 => ActionStatus::Ended,
                    _ => ActionStatus::Updated,
                };
                let event = event(action_id, status);
                self.decided.blocking_send(Decided::Event(Box::new(event))).unwrap();
            }
        }
    }

    fn stored(&self) -> u64 {
        let view = &self.shared.delivery;
        view.outbox_messages.load(Relaxed) + view.acked.load(Relaxed)
    }

    fn stop(self) {
        self.commands.blocking_send(Tell::Stop).unwrap();
        self.thread.join().unwrap();
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

fn event(action_id: Uuid, status: ActionStatus) -> NewEvent {
    let text = std::fs::read_to_string(root().join("config/schema/example-action-event.json")).unwrap();
    let mut event: ActionEvent = serde_json::from_str(&text).unwrap();
    (event.id, event.data.action_id, event.data.status) = (Uuid::now_v7(), action_id, status);
    event.source = "//kinewatch/test/box/cam/front".into();
    if status != ActionStatus::Ended {
        (event.data.end, event.data.end_reason) = (None, None);
    }
    NewEvent { topic: topic::event("test", "box", "front", &event.data.label), event }
}

/// Sequence numbers of events in the order of their coming, each once.
fn sequences(lines: &[String]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    let sequence = |line: &String| {
        let (topic, payload) = line.split_once('\t')?;
        let value: Value = serde_json::from_str(payload).ok().filter(|_| topic.contains("/evt/"))?;
        value["sequence"].as_str()?.parse().ok()
    };
    lines.iter().filter_map(sequence).filter(|s| seen.insert(*s)).collect()
}

fn resident_kb(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().trim_end_matches(" kB").parse().ok()).unwrap()
}

#[test]
fn twenty_thousand_events_wait_for_the_broker_and_all_arrive_in_order() {
    const ACTIONS: u32 = 2_000;
    let events = u64::from(ACTIONS) * 10;
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let feed = FeedOptions { window: 32, order: SendOrder::Sequence, backlog_per_s: 10_000 };
    let bench = Bench::start(&dir.path().join("state"), port, KeepUntil::Broker, feed);
    bench.decide(ACTIONS / 10);
    wait_until("the first events on disk", || bench.stored() == events / 10);
    let memory = resident_kb("self");
    let began = Instant::now();
    bench.decide(ACTIONS - ACTIONS / 10);
    wait_until("the events on disk", || bench.stored() == events);
    let stored = began.elapsed();
    let grown = resident_kb("self").saturating_sub(memory);
    assert!(grown < 20_000, "{grown} kB more for {events} events that wait");

    let broker = Broker::start_on(port, dir.path(), "max_inflight_messages 0\nmax_queued_messages 0\n");
    let mut subscriber = broker.subscribe();
    let began = Instant::now();
    let last = format!("{events:020}");
    subscriber.event("the last event", |_, e| e["sequence"] == last.as_str());
    let arrived = began.elapsed();
    wait_until("the last acknowledgement", || bench.shared.delivery.outbox_messages.load(Relaxed) == 0);
    let seen = sequences(subscriber.lines());
    let first = *seen.first().unwrap();
    // The client may have connected a moment before the subscriber did.
    assert_eq!(seen, (first..=events).collect::<Vec<_>>(), "in order, without a hole");
    assert!(first < 200, "{first}");
    assert!(subscriber.lines().iter().all(|line| line.contains("\"replayed\":true") || line.contains("status")));
    println!(
        "{events} events: stored {:.0}/s, delivered {:.0}/s, {grown} kB more memory while they waited",
        events as f64 * 0.9 / stored.as_secs_f64(),
        (events - first) as f64 / arrived.as_secs_f64()
    );
    bench.stop();
}

#[test]
fn a_consumer_gets_what_a_broker_without_memory_has_forgotten() {
    const ACTIONS: u32 = 300;
    let events = u64::from(ACTIONS) * 10;
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), "");
    let port = broker.port;
    let feed = FeedOptions { window: 32, order: SendOrder::Sequence, backlog_per_s: 500 };
    let bench = Bench::start(&dir.path().join("state"), port, KeepUntil::Consumer, feed);
    let mut subscriber = broker.subscribe();
    bench.decide(ACTIONS / 2);
    subscriber.event("a third of the events", |_, e| e["sequence"] == format!("{:020}", events / 3).as_str());
    broker.kill();
    bench.decide(ACTIONS / 2);
    let mut lines = subscriber.lines().to_vec();
    let broker = Broker::start_on(port, dir.path(), "");
    // Nobody listens while the client is back already.
    wait_until("all to be with the broker", || bench.shared.delivery.outbox_kept.load(Relaxed) == events);
    let mut subscriber = broker.subscribe();
    let have = sequences(&lines);
    let missing = (1..).find(|n| !have.contains(n)).unwrap();
    assert!(missing < events, "the broker has forgotten something");
    let ask = |make: fn(u64, oneshot::Sender<Result<_, String>>) -> Tell, number| {
        let (reply, answer) = oneshot::channel();
        bench.commands.blocking_send(make(number, reply)).unwrap();
        answer.blocking_recv().unwrap()
    };
    let again = ask(|from, reply| Tell::Resend { from, reply }, missing).unwrap();
    assert_eq!((again.first, again.messages), (Some(missing), events - missing + 1));
    subscriber.event("the last event", |_, e| e["sequence"] == format!("{events:020}").as_str());
    lines.extend(subscriber.lines().to_vec());
    assert_eq!(sequences(&lines), (1..=events).collect::<Vec<_>>());
    wait_until("all to be with the broker again", || bench.shared.delivery.outbox_kept.load(Relaxed) == events);
    let (reply, answer) = oneshot::channel();
    bench.commands.blocking_send(Tell::Consumed { up_to: events, reply }).unwrap();
    let ack = answer.blocking_recv().unwrap().unwrap();
    assert_eq!((ack.released, ack.kept), (events, 0));
    bench.stop();
}

/// A daemon whose only camera is white for two of six seconds, for ever.
fn config(url: &str) -> String {
    let (model, video) = (root().join("tests/data/packages/tiny-bright"), root().join("tests/data/bright.mp4"));
    format!(
        "[mqtt]\nurl = \"{url}\"\n\n[engine]\nbackend = \"tract\"\n\n[[model]]\nname = \"m\"\npath = \"{}\"\n\n\
         [[camera]]\nname = \"front\"\nsource = \"file:{}?loop=true\"\nmodels = [\"m\"]\n",
        model.display(),
        video.display()
    )
}

fn is(event: &Value, status: &str) -> bool {
    event["data"]["status"] == status
}

/// Everything received keeps the promises of the event format; losses are stated.
fn check(lines: &[String]) {
    let mut stated = BTreeSet::new();
    for line in lines.iter().filter(|l| l.contains("/sys/gap\t")) {
        let gap: Value = serde_json::from_str(line.split_once('\t').unwrap().1).unwrap();
        stated.extend(gap["data"]["first"].as_u64().unwrap()..=gap["data"]["last"].as_u64().unwrap());
    }
    let seen: BTreeSet<u64> = sequences(lines).into_iter().collect();
    let (first, last) = (*seen.first().unwrap(), *seen.last().unwrap());
    let missing: Vec<u64> = (first..=last).filter(|s| !seen.contains(s) && !stated.contains(s)).collect();
    assert_eq!(missing, [0; 0], "lost without a word");
}

fn ready(daemon: &Daemon) -> Option<String> {
    daemon.get("/readyz")
}

#[test]
fn the_daemon_watches_on_a_full_disk_and_says_so() {
    let Some(disk) = Mount::new("2m") else { return };
    let filler = disk.0.path().join("another program's");
    let _full = std::fs::write(&filler, vec![0; 4 << 20]);
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut subscriber = broker.subscribe();
    std::os::unix::fs::symlink(disk.0.path(), dir.path().join("state")).unwrap();
    let mut daemon = Daemon::start(dir.path(), &config(&broker.url()));
    let state = subscriber.event("the state of the store", |topic, _| topic.ends_with("/box/store"));
    assert_eq!(state["state"], "full", "{state}");
    assert!(state["error"].as_str().unwrap().contains("the disk is full"), "{state}");
    daemon.log.wait_for("the store fails", |line| line.contains("the store fails") && line.contains("full"));
    wait_until("an event in memory", || daemon.metric("kinewatch_store_waiting ").is_some_and(|n| n >= 1.0));
    let told = ready(&daemon).unwrap();
    assert!(told.starts_with("events cannot be stored: ") && told.lines().count() == 1, "{told}");
    let status: Value = serde_json::from_str(&daemon.get("/status").unwrap()).unwrap();
    assert_eq!((&status["store"]["state"], &status["ready"]), (&"full".into(), &false.into()));
    assert_eq!(daemon.metric("kinewatch_store_up "), Some(0.0));
    assert!(daemon.metric("kinewatch_store_errors_total{kind=\"full\"}").is_some_and(|n| n >= 1.0));
    assert_eq!(sequences(subscriber.lines()), [0; 0], "nothing is sent that is not stored");

    std::fs::remove_file(&filler).unwrap();
    // In any order.
    let (mut first, mut state) = (Value::Null, Value::Null);
    subscriber.event("the first event, and that the store works", |topic, e| {
        if topic.contains("/evt/") && first.is_null() {
            first = e.clone();
        }
        if topic.ends_with("/box/store") && e["state"] == "ok" {
            state = e.clone();
        }
        !first.is_null() && !state.is_null()
    });
    assert_eq!(first["sequence"], format!("{:020}", 1));
    assert_eq!(state["error"], Value::Null);
    wait_until("to be ready", || ready(&daemon).as_deref() == Some("ready\n"));
    daemon.log.wait_for("the store works again", |line| line.contains("the store works again"));

    // Full again while it runs. What is stored already is delivered; what comes waits.
    let _full = std::fs::write(&filler, vec![0; 4 << 20]);
    subscriber.event("it to be full again", |topic, e| topic.ends_with("/store") && e["state"] == "full");
    let frames = daemon.metric("kinewatch_frames_total").unwrap();
    wait_until("frames to go on", || daemon.metric("kinewatch_frames_total").unwrap() > frames + 20.0);
    std::fs::remove_file(&filler).unwrap();
    subscriber.event("another action to end", |topic, e| topic.contains("/evt/") && is(e, "ended"));
    daemon.stop();
    subscriber.event("the farewell", |t, e| t.ends_with("/status") && e["state"] == "stopped");
    check(subscriber.lines());
}

#[test]
fn a_damaged_or_removed_store_is_told_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut subscriber = broker.subscribe();
    let state = dir.path().join("state");
    let mut daemon = Daemon::start(dir.path(), &config(&broker.url()));
    subscriber.event("an action", |topic, e| topic.contains("/evt/") && is(e, "ended"));
    // Removed while it runs.
    std::fs::remove_dir_all(&state).unwrap();
    daemon.log.wait_for("the store to be put back", |line| line.contains("put back whole"));
    subscriber.event("an action begins", |topic, e| topic.contains("/evt/") && is(e, "started"));
    daemon.log.kill();
    // Damaged while it does not: all but the pages that say which actions are open.
    let database = state.join("events.db");
    let mut bytes = std::fs::read(&database).unwrap();
    let wal = std::fs::metadata(state.join("events.db-wal")).map_or(0, |m| m.len());
    bytes[100..200].fill(0x5a);
    std::fs::write(&database, bytes).unwrap();
    let _ = std::fs::remove_file(state.join("events.db-wal"));
    let before = *sequences(subscriber.lines()).last().unwrap();
    let mut daemon = Daemon::start(dir.path(), &config(&broker.url()));
    // In any order.
    let (mut state, mut lost) = (Value::Null, false);
    subscriber.event("the state of the store, and what may be lost", |topic, e| {
        if topic.ends_with("/store") && !e["set_aside"].is_null() {
            state = e.clone();
        }
        lost |= topic.ends_with("/sys/gap") && e["data"]["reason"] == "database_lost";
        lost && !state.is_null()
    });
    assert_eq!(state["state"], "ok", "{state} (log of {wal} bytes)");
    assert!(state["set_aside"].as_str().unwrap().contains("events.db.corrupt-1"));
    let next = subscriber.event("an action begins", |topic, e| topic.contains("/evt/") && is(e, "started"));
    let next: u64 = next["sequence"].as_str().unwrap().parse().unwrap();
    assert!(next > before, "{next} after {before}");
    assert!(daemon.metric("kinewatch_outbox_damaged_total").is_some_and(|n| n >= 1.0));
    daemon.stop();
    subscriber.event("the farewell", |t, e| t.ends_with("/status") && e["state"] == "stopped");
    check(subscriber.lines());
}

fn run(arguments: &[&str], state: &Path) -> (bool, String, String) {
    let mut command = kinewatch();
    let done = command.args(arguments).arg("--state-dir").arg(state).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.success(), text(done.stdout), text(done.stderr))
}

#[test]
fn what_is_stored_can_be_looked_at_beside_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (ok, _, error) = run(&["events", "history"], &state);
    assert!(!ok && error.contains("no such file"), "{error}");
    // No broker: everything waits.
    let mut daemon = Daemon::start(dir.path(), &config(&format!("mqtt://127.0.0.1:{}", free_port())));
    wait_until("two actions", || daemon.metric("kinewatch_outbox_messages ").is_some_and(|n| n >= 4.0));
    let (ok, table, _) = run(&["events", "history", "--camera", "front"], &state);
    assert!(ok && table.contains("started") && table.contains("wave") && table.contains("waits"), "{table}");
    let (_, lines, _) = run(&["events", "history", "--json", "--limit", "2"], &state);
    assert_eq!(lines.lines().count(), 2);
    let newest: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((&newest["acknowledged"], &newest["event"]["subject"]), (&false.into(), &"wave".into()));
    assert!(run(&["events", "history", "--camera", "nobody"], &state).1.contains("no event stored"));
    let (_, told, _) = run(&["events", "outbox"], &state);
    assert!(told.contains("waits for the broker:   ") && told.contains("losses to be stated:    none"), "{told}");
    let (_, told, _) = run(&["events", "outbox", "--json"], &state);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(told["waiting"]["messages"].as_u64().unwrap() >= 4 && told["messages"][0]["waits_for"] == "broker");
    let written = dir.path().join("events.jsonl");
    let (ok, _, error) = run(&["events", "export", "--out", written.to_str().unwrap()], &state);
    assert!(ok && error.contains("events written"), "{error}");
    let table = kinewatch().args(["events", "table", "--events"]).arg(&written).output().unwrap();
    assert!(String::from_utf8_lossy(&table.stdout).contains("wave"));
    let written = dir.path().join("events.csv");
    run(&["events", "export", "--out", written.to_str().unwrap()], &state);
    let csv = std::fs::read_to_string(&written).unwrap();
    assert!(csv.starts_with("sequence,id,action_id,rev,status") && csv.lines().count() >= 5, "{csv}");
    let (ok, _, error) = run(&["events", "export", "--out", "events.xml"], &state);
    assert!(!ok && error.contains(".jsonl"), "{error}");
    // The daemon was not disturbed.
    let stored = daemon.metric("kinewatch_outbox_messages ").unwrap();
    wait_until("another event", || daemon.metric("kinewatch_outbox_messages ").is_some_and(|n| n > stored));
    assert_eq!(daemon.metric("kinewatch_store_up "), Some(1.0));
    daemon.stop();
    let mut follow = kinewatch();
    follow.args(["events", "history", "--state-dir"]).arg(&state);
    let mut follow = Process::start(follow, Stream::Stdout);
    follow.wait_for("what the stop has ended", |line| line.contains("ended"));
}
