//! One camera: what GStreamer needs for it, and whether it answers. No picture is taken: a camera that serves one viewer
//! alone keeps that one.

use std::time::{Duration, Instant};

use kinewatch_capture::{CaptureError, Codec, Elements, Offered, Source, Transport, ask_rtsp, has_element, needed};
use kinewatch_core::frame::{Filter, FrameSpec, Resize, ScaleOrder};

use super::duration;
use crate::config::file;
use crate::config::plan::CameraPlan;
use crate::doctor::identity::{Denied, Want};
use crate::doctor::{About, Context, Finding, Network};

/// How long a camera may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

pub(super) fn check(context: &Context, camera: &CameraPlan, about: &About) -> Vec<Finding> {
    let Ok(elements) = &context.gstreamer else { return vec![about.skip("GStreamer does not start")] };
    if let Err(lacks) = complete(context, camera, elements, None) {
        return vec![about.fail(lacks)];
    }
    let finding = match &camera.source {
        Source::Rtsp { .. } if context.network == Network::Offline => about.skip("not asked (--offline)"),
        Source::Rtsp { .. } => rtsp(context, camera, elements, about),
        Source::V4l2 { device, .. } => v4l2(context, camera, device, about),
        Source::Csi { sensor, .. } => csi(context, *sensor, about),
        Source::File { path, .. } => match context.identity.may(&context.root, path, Want::Read) {
            Ok(()) => about.ok(format!("{}", camera.source)),
            Err(e) => about.fail(format!("{e}; chmod it, or give it to that user")),
        },
        Source::Test { .. } => about.ok("a generated pattern"),
    };
    vec![finding]
}

/// Whether every element is there, for a stream of `codec`.
fn complete(context: &Context, camera: &CameraPlan, elements: &Elements, codec: Option<Codec>) -> Result<(), String> {
    let transport = match camera.transport {
        file::Transport::Tcp => Transport::Tcp,
        file::Transport::Udp => Transport::Udp,
    };
    let all = needed(&camera.source, transport, codec, elements, &specs(context, camera)).map_err(|e| e.to_string())?;
    let lacks: Vec<_> = all.iter().filter(|n| !has_element(&n.element)).collect();
    if lacks.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = lacks.iter().map(|n| n.element.as_str()).collect();
    let mut packages: Vec<&str> = lacks.iter().map(|n| n.package).collect();
    packages.sort_unstable();
    packages.dedup();
    Err(format!("GStreamer lacks {}; apt install {}", names.join(", "), packages.join(" ")))
}

/// What the camera's models read, or something like it where they are not known.
fn specs(context: &Context, camera: &CameraPlan) -> Vec<FrameSpec> {
    let models = &context.config.parts.models;
    let known = camera.models.iter().filter_map(|&m| models.get(m)?.as_ref()).map(|m| m.manifest.input.spec);
    let mut specs: Vec<FrameSpec> = known.collect();
    if specs.is_empty() {
        let (resize, filter, order) = (Resize::Stretch, Filter::Bilinear, ScaleOrder::ScaleConvert);
        specs.push(FrameSpec { width: 160, height: 160, resize, filter, order });
    }
    specs
}

fn rtsp(context: &Context, camera: &CameraPlan, elements: &Elements, about: &About) -> Finding {
    let credentials = camera.login.as_ref().map(Into::into);
    let begin = Instant::now();
    match ask_rtsp(&camera.source, credentials.as_ref(), ANSWER) {
        Ok(offered) => streams(context, camera, elements, &offered, begin.elapsed(), about),
        Err(e) => {
            let repair = match &e {
                CaptureError::Unauthorized { .. } if camera.login.is_none() => "; give a login with credentials_file",
                CaptureError::Unauthorized { .. } => "; check the file that holds user and password",
                CaptureError::NoStream { .. } => "; check the path of the URL in the camera's manual",
                CaptureError::Silent { .. } => "; check address, port and firewall",
                // It has been asked already what is wrong.
                CaptureError::Unreachable { detail, .. } if detail.contains('?') => "",
                _ => "; check address and network",
            };
            about.fail(format!("{e}{repair}"))
        }
    }
}

