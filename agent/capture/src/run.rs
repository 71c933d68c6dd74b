//! The thread `cam-<name>`: builds the pipeline, watches bus and clock, tears down, waits, and begins again.
//!
//! ERROR, EOS and silence of a live source lead to the same full rebuild. Never touches pixels; never waits for a
//! pipeline longer than the teardown deadline. It gives a sign of life ([`CameraOptions::beat`]) at every step, so that a
//! thread that hangs in a driver is found and can be replaced.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use tracing::{debug, info, warn};

use crate::argus::{self, Argus};
use crate::backoff::{Backoff, HEALTHY};
use crate::camera::{CameraOptions, Captured, GapReason};
use crate::clock::mono_ns;
use crate::delivery::{Delivery, Generation};
use crate::diagnose::why_unreachable;
use crate::elements::Elements;
use crate::error::CaptureError;
use crate::pipeline::{self, Streams};
use crate::platform::display_trap;
use crate::source::Source;
use crate::stats::{CameraState, CameraStats, count};
use crate::stop::{StopSignal, Woke};
use crate::teardown::Teardowns;
use crate::unplugged::Node;

/// How often the thread looks at the clock while frames flow.
const TICK: gst::ClockTime = gst::ClockTime::from_mseconds(200);

/// Why a session ended whose thread was replaced.
const HUNG: &str = "the thread of the camera hung";

/// A camera that keeps setting its clock is told of this often.
const REPEAT: Duration = Duration::from_secs(60);

/// A decoder whose last packet is no older than this is being fed.
const SWALLOWED: Duration = Duration::from_secs(2);

/// Pictures unlike the one before, since a source was begun anew for repeating itself, after which it is cured.
const MOVING: u64 = 30;

/// A server that is known to be quicker is given this long for its first packet.
const FIRST_PACKET: Duration = Duration::from_secs(4);

/// How one pipeline ended.
enum End {
    Stopped,
    /// A new one was asked for.
    Rebuild,
    Drained,
    Failed(CaptureError),
}

/// What the thread does next.
enum Next {
    Again,
    Wait,
    Leave,
}

pub(crate) struct CameraThread {
    options: CameraOptions,
    source_name: String,
    stats: Arc<CameraStats>,
    stop: Arc<StopSignal>,
    delivery: Arc<Delivery>,
    teardowns: Arc<Teardowns>,
    generation: Generation,
    /// The longest that any connection took to its first frame; `None` before the first.
    slowest_start: Option<Duration>,
    /// What this machine has, of which `options` may use only a part.
    chosen: Elements,
    /// Connections in a row in which a hardware decoder took packets and never gave a picture.
    fruitless: u32,
    /// Rebuilds in a row that hardly brought other pictures, and [`Delivery::changes`] at the last.
    frozen: (u32, u64),
    argus: Argus,
}

impl CameraThread {
    pub(crate) fn new(
        mut options: CameraOptions,
        stats: Arc<CameraStats>,
        stop: Arc<StopSignal>,
        delivery: Arc<Delivery>,
        teardowns: Arc<Teardowns>,
    ) -> Self {
        let (source_name, chosen) = (options.source.to_string(), options.elements);
        // The thread before this one found out.
        if stats.on_processor.load(Relaxed) {
            options.elements = chosen.on_processor();
        }
        Self {
            options,
            source_name,
            stats,
            stop,
            delivery,
            teardowns,
            generation: 0,
            slowest_start: None,
            chosen,
            fruitless: 0,
            frozen: (0, 0),
            argus: Argus::default(),
        }
    }

    /// Runs until stopped, finished or failed for good.
    pub(crate) fn run(mut self) {
        self.alive();
        // What the thread before this one left open, if it hung.
        self.generation = self.delivery.next_generation();
        self.delivery.close(self.generation, GapReason::Lost(HUNG.into()));
        let mut backoff = Backoff::new(self.options.backoff);
        loop {
            if self.stop.is_raised() || self.wait_for_abandoned() {
                break;
            }
            self.stats.enter(CameraState::Connecting);
            let began = Instant::now();
            let end = self.run_once();
            if self.stats.state() == CameraState::Up && began.elapsed() >= HEALTHY {
                backoff.reset();
            }
            match self.settle(end) {
                Next::Leave => break,
                Next::Again => {}
                Next::Wait => {
                    self.stats.enter(CameraState::Down);
                    count(&self.stats.reconnects);
                    let wait = backoff.next(chance());
                    self.options.beat.allow(Instant::now(), wait);
                    match self.stop.wait(wait) {
                        Woke::Stop => break,
                        Woke::Rebuild => self.try_hardware(),
                        Woke::Time => {}
                    }
                }
            }
        }
        debug!(camera = self.options.name, "camera thread ends");
    }

