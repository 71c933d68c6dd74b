//! V4L2 cameras of this machine, and whether a configured one can give what is asked of it.
//!
//! Opens devices without streaming, so that one in use by another process can be listed too. Blocks for a few
//! milliseconds a device: for commands, and for a camera's thread after a failure.

use std::path::PathBuf;

use v4l::video::Capture;

use crate::rates::Rates;
use crate::source::{Mode, Source, V4l2Format};

/// Of the formats of a device, so many stand in an error; cameras have two or three.
const FORMATS_TOLD: usize = 4;
/// Most formats of a device, and sizes of a format, that are looked at.
const FORMATS: usize = 256;

/// A capture device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Node, such as `/dev/video0`.
    pub path: PathBuf,
    /// Name that the driver gives the camera.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// What it captures.
    pub formats: Vec<DeviceFormat>,
}

/// One pixel format of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFormat {
    /// Four characters, such as `YUYV`.
    pub fourcc: String,
    /// In the driver's words.
    pub description: String,
    /// Sizes; empty when the driver does not list them one by one.
    pub sizes: Vec<DeviceSize>,
}

/// One size of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSize {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// How many such pictures a second there can be.
    pub rates: Rates,
}

impl DeviceFormat {
    /// Sizes and their rates in a line: `640x480 320x240 at 30, 15; 1280x720 at 10`.
    #[must_use]
    pub fn modes(&self) -> String {
        modes(&self.sizes.iter().collect::<Vec<_>>())
    }
}

/// Why a configured device will not do.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It cannot be opened.
    #[error("{path}: cannot be opened ({reason}); is the camera plugged in, and is this user in the group `video`?")]
    Open {
        /// Node.
        path: String,
        /// From the system.
        reason: String,
    },
    /// It is no camera.
    #[error("{path}: is not a video capture device ({name}); `kinewatch devices` lists those that are")]
    NoCapture {
        /// Node.
        path: String,
        /// Name of the device.
        name: String,
    },
    /// Format, size or rate is not offered.
    #[error("{path}: does not offer {wanted}; it has {offered}")]
    NotOffered {
        /// Node.
        path: String,
        /// What the configuration asks for.
        wanted: String,
        /// What there is.
        offered: String,
    },
}

/// Every V4L2 node that captures video, in order of its number. Nodes that cannot be opened are left out.
#[must_use]
pub fn devices() -> Vec<Device> {
    let mut nodes = v4l::context::enum_devices();
    nodes.sort_by_key(|node| node.index());
    nodes.iter().filter_map(|node| inspect(&node.path().to_string_lossy()).ok()).collect()
}

/// Checks that the device of a v4l2 source exists and offers the configured format, size and rate. Other sources pass.
pub fn check_device(source: &Source) -> Result<(), DeviceError> {
    let Source::V4l2 { device, format, mode } = source else { return Ok(()) };
    check_offer(&inspect(device)?, *format, *mode)
}

fn inspect(path: &str) -> Result<Device, DeviceError> {
    let open = |e: std::io::Error| DeviceError::Open { path: path.to_owned(), reason: e.to_string() };
    let device = v4l::Device::with_path(path).map_err(open)?;
    let caps = device.query_caps().map_err(open)?;
    if !caps.capabilities.contains(v4l::capability::Flags::VIDEO_CAPTURE) {
        return Err(DeviceError::NoCapture { path: path.to_owned(), name: caps.card });
    }
    let formats = device.enum_formats().map_err(open)?;
    let formats = formats.into_iter().take(FORMATS).map(|format| DeviceFormat {
        sizes: sizes(&device, format.fourcc),
        fourcc: format.fourcc.to_string(),
        description: format.description,
    });
    let formats = formats.collect::<Vec<_>>();
    if formats.is_empty() {
        // Metadata nodes of USB cameras claim to capture.
        return Err(DeviceError::NoCapture { path: path.to_owned(), name: caps.card });
    }
    Ok(Device { path: path.into(), name: caps.card, driver: caps.driver, formats })
}

fn sizes(device: &v4l::Device, fourcc: v4l::FourCC) -> Vec<DeviceSize> {
    let listed = device.enum_framesizes(fourcc).unwrap_or_default();
    let discrete = listed.into_iter().take(FORMATS).filter_map(|size| match size.size {
        v4l::framesize::FrameSizeEnum::Discrete(size) => Some((size.width, size.height)),
        v4l::framesize::FrameSizeEnum::Stepwise(_) => None,
    });
    let with_rates = |(width, height)| {
        let listed = device.enum_frameintervals(fourcc, width, height).unwrap_or_default();
        DeviceSize { width, height, rates: Rates::of(&listed) }
    };
    discrete.map(with_rates).collect()
}

