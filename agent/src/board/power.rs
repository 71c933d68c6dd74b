//! Power mode, events of the over-current circuit, and rails. Hardware monitors are found by their name, since their numbers
//! change from boot to boot.

use crate::root::Root;

const MONITORS: &str = "/sys/class/hwmon";
/// Rails that are looked at, at most.
const MOST: usize = 16;

/// Events of the supply that make the board slow down for a moment, since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supply {
    /// What happened.
    pub event: SupplyEvent,
    /// How often.
    pub count: i64,
}

/// What the over-current circuit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SupplyEvent {
    /// The voltage fell too low: the supply is too weak.
    UnderVoltage,
    /// The current averaged too high.
    AverageOverCurrent,
    /// The current was too high for an instant.
    InstantOverCurrent,
}

impl SupplyEvent {
    /// Every event with its file.
    const FILES: [(Self, &'static str); 3] = [
        (Self::UnderVoltage, "oc1_event_cnt"),
        (Self::AverageOverCurrent, "oc2_event_cnt"),
        (Self::InstantOverCurrent, "oc3_event_cnt"),
    ];

    /// In words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::UnderVoltage => "under-voltage",
            Self::AverageOverCurrent => "average over-current",
            Self::InstantOverCurrent => "instantaneous over-current",
        }
    }

    /// As a label of metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::UnderVoltage => "under_voltage",
            Self::AverageOverCurrent => "average_over_current",
            Self::InstantOverCurrent => "instant_over_current",
        }
    }

    /// More events a second than that mean that the supply, or the power mode, is too small. Over-currents are counted in
    /// normal use of the highest modes too, some a second; under-voltage is never normal.
    #[must_use]
    pub fn tolerable_per_s(self) -> f64 {
        match self {
            Self::UnderVoltage => 0.0,
            Self::AverageOverCurrent | Self::InstantOverCurrent => 25.0,
        }
    }
}

/// A supply rail.
#[derive(Clone, Debug, PartialEq)]
pub struct Rail {
    /// Such as `VDD_IN`.
    pub name: String,
    /// Voltage, V.
    pub volts: f64,
    /// Current, A; `None` where it is not measured.
    pub amperes: Option<f64>,
}

/// Events of the over-current circuit.
#[must_use]
pub fn supply(root: &Root) -> Vec<Supply> {
    let Some(monitor) = monitors(root, "soctherm_oc").next() else { return Vec::new() };
    let read =
        |(event, file)| Some(Supply { event, count: root.number(format!("{monitor}/{file}")).filter(|n| *n >= 0)? });
    SupplyEvent::FILES.into_iter().filter_map(read).collect()
}

/// Events a second between two looks `seconds` apart; a counter that has begun anew gives none.
#[must_use]
pub fn rates(before: &[Supply], now: &[Supply], seconds: f64) -> Vec<(SupplyEvent, f64)> {
    let grown = now.iter().filter_map(|now| {
        let before = before.iter().find(|before| before.event == now.event)?;
        let grown = now.count.saturating_sub(before.count).max(0);
        Some((now.event, grown as f64 / seconds.max(1e-3)))
    });
    grown.collect()
}

/// Rails of the power monitors.
#[must_use]
pub fn rails(root: &Root) -> Vec<Rail> {
    let of = |monitor: String| {
        let read = move |n: usize| {
            let name = root.read(format!("{monitor}/in{n}_label")).filter(|name| !name.is_empty())?;
            let milli = |file: String| root.number(format!("{monitor}/{file}")).map(|milli| milli as f64 / 1000.0);
            let volts = milli(format!("in{n}_input"))?;
            Some(Rail { name, volts, amperes: milli(format!("curr{n}_input")) })
        };
        (1..=7).filter_map(read).collect::<Vec<_>>()
    };
    // `in7` and the like are sums of other rails, without a voltage of their own.
    let found = monitors(root, "ina3221").flat_map(of).filter(|rail| !rail.name.contains("sum of")).take(MOST);
    super::distinct(found.collect(), |rail| &mut rail.name)
}

/// Folders of the hardware monitors with this name.
fn monitors<'r>(root: &'r Root, name: &'r str) -> impl Iterator<Item = String> + 'r {
    let folders = root.names(MONITORS, "hwmon").into_iter().map(|monitor| format!("{MONITORS}/{monitor}"));
    folders.filter(move |folder| root.read(format!("{folder}/name")).as_deref() == Some(name))
}

/// The power mode and its name: `MAXN_SUPER (2)`. Mode 0 is not the fastest on every board.
#[must_use]
pub fn mode(root: &Root) -> Option<String> {
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
    use super::*;
    use crate::board::trees;

    #[test]
    fn monitors_are_found_by_their_name() {
        let dir = trees::plant(&["orin-nano-jp62"]);
        let root = Root::below(dir.path());
        let counts: Vec<(&str, i64)> = supply(&root).iter().map(|s| (s.event.label(), s.count)).collect();
        assert_eq!(counts, [("under_voltage", 0), ("average_over_current", 17), ("instant_over_current", 27000)]);
        let rails = rails(&root);
        assert_eq!(rails[0], Rail { name: "VDD_IN".into(), volts: 5.064, amperes: Some(1.392) });
        assert_eq!(rails.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]);
        let dir = trees::plant(&["thor-jp7"]);
        let root = Root::below(dir.path());
        assert!(supply(&root).is_empty(), "no such circuit there");
    }

    #[test]
    fn rates_are_of_what_has_grown() {
        let of = |under, instant| {
            [(SupplyEvent::UnderVoltage, under), (SupplyEvent::InstantOverCurrent, instant)]
                .map(|(event, count)| Supply { event, count })
        };
        let rates = |before: [Supply; 2], now: [Supply; 2]| rates(&before, &now, 2.0).into_iter().map(|(_, n)| n);
        assert_eq!(rates(of(0, 100), of(1, 150)).collect::<Vec<_>>(), [0.5, 25.0]);
        assert_eq!(rates(of(9, 9), of(0, 9)).collect::<Vec<_>>(), [0.0, 0.0]);
    }

    #[test]
    fn a_mode_without_a_name_is_its_number() {
        let dir = trees::plant_text("=== /var/lib/nvpmodel/status\npmode:0007\n");
        let root = Root::below(dir.path());
        assert_eq!(mode(&root).as_deref(), Some("7"));
        let dir = trees::plant_text("=== /var/lib/nvpmodel/status\npmode\n");
        let root = Root::below(dir.path());
        assert_eq!(mode(&root), None);
    }
}
