//! What the capture tests share: clips made by GStreamer itself, and a consumer that can be waited on.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "test support: a failure is the test failing")]

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use kinewatch_capture::{Branch, Camera, CameraOptions, Captured, Elements, GapReason, Source};
use kinewatch_core::frame::{Filter, Frame, FrameSpec, Resize, ScaleOrder};
use kinewatch_core::time::{Pts, SessionId};

/// Longest wait for anything; generous, as machines are busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn spec(width: u32, height: u32) -> FrameSpec {
    let (resize, filter, order) = (Resize::Stretch, Filter::Bilinear, ScaleOrder::ScaleConvert);
    FrameSpec { width, height, resize, filter, order }
}

pub(crate) fn branch(rate_hz: f64) -> Branch {
    Branch { spec: spec(64, 48), rates_hz: vec![rate_hz], pool_frames: 512 }
}

pub(crate) fn options(name: &str, source: &str, rate_hz: f64) -> CameraOptions {
    kinewatch_capture::init().unwrap();
    let mut options = CameraOptions::new(name, Source::parse(source).unwrap(), vec![branch(rate_hz)]);
    options.elements = Elements::software();
    options
}

/// A camera with everything it said.
pub(crate) struct Watched {
    pub(crate) camera: Camera,
    said: Receiver<Captured>,
}

/// A session as the consumer saw it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) frames: Vec<Frame>,
}

impl Seen {
    pub(crate) fn pts_ms(&self) -> Vec<i64> {
        self.frames.iter().map(|f| f.meta().pts.0 / 1_000_000).collect()
    }
    pub(crate) fn session(&self) -> SessionId {
        self.frames[0].meta().session
    }
    pub(crate) fn pixels(&self) -> Vec<&[u8]> {
        self.frames.iter().map(|f| f.pixels()).collect()
    }
}

impl Watched {
    pub(crate) fn spawn(options: CameraOptions) -> Self {
        let (say, said) = channel();
        let camera = Camera::spawn(options, Box::new(move |c| drop(say.send(c)))).unwrap();
        Self { camera, said }
    }

    /// What was said already.
    pub(crate) fn try_next(&self) -> Option<Captured> {
        self.said.try_recv().ok()
    }

    pub(crate) fn next(&self) -> Captured {
        self.said.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            panic!("nothing came within {DEADLINE:?}: {:?} {:?}", self.camera.stats().state(), self.camera.stats())
        })
    }

    /// Frames up to the next gap, and the gap.
    pub(crate) fn session(&self) -> (Seen, Option<Pts>, GapReason) {
        let mut seen = Seen::default();
        loop {
            match self.next() {
                Captured::Frame { frame, .. } => seen.frames.push(frame),
                Captured::Gap { session, last, reason } => {
                    assert!(seen.frames.iter().all(|f| f.meta().session == session), "one session up to its gap");
                    return (seen, last, reason);
                }
                other => panic!("expected frames and a gap, got {other:?}"),
            }
        }
    }

    pub(crate) fn frame(&self) -> Frame {
        match self.next() {
            Captured::Frame { frame, .. } => frame,
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    /// Waits until the camera's last error contains `text`.
    pub(crate) fn error_containing(&self, text: &str) -> String {
        let stats = self.camera.stats();
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            if let Some(error) = stats.last_error().filter(|e| e.contains(text)) {
                return error;
            }
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(20));
        }
        panic!("no error with {text:?}; last: {:?}", stats.last_error());
    }
}

/// Everything a file gives, up to `Finished`.
pub(crate) fn play(source: &str, rate_hz: f64) -> (Seen, Option<Pts>, GapReason) {
    let watched = Watched::spawn(options("file", source, rate_hz));
    let session = watched.session();
    assert!(matches!(watched.next(), Captured::Finished));
    session
}

/// Runs a pipeline to its end.
pub(crate) fn launch(text: &str) {
    kinewatch_capture::init().unwrap();
    let pipeline = gst::parse::launch(text).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &kinds).expect("the clip is made in time");
    if let gst::MessageView::Error(error) = message.view() {
        panic!("{text}: {} {:?}", error.error(), error.debug());
    }
    pipeline.set_state(gst::State::Null).unwrap();
}

pub(crate) const ENCODER: &str = "videoconvert ! openh264enc gop-size=15 ! h264parse";

/// An H.264 clip of a moving pattern.
pub(crate) fn clip(dir: &Path, name: &str, frames: u32, fps: u32, size: (u32, u32)) -> PathBuf {
    let path = dir.join(name);
    let muxer = if name.ends_with(".mkv") { "matroskamux" } else { "mp4mux" };
    let caps = format!("video/x-raw,format=I420,width={},height={},framerate={fps}/1", size.0, size.1);
    launch(&format!(
        "videotestsrc num-buffers={frames} pattern=ball ! {caps} ! {ENCODER} ! {muxer} ! filesink location={}",
        path.display()
    ));
    path
}

/// A JPEG clip with a frame at each of `times_ms`, no frame rate stated.
pub(crate) fn clip_at(path: &Path, times_ms: &[u64]) {
    kinewatch_capture::init().unwrap();
    let text = "appsrc name=in format=time caps=video/x-raw,format=I420,width=64,height=48,framerate=0/1 ! jpegenc ! \
                matroskamux ! filesink name=out";
    let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.by_name("out").unwrap().set_property("location", path.to_str().unwrap());
    let input = pipeline.by_name("in").unwrap().downcast::<gstreamer_app::AppSrc>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for time in times_ms {
        let mut buffer = gst::Buffer::from_mut_slice(vec![100_u8; 64 * 48 * 3 / 2]);
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(*time));
        input.push_buffer(buffer).unwrap();
    }
    input.end_of_stream().unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(60), &kinds).unwrap();
    assert!(matches!(message.view(), gst::MessageView::Eos(_)), "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

pub(crate) fn max(path: &Path) -> String {
    format!("file:{}?speed=max", path.display())
}
