//! Where a camera's pictures come from: the URL forms of the configuration, parsed once.
//!
//! Never shows a password: user and password of an RTSP URL move into [`Credentials`], and secret query values are
//! masked by `Display` and `Debug`. Pure: touches no file, device or network.

use std::fmt;
use std::path::PathBuf;

use crate::secret::{Credentials, mask_query, redact_address};

/// How fast a file is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speed {
    /// As a camera would deliver it.
    #[default]
    RealTime,
    /// As fast as the consumer takes frames; frames carry no arrival time.
    Max,
}

/// What a v4l2 device is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum V4l2Format {
    /// Whatever raw format the device offers first.
    #[default]
    Any,
    /// Packed 4:2:2 (`YUYV`).
    Yuyv,
    /// JPEG pictures (`MJPG`).
    Mjpeg,
}

/// Of a V4L2 device `fps=N` takes what it has from so many thousandths of N up to N: television's 30 is 30000/1001, and
/// drivers round that.
pub(crate) const RATE_PERMILLE: u32 = 998;

/// Wanted picture size and rate of a device; `None` leaves it to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Pixels, width and height.
    pub size: Option<(u32, u32)>,
    /// Frames a second.
    pub fps: Option<u32>,
}

/// A parsed source.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// `rtsp://host/path`, `rtsps://…`. The camera's own query string is passed on untouched.
    Rtsp {
        /// Without user and password.
        url: String,
        /// From the URL's user part, if it had one.
        credentials: Option<Credentials>,
    },
    /// `v4l2:/dev/video0?format=mjpeg&size=1280x720&fps=30`.
    V4l2 {
        /// Device node.
        device: String,
        /// Pixel format.
        format: V4l2Format,
        /// Size and rate.
        mode: Mode,
    },
    /// `csi:0?size=1920x1080&fps=30`: a camera on a Jetson's CSI port.
    Csi {
        /// Sensor number.
        sensor: u32,
        /// Size and rate; 1280x720 at 30 unless told.
        mode: Mode,
    },
    /// `file:PATH?loop=true&speed=max`.
    File {
        /// As written.
        path: PathBuf,
        /// Begins again at the end, each time as a new session.
        looped: bool,
        /// Real time unless told.
        speed: Speed,
    },
    /// `test:smpte?size=640x480&fps=30&frames=100&speed=max`: a generated pattern.
    Test {
        /// A pattern of `videotestsrc`.
        pattern: String,
        /// Size and rate; 640x480 at 30 unless told.
        mode: Mode,
        /// Ends after so many frames; `None` never ends.
        frames: Option<u32>,
        /// Pace.
        speed: Speed,
    },
}

/// Why a source was refused. Messages say what to write instead and hold no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No known form.
    #[error(
        "source `{text}`: unknown form; write one of rtsp://HOST/PATH, rtsps://HOST/PATH, v4l2:/dev/videoN, csi:N, file:PATH, test:{hint}"
    )]
    UnknownForm {
        /// Redacted.
        text: String,
        /// Further advice, or empty.
        hint: String,
    },
    /// An RTSP URL that is none.
    #[error(
        "source `{text}`: not a valid RTSP URL ({reason}); percent-encode special characters of user and password, or give them in `credentials`"
    )]
    BadUrl {
        /// Redacted.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// A device, path, sensor or pattern is missing or malformed.
    #[error("source `{text}`: {reason}")]
    BadTarget {
        /// Redacted.
        text: String,
        /// What is wrong and what to write.
        reason: &'static str,
    },
    /// An option that is unknown or whose value does not fit.
    #[error("source `{text}`: option `{option}` is not understood; allowed here: {allowed}")]
    BadOption {
        /// Redacted.
        text: String,
        /// The offending `key=value`, redacted.
        option: String,
        /// What may be written.
        allowed: &'static str,
    },
}