/// How far a format goes along with what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It has no such size.
    Format,
    /// It has, but not at that rate.
    Size,
    /// All the way, as far as the driver tells.
    Whole,
}

impl DeviceFormat {
    /// Of the size that is asked for, or all.
    fn fitting(&self, mode: Mode) -> impl Iterator<Item = &DeviceSize> {
        self.sizes.iter().filter(move |size| mode.size.is_none_or(|asked| asked == (size.width, size.height)))
    }

    fn fit(&self, mode: Mode) -> Fit {
        let serves = |size: &DeviceSize| mode.fps.is_none_or(|fps| size.rates.serve(fps));
        let each = self.fitting(mode).map(|size| if serves(size) { Fit::Whole } else { Fit::Size });
        let unlisted = self.sizes.is_empty().then_some(Fit::Whole);
        each.chain(unlisted).max().unwrap_or(Fit::Format)
    }
}

impl V4l2Format {
    fn is(self, offer: &DeviceFormat) -> bool {
        match self {
            Self::Any => offer.fourcc != "MJPG",
            Self::Yuyv => offer.fourcc == "YUYV",
            Self::Mjpeg => offer.fourcc == "MJPG",
        }
    }
}

fn check_offer(device: &Device, format: V4l2Format, mode: Mode) -> Result<(), DeviceError> {
    let alike = || device.formats.iter().filter(|offer| format.is(offer));
    let fit = alike().map(|offer| offer.fit(mode)).max().unwrap_or(Fit::Format);
    if fit == Fit::Whole {
        return Ok(());
    }
    let name = match format {
        V4l2Format::Any => "a raw format",
        V4l2Format::Yuyv => "format=yuyv",
        V4l2Format::Mjpeg => "format=mjpeg",
    };
    let size = mode.size.map(|(w, h)| format!(" at size={w}x{h}")).unwrap_or_default();
    let mut wanted = format!("{name}{size}");
    let mut offered = if fit == Fit::Size {
        let rate = mode.fps.map(|fps| format!(" with fps={fps}"));
        wanted += &rate.unwrap_or_default();
        told(alike().filter(|offer| offer.fit(mode) == Fit::Size), |offer| {
            modes(&offer.fitting(mode).collect::<Vec<_>>())
        })
    } else {
        told(device.formats.iter(), |offer| {
            offer.sizes.iter().map(|s| format!("{}x{}", s.width, s.height)).collect::<Vec<_>>().join(" ")
        })
    };
    let jpeg = |offer: &DeviceFormat| V4l2Format::Mjpeg.is(offer) && offer.fit(mode) == Fit::Whole;
    if format != V4l2Format::Mjpeg && device.formats.iter().any(jpeg) {
        offered += "; format=mjpeg gives it";
    }
    Err(DeviceError::NotOffered { path: device.path.display().to_string(), wanted, offered })
}

/// The first few formats, each with what `about` says of it.
fn told<'a>(offers: impl Iterator<Item = &'a DeviceFormat>, about: impl Fn(&DeviceFormat) -> String) -> String {
    let mut all = offers.map(|offer| format!("{} {}", offer.fourcc, about(offer)).trim_end().to_owned());
    let first = all.by_ref().take(FORMATS_TOLD).collect::<Vec<_>>().join("; ");
    let more = if all.next().is_some() { "; and more: `kinewatch devices` lists them" } else { "" };
    first + more
}

