//! Real RTSP on loopback: the file's pixels, reconnects, silence, passwords, and cameras that leave each other alone.
#![allow(clippy::unwrap_used, reason = "test support: a failure is the test failing")]

#[path = "../examples/rtsp-serve/clip.rs"]
mod clip;
#[path = "../examples/rtsp-serve/player.rs"]
mod player;
#[path = "../examples/rtsp-serve/server.rs"]
mod server;
#[path = "../examples/rtsp-serve/wire.rs"]
mod wire;

mod support;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kinewatch_capture::{Credentials, GapReason, StopOutcome, Transport};
use kinewatch_core::time::SessionId;
use server::{Options, Server};
use support::{DEADLINE, Watched, max, options, play};

fn serve(path: &Path, port: u16, looped: bool) -> Server {
    kinewatch_capture::init().unwrap();
    Server::start(&Options { port, looped, credentials: None, mounts: vec![("cam".into(), path.into())] }).unwrap()
}

fn url(server: &Server) -> String {
    server.urls()[0].clone()
}

#[test]
fn a_stream_has_the_pixels_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = support::clip(dir.path(), "a.mp4", 40, 20, (320, 240));
    let (file, ..) = play(&max(&path), 1000.0);
    let server = serve(&path, 0, false);
    for transport in [Transport::Tcp, Transport::Udp] {
        let mut options = options("cam", &url(&server), 1000.0);
        options.transport = transport;
        let watched = Watched::spawn(options);
        let (live, _, reason) = watched.session();
        assert_eq!(reason, GapReason::Lost(format!("{}: the stream ended", url(&server))));
        assert!(live.frames.iter().all(|f| f.meta().arrival.is_some()));
        let times: Vec<i64> = file.pts_ms();
        if transport == Transport::Udp {
            // A busy machine drops datagrams: most frames come, at times of the file.
            assert!((20..=40).contains(&live.frames.len()), "{}", live.frames.len());
            let known = |at: &i64| times.iter().any(|t| (t - at).abs() <= 1);
            assert!(live.pts_ms().iter().all(known), "{:?}", live.pts_ms());
        } else {
            assert_eq!(live.frames.len(), 40);
            assert!(live.pixels() == file.pixels(), "the same pixels");
            let live = live.pts_ms();
            assert!(live.iter().zip(&times).all(|(l, f)| (l - f).abs() <= 1), "the camera's own clock: {live:?}");
        }
        assert_eq!(watched.camera.stop(DEADLINE), StopOutcome::Joined);
    }
}

#[test]
fn a_restarted_server_gives_a_new_session_soon() {
    let dir = tempfile::tempdir().unwrap();
    let path = support::clip(dir.path(), "a.mp4", 40, 20, (320, 240));
    let server = serve(&path, 0, true);
    let other = serve(&path, 0, true);
    let port = server.port();
    let watched = Watched::spawn(options("one", &url(&server), 1000.0));
    let neighbour = Watched::spawn(options("two", &url(&other), 1000.0));
    // More than one lap of the clip: the loop of the server is no break.
    for _ in 0..50 {
        assert_eq!(watched.frame().meta().session, SessionId(1));
    }
    drop(server);
    let (_, last, reason) = watched.session();
    assert!(matches!(reason, GapReason::Lost(_)), "{reason:?}");
    assert!(last.unwrap().seconds() > 2.0);
    let server = serve(&path, port, true);
    let restarted = Instant::now();
    assert_eq!(watched.frame().meta().session, SessionId(2));
    assert!(restarted.elapsed() < Duration::from_secs(10), "back after {:?}", restarted.elapsed());
    for _ in 0..50 {
        assert_eq!(neighbour.frame().meta().session, SessionId(1), "the neighbour never paused");
    }
    drop(server);
}

#[test]
fn silence_leads_to_a_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let path = support::clip(dir.path(), "a.mp4", 40, 20, (160, 120));
    let server = serve(&path, 0, true);
    let mut options = options("quiet", &url(&server), 1000.0);
    options.stall_timeout = Duration::from_secs(1);
    options.first_frame_timeout = Duration::from_secs(3);
    let watched = Watched::spawn(options);
    watched.frame();
    server.mute(true);
    let (_, _, reason) = watched.session();
    let GapReason::Lost(text) = reason else { panic!("{reason:?}") };
    assert!(text.contains("silent for 1."), "{text}");
    server.mute(false);
    assert_eq!(watched.frame().meta().session, SessionId(2));
}

