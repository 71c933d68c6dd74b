//! The service under systemd: does it run, since when without a fall, and is it what is installed.

use std::fs;
use std::path::Path;

use crate::board::is_jetson;
use crate::doctor::root::Root;
use crate::doctor::unit::{NAME, Properties, Unit};
use crate::doctor::{About, Context, Finding};

/// Leaves devices to the permissions of their files.
const DROP_IN: &str = "/usr/share/doc/kinewatch/examples/systemd/jetson.conf";

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    match &context.unit {
        Unit::NoSystemd => vec![about.skip("systemd does not run this machine")],
        Unit::Unknown(reason) => vec![about.warn(format!("systemd does not tell: {reason}; systemctl status {NAME}"))],
        Unit::Absent => vec![about.skip(format!("{NAME} is not installed"))],
        Unit::Known(unit) => {
            let mut found = vec![state(unit, about)];
            found.extend(around(unit, about));
            found.extend(devices(&context.root, unit, about));
            found.extend(config(unit, &context.config.path, about));
            found.extend(replaced(context, unit, about));
            found
        }
    }
}

fn state(unit: &Properties, about: &About) -> Finding {
    let boot = if matches!(unit.text("UnitFileState"), "enabled" | "enabled-runtime" | "static") {
        ""
    } else {
        ", but not started at boot; systemctl enable kinewatch"
    };
    let restarts = unit.number("NRestarts").unwrap_or(0);
    match (unit.text("LoadState"), unit.text("ActiveState")) {
        ("masked", _) => about.warn(format!("{NAME} is masked; systemctl unmask kinewatch")),
        ("error" | "bad-setting", _) => {
            about.fail(format!("{NAME} cannot be read by systemd; systemd-analyze verify {NAME}"))
        }
        (_, "active") if restarts > 0 => {
            about.warn(format!("runs, after {restarts} restarts{boot}; journalctl -u kinewatch tells why"))
        }
        (_, "active") if !boot.is_empty() => about.warn(format!("runs{boot}")),
        (_, "active") => {
            let words = unit.text("StatusText");
            about.ok(if words.is_empty() {
                "runs, and starts at boot".into()
            } else {
                format!("runs, and starts at boot: {words}")
            })
        }
        (_, "activating") if unit.text("SubState") == "auto-restart" => {
            about.fail(format!("keeps ending: {}", reason(unit)))
        }
        (_, "activating") => {
            let words = unit.text("StatusText");
            about.warn(format!(
                "is starting{}; journalctl -u kinewatch follows it",
                if words.is_empty() { String::new() } else { format!(" ({words})") }
            ))
        }
        (_, "failed") => about.fail(format!("does not run: {}", reason(unit))),
        (_, "deactivating") => about.warn("is stopping; systemctl status kinewatch"),
        _ if boot.is_empty() => about.warn("does not run; systemctl start kinewatch"),
        _ => about.warn("does not run, nor start at boot; systemctl enable --now kinewatch"),
    }
}

/// Why it ended, and what to do.
fn reason(unit: &Properties) -> String {
    let status = unit.text("ExecMainStatus");
    match (unit.text("Result"), status) {
        ("watchdog", _) => {
            "it made no progress and was ended by the watchdog; journalctl -u kinewatch names the stage".into()
        }
        ("oom-kill", _) => "it was killed for its memory; see memory".into(),
        ("start-limit-hit", _) => {
            "it ended too often; mend what the other lines tell, then systemctl reset-failed kinewatch".into()
        }
        ("timeout", _) => "it was not ready in time; journalctl -u kinewatch tells how far it came".into(),
        ("exit-code", "78") => "its configuration cannot be used; see config".into(),
        ("exit-code", "216" | "217") => "its user or a group does not exist; systemd-sysusers kinewatch.conf".into(),
        ("exit-code", "243") => "a file of LoadCredential= cannot be read; systemctl cat kinewatch names them".into(),
        ("exit-code", "203") => "its program cannot be run; reinstall kinewatch".into(),
        ("exit-code", code) => format!("it ended with status {code}; journalctl -u kinewatch tells why"),
        ("signal" | "core-dump", signal) => {
            format!("it was killed by signal {signal}; journalctl -u kinewatch tells more")
        }
        (result, _) => format!("{result}; journalctl -u kinewatch tells more"),
    }
}

/// What is wrong around a service, whether it runs or not.
fn around(unit: &Properties, about: &About) -> Vec<Finding> {
    let mut found = Vec::new();
    if unit.text("NeedDaemonReload") == "yes" {
        found.push(about.warn(format!("{NAME} was changed and systemd has the old one; systemctl daemon-reload")));
    }
    if matches!(unit.text("WatchdogUSec"), "0" | "infinity") {
        found.push(about.warn("has no WatchdogSec=, so nobody notices when it hangs; take the line over from the unit that comes with kinewatch"));
    }
    found
}

/// A list of devices is no promise on a Jetson: drivers name theirs differently from release to release. A service that asks
/// for no devices at all (`rtsp-only.conf`) is left alone.
fn devices(root: &Root, unit: &Properties, about: &About) -> Option<Finding> {
    let policy = unit.text("DevicePolicy");
    let listed = matches!(policy, "closed" | "strict") && unit.text("PrivateDevices") != "yes";
    (listed && is_jetson(root)).then(|| {
        about.warn(format!(
            "may open only the devices that its unit lists (DevicePolicy={policy}), which may lack this Jetson's GPU or \
             decoders; install -D -m 644 {DROP_IN} /etc/systemd/system/{NAME}.d/jetson.conf && systemctl daemon-reload \
             && systemctl restart kinewatch"
        ))
    })
}

