//! Which GStreamer elements decode and scale on this machine.
//!
//! [`Elements::choose`] is pure, so that the choice is tested for machines we do not have; [`Elements::probe`] asks the
//! registry and the machine's own files, once at start-up, from any thread.

use std::path::Path;

use gstreamer as gst;

use crate::describe::Codec;
use crate::platform::{Chip, Jetson, Platform, detect};

/// One decoder for each codec; `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoders {
    /// H.264.
    pub h264: Option<&'static str>,
    /// H.265.
    pub h265: Option<&'static str>,
    /// JPEG.
    pub jpeg: Option<&'static str>,
}

/// The decoders found; `None` where this machine has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elements {
    /// Family.
    pub platform: Platform,
    /// H.264 decoder.
    pub h264: Option<&'static str>,
    /// H.265 decoder.
    pub h265: Option<&'static str>,
    /// JPEG decoder.
    pub jpeg: Option<&'static str>,
    /// Those on the processor: what a camera falls back to when its hardware decoder fails.
    pub processor: Decoders,
}

/// What is known of a machine before GStreamer is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// It is one.
    pub jetson: Option<Jetson>,
    /// The configuration says which family to use, whatever the machine looks like.
    pub platform: Option<Platform>,
}

impl Elements {
    /// Asks GStreamer's registry. [`crate::init`] must have been called. `platform`: the configuration's word for it.
    #[must_use]
    pub fn probe(platform: Option<Platform>) -> Self {
        let machine = Machine { jetson: detect(Path::new("/")), platform };
        Self::choose(&|name| gst::ElementFactory::find(name).is_some(), machine)
    }

    /// Software only: what replay and tests use wherever the same pixels matter more than speed.
    #[must_use]
    pub fn software() -> Self {
        Self::choose(&|name| gst::ElementFactory::find(name).is_some() && is_software(name), Machine::default())
    }

    /// The choice for a machine where `has` answers for elements.
    #[must_use]
    pub fn choose(has: &dyn Fn(&str) -> bool, machine: Machine) -> Self {
        let platform = machine.platform.unwrap_or_else(|| find_platform(has, machine.jetson));
        let first = |names: &[&'static str]| names.iter().copied().find(|name| has(name));
        let processor = Decoders {
            h264: first(&["avdec_h264", "openh264dec"]),
            h265: first(&["avdec_h265", "libde265dec"]),
            jpeg: first(&["jpegdec", "avdec_mjpeg"]),
        };
        let hardware = match platform {
            Platform::Software => Decoders::default(),
            Platform::VaApi => Decoders { h264: first(&["vah264dec"]), h265: first(&["vah265dec"]), jpeg: None },
            Platform::NvCodec => Decoders { h264: first(&["nvh264dec"]), h265: first(&["nvh265dec"]), jpeg: None },
            Platform::Jetpack5 | Platform::Jetpack6 | Platform::Jetpack7 => {
                let decoder = first(&["nvv4l2decoder"]);
                Decoders { h264: decoder, h265: decoder, jpeg: decoder.filter(|_| decodes_jpeg(platform, machine)) }
            }
        };
        Self {
            platform,
            h264: hardware.h264.or(processor.h264),
            h265: hardware.h265.or(processor.h265),
            jpeg: hardware.jpeg.or(processor.jpeg),
            processor,
        }
    }

    /// The same machine without its hardware.
    #[must_use]
    pub fn on_processor(&self) -> Self {
        let Decoders { h264, h265, jpeg } = self.processor;
        Self { platform: Platform::Software, h264, h265, jpeg, processor: self.processor }
    }

    /// The decoder of a codec; `None` too for those that GStreamer chooses one for.
    #[must_use]
    pub fn decoder(&self, codec: Codec) -> Option<&'static str> {
        match codec {
            Codec::H264 => self.h264,
            Codec::H265 => self.h265,
            Codec::Jpeg => self.jpeg,
            Codec::Raw | Codec::Other => None,
        }
    }
}

fn find_platform(has: &dyn Fn(&str) -> bool, jetson: Option<Jetson>) -> Platform {
    match () {
        () if has("nvv4l2decoder") && has("nvvidconv") => jetson.map_or(Platform::Jetpack6, Jetson::platform),
        () if has("vah264dec") => Platform::VaApi,
        () if has("nvh264dec") => Platform::NvCodec,
        () => Platform::Software,
    }
}

/// Thor's `nvv4l2decoder` decodes no JPEG. JetPack 7 on a board that is not known may be a Thor.
fn decodes_jpeg(platform: Platform, machine: Machine) -> bool {
    match machine.jetson {
        Some(jetson) => jetson.chip == Chip::Orin,
        None => platform != Platform::Jetpack7,
    }
}

fn is_software(name: &str) -> bool {
    !["nv", "va", "v4l2"].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Release;

    fn jetson(major: u32, chip: Chip) -> Machine {
        let release = Some(Release { major, minor: 0, patch: 0 });
        Machine { jetson: Some(Jetson { release, chip }), platform: None }
    }

    #[test]
    fn the_choice_follows_what_the_machine_has() {
        let machine = |names: &'static [&'static str], machine| Elements::choose(&|n| names.contains(&n), machine);
        let desk = machine(&["avdec_h264", "openh264dec", "jpegdec"], Machine::default());
        assert_eq!(desk.platform, Platform::Software);
        assert_eq!((desk.h264, desk.h265, desk.jpeg), (Some("avdec_h264"), None, Some("jpegdec")));
        assert_eq!(desk.on_processor(), desk);
        let intel = machine(&["vah264dec", "avdec_h264", "avdec_h265"], Machine::default());
        assert_eq!((intel.h264, intel.h265), (Some("vah264dec"), Some("avdec_h265")), "each codec by itself");
        let all: &[&str] = &["nvv4l2decoder", "nvvidconv", "jpegdec", "avdec_h264"];
        assert_eq!(machine(all, jetson(35, Chip::Orin)).platform, Platform::Jetpack5);
        assert_eq!(machine(all, jetson(36, Chip::Orin)).jpeg, Some("nvv4l2decoder"));
        assert_eq!(machine(all, jetson(38, Chip::Thor)).jpeg, Some("jpegdec"), "Thor has no JPEG in nvv4l2decoder");
        assert_eq!(machine(all, jetson(39, Chip::Orin)).jpeg, Some("nvv4l2decoder"), "Orin has, on JetPack 7 too");
        let off = machine(all, jetson(36, Chip::Orin)).on_processor();
        assert_eq!((off.platform, off.h264, off.jpeg), (Platform::Software, Some("avdec_h264"), Some("jpegdec")));
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let all: &[&str] = &["nvv4l2decoder", "nvvidconv", "jpegdec", "avdec_h264"];
        let told = |platform, of| Elements::choose(&|n| all.contains(&n), Machine { platform: Some(platform), ..of });
        let off = told(Platform::Software, jetson(36, Chip::Orin));
        assert_eq!((off.platform, off.h264, off.jpeg), (Platform::Software, Some("avdec_h264"), Some("jpegdec")));
        let told = told(Platform::Jetpack7, Machine::default());
        assert_eq!((told.platform, told.jpeg), (Platform::Jetpack7, Some("jpegdec")), "it may be a Thor");
    }
}
