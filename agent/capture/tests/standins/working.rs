//! Stand-ins that work: what they decode and scale is right, and how they fail is set by the test.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_base::subclass::prelude::*;

use super::{flag, number, register, template, text};

/// How a decoder fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Failure {
    /// Not at all.
    None = 0,
    /// It says so on the bus.
    Said = 1,
    /// It returns an error and says nothing, as NVIDIA's elements do.
    Returned = 2,
    /// It goes on taking packets and gives no picture.
    Swallowed = 3,
}

static FAILURE: AtomicU8 = AtomicU8::new(0);
/// Packets until then, over all decoders.
static PACKETS: AtomicU64 = AtomicU64::new(0);

/// Lets decoders work for so many packets, and then fail.
pub(crate) fn fail_after(packets: u64, failure: Failure) {
    PACKETS.store(packets, Relaxed);
    FAILURE.store(failure as u8, Relaxed);
}

/// Registers `nvv4l2decoder`, `nvvidconv` and `nvarguscamerasrc`.
pub(crate) fn stand_in() {
    register("nvv4l2decoder", decoder::Object::static_type());
    register("nvvidconv", scaler::Object::static_type());
    register("nvarguscamerasrc", argus::Object::static_type());
}

/// Says that frames which pass lie in the other memory, and leaves them as they are.
mod moved {
    use super::*;

    #[derive(Default)]
    pub(crate) struct Imp;

    #[glib::object_subclass]
    impl ObjectSubclass for Imp {
        const NAME: &'static str = "StandInMoved";
        type Type = Object;
        type ParentType = gstreamer_base::BaseTransform;
    }

    impl ObjectImpl for Imp {}
    impl GstObjectImpl for Imp {}

    element_impl!("moved", {
        let caps = "video/x-raw(memory:NVMM); video/x-raw";
        vec![template("sink", gst::PadDirection::Sink, caps), template("src", gst::PadDirection::Src, caps)]
    });

    impl BaseTransformImpl for Imp {
        const MODE: gstreamer_base::subclass::BaseTransformMode =
            gstreamer_base::subclass::BaseTransformMode::AlwaysInPlace;
        const PASSTHROUGH_ON_SAME_CAPS: bool = true;
        const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

        fn transform_caps(
            &self,
            _direction: gst::PadDirection,
            caps: &gst::Caps,
            filter: Option<&gst::Caps>,
        ) -> Option<gst::Caps> {
            let mut moved = gst::Caps::new_empty();
            for (fields, features) in caps.iter_with_features() {
                let features = match features.contains("memory:NVMM") {
                    true => gst::CapsFeatures::new_empty(),
                    false => gst::CapsFeatures::new(["memory:NVMM"]),
                };
                moved.get_mut().unwrap().append_structure_full(fields.to_owned(), Some(features));
            }
            Some(filter.map_or_else(|| moved.clone(), |f| f.intersect_with_mode(&moved, gst::CapsIntersectMode::First)))
        }

        fn transform_ip(&self, _buffer: &mut gst::BufferRef) -> Result<gst::FlowSuccess, gst::FlowError> {
            Ok(gst::FlowSuccess::Ok)
        }
    }

    glib::wrapper! {
        pub(crate) struct Object(ObjectSubclass<Imp>) @extends gstreamer_base::BaseTransform, gst::Element, gst::Object;
    }
}