    fn alive(&self) {
        self.options.beat.touch(Instant::now());
    }

    /// One pipeline, from building to teardown.
    fn run_once(&mut self) -> End {
        self.alive();
        self.generation = self.delivery.next_generation();
        let built = pipeline::build(&self.options, &self.source_name, &self.delivery, self.generation);
        let (pipeline, streams) = match built {
            Ok(built) => (built.pipeline, built.streams),
            Err(error) => return End::Failed(error),
        };
        let Some(bus) = pipeline.bus() else {
            let detail = "the pipeline has no bus".to_owned();
            return End::Failed(CaptureError::Pipeline { source_name: self.source_name.clone(), detail });
        };
        self.stop.watch(Some(bus.clone()));
        self.delivery.open(self.generation);
        self.alive();
        let node = Node::of(&self.options.source);
        let started = pipeline.set_state(gst::State::Playing);
        self.alive();
        let end = match started {
            Ok(_) => match self.watch(&bus, &streams) {
                End::Drained => streams.without_video().map_or(End::Drained, |found| {
                    End::Failed(CaptureError::NoVideoTrack { source_name: self.source_name.clone(), found })
                }),
                other => other,
            },
            Err(_) => End::Failed(self.start_error(&bus, &streams)),
        };
        self.stop.watch(None);
        self.close(&end);
        self.options.beat.allow(Instant::now(), self.options.teardown_deadline);
        if !self.teardowns.stop(pipeline) {
            count(&self.stats.abandoned);
        } else if let Some(node) = node.filter(|_| self.is_alone()) {
            let held = node.let_go();
            if held > 0 {
                debug!(camera = self.options.name, held, "the device is gone, and GStreamer held on to it: let go");
            }
        }
        end
    }

    /// Waits for the end of the stream, an error, silence, or a stop.
    fn watch(&mut self, bus: &gst::Bus, streams: &Streams) -> End {
        let kinds = [gst::MessageType::Error, gst::MessageType::Eos, gst::MessageType::Application];
        let began = mono_ns();
        let mut reported = false;
        let mut steps = self.stats.clock_steps.load(Relaxed);
        let mut said: Option<Instant> = None;
        loop {
            let message = bus.timed_pop_filtered(TICK, &kinds);
            self.alive();
            if self.stop.is_raised() {
                return End::Stopped;
            }
            if self.stop.take_rebuild() {
                return End::Rebuild;
            }
            match message.as_ref().map(|m| m.view()) {
                Some(gst::MessageView::Eos(_)) => return End::Drained,
                Some(gst::MessageView::Error(error)) => {
                    return End::Failed(self.error(error, streams));
                }
                _ => {}
            }
            let last = self.stats.last_frame_mono_ns.load(Relaxed);
            if !reported && last >= began {
                reported = true;
                let took = Duration::from_nanos(u64::try_from(last - began).unwrap_or(0));
                self.slowest_start = self.slowest_start.max(Some(took));
                self.fruitless = 0;
                info!(camera = self.options.name, source = self.source_name, "frames arrive");
            }
            let now = self.stats.clock_steps.load(Relaxed);
            if now > steps && said.is_none_or(|at| at.elapsed() >= REPEAT) {
                info!(
                    camera = self.options.name,
                    times = now - steps,
                    "the camera set its clock; its time line goes on"
                );
                (steps, said) = (now, Some(Instant::now()));
            }
            if let Some(silence) = self.silence(began, last, streams.has_video()) {
                count(&self.stats.stalls);
                return End::Failed(self.silent(silence, reported, streams));
            }
            if let Some(seconds) = self.stillness(last) {
                count(&self.stats.freezes);
                return End::Failed(CaptureError::Frozen { source_name: self.source_name.clone(), seconds });
            }
        }
    }