/// Neighbours with equal rates are said together.
fn modes(sizes: &[&DeviceSize]) -> String {
    let alike = sizes.chunk_by(|a, b| a.rates == b.rates).map(|sizes| {
        let names: Vec<String> = sizes.iter().map(|s| format!("{}x{}", s.width, s.height)).collect();
        let rates = match &sizes[0].rates {
            Rates::Unknown => String::new(),
            known => format!(" at {known}"),
        };
        names.join(" ") + &rates
    });
    alike.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rates::Rate;

    fn size(width: u32, height: u32, rates: &[(u32, u32)]) -> DeviceSize {
        let rates = rates.iter().map(|&(frames, seconds)| Rate { frames, seconds }).collect();
        DeviceSize { width, height, rates: Rates::each(rates) }
    }

    fn camera(formats: &[(&str, &[DeviceSize])]) -> Device {
        let format = |(fourcc, sizes): &(&str, &[DeviceSize])| DeviceFormat {
            fourcc: (*fourcc).into(),
            description: String::new(),
            sizes: sizes.to_vec(),
        };
        let formats = formats.iter().map(format).collect();
        Device { path: "/dev/video0".into(), name: "cam".into(), driver: "uvc".into(), formats }
    }

    /// As on USB 2: large pictures come fast as JPEG alone.
    fn webcam() -> Device {
        let vga = || size(640, 480, &[(30, 1), (15, 1)]);
        camera(&[
            ("YUYV", &[vga(), size(320, 240, &[(30, 1), (15, 1)]), size(1280, 720, &[(10, 1), (15, 2)])]),
            ("MJPG", &[vga(), size(1280, 720, &[(30_000, 1001)])]),
        ])
    }

    fn refused(device: &Device, source: &str) -> String {
        let Source::V4l2 { format, mode, .. } = Source::parse(&format!("v4l2:/dev/video0{source}")).unwrap() else {
            panic!("{source}")
        };
        check_offer(device, format, mode).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_format_or_size_that_is_not_offered_is_named_with_what_is() {
        let device = camera(&[("YUYV", &[size(640, 480, &[(30, 1)])]), ("MJPG", &[size(1280, 720, &[(30, 1)])])]);
        assert_eq!(refused(&device, "?format=mjpeg&size=1280x720"), "");
        assert_eq!(refused(&device, ""), "");
        assert_eq!(
            refused(&device, "?format=yuyv&size=1280x720&fps=30"),
            "/dev/video0: does not offer format=yuyv at size=1280x720; it has YUYV 640x480; MJPG 1280x720; format=mjpeg gives it"
        );
        let many = camera(&[("YUYV", &[]), ("UYVY", &[]), ("NV12", &[]), ("RGB3", &[]), ("BGR3", &[])]);
        assert_eq!(
            refused(&many, "?format=mjpeg"),
            "/dev/video0: does not offer format=mjpeg; it has YUYV; UYVY; NV12; RGB3; and more: `kinewatch devices` lists them"
        );
    }

    #[test]
    fn a_rate_that_is_not_offered_is_named_with_those_of_that_format_and_size() {
        let device = webcam();
        for fits in [
            "?format=yuyv&size=640x480&fps=15",
            "?size=1280x720&fps=10",
            // At another size.
            "?format=yuyv&fps=30",
            "?format=mjpeg&size=1280x720&fps=30",
        ] {
            assert_eq!(refused(&device, fits), "", "{fits}");
        }
        assert_eq!(
            refused(&device, "?size=1280x720&fps=30"),
            "/dev/video0: does not offer a raw format at size=1280x720 with fps=30; it has YUYV 1280x720 at 10, 7.5; format=mjpeg gives it"
        );
        assert_eq!(
            refused(&device, "?format=mjpeg&size=1280x720&fps=29"),
            "/dev/video0: does not offer format=mjpeg at size=1280x720 with fps=29; it has MJPG 1280x720 at 29.97"
        );
        assert_eq!(
            refused(&device, "?format=yuyv&fps=60"),
            "/dev/video0: does not offer format=yuyv with fps=60; it has YUYV 640x480 320x240 at 30, 15; 1280x720 at 10, 7.5"
        );
    }

    #[test]
    fn what_a_driver_does_not_tell_is_not_refused() {
        let silent = DeviceSize { rates: Rates::Unknown, ..size(640, 480, &[]) };
        let device = camera(&[("YUYV", &[silent.clone(), size(320, 240, &[(30, 1)])]), ("NV12", &[])]);
        assert_eq!(refused(&device, "?format=yuyv&size=640x480&fps=90"), "");
        assert_eq!(refused(&device, "?size=333x222&fps=90"), "");
        assert_eq!(device.formats[0].modes(), "640x480; 320x240 at 30");
        assert_eq!((device.formats[1].modes().as_str(), modes(&[&silent]).as_str()), ("", "640x480"));
    }

    #[test]
    fn an_absent_device_is_one_clear_line() {
        let source = Source::parse("v4l2:/dev/video98").unwrap();
        assert!(check_device(&source).unwrap_err().to_string().starts_with("/dev/video98: cannot be opened"));
        assert!(check_device(&Source::parse("test:").unwrap()).is_ok());
    }
}
