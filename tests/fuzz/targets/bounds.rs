//! What an input may cost: processor time of its thread, and memory at its highest.
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::time::Duration;

/// An input that takes longer hangs whoever reads it.
pub const CPU: Duration = Duration::from_secs(1);
/// Inputs are of kilobytes; what needs more memory than this is out of proportion, bytes.
pub const PEAK: isize = 96 << 20;

thread_local! {
    /// Bytes allocated and not freed by this thread since the input began, and the most there were.
    static LIVE: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

struct Counting;

fn count(bytes: isize) {
    // While a thread ends its counter is gone, and nobody asks for it.
    let _ = LIVE.try_with(|live| {
        let (now, peak) = live.get();
        let now = now.saturating_add(bytes);
        live.set((now, peak.max(now)));
    });
}

fn size(layout: Layout) -> isize {
    isize::try_from(layout.size()).unwrap_or(isize::MAX)
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-size(layout));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(isize::try_from(new_size).unwrap_or(isize::MAX).saturating_sub(size(layout)));
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `target`, and holds it to its bounds.
///
/// # Panics
/// The target does, or the input costs too much.
pub fn within(name: &str, data: &[u8], target: fn(&[u8])) {
    LIVE.set((0, 0));
    let before = cpu();
    target(data);
    let (took, peak) = (cpu().saturating_sub(before), LIVE.get().1);
    assert!(took <= CPU, "{name}: {} bytes took {took:?} of processor time", data.len());
    assert!(peak <= PEAK, "{name}: {} bytes took {} MiB of memory", data.len(), peak >> 20);
}

/// Processor time of this thread so far: the wall clock of a busy machine says nothing.
fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    Duration::from_nanos(nanos)
}
