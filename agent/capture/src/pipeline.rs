//! Builds one pipeline from its description and connects it to the [`Delivery`].
//!
//! URL, path, user and password are set as properties and appear in no description. The callbacks run on GStreamer's
//! streaming threads and hold the delivery, never the pipeline (which would keep itself alive).

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use kinewatch_core::frame::FrameSpec;

use crate::camera::CameraOptions;
use crate::clock::mono_ns;
use crate::delivery::{CaptureClock, Delivery, Generation, Offer};
use crate::describe::{Codec, Description, describe, head};
use crate::error::{CaptureError, DescribeError, NO_VIDEO};
use crate::hardware::Hardware;
use crate::secret::redact;
use crate::source::Source;

/// A pipeline, stopped, and what it finds in its source.
pub(crate) struct Built {
    pub(crate) pipeline: gst::Pipeline,
    pub(crate) streams: Arc<Streams>,
}

/// Streams that a source turned out to have.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    has_video: AtomicBool,
    hardware: OnceLock<Hardware>,
    /// `CLOCK_MONOTONIC` of the last packet that went into a hardware decoder, nanoseconds.
    last_packet: AtomicI64,
    /// Where packets go into it.
    input: OnceLock<gst::glib::WeakRef<gst::Pad>>,
    /// Whether the last packet had been refused there when the first error was told.
    refused: OnceLock<bool>,
    others: Mutex<Vec<String>>,
}

impl Streams {
    /// Whether a video stream showed: from RTSP servers with its first packet.
    pub(crate) fn has_video(&self) -> bool {
        self.has_video.load(Ordering::Relaxed)
    }

    /// The hardware decoder that the stream was given to, once it was.
    pub(crate) fn hardware(&self) -> Option<Hardware> {
        self.hardware.get().copied()
    }

    /// `CLOCK_MONOTONIC` of the last packet that went into it, nanoseconds; 0 before the first.
    pub(crate) fn last_packet(&self) -> i64 {
        self.last_packet.load(Ordering::Relaxed)
    }

    /// Whether, when the first error was told, the last packet had been refused by the decoder or by what follows it.
    pub(crate) fn refused(&self) -> bool {
        self.refused.get().copied().unwrap_or(false)
    }

    fn refuses(&self) -> bool {
        let last = self.input.get().and_then(|input| input.upgrade()?.peer()).map(|before| before.last_flow_result());
        matches!(last, Some(Err(gst::FlowError::Error | gst::FlowError::NotNegotiated | gst::FlowError::NotSupported)))
    }

    /// The media types found when none is video.
    pub(crate) fn without_video(&self) -> Option<String> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.has_video.load(Ordering::Relaxed)).then(|| others.join(", "))
    }
}

/// Builds the pipeline of `options.source`.
pub(crate) fn build(
    options: &CameraOptions,
    source_name: &str,
    delivery: &Arc<Delivery>,
    generation: Generation,
) -> Result<Built, CaptureError> {
    let streams = Arc::new(Streams::default());
    let unsupported = |reason| CaptureError::Unsupported { source_name: source_name.to_owned(), reason };
    let tails = Tails {
        options: options.clone(),
        specs: options.branches.iter().map(|branch| branch.spec).collect(),
        delivery: Arc::clone(delivery),
        generation,
        streams: Arc::clone(&streams),
    };
    let Some(codec) = Codec::known(&options.source) else {
        let text = head(&options.source, options.transport, &options.elements).map_err(unsupported)?;
        let pipeline = launch(&text, source_name)?;
        set_source(&pipeline, options);
        note_refusal(&pipeline, &streams);
        join_later(&pipeline, tails, &streams);
        return Ok(Built { pipeline, streams });
    };
    let description = tails.describe(codec).map_err(unsupported)?;
    let failed = |error: CaptureError| match description.hardware {
        Some(hardware) => error.of_decoder(hardware),
        None => error,
    };
    let pipeline = launch(&description.to_string(), source_name).map_err(failed)?;
    tails.connect(pipeline.upcast_ref(), &description);
    note_refusal(&pipeline, &streams);
    streams.has_video.store(true, Ordering::Relaxed);
    Ok(Built { pipeline, streams })
}

