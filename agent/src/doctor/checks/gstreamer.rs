//! GStreamer itself: its version, and what decodes here.

use kinewatch_capture::{Platform, gstreamer_version, package_of};

use crate::doctor::{About, Context, Finding};

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let elements = match &context.gstreamer {
        Ok(elements) => elements,
        Err(reason) => return vec![about.fail(reason)],
    };
    let platform = match elements.platform {
        Platform::Software => "decodes on the processor",
        Platform::VaApi => "decodes with VA-API",
        Platform::NvCodec => "decodes with NVDEC",
        Platform::Jetpack5 => "decodes with a Jetson's NVDEC, JetPack 5",
        Platform::Jetpack6 => "decodes with a Jetson's NVDEC, JetPack 6",
        Platform::Jetpack7 => "decodes with a Jetson's NVDEC, JetPack 7",
    };
    let codecs = [
        ("H.264", elements.h264, "avdec_h264"),
        ("H.265", elements.h265, "avdec_h265"),
        ("JPEG", elements.jpeg, "jpegdec"),
    ];
    let with: Vec<String> = codecs.iter().filter_map(|(codec, has, _)| has.map(|e| format!("{codec} {e}"))).collect();
    let mut found = vec![about.ok(format!("{}, {platform}: {}", gstreamer_version(), with.join(", ")))];
    if with.is_empty() {
        found.clear();
    }
    for (codec, _, usual) in codecs.iter().filter(|(_, has, _)| has.is_none()) {
        found.push(
            about.warn(format!("{codec} cannot be decoded here; install {} if a camera sends it", package_of(usual))),
        );
    }
    found
}
