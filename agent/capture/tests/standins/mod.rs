//! Elements of a Jetson that stand in where there is none.
//!
//! [`strict`] has the properties and pad templates of the real ones, release by release, and nothing else: a pipeline that
//! asks for more does not parse. [`working`] really decodes and scales, with frames that claim to lie in NVMM memory, and
//! fails when told to.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "test support: a failure is the test failing")]

use gstreamer as gst;
use gstreamer::glib;

/// Properties of an element, which may be set and do nothing: a part of its `ObjectImpl`.
macro_rules! properties {
    ($properties:expr) => {
        fn properties() -> &'static [glib::ParamSpec] {
            static ALL: OnceLock<Vec<glib::ParamSpec>> = OnceLock::new();
            ALL.get_or_init(|| $properties)
        }

        fn set_property(&self, _id: usize, _value: &glib::Value, _spec: &glib::ParamSpec) {}

        fn property(&self, _id: usize, spec: &glib::ParamSpec) -> glib::Value {
            spec.default_value().clone()
        }
    };
}

/// The `ElementImpl` of a stand-in with these pads.
macro_rules! element_impl {
    ($name:expr, $templates:expr) => {
        impl ElementImpl for Imp {
            fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
                static METADATA: OnceLock<gst::subclass::ElementMetadata> = OnceLock::new();
                let new = || gst::subclass::ElementMetadata::new($name, "Test", "Stands in", "kinewatch");
                Some(METADATA.get_or_init(new))
            }

            fn pad_templates() -> &'static [gst::PadTemplate] {
                static ALL: OnceLock<Vec<gst::PadTemplate>> = OnceLock::new();
                ALL.get_or_init(|| $templates)
            }
        }
    };
}

pub(crate) mod strict;
pub(crate) mod working;

/// Makes `name` mean `kind` in this process, whatever it meant before.
fn register(name: &str, kind: glib::Type) {
    // Never chosen by `decodebin`: only a description that names it gets it.
    gst::Element::register(None, name, gst::Rank::NONE, kind).unwrap();
}

fn template(name: &str, direction: gst::PadDirection, caps: &str) -> gst::PadTemplate {
    let caps = caps.parse::<gst::Caps>().unwrap();
    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).unwrap()
}

fn flag(name: &'static str) -> glib::ParamSpec {
    glib::ParamSpecBoolean::builder(name).build()
}

fn number(name: &'static str) -> glib::ParamSpec {
    glib::ParamSpecUInt::builder(name).build()
}

fn text(name: &'static str) -> glib::ParamSpec {
    glib::ParamSpecString::builder(name).build()
}
