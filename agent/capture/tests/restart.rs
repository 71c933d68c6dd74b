//! A camera begun anew: on request, and when its thread hangs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use kinewatch_capture::{Captured, GapReason, StopOutcome};
use support::{DEADLINE, Watched, options};

#[test]
fn a_restart_ends_the_session_and_begins_the_next_at_once() {
    let watched = Watched::spawn(options("again", "test:ball", 10.0));
    let first = watched.frame().meta().session;
    let control = watched.camera.control();
    control.restart().unwrap();
    let (_, _, reason) = watched.session();
    assert_eq!(reason, GapReason::Lost("restarted".into()));
    assert_eq!(watched.frame().meta().session, first.next());
    let stats = watched.camera.stats();
    assert_eq!((stats.reconnects.load(Relaxed), stats.threads_abandoned.load(Relaxed)), (1, 0));
    assert_eq!(watched.camera.stop(DEADLINE), StopOutcome::Joined);
    control.restart().unwrap();
    control.replace().unwrap();
    while let Some(captured) = watched.try_next() {
        assert!(!matches!(captured, Captured::Gap { reason: GapReason::Lost(_), .. }), "{captured:?}");
    }
    assert_eq!(watched.camera.stop(DEADLINE), StopOutcome::Joined, "one that is stopped stays so");
}

#[test]
fn a_camera_that_waits_to_try_again_tries_at_once_when_asked() {
    let mut options = options("down", "rtsp://127.0.0.1:1/none", 10.0);
    options.backoff.first = Duration::from_secs(3600);
    options.backoff.max = Duration::from_secs(3600);
    let watched = Watched::spawn(options);
    let stats = watched.camera.stats();
    until(|| stats.reconnects.load(Relaxed) == 1);
    watched.camera.control().restart().unwrap();
    until(|| stats.reconnects.load(Relaxed) == 2);
}

#[test]
fn a_source_that_has_ended_begins_again() {
    let watched = Watched::spawn(options("short", "test:ball?frames=3&speed=max", 30.0));
    let first = watched.session().0.session();
    assert!(matches!(watched.next(), Captured::Finished));
    // The thread is about to end: until then it is asked, and nobody is there to hear it.
    until(|| {
        watched.camera.control().restart().unwrap();
        matches!(watched.try_next(), Some(Captured::Frame { frame, .. }) if frame.meta().session == first.next())
    });
}

static HANG: AtomicBool = AtomicBool::new(false);
static HELD: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// The first thread that comes by stays until it is let go.
fn hang(_camera: &str) {
    if HANG.swap(false, Relaxed) {
        let mut held = HELD.0.lock().unwrap();
        *held = true;
        while *held {
            held = HELD.1.wait(held).unwrap();
        }
    }
}

#[test]
fn a_thread_that_hangs_is_replaced_and_what_it_does_later_has_no_effect() {
    let options = options("hung", "test:ball", 10.0);
    let beat = std::sync::Arc::clone(&options.beat);
    beat.on_touch(hang);
    beat.limit_to(Duration::from_millis(500));
    let watched = Watched::spawn(options);
    let first = watched.frame().meta().session;
    HANG.store(true, Relaxed);
    until(|| beat.overdue(Instant::now()).is_some());
    watched.camera.control().replace().unwrap();
    let (_, _, reason) = watched.session();
    assert!(matches!(&reason, GapReason::Lost(text) if text.contains("hung")), "{reason:?}");
    assert_eq!(watched.frame().meta().session, first.next());
    assert_eq!(watched.camera.stats().threads_abandoned.load(Relaxed), 1);
    *HELD.0.lock().unwrap() = false;
    HELD.1.notify_all();
    for _ in 0..20 {
        assert_eq!(watched.frame().meta().session, first.next(), "the old thread has ended, and nothing with it");
    }
    assert_eq!(watched.camera.stats().state(), kinewatch_capture::CameraState::Up);
    assert_eq!(watched.camera.stop(DEADLINE), StopOutcome::Joined);
}

fn until(mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
