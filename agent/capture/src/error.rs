//! What can go wrong between a source and a frame, as one clear line each.
//!
//! Never holds a password: every text taken from GStreamer passes [`redact`]. Pure.

use std::path::PathBuf;
use std::time::Duration;

use gstreamer as gst;

use crate::describe::Codec;
use crate::hardware::Hardware;
use crate::secret::redact;

/// GStreamer could not be started.
#[derive(Debug, thiserror::Error)]
#[error("GStreamer does not start: {0}; is gstreamer1.0-plugins-base installed?")]
pub struct InitError(pub(crate) gst::glib::Error);

/// No pipeline serves the source on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// Nothing decodes the codec.
    #[error("no decoder for {codec:?} on this machine; install gstreamer1.0-libav")]
    NoDecoder {
        /// The stream's codec.
        codec: Codec,
    },
    /// CSI elsewhere.
    #[error("csi:{sensor} needs a Jetson (elements nvarguscamerasrc and nvvidconv are missing here)")]
    NotJetson {
        /// Sensor number.
        sensor: u32,
    },
}

/// Whether waiting helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The camera thread tries again by itself.
    Retry,
    /// The source or the installation has to be changed.
    Fatal,
}

/// Why a camera gives no frames. `source` is redacted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CaptureError {
    /// No such file.
    #[error("{path}: no such file")]
    NoFile {
        /// As configured.
        path: PathBuf,
    },
    /// A folder, or no permission.
    #[error("{path}: cannot be read ({reason})")]
    Unreadable {
        /// As configured.
        path: PathBuf,
        /// From the system.
        reason: String,
    },
    /// Nothing that GStreamer knows.
    #[error("{source_name}: not a video, or damaged from its beginning ({detail})")]
    NotVideo {
        /// Source.
        source_name: String,
        /// From GStreamer.
        detail: String,
    },
    /// Audio or subtitles alone.
    #[error("{source_name}: has no video track (found: {found})")]
    NoVideoTrack {
        /// Source.
        source_name: String,
        /// Media types seen.
        found: String,
    },
    /// A video track without one decodable picture.
    #[error("{source_name}: ended without a single frame")]
    NoFrames {
        /// Source.
        source_name: String,
    },
    /// No pipeline for it here.
    #[error("{source_name}: {reason}")]
    Unsupported {
        /// Source.
        source_name: String,
        /// Why.
        reason: DescribeError,
    },
    /// 401 or 403.
    #[error("{source_name}: user or password refused")]
    Unauthorized {
        /// Source.
        source_name: String,
    },
    /// 404.
    #[error("{source_name}: the server has no such stream")]
    NoStream {
        /// Source.
        source_name: String,
    },
    /// Connection refused, name not found, device busy or absent.
    #[error("{source_name}: cannot be opened ({detail})")]
    Unreachable {
        /// Source.
        source_name: String,
        /// From GStreamer.
        detail: String,
    },
    /// No frame for too long.
    #[error("{source_name}: silent for {seconds:.1} s")]
    Silent {
        /// Source.
        source_name: String,
        /// How long.
        seconds: f64,
    },
    /// A camera that sends the same picture again and again.
    #[error("{source_name}: repeats one picture, byte for byte, for {seconds:.1} s")]
    Frozen {
        /// Source.
        source_name: String,
        /// How long.
        seconds: f64,
    },
    /// The hardware decoder gave up, or gives nothing.
    #[error("{source_name}: the hardware decoder {} failed ({detail}){}", hardware.decoder, advice(*hardware))]
    Decoder {
        /// Source.
        source_name: String,
        /// Which, and what could take its place.
        hardware: Hardware,
        /// From GStreamer.
        detail: String,
    },
    /// A live stream that ended.
    #[error("{source_name}: the stream ended")]
    Ended {
        /// Source.
        source_name: String,
    },
    /// Anything else GStreamer says.
    #[error("{source_name}: {detail}")]
    Pipeline {
        /// Source.
        source_name: String,
        /// From GStreamer.
        detail: String,
    },
    /// The operating system gave no thread.
    #[error("camera {camera}: no thread ({reason})")]
    Thread {
        /// Camera name.
        camera: String,
        /// From the system.
        reason: String,
    },
}

