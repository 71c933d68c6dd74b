//! Which GStreamer elements decode and scale on this machine.
//!
//! [`Elements::choose`] is pure, so that the choice is tested for machines we do not have; [`Elements::probe`] asks the
//! registry and `/etc/nv_tegra_release`, once at start-up, from any thread.

use std::fs;

use gstreamer as gst;

/// Family of elements in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Platform {
    /// Decoding on the CPU.
    Software,
    /// VA-API (Intel, AMD): decodes in hardware, scales the wanted frames on the CPU.
    VaApi,
    /// NVDEC of a desktop GPU: as VA-API.
    NvCodec,
    /// Jetson, L4T r35, GStreamer 1.16.
    Jetpack5,
    /// Jetson, L4T r36, GStreamer 1.20.
    Jetpack6,
    /// Jetson, L4T r38 and later, GStreamer 1.24. Thor decodes no JPEG with `nvv4l2decoder`.
    Jetpack7,
}

impl Platform {
    /// Whether decoded frames live in NVMM memory and `nvvidconv` scales them.
    #[must_use]
    pub fn is_jetson(self) -> bool {
        matches!(self, Self::Jetpack5 | Self::Jetpack6 | Self::Jetpack7)
    }
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
}

impl Elements {
    /// Asks GStreamer's registry. [`crate::init`] must have been called.
    #[must_use]
    pub fn probe() -> Self {
        let release = fs::read_to_string("/etc/nv_tegra_release").unwrap_or_default();
        Self::choose(&|name| gst::ElementFactory::find(name).is_some(), tegra_release(&release))
    }

    /// Software only: what replay and tests use wherever the same pixels matter more than speed.
    #[must_use]
    pub fn software() -> Self {
        Self::choose(&|name| gst::ElementFactory::find(name).is_some() && is_software(name), None)
    }

    /// The choice for a machine where `has` answers for elements; `l4t` is the major release of a Jetson.
    #[must_use]
    pub fn choose(has: &dyn Fn(&str) -> bool, l4t: Option<u32>) -> Self {
        let platform = if has("nvv4l2decoder") && has("nvvidconv") {
            match l4t {
                Some(..=35) => Platform::Jetpack5,
                Some(38..) => Platform::Jetpack7,
                _ => Platform::Jetpack6,
            }
        } else if has("vah264dec") {
            Platform::VaApi
        } else if has("nvh264dec") {
            Platform::NvCodec
        } else {
            Platform::Software
        };
        let first = |names: &[&'static str]| names.iter().copied().find(|name| has(name));
        let hardware: &[[&'static str; 2]] = match platform {
            Platform::Software => &[],
            Platform::VaApi => &[["vah264dec", "vah265dec"]],
            Platform::NvCodec => &[["nvh264dec", "nvh265dec"]],
            Platform::Jetpack5 | Platform::Jetpack6 | Platform::Jetpack7 => &[["nvv4l2decoder", "nvv4l2decoder"]],
        };
        let chain = |index: usize, software: &[&'static str]| {
            first(&hardware.iter().map(|pair| pair[index]).collect::<Vec<_>>()).or_else(|| first(software))
        };
        let jetson_jpeg = matches!(platform, Platform::Jetpack5 | Platform::Jetpack6);
        Self {
            platform,
            h264: chain(0, &["avdec_h264", "openh264dec"]),
            h265: chain(1, &["avdec_h265", "libde265dec"]),
            jpeg: if jetson_jpeg { Some("nvv4l2decoder") } else { first(&["jpegdec", "avdec_mjpeg"]) },
        }
    }
}

/// Major release of L4T from `# R36 (release), REVISION: 4.3, …`.
fn tegra_release(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("# R")?;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn is_software(name: &str) -> bool {
    !["nv", "va", "v4l2"].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_follows_what_the_machine_has() {
        let machine = |names: &'static [&'static str], l4t| Elements::choose(&|n| names.contains(&n), l4t);
        let desk = machine(&["avdec_h264", "openh264dec", "jpegdec"], None);
        assert_eq!(desk.platform, Platform::Software);
        assert_eq!((desk.h264, desk.h265, desk.jpeg), (Some("avdec_h264"), None, Some("jpegdec")));
        let intel = machine(&["vah264dec", "avdec_h264", "avdec_h265"], None);
        assert_eq!((intel.h264, intel.h265), (Some("vah264dec"), Some("avdec_h265")), "each codec by itself");
        let jetson: &[&str] = &["nvv4l2decoder", "nvvidconv", "jpegdec", "avdec_h264"];
        assert_eq!(machine(jetson, Some(35)).platform, Platform::Jetpack5);
        assert_eq!(machine(jetson, Some(36)).jpeg, Some("nvv4l2decoder"));
        assert_eq!(machine(jetson, Some(39)).jpeg, Some("jpegdec"), "Thor has no JPEG in nvv4l2decoder");
    }

    #[test]
    fn the_release_file_is_read() {
        assert_eq!(tegra_release("# R36 (release), REVISION: 4.3, GCID: 1"), Some(36));
        assert_eq!(tegra_release(""), None);
    }
}
