//! What systemd is told. Does nothing when the agent was not started by it.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::health::Shared;
use crate::web::ALIVE_LIMIT;

/// Everything has started.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A stop has begun.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Feeds the watchdog while inference and store make progress; a camera or broker that is away is no fault.
pub async fn feed_watchdog(shared: Arc<Shared>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval((limit / 3).max(Duration::from_millis(100)));
    loop {
        ticks.tick().await;
        if shared.is_alive(ALIVE_LIMIT.min(limit)) {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
