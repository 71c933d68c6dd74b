//! What a Jetson's elements do to a camera, with elements that stand in for them: the pixels that come through, decoders
//! that fail in the ways theirs do, and a sensor that repeats its last picture.
//!
//! How a stand-in fails is set for the whole process: the tests take turns.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../examples/rtsp-serve/clip.rs"]
mod clip;
#[path = "../examples/rtsp-serve/player.rs"]
mod player;
#[path = "../examples/rtsp-serve/server.rs"]
mod server;
#[path = "../examples/rtsp-serve/wire.rs"]
mod wire;

mod standins;
mod support;

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kinewatch_capture::{CameraOptions, Captured, Elements, GapReason, Machine, Platform, StopOutcome};
use server::{Options, Server};
use standins::working::{self, Failure};
use support::{DEADLINE, Watched, max, play};

fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    kinewatch_capture::init().unwrap();
    working::stand_in();
    working::fail_after(u64::MAX, Failure::None);
    turn
}

/// A Jetson that has `processor` beside its own decoder.
fn jetson(name: &str, source: &str, processor: &'static [&'static str]) -> CameraOptions {
    let mut options = support::options(name, source, 1000.0);
    let has = |element: &str| ["nvv4l2decoder", "nvvidconv"].contains(&element) || processor.contains(&element);
    options.elements = Elements::choose(&has, Machine { platform: Some(Platform::Jetpack6), jetson: None });
    options
}

fn serve(path: &Path) -> Server {
    Server::start(&Options { port: 0, looped: true, credentials: None, mounts: vec![("cam".into(), path.into())] })
        .unwrap()
}

#[test]
fn rgba_of_nvvidconv_is_delivered_as_rgb() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = support::clip(dir.path(), "a.mp4", 20, 10, (320, 240));
    let (software, ..) = play(&max(&path), 1000.0);
    for width in [64, 63] {
        let mut options = jetson("rgba", &max(&path), &["avdec_h264"]);
        // What is not square is turned on the processor; a stream has no tag that turns it.
        options.branches[0].spec.width = width;
        options.branches[0].spec.height = width;
        let watched = Watched::spawn(options);
        let (seen, _, reason) = watched.session();
        assert_eq!((seen.frames.len(), reason), (20, GapReason::EndOfStream));
        assert!(seen.pixels().iter().all(|p| p.len() == (width * width * 3) as usize));
        assert_eq!(watched.camera.stats().decoder_fallbacks.load(Relaxed), 0);
    }
    // The same size as the software chain gives: the same picture, but for rounding of the colours.
    let server = serve(&path);
    let watched = Watched::spawn(jetson("live", &server.urls()[0], &["avdec_h264"]));
    let frame = watched.frame();
    assert_eq!(frame.pixels().len(), 64 * 48 * 3);
    assert!(!watched.camera.stats().on_processor.load(Relaxed));
    let off = |reference: &[u8]| {
        let off = frame.pixels().iter().zip(reference).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
        off as f64 / reference.len() as f64
    };
    let nearest = software.pixels().iter().map(|reference| off(reference)).fold(f64::MAX, f64::min);
    println!("mean difference to the software chain {nearest:.2}");
    assert!(nearest < 2.0, "{nearest}");
}

#[test]
fn a_decoder_that_fails_on_a_stream_is_left_for_the_processor_once() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = support::clip(dir.path(), "a.mp4", 40, 20, (320, 240));
    let server = serve(&path);
    for failure in [Failure::Said, Failure::Returned, Failure::Swallowed] {
        working::fail_after(30, failure);
        let mut options = jetson("door", &server.urls()[0], &["avdec_h264"]);
        options.stall_timeout = Duration::from_secs(1);
        options.backoff.first = Duration::from_secs(3600);
        options.backoff.max = Duration::from_secs(3600);
        let watched = Watched::spawn(options);
        let stats = watched.camera.stats();
        let (seen, _, reason) = watched.session();
        assert!((1..=30).contains(&seen.frames.len()), "{failure:?}: {}", seen.frames.len());
        let GapReason::Lost(text) = reason else { panic!("{failure:?}: {reason:?}") };
        println!("{failure:?}: {text}");
        assert!(text.contains("the hardware decoder nvv4l2decoder failed"), "{failure:?}: {text}");
        // At once, for the next try would be an hour away; and it stays so, though the decoder would fail again.
        for _ in 0..100 {
            assert_eq!(watched.frame().meta().session.0, seen.session().0 + 1, "{failure:?}");
        }
        assert_eq!(stats.decoder_fallbacks.load(Relaxed), 1, "{failure:?}");
        assert!(stats.on_processor.load(Relaxed));
        // Somebody has it begun anew: the hardware gets its chance.
        working::fail_after(u64::MAX, Failure::None);
        watched.camera.control().restart().unwrap();
        let (_, _, reason) = watched.session();
        assert_eq!(reason, GapReason::Lost("restarted".into()));
        watched.frame();
        assert!(!stats.on_processor.load(Relaxed));
        assert_eq!(watched.camera.stop(DEADLINE), StopOutcome::Joined);
    }
}

