//! The pipeline of a camera as text: a pure function of source, elements and frame specs, golden-tested.
//!
//! Never holds a secret or a file name: URL, user, password and path are set as properties afterwards. Elements that
//! the code takes hold of are named: `source`, `demux`, `decoder`, `branchN` (its sink pad drops unwanted frames), `sinkN`.
//!
//! Order of the software chain is fixed by the package ([`FrameSpec::order`]), as it changes the pixels. On a Jetson
//! what is decoded into NVMM memory is scaled and converted by `nvvidconv` in one pass; it has no RGB and always
//! stretches, so it gives RGBA (the fourth byte is left out in the one copy), and for a letterbox the wanted frames are
//! scaled on the CPU instead. What lies in the processor's memory stays there: `nvvidconv` would copy all of a picture
//! to read a small part of it. `cross/PIPELINES.md`, made by the tests, shows all of them.

use std::fmt;

use kinewatch_core::frame::{Filter, FrameSpec, Resize, ScaleOrder};

use crate::elements::Elements;
use crate::error::DescribeError;
use crate::hardware::Hardware;
use crate::platform::Platform;
use crate::source::{Mode, RATE_PERMILLE, Source, Speed, V4l2Format};

/// How RTP reaches us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Interleaved in the RTSP connection: nothing is lost.
    #[default]
    Tcp,
    /// Datagrams: less delay, lossy.
    Udp,
}

/// What comes out of the source, before decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Pictures.
    Raw,
    /// H.264.
    H264,
    /// H.265.
    H265,
    /// One JPEG a frame.
    Jpeg,
    /// Anything else: GStreamer chooses the decoder.
    Other,
}

impl Codec {
    /// From a media type (`video/x-h264`) or an RTP encoding name (`H264`). `None` when it is no video.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "video/x-raw" => Self::Raw,
            "video/x-h264" | "H264" => Self::H264,
            "video/x-h265" | "H265" => Self::H265,
            "image/jpeg" | "JPEG" => Self::Jpeg,
            other if other.starts_with("video/") || other.starts_with("image/") || !other.contains('/') => Self::Other,
            _ => return None,
        })
    }

    /// The codec of a source whose pads exist before it runs; `None` where it shows only then (RTSP, files).
    #[must_use]
    pub fn known(source: &Source) -> Option<Self> {
        match source {
            Source::V4l2 { format: V4l2Format::Mjpeg, .. } => Some(Self::Jpeg),
            Source::V4l2 { .. } | Source::Csi { .. } | Source::Test { .. } => Some(Self::Raw),
            Source::Rtsp { .. } | Source::File { .. } => None,
        }
    }
}

/// Pixels as they reach the sink of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Three bytes.
    Rgb,
    /// Four bytes, the last unused.
    Rgba,
}

/// A pipeline in two parts: RTSP and files are joined when the stream's codec is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Source.
    pub head: String,
    /// Decoder to sinks.
    pub tail: String,
    /// Pixels of each branch.
    pub layouts: Vec<Layout>,
    /// What decodes in hardware.
    pub hardware: Option<Hardware>,
}

/// Where decoded frames lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// The processor's.
    System,
    /// That of a Jetson's video blocks.
    Nvmm,
}

/// Stages up to decoded frames.
struct Decoding {
    stages: Vec<String>,
    memory: Memory,
    hardware: Option<Hardware>,
}

impl Decoding {
    fn none(memory: Memory) -> Self {
        Self { stages: Vec::new(), memory, hardware: None }
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ! {}", self.head, self.tail)
    }
}

/// Describes the whole pipeline for a stream of `codec`.
pub fn describe(
    source: &Source,
    transport: Transport,
    codec: Codec,
    elements: &Elements,
    branches: &[FrameSpec],
) -> Result<Description, DescribeError> {
    let head = head(source, transport, elements)?;
    let Decoding { mut stages, memory, hardware } = decode(source, codec, elements)?;
    if matches!(source, Source::File { speed: Speed::RealTime, .. }) {
        stages.push("identity sync=true".into());
    }
    let mut layouts = Vec::with_capacity(branches.len());
    let mut chains = Vec::with_capacity(branches.len());
    for (index, spec) in branches.iter().enumerate() {
        let name = format!(" name=branch{index}");
        let (chain, layout) = match memory {
            Memory::System => (on_processor(source, spec, &name), Layout::Rgb),
            Memory::Nvmm => on_nvvidconv(source, elements.platform, spec, &name),
        };
        let sink = format!(
            "appsink name=sink{index} sync=false async=false max-buffers=1 drop=false enable-last-sample=false"
        );
        chains.push(format!("{chain} ! {sink}"));
        layouts.push(layout);
    }
    let tail = if let [only] = chains.as_slice() {
        stages.push(only.clone());
        stages.join(" ! ")
    } else {
        // No queues: every branch runs on the decoder's thread, so frames and gaps keep one order.
        stages.push("tee name=split allow-not-linked=true".into());
        let chains = chains.iter().map(|chain| format!(" split. ! {chain}")).collect::<String>();
        format!("{}{chains}", stages.join(" ! "))
    };
    Ok(Description { head, tail, layouts, hardware })
}

