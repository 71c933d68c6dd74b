//! Every form of a source, its refusals, and that no password is ever shown.

use super::*;

fn parse(text: &str) -> Source {
    Source::parse(text).unwrap()
}

fn refused(text: &str) -> String {
    Source::parse(text).unwrap_err().to_string()
}

#[test]
fn forms_round_trip_through_display() {
    for text in [
        "rtsp://cam.local:8554/live?channel=1&subtype=0&transport=odd",
        "rtsps://10.0.0.2/s",
        "v4l2:/dev/video0",
        "v4l2:/dev/video2?format=mjpeg&size=1280x720&fps=30",
        "csi:0",
        "csi:1?size=1920x1080&fps=60",
        "file:/srv/a b.mp4?loop=true&speed=max",
        "file:clip.mkv",
        "test:ball?size=320x240&fps=10&frames=5&speed=max",
    ] {
        assert_eq!(parse(text).to_string(), text);
    }
    assert_eq!(parse("test:").to_string(), "test:smpte");
    assert_eq!(parse("file:///srv/x.mp4").to_string(), "file:/srv/x.mp4");
    assert_eq!(parse("file:what?.mp4").to_string(), "file:what?.mp4", "a question mark may belong to the name");
}

#[test]
fn user_and_password_leave_the_url() {
    let Source::Rtsp { url, credentials } = parse("rtsp://admin:p%40ss@w0rd@cam/live?x=1") else { panic!("rtsp") };
    assert_eq!(url, "rtsp://cam/live?x=1");
    let credentials = credentials.unwrap();
    assert_eq!((credentials.user(), credentials.password()), ("admin", "p@ss@w0rd"));
}

#[test]
fn no_output_shows_a_password() {
    let source = parse("rtsp://admin:hunter2@cam/user=admin&password=hunter2?pwd=hunter2&channel=1");
    for text in [
        source.to_string(),
        format!("{source:?}"),
        refused("rtsp://admin:hunter2@/live"),
        refused("rtsp://admin:hunter2@cam:notaport/live"),
        refused("rtp://admin:hunter2@cam/live"),
        refused("http://cam/?password=hunter2"),
        refused("rtsp:/joe:hunter2@cam/live"),
        refused("joe:hunter2@cam/live"),
        refused("file:/x?password=hunter2"),
        refused("test:joe:hunter2@cam"),
        refused("csi:joe:hunter2@cam"),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(source.to_string().contains("channel=1"));
}

#[test]
fn refusals_say_what_to_write() {
    assert!(refused("/dev/video0").contains("`v4l2:/dev/video0`"));
    assert!(refused("clip.mp4").contains("`file:clip.mp4`"));
    assert!(refused("v4l2:video0").contains("v4l2:/dev/video0"));
    assert!(refused("v4l2:/dev/video0?size=big").contains("`size=big`"));
    assert!(refused("csi:left").contains("csi:0"));
    assert!(refused("file:").contains("needs a path"));
    assert!(refused("file:a.mp4?speed=2").contains("speed=max"));
    assert!(refused("test:a b").contains("pattern"));
    assert!(refused("test:ball?frames=0").contains("frames"));
    assert!(refused("test:ball?speed=2").contains("speed=max"));
    assert!(refused("rtsp:///live").contains("no host"), "{}", refused("rtsp:///live"));
    assert!(refused("").contains("unknown form"));
}
