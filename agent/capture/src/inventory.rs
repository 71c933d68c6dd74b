//! What of GStreamer is on this machine, and what a camera needs of it, for `kinewatch doctor`.
//!
//! Which elements a pipeline needs is read from its own description, so nothing has to be listed twice. Pure but for
//! [`gstreamer_version`] and [`has_element`], which ask the registry ([`crate::init`] must have been called).

use gstreamer as gst;
use kinewatch_core::frame::FrameSpec;

use crate::describe::{Codec, Transport, describe};
use crate::elements::Elements;
use crate::error::DescribeError;
use crate::source::Source;

/// An element that a camera needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Its name, such as `rtspsrc`.
    pub element: String,
    /// The Debian or Ubuntu package that has it.
    pub package: &'static str,
}

/// Version of GStreamer in use, such as `1.22.0`.
#[must_use]
pub fn gstreamer_version() -> String {
    let (major, minor, micro, _) = gst::version();
    format!("{major}.{minor}.{micro}")
}

/// Whether the registry has an element of this name.
#[must_use]
pub fn has_element(name: &str) -> bool {
    gst::ElementFactory::find(name).is_some()
}

/// The elements of a camera's pipeline, each once, in its order. `codec`: `None` where only the stream tells it; then those
/// that serve any.
///
/// # Errors
/// No pipeline serves the source here, whatever is installed.
pub fn needed(
    source: &Source,
    transport: Transport,
    codec: Option<Codec>,
    elements: &Elements,
    branches: &[FrameSpec],
) -> Result<Vec<Needed>, DescribeError> {
    let codec = codec.or(Codec::known(source)).unwrap_or(Codec::Raw);
    let text = describe(source, transport, codec, elements, branches)?.to_string();
    let mut found: Vec<Needed> = Vec::new();
    for element in elements_of(&text).chain(implied(source, transport).iter().copied()) {
        if !found.iter().any(|n| n.element == element) {
            found.push(Needed { element: element.to_owned(), package: package_of(element) });
        }
    }
    Ok(found)
}

/// Elements that others make by themselves when they run.
fn implied(source: &Source, transport: Transport) -> &'static [&'static str] {
    match (source, transport) {
        (Source::Rtsp { .. }, Transport::Tcp) => &["rtpbin"],
        (Source::Rtsp { .. }, Transport::Udp) => &["rtpbin", "udpsrc", "udpsink"],
        _ => &[],
    }
}

/// First word of every stage that is not a filter of media types.
fn elements_of(description: &str) -> impl Iterator<Item = &str> {
    description.split(" ! ").filter_map(|stage| stage.split_whitespace().next()).filter(|word| !word.contains('/'))
}

/// The Debian or Ubuntu package of an element that this crate may use.
#[must_use]
pub fn package_of(element: &str) -> &'static str {
    match element {
        "nvv4l2decoder" | "nvvidconv" | "nvarguscamerasrc" => "nvidia-l4t-gstreamer",
        "h264parse" | "h265parse" | "libde265dec" | "openh264dec" => "gstreamer1.0-plugins-bad",
        "appsink" | "decodebin" | "parsebin" | "videoconvert" | "videoscale" | "videotestsrc" => {
            "gstreamer1.0-plugins-base"
        }
        "capsfilter" | "fakesink" | "filesrc" | "identity" | "tee" => "libgstreamer1.0-0",
        decoder if decoder.starts_with("avdec_") => "gstreamer1.0-libav",
        hardware if hardware.starts_with("va") || hardware.starts_with("nv") => "gstreamer1.0-plugins-bad",
        _ => "gstreamer1.0-plugins-good",
    }
}

#[cfg(test)]
mod tests {
    use gstreamer::prelude::*;
    use kinewatch_core::frame::{Filter, Resize, ScaleOrder};

    use super::*;
    use crate::elements::Machine;

    fn names(source: &str, transport: Transport, codec: Option<Codec>, elements: &Elements) -> String {
        let plain = FrameSpec {
            width: 160,
            height: 160,
            resize: Resize::Stretch,
            filter: Filter::Bilinear,
            order: ScaleOrder::ScaleConvert,
        };
        match needed(&Source::parse(source).unwrap(), transport, codec, elements, &[plain, plain]) {
            Ok(all) => all.iter().map(|n| format!("{}({})", n.element, n.package)).collect::<Vec<_>>().join(" "),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn what_a_camera_needs_is_what_its_pipeline_names() {
        let desk = Elements::choose(&|name| ["avdec_h264", "jpegdec"].contains(&name), Machine::default());
        assert_eq!(
            names("rtsp://cam/1", Transport::Udp, Some(Codec::H264), &desk),
            "rtspsrc(gstreamer1.0-plugins-good) rtph264depay(gstreamer1.0-plugins-good) \
             h264parse(gstreamer1.0-plugins-bad) avdec_h264(gstreamer1.0-libav) tee(libgstreamer1.0-0) \
             videoscale(gstreamer1.0-plugins-base) videoconvert(gstreamer1.0-plugins-base) \
             appsink(gstreamer1.0-plugins-base) rtpbin(gstreamer1.0-plugins-good) udpsrc(gstreamer1.0-plugins-good) \
             udpsink(gstreamer1.0-plugins-good)"
        );
        assert!(names("rtsp://cam/1", Transport::Tcp, Some(Codec::H265), &desk).contains("no decoder for H265"));
        assert!(names("csi:0", Transport::Tcp, None, &desk).contains("needs a Jetson"));
        let jetson = Elements::choose(&|name| ["nvv4l2decoder", "nvvidconv"].contains(&name), Machine::default());
        assert!(names("csi:0", Transport::Tcp, None, &jetson).starts_with(
            "nvarguscamerasrc(nvidia-l4t-gstreamer) tee(libgstreamer1.0-0) nvvidconv(nvidia-l4t-gstreamer)"
        ));
    }

    /// Held against the packages of this machine, where it has `dpkg`.
    #[test]
    fn packages_are_those_of_debian() {
        crate::init().unwrap();
        let elements = "rtspsrc rtpbin rtph264depay rtpjpegdepay udpsrc v4l2src jpegdec videoflip h264parse h265parse \
                        appsink decodebin parsebin videoconvert videoscale videotestsrc avdec_h264 filesrc identity tee";
        for element in elements.split_whitespace() {
            let Some(file) = gst::ElementFactory::find(element).and_then(|f| f.plugin()).and_then(|p| p.filename())
            else {
                continue;
            };
            let Ok(owner) = std::process::Command::new("dpkg").arg("-S").arg(&file).output() else { return };
            let owner = String::from_utf8_lossy(&owner.stdout).into_owned();
            let package = package_of(element);
            assert!(owner.is_empty() || owner.starts_with(package), "{element}: {package}, but dpkg says {owner}");
        }
    }
}
