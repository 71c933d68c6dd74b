//! Steps of the running service: what it may, what it keeps to itself, and what systemd does when it is hurt.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Bench;
use crate::container::Container;
use crate::service::{Journal, main_pid, page, property, property_with, restarts, seconds};
use crate::site::{CONFIG, DROP_INS, EXAMPLES, PASSWORDS, Site, drop_in};
use crate::support::check::{Checker, Closure};
use crate::support::{Process, Stream};

/// `WatchdogSec=` of the unit, and what systemd and the start may take.
const WATCHED: Duration = Duration::from_secs(30 + 5);
/// What a stop may take.
const STOP: Duration = Duration::from_secs(5);

pub(crate) fn configure(b: &mut Bench) -> String {
    let mut site = Site::start(&b.container);
    b.container.run(&["systemctl", "restart", "kinewatch"]);
    let ended = site.event("front", "ended");
    assert_eq!(ended["data"]["end_reason"], "boundary", "{ended}");
    b.site = Some(site);
    let c = &b.container;
    let status = property_with(c, "StatusText", "watching 2 cameras");
    b.keep("configured.txt", &c.run(&["systemctl", "status", "--no-pager", "--full", "kinewatch"]));
    format!("an action of the RTSP camera, begun and ended; \"{status}\"")
}

/// A camera more, then a mistake: neither is a restart.
pub(crate) fn reload(b: &mut Bench) -> String {
    let c = &b.container;
    let (good, pid) = (c.run(&["cat", CONFIG]), main_pid(c));
    let more = format!("{good}\n[[camera]]\nname = \"yard\"\nsource = \"test:white?size=160x120&fps=10\"\n");
    c.write(CONFIG, &more);
    c.run(&["systemctl", "reload", "kinewatch"]);
    b.site().event("yard", "started");
    let c = &b.container;
    c.write(CONFIG, &format!("{more}sorce = \"test:\"\n"));
    assert!(!c.attempt(&["systemctl", "reload", "kinewatch"]).status.success(), "systemctl tells of the mistake");
    c.write(CONFIG, &good);
    c.run(&["systemctl", "reload", "kinewatch"]);
    b.site().event("yard", "ended");
    assert_eq!((main_pid(&b.container), property(&b.container, "ActiveState")), (pid, "active".into()));
    "a camera more watches at once, a mistake is refused, the process is the same".into()
}

pub(crate) fn secrets(b: &mut Bench) -> String {
    let c = &b.container;
    let credential = "/run/credentials/kinewatch.service/mqtt-password";
    assert_eq!(c.run(&["stat", "--format=%U %a", credential]).trim(), "kinewatch 400");
    for file in [credential, "/etc/kinewatch/credentials/mqtt-password"] {
        let output = c.attempt(&["setpriv", "--reuid=nobody", "--clear-groups", "cat", file]);
        assert!(!output.status.success(), "{file} can be read by anybody");
    }
    let original =
        c.attempt(&["setpriv", "--reuid=kinewatch", "--clear-groups", "cat", "/etc/kinewatch/credentials/front"]);
    assert!(!original.status.success(), "the file itself is root's");
    let pid = main_pid(c);
    let told = [
        c.run(&["journalctl", "--no-pager"]),
        c.run(&["systemctl", "show", "kinewatch"]),
        page(c, "/status"),
        page(c, "/metrics"),
        c.shell(&format!("tr '\\0' '\\n' </proc/{pid}/environ; tr '\\0' ' ' </proc/{pid}/cmdline")),
        c.shell("find /var/lib/kinewatch /var/cache/kinewatch -type f -exec cat {} +"),
    ];
    for (place, text) in ["journal", "unit", "/status", "/metrics", "process", "state"].iter().zip(told) {
        assert!(text.len() > 50, "{place}: nothing was looked at");
        assert!(PASSWORDS.iter().all(|password| !text.contains(password)), "a password is in {place}");
    }
    assert_eq!(c.run(&["sh", "-c", &format!("awk '/core file/ {{print $5, $6}}' /proc/{pid}/limits")]).trim(), "0 0");
    "mode 400, unreadable to others; not in journal, unit, /status, /metrics, environment, state; no core".into()
}

