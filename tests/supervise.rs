//! What hangs, dies or is told to stop: the daemon as its service manager sees it.
//!
//! `agent/examples/faulty.rs` is the daemon with a stage that hangs or panics; the test itself is the service manager and
//! listens on `NOTIFY_SOCKET`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kinewatch::analytics::{Analytics, CameraPlan, ModelTurn, Origin, Sink, WindowDrop};
use kinewatch::models;
use kinewatch_core::decode::{Decision, EndReason, Status};
use kinewatch_core::frame::{Frame, FrameBuf, FrameMeta};
use kinewatch_core::manifest::Overrides;
use kinewatch_core::time::{Pts, SessionId};
use kinewatch_engine::{BackendChoice, OpenOptions};
use support::{Broker, DEADLINE, Daemon, Process, Stream, example, kinewatch, root};

/// A bright picture for ever: an action begins at once and does not end.
const BRIGHT: &str = "test:white?size=160x120&fps=10";

fn config(broker: &str, cameras: &[&str]) -> String {
    let model = root().join("tests/data/packages/tiny-bright");
    let head = format!("[mqtt]\nurl = \"{broker}\"\n\n[engine]\nbackend = \"tract\"\n\n[[model]]\nname = \"m\"\n");
    let camera = |name: &&str| format!("\n[[camera]]\nname = \"{name}\"\nsource = \"{BRIGHT}\"\nmodels = [\"m\"]\n");
    let cameras: String = cameras.iter().map(camera).collect();
    format!("{head}path = \"{}\"\n{cameras}", model.display())
}

/// What the daemon tells its service manager.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    told: Vec<String>,
}

impl Manager {
    fn listen(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, path, told: Vec::new() }
    }

    fn start(&self, mut program: Command, watchdog: Option<Duration>) -> Command {
        program.env("NOTIFY_SOCKET", &self.path);
        if let Some(limit) = watchdog {
            program.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        program
    }

    /// The next message that satisfies `wanted`.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut buffer = [0; 4096];
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            let Ok(size) = self.socket.recv(&mut buffer) else { break };
            let told = String::from_utf8_lossy(&buffer[..size]).trim_end().to_owned();
            self.told.push(told.clone());
            if wanted(&told) {
                return told;
            }
        }
        panic!("waited {DEADLINE:?} for {what}; told:\n{}", self.told.join("\n"));
    }

    /// What it has been told, with what is still to be read.
    fn told(&mut self) -> &[String] {
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        while let Ok(size) = self.socket.recv(&mut buffer) {
            self.told.push(String::from_utf8_lossy(&buffer[..size]).trim_end().to_owned());
        }
        self.socket.set_nonblocking(false).unwrap();
        &self.told
    }
}

#[test]
fn a_stage_that_hangs_is_named_and_the_process_ends_to_be_started_again() {
    for stage in ["inference", "store", "publisher"] {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path(), "");
        let mut subscriber = broker.subscribe();
        let mut manager = Manager::listen(dir.path());
        let mut program = manager.start(example("faulty"), Some(Duration::from_secs(6)));
        program.env("KINEWATCH_TEST_STICK", format!("{stage}:4"));
        let text = config(&broker.url(), &["front"]);
        let mut daemon = Daemon::start_program(program, dir.path(), &text);
        let open = subscriber.event("an open action", |_, e| e["data"]["status"] == "started");
        manager.wait_for("the first feeding", |told| told == "WATCHDOG=1");
        let first = |told: &str| manager.told.iter().position(|t| t == told);
        assert!(first("READY=1") < first("WATCHDOG=1") && first("READY=1").is_some(), "{:?}", manager.told);
        let stuck = manager.wait_for("its name", |told| told.starts_with("STATUS=stuck: "));
        assert!(stuck.contains(&format!("stuck: {stage} makes no progress since ")), "{stuck}");
        let health = daemon.get("/healthz").unwrap();
        assert!(health.starts_with(&format!("{stage} makes no progress since ")), "{health}");
        manager.wait_for("the end", |told| told == "WATCHDOG=trigger");
        let fed = manager.told.iter().rposition(|t| t == "WATCHDOG=1").unwrap();
        assert!(fed < manager.told.iter().position(|t| *t == stuck).unwrap(), "{stage}: not fed any more");
        assert_eq!(daemon.log.wait().code(), Some(1), "{stage}");
        let named = daemon.log.seen().iter().filter(|l| l.contains(&format!("stage=\"{stage}\""))).count();
        assert_eq!(named, 1, "{stage} is named once in the log");
        // Started again, without the fault.
        let mut daemon = Daemon::start(dir.path(), &text);
        let ended = subscriber.event("its end", |_, e| e["data"]["end_reason"] == "recovered");
        assert_eq!(ended["data"]["action_id"], open["data"]["action_id"], "{stage}");
        daemon.stop();
    }
}

