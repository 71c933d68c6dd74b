//! Memory: of the machine, of the daemon, and what the service may have at most.

use super::size;
use crate::board::memory::kib;
use crate::doctor::unit::Properties;
use crate::doctor::{About, Context, Finding};

/// Less than this to spare, and a model update or a burst of reconnects may not fit, bytes.
const WARN_AVAILABLE: u64 = 150 << 20;
/// A limit below this holds no model beside GStreamer, bytes.
const WARN_LIMIT: u64 = 256 << 20;

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let machine = context.root.read("/proc/meminfo").unwrap_or_default();
    let (Some(total), Some(available)) = (kib(&machine, "MemTotal:"), kib(&machine, "MemAvailable:")) else {
        return vec![about.skip("/proc/meminfo cannot be read")];
    };
    let own = context.daemon.and_then(|pid| kib(&context.root.read(format!("/proc/{pid}/status"))?, "VmRSS:"));
    let limit = context.unit.known().and_then(|unit| unit.number("MemoryMax"));
    let mut found = Vec::new();
    if available < WARN_AVAILABLE {
        found.push(about.warn(format!(
            "only {} of {} are available; end other programs, or use a smaller model",
            size(available),
            size(total)
        )));
    }
    if let Some(limit) = limit.filter(|limit| *limit < WARN_LIMIT) {
        found.push(about.warn(format!(
            "the service may have {} at most; raise MemoryMax= in a drop-in (systemctl edit kinewatch)",
            size(limit)
        )));
    }
    if let (Some(own), Some(limit)) = (own, limit)
        && own > limit / 10 * 9
    {
        found.push(about.warn(format!(
            "kinewatch uses {} of the {} that it may have; raise MemoryMax=, or use a smaller model",
            size(own),
            size(limit)
        )));
    }
    if let Some(kills) = context.unit.known().and_then(|unit| kills(context, unit)).filter(|n| *n > 0) {
        found.push(about.warn(format!("{kills} of its processes were killed for their memory since it started; raise MemoryMax=, or use a smaller model")));
    }
    if found.is_empty() {
        let ours = own.map_or_else(String::new, |own| format!(", kinewatch uses {}", size(own)));
        found.push(about.ok(format!("{} of {} available{ours}", size(available), size(total))));
    }
    found
}

/// Processes of the service's control group that the kernel killed.
fn kills(context: &Context, unit: &Properties) -> Option<u64> {
    let group = unit.text("ControlGroup");
    let events = context.root.read(format!("/sys/fs/cgroup{group}/memory.events")).filter(|_| !group.is_empty())?;
    events.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::{context, told};
    use crate::doctor::unit::Unit;
    use crate::doctor::unit::tests::RUNNING;

    #[test]
    fn scarcity_limits_and_kills_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("/proc/meminfo", "MemTotal:        8000000 kB\nMemFree: 1 kB\nMemAvailable:    4000000 kB\n"),
            ("/proc/412/status", "Name:\tkinewatch\nVmRSS:\t  500000 kB\n"),
            ("/sys/fs/cgroup/system.slice/kinewatch.service/memory.events", "oom 0\noom_kill 0\n"),
        ];
        let mut context = context(dir.path(), &files);
        context.daemon = Some(412);
        let about = About::check("memory");
        assert_eq!(told(&check(&context, &about)), ["ok 3.8 GiB of 7.6 GiB available, kinewatch uses 488 MiB"]);
        context.unit = Unit::parse(&RUNNING.replace("MemoryMax=infinity", "MemoryMax=520000000"));
        assert!(told(&check(&context, &about))[0].contains("uses 488 MiB of the 496 MiB"));
        let put = |path, text| std::fs::write(context.root.at(path), text).unwrap();
        put("/sys/fs/cgroup/system.slice/kinewatch.service/memory.events", "oom_kill 2\n");
        put("/proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 100000 kB\n");
        let lines = told(&check(&context, &about));
        assert!(
            lines[0].starts_with("warn only 98 MiB") && lines[2].starts_with("warn 2 of its processes"),
            "{lines:?}"
        );
    }
}
