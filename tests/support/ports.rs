//! Ports for servers that a test starts by their number.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A port that nobody listens on, and that nobody else in this process is given (of the next 12,000 who ask), nor anybody by
/// the kernel, for it lies below the ports that the kernel picks from. Another test process may be, rarely.
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Another process begins elsewhere.
        let nth = std::process::id().wrapping_mul(131).wrapping_add(NEXT.fetch_add(1, Relaxed));
        let port = (FIRST + nth % COUNT) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