#[test]
fn a_camera_whose_thread_hangs_is_begun_anew_alone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut subscriber = broker.subscribe();
    let mut program = example("faulty");
    program.env("KINEWATCH_TEST_STICK", "capture one:2");
    let mut daemon = Daemon::start_program(program, dir.path(), &config(&broker.url(), &["one", "two"]));
    let status =
        |topic: &str, e: &serde_json::Value, status: &str| topic.contains("/evt/one/") && e["data"]["status"] == status;
    let open = subscriber.event("an open action", |topic, e| status(topic, e, "started"));
    let ended = subscriber.event("its end", |topic, e| status(topic, e, "ended"));
    assert_eq!(ended["data"]["action_id"], open["data"]["action_id"]);
    assert_eq!(ended["data"]["end_reason"], "stream_lost");
    subscriber.event("the next action", |topic, e| status(topic, e, "started"));
    daemon.log.wait_for("the camera's name", |line| line.contains("its thread has hung") && line.contains("one"));
    let left =
        |camera: &str| daemon.metric(&format!("kinewatch_capture_threads_abandoned_total{{camera=\"{camera}\"}}"));
    assert_eq!((left("one"), left("two")), (Some(1.0), Some(0.0)));
    assert_eq!(daemon.get("/healthz").unwrap(), "ok\n");
    let begun_anew = subscriber.lines().iter().filter(|l| l.contains("/evt/two/") && l.contains("\"ended\"")).count();
    assert_eq!(begun_anew, 0, "the other camera's action goes on");
    daemon.log.signal("TERM");
    assert!(daemon.log.wait().success(), "a thread left behind does not hold up the end");
}

#[test]
fn a_panic_anywhere_ends_the_process_with_a_report() {
    // A thread of ours, the task of the MQTT client, the thread of a camera, the thread that opens models.
    for (stage, thread) in [("store", "store"), ("publisher", "control"), ("capture", "cam-front"), ("opening", "open")]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut program = example("faulty");
        program.env("KINEWATCH_TEST_PANIC", format!("{stage}:0")).env("RUST_BACKTRACE", "1");
        let mut daemon = Daemon::start_program(program, dir.path(), &config("mqtt://127.0.0.1:1", &["front"]));
        assert_eq!(daemon.log.wait().code(), Some(101), "{stage}");
        let log = daemon.log.seen().join("\n");
        let report = log.lines().find(|l| l.contains("panicked")).unwrap_or_else(|| panic!("{stage}: {log}"));
        for part in [&format!("the thread {thread} panicked at "), "faulty.rs:", "as asked for", "kinewatch 0."] {
            assert!(report.contains(part), "{stage}: {part} is missing in {report}");
        }
        assert!(!log.contains("hunter2"), "{stage}: no password in {log}");
        // Inlined, it has no path.
        assert!(log.contains("on_beat"), "{stage}: a backtrace, as asked for: {log}");
        assert_eq!(log.matches("panicked").count(), 1, "{stage}: reported once");
    }
}

/// Where a panic would otherwise be caught by `gstreamer-rs`, and the camera be dead without a word.
#[test]
fn a_panic_in_a_callback_of_gstreamer_ends_the_process_too() {
    const CHILD: &str = "KINEWATCH_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        kinewatch::supervise::panics::install();
        panic_in_callback();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["a_panic_in_a_callback_of_gstreamer_ends_the_process_too", "--exact", "--nocapture"]).env(CHILD, "1");
    let mut child = Process::start(command, Stream::Stderr);
    assert_eq!(child.wait().code(), Some(101), "{:?}", child.seen());
    assert!(
        child.seen().iter().any(|l| l.contains("panicked at") && l.contains("in the callback")),
        "{:?}",
        child.seen()
    );
}