fn streams(
    context: &Context,
    camera: &CameraPlan,
    elements: &Elements,
    offered: &Offered,
    took: Duration,
    about: &About,
) -> Finding {
    let source = &camera.source;
    let Some(name) = offered.video.first() else {
        return about
            .fail(format!("{source}: offers no video, only {}; check the path of the URL", offered.others.join(", ")));
    };
    // Never absent: an encoding name without a slash is a codec, if only `Other`.
    let codec = Codec::of(name).unwrap_or(Codec::Other);
    if let Err(lacks) = complete(context, camera, elements, Some(codec)) {
        return about.fail(format!("{source}: sends {name}: {lacks}"));
    }
    let decoder = match codec {
        Codec::H264 => elements.h264,
        Codec::H265 => elements.h265,
        Codec::Jpeg => elements.jpeg,
        Codec::Raw | Codec::Other => None,
    };
    let with = decoder.map_or_else(|| "a decoder that GStreamer chooses".into(), str::to_owned);
    about.ok(format!("{source}: answers in {}, sends {name}, decoded by {with}", duration(took)))
}

fn v4l2(context: &Context, camera: &CameraPlan, device: &str, about: &About) -> Finding {
    match context.identity.may(&context.root, &context.root.at(device), Want::Write) {
        Ok(()) => offers(&camera.source, about),
        Err(Denied::Missing { .. }) => {
            about.fail(format!("{device} does not exist; is the camera plugged in? `kinewatch devices` lists what is"))
        }
        Err(e) => {
            let user = &context.identity.name;
            about.fail(format!("{e}; usermod -a -G video {user}, then restart kinewatch"))
        }
    }
}

#[cfg(feature = "v4l")]
fn offers(source: &Source, about: &About) -> Finding {
    match kinewatch_capture::check_device(source) {
        Ok(()) => about.ok(format!("{source}: is there and offers what is asked of it")),
        Err(e) => about.fail(e.to_string()),
    }
}

#[cfg(not(feature = "v4l"))]
fn offers(source: &Source, about: &About) -> Finding {
    about.ok(format!("{source}: is there (its formats are not known to this build)"))
}

fn csi(context: &Context, sensor: u32, about: &About) -> Finding {
    const SOCKET: &str = "/tmp/argus_socket";
    let node = format!("/dev/video{sensor}");
    if !context.root.has(&node) {
        return about.fail(format!(
            "csi:{sensor}: {node} is missing: the kernel sees no such sensor; check cable and device tree (jetson-io)"
        ));
    }
    if !context.root.has(SOCKET) {
        return about.fail(format!("csi:{sensor}: {SOCKET} is missing; systemctl restart nvargus-daemon"));
    }
    // The socket outlives its daemon.
    if super::board::argus_runs(&context.root) == Some(false) {
        return about.fail(format!("csi:{sensor}: nvargus-daemon does not run; systemctl restart nvargus-daemon"));
    }
    if context.unit.known().is_some_and(|unit| unit.text("PrivateTmp") == "yes") {
        let advice = "make its example csi-cameras.conf a drop-in (/usr/share/doc/kinewatch/examples/systemd)";
        return about.fail(format!("csi:{sensor}: the service does not see {SOCKET} (PrivateTmp=); {advice}"));
    }
    about.ok(format!("csi:{sensor}: the sensor is there and nvargus-daemon runs"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::context;
    use crate::doctor::unit::Unit;
    use crate::doctor::unit::tests::RUNNING;

    #[test]
    fn a_csi_camera_needs_its_node_and_the_argus_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let about = About::one("camera", "door");
        let message = |c: &Context| csi(c, 0, &about).message;
        let bare = context(dir.path(), &[]);
        assert!(message(&bare).contains("/dev/video0 is missing"));
        let wired = context(dir.path(), &[("/dev/video0", "")]);
        assert!(message(&wired).contains("restart nvargus-daemon"));
        let mut whole = context(dir.path(), &[("/tmp/argus_socket", "")]);
        assert_eq!(message(&whole), "csi:0: the sensor is there and nvargus-daemon runs");
        let dead = context(dir.path(), &[("/proc/1/comm", "systemd\n"), ("/proc/7/comm", "bash\n")]);
        assert_eq!(message(&dead), "csi:0: nvargus-daemon does not run; systemctl restart nvargus-daemon");
        let alive = context(dir.path(), &[("/proc/7/comm", "nvargus-daemon\n")]);
        assert_eq!(message(&alive), "csi:0: the sensor is there and nvargus-daemon runs");
        whole.unit = Unit::parse(RUNNING);
        assert!(message(&whole).contains("csi-cameras.conf"));
    }
}
