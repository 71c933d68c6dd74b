//! `kinewatch devices`: cameras connected to this machine.

use super::{DevicesArgs, Outcome};

#[cfg(feature = "v4l")]
pub(super) fn run(args: &DevicesArgs) -> Outcome {
    use serde_json::json;

    let devices = kinewatch_capture::devices();
    if args.json {
        let size = |(w, h): &(u32, u32)| format!("{w}x{h}");
        let format = |f: &kinewatch_capture::DeviceFormat| json!({ "fourcc": f.fourcc, "description": f.description, "sizes": f.sizes.iter().map(size).collect::<Vec<_>>() });
        let device = |d: &kinewatch_capture::Device| {
            let formats: Vec<_> = d.formats.iter().map(format).collect();
            json!({ "path": d.path, "name": d.name, "driver": d.driver, "source": format!("v4l2:{}", d.path.display()), "formats": formats })
        };
        return super::print(&json!(devices.iter().map(device).collect::<Vec<_>>()).to_string());
    }
    if devices.is_empty() {
        eprintln!("kinewatch: no camera found; is one connected, and may this user read /dev/video*? (group video)");
        return Ok(());
    }
    let mut lines = Vec::new();
    for d in &devices {
        lines.push(format!("v4l2:{}  {} ({})", d.path.display(), d.name, d.driver));
        for f in &d.formats {
            let sizes: Vec<String> = f.sizes.iter().map(|(w, h)| format!("{w}x{h}")).collect();
            lines.push(format!("    {}  {}  {}", f.fourcc, f.description, sizes.join(" ")));
        }
    }
    super::print(&lines.join("\n"))
}

#[cfg(not(feature = "v4l"))]
pub(super) fn run(_args: &DevicesArgs) -> Outcome {
    Err(super::Failure::say(
        "this kinewatch was built without the feature v4l and cannot list cameras; v4l2: sources work all the same",
    ))
}