/// Asked of the kernel, once a second: an answer of EPERM would be the filter's.
pub(crate) fn clock(b: &mut Bench) -> String {
    let c = &b.container;
    let mut trace = c.command("timeout");
    trace.args([
        "10",
        "sh",
        "-c",
        &format!("exec strace -f -qq -e trace=adjtimex,clock_adjtime -p {} 2>&1", main_pid(c)),
    ]);
    let mut calls = Process::start(trace, Stream::Stdout);
    let call = calls.wait_for("a look at the clock", |line| line.contains("adjtime") && line.contains(" = "));
    assert!(!call.contains("EPERM"), "{call}");
    // Let go of the service before it is hurt.
    c.run(&["pkill", "strace"]);
    calls.wait();
    format!("answer{}", call.rsplit_once(" =").map_or("", |(_, answer)| answer))
}

pub(crate) fn stopped(b: &mut Bench) -> String {
    watchdog(b, "stopped", |c| {
        c.run(&["systemctl", "kill", "--signal=STOP", "--kill-whom=main", "kinewatch"]);
        None
    })
}

/// One thread of the shipped binary is stopped, and only that: what a driver that never answers does.
pub(crate) fn held(b: &mut Bench) -> String {
    let told = watchdog(b, "held", |c| {
        let pid = main_pid(c);
        let thread = c.shell(&format!("grep -lx infer /proc/{pid}/task/*/comm | cut -d/ -f5"));
        let mut holder = c.command("perl");
        holder.args(["/opt/kinewatch-hold.pl", thread.trim()]);
        let mut holder = Process::start(holder, Stream::Stdout);
        holder.wait_for("the thread to be held", |line| line == "held");
        Some(holder)
    });
    let journal = b.seen("held.txt");
    assert!(journal.contains("inference"), "the stage is named: {journal}");
    told
}

/// Hurts the service while an action is open, and waits for systemd and for the event that ends the action. What `hurt`
/// gives back lives until then.
fn watchdog(b: &mut Bench, name: &str, hurt: fn(&Container) -> Option<Process>) -> String {
    let open = open_action(b.site());
    let c = &b.container;
    let (before, pid) = (restarts(c), main_pid(c));
    let mut journal = Journal::from_here(c, "--unit=kinewatch");
    let begun = Instant::now();
    let _hurting = hurt(c);
    journal.wait_for("Watchdog ");
    let noticed = begun.elapsed();
    journal.wait_for("Started kinewatch.service");
    let took = begun.elapsed();
    assert!(took <= WATCHED, "started again after {took:?}");
    assert_eq!((restarts(c), property(c, "ActiveState")), (before + 1, "active".into()));
    assert_ne!(main_pid(c), pid);
    b.keep(&format!("{name}.txt"), &journal.read(c));
    recovered(b.site(), &open);
    format!(
        "noticed after {}, watching again after {}; the open action ended with `recovered`",
        seconds(noticed),
        seconds(took)
    )
}

