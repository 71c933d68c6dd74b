//! The pipeline of every kind of source on every platform: against `golden/pipelines.txt`, in the table of
//! `cross/PIPELINES.md`, and for GStreamer, with elements that stand in for those of a Jetson.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod standins;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kinewatch_capture::platform::{Chip, Jetson, Release};
use kinewatch_capture::{Codec, Description, Elements, Layout, Machine, Platform, Source, Transport, describe};
use kinewatch_core::frame::{Filter, FrameSpec, Resize, ScaleOrder};
use standins::strict;

const JETSON: &[&str] = &["nvv4l2decoder", "nvvidconv", "jpegdec", "avdec_h264", "avdec_h265"];

/// A machine of the table.
struct Target {
    name: &'static str,
    chip: Chip,
    elements: Elements,
}

fn targets() -> Vec<Target> {
    let desk = |name, names: &'static [&'static str]| Target {
        name,
        chip: Chip::Orin,
        elements: Elements::choose(&|name| names.contains(&name), Machine::default()),
    };
    let jetson = |name, major, chip| {
        let release = Some(Release { major, minor: 0, patch: 0 });
        let machine = Machine { jetson: Some(Jetson { release, chip }), platform: None };
        Target { name, chip, elements: Elements::choose(&|name| JETSON.contains(&name), machine) }
    };
    vec![
        desk("processor", &["avdec_h264", "avdec_h265", "jpegdec"]),
        desk("VA-API", &["vah264dec", "vah265dec", "avdec_h264", "avdec_h265", "jpegdec"]),
        desk("NVIDIA desktop", &["nvh264dec", "nvh265dec", "avdec_h264", "avdec_h265", "jpegdec"]),
        jetson("JetPack 5", 35, Chip::Orin),
        jetson("JetPack 6", 36, Chip::Orin),
        jetson("JetPack 7, Orin", 39, Chip::Orin),
        jetson("JetPack 7, Thor", 38, Chip::Thor),
    ]
}

/// Source as it is written, what it sends, and how that is called.
const STREAMS: [(&str, Codec, Transport, &str); 13] = [
    ("rtsp://user:secret@cam/live", Codec::H264, Transport::Tcp, "RTSP, H.264"),
    ("rtsp://cam/live", Codec::H265, Transport::Udp, "RTSP, H.265, UDP"),
    ("rtsp://cam/live", Codec::Jpeg, Transport::Tcp, "RTSP, MJPEG"),
    ("rtsp://cam/live", Codec::Other, Transport::Tcp, "RTSP, others"),
    ("v4l2:/dev/video0?format=yuyv&size=1280x720&fps=30", Codec::Raw, Transport::Tcp, "USB, YUYV"),
    ("v4l2:/dev/video0?format=mjpeg", Codec::Jpeg, Transport::Tcp, "USB, MJPEG"),
    ("csi:0", Codec::Raw, Transport::Tcp, "CSI"),
    ("file:/srv/clip.mp4", Codec::H264, Transport::Tcp, "file, H.264"),
    ("file:/srv/clip.mp4?speed=max", Codec::H265, Transport::Tcp, "file, H.265"),
    ("file:/srv/clip.avi?speed=max", Codec::Jpeg, Transport::Tcp, "file, MJPEG"),
    ("file:/srv/clip.webm?speed=max", Codec::Other, Transport::Tcp, "file, others"),
    ("test:ball?frames=10", Codec::Raw, Transport::Tcp, "test pattern"),
    ("test:ball?speed=max", Codec::Raw, Transport::Tcp, "test pattern, at once"),
];

fn square(resize: Resize) -> FrameSpec {
    let order = ScaleOrder::ScaleConvert;
    FrameSpec { width: 160, height: 160, resize, filter: Filter::Bilinear, order }
}