/// Whether a pipeline for `options` can exist on this machine: for errors that no retry heals.
pub(crate) fn check(options: &CameraOptions) -> Result<(), CaptureError> {
    let source_name = options.source.to_string();
    let specs: Vec<FrameSpec> = options.branches.iter().map(|branch| branch.spec).collect();
    let codec = Codec::known(&options.source).unwrap_or(Codec::Other);
    match describe(&options.source, options.transport, codec, &options.elements, &specs) {
        Err(reason) => Err(CaptureError::Unsupported { source_name, reason }),
        // The pattern's name is only known to GStreamer.
        Ok(description) if matches!(options.source, Source::Test { .. }) => {
            launch(&description.to_string(), &source_name).map(drop)
        }
        Ok(_) => Ok(()),
    }
}

/// Looks at the decoder's input when an error is told, on the thread that tells it: soon after, the end of the stream has
/// passed there too.
fn note_refusal(pipeline: &gst::Pipeline, streams: &Arc<Streams>) {
    let Some(bus) = pipeline.bus() else { return };
    let streams = Arc::clone(streams);
    bus.set_sync_handler(move |_, message| {
        if message.type_() == gst::MessageType::Error {
            let _first = streams.refused.get_or_init(|| streams.refuses());
        }
        gst::BusSyncReply::Pass
    });
}

fn launch(text: &str, source_name: &str) -> Result<gst::Pipeline, CaptureError> {
    let failed = |detail: String| CaptureError::Pipeline { source_name: source_name.to_owned(), detail };
    let element = gst::parse::launch(text).map_err(|e| failed(redact(&e.to_string())))?;
    element.downcast::<gst::Pipeline>().or_else(|element| {
        // A description of one element gives that element.
        let pipeline = gst::Pipeline::new();
        pipeline.add(&element).map_err(|e| failed(e.to_string()))?;
        Ok(pipeline)
    })
}

fn set_source(pipeline: &gst::Pipeline, options: &CameraOptions) {
    let Some(element) = pipeline.by_name("source") else { return };
    match &options.source {
        Source::File { path, .. } => element.set_property("location", path.as_os_str().to_string_lossy().as_ref()),
        Source::Rtsp { url, credentials } => {
            element.set_property("location", url);
            // GStreamer 1.22 and later; before, nothing tells when a frame was captured.
            if element.has_property(SENDER_TIME) {
                element.set_property(SENDER_TIME, true);
            }
            if let Some(credentials) = options.credentials.as_ref().or(credentials.as_ref()) {
                element.set_property("user-id", credentials.user());
                element.set_property("user-pw", credentials.password());
            }
        }
        Source::V4l2 { .. } | Source::Csi { .. } | Source::Test { .. } => {}
    }
}

/// Property of `rtspsrc` that passes on the times of RTCP sender reports.
const SENDER_TIME: &str = "add-reference-timestamp-meta";

/// Everything the second part of a pipeline needs.
struct Tails {
    options: CameraOptions,
    specs: Vec<FrameSpec>,
    delivery: Arc<Delivery>,
    generation: Generation,
    streams: Arc<Streams>,
}

impl Tails {
    /// The description for a stream of `codec`, whose hardware is noted before anything of it is tried.
    fn describe(&self, codec: Codec) -> Result<Description, DescribeError> {
        let options = &self.options;
        let description = describe(&options.source, options.transport, codec, &options.elements, &self.specs)?;
        if let Some(hardware) = description.hardware {
            let _first = self.streams.hardware.set(hardware);
        }
        Ok(description)
    }

