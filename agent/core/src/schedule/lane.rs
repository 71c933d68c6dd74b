//! What the scheduler keeps for each lane and each camera.

use std::collections::VecDeque;
use std::time::Duration;

use super::Lane;

/// Most requests of a lane that may wait, whatever its rate: bounds the memory of a mistaken package.
const MOST: usize = 128;

/// A request that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting<R> {
    pub request: R,
    /// When its lane began to wait for this turn.
    pub since: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct LaneState<R> {
    pub lane: Lane,
    pub queue: VecDeque<Waiting<R>>,
    /// Requests that may wait while the device keeps up.
    pub most: usize,
    /// Virtual time within the camera, ns.
    pub used: u64,
}

/// A camera's share of the device.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// Virtual time among cameras, ns.
    pub used: u64,
    /// Start tag of the newest turn among its lanes.
    pub turn: u64,
    /// Requests that wait over all its lanes.
    pub waiting: usize,
}

impl<R> LaneState<R> {
    pub(super) fn new(lane: Lane, patience: Duration) -> Self {
        let most = most_waiting(lane.every, patience);
        Self { lane, queue: VecDeque::with_capacity(most), most, used: 0 }
    }
}

/// What comes within `patience`, and one that comes during the call that exceeds it.
pub(super) fn most_waiting(every: Duration, patience: Duration) -> usize {
    let within = patience.as_nanos().div_ceil(every.as_nanos().max(1));
    usize::try_from(within).unwrap_or(MOST).min(MOST) + 1
}