    /// How long nothing came, when that is too long. A file may pause between two frames, and a consumer that holds a
    /// frame is no silence of the camera. `flows`: packets come, if no picture yet.
    fn silence(&self, began: i64, last: i64, flows: bool) -> Option<Duration> {
        let first = last < began;
        if self.delivery.is_busy() || self.options.source.is_file() && !first {
            return None;
        }
        let allowed = match self.slowest_start {
            _ if !first => self.options.stall_timeout,
            Some(slowest) if !flows => (slowest * 2).max(FIRST_PACKET).min(self.options.first_frame_timeout),
            _ => self.options.first_frame_timeout,
        };
        let silence = Duration::from_nanos(u64::try_from(mono_ns() - last.max(began)).unwrap_or(0));
        (silence > allowed).then_some(silence)
    }

    /// Silence, or a hardware decoder that swallows what comes. One that has not begun yet may wait for a key frame.
    fn silent(&mut self, silence: Duration, had_frames: bool, streams: &Streams) -> CaptureError {
        let error = CaptureError::silent(self.source_name.clone(), silence);
        let fresh = |at: i64| at > 0 && mono_ns() - at < SWALLOWED.as_nanos() as i64;
        let Some(hardware) = streams.hardware().filter(|_| fresh(streams.last_packet())) else { return error };
        self.fruitless += 1;
        if had_frames || self.fruitless > 1 { error.of_decoder(hardware) } else { error }
    }

    /// How many seconds the picture has been the same, when that is too long. Where a new pipeline brought hardly anything
    /// else, the scene may be still after all: the next is waited for twice as long.
    fn stillness(&mut self, last: i64) -> Option<f64> {
        let limit = self.options.frozen_timeout?;
        let since = self.delivery.still_since()?;
        let changes = self.delivery.changes();
        let before = if changes - self.frozen.1 < MOVING { self.frozen.0 } else { 0 };
        let still = Duration::from_nanos(u64::try_from(last - since).unwrap_or(0));
        if still <= limit * 2_u32.pow(before.min(10)) {
            return None;
        }
        self.frozen = (before + 1, changes);
        Some(still.as_secs_f64())
    }

    /// An error of the bus, and whether it is the decoder's.
    fn error(&self, message: &gst::message::Error, streams: &Streams) -> CaptureError {
        let error = CaptureError::from_bus(self.source_name.clone(), message);
        match streams.hardware().filter(|hardware| hardware.is_blamed(message, streams.refused())) {
            Some(hardware) => error.of_decoder(hardware),
            None => error,
        }
    }

    fn start_error(&self, bus: &gst::Bus, streams: &Streams) -> CaptureError {
        let message = bus.timed_pop_filtered(gst::ClockTime::ZERO, &[gst::MessageType::Error]);
        match message.as_ref().map(|m| m.view()) {
            Some(gst::MessageView::Error(error)) => self.error(error, streams),
            _ => CaptureError::Pipeline {
                source_name: self.source_name.clone(),
                detail: "the pipeline does not start, and GStreamer does not say why".into(),
            },
        }
    }

    /// Ends the session, if one began, before the slow teardown.
    fn close(&self, end: &End) {
        let reason = match end {
            End::Stopped if self.stop.is_disowned() => GapReason::Lost(HUNG.into()),
            End::Stopped => GapReason::Stopped,
            End::Rebuild => GapReason::Lost("restarted".into()),
            End::Drained => match self.options.source {
                Source::File { looped: true, .. } => GapReason::Looped,
                Source::File { .. } | Source::Test { .. } => GapReason::EndOfStream,
                _ => GapReason::Lost(self.ended().to_string()),
            },
            End::Failed(error) => GapReason::Lost(error.to_string()),
        };
        self.delivery.close(self.generation, reason);
    }

