//! The way out of a connection and how its time is shared out.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::client::Stopped;

#[derive(Debug)]
pub(crate) struct StopRequest {
    pub(crate) start: Instant,
    pub(crate) deadline: Duration,
    pub(crate) reply: oneshot::Sender<Stopped>,
}

/// The way out, each step with the time by which the next begins in any case.
pub(crate) enum Phase {
    Running,
    /// Waiting for what is queued and in flight.
    Draining(StopRequest),
    /// `stopped` is published; waiting for its acknowledgement.
    Farewell(StopRequest),
    /// DISCONNECT is sent; waiting for the broker to close.
    Leaving(StopRequest),
}

impl Phase {
    /// 70 % of the time for messages, 20 % for the farewell, the rest for leaving.
    pub(crate) fn until(&self) -> Option<Instant> {
        let at = |r: &StopRequest, share: f64| Some(r.start + r.deadline.mul_f64(share));
        match self {
            Self::Running => None,
            Self::Draining(r) => at(r, 0.7),
            Self::Farewell(r) => at(r, 0.9),
            Self::Leaving(r) => at(r, 0.98),
        }
    }
}
