//! What a child may take, set by its parent before it is told what to do.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit, setpriority_process};

use crate::board::memory::kib;

/// What a child may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From its start to its end, engines built included.
    pub wall: Duration,
    /// Memory, bytes.
    pub memory_bytes: u64,
}

impl Default for Limits {
    /// Half an hour, which a TensorRT engine may take on a small device, and 4 GiB.
    fn default() -> Self {
        Self { wall: Duration::from_secs(30 * 60), memory_bytes: 4 << 30 }
    }
}

impl Limits {
    /// Makes the process the last in line, and bounds what it can allocate. It has not been told its job yet, so nothing of the
    /// model has been read when this returns.
    pub(super) fn impose(&self, child: u32) -> io::Result<()> {
        let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
        let most = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
        // Not RLIMIT_AS: CUDA reserves addresses by the hundred gigabytes. This one counts what can be written.
        prlimit(pid, Resource::Data, most(self.memory_bytes))?;
        prlimit(pid, Resource::Core, most(0))?;
        setpriority_process(pid, 19)?;
        // Raising is always permitted; a container without this file has no such killer either.
        let _ = fs::write(format!("/proc/{child}/oom_score_adj"), "1000");
        Ok(())
    }
}

/// Memory of a process that lies in RAM or in swap, bytes; `None` when it is gone.
pub(super) fn memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(kib(&status, "VmRSS:")? + kib(&status, "VmSwap:").unwrap_or(0))
}

/// Time of processors that a process has used so far on all its threads; `None` when it is gone.
pub(super) fn busy(pid: u32) -> Option<Duration> {
    // The unit of these fields (USER_HZ), the same on x86 and on ARM.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name comes before, in brackets, and may hold anything. The 14th and 15th field are meant, `utime` and `stime`.
    let ticks = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11).take(2);
    let ticks: u32 = ticks.filter_map(|field| field.parse::<u32>().ok()).fold(0, u32::saturating_add);
    Some(TICK * ticks)
}

/// The most memory of this process so far, bytes.
pub(super) fn own_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    kib(&status, "VmHWM:").unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_how_much_memory_is_used() {
        let now = memory(std::process::id()).unwrap();
        assert!(now > 1 << 20 && now <= own_peak() + (64 << 20), "{now}");
        assert_eq!(memory(u32::MAX), None);
        assert_eq!(busy(u32::MAX), None);
        assert_eq!(kib("VmSwap:\t     12 kB\n", "VmSwap:"), Some(12 << 10));
    }

    #[test]
    fn the_kernel_tells_how_long_a_process_has_computed() {
        let own = || busy(std::process::id()).unwrap();
        let before = own();
        // Ends when the kernel has counted it.
        while own() < before + Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        assert!(own() < Duration::from_secs(3600), "{:?}", own());
    }
}
