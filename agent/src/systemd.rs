//! What systemd is told, by the protocol of `sd_notify(3)`. Does nothing when the agent was not started by it.
//!
//! Never waits: a message is a datagram. When what is told lies with the caller; see `agent/design/supervision.md`.

use std::time::Duration;

use sd_notify::NotifyState;

/// Everything has started.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// What `systemctl status` shows, one line.
pub fn status(line: &str) {
    notify(&[NotifyState::Status(line)]);
}

/// A stop has begun.
pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Starting takes longer: `TimeoutStartSec=` ends no sooner than after `more`.
pub fn extend(more: Duration) {
    notify(&[NotifyState::ExtendTimeoutUsec(u32::try_from(more.as_micros()).unwrap_or(u32::MAX))]);
}

/// The limit of the unit's watchdog, when it has one for this process.
#[must_use]
pub fn watchdog_limit() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// All is well.
pub fn feed_watchdog() {
    notify(&[NotifyState::Watchdog]);
}

/// To be treated as a service whose watchdog has run out.
pub fn trigger_watchdog() {
    notify(&[NotifyState::WatchdogTrigger]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