    /// Tells the consumer what is final, logs, and decides what comes next.
    fn settle(&mut self, end: End) -> Next {
        let had_frames = self.stats.state() == CameraState::Up;
        let camera = self.options.name.clone();
        let once = matches!(self.options.source, Source::File { looped: false, .. } | Source::Test { .. });
        let error = match end {
            End::Stopped => return Next::Leave,
            End::Rebuild => {
                count(&self.stats.reconnects);
                info!(camera, "restarts");
                self.try_hardware();
                return Next::Again;
            }
            End::Drained if self.options.source.is_file() || once => {
                if had_frames {
                    return if once { self.finish() } else { Next::Again };
                }
                CaptureError::NoFrames { source_name: self.source_name.clone() }
            }
            End::Drained => self.ended(),
            End::Failed(error) => error,
        };
        // What is played once and gave something would come twice.
        let over = once && had_frames;
        if !over && self.falls_back(&error) {
            return Next::Again;
        }
        let error = self.explain(error, had_frames);
        if matches!(self.options.source, Source::Csi { .. }) {
            self.argus.failed(&camera, &error, had_frames, self.options.argus_request.as_deref());
        }
        let text = error.to_string();
        if self.stats.fail(&text) || had_frames {
            warn!(camera, error = text, "no frames");
        } else {
            debug!(camera, error = text, "still no frames");
        }
        if !self.options.source.is_file() {
            return Next::Wait;
        }
        if had_frames && !(over && matches!(error, CaptureError::Decoder { .. })) {
            // A truncated or damaged file: what came is good. One that the decoder gave up on may have more.
            return if once { self.finish() } else { Next::Again };
        }
        self.delivery.tell(Captured::Failed(error));
        Next::Leave
    }

    /// Leaves a hardware decoder that failed, where the processor can decode instead: once, until the camera is begun
    /// anew by somebody. What such a failure costs is told; going back and forth would cost it again and again.
    fn falls_back(&mut self, error: &CaptureError) -> bool {
        let CaptureError::Decoder { hardware, .. } = error else { return false };
        let Some(instead) = hardware.instead else { return false };
        count(&self.stats.decoder_fallbacks);
        count(&self.stats.reconnects);
        self.stats.on_processor.store(true, Relaxed);
        self.options.elements = self.chosen.on_processor();
        let text = error.to_string();
        self.stats.fail(&text);
        warn!(
            camera = self.options.name,
            error = text,
            "the processor decodes this camera from here on ({instead}); restart the camera to try the hardware again"
        );
        if let Some(trap) = display_trap(self.chosen.platform, &|name| std::env::var(name).ok()) {
            warn!(camera = self.options.name, "{trap}");
        }
        true
    }

    /// Somebody wants the camera begun anew: so with what the machine has.
    fn try_hardware(&mut self) {
        self.options.elements = self.chosen;
        self.stats.on_processor.store(false, Relaxed);
        self.fruitless = 0;
    }

    /// Says more about a device that does not fit, or a server that cannot be reached or gives nothing, than GStreamer does.
    fn explain(&self, error: CaptureError, had_frames: bool) -> CaptureError {
        #[cfg(feature = "v4l")]
        if let Err(reason) = crate::devices::check_device(&self.options.source) {
            return CaptureError::Pipeline { source_name: self.source_name.clone(), detail: reason.to_string() };
        }
        let url = match &self.options.source {
            Source::Rtsp { url, .. } => url,
            Source::Csi { .. } if !had_frames => return error.of_argus(argus::ADVICE),
            _ => return error,
        };
        match error {
            CaptureError::Unreachable { source_name, detail } => {
                let detail = why_unreachable(url).unwrap_or(detail);
                CaptureError::Unreachable { source_name, detail }
            }
            CaptureError::Silent { source_name, seconds } if !had_frames => match why_unreachable(url) {
                Some(detail) => CaptureError::Unreachable { source_name, detail },
                None => CaptureError::Silent { source_name, seconds },
            },
            error => error,
        }
    }

    fn finish(&self) -> Next {
        self.delivery.tell(Captured::Finished);
        Next::Leave
    }

    fn ended(&self) -> CaptureError {
        CaptureError::Ended { source_name: self.source_name.clone() }
    }

    /// Whether no other thread can still close what pipelines of this camera have open.
    fn is_alone(&self) -> bool {
        self.teardowns.are_over() && self.stats.threads_abandoned.load(Relaxed) == 0
    }

    /// Holds back while too many pipelines refuse to die; true when stopped meanwhile.
    fn wait_for_abandoned(&self) -> bool {
        loop {
            self.alive();
            let clogged = self.teardowns.is_clogged();
            self.stats.clogged.store(clogged, Relaxed);
            if !clogged {
                return false;
            }
            if self.stop.wait(Duration::from_secs(1)) == Woke::Stop {
                return true;
            }
        }
    }
}

/// In 0..1. Each `RandomState` has fresh keys.
fn chance() -> f64 {
    let bits = RandomState::new().hash_one(mono_ns());
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
