//! A video track held in memory as coded pictures: what the server sends, without decoding it.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

/// The coded pictures of a file, in their order, with times that begin at zero.
#[derive(Debug)]
pub(crate) struct Clip {
    /// Media type of the pictures.
    pub(crate) caps: gst::Caps,
    /// Coded pictures.
    pub(crate) pictures: Vec<gst::Buffer>,
    /// From the first picture to the end of the last.
    pub(crate) period: gst::ClockTime,
    /// Launch line from the pictures to RTP.
    pub(crate) payloader: &'static str,
}

/// Media type, launch line to whole pictures, launch line from there to RTP.
const CODECS: [(&str, &str, &str); 4] = [
    (
        "video/x-h264",
        "h264parse ! capsfilter caps=video/x-h264,stream-format=byte-stream,alignment=au",
        "h264parse ! rtph264pay name=pay0 pt=96 config-interval=1",
    ),
    (
        "video/x-h265",
        "h265parse ! capsfilter caps=video/x-h265,stream-format=byte-stream,alignment=au",
        "h265parse ! rtph265pay name=pay0 pt=96 config-interval=1",
    ),
    ("image/jpeg", "identity", "rtpjpegpay name=pay0 pt=26"),
    ("video/x-vp8", "identity", "rtpvp8pay name=pay0 pt=96"),
];

/// Between two pictures, while a file is read.
const PATIENCE: Duration = Duration::from_secs(10);

impl Clip {
    /// Reads the video track of `path` (H.264, H.265, JPEG or VP8 in any container GStreamer knows).
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        read(path).map_err(|reason| format!("{}: {reason}", path.display()))
    }

    /// When a picture begins; the number after the last gives the end.
    pub(crate) fn time_of(&self, picture: usize) -> gst::ClockTime {
        self.pictures.get(picture).and_then(|picture| picture.pts()).unwrap_or(self.period)
    }
}

fn read(path: &Path) -> Result<Clip, String> {
    let text = "filesrc name=source ! parsebin name=tracks  appsink name=sink sync=false async=false";
    let pipeline = gst::parse::launch(text).map_err(|e| e.to_string())?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "no pipeline")?;
    pipeline.by_name("source").ok_or("no source")?.set_property("location", path.to_string_lossy().as_ref());
    let sink = pipeline.by_name("sink").and_then(|s| s.downcast::<gst_app::AppSink>().ok()).ok_or("no sink")?;
    let tracks = pipeline.by_name("tracks").ok_or("no tracks")?;
    let payloader = Arc::new(OnceLock::new());
    let (chosen, weak, into) = (Arc::clone(&payloader), pipeline.downgrade(), sink.clone());
    tracks.connect_pad_added(move |tracks, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        if let Err(error) = join(&pipeline, pad, &into, &chosen) {
            gst::element_error!(tracks, gst::StreamError::WrongType, ("{error}"));
        }
    });
    let chosen = Arc::clone(&payloader);
    tracks.connect_no_more_pads(move |tracks| {
        if chosen.get().is_none() {
            gst::element_error!(tracks, gst::StreamError::WrongType, ("it has no H.264, H.265, JPEG or VP8 track"));
        }
    });
    let result = pull_all(&pipeline, &sink);
    let _ = pipeline.set_state(gst::State::Null);
    let (caps, pictures) = result?;
    let (pictures, period) = rebase(pictures).ok_or("it has no usable picture")?;
    Ok(Clip { caps, pictures, period, payloader: payloader.get().ok_or("it has no video track")? })
}

/// Leads the first video track to the sink, and others nowhere.
fn join(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    sink: &gst_app::AppSink,
    payloader: &OnceLock<&'static str>,
) -> Result<(), gst::glib::BoolError> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let name = caps.structure(0).map(|structure| structure.name().to_string()).unwrap_or_default();
    let codec = CODECS.iter().find(|(media, ..)| *media == name);
    let element: gst::Element = match codec.filter(|(.., to_rtp)| payloader.set(to_rtp).is_ok()) {
        Some((_, to_pictures, _)) => {
            let bin = gst::parse::bin_from_description(to_pictures, true).map_err(|e| gst::glib::bool_error!("{e}"))?;
            pipeline.add(&bin)?;
            bin.link(sink)?;
            bin.upcast()
        }
        None => {
            let fake = gst::ElementFactory::make("fakesink").property("async", false).build()?;
            pipeline.add(&fake)?;
            fake
        }
    };
    element.sync_state_with_parent()?;
    let input = element.static_pad("sink").ok_or_else(|| gst::glib::bool_error!("{name}: no input"))?;
    pad.link(&input).map_err(|e| gst::glib::bool_error!("{name}: {e}"))?;
    Ok(())
}

fn pull_all(pipeline: &gst::Pipeline, sink: &gst_app::AppSink) -> Result<(gst::Caps, Vec<gst::Buffer>), String> {
    let bus = pipeline.bus().ok_or("no bus")?;
    let failure = || {
        let message = bus.timed_pop_filtered(gst::ClockTime::ZERO, &[gst::MessageType::Error]);
        match message.as_ref().map(|m| m.view()) {
            Some(gst::MessageView::Error(error)) => Some(error.error().to_string()),
            _ => None,
        }
    };
    pipeline.set_state(gst::State::Playing).map_err(|_| failure().unwrap_or_else(|| "cannot be opened".into()))?;
    let (mut caps, mut pictures, mut newest) = (None, Vec::new(), Instant::now());
    loop {
        if let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_mseconds(200)) {
            caps = caps.or_else(|| sample.caps_owned());
            pictures.extend(sample.buffer_owned());
            newest = Instant::now();
        } else if let Some(reason) = failure() {
            return Err(reason);
        } else if sink.is_eos() {
            break;
        } else if newest.elapsed() > PATIENCE {
            return Err(format!("no picture within {PATIENCE:?}"));
        }
    }
    Ok((caps.ok_or("it has no pictures")?, pictures))
}

/// Moves all times so that the earliest is zero.
fn rebase(mut pictures: Vec<gst::Buffer>) -> Option<(Vec<gst::Buffer>, gst::ClockTime)> {
    pictures.retain(|picture| picture.pts().is_some());
    let times = || pictures.iter().filter_map(|picture| picture.pts());
    let (first, last) = (times().min()?, times().max()?);
    let count = u64::try_from(pictures.len()).ok()?;
    let usual = if count > 1 { (last - first) / (count - 1) } else { gst::ClockTime::from_mseconds(40) };
    let base = pictures.iter().filter_map(|picture| picture.dts()).min().map_or(first, |dts| dts.min(first));
    for picture in &mut pictures {
        let picture = picture.make_mut();
        picture.set_pts(picture.pts().map(|t| t - base));
        picture.set_dts(picture.dts().map(|t| t - base));
    }
    Some((pictures, last - first + usual))
}