    /// Probes before the scalers, callbacks after them.
    fn connect(&self, bin: &gst::Bin, description: &Description) {
        if description.hardware.is_some()
            && let Some(pad) = bin.by_name("decoder").and_then(|element| element.static_pad("sink"))
        {
            let streams = Arc::clone(&self.streams);
            let _first = streams.input.set(pad.downgrade());
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                streams.last_packet.store(mono_ns(), Ordering::Relaxed);
                gst::PadProbeReturn::Ok
            });
        }
        for (branch, layout) in description.layouts.iter().enumerate() {
            self.delivery.set_layout(branch, *layout);
            let first = bin.by_name(&format!("branch{branch}")).and_then(|element| element.static_pad("sink"));
            if let Some(pad) = first {
                self.probe(&pad, branch);
            }
            let sink = bin.by_name(&format!("sink{branch}")).and_then(|e| e.downcast::<gst_app::AppSink>().ok());
            if let Some(sink) = sink {
                self.receive(&sink, branch);
            }
        }
    }

    fn probe(&self, pad: &gst::Pad, branch: usize) {
        let (delivery, generation) = (Arc::clone(&self.delivery), self.generation);
        let local = matches!(self.options.source, Source::V4l2 { .. } | Source::Csi { .. } | Source::Test { .. });
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(mask, move |pad, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    let captured = if local { by_our_clock(pad) } else { by_sender(buffer) };
                    match delivery.offer(generation, branch, buffer.pts(), captured) {
                        Offer::Scale => {}
                        // Not `PadProbeReturn::Drop`: with that, GStreamer 1.22 complains on stderr for every buffer.
                        Offer::Drop => return gst::PadProbeReturn::Handled,
                    }
                }
                Some(gst::PadProbeData::Event(event)) if branch == 0 => match event.view() {
                    gst::EventView::Segment(segment) => delivery.segment(generation, segment.segment()),
                    gst::EventView::Caps(caps) => delivery.caps(generation, caps.caps()),
                    _ => {}
                },
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn receive(&self, sink: &gst_app::AppSink, branch: usize) {
        let (delivery, generation) = (Arc::clone(&self.delivery), self.generation);
        let new_sample = move |sink: &gst_app::AppSink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let open = sample.buffer().is_none_or(|buffer| delivery.deliver(generation, branch, buffer));
            if open { Ok(gst::FlowSuccess::Ok) } else { Err(gst::FlowError::Flushing) }
        };
        sink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(new_sample).build());
    }

    /// Decoder to sinks for a pad that has just appeared.
    fn join(&self, pipeline: &gst::Pipeline, pad: &gst::Pad, codec: Codec) -> Result<(), String> {
        let description = self.describe(codec).map_err(|e| e.to_string())?;
        let bin = gst::parse::bin_from_description(&description.tail, false).map_err(|e| e.to_string())?;
        let sink = entry(&bin).ok_or("the decoder takes no input")?;
        bin.add_pad(&sink).map_err(|e| e.to_string())?;
        self.connect(&bin, &description);
        pipeline.add(&bin).map_err(|e| e.to_string())?;
        bin.sync_state_with_parent().map_err(|e| e.to_string())?;
        pad.link(&sink).map_err(|e| format!("the stream does not fit its decoder ({e})"))?;
        Ok(())
    }
}

/// Where the stream goes in. What follows a `decodebin` has no link yet, so its own input has to be asked for by name.
fn entry(bin: &gst::Bin) -> Option<gst::GhostPad> {
    let chooser = bin.children().into_iter().find(|e| e.factory().is_some_and(|f| f.name() == "decodebin"));
    let input = chooser.map_or_else(|| bin.find_unlinked_pad(gst::PadDirection::Sink), |e| e.static_pad("sink"));
    gst::GhostPad::with_target(&input?).ok()
}