/// The source part alone: what runs until the codec is known.
pub(crate) fn head(source: &Source, transport: Transport, elements: &Elements) -> Result<String, DescribeError> {
    Ok(match source {
        Source::Rtsp { .. } => {
            let protocols = match transport {
                Transport::Tcp => "tcp",
                Transport::Udp => "udp",
            };
            // Times are the camera's own (`buffer-mode=none`): bending them to our clock shifts frames by 100 ms and more
            // when packets come in bursts. Clock drift is for the map from media to wall time.
            format!("rtspsrc name=source protocols={protocols} latency=200 buffer-mode=none")
        }
        Source::File { .. } => "filesrc name=source ! parsebin name=demux".into(),
        Source::V4l2 { device, format, mode } => {
            let media = match format {
                V4l2Format::Any => "video/x-raw",
                V4l2Format::Yuyv => "video/x-raw,format=YUY2",
                V4l2Format::Mjpeg => "image/jpeg",
            };
            // `v4l2src` compares fractions exactly, and takes the highest of a range.
            let range = |fps: u32| format!(",framerate=[{}/1000,{fps}/1]", fps.saturating_mul(RATE_PERMILLE));
            let rate = mode.fps.map(range).unwrap_or_default();
            let size = caps_fields(Mode { fps: None, ..*mode });
            format!("v4l2src name=source device={device} ! {media}{size}{rate}")
        }
        Source::Csi { sensor, mode } => {
            if !elements.platform.is_jetson() {
                return Err(DescribeError::NotJetson { sensor: *sensor });
            }
            let mode = Mode { size: mode.size.or(Some((1280, 720))), fps: mode.fps.or(Some(30)) };
            let fields = caps_fields(mode);
            format!("nvarguscamerasrc name=source sensor-id={sensor} ! video/x-raw(memory:NVMM),format=NV12{fields}")
        }
        Source::Test { pattern, mode, frames, speed } => {
            let mode = Mode { size: mode.size.or(Some((640, 480))), fps: mode.fps.or(Some(30)) };
            let count = frames.map(|n| format!(" num-buffers={n}")).unwrap_or_default();
            let fields = caps_fields(mode);
            let live = *speed == Speed::RealTime;
            format!(
                "videotestsrc name=source is-live={live} pattern={pattern}{count} ! video/x-raw,format=I420{fields}"
            )
        }
    })
}

fn caps_fields(mode: Mode) -> String {
    let size = mode.size.map(|(w, h)| format!(",width={w},height={h}")).unwrap_or_default();
    let rate = mode.fps.map(|n| format!(",framerate={n}/1")).unwrap_or_default();
    size + &rate
}

fn decode(source: &Source, codec: Codec, elements: &Elements) -> Result<Decoding, DescribeError> {
    let rtp = matches!(source, Source::Rtsp { .. });
    let (depay, parse) = match codec {
        Codec::Raw if matches!(source, Source::Csi { .. }) => return Ok(Decoding::none(Memory::Nvmm)),
        Codec::Raw if !rtp => return Ok(Decoding::none(Memory::System)),
        Codec::Raw | Codec::Other => return Ok(any_decoder(elements.platform)),
        Codec::H264 => ("rtph264depay", Some("h264parse")),
        Codec::H265 => ("rtph265depay", Some("h265parse")),
        Codec::Jpeg => ("rtpjpegdepay", None),
    };
    let decoder = elements.decoder(codec).ok_or(DescribeError::NoDecoder { codec })?;
    let hardware = decoder.starts_with("nv") || decoder.starts_with("va");
    let mut stages = Vec::new();
    if rtp {
        stages.push(depay.to_owned());
    }
    // `parsebin` has parsed a file already; hardware wants another stream format than containers hold.
    stages.extend(parse.filter(|_| rtp || hardware).map(str::to_owned));
    stages.push(format!("{decoder} name=decoder{}", properties(decoder, codec, elements.platform)));
    let memory = if decoder == "nvv4l2decoder" { Memory::Nvmm } else { Memory::System };
    if hardware && memory == Memory::System {
        stages.push("video/x-raw".into());
    }
    let instead = elements.on_processor().decoder(codec);
    Ok(Decoding { stages, memory, hardware: hardware.then_some(Hardware { decoder, instead }) })
}