/// A bin of real elements with the name, pads and a part of the properties of another.
macro_rules! bin {
    ($module:ident, templates: $templates:expr, properties: $properties:expr, inside: $inside:expr, then: $then:expr) => {
        mod $module {
            use super::*;

            #[derive(Default)]
            pub(crate) struct Imp;

            #[glib::object_subclass]
            impl ObjectSubclass for Imp {
                const NAME: &'static str = concat!("StandInWorking_", stringify!($module));
                type Type = Object;
                type ParentType = gst::Bin;
            }

            impl ObjectImpl for Imp {
                properties!($properties);

                fn constructed(&self) {
                    self.parent_constructed();
                    register("standinmoved", moved::Object::static_type());
                    let inner = gst::parse::bin_from_description($inside, true).unwrap();
                    let object = self.obj();
                    object.add(&inner).unwrap();
                    for template in Self::pad_templates() {
                        let target = inner.static_pad(template.name_template()).unwrap();
                        let pad = gst::GhostPad::builder_from_template_with_target(template, &target).unwrap().build();
                        object.add_pad(&pad).unwrap();
                    }
                    $then(object.upcast_ref::<gst::Bin>());
                }
            }

            impl GstObjectImpl for Imp {}

            element_impl!(stringify!($module), $templates);

            impl BinImpl for Imp {}

            glib::wrapper! {
                pub(crate) struct Object(ObjectSubclass<Imp>) @extends gst::Bin, gst::Element, gst::Object;
            }
        }
    };
}

bin!(decoder,
    templates: vec![
        template("sink", gst::PadDirection::Sink, "video/x-h264,stream-format=byte-stream,alignment=au"),
        template("src", gst::PadDirection::Src, "video/x-raw(memory:NVMM)"),
    ],
    properties: vec![flag("enable-max-performance"), flag("mjpeg")],
    inside: "avdec_h264 max-threads=1 ! videoconvert ! video/x-raw,format=NV12 ! standinmoved",
    then: break_decoder
);

bin!(scaler,
    templates: vec![
        template("sink", gst::PadDirection::Sink, "video/x-raw(memory:NVMM)"),
        template("src", gst::PadDirection::Src, "video/x-raw"),
    ],
    properties: vec![number("interpolation-method"), text("compute-hw")],
    inside: "standinmoved ! videoscale method=bilinear add-borders=false ! videoconvert",
    then: |_: &gst::Bin| {}
);

bin!(argus,
    templates: vec![template("src", gst::PadDirection::Src, "video/x-raw(memory:NVMM)")],
    properties: vec![number("sensor-id")],
    inside: "videotestsrc is-live=true pattern=snow ! standinmoved",
    then: repeat_frames
);

/// Fails as [`fail_after`] says.
fn break_decoder(bin: &gst::Bin) {
    let weak = bin.downgrade();
    // Behind its own pad, where others may look on.
    let pad = bin.static_pad("sink").and_downcast::<gst::GhostPad>().and_then(|pad| pad.target()).unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let failure = FAILURE.load(Relaxed);
        let left = PACKETS.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        if left || failure == Failure::None as u8 {
            return gst::PadProbeReturn::Ok;
        }
        if failure == Failure::Said as u8
            && let Some(bin) = weak.upgrade()
        {
            gst::element_error!(bin, gst::StreamError::Decode, ("NVDEC: hardware engine error"));
        }
        let swallowed = failure == Failure::Swallowed as u8;
        info.flow_res = if swallowed { Ok(gst::FlowSuccess::Ok) } else { Err(gst::FlowError::Error) };
        gst::PadProbeReturn::Handled
    });
}

/// Frames of a sensor with noise: [`repeat_after`] of them, and then the last again and again.
fn repeat_frames(bin: &gst::Bin) {
    static LAST: std::sync::Mutex<Option<gst::Buffer>> = std::sync::Mutex::new(None);
    bin.static_pad("src").unwrap().add_probe(gst::PadProbeType::BUFFER, |_, info| {
        let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data else { return gst::PadProbeReturn::Ok };
        let mut last = LAST.lock().unwrap();
        if FRESH.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            *last = Some(buffer.clone());
        } else if let Some(last) = last.as_ref() {
            let mut again = last.copy();
            let times = (buffer.pts(), buffer.duration());
            let fresh = again.get_mut().unwrap();
            fresh.set_pts(times.0);
            fresh.set_duration(times.1);
            *buffer = again;
        }
        gst::PadProbeReturn::Ok
    });
}

static FRESH: AtomicU64 = AtomicU64::new(u64::MAX);

/// Lets `nvarguscamerasrc` give so many frames more, over all pipelines, before it repeats the last.
pub(crate) fn repeat_after(frames: u64) {
    FRESH.store(frames, Relaxed);
}
