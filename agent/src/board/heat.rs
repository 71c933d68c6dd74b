//! Thermal zones and cooling devices, as `/sys/class/thermal` has them.

use crate::root::Root;

const FOLDER: &str = "/sys/class/thermal";
/// Zones and devices that are looked at, at most.
const MOST: usize = 64;
/// Where a zone names no point at which the board slows down, degrees.
const USUAL_LIMIT: f64 = 95.0;
/// Parts of the names of what takes speed away. Other devices are fans (ACPI's are named like `TFN1`), the backlight (`LCD`),
/// radios, batteries, warnings of a hot surface, and settings that are only shown.
const SLOWING: [&str; 8] =
    ["cpufreq", "processor", "powerclamp", "devfreq", "gpu", "throttle-alert", "balanced", "heavy"];

/// One thermal zone, degrees Celsius.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// Such as `cpu-thermal`.
    pub name: String,
    /// Temperature.
    pub now: f64,
    /// Where the board begins to slow down.
    pub limit: f64,
}

/// Something that cools.
#[derive(Clone, Debug, PartialEq)]
pub struct Cooling {
    /// Such as `cpufreq-cpu0` or `pwm-fan`.
    pub name: String,
    /// 0 while it does nothing.
    pub state: i64,
}

impl Cooling {
    /// Whether it takes speed away now. What is not known to does not: an ordinary computer would be spared for a dimmed display.
    #[must_use]
    pub fn slows(&self) -> bool {
        let name = self.name.to_lowercase();
        self.state > 0 && SLOWING.iter().any(|part| name.contains(part))
    }
}

/// Zones that give a temperature.
#[must_use]
pub fn zones(root: &Root) -> Vec<Zone> {
    let names = root.names(FOLDER, "thermal_zone");
    let found = names.iter().filter_map(|zone| read_zone(root, zone)).take(MOST);
    super::distinct(found.collect(), |zone| &mut zone.name)
}

fn read_zone(root: &Root, zone: &str) -> Option<Zone> {
    let file = |name: &str| format!("{FOLDER}/{zone}/{name}");
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

/// Cooling devices that say what they do.
#[must_use]
pub fn cooling(root: &Root) -> Vec<Cooling> {
    let read = |device: &String| {
        let name = root.read(format!("{FOLDER}/{device}/type"))?;
        Some(Cooling { name, state: root.number(format!("{FOLDER}/{device}/cur_state"))? })
    };
    let found = root.names(FOLDER, "cooling_device").iter().filter_map(read).take(MOST).collect();
    super::distinct(found, |device| &mut device.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::trees;

    #[test]
    fn zones_that_are_switched_off_are_passed_over() {
        let dir = trees::plant(&["orin-nano-jp62"]);
        let root = Root::below(dir.path());
        let zones = zones(&root);
        let names: Vec<&str> = zones.iter().map(|z| z.name.as_str()).collect();
        assert!(names.contains(&"cpu-thermal") && names.contains(&"tj-thermal"), "{names:?}");
        assert!(!names.contains(&"cv0-thermal"), "its temp cannot be read");
        assert!(!names.contains(&"cv1-thermal"), "its temp cannot be");
        assert_eq!(zones[0], Zone { name: "cpu-thermal".into(), now: 52.3, limit: 99.0 });
    }

    #[test]
    fn fans_and_warnings_take_no_speed_away() {
        let slows = |name: &str, state| Cooling { name: name.into(), state }.slows();
        assert!(slows("cpufreq-cpu0", 2) && slows("17000000.gpu", 1) && slows("cpu-throttle-alert", 1));
        assert!(!slows("cpufreq-cpu0", 0) && !slows("intel_powerclamp", -1));
        assert!(slows("Processor", 3) && slows("devfreq-17000000.gpu", 1) && slows("cpu-balanced", 1));
        assert!(!slows("pwm-fan", 3) && !slows("Fan", 1) && !slows("hot-surface-alert", 1) && !slows("TCC Offset", 10));
        assert!(
            !slows("LCD", 7) && !slows("TFN1", 2) && !slows("iwlwifi_1", 5),
            "an ordinary computer is not hot by them"
        );
    }
}