#[test]
fn a_wrong_password_is_named_but_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = support::clip(dir.path(), "a.mp4", 20, 20, (160, 120));
    kinewatch_capture::init().unwrap();
    let credentials = Some(("viewer".to_owned(), "right-horse".to_owned()));
    let mounts = vec![("cam".into(), path)];
    let server = Server::start(&Options { port: 0, looped: true, credentials, mounts }).unwrap();
    let with = url(&server).replace("rtsp://", "rtsp://viewer:wrong-battery@");
    let wrong = Watched::spawn(options("wrong", &with, 10.0));
    let text = wrong.error_containing("refused");
    assert!(text.contains("user or password"), "{text}");
    assert!(!text.contains("battery") && !text.contains("viewer:"), "{text}");
    let mut right = options("right", &with, 10.0);
    right.credentials = Some(Credentials::new("viewer", "right-horse"));
    assert!(!format!("{right:?}").contains("horse"));
    Watched::spawn(right).frame();
}

#[test]
fn a_dead_camera_is_told_clearly_and_troubles_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = support::clip(dir.path(), "a.mp4", 40, 20, (160, 120));
    let server = serve(&path, 0, true);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dead = Watched::spawn(options("dead", &format!("rtsp://127.0.0.1:{free}/cam"), 10.0));
    let lost = Watched::spawn(options("lost", &format!("{}x", url(&server)), 10.0));
    let nowhere = Watched::spawn(options("dns", "rtsp://no-such-host.invalid/cam", 10.0));
    let alive = Watched::spawn(options("alive", &url(&server), 1000.0));
    for _ in 0..60 {
        assert_eq!(alive.frame().meta().session, SessionId(1));
    }
    println!("{}", dead.error_containing("refuses the connection"));
    println!("{}", lost.error_containing("no such stream"));
    println!("{}", nowhere.error_containing("cannot be resolved"));
    for watched in [dead, lost, nowhere, alive] {
        assert_eq!(watched.camera.stop(DEADLINE), StopOutcome::Joined);
    }
}

/// The server's clock is ours: what it reports is the true age of a frame.
#[test]
fn a_sender_report_tells_the_age_of_a_frame() {
    let dir = tempfile::tempdir().unwrap();
    let path = support::clip(dir.path(), "a.mp4", 40, 20, (160, 120));
    let server = serve(&path, 0, true);
    let watched = Watched::spawn(options("told", &url(&server), 1000.0));
    let began = Instant::now();
    loop {
        let frame = watched.frame();
        let arrival = frame.meta().arrival.unwrap();
        if let Some(delay_ns) = arrival.reported_delay_ns {
            let delay_ms = delay_ns as f64 / 1e6;
            println!("{delay_ms} ms, after {:?}", began.elapsed());
            assert!((-5.0..2000.0).contains(&delay_ms), "a frame that came {delay_ms} ms after it was captured");
            break;
        }
        assert!(began.elapsed() < DEADLINE, "no report");
    }
}

#[test]
fn a_camera_that_sets_its_clock_tears_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = support::clip(dir.path(), "a.mp4", 40, 20, (160, 120));
    let server = serve(&path, 0, true);
    let watched = Watched::spawn(options("set", &url(&server), 1000.0));
    let mut before = watched.frame();
    for seconds in [3600, 3597, 0] {
        for _ in 0..30 {
            let frame = watched.frame();
            let advance_ms = (frame.meta().pts - before.meta().pts) / 1_000_000;
            assert_eq!(frame.meta().session, SessionId(1));
            assert!((1..1000).contains(&advance_ms), "{advance_ms} ms from frame to frame");
            before = frame;
        }
        server.set_clock(seconds);
    }
    for _ in 0..30 {
        assert_eq!(watched.frame().meta().session, SessionId(1));
    }
    // The second and third go back: GStreamer holds the time through both.
    let steps = watched.camera.stats().clock_steps.load(Ordering::Relaxed);
    assert!((2..=3).contains(&steps), "joined {steps} times");
}