fn config(unit: &Properties, asked: &Path, about: &About) -> Option<Finding> {
    let of_service = unit.config()?;
    let same =
        |a: &Path, b: &Path| a == b || fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b));
    (!same(&of_service, asked)).then(|| {
        about.warn(format!(
            "it uses {0}, not the configuration looked at here; kinewatch doctor --config {0}",
            of_service.display()
        ))
    })
}

/// After an upgrade the old program goes on until it is restarted; its file is gone.
fn replaced(context: &Context, unit: &Properties, about: &About) -> Option<Finding> {
    let program = fs::read_link(context.root.at(format!("/proc/{}/exe", unit.pid()?))).ok()?;
    program
        .to_string_lossy()
        .ends_with(" (deleted)")
        .then(|| about.warn("an older kinewatch runs than the one that is installed; systemctl restart kinewatch"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::trees;
    use crate::doctor::tests::{context, told};
    use crate::doctor::unit::tests::RUNNING;

    fn lines(changes: &[(&str, &str)]) -> Vec<String> {
        let text: String = RUNNING
            .lines()
            .map(|line| {
                let name = line.split_once('=').unwrap().0;
                let value = changes.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
                value.map_or_else(|| format!("{line}\n"), |value| format!("{name}={value}\n"))
            })
            .collect();
        let unit = Unit::parse(&text);
        let dir = tempfile::tempdir().unwrap();
        let mut context = context(dir.path(), &[]);
        context.config.path = "/etc/kinewatch/kinewatch.toml".into();
        context.unit = unit;
        told(&check(&context, &About::check("service")))
    }

    #[test]
    fn a_list_of_devices_is_told_on_a_jetson_alone() {
        let said = |trees: &[&str], properties: &str| {
            let dir = trees::plant(trees);
            let mut context = context(dir.path(), &[]);
            context.config.path = "/etc/kinewatch/kinewatch.toml".into();
            context.unit = Unit::parse(&format!("{RUNNING}{properties}"));
            told(&check(&context, &About::check("service"))).split_off(1)
        };
        for (tree, policy) in [("orin-nano-jp62", "closed"), ("orin-nano-jp62", "strict"), ("thor-jp7", "closed")] {
            assert_eq!(
                said(&[tree], &format!("DevicePolicy={policy}\nPrivateDevices=no\n")),
                [format!(
                    "warn may open only the devices that its unit lists (DevicePolicy={policy}), which may lack this \
                     Jetson's GPU or decoders; install -D -m 644 \
                     /usr/share/doc/kinewatch/examples/systemd/jetson.conf \
                     /etc/systemd/system/kinewatch.service.d/jetson.conf && systemctl daemon-reload && systemctl \
                     restart kinewatch"
                )]
            );
        }
        assert_eq!(said(&["orin-nano-jp62"], "DevicePolicy=auto\nPrivateDevices=no\n"), [""; 0], "with jetson.conf");
        assert_eq!(said(&["orin-nano-jp62"], "DevicePolicy=closed\nPrivateDevices=yes\n"), [""; 0], "rtsp-only.conf");
        assert_eq!(said(&[], "DevicePolicy=closed\nPrivateDevices=no\n"), [""; 0], "not a Jetson");
    }

    #[test]
    fn the_drop_in_that_is_named_is_there_and_lifts_the_list() {
        let name = Path::new(DROP_IN).file_name().unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/examples").join(name);
        assert!(fs::read_to_string(file).unwrap().contains("\nDevicePolicy=auto\nDeviceAllow=\n"));
    }

    #[test]
    fn every_state_says_what_to_do() {
        assert_eq!(lines(&[]), ["ok runs, and starts at boot: watching 2 cameras"]);
        let failed = |result, status| {
            lines(&[("ActiveState", "failed"), ("Result", result), ("ExecMainStatus", status)]).remove(0)
        };
        let cases = [
            ("restarted", lines(&[("NRestarts", "3")]).remove(0), "warn runs, after 3 restarts; journalctl"),
            ("not at boot", lines(&[("UnitFileState", "disabled")]).remove(0), "warn runs, but not started at boot"),
            (
                "stopped",
                lines(&[("ActiveState", "inactive"), ("UnitFileState", "disabled")]).remove(0),
                "warn does not run, nor start at boot",
            ),
            ("watchdog", failed("watchdog", "6"), "fail does not run: it made no progress"),
            ("configuration", failed("exit-code", "78"), "fail does not run: its configuration"),
            ("signal", failed("signal", "11"), "fail does not run: it was killed by signal 11"),
            ("too often", failed("start-limit-hit", "1"), "fail does not run: it ended too often"),
            ("masked", lines(&[("LoadState", "masked")]).remove(0), "warn kinewatch.service is masked"),
            (
                "again and again",
                lines(&[
                    ("ActiveState", "activating"),
                    ("SubState", "auto-restart"),
                    ("Result", "exit-code"),
                    ("ExecMainStatus", "1"),
                ])
                .remove(0),
                "fail keeps ending: it ended with status 1",
            ),
        ];
        for (what, line, begin) in cases {
            assert!(line.starts_with(begin), "{what}: {line}");
        }
        let around = lines(&[
            ("NeedDaemonReload", "yes"),
            ("WatchdogUSec", "0"),
            ("ExecStart", "{ argv[]=/usr/bin/kinewatch run --config /srv/other.toml ; }"),
        ]);
        assert!(
            around[1].contains("daemon-reload")
                && around[2].contains("WatchdogSec")
                && around[3].contains("/srv/other.toml"),
            "{around:?}"
        );
    }
}