/// What a package may ask for.
fn specs() -> [(&'static str, Vec<FrameSpec>); 4] {
    let (plain, boxed) = (square(Resize::Stretch), square(Resize::Letterbox));
    let other = FrameSpec { filter: Filter::Nearest, order: ScaleOrder::ConvertScale, ..boxed };
    [
        ("stretch", vec![plain]),
        ("letterbox", vec![boxed]),
        ("stretch, not square", vec![FrameSpec { width: 224, height: 160, ..plain }]),
        ("both", vec![plain, other]),
    ]
}

fn text(
    (source, codec, transport, _): (&str, Codec, Transport, &str),
    elements: &Elements,
    specs: &[FrameSpec],
) -> Result<Description, String> {
    describe(&Source::parse(source).unwrap(), transport, codec, elements, specs).map_err(|e| e.to_string())
}

/// Compares with a file; `UPDATE_GOLDEN=1` writes it.
fn compare(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    for (line, (got, want)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(got, want, "line {} (UPDATE_GOLDEN=1 rewrites {})", line + 1, path.display());
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

#[test]
fn pipelines_are_those_of_the_golden_file() {
    let mut all = String::new();
    for target in targets() {
        writeln!(all, "# {}\n", target.name).unwrap();
        for stream in STREAMS {
            writeln!(all, "{} ({:?})", Source::parse(stream.0).unwrap(), stream.1).unwrap();
            for (name, specs) in specs() {
                let line = text(stream, &target.elements, &specs);
                let line = line.map_or_else(|e| format!("error: {e}"), |d| format!("{:?} {d}", d.layouts));
                writeln!(all, "  {name}: {line}").unwrap();
            }
            writeln!(all).unwrap();
        }
    }
    assert!(!all.contains("secret"));
    compare(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pipelines.txt"), &all);
}

/// The part of the document below this line is made here.
const MADE: &str = "<!-- Made by agent/capture/tests/describe.rs from the code that builds the pipelines; UPDATE_GOLDEN=1 writes it anew. -->\n";

#[test]
fn the_document_shows_the_pipelines_of_the_code() {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cross/PIPELINES.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let by_hand = document.split_once(MADE).expect("the document has its mark").0;
    let targets = targets();
    let names: Vec<&str> = targets.iter().map(|target| target.name).collect();
    let mut made = format!("\n| source | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for stream in STREAMS {
        let cells = targets.iter().map(|target| match text(stream, &target.elements, &[square(Resize::Stretch)]) {
            Ok(described) => in_short(&described),
            Err(_) => "none".into(),
        });
        writeln!(made, "| {} | {} |", stream.3, cells.collect::<Vec<_>>().join(" | ")).unwrap();
    }
    // The others differ from the processor's in the decoder; all of them are in the golden file.
    let listed =
        |target: &&Target| target.elements.platform.is_jetson() || target.elements.platform == Platform::Software;
    for target in targets.iter().filter(listed) {
        writeln!(made, "\n### {}\n\n```", target.name).unwrap();
        for stream in STREAMS {
            for (name, specs) in specs().into_iter().take(2) {
                if let Ok(described) = text(stream, &target.elements, &specs) {
                    // What is the same in all of them is said once, above.
                    let described = described.to_string();
                    let described = described.split(" ! appsink").next().unwrap_or_default();
                    writeln!(made, "{}, {name}:\n  {described} ! appsink", stream.3).unwrap();
                }
            }
        }
        writeln!(made, "```").unwrap();
    }
    compare(&path, &format!("{by_hand}{MADE}{made}"));
}

/// Decoder, scaler and pixels.
fn in_short(described: &Description) -> String {
    let text = described.to_string();
    let decoder = text.split(" ! ").find(|stage| stage.contains("name=decoder"));
    let decoder = decoder.and_then(|stage| stage.split(' ').next()).unwrap_or("not encoded");
    let layout = described.layouts[0];
    let scaler = if layout == Layout::Rgba { "`nvvidconv`, RGBA" } else { "processor, RGB" };
    let decoder = if decoder.contains(' ') { decoder.to_owned() } else { format!("`{decoder}`") };
    format!("{decoder}; {scaler}")
}

/// With elements that have what the real ones have, and nothing else.
#[test]
fn every_pipeline_is_parsed_by_gstreamer() {
    kinewatch_capture::init().unwrap();
    let mut parsed = 0;
    for target in targets() {
        strict::stand_in(target.elements.platform, target.chip);
        for stream in STREAMS {
            for (name, specs) in specs() {
                let Ok(described) = text(stream, &target.elements, &specs) else { continue };
                let all = described.to_string();
                gstreamer::parse::launch(&all)
                    .unwrap_or_else(|e| panic!("{}, {}, {name}: {all}: {e}", target.name, stream.3));
                gstreamer::parse::bin_from_description(&described.tail, false).unwrap();
                parsed += 1;
            }
        }
    }
    println!("{parsed} pipelines");
    assert_eq!(parsed, targets().len() * STREAMS.len() * specs().len() - 3 * specs().len(), "all but CSI elsewhere");
    // The check can fail: each of these was, or might be, a mistake.
    let refused = |platform, chip, text: &str| {
        strict::stand_in(platform, chip);
        let refused = gstreamer::parse::launch(text).err();
        refused.unwrap_or_else(|| panic!("{text}: is not refused")).to_string()
    };
    let thor = refused(Platform::Jetpack7, Chip::Thor, "nvv4l2decoder enable-max-performance=true ! fakesink");
    assert!(thor.contains("enable-max-performance"), "{thor}");
    let old = refused(Platform::Jetpack5, Chip::Orin, "fakesrc ! nvvidconv compute-hw=VIC ! fakesink");
    assert!(old.contains("compute-hw"), "{old}");
    let rgb = refused(Platform::Jetpack6, Chip::Orin, "fakesrc ! nvvidconv ! video/x-raw,format=RGB ! fakesink");
    assert!(rgb.contains("link"), "{rgb}");
    let jpeg = refused(Platform::Jetpack7, Chip::Thor, "v4l2src ! image/jpeg ! nvv4l2decoder ! fakesink");
    assert!(jpeg.contains("link"), "{jpeg}");
    let memory = refused(Platform::Jetpack6, Chip::Orin, "nvarguscamerasrc ! video/x-raw,format=NV12 ! fakesink");
    assert!(memory.contains("link"), "{memory}");
}

#[test]
fn what_this_machine_cannot_do_is_said() {
    let bare = Elements::choose(&|name| name == "avdec_h264", Machine::default());
    let source = Source::parse("rtsp://cam/live").unwrap();
    let plain = square(Resize::Stretch);
    let error = describe(&source, Transport::Tcp, Codec::H265, &bare, &[plain]).unwrap_err().to_string();
    assert!(error.contains("H265") && error.contains("gstreamer1.0-libav"), "{error}");
    let error = describe(&Source::parse("csi:0").unwrap(), Transport::Tcp, Codec::Raw, &bare, &[plain]).unwrap_err();
    assert!(error.to_string().contains("Jetson"));
}
