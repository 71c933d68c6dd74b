//! Asks an RTSP server what it offers, without playing any of it: connects, logs in, reads its description, leaves.
//!
//! For `kinewatch doctor`. Goes the way that a camera's pipeline goes (`rtspsrc`: name resolution, TLS, Basic and Digest
//! login), so what it says is what the daemon would meet. Blocks the caller for at most the given time; never sets a
//! stream up, so a camera that serves one viewer alone keeps that one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::diagnose::why_unreachable;
use crate::error::CaptureError;
use crate::secret::Credentials;
use crate::source::Source;
use crate::teardown::Teardowns;

/// What a server offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// RTP encoding names of its video streams, such as `H264`, in its order.
    pub video: Vec<String>,
    /// Kinds of its other streams, such as `audio`.
    pub others: Vec<String>,
}

/// Asks the server of an RTSP source. [`crate::init`] must have been called. Other sources offer nothing.
///
/// # Errors
/// What the camera thread would have said, redacted.
pub fn ask_rtsp(source: &Source, credentials: Option<&Credentials>, limit: Duration) -> Result<Offered, CaptureError> {
    let Source::Rtsp { url, credentials: own } = source else { return Ok(Offered::default()) };
    let source_name = source.to_string();
    let failed = |detail: String| CaptureError::Pipeline { source_name: source_name.clone(), detail };
    let element = gst::ElementFactory::make("rtspsrc").build().map_err(|e| failed(e.to_string()))?;
    element.set_property("location", url);
    if let Some(credentials) = credentials.or(own.as_ref()) {
        element.set_property("user-id", credentials.user());
        element.set_property("user-pw", credentials.password());
    }
    let offered = Arc::new(Mutex::new(Offered::default()));
    note_streams(&element, &offered);
    let pipeline = gst::Pipeline::new();
    pipeline.add(&element).map_err(|e| failed(e.to_string()))?;
    let answer = watch(&pipeline, &source_name, limit);
    Teardowns::new("ask".into(), Duration::from_secs(1)).stop(pipeline);
    let offered = std::mem::take(&mut *offered.lock().unwrap_or_else(PoisonError::into_inner));
    // With every stream refused `rtspsrc` ends with an error of its own; what it told before is the answer.
    if !offered.video.is_empty() || !offered.others.is_empty() {
        return Ok(offered);
    }
    match answer {
        CaptureError::Unreachable { source_name, detail } => {
            let detail = why_unreachable(url).unwrap_or(detail);
            Err(CaptureError::Unreachable { source_name, detail })
        }
        error => Err(error),
    }
}

/// Notes every stream of the description, and refuses it.
fn note_streams(rtspsrc: &gst::Element, offered: &Arc<Mutex<Offered>>) {
    let offered = Arc::clone(offered);
    rtspsrc.connect("select-stream", false, move |values| {
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        let fields = caps.as_ref().and_then(|caps| caps.structure(0));
        let text = |name| fields.and_then(|fields| fields.get::<&str>(name).ok());
        let mut offered = offered.lock().unwrap_or_else(PoisonError::into_inner);
        match text("media") {
            Some("video") => offered.video.push(text("encoding-name").unwrap_or("UNKNOWN").to_owned()),
            media => offered.others.push(media.unwrap_or("unknown").to_owned()),
        }
        Some(false.to_value())
    });
}

/// Runs the pipeline until it says what is wrong, which it does in any case.
fn watch(pipeline: &gst::Pipeline, source_name: &str, limit: Duration) -> CaptureError {
    let silent = || CaptureError::Silent { source_name: source_name.to_owned(), seconds: limit.as_secs_f64() };
    let end = Instant::now() + limit;
    let Some(bus) = pipeline.bus() else { return silent() };
    // A refusal comes as a message on the bus too.
    let _refused = pipeline.set_state(gst::State::Paused);
    let left = || end.saturating_duration_since(Instant::now());
    let patience = || gst::ClockTime::from_mseconds(u64::try_from(left().as_millis()).unwrap_or(u64::MAX));
    match bus.timed_pop_filtered(patience(), &[gst::MessageType::Error, gst::MessageType::Eos]) {
        Some(message) => match message.view() {
            gst::MessageView::Error(error) => CaptureError::from_bus(source_name.to_owned(), error),
            _ => CaptureError::Ended { source_name: source_name.to_owned() },
        },
        None => silent(),
    }
}