#[test]
fn a_decoder_that_never_gives_a_picture_is_left_after_a_second_try() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = support::clip(dir.path(), "a.mp4", 40, 20, (320, 240));
    let server = serve(&path);
    working::fail_after(0, Failure::Swallowed);
    let mut options = jetson("dark", &server.urls()[0], &["avdec_h264"]);
    options.first_frame_timeout = Duration::from_secs(1);
    options.backoff.first = Duration::from_millis(10);
    let watched = Watched::spawn(options);
    watched.frame();
    let stats = watched.camera.stats();
    assert_eq!((stats.stalls.load(Relaxed), stats.decoder_fallbacks.load(Relaxed)), (2, 1));
    println!("{}", stats.last_error().unwrap());
}

#[test]
fn without_a_decoder_on_the_processor_it_is_tried_again_and_said_what_to_install() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = support::clip(dir.path(), "a.mp4", 40, 20, (320, 240));
    let server = serve(&path);
    working::fail_after(10, Failure::Said);
    let mut options = jetson("alone", &server.urls()[0], &[]);
    options.backoff.first = Duration::from_millis(10);
    let watched = Watched::spawn(options);
    let text = watched.error_containing("gstreamer1.0-libav");
    assert!(text.contains("NVDEC: hardware engine error"), "{text}");
    assert_eq!(watched.camera.stats().decoder_fallbacks.load(Relaxed), 0);
}

#[test]
fn a_server_that_goes_away_is_no_fault_of_the_decoder() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = support::clip(dir.path(), "a.mp4", 40, 20, (320, 240));
    let server = serve(&path);
    let mut options = jetson("porch", &server.urls()[0], &["avdec_h264"]);
    options.stall_timeout = Duration::from_secs(1);
    let watched = Watched::spawn(options);
    for _ in 0..10 {
        watched.frame();
    }
    drop(server);
    let (_, _, reason) = watched.session();
    println!("{reason:?}");
    assert!(matches!(&reason, GapReason::Lost(text) if !text.contains("decoder")), "{reason:?}");
    let stats = watched.camera.stats();
    assert_eq!((stats.decoder_fallbacks.load(Relaxed), stats.on_processor.load(Relaxed)), (0, false));
}

/// A file that gave nothing yet is begun anew; one that is played once and gave something is not, or it would come twice.
#[test]
fn a_decoder_that_fails_on_a_file_is_left_too_but_no_picture_comes_twice() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = support::clip(dir.path(), "a.mp4", 40, 20, (320, 240));
    let (all, ..) = play(&max(&path), 1000.0);
    working::fail_after(0, Failure::Returned);
    let watched = Watched::spawn(jetson("file", &max(&path), &["avdec_h264"]));
    let (seen, _, reason) = watched.session();
    assert_eq!(reason, GapReason::EndOfStream);
    assert!(seen.pixels() == all.pixels(), "those of the software chain");
    assert!(matches!(watched.next(), Captured::Finished));
    for failure in [Failure::Returned, Failure::Said] {
        working::fail_after(10, failure);
        let watched = Watched::spawn(jetson("file", &max(&path), &["avdec_h264"]));
        let (seen, _, reason) = watched.session();
        assert!((1..=10).contains(&seen.frames.len()), "{}", seen.frames.len());
        assert!(matches!(reason, GapReason::Lost(_)), "{reason:?}");
        let Captured::Failed(error) = watched.next() else {
            panic!("{failure:?}: it goes on, or says that all is well")
        };
        assert!(error.to_string().contains("the hardware decoder nvv4l2decoder failed"), "{error}");
        assert_eq!(watched.camera.stats().decoder_fallbacks.load(Relaxed), 0);
    }
    // One that is played again and again is played again.
    working::fail_after(10, Failure::Returned);
    let watched = Watched::spawn(jetson("loop", &format!("{}&loop=true", max(&path)), &["avdec_h264"]));
    assert!(watched.session().0.frames.len() <= 10);
    assert!(watched.session().0.pixels() == all.pixels());
}

