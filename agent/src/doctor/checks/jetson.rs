//! Heat of any board, and what a Jetson tells of its power: mode, over-current and under-voltage, as sysfs has them.
//!
//! Only files are read: `tegrastats` is text that changes with every release, and `nvpmodel` needs root. Hardware monitors
//! are found by their name, since their numbers change from boot to boot.

use std::thread;
use std::time::Duration;

use crate::doctor::root::Root;
use crate::doctor::{About, Context, Finding};

const ZONES: &str = "/sys/class/thermal";
const MONITORS: &str = "/sys/class/hwmon";
/// Nearer than this to the point where a board slows down, degrees.
const MARGIN: f64 = 5.0;
/// Where a zone names no such point, degrees.
const USUAL_LIMIT: f64 = 95.0;
/// Counters of the power supply are compared over this time: they grow in normal use too.
const LOOK: Duration = Duration::from_secs(1);

/// What the board calls itself.
pub(in crate::doctor) fn board(root: &Root) -> Option<String> {
    root.read("/proc/device-tree/model").filter(|model| !model.is_empty())
}

pub(super) fn is_jetson(root: &Root) -> bool {
    root.has("/etc/nv_tegra_release") || board(root).is_some_and(|model| model.contains("Jetson"))
}

/// One thermal zone, degrees Celsius.
struct Zone {
    name: String,
    now: f64,
    limit: f64,
}

pub(super) fn thermal(context: &Context, about: &About) -> Vec<Finding> {
    let root = &context.root;
    let zones: Vec<Zone> = root.names(ZONES, "thermal_zone").iter().filter_map(|zone| read_zone(root, zone)).collect();
    let Some(hottest) = zones.iter().max_by(|a, b| (a.now - a.limit).total_cmp(&(b.now - b.limit))) else {
        return vec![about.skip("this machine does not tell its temperature")];
    };
    let Zone { name, now, limit } = hottest;
    let mut found = Vec::new();
    if now + MARGIN >= *limit {
        found.push(about.warn(format!(
            "{name} is at {now:.0} °C, and slows down at {limit:.0} °C; is the fan running, and the case open?"
        )));
    }
    let slowing = root.names(ZONES, "cooling_device").into_iter().filter_map(|device| slows(root, &device));
    let slowing: Vec<String> = slowing.collect();
    if !slowing.is_empty() {
        found.push(about.warn(format!(
            "the board slows itself down against heat ({}); cool it, or choose a lower power mode",
            slowing.join(", ")
        )));
    }
    if found.is_empty() {
        found.push(about.ok(format!("{name} is at {now:.0} °C, slows down at {limit:.0} °C")));
    }
    found
}

fn read_zone(root: &Root, zone: &str) -> Option<Zone> {
    let file = |name: &str| format!("{ZONES}/{zone}/{name}");
    // Zones of blocks that are switched off give an error, or a number that cannot be.
    let degrees =
        |name: &str| root.number(file(name)).map(|milli| milli as f64 / 1000.0).filter(|t| (-40.0..=200.0).contains(t));
    let now = degrees("temp")?;
    let slows = |point: &usize| {
        matches!(root.read(file(&format!("trip_point_{point}_type"))).as_deref(), Some("passive" | "hot" | "critical"))
    };
    let points =
        (0..16).filter(slows).filter_map(|point| degrees(&format!("trip_point_{point}_temp"))).filter(|t| *t > 0.0);
    let limit = points.min_by(f64::total_cmp).unwrap_or(USUAL_LIMIT);
    Some(Zone { name: root.read(file("type")).unwrap_or_else(|| zone.to_owned()), now, limit })
}

/// A cooling device that takes speed away; fans do not.
fn slows(root: &Root, device: &str) -> Option<String> {
    let kind = root.read(format!("{ZONES}/{device}/type"))?;
    let fan = kind.to_lowercase().contains("fan");
    let state = root.number(format!("{ZONES}/{device}/cur_state")).filter(|n| *n > 0 && !fan)?;
    Some(format!("{kind} {state}"))
}

pub(super) fn power(context: &Context, about: &About) -> Vec<Finding> {
    let root = &context.root;
    if !is_jetson(root) {
        return vec![about.skip("not a Jetson")];
    }
    let before = counters(root);
    if !before.is_empty() {
        thread::sleep(LOOK);
    }
    let mut found = judge(&before, &counters(root), about);
    if found.is_empty() {
        let mode = mode(root).map_or_else(|| "power mode not known".into(), |mode| format!("power mode {mode}"));
        found.push(about.ok(format!("{mode}, the supply holds")));
    }
    found
}

