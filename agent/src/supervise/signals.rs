//! SIGTERM and SIGINT: the first asks for a graceful stop, the second ends the process at once.
//!
//! The second is served inside the signal handler, so it works whatever hangs. What is then open in the store is ended with
//! `recovered` by the next run.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for the first signal.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes the signals over. A signal that comes before the first wait is not forgotten.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn watch(runtime: &Runtime) -> io::Result<Self> {
        let told = Arc::new(AtomicBool::new(false));
        for number in [SIGTERM, SIGINT] {
            // In this order: the handlers of the first signal find it unset, and set it.
            flag::register_conditional_shutdown(number, 1, Arc::clone(&told))?;
            flag::register(number, Arc::clone(&told))?;
        }
        let _entered = runtime.enter();
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the next signal. May be dropped and called again.
    pub async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