#[test]
fn a_sensor_that_repeats_its_last_picture_is_begun_anew() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let request = dir.path().join("argus-restart");
    working::repeat_after(20);
    let mut options = jetson("gate", "csi:0?size=320x240&fps=30", &[]);
    assert_eq!(options.frozen_timeout, Some(Duration::from_secs(10)), "on for sensors");
    options.frozen_timeout = Some(Duration::from_secs(1));
    options.argus_request = Some(request.clone());
    options.backoff.first = Duration::from_millis(10);
    let watched = Watched::spawn(options);
    let stats = watched.camera.stats();
    let (seen, _, reason) = watched.session();
    let GapReason::Lost(text) = reason else { panic!("{reason:?}") };
    println!("{text}");
    assert!(text.contains("repeats one picture, byte for byte, for 1."), "{text}");
    assert!(seen.frames.len() > 40, "they kept coming: {}", seen.frames.len());
    assert_eq!(stats.freezes.load(Relaxed), 1);
    assert!(!request.exists());
    // A new pipeline shows the same: it is waited for twice as long, and then the daemon behind it is to be restarted.
    let (seen, _, reason) = watched.session();
    let GapReason::Lost(text) = reason else { panic!("{reason:?}") };
    assert!(text.contains("for 2."), "{text}");
    assert!(seen.frames.len() > 40, "{}", seen.frames.len());
    let began = std::time::Instant::now();
    while !request.exists() {
        assert!(began.elapsed() < DEADLINE, "no restart was asked for");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    working::repeat_after(u64::MAX);
    let after = watched.frame().meta().session;
    for _ in 0..60 {
        assert_eq!(watched.frame().meta().session, after);
    }
    assert_eq!(stats.freezes.load(Relaxed), 2);
}

/// Noise is never the same twice; what does not repeat runs on.
#[test]
fn a_sensor_with_noise_and_a_still_stream_are_left_alone() {
    let _turn = turn();
    working::repeat_after(u64::MAX);
    let mut noisy = jetson("noisy", "csi:0?size=320x240&fps=30", &[]);
    noisy.frozen_timeout = Some(Duration::from_millis(300));
    let noisy = Watched::spawn(noisy);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("still.mp4");
    support::launch(&format!(
        "videotestsrc num-buffers=200 pattern=smpte75 ! video/x-raw,width=320,height=240,framerate=20/1 ! videoconvert ! \
         openh264enc gop-size=1000 ! h264parse ! mp4mux ! filesink location={}",
        path.display()
    ));
    let server = serve(&path);
    let still = Watched::spawn(support::options("still", &server.urls()[0], 1000.0));
    let first = (noisy.frame().meta().session, still.frame().meta().session);
    for _ in 0..60 {
        assert_eq!((noisy.frame().meta().session, still.frame().meta().session), first);
    }
    for watched in [noisy, still] {
        assert_eq!(watched.camera.stats().freezes.load(Relaxed), 0);
    }
    // Told to, a stream is watched as well: an encoder of a still scene repeats itself. As nothing else comes, ever longer
    // is waited for it, though each connection begins with a picture that is a little different.
    let mut told = support::options("told", &server.urls()[0], 1000.0);
    told.frozen_timeout = Some(Duration::from_millis(300));
    told.backoff.first = Duration::from_millis(10);
    told.backoff.max = Duration::from_millis(10);
    let told = Watched::spawn(told);
    for limit_s in [0.3, 0.6, 1.2] {
        let (_, last, reason) = told.session();
        let GapReason::Lost(text) = reason else { panic!("{reason:?}") };
        assert!(text.contains("repeats one picture"), "{text}");
        assert!(last.unwrap().seconds() > limit_s, "{last:?}");
    }
}
