//! What the scheduler keeps for each lane and each camera.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Lane, most_waiting};

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
    /// False after [`super::Scheduler::remove`]: nothing waits here, and the place serves the next lane.
    pub held: bool,
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
    pub(super) fn new(lane: Lane) -> Self {
        let most = most_waiting(lane.every);
        Self { lane, queue: VecDeque::with_capacity(most), most, used: 0, held: true }
    }
}
