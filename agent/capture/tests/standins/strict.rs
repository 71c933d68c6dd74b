//! Properties and pad templates of the real elements, in one place.
//!
//! `nvvidconv` and `nvarguscamerasrc`: `gst-inspect-1.0` of L4T r36, and NVIDIA's public `gstnvvconv.c`. `nvv4l2decoder`:
//! NVIDIA's public `gstv4l2videodec.c`, which installs one set of properties where the kernel has the decoder of Tegra
//! (`is_cuvid == FALSE`, up to Orin) and another where it has not (Thor); both have the first three. What is set by nobody
//! is left out where an element has very many.

use std::sync::OnceLock;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use kinewatch_capture::platform::{Chip, Platform};

use super::{flag, number, register, template, text};

/// Formats of `nvvidconv` in the processor's memory, out of it. No RGB.
const OUT: &str = "{ I420, UYVY, YUY2, YVYU, NV12, NV16, NV24, GRAY8, BGRx, RGBA, Y42B, Y444 }";
const IN: &str = "{ I420, UYVY, YUY2, YVYU, NV12, NV16, NV24, P010_10LE, GRAY8, BGRx, RGBA, Y42B, Y444 }";
const NVMM: &str = "{ I420, I420_10LE, P010_10LE, UYVY, YUY2, YVYU, NV12, NV16, NV24, GRAY8, BGRx, RGBA, Y42B, Y444 }";

const ENCODED: &str = "image/jpeg; video/x-h264,stream-format=byte-stream,alignment=au; \
     video/x-h265,stream-format=byte-stream,alignment=au; video/x-av1; video/x-vp8; video/x-vp9";
/// Thor: without JPEG.
const ENCODED_THOR: &str = "video/x-h264,stream-format=byte-stream,alignment=au; \
     video/x-h265,stream-format=byte-stream,alignment=au; video/x-av1; video/x-vp9";

/// `GstNvVidConvComputeHWType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "StandInComputeHw")]
enum ComputeHw {
    #[default]
    #[enum_value(name = "Default, VIC for Jetson", nick = "Default")]
    Default = 0,
    #[enum_value(name = "GPU", nick = "GPU")]
    Gpu = 1,
    #[enum_value(name = "VIC", nick = "VIC")]
    Vic = 2,
}

/// `GstInterpolationMethod`; the real default is the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "StandInInterpolation")]
enum Interpolation {
    #[default]
    #[enum_value(name = "Nearest", nick = "Nearest")]
    Nearest = 0,
    #[enum_value(name = "Bilinear", nick = "Bilinear")]
    Bilinear = 1,
    #[enum_value(name = "5-Tap", nick = "5-Tap")]
    FiveTap = 2,
    #[enum_value(name = "10-Tap", nick = "10-Tap")]
    TenTap = 3,
    #[enum_value(name = "Smart", nick = "Smart")]
    Smart = 4,
    #[enum_value(name = "Nicest", nick = "Nicest")]
    Nicest = 5,
}

/// An element with these pads and properties, which does nothing.
macro_rules! element {
    ($module:ident, sink: $sink:expr, src: $src:expr, properties: $properties:expr) => {
        pub(super) mod $module {
            use super::*;

            #[derive(Default)]
            pub(crate) struct Imp;

            #[glib::object_subclass]
            impl ObjectSubclass for Imp {
                const NAME: &'static str = concat!("StandIn_", stringify!($module));
                type Type = Object;
                type ParentType = gst::Element;
            }

            impl ObjectImpl for Imp {
                properties!($properties);

                fn constructed(&self) {
                    self.parent_constructed();
                    for template in Self::pad_templates() {
                        self.obj().add_pad(&gst::Pad::from_template(template)).unwrap();
                    }
                }
            }

            impl GstObjectImpl for Imp {}

            element_impl!(stringify!($module), {
                let sink: Option<String> = $sink;
                let sink = sink.map(|caps| template("sink", gst::PadDirection::Sink, &caps));
                sink.into_iter().chain([template("src", gst::PadDirection::Src, &$src)]).collect()
            });

            glib::wrapper! {
                pub(crate) struct Object(ObjectSubclass<Imp>) @extends gst::Element, gst::Object;
            }
        }
    };
}

