//! V4L2 cameras of this machine, and whether a configured one can give what is asked of it.
//!
//! Opens devices without streaming, so that one in use by another process can be listed too. Blocks for a few
//! milliseconds a device: for commands, and for a camera's thread after a failure.

use std::path::PathBuf;

use v4l::video::Capture;

use crate::source::{Mode, Source, V4l2Format};

/// Of the formats of a device, so many stand in an error; cameras have two or three.
const FORMATS_TOLD: usize = 4;

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
    /// Sizes in pixels; empty when the driver does not list them.
    pub sizes: Vec<(u32, u32)>,
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
    /// Format or size is not offered.
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

/// Checks that the device of a v4l2 source exists and offers the configured format and size. Other sources pass.
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
    let formats = formats.into_iter().map(|format| DeviceFormat {
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

fn sizes(device: &v4l::Device, fourcc: v4l::FourCC) -> Vec<(u32, u32)> {
    let listed = device.enum_framesizes(fourcc).unwrap_or_default();
    let discrete = listed.into_iter().filter_map(|size| match size.size {
        v4l::framesize::FrameSizeEnum::Discrete(size) => Some((size.width, size.height)),
        v4l::framesize::FrameSizeEnum::Stepwise(_) => None,
    });
    discrete.collect()
}

fn check_offer(device: &Device, format: V4l2Format, mode: Mode) -> Result<(), DeviceError> {
    let fits_format = |offer: &&DeviceFormat| match format {
        V4l2Format::Any => offer.fourcc != "MJPG",
        V4l2Format::Yuyv => offer.fourcc == "YUYV",
        V4l2Format::Mjpeg => offer.fourcc == "MJPG",
    };
    let fits_size = |offer: &DeviceFormat| mode.size.is_none_or(|s| offer.sizes.is_empty() || offer.sizes.contains(&s));
    if device.formats.iter().filter(fits_format).any(fits_size) {
        return Ok(());
    }
    let name = match format {
        V4l2Format::Any => "a raw format",
        V4l2Format::Yuyv => "format=yuyv",
        V4l2Format::Mjpeg => "format=mjpeg",
    };
    let size = mode.size.map(|(w, h)| format!(" at size={w}x{h}")).unwrap_or_default();
    let offered = device.formats.iter().take(FORMATS_TOLD).map(|offer| {
        let sizes = offer.sizes.iter().map(|(w, h)| format!(" {w}x{h}")).collect::<String>();
        format!("{}{sizes}", offer.fourcc)
    });
    let mut offered = offered.collect::<Vec<_>>().join(", ");
    if device.formats.len() > FORMATS_TOLD {
        offered += ", and more: `kinewatch devices` lists them";
    }
    Err(DeviceError::NotOffered { path: device.path.display().to_string(), wanted: format!("{name}{size}"), offered })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_that_is_not_offered_is_named_with_what_is() {
        let format = |fourcc: &str, sizes: &[(u32, u32)]| DeviceFormat {
            fourcc: fourcc.into(),
            description: String::new(),
            sizes: sizes.to_vec(),
        };
        let formats = vec![format("YUYV", &[(640, 480)]), format("MJPG", &[(1280, 720)])];
        let device = Device { path: "/dev/video0".into(), name: "cam".into(), driver: "uvc".into(), formats };
        let mode = |w, h| Mode { size: Some((w, h)), fps: None };
        assert!(check_offer(&device, V4l2Format::Mjpeg, mode(1280, 720)).is_ok());
        assert!(check_offer(&device, V4l2Format::Any, Mode::default()).is_ok());
        let error = check_offer(&device, V4l2Format::Yuyv, mode(1280, 720)).unwrap_err().to_string();
        assert_eq!(
            error,
            "/dev/video0: does not offer format=yuyv at size=1280x720; it has YUYV 640x480, MJPG 1280x720"
        );
    }

    #[test]
    fn an_absent_device_is_one_clear_line() {
        let source = Source::parse("v4l2:/dev/video98").unwrap();
        assert!(check_device(&source).unwrap_err().to_string().starts_with("/dev/video98: cannot be opened"));
        assert!(check_device(&Source::parse("test:").unwrap()).is_ok());
    }
}