/// Properties are set that make a difference and that the element has: an unknown one is an error.
fn properties(decoder: &str, codec: Codec, platform: Platform) -> &'static str {
    match (decoder, codec) {
        ("nvv4l2decoder", Codec::Jpeg) => " mjpeg=true",
        // From r38 on its properties depend on the chip; Thor's has not this one, and no camera needs it.
        ("nvv4l2decoder", _) if platform == Platform::Jetpack7 => "",
        ("nvv4l2decoder", _) => " enable-max-performance=true",
        // One thread: more only delay, and cameras share the cores.
        (avdec, _) if avdec.starts_with("avdec_") => " max-threads=1",
        _ => "",
    }
}

/// A decoder that GStreamer chooses.
fn any_decoder(platform: Platform) -> Decoding {
    let (text, memory) = match platform {
        Platform::Software => ("decodebin name=decoder force-sw-decoders=true".to_owned(), Memory::System),
        Platform::VaApi | Platform::NvCodec => ("decodebin name=decoder".to_owned(), Memory::System),
        // What it gives may lie in either memory.
        Platform::Jetpack5 | Platform::Jetpack6 | Platform::Jetpack7 => {
            let lift = format!("nvvidconv{} ! video/x-raw(memory:NVMM),format=NV12", engine(platform));
            (format!("decodebin name=decoder ! {lift}"), Memory::Nvmm)
        }
    };
    let chooser = Hardware { decoder: "decodebin", instead: Some("decodebin") };
    let hardware = (platform != Platform::Software).then_some(chooser);
    Decoding { stages: vec![text], memory, hardware }
}

/// Frames in the processor's memory.
fn on_processor(source: &Source, spec: &FrameSpec, name: &str) -> String {
    if !source.is_file() {
        return scale_and_convert(spec, name);
    }
    // Turned pictures are set upright as the file's tag says. Both elements pass upright ones through untouched.
    format!("videoconvert{name} ! {UPRIGHT} ! {}", scale_and_convert(spec, ""))
}

/// Frames in NVMM memory.
fn on_nvvidconv(source: &Source, platform: Platform, spec: &FrameSpec, name: &str) -> (String, Layout) {
    let (width, height, engine) = (spec.width, spec.height, engine(platform));
    // A square that is turned after it was stretched is the same; anything else has to be turned before.
    let turn = source.is_file();
    if spec.resize == Resize::Stretch && (!turn || width == height) {
        let method = match spec.filter {
            Filter::Nearest => 0,
            Filter::Bilinear => 1,
        };
        let turn = if turn { format!(" ! {UPRIGHT}") } else { String::new() };
        let scale = format!("nvvidconv{name}{engine} interpolation-method={method}");
        return (format!("{scale} ! video/x-raw,format=RGBA,width={width},height={height}{turn}"), Layout::Rgba);
    }
    let turn = if turn { format!("{UPRIGHT} ! ") } else { String::new() };
    let scale = scale_and_convert(spec, "");
    (format!("nvvidconv{name}{engine} ! video/x-raw,format=I420 ! {turn}{scale}"), Layout::Rgb)
}

const UPRIGHT: &str = "videoflip video-direction=auto";

/// The block that scales: VIC leaves the GPU to the models. JetPack 5 is not known to have the property; VIC is what it takes.
fn engine(platform: Platform) -> &'static str {
    if platform == Platform::Jetpack5 { "" } else { " compute-hw=VIC" }
}

/// The software chain of the contract; `name` goes to its first element.
fn scale_and_convert(spec: &FrameSpec, name: &str) -> String {
    let method = match spec.filter {
        Filter::Nearest => "nearest-neighbour",
        Filter::Bilinear => "bilinear",
    };
    let borders = spec.resize == Resize::Letterbox;
    let size = format!("width={},height={},pixel-aspect-ratio=1/1", spec.width, spec.height);
    let scale = |name: &str| format!("videoscale{name} method={method} add-borders={borders}");
    match spec.order {
        ScaleOrder::ScaleConvert => {
            format!("{} ! video/x-raw,{size} ! videoconvert ! video/x-raw,format=RGB", scale(name))
        }
        ScaleOrder::ConvertScale => {
            format!("videoconvert{name} ! video/x-raw,format=RGB ! {} ! video/x-raw,format=RGB,{size}", scale(""))
        }
    }
}
