//! What a process holds, from `/proc`, and whether it grows.

use std::fs;

use anyhow::Context as _;

/// Memory, descriptors and threads of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Resident memory, KiB: with pages of files, which come and go as the machine pleases.
    pub(crate) rss_kib: u64,
    /// Of that, what is the process's own (heap, stacks): what grows when something is kept.
    pub(crate) own_kib: u64,
    /// Open descriptors.
    pub(crate) fds: u64,
    /// Threads.
    pub(crate) threads: u64,
}

/// Reads `/proc/PID`.
pub(crate) fn usage(pid: u32) -> anyhow::Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Ok(Usage {
        rss_kib: field("VmRSS:").context("no VmRSS")?,
        own_kib: field("RssAnon:").context("no RssAnon")?,
        threads: field("Threads:").context("no Threads")?,
        fds: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
    })
}

/// A straight line through points.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slope {
    /// Growth of y for each x.
    pub(crate) per_x: f64,
    /// Standard error of that.
    pub(crate) error: f64,
}

/// Least squares; `None` for fewer than three points.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<Slope> {
    let n = points.len() as f64;
    if points.len() < 3 {
        return None;
    }
    let (mean_x, mean_y) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let spread: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    let per_x = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum::<f64>() / spread;
    let rest: f64 = points.iter().map(|p| (p.1 - mean_y - per_x * (p.0 - mean_x)).powi(2)).sum();
    Some(Slope { per_x, error: (rest / (n - 2.0) / spread).sqrt() })
}