fn common() -> Vec<glib::ParamSpec> {
    vec![number("skip-frames"), number("drop-frame-interval"), number("num-extra-surfaces"), text("device")]
}

fn tegra() -> Vec<glib::ParamSpec> {
    let flags = [
        "disable-dpb",
        "enable-full-frame",
        "enable-frame-type-reporting",
        "mjpeg",
        "enable-error-check",
        "enable-max-performance",
    ];
    common().into_iter().chain(flags.map(flag)).collect()
}

fn thor() -> Vec<glib::ParamSpec> {
    let own = [number("cudadec-memtype"), number("gpu-id"), flag("low-latency-mode"), flag("extract-sei-type5-data")];
    common().into_iter().chain(own).collect()
}

/// As on r35; r36 and later have `compute-hw` too.
fn scaler() -> Vec<glib::ParamSpec> {
    vec![
        flag("silent"),
        number("flip-method"),
        number("output-buffers"),
        glib::ParamSpecEnum::builder::<Interpolation>("interpolation-method").build(),
        number("left"),
        number("right"),
        number("top"),
        number("bottom"),
        flag("bl-output"),
    ]
}

fn scaler_since_r36() -> Vec<glib::ParamSpec> {
    let engine = glib::ParamSpecEnum::builder::<ComputeHw>("compute-hw").build();
    let more = [engine, number("gpu-id"), number("nvbuf-memory-type")];
    scaler().into_iter().chain(more).collect()
}

fn scales(system: &str) -> String {
    format!("video/x-raw(memory:NVMM),format={NVMM}; video/x-raw,format={system}")
}

fn nvmm() -> String {
    "video/x-raw(memory:NVMM),width=[1,32767],height=[1,32767],framerate=[0/1,2147483647/1]".into()
}

fn raw() -> String {
    "video/x-raw".into()
}

element!(decoder_tegra, sink: Some(ENCODED.into()), src: nvmm(), properties: tegra());
element!(decoder_thor, sink: Some(ENCODED_THOR.into()), src: nvmm(), properties: thor());
element!(scaler_r35, sink: Some(scales(IN)), src: scales(OUT), properties: scaler());
element!(scaler_r36, sink: Some(scales(IN)), src: scales(OUT), properties: scaler_since_r36());
element!(argus, sink: None, src: format!("{},format=NV12", nvmm()), properties: vec![
    number("sensor-id"), number("sensor-mode"), number("timeout"), flag("aelock"), flag("awblock"), number("wbmode"),
    number("tnr-mode"), number("ee-mode"), text("exposuretimerange"), text("gainrange"), flag("silent"),
]);
element!(va_h264, sink: Some("video/x-h264,alignment=au,stream-format={avc,avc3,byte-stream}".into()), src: raw(), properties: vec![]);
element!(va_h265, sink: Some("video/x-h265,alignment=au,stream-format={hvc1,hev1,byte-stream}".into()), src: raw(), properties: vec![]);
element!(nv_h264, sink: Some("video/x-h264,alignment=au,stream-format=byte-stream".into()), src: raw(), properties: vec![]);
element!(nv_h265, sink: Some("video/x-h265,alignment=au,stream-format=byte-stream".into()), src: raw(), properties: vec![]);

/// Lets the elements of a machine stand in, in place of those of the machine before. Needs the whole process.
pub(crate) fn stand_in(platform: Platform, chip: Chip) {
    register("vah264dec", va_h264::Object::static_type());
    register("vah265dec", va_h265::Object::static_type());
    register("nvh264dec", nv_h264::Object::static_type());
    register("nvh265dec", nv_h265::Object::static_type());
    register("nvarguscamerasrc", argus::Object::static_type());
    register(
        "nvv4l2decoder",
        match chip {
            Chip::Orin => decoder_tegra::Object::static_type(),
            Chip::Thor => decoder_thor::Object::static_type(),
        },
    );
    register(
        "nvvidconv",
        match platform {
            Platform::Jetpack5 => scaler_r35::Object::static_type(),
            _ => scaler_r36::Object::static_type(),
        },
    );
}