impl Source {
    /// Parses the URL form of the configuration.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        match text.split_once(':') {
            Some(("rtsp" | "rtsps", rest)) if rest.starts_with("//") => parse_rtsp(text),
            Some(("v4l2", rest)) => parse_v4l2(text, rest),
            Some(("csi", rest)) => parse_csi(text, rest),
            Some(("file", rest)) => parse_file(text, rest),
            Some(("test", rest)) => parse_test(text, rest),
            _ => Err(unknown_form(text)),
        }
    }

    /// Whether the source is a file: its errors do not heal by themselves.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }

    /// Whether the source delivers in its own time and frames carry an [`kinewatch_core::time::Arrival`].
    #[must_use]
    pub fn is_real_time(&self) -> bool {
        !matches!(self, Self::File { speed: Speed::Max, .. } | Self::Test { speed: Speed::Max, .. })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rtsp { url, .. } => f.write_str(&mask_query(url)),
            Self::V4l2 { device, format, mode } => {
                let format = match format {
                    V4l2Format::Any => None,
                    V4l2Format::Yuyv => Some("format=yuyv".to_owned()),
                    V4l2Format::Mjpeg => Some("format=mjpeg".to_owned()),
                };
                write!(f, "v4l2:{device}{}", query(format.into_iter().chain(mode.options())))
            }
            Self::Csi { sensor, mode } => write!(f, "csi:{sensor}{}", query(mode.options())),
            Self::File { path, looped, speed } => {
                let looped = looped.then(|| "loop=true".to_owned());
                let speed = (*speed == Speed::Max).then(|| "speed=max".to_owned());
                write!(f, "file:{}{}", path.display(), query(looped.into_iter().chain(speed)))
            }
            Self::Test { pattern, mode, frames, speed } => {
                let frames = frames.map(|n| format!("frames={n}"));
                let speed = (*speed == Speed::Max).then(|| "speed=max".to_owned());
                write!(f, "test:{pattern}{}", query(mode.options().chain(frames).chain(speed)))
            }
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

impl Mode {
    fn options(self) -> impl Iterator<Item = String> {
        let size = self.size.map(|(w, h)| format!("size={w}x{h}"));
        size.into_iter().chain(self.fps.map(|n| format!("fps={n}")))
    }

    /// Takes `size=WxH` or `fps=N`; false when the option is another or malformed.
    fn accept(&mut self, key: &str, value: &str) -> bool {
        match key {
            "size" => {
                self.size = parse_size(value);
                self.size.is_some()
            }
            "fps" => {
                self.fps = positive(value).filter(|fps| *fps <= 1000);
                self.fps.is_some()
            }
            _ => false,
        }
    }
}

fn query(options: impl Iterator<Item = String>) -> String {
    let joined = options.collect::<Vec<_>>().join("&");
    if joined.is_empty() { joined } else { format!("?{joined}") }
}

fn positive(text: &str) -> Option<u32> {
    text.parse().ok().filter(|n| *n > 0)
}

fn parse_size(text: &str) -> Option<(u32, u32)> {
    let (width, height) = text.split_once('x')?;
    let side = |s| positive(s).filter(|n| *n <= 16_384);
    Some((side(width)?, side(height)?))
}

fn unknown_form(text: &str) -> SourceError {
    let looks_like_path = text.starts_with(['/', '.']) || text.contains('.') && !text.contains("://");
    let hint = match () {
        () if text.starts_with("/dev/video") => format!(" (did you mean `v4l2:{text}`?)"),
        () if looks_like_path => format!(" (did you mean `file:{}`?)", redact_address(text)),
        () => String::new(),
    };
    SourceError::UnknownForm { text: redact_address(text), hint }
}

/// Splits the user part off by hand: cameras use paths and queries that a URL library would rewrite.
fn parse_rtsp(text: &str) -> Result<Source, SourceError> {
    let bad = |reason: String| SourceError::BadUrl { text: redact_address(text), reason: redact_address(&reason) };
    let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("no `://`".into()))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user_part, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let url = format!("{scheme}://{host}{path}");
    let parsed = url::Url::parse(&url).map_err(|e| bad(e.to_string()))?;
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(bad("it names no host".into()));
    }
    let credentials = user_part.map(|part| {
        let (user, password) = part.split_once(':').unwrap_or((part, ""));
        let decode = |s| percent_encoding::percent_decode_str(s).decode_utf8_lossy().into_owned();
        Credentials::new(decode(user), decode(password))
    });
    Ok(Source::Rtsp { url, credentials })
}

