//! How much memory a second model may take, as the kernel says.

use std::fs;

use crate::config::file::UpdateSwap;
use crate::reload::Fit;

/// Kept free beside both models, bytes: what cameras, decoders and the outbox may still want.
const SPARE: u64 = 128 << 20;

/// Whether a model that takes so many bytes fits beside what runs.
#[must_use]
pub(super) fn fit(swap: UpdateSwap, needs: u64) -> Fit {
    match swap {
        UpdateSwap::Hot => Fit::Both,
        UpdateSwap::Serial => Fit::One,
        UpdateSwap::Auto if available().is_none_or(|free| free >= needs.saturating_add(SPARE)) => Fit::Both,
        UpdateSwap::Auto => Fit::One,
    }
}

/// Bytes that can be had without swapping, within the service's own limit. `None` where nobody says.
fn available() -> Option<u64> {
    let system = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib(&text, "MemAvailable:"));
    [system, cgroup()].into_iter().flatten().min()
}

/// What is left of `MemoryMax=`.
fn cgroup() -> Option<u64> {
    let of = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = of.lines().find_map(|line| line.strip_prefix("0::"))?;
    let read = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup{group}/{name}")).ok();
    // Without a limit it says `max`.
    let most: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    // Files that were read are charged to the service too, the bundle that has just come above all, and go when memory is asked for.
    let stat = read("memory.stat")?;
    let cached = |name| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let cache: u64 = ["inactive_file ", "active_file "].into_iter().filter_map(cached).sum();
    Some(most.saturating_sub(used.saturating_sub(cache)))
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_larger_than_what_is_free_goes_one_at_a_time() {
        assert_eq!(kib("MemTotal: 1 kB\nMemAvailable:     12 kB\n", "MemAvailable:"), Some(12 << 10));
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!((fit(UpdateSwap::Auto, 1 << 60), fit(UpdateSwap::Hot, 1 << 60)), (Fit::One, Fit::Both));
        assert_eq!((fit(UpdateSwap::Auto, 0), fit(UpdateSwap::Serial, 0)), (Fit::Both, Fit::One));
    }
}