impl CaptureError {
    /// Whether waiting helps.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Unauthorized { .. }
            | Self::NoStream { .. }
            | Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Frozen { .. }
            | Self::Decoder { .. }
            | Self::Ended { .. }
            | Self::Pipeline { .. } => Disposition::Retry,
            _ => Disposition::Fatal,
        }
    }

    pub(crate) fn silent(source_name: String, silence: Duration) -> Self {
        Self::Silent { source_name, seconds: silence.as_secs_f64() }
    }

    /// The same failure, known to be the hardware decoder's.
    pub(crate) fn of_decoder(self, hardware: Hardware) -> Self {
        match self {
            Self::Unreachable { source_name, detail }
            | Self::Pipeline { source_name, detail }
            | Self::NotVideo { source_name, detail } => Self::Decoder { source_name, hardware, detail },
            Self::Silent { source_name, seconds } => {
                let detail = format!("it takes packets and has given no picture for {seconds:.1} s");
                Self::Decoder { source_name, hardware, detail }
            }
            other => other,
        }
    }

    /// The same failure with what to do about it, where Argus gave nothing. It ends the stream, says nothing or "Argus
    /// Error"; why it did goes to standard output.
    pub(crate) fn of_argus(self, advice: &str) -> Self {
        let silence = |seconds: f64| format!("silent for {seconds:.1} s");
        let (source_name, detail) = match self {
            Self::Unreachable { source_name, detail } | Self::Pipeline { source_name, detail }
                if detail.contains("Argus") =>
            {
                (source_name, detail)
            }
            Self::Silent { source_name, seconds } => (source_name, silence(seconds)),
            Self::Ended { source_name } => (source_name, "the stream ended".into()),
            other => return other,
        };
        Self::Unreachable { source_name, detail: format!("{detail}; {advice}") }
    }

    /// From an error message of the bus.
    pub(crate) fn from_bus(source_name: String, message: &gst::message::Error) -> Self {
        let error = message.error();
        let detail = one_line(&error.to_string(), message.debug().as_deref());
        if let Some(found) = detail.strip_prefix(NO_VIDEO) {
            return Self::NoVideoTrack { source_name, found: found.to_owned() };
        }
        if let Some(kind) = error.kind::<gst::ResourceError>() {
            return match kind {
                gst::ResourceError::NotAuthorized => Self::Unauthorized { source_name },
                gst::ResourceError::NotFound if detail.contains("404") || detail.contains("Not Found") => {
                    Self::NoStream { source_name }
                }
                _ => Self::Unreachable { source_name, detail },
            };
        }
        match error.kind::<gst::StreamError>() {
            Some(gst::StreamError::TypeNotFound | gst::StreamError::WrongType | gst::StreamError::Demux) => {
                Self::NotVideo { source_name, detail }
            }
            _ => Self::Pipeline { source_name, detail },
        }
    }
}

/// What may be behind it, and what to install where nothing can take the decoder's place.
fn advice(hardware: Hardware) -> &'static str {
    match hardware.instead {
        Some(_) => "",
        None => "; install gstreamer1.0-libav, so that the processor can decode instead",
    }
}

/// Begins the text of the error this crate posts when a source has no video track.
pub(crate) const NO_VIDEO: &str = "no video track: ";

/// Error and the last line of its debug text, without passwords and source code positions.
fn one_line(error: &str, debug: Option<&str>) -> String {
    let detail = debug.and_then(|d| d.lines().skip(1).filter(|l| !l.trim().is_empty()).last()).unwrap_or("");
    let text = match detail.trim() {
        "" => error.trim().to_owned(),
        detail => format!("{}: {detail}", error.trim().trim_end_matches('.')),
    };
    let text = redact(&text.replace(['\n', '\r'], " "));
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gstreamer_texts_become_one_line() {
        let debug = "../gst/rtsp/gstrtspsrc.c(1): open (): /GstRTSPSrc:source:\nFailed to connect. (Generic error)";
        assert_eq!(
            one_line("Could not open resource.", Some(debug)),
            "Could not open resource: Failed to connect. (Generic error)"
        );
        assert_eq!(one_line("a\nb", None), "a b");
    }
}