fn panic_in_callback() -> ! {
    use kinewatch_capture::{Branch, Camera, CameraOptions, Captured, Source};
    use kinewatch_core::frame::{Filter, FrameSpec, Resize, ScaleOrder};
    kinewatch_capture::init().unwrap();
    let (resize, filter, order) = (Resize::Stretch, Filter::Bilinear, ScaleOrder::ScaleConvert);
    let spec = FrameSpec { width: 32, height: 32, resize, filter, order };
    let branch = Branch { spec, rates_hz: vec![10.0], pool_frames: 4 };
    let options = CameraOptions::new("front", Source::parse(BRIGHT).unwrap(), vec![branch]);
    let on = |captured| assert!(!matches!(captured, Captured::Frame { .. }), "in the callback");
    let _camera = Camera::spawn(options, Box::new(on)).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_signal_while_models_are_opened_stops_at_once() {
    for signal in ["TERM", "INT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut manager = Manager::listen(dir.path());
        let mut program = manager.start(example("faulty"), None);
        program.env("KINEWATCH_TEST_STICK", "opening:0");
        let mut daemon = Daemon::start_program(program, dir.path(), &config("mqtt://127.0.0.1:1", &["front"]));
        manager.wait_for("the extension", |told| told.starts_with("EXTEND_TIMEOUT_USEC="));
        assert!(manager.told().iter().any(|t| t == "STATUS=opening model m"), "{:?}", manager.told);
        assert!(daemon.get("/readyz").unwrap().contains("opening model m"));
        daemon.log.signal(signal);
        let begun = Instant::now();
        assert!(daemon.log.wait().success(), "{signal}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{signal}: stopped after {:?}", begun.elapsed());
        assert!(manager.told().iter().any(|t| t.starts_with("STOPPING=1")), "{:?}", manager.told);
        assert!(!manager.told.iter().any(|t| t == "READY=1"), "{:?}", manager.told);
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once_whatever_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let hung = |daemon: &Daemon| {
        let silence = || daemon.metric("kinewatch_stage_silence_seconds{stage=\"inference\"}");
        until("inference to hang", || silence().is_some_and(|s| s > 2.0));
    };
    let start = || {
        let mut program = example("faulty");
        program.env("KINEWATCH_TEST_STICK", "inference:1");
        Daemon::start_program(program, dir.path(), &config("mqtt://127.0.0.1:1", &["front"]))
    };
    let mut daemon = start();
    hung(&daemon);
    daemon.log.signal("TERM");
    daemon.log.wait_for("the first to be served", |line| line.contains("SIGTERM: stopping"));
    daemon.log.signal("INT");
    assert_eq!(daemon.log.wait().code(), Some(1));
    assert!(!daemon.log.seen().iter().any(|l| l.contains("left behind")), "at once: {:?}", daemon.log.seen());
    // One signal alone: every part has its deadline, and a thread that hangs does not hold up the end.
    let mut daemon = start();
    hung(&daemon);
    daemon.log.signal("TERM");
    let begun = Instant::now();
    assert!(daemon.log.wait().success());
    assert!(begun.elapsed() < Duration::from_secs(5), "stopped after {:?}", begun.elapsed());
    assert!(daemon.log.seen().iter().any(|l| l.contains("the infer thread did not end")), "{:?}", daemon.log.seen());
}

#[test]
fn a_process_that_was_held_up_as_a_whole_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = Manager::listen(dir.path());
    let program = manager.start(kinewatch(), Some(Duration::from_secs(6)));
    let mut daemon = Daemon::start_program(program, dir.path(), &config("mqtt://127.0.0.1:1", &["front"]));
    manager.wait_for("the first feeding", |told| told == "WATCHDOG=1");
    daemon.log.signal("STOP");
    // Longer than any stage may be silent.
    std::thread::park_timeout(Duration::from_secs(6));
    daemon.log.signal("CONT");
    daemon.log.wait_for("that to be noticed", |line| line.contains("the process was held up for"));
    manager.told();
    manager.told.clear();
    for _ in 0..4 {
        manager.wait_for("the next feeding", |told| told == "WATCHDOG=1");
    }
    assert_eq!(daemon.get("/healthz").unwrap(), "ok\n");
    daemon.stop();
    let judged = daemon.log.seen().iter().filter(|l| l.contains("makes no progress") || l.contains("has hung")).count();
    assert_eq!(judged, 0, "{:?}", daemon.log.seen());
}

#[test]
fn the_status_line_says_how_things_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), "");
    let mut manager = Manager::listen(dir.path());
    let mut program = manager.start(kinewatch(), Some(Duration::from_secs(30)));
    program.env("JOURNAL_STREAM", "8:1");
    let mut daemon = Daemon::start_program(program, dir.path(), &config(&broker.url(), &["front", "porch"]));
    manager.wait_for("the start", |told| told == "READY=1");
    manager.wait_for("cameras and broker", |told| {
        told.starts_with("STATUS=watching 2 cameras, ") && told.ends_with(" fps each; broker connected, outbox empty")
    });
    daemon.log.wait_for("a line for the journal", |line| line.starts_with("<6>frames arrive camera=\"porch\""));
    broker.kill();
    manager.wait_for("the broker to be missed", |told| {
        told.starts_with("STATUS=watching 2 cameras, ") && told.contains(" fps each; broker away since ")
    });
    daemon.stop();
    let told = manager.told();
    assert!(told.iter().any(|t| t == "STOPPING=1\nSTATUS=stopping"), "{told:?}");
    let lines: Vec<_> = told.iter().filter(|t| t.starts_with("STATUS=")).collect();
    assert!(lines.windows(2).all(|w| w[0] != w[1]), "said when it changes: {lines:?}");
}

