//! Heat of any board, and what a Jetson tells of its supply.

use std::thread;
use std::time::{Duration, Instant};

use crate::board::{Supply, Zone, heat, is_jetson, power as supplied};
use crate::doctor::{About, Context, Finding};

/// Nearer than this to the point where a board slows down, degrees.
const MARGIN: f64 = 5.0;
/// Counters of the power supply are compared over this time: they grow in normal use too.
const LOOK: Duration = Duration::from_secs(1);
const REPAIR: &str = "use a stronger supply, or a lower power mode (nvpmodel)";

pub(super) fn thermal(context: &Context, about: &About) -> Vec<Finding> {
    let root = &context.root;
    let zones = heat::zones(root);
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
    let devices = heat::cooling(root);
    let slowing: Vec<_> = devices.iter().filter(|d| d.slows()).map(|d| format!("{} {}", d.name, d.state)).collect();
    if !slowing.is_empty() {
        found.push(about.warn(format!(
            "the board slows itself down against heat ({}), and kinewatch scores fewer windows meanwhile; cool it, or \
             choose a lower power mode",
            slowing.join(", ")
        )));
    }
    if found.is_empty() {
        found.push(about.ok(format!("{name} is at {now:.0} °C, slows down at {limit:.0} °C")));
    }
    found
}

pub(super) fn power(context: &Context, about: &About) -> Vec<Finding> {
    let root = &context.root;
    if !is_jetson(root) {
        return vec![about.skip("not a Jetson")];
    }
    let begun = Instant::now();
    let before = supplied::supply(root);
    if !before.is_empty() {
        thread::sleep(LOOK);
    }
    let now = supplied::supply(root);
    let mut found = within(&before, &now, begun.elapsed(), about);
    if found.is_empty() {
        found = since_boot(&now, uptime(context), about);
    }
    if found.is_empty() {
        let mode =
            supplied::mode(root).map_or_else(|| "power mode not known".into(), |mode| format!("power mode {mode}"));
        let rails = supplied::rails(root).into_iter().next();
        let rail = rails.map_or_else(String::new, |rail| {
            let amperes = rail.amperes.map_or_else(String::new, |a| format!(", {a:.2} A"));
            format!(", {} at {:.2} V{amperes}", rail.name, rail.volts)
        });
        let holds = if now.is_empty() { "this board does not count over-currents" } else { "the supply holds" };
        found.push(about.ok(format!("{mode}, {holds}{rail}")));
    }
    found
}

/// Too many events while we looked.
fn within(before: &[Supply], now: &[Supply], took: Duration, about: &About) -> Vec<Finding> {
    let rates = supplied::rates(before, now, took.as_secs_f64()).into_iter();
    let excessive = rates.filter(|(event, rate)| *rate > event.tolerable_per_s());
    let told = |(event, rate): (supplied::SupplyEvent, f64)| {
        about.warn(format!("{}, {rate:.0} times a second, and the board slows down each time; {REPAIR}", event.text()))
    };
    excessive.map(told).collect()
}

/// Too many events since the board was started, `uptime` seconds ago.
fn since_boot(now: &[Supply], uptime: Option<f64>, about: &About) -> Vec<Finding> {
    let excessive = now.iter().filter(|supply| {
        let tolerable = supply.event.tolerable_per_s();
        supply.count > 0 && uptime.is_some_and(|s| supply.count as f64 / s.max(1.0) > tolerable)
    });
    let told = |supply: &Supply| {
        let (what, n) = (supply.event.text(), supply.count);
        about.warn(format!("{what}, {n} times since the board was started, not now; {REPAIR}"))
    };
    excessive.map(told).collect()
}

fn uptime(context: &Context) -> Option<f64> {
    context.root.read("/proc/uptime")?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::board::{SupplyEvent, trees};
    use crate::doctor::tests::{context, told};

    #[test]
    fn a_jetson_in_good_health() {
        let dir = trees::plant(&["orin-nano-jp62"]);
        let context = context(dir.path(), &[]);
        assert_eq!(
            told(&thermal(&context, &About::check("thermal"))),
            ["ok tj-thermal is at 53 °C, slows down at 95 °C"]
        );
        assert_eq!(
            told(&power(&context, &About::check("power"))),
            ["ok power mode MAXN_SUPER (2), the supply holds, VDD_IN at 5.06 V, 1.39 A"]
        );
    }

    #[test]
    fn heat_and_a_weak_supply_are_told() {
        let dir = trees::plant(&["orin-nano-jp62"]);
        let context = context(dir.path(), &[]);
        let put = |path, text| fs::write(context.root.at(path), text).unwrap();
        put("/sys/class/thermal/thermal_zone0/temp", "96000\n");
        put("/sys/class/thermal/cooling_device1/cur_state", "2\n");
        let lines = told(&thermal(&context, &About::check("thermal")));
        assert!(
            lines[0].starts_with("warn cpu-thermal is at 96 °C") && lines[1].contains("(cpufreq-cpu0 2)"),
            "{lines:?}"
        );
        let about = About::check("power");
        let before = supplied::supply(&context.root);
        put("/sys/class/hwmon/hwmon2/oc1_event_cnt", "4\n");
        put("/sys/class/hwmon/hwmon2/oc3_event_cnt", "27020\n");
        let now = supplied::supply(&context.root);
        let lines = told(&within(&before, &now, Duration::from_secs(1), &about));
        assert_eq!(lines.len(), 1, "some over-currents are normal: {lines:?}");
        assert!(lines[0].starts_with("warn under-voltage, 4 times a second"), "{lines:?}");
        let lines = told(&since_boot(&now, Some(3600.0), &about));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("warn under-voltage, 4 times since the board was started"), "{lines:?}");
        let many = [Supply { event: SupplyEvent::InstantOverCurrent, count: 100_000 }];
        assert_eq!(since_boot(&many, Some(3600.0), &about).len(), 1);
        assert_eq!(since_boot(&many, Some(36_000.0), &about).len(), 0);
    }

    #[test]
    fn other_machines_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(dir.path(), &[]);
        assert_eq!(told(&power(&context, &About::check("power"))), ["skip not a Jetson"]);
        assert!(told(&thermal(&context, &About::check("thermal")))[0].starts_with("skip"));
    }
}