/// Events of the over-current circuit since the board booted: what each counter means, and its value.
fn counters(root: &Root) -> Vec<(&'static str, i64)> {
    let monitors = root.names(MONITORS, "hwmon");
    let ours = monitors.iter().find(|m| root.read(format!("{MONITORS}/{m}/name")).as_deref() == Some("soctherm_oc"));
    let Some(monitor) = ours else { return Vec::new() };
    let known = [("oc1", "under-voltage"), ("oc2", "average over-current"), ("oc3", "instantaneous over-current")];
    let read = |(file, meaning)| Some((meaning, root.number(format!("{MONITORS}/{monitor}/{file}_event_cnt"))?));
    known.into_iter().filter_map(read).collect()
}

fn judge(before: &[(&str, i64)], after: &[(&str, i64)], about: &About) -> Vec<Finding> {
    let grown = before.iter().zip(after).map(|((what, old), (_, new))| (what, new - old)).filter(|(_, n)| *n > 0);
    grown
        .map(|(what, n)| {
            about.warn(format!("{what}, {n} times within a second, and the board slows down each time; use a stronger supply, or a lower power mode (nvpmodel)"))
        })
        .collect()
}

/// The power mode and its name: `MAXN_SUPER (2)`.
fn mode(root: &Root) -> Option<String> {
    let id: u32 = root.read("/var/lib/nvpmodel/status")?.split(':').nth(1)?.trim().parse().ok()?;
    // `< POWER_MODEL ID=2 NAME=MAXN_SUPER >`
    let table = root.read("/etc/nvpmodel.conf").unwrap_or_default();
    let name = table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
        (words.contains(&"POWER_MODEL") && value("ID=")?.parse() == Ok(id)).then(|| value("NAME="))?
    });
    Some(name.map_or_else(|| id.to_string(), |name| format!("{name} ({id})")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::doctor::tests::{context, told};

    const TREE: &[(&str, &str)] = &[
        ("/proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0"),
        ("/sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
        ("/sys/class/thermal/thermal_zone0/temp", "61500\n"),
        ("/sys/class/thermal/thermal_zone0/trip_point_0_type", "active\n"),
        ("/sys/class/thermal/thermal_zone0/trip_point_0_temp", "40000\n"),
        ("/sys/class/thermal/thermal_zone0/trip_point_1_type", "passive\n"),
        ("/sys/class/thermal/thermal_zone0/trip_point_1_temp", "99000\n"),
        ("/sys/class/thermal/thermal_zone1/type", "cv0-thermal\n"),
        ("/sys/class/thermal/thermal_zone1/temp", "-256000\n"),
        ("/sys/class/thermal/cooling_device0/type", "pwm-fan\n"),
        ("/sys/class/thermal/cooling_device0/cur_state", "3\n"),
        ("/sys/class/thermal/cooling_device1/type", "cpufreq-cpu0\n"),
        ("/sys/class/thermal/cooling_device1/cur_state", "0\n"),
        ("/sys/class/hwmon/hwmon0/name", "ina3221\n"),
        ("/sys/class/hwmon/hwmon3/name", "soctherm_oc\n"),
        ("/sys/class/hwmon/hwmon3/oc1_event_cnt", "0\n"),
        ("/sys/class/hwmon/hwmon3/oc2_event_cnt", "17\n"),
        ("/sys/class/hwmon/hwmon3/oc3_event_cnt", "27000\n"),
        ("/var/lib/nvpmodel/status", "pmode:0002\n"),
        ("/etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"),
    ];

    #[test]
    fn a_jetson_in_good_health() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(dir.path(), TREE);
        assert_eq!(board(&context.root).unwrap(), "NVIDIA Jetson Orin Nano Developer Kit");
        assert_eq!(
            told(&thermal(&context, &About::check("thermal"))),
            ["ok cpu-thermal is at 62 °C, slows down at 99 °C"]
        );
        assert_eq!(told(&power(&context, &About::check("power"))), ["ok power mode MAXN_SUPER (2), the supply holds"]);
    }

    #[test]
    fn heat_and_a_weak_supply_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(dir.path(), TREE);
        let put = |path, text| fs::write(context.root.at(path), text).unwrap();
        put("/sys/class/thermal/thermal_zone0/temp", "96000\n");
        put("/sys/class/thermal/cooling_device1/cur_state", "2\n");
        let lines = told(&thermal(&context, &About::check("thermal")));
        assert!(
            lines[0].starts_with("warn cpu-thermal is at 96 °C") && lines[1].contains("(cpufreq-cpu0 2)"),
            "{lines:?}"
        );
        let before = counters(&context.root);
        put("/sys/class/hwmon/hwmon3/oc1_event_cnt", "4\n");
        let lines = told(&judge(&before, &counters(&context.root), &About::check("power")));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("warn under-voltage, 4 times within a second"), "{lines:?}");
    }

    #[test]
    fn other_machines_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(dir.path(), &[]);
        assert_eq!(told(&power(&context, &About::check("power"))), ["skip not a Jetson"]);
        assert!(told(&thermal(&context, &About::check("thermal")))[0].starts_with("skip"));
    }
}