/// Splits `TARGET?key=value&…` and hands each option to `accept`.
fn options<'a>(
    text: &str,
    rest: &'a str,
    allowed: &'static str,
    mut accept: impl FnMut(&str, &str) -> bool,
) -> Result<&'a str, SourceError> {
    let Some((target, tail)) = rest.rsplit_once('?').filter(|(_, tail)| tail.contains('=')) else { return Ok(rest) };
    for option in tail.split('&') {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        if !accept(key, value) {
            return Err(SourceError::BadOption { text: redact_address(text), option: redact_address(option), allowed });
        }
    }
    Ok(target)
}

fn parse_v4l2(text: &str, rest: &str) -> Result<Source, SourceError> {
    let (mut format, mut mode) = (V4l2Format::Any, Mode::default());
    let allowed = "format=yuyv, format=mjpeg, size=WIDTHxHEIGHT, fps=N";
    let device = options(text, rest, allowed, |key, value| match (key, value) {
        ("format", "yuyv") => {
            format = V4l2Format::Yuyv;
            true
        }
        ("format", "mjpeg") => {
            format = V4l2Format::Mjpeg;
            true
        }
        _ => mode.accept(key, value),
    })?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.:".contains(c);
    if !device.starts_with("/dev/") || !device.chars().all(plain) {
        let reason = "a v4l2 source names a device node, for example v4l2:/dev/video0 (`kinewatch devices` lists them)";
        return Err(SourceError::BadTarget { text: redact_address(text), reason });
    }
    Ok(Source::V4l2 { device: device.to_owned(), format, mode })
}

fn parse_csi(text: &str, rest: &str) -> Result<Source, SourceError> {
    let mut mode = Mode::default();
    let sensor = options(text, rest, "size=WIDTHxHEIGHT, fps=N", |key, value| mode.accept(key, value))?;
    let reason = "a csi source names a sensor number, for example csi:0";
    let sensor = sensor.parse().map_err(|_| SourceError::BadTarget { text: redact_address(text), reason })?;
    Ok(Source::Csi { sensor, mode })
}

fn parse_file(text: &str, rest: &str) -> Result<Source, SourceError> {
    let (mut looped, mut speed) = (false, Speed::RealTime);
    let path = options(text, rest, "loop=true, loop=false, speed=max, speed=1", |key, value| {
        match (key, value) {
            ("loop", "true") => looped = true,
            ("loop", "false") => looped = false,
            ("speed", "max") => speed = Speed::Max,
            ("speed", "1") => speed = Speed::RealTime,
            _ => return false,
        }
        true
    })?;
    let path = path.strip_prefix("//").filter(|p| p.starts_with('/')).unwrap_or(path);
    if path.is_empty() {
        return Err(SourceError::BadTarget {
            text: redact_address(text),
            reason: "file: needs a path, for example file:/srv/clip.mp4",
        });
    }
    Ok(Source::File { path: PathBuf::from(path), looped, speed })
}

fn parse_test(text: &str, rest: &str) -> Result<Source, SourceError> {
    let (mut mode, mut frames, mut speed) = (Mode::default(), None, Speed::RealTime);
    let allowed = "size=WIDTHxHEIGHT, fps=N, frames=N, speed=max, speed=1";
    let pattern = options(text, rest, allowed, |key, value| match key {
        "speed" => {
            speed = if value == "max" { Speed::Max } else { Speed::RealTime };
            matches!(value, "max" | "1")
        }
        "frames" => {
            frames = positive(value).filter(|n| i32::try_from(*n).is_ok());
            frames.is_some()
        }
        _ => mode.accept(key, value),
    })?;
    let pattern = if pattern.is_empty() { "smpte" } else { pattern };
    if !pattern.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        let reason = "test: takes a pattern of videotestsrc, for example test:smpte or test:ball";
        return Err(SourceError::BadTarget { text: redact_address(text), reason });
    }
    Ok(Source::Test { pattern: pattern.to_owned(), mode, frames, speed })
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
