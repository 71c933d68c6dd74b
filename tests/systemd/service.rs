//! The service as systemd sees it, and its journal.

use std::time::{Duration, Instant};

use crate::container::Container;
use crate::support::{DEADLINE, Process, Stream};

/// What systemd knows of it now.
pub(crate) fn property(c: &Container, name: &str) -> String {
    c.run(&["systemctl", "show", "--property", name, "--value", "kinewatch"]).trim().to_owned()
}

/// Waits until systemd knows it so: the daemon tells its state at most every three seconds.
pub(crate) fn property_with(c: &Container, name: &str, wanted: &str) -> String {
    let end = Instant::now() + DEADLINE;
    loop {
        let value = property(c, name);
        if value.contains(wanted) {
            return value;
        }
        assert!(Instant::now() < end, "{name} is \"{value}\", without `{wanted}`");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The process that systemd started last.
pub(crate) fn main_pid(c: &Container) -> String {
    property(c, "MainPID")
}

/// How often systemd has started it again by itself.
pub(crate) fn restarts(c: &Container) -> u32 {
    property(c, "NRestarts").parse().unwrap()
}

/// One of its pages.
pub(crate) fn page(c: &Container, path: &str) -> String {
    let ask = format!("printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3");
    c.shell(&format!("exec 3<>/dev/tcp/127.0.0.1/8089; {ask}; cat <&3"))
}

/// What systemd says of its security, 0 to 10, as the unit lies there with its drop-ins.
pub(crate) fn exposure(c: &Container) -> f64 {
    let said = c.run(&["systemd-analyze", "--no-pager", "security", "--offline=true", "kinewatch.service"]);
    let figure = said.lines().find_map(|line| line.split_once("exposure level for kinewatch.service: "));
    figure.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no figure in:\n{said}"))
}

/// The journal of the service from some moment on.
pub(crate) struct Journal {
    lines: Process,
    from: String,
}

impl Journal {
    /// From now on.
    pub(crate) fn from_here(c: &Container, of: &str) -> Self {
        let said = c.run(&["journalctl", "--lines=0", "--show-cursor"]);
        let from = said.lines().find_map(|line| line.strip_prefix("-- cursor: ")).expect("a cursor").to_owned();
        let after = format!("--after-cursor={from}");
        let mut follow = c.command("journalctl");
        follow.args(["--follow", "--no-pager", "--output=cat", &after, of]);
        let lines = Process::start(follow, Stream::Stdout);
        Self { lines, from }
    }

    /// Waits for a line that contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        self.lines.wait_for(&format!("`{text}` in the journal"), |line| line.contains(text))
    }

    /// As a person reads it.
    pub(crate) fn read(&self, c: &Container) -> String {
        c.run(&["journalctl", "--no-pager", "--unit=kinewatch", &format!("--after-cursor={}", self.from)])
    }
}

/// Seconds with one decimal.
pub(crate) fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}