pub(crate) fn killed(b: &mut Bench) -> String {
    let open = open_action(b.site());
    let c = &b.container;
    let mut journal = Journal::from_here(c, "--unit=kinewatch");
    let begun = Instant::now();
    c.run(&["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "kinewatch"]);
    journal.wait_for("Started kinewatch.service");
    let took = begun.elapsed();
    assert!(took <= STOP, "started again after {took:?}");
    recovered(b.site(), &open);
    format!("watching again after {}; the open action ended with `recovered`", seconds(took))
}

/// Of the camera that shows white for ever: the action that goes on now.
fn open_action(site: &mut Site) -> Value {
    let of_hall = |topic: &str, e: &Value| topic.contains("/evt/hall/") && e["data"]["status"] != "ended";
    site.lines();
    site.message("an open action", of_hall)["data"]["action_id"].clone()
}

fn recovered(site: &mut Site, action: &Value) {
    let end = site.message("the end of the open action", |_, e| {
        e["data"]["action_id"] == *action && e["data"]["status"] == "ended"
    });
    assert_eq!(end["data"]["end_reason"], "recovered", "{end}");
}

pub(crate) fn rtsp_only(b: &mut Bench) -> String {
    let c = &b.container;
    drop_in(c, "rtsp-only.conf");
    c.run(&["systemctl", "restart", "kinewatch"]);
    let moved = c.run(&["readlink", "-f", "/var/lib/kinewatch"]);
    assert_eq!(moved.trim(), "/var/lib/private/kinewatch");
    b.site().event("front", "ended");
    let doctor = b.container.attempt(&["kinewatch", "doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let permissions: Vec<_> = said.lines().filter(|line| line.contains("permissions")).collect();
    assert!(!permissions.is_empty() && permissions.iter().all(|line| !line.starts_with("fail")), "{said}");
    b.container.run(&["rm", &format!("{DROP_INS}/rtsp-only.conf")]);
    "events of the RTSP camera; state moved to /var/lib/private and the sequence went on; doctor finds it right".into()
}

pub(crate) fn csi(b: &mut Bench) -> String {
    let c = &b.container;
    drop_in(c, "csi-cameras.conf");
    c.run(&["systemctl", "restart", "kinewatch"]);
    c.write("/tmp/argus_socket", "");
    let pid = main_pid(c);
    c.run(&["ls", &format!("/proc/{pid}/root/tmp/argus_socket")]);
    assert_eq!(c.run(&["readlink", "-f", "/var/lib/kinewatch"]).trim(), "/var/lib/kinewatch", "state moved back");
    b.site().event("front", "ended");
    b.container.run(&["rm", &format!("{DROP_INS}/csi-cameras.conf")]);
    b.container.run(&["systemctl", "daemon-reload"]);
    "sees /tmp/argus_socket; state moved back and the sequence went on".into()
}

pub(crate) fn misconfigured(b: &mut Bench) -> String {
    let c = &b.container;
    drop_in(c, "on-failure.conf");
    c.run(&["cp", &format!("{EXAMPLES}/kinewatch-failure@.service"), "/etc/systemd/system/"]);
    c.run(&["systemctl", "daemon-reload"]);
    let good = c.run(&["cat", CONFIG]);
    c.write(CONFIG, &format!("{good}sorce = \"test:\"\n"));
    let mut alarm = Journal::from_here(c, "--identifier=kinewatch-failure");
    let output = c.attempt(&["systemctl", "restart", "kinewatch"]);
    assert!(!output.status.success(), "systemctl tells it");
    let said = alarm.wait_for("kinewatch.service is down on");
    assert_eq!((property(c, "ActiveState"), property(c, "ExecMainStatus")), ("failed".into(), "78".into()));
    let journal = c.run(&["journalctl", "--no-pager", "--unit=kinewatch", "--lines=30"]);
    assert!(journal.contains("did you mean `source`?"), "{journal}");
    c.write(CONFIG, &good);
    c.run(&["systemctl", "restart", "kinewatch"]);
    format!("exit 78, not started again, the line and key in the journal; alarm: \"{said}\"")
}

/// Stops it with an action open, and looks at everything that was published since the first start.
pub(crate) fn stop(b: &mut Bench) -> String {
    let open = open_action(b.site());
    let begun = Instant::now();
    b.container.run(&["systemctl", "stop", "kinewatch"]);
    let took = begun.elapsed();
    assert!(took <= STOP, "{took:?}");
    assert_eq!(property(&b.container, "Result"), "success");
    let end = b
        .site()
        .message("the end of the open action", |_, e| e["data"]["action_id"] == open && e["data"]["status"] == "ended");
    assert_eq!(end["data"]["end_reason"], "shutdown", "{end}");
    b.site().message("the farewell", |topic, status| topic.ends_with("/status") && status["state"] == "stopped");
    let mut checker = Checker::default();
    b.site().lines().iter().for_each(|line| checker.line(line));
    let verdict = checker.verdict(Closure::Required);
    verdict.assert_kept();
    assert_eq!(verdict.holes, 0, "{verdict:?}");
    let (events, actions) = (verdict.messages - verdict.duplicates, verdict.actions);
    format!(
        "in {}; since the first start {events} events of {actions} actions, none missing, each ended",
        seconds(took)
    )
}
