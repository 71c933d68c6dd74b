//! `kinewatch devices`: cameras connected to this machine.

use super::{DevicesArgs, Outcome};

#[cfg(feature = "v4l")]
pub(super) fn run(args: &DevicesArgs) -> Outcome {
    use serde_json::json;

    let devices = kinewatch_capture::devices();
    if args.json {
        let size = |s: &kinewatch_capture::DeviceSize| json!({ "size": format!("{}x{}", s.width, s.height), "fps": rates(&s.rates) });
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
            lines.push(format!("    {}  {}  {}", f.fourcc, f.description, f.modes()));
        }
    }
    super::print(&lines.join("\n"))
}

/// Each rate, the ends of a range, or null where the driver does not tell.
#[cfg(feature = "v4l")]
fn rates(rates: &kinewatch_capture::Rates) -> serde_json::Value {
    use kinewatch_capture::{Rate, Rates};
    use serde_json::json;

    let rounded = |rate: &Rate| (rate.per_second() * 100.0).round() / 100.0;
    match rates {
        Rates::Unknown => json!(null),
        Rates::Each(rates) => json!(rates.iter().map(rounded).collect::<Vec<_>>()),
        Rates::Between { slowest, fastest } => json!({ "from": rounded(slowest), "to": rounded(fastest) }),
    }
}

#[cfg(not(feature = "v4l"))]
pub(super) fn run(_args: &DevicesArgs) -> Outcome {
    Err(super::Failure::say(
        "this kinewatch was built without the feature v4l and cannot list cameras; v4l2: sources work all the same",
    ))
}

#[cfg(all(test, feature = "v4l"))]
mod tests {
    use kinewatch_capture::{Rate, Rates};
    use serde_json::json;

    use super::rates;

    #[test]
    fn rates_are_numbers_a_range_or_nothing() {
        let rate = |frames, seconds| Rate { frames, seconds };
        assert_eq!(rates(&Rates::Each(vec![rate(30_000, 1001), rate(15, 2)])), json!([29.97, 7.5]));
        let between = Rates::Between { slowest: rate(1, 1), fastest: rate(60, 1) };
        assert_eq!(rates(&between), json!({ "from": 1.0, "to": 60.0 }));
        assert_eq!(rates(&Rates::Unknown), json!(null));
    }
}
