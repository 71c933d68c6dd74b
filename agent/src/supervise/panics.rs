//! A panic anywhere ends the process, with a report: a daemon that has lost a thread or a task must not look alive.
//!
//! The hook runs before anything unwinds, so it comes before all that would swallow a panic: tokio's tasks, the callbacks
//! of GStreamer (which `gstreamer-rs` catches, or which abort without a word at the border to C), threads that nobody
//! joins. Nothing is lost by it: what was decided is in the store, and actions left open are ended with `recovered` by the
//! next run. Panics of a back end over a bad model are caught on purpose (`kinewatch_engine::install_panic_guard`) and do
//! not come here.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kinewatch_capture::redact;

use crate::doctor::schedule;
use crate::supervise::exit;

/// Exit code after a panic, as Rust's own of the main thread.
const PANICKED: u8 = 101;

/// Sets the hook. Called once, before any other thread runs.
pub fn install() {
    std::panic::set_hook(Box::new(end));
    kinewatch_engine::install_panic_guard();
}

fn end(info: &PanicHookInfo<'_>) {
    if thread::current().name().is_some_and(|name| name.starts_with(schedule::THREADS)) {
        // It becomes a finding.
        eprintln!("kinewatch: {}", report(info, thread::current().name()));
        return;
    }
    static REPORTED: AtomicBool = AtomicBool::new(false);
    if REPORTED.swap(true, Ordering::Relaxed) {
        // Another thread is writing its report, and ends the process after it.
        loop {
            thread::park();
        }
    }
    let report = report(info, thread::current().name());
    if tracing::dispatcher::has_been_set() && tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("{report}");
    } else {
        eprintln!("kinewatch: {report}");
    }
    exit(PANICKED);
}

/// What happened and where, in one line; a backtrace follows when `RUST_BACKTRACE` asks for one.
fn report(info: &PanicHookInfo<'_>, thread: Option<&str>) -> String {
    let thread = thread.unwrap_or("without a name");
    let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
    let message = redact(&info.payload_as_str().unwrap_or("no message").replace('\n', " "));
    let version = env!("CARGO_PKG_VERSION");
    let mut report = format!(
        "the thread {thread} panicked{place}: {message}; kinewatch {version} ends, please report this; the service manager \
         starts it again"
    );
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        report += &format!("\n{backtrace}");
    }
    report
}
