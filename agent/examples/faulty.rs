//! `kinewatch` with a fault on purpose, for tests of what then happens. Not part of any package: `kinewatch` itself has no
//! way to be asked for one.
//!
//! ```text
//! KINEWATCH_TEST_STICK=STAGE:SECONDS  the thread of the stage stops for ever, SECONDS after its first sign of life
//! KINEWATCH_TEST_PANIC=STAGE:SECONDS  it panics instead
//! KINEWATCH_TEST_KILL=STAGE:SECONDS   the process is killed (-9), SECONDS after the stage's first sign of life
//! KINEWATCH_TEST_FILL=STAGE:SECONDS   the disk is filled with the file that KINEWATCH_TEST_FILLER names
//! KINEWATCH_TEST_ONCE=STAGE           none of it before this stage has given a sign of life
//! KINEWATCH_TEST_BUILD_CPU=1           ONNX Runtime's CPU provider counts as one that has to build an engine first
//! KINEWATCH_TEST_BOARD=FOLDER         the board's files of sysfs and procfs lie below that folder
//! ```
//!
//! STAGE is `inference`, `store`, `publisher`, `capture` (the first camera that comes by), `capture NAME`, or `opening` (of the
//! models), or `update STATE` and `update STATE done` for a model over the air: once the state is committed, and once what it
//! asks for is done and not yet committed. The command line is that of `kinewatch`. Once: a thread that takes the stuck one's
//! place runs.

use std::io::Write;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kinewatch::app::Hooks;
use kinewatch::root::Root;
use kinewatch_engine::Provider;

#[derive(Debug)]
struct Fault {
    kind: Kind,
    stage: String,
    after: Duration,
    begun: OnceLock<Instant>,
    done: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Stick,
    Panic,
    Kill,
    Fill,
}

static FAULT: OnceLock<Fault> = OnceLock::new();
/// What has to be seen first, and whether it was.
static ONCE: OnceLock<String> = OnceLock::new();
static SEEN: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    if let Ok(stage) = std::env::var("KINEWATCH_TEST_ONCE") {
        drop(ONCE.set(stage));
    }
    match asked_for() {
        Some(Ok(fault)) => drop(FAULT.set(fault)),
        Some(Err(told)) => {
            eprintln!("faulty: {told}");
            return ExitCode::from(2);
        }
        None => {}
    }
    let board = std::env::var_os("KINEWATCH_TEST_BOARD").map(Root::below);
    let put_off = std::env::var_os("KINEWATCH_TEST_BUILD_CPU").map(|_| Provider::Cpu);
    kinewatch::cli::run_with(Hooks { on_beat: Some(on_beat), board, put_off })
}

fn asked_for() -> Option<Result<Fault, String>> {
    let kinds = [
        ("KINEWATCH_TEST_STICK", Kind::Stick),
        ("KINEWATCH_TEST_PANIC", Kind::Panic),
        ("KINEWATCH_TEST_KILL", Kind::Kill),
        ("KINEWATCH_TEST_FILL", Kind::Fill),
    ];
    kinds.into_iter().find_map(|(name, kind)| {
        let text = std::env::var(name).ok()?;
        let parsed = text.rsplit_once(':').and_then(|(stage, s)| Some((stage.to_owned(), s.parse::<f64>().ok()?)));
        let fault = |(stage, s)| Fault {
            kind,
            stage,
            after: Duration::from_secs_f64(s),
            begun: OnceLock::new(),
            done: AtomicBool::new(false),
        };
        Some(parsed.map(fault).ok_or_else(|| format!("{name}={text}: write STAGE:SECONDS")))
    })
}

/// Called at each sign of life of a stage, on its thread.
fn on_beat(stage: &str) {
    let Some(fault) = FAULT.get() else { return };
    if let Some(once) = ONCE.get()
        && !SEEN.load(Ordering::Relaxed)
    {
        SEEN.store(stage == once, Ordering::Relaxed);
        return;
    }
    let concerned = stage == fault.stage || stage.strip_prefix(&fault.stage).is_some_and(|rest| rest.starts_with(' '));
    // Whoever waits for the models gives the sign of life too.
    // A state and its end are two places.
    let concerned = concerned && (stage.ends_with(" done") == fault.stage.ends_with(" done"));
    if !concerned || stage == "opening" && thread::current().name() != Some("open") {
        return;
    }
    if let Kind::Kill = fault.kind {
        if !fault.done.swap(true, Ordering::Relaxed) {
            let after = fault.after;
            let kill = move || {
                thread::sleep(after);
                // Nothing is cleaned up, flushed or told.
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            };
            if after.is_zero() { kill() } else { drop(thread::spawn(kill)) }
        }
        return;
    }
    if fault.begun.get_or_init(Instant::now).elapsed() < fault.after || fault.done.swap(true, Ordering::Relaxed) {
        return;
    }
    match fault.kind {
        Kind::Stick => loop {
            thread::park();
        },
        Kind::Kill => {}
        Kind::Fill => fill(),
        Kind::Panic => panic!("as asked for, at rtsp://joe:hunter2@camera/1"),
    }
}

/// To the last byte.
fn fill() {
    let Some(path) = std::env::var_os("KINEWATCH_TEST_FILLER") else { return };
    let Ok(mut file) = std::fs::File::create(path) else { return };
    for block in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; block]).is_ok() {}
    }
}