/// Joins the first video stream when it shows; other streams are swallowed undecoded, so that none holds the file up.
fn join_later(pipeline: &gst::Pipeline, tails: Tails, streams: &Arc<Streams>) {
    let dynamic = pipeline.by_name("demux").or_else(|| pipeline.by_name("source"));
    let Some(dynamic) = dynamic else { return };
    if matches!(tails.options.source, Source::Rtsp { .. }) {
        refuse_other_streams(&dynamic);
    }
    pipeline.connect_deep_element_added(|_, _, element| one_thread(element));
    let weak = pipeline.downgrade();
    let (found, told) = (Arc::clone(streams), Arc::clone(streams));
    dynamic.connect_pad_added(move |element, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        let name = stream_name(pad);
        let codec = Codec::of(&name).filter(|_| !found.has_video.swap(true, Ordering::Relaxed));
        let Some(codec) = codec else {
            found.others.lock().unwrap_or_else(PoisonError::into_inner).push(name);
            swallow(&pipeline, pad);
            return;
        };
        if let Err(reason) = tails.join(&pipeline, pad, codec) {
            gst::element_error!(element, gst::StreamError::CodecNotFound, ("{}", reason));
        }
    });
    dynamic.connect_no_more_pads(move |element| {
        if let Some(others) = told.without_video() {
            gst::element_error!(element, gst::StreamError::WrongType, ("{}{}", NO_VIDEO, others));
        }
    });
}

/// Drivers of this machine stamp frames by the clock of the pipeline.
fn by_our_clock(pad: &gst::Pad) -> CaptureClock {
    let base = pad.parent_element().and_then(|element| element.base_time());
    let base_ns = base.and_then(|base| i64::try_from(base.nseconds()).ok());
    base_ns.map_or(CaptureClock::Unknown, |base_ns| CaptureClock::Ours { base_ns })
}

/// From RTCP sender reports, where `rtspsrc` passes them on.
fn by_sender(buffer: &gst::BufferRef) -> CaptureClock {
    sender_time(buffer).map_or(CaptureClock::Unknown, |unix_ns| CaptureClock::Sender { unix_ns })
}

fn sender_time(buffer: &gst::BufferRef) -> Option<i64> {
    /// From 1900 to 1970.
    const NTP_TO_UNIX_S: u64 = 2_208_988_800;
    let ntp = buffer
        .iter_meta::<gst::ReferenceTimestampMeta>()
        .find(|meta| meta.reference().structure(0).is_some_and(|reference| reference.name() == "timestamp/x-ntp"))?;
    let unix = ntp.timestamp().checked_sub(gst::ClockTime::from_seconds(NTP_TO_UNIX_S))?;
    i64::try_from(unix.nseconds()).ok()
}

/// `video/x-h264`, `audio/mpeg`, or the encoding name of an RTP video stream.
fn stream_name(pad: &gst::Pad) -> String {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let Some(structure) = caps.structure(0) else { return "unknown/unknown".into() };
    if structure.name() != "application/x-rtp" {
        return structure.name().to_string();
    }
    match structure.get::<&str>("media") {
        Ok("video") => structure.get::<&str>("encoding-name").unwrap_or("UNKNOWN").to_owned(),
        media => format!("{}/rtp", media.unwrap_or("unknown")),
    }
}

/// Only the first video stream of an RTSP server is set up at all.
fn refuse_other_streams(rtspsrc: &gst::Element) {
    let chosen = AtomicBool::new(false);
    rtspsrc.connect("select-stream", false, move |values| {
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        let is_video = caps.is_some_and(|c| c.structure(0).is_some_and(|s| s.get::<&str>("media") == Ok("video")));
        let select = is_video && !chosen.swap(true, Ordering::Relaxed);
        Some(select.to_value())
    });
}

fn swallow(pipeline: &gst::Pipeline, pad: &gst::Pad) {
    let sink = gst::ElementFactory::make("fakesink").property("sync", false).property("async", false).build();
    let Ok(sink) = sink else { return };
    if pipeline.add(&sink).is_ok()
        && sink.sync_state_with_parent().is_ok()
        && let Some(input) = sink.static_pad("sink")
    {
        let _ = pad.link(&input);
    }
}

/// Decoders that GStreamer chose by itself get one thread, as those of the description.
fn one_thread(element: &gst::Element) {
    let is_avdec = element.factory().is_some_and(|factory| factory.name().starts_with("avdec_"));
    if is_avdec && element.has_property("max-threads") {
        element.set_property("max-threads", 1_i32);
    }
}
