//! The pipeline of every kind of source on every platform, against `golden/pipelines.txt`.

use std::fmt::Write as _;

use kinewatch_capture::{Codec, Elements, Source, Transport, describe};
use kinewatch_core::frame::{Filter, FrameSpec, Resize, ScaleOrder};

fn machine(names: &'static [&'static str], l4t: Option<u32>) -> Elements {
    Elements::choose(&|name| names.contains(&name), l4t)
}

const JETSON: &[&str] = &["nvv4l2decoder", "nvvidconv", "jpegdec", "avdec_h264", "avdec_h265"];

fn platforms() -> Vec<(&'static str, Elements)> {
    vec![
        ("desktop software", machine(&["avdec_h264", "avdec_h265", "jpegdec"], None)),
        ("VA-API", machine(&["vah264dec", "vah265dec", "avdec_h264", "jpegdec"], None)),
        ("NVIDIA desktop", machine(&["nvh264dec", "nvh265dec", "avdec_h264", "jpegdec"], None)),
        ("JetPack 5", machine(JETSON, Some(35))),
        ("JetPack 6", machine(JETSON, Some(36))),
        ("JetPack 7", machine(JETSON, Some(38))),
    ]
}

fn square(resize: Resize, order: ScaleOrder) -> FrameSpec {
    FrameSpec { width: 160, height: 160, resize, filter: Filter::Bilinear, order }
}

#[test]
fn pipelines_are_those_of_the_golden_file() {
    let plain = square(Resize::Stretch, ScaleOrder::ScaleConvert);
    let boxed = FrameSpec { filter: Filter::Nearest, ..square(Resize::Letterbox, ScaleOrder::ConvertScale) };
    let cases = [
        ("rtsp://user:secret@cam/live", Codec::H264, Transport::Tcp),
        ("rtsp://cam/live", Codec::H265, Transport::Udp),
        ("rtsp://cam/live", Codec::Jpeg, Transport::Tcp),
        ("v4l2:/dev/video0?format=yuyv&size=1280x720&fps=30", Codec::Raw, Transport::Tcp),
        ("v4l2:/dev/video0?format=mjpeg", Codec::Jpeg, Transport::Tcp),
        ("csi:0", Codec::Raw, Transport::Tcp),
        ("file:/srv/clip.mp4", Codec::H264, Transport::Tcp),
        ("file:/srv/clip.webm?speed=max", Codec::Other, Transport::Tcp),
        ("test:ball?frames=10", Codec::Raw, Transport::Tcp),
        ("test:ball?speed=max", Codec::Raw, Transport::Tcp),
    ];
    let mut text = String::new();
    for (platform, elements) in platforms() {
        writeln!(text, "# {platform}\n").unwrap();
        for (source, codec, transport) in cases {
            let source = Source::parse(source).unwrap();
            let described = describe(&source, transport, codec, &elements, &[plain]);
            let described = described.map_or_else(|e| format!("error: {e}"), |d| d.to_string());
            writeln!(text, "{source} ({codec:?})\n  {described}\n").unwrap();
        }
        let source = Source::parse("rtsp://cam/live").unwrap();
        let described = describe(&source, Transport::Tcp, Codec::H264, &elements, &[plain, boxed]).unwrap();
        writeln!(text, "two branches {:?}\n  {described}\n", described.layouts).unwrap();
    }
    assert!(!text.contains("secret"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pipelines.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    for (line, (got, want)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(got, want, "line {} (UPDATE_GOLDEN=1 rewrites {path})", line + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

#[test]
fn software_pipelines_are_valid_for_gstreamer() {
    kinewatch_capture::init().unwrap();
    let (plain, other) =
        (square(Resize::Stretch, ScaleOrder::ScaleConvert), square(Resize::Letterbox, ScaleOrder::ConvertScale));
    for (source, codec) in [
        ("rtsp://cam/live", Codec::H264),
        ("rtsp://cam/live", Codec::Jpeg),
        ("file:/srv/clip.mp4", Codec::Other),
        ("v4l2:/dev/video0?format=mjpeg", Codec::Jpeg),
        ("test:ball", Codec::Raw),
    ] {
        let source = Source::parse(source).unwrap();
        let described = describe(&source, Transport::Tcp, codec, &Elements::software(), &[plain, other]).unwrap();
        gstreamer::parse::launch(&described.to_string()).unwrap_or_else(|e| panic!("{described}: {e}"));
    }
}

#[test]
fn what_this_machine_cannot_do_is_said() {
    let bare = machine(&["avdec_h264"], None);
    let source = Source::parse("rtsp://cam/live").unwrap();
    let plain = square(Resize::Stretch, ScaleOrder::ScaleConvert);
    let error = describe(&source, Transport::Tcp, Codec::H265, &bare, &[plain]).unwrap_err().to_string();
    assert!(error.contains("H265") && error.contains("gstreamer1.0-libav"), "{error}");
    let error = describe(&Source::parse("csi:0").unwrap(), Transport::Tcp, Codec::Raw, &bare, &[plain]).unwrap_err();
    assert!(error.to_string().contains("Jetson"));
}
