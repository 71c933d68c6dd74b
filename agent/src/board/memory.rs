//! Memory that can still be had, as the kernel says: of the machine, and of the service within its own limit. On a Jetson it is
//! the memory of the GPU too.

use crate::root::Root;

/// Kept free beside a model, bytes: what cameras, decoders and the outbox may still want.
const SPARE: u64 = 128 << 20;

/// Memory at one moment, bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Of the machine; 0 where it does not say.
    pub total: u64,
    /// That can be had without swapping.
    pub available: Option<u64>,
    /// What the service may have (the smaller of `MemoryHigh=` and `MemoryMax=`), where it is limited.
    pub limit: Option<u64>,
    /// What is left of that.
    pub left: Option<u64>,
    /// Part of the last ten seconds in which everything waited for memory, 0 to 1; `None` where the kernel does not say.
    pub stalled: Option<f64>,
}

impl Memory {
    /// Reads it.
    #[must_use]
    pub fn read(root: &Root) -> Self {
        let text = root.read("/proc/meminfo").unwrap_or_default();
        let (limit, left) = service(root).unzip();
        Self {
            total: kib(&text, "MemTotal:").unwrap_or(0),
            available: kib(&text, "MemAvailable:"),
            limit,
            left,
            stalled: stalled(root),
        }
    }

    /// Whether something that takes so many bytes finds room; yes where nobody says.
    #[must_use]
    pub fn holds(&self, needs: u64) -> bool {
        self.free().is_none_or(|free| free >= needs.saturating_add(SPARE))
    }

    /// What this process can still have; `None` where nobody says.
    #[must_use]
    pub fn free(&self) -> Option<u64> {
        [self.available, self.left].into_iter().flatten().min()
    }
}

/// Limit of the service's control group, and what is left of it.
fn service(root: &Root) -> Option<(u64, u64)> {
    let of = root.read("/proc/self/cgroup")?;
    let group = of.lines().find_map(|line| line.strip_prefix("0::"))?;
    let read = |name: &str| root.read(format!("/sys/fs/cgroup{group}/{name}"));
    // Without a limit they say `max`. Beyond `memory.high` nobody is killed, but everything waits.
    let limit = |name: &str| read(name)?.parse::<u64>().ok();
    let most = [limit("memory.max"), limit("memory.high")].into_iter().flatten().min()?;
    let used: u64 = read("memory.current")?.parse().ok()?;
    // Files that were read are charged to the service too, a bundle that has just come above all, and go when memory is
    // asked for.
    let stat = read("memory.stat")?;
    let cached = |name| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let cache: u64 = ["inactive_file ", "active_file "].into_iter().filter_map(cached).sum();
    Some((most, most.saturating_sub(used.saturating_sub(cache))))
}

/// `full avg10=0.00 avg60=…` of the pressure stall information.
fn stalled(root: &Root) -> Option<f64> {
    let text = root.read("/proc/pressure/memory")?;
    let line = text.lines().find_map(|line| line.strip_prefix("full "))?;
    let percent: f64 = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}

/// A line such as `VmRSS:  12 kB`, in bytes. `name` ends with the colon.
pub(crate) fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::trees;

    #[test]
    fn this_machine_tells_its_memory() {
        let memory = Memory::read(&Root::machine());
        assert!(memory.free().is_some_and(|bytes| bytes > 1 << 20 && bytes <= memory.total), "{memory:?}");
    }

    #[test]
    fn the_smaller_of_machine_and_service_counts_and_caches_are_free() {
        let tree = "=== /proc/meminfo\nMemTotal: 8000 kB\nMemAvailable:   4000 kB\n\
                    === /proc/self/cgroup\n0::/system.slice/kinewatch.service\n\
                    === /sys/fs/cgroup/system.slice/kinewatch.service/memory.max\n2048000\n\
                    === /sys/fs/cgroup/system.slice/kinewatch.service/memory.current\n1024000\n\
                    === /sys/fs/cgroup/system.slice/kinewatch.service/memory.stat\nanon 5\ninactive_file 400\nactive_file 600\n\
                    === /proc/pressure/memory\nsome avg10=9.00 avg60=1.00 avg300=0.00 total=5\n\
                    full avg10=2.50 avg60=1.00 avg300=0.00 total=5\n";
        let dir = trees::plant_text(tree);
        let root = Root::below(dir.path());
        let memory = Memory::read(&root);
        assert_eq!(memory.free(), Some(1_025_000));
        assert_eq!((memory.total, memory.limit, memory.stalled), (8_192_000, Some(2_048_000), Some(0.025)));
        let high = "=== /sys/fs/cgroup/system.slice/kinewatch.service/memory.high\n1848000\n";
        let memory = Memory::read(&Root::below(trees::plant_text(&format!("{tree}{high}")).path()));
        assert_eq!((memory.limit, memory.left), (Some(1_848_000), Some(825_000)), "where it begins to wait");
        let dir = trees::plant_text("=== /proc/meminfo\nMemTotal: x kB\nMemAvailable: 18446744073709551615 kB\n");
        assert_eq!(Memory::read(&Root::below(dir.path())), Memory::default());
    }
}