#[test]
fn a_camera_that_is_not_plugged_in_at_the_start_keeps_none_from_watching() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut subscriber = broker.subscribe();
    let unplugged = "\n[[camera]]\nname = \"usb\"\nsource = \"v4l2:/dev/video77\"\nmodels = [\"m\"]\n";
    let mut daemon = Daemon::start(dir.path(), &(config(&broker.url(), &["front"]) + unplugged));
    subscriber.event("the other", |topic, e| topic.contains("/evt/front/") && e["data"]["status"] == "started");
    subscriber.event("its state", |topic, e| topic.ends_with("/cam/usb/state") && e["online"] == false);
    daemon
        .log
        .wait_for("what is wrong", |line| line.contains("/dev/video77 does not exist, and is tried until it does"));
    assert_eq!(daemon.get("/healthz").unwrap(), "ok\n");
    daemon.stop();
}

/// Decisions of a model that sees a bright picture from the beginning, and whose calls fail where `fails` says so.
#[derive(Default)]
struct Watch {
    ended: Vec<(f64, EndReason)>,
    started: Vec<f64>,
    turns: Vec<ModelTurn>,
    failed: u32,
}

impl Sink for Watch {
    fn decision(&mut self, _origin: Origin<'_>, decision: &Decision) {
        match decision.status {
            Status::Started => self.started.push(decision.start.seconds()),
            Status::Ended { end, reason, .. } => self.ended.push((end.seconds(), reason)),
            Status::Updated => {}
        }
    }
    fn scores(&mut self, _origin: Origin<'_>, _at: Pts, _scores: &[f32], _labels: &[String]) {}
    fn inferred(&mut self, _model: usize, _requests: usize, _took: Duration) {}
    fn windows_dropped(&mut self, _camera: usize, _model: usize, why: WindowDrop, count: u32) {
        assert_eq!(why, WindowDrop::Failed);
        self.failed += count;
    }
    fn model_turned(&mut self, _camera: usize, _model: usize, turn: ModelTurn) {
        self.turns.push(turn);
    }
}

#[test]
fn a_model_that_fails_for_good_ends_its_actions_and_decides_anew_when_it_works() {
    let watch = |fails: std::ops::Range<u64>| {
        let options = OpenOptions { backend: BackendChoice::Tract, ..OpenOptions::default() };
        let dir = root().join("tests/data/packages/tiny-bright");
        let loaded = models::open("m", &dir, Overrides::default(), &options).unwrap().loaded;
        let plan = CameraPlan { name: "front".into(), models: vec![0], zones: Vec::new() };
        let mut analytics = Analytics::new(vec![loaded], &[plan]).unwrap();
        let mut watch = Watch::default();
        for tenth in 0..300 {
            // A frame of a wrong size fails as a back end does.
            analytics.frame(0, 0, bright(tenth, fails.contains(&tenth)), &mut watch);
            assert_eq!(analytics.run_all(&mut watch).is_err(), fails.contains(&tenth));
        }
        watch
    };
    let short = watch(50..145);
    assert_eq!((short.ended.len(), short.turns.len(), short.failed), (0, 0, 95), "9.5 s are a hole");
    let long = watch(50..200);
    assert_eq!(long.turns, [ModelTurn::Fails, ModelTurn::Works]);
    assert_eq!(long.ended, [(4.9, EndReason::StreamLost)], "as far as it was seen");
    assert_eq!(long.started.len(), 2);
    assert!(long.started[1] >= 20.0, "nothing from before: {:?}", long.started);
}

fn bright(tenth: u64, broken: bool) -> Frame {
    let pts = Pts(i64::try_from(tenth * 100_000_000).unwrap());
    let meta = FrameMeta { session: SessionId(1), pts, arrival: None, wanted: 1 };
    Arc::new(FrameBuf::new(meta, vec![235; if broken { 3 } else { 24 * 16 * 3 }]))
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < end, "waited {DEADLINE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}
