//! One camera: what GStreamer needs for it, and whether it answers. No picture is taken: a camera that serves one viewer
//! alone keeps that one.

use std::time::{Duration, Instant};

use kinewatch_capture::{CaptureError, Codec, Elements, Offered, Source, Transport, ask_rtsp, has_element, needed};
use kinewatch_core::frame::{Filter, FrameSpec, Resize, ScaleOrder};

use super::duration;
use crate::config::file;
use crate::config::plan::CameraPlan;
use crate::doctor::identity::{Denied, Want};
use crate::doctor::root::Root;
use crate::doctor::{About, Context, Finding, Network};

/// What the driver of CSI cameras calls the nodes of its sensors, such as `vi-output, imx219 9-0010`.
const CSI_NODE: &str = "vi-output";
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
    let seen = sensors(&context.root);
    if seen.get(sensor as usize).is_none() {
        let seen = match seen.as_slice() {
            [] => "no CSI sensor".to_owned(),
            some => format!("only {} (they count from csi:0)", some.join(" and ")),
        };
        return about.fail(format!("csi:{sensor}: the kernel sees {seen}; check cable and device tree (jetson-io)"));
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

/// The sensors of CSI cameras that the kernel found. A number of `/dev/video` says nothing: without a sensor, a camera on USB
/// is `/dev/video0`.
fn sensors(root: &Root) -> Vec<String> {
    const NODES: &str = "/sys/class/video4linux";
    let names = root.names(NODES, "video").into_iter().filter_map(|node| root.read(format!("{NODES}/{node}/name")));
    names.filter(|name| name.starts_with(CSI_NODE)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::board::trees;
    use crate::doctor::tests::context;
    use crate::doctor::unit::Unit;
    use crate::doctor::unit::tests::RUNNING;

    #[test]
    fn a_csi_camera_needs_its_sensor_and_the_argus_daemon() {
        let about = About::one("camera", "door");
        let dir = trees::plant(&["orin-nano-jp62"]);
        let mut context = context(dir.path(), &[]);
        let message = |c: &Context, sensor| csi(c, sensor, &about).message;
        let gone = |path: &str| fs::remove_dir_all(Root::below(dir.path()).at(path)).unwrap();
        assert_eq!(message(&context, 0), "csi:0: the sensor is there and nvargus-daemon runs");
        assert_eq!(
            message(&context, 1),
            "csi:1: the kernel sees only vi-output, imx219 9-0010 (they count from csi:0); check cable and device tree \
             (jetson-io)"
        );
        gone("/proc/812");
        assert_eq!(message(&context, 0), "csi:0: nvargus-daemon does not run; systemctl restart nvargus-daemon");
        gone("/proc/1");
        assert_eq!(message(&context, 0), "csi:0: the sensor is there and nvargus-daemon runs", "others are not shown");
        context.unit = Unit::parse(RUNNING);
        assert!(message(&context, 0).contains("csi-cameras.conf"));
        fs::remove_file(context.root.at("/tmp/argus_socket")).unwrap();
        assert_eq!(message(&context, 0), "csi:0: /tmp/argus_socket is missing; systemctl restart nvargus-daemon");
    }

    #[test]
    fn a_webcam_is_no_csi_sensor() {
        let dir = trees::plant(&["orin-nano-jp62", "orin-nano-jp62-loose-sensor"]);
        let context = context(dir.path(), &[]);
        assert!(context.root.has("/dev/video0") && context.root.has("/tmp/argus_socket"));
        assert_eq!(
            csi(&context, 0, &About::one("camera", "door")).message,
            "csi:0: the kernel sees no CSI sensor; check cable and device tree (jetson-io)"
        );
    }
}
