//! What people write: configuration, addresses, arguments. None may come back out with a password in it.

use std::path::Path;

use clap::Parser;
use kinewatch::cli::Cli;
use kinewatch::config::{self, Environment, Probe, Severity};
use kinewatch_capture::{Codec, Elements, Machine, Source, Transport, describe, needed};
use kinewatch_core::frame::{Filter, FrameSpec, Resize, ScaleOrder};
use kinewatch_mqtt::Endpoint;

use super::{file, is_told};

const PLANTED: &str = "Pl4nted";

/// What the fuzzer has come up with, unless it is the secret: then it stands where everybody may see it.
fn text(data: &[u8]) -> Option<&str> {
    super::text(data).filter(|text| !text.contains(PLANTED))
}

pub fn config(data: &[u8]) {
    let path = file("kinewatch.toml", data);
    let environment = Environment { host_name: "Box.local".into(), ..Environment::default() };
    let report = config::check(&path, &environment, Probe::FileOnly);
    assert!(report.plan.is_none(), "a plan needs the machine");
    for severity in [Severity::Error, Severity::Warning] {
        report.lines(severity).iter().for_each(|line| is_told(line));
    }
    if let Some(file) = &report.file {
        serde_json::to_value(file).unwrap();
    }
}

pub fn broker_url(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match Endpoint::parse(text) {
        Ok(endpoint) => {
            assert_eq!(Endpoint::parse(&endpoint.to_string()), Ok(endpoint), "what is printed is what was meant")
        }
        Err(e) => is_told(&e.to_string()),
    }
    for scheme in ["mqtt", "mqtts", "tcp", ""] {
        let told = Endpoint::parse(&format!("{scheme}://joe:{PLANTED}@{text}"))
            .map_or_else(|e| e.to_string(), |e| e.to_string());
        assert!(!told.contains(PLANTED), "{told}");
    }
}

pub fn source(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match Source::parse(text) {
        Ok(source) => pipelines(&source),
        Err(e) => is_told(&e.to_string()),
    }
    // With each mistake that a hurried person makes in the scheme.
    for scheme in ["rtsp://", "rtsp:/", "rtsp:", "rtps://", ""] {
        let parsed = Source::parse(&format!("{scheme}joe:{PLANTED}@{text}"));
        let told = parsed.map_or_else(|e| format!("{e} {e:?}"), |source| format!("{source} {source:?}"));
        assert!(!told.contains(PLANTED), "{told}");
    }
}

/// Every pipeline of a source, on every kind of machine. Nothing of what was written may become a stage of its own.
fn pipelines(source: &Source) {
    let spec = FrameSpec {
        width: 160,
        height: 160,
        resize: Resize::Letterbox,
        filter: Filter::Nearest,
        order: ScaleOrder::ConvertScale,
    };
    const ALL: [&str; 6] = ["avdec_h264", "avdec_h265", "jpegdec", "vah264dec", "nvv4l2decoder", "nvvidconv"];
    for known in [3, 4, 6] {
        let elements = Elements::choose(&|name| ALL[..known].contains(&name), Machine::default());
        for codec in [Codec::Raw, Codec::H264, Codec::H265, Codec::Jpeg, Codec::Other] {
            let Ok(described) = describe(source, Transport::Udp, codec, &elements, &[spec, spec]) else { continue };
            let stages = described.to_string().matches('!').count();
            assert!(stages <= 24, "{described}");
            for needed in needed(source, Transport::Udp, Some(codec), &elements, &[spec]).unwrap() {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                assert!(needed.element.chars().all(plain), "{}", needed.element);
            }
        }
    }
}

pub fn redact(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let once = kinewatch_capture::redact(text);
    assert_eq!(kinewatch_capture::redact(&once), once, "nothing is left to hide");
    for around in [format!("{text} rtsp://joe:{PLANTED}@cam/1"), format!("rtsp://joe:{PLANTED}@cam/1 {text}")] {
        let shown = kinewatch_capture::redact(&around);
        assert!(!shown.contains(PLANTED), "{shown}");
    }
}

/// Arguments, one a line. They are read, never carried out.
pub fn command_line(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let args = std::iter::once("kinewatch").chain(text.lines());
    match Cli::try_parse_from(args) {
        Ok(cli) => drop(format!("{cli:?}")),
        Err(e) => drop(e.to_string()),
    }
    drop(kinewatch::logging::check_level(text));
    drop(kinewatch::intervals::slug(text));
    let _ = kinewatch_core::name::Name::parse(text);
    let _ = config::nearest(text, ["name", "source", "stall_timeout_s"]);
    let _ = config::secret::locate(text, Path::new("/etc/kinewatch"), Some(Path::new("/run/credentials")));
}
