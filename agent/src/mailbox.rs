//! The one door between the capture threads and the inference thread.
//!
//! A bounded queue per camera. Frames are dropped oldest first when a live camera's queue is full ("fresh frames beat all
//! frames") and counted; gaps are never dropped and keep their place among the frames. In replay the capture thread waits
//! instead. Capture threads push; the inference thread takes rounds of at most one frame per camera, so that no camera
//! starves another and a round is a batch.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kinewatch_capture::Captured;

/// What a full queue does with the next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest queued frame of that camera goes, and is counted.
    DropOldest,
    /// The pushing thread waits: replay, where every frame counts.
    Block,
}

/// What [`Mailbox::round`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Something was taken.
    Taken,
    /// Nothing came within the time given.
    Idle,
    /// Closed and empty.
    Closed,
}

/// Bounded queues, one per camera, in front of the inference thread.
#[derive(Debug)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    ready: Condvar,
    space: Condvar,
    frames_per_camera: usize,
    overflow: Overflow,
    dropped: Vec<AtomicU64>,
}

#[derive(Debug)]
struct Inner {
    queues: Vec<Queue>,
    /// The camera that is served first in the next round.
    first: usize,
    closed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Captured>,
    frames: usize,
}

impl Mailbox {
    /// Queues for `cameras` cameras of `frames_per_camera` frames each.
    #[must_use]
    pub fn new(cameras: usize, frames_per_camera: usize, overflow: Overflow) -> Self {
        // Gaps come on top of the frames; a camera cannot make them faster than it reconnects.
        let queue = || Queue { items: VecDeque::with_capacity(frames_per_camera + 8), frames: 0 };
        Self {
            inner: Mutex::new(Inner { queues: (0..cameras).map(|_| queue()).collect(), first: 0, closed: false }),
            ready: Condvar::new(),
            space: Condvar::new(),
            frames_per_camera: frames_per_camera.max(1),
            overflow,
            dropped: (0..cameras).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Queues what a camera delivered. Blocks only under [`Overflow::Block`], and then until there is room or the mailbox
    /// is closed.
    pub fn push(&self, camera: usize, item: Captured) {
        let mut inner = self.lock();
        let is_frame = matches!(item, Captured::Frame { .. });
        if is_frame && self.overflow == Overflow::Block {
            while inner.queues[camera].frames >= self.frames_per_camera && !inner.closed {
                inner = self.space.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if inner.closed {
            return;
        }
        let queue = &mut inner.queues[camera];
        if is_frame {
            if queue.frames >= self.frames_per_camera {
                queue.drop_oldest_frame();
                self.dropped[camera].fetch_add(1, Ordering::Relaxed);
            }
            queue.frames += 1;
        }
        queue.items.push_back(item);
        drop(inner);
        self.ready.notify_one();
    }

    /// Takes at most one frame from each camera, with the gaps that stand before and directly behind it, appending to
    /// `into` as (camera, item). Waits up to `timeout` when nothing is queued.
    pub fn round(&self, into: &mut Vec<(usize, Captured)>, timeout: Duration) -> Round {
        let empty = |inner: &mut Inner| !inner.closed && inner.queues.iter().all(|q| q.items.is_empty());
        let (mut inner, _) =
            self.ready.wait_timeout_while(self.lock(), timeout, empty).unwrap_or_else(PoisonError::into_inner);
        let before = into.len();
        let cameras = inner.queues.len();
        for i in 0..cameras {
            let camera = (inner.first + i) % cameras;
            let queue = &mut inner.queues[camera];
            let mut frames = 0;
            while let Some(item) = queue.items.front() {
                if matches!(item, Captured::Frame { .. }) {
                    if frames == 1 {
                        break;
                    }
                    frames += 1;
                    queue.frames -= 1;
                }
                into.extend(queue.items.pop_front().map(|item| (camera, item)));
            }
        }
        inner.first = (inner.first + 1) % cameras.max(1);
        let closed = inner.closed;
        drop(inner);
        if into.len() > before {
            self.space.notify_all();
            return Round::Taken;
        }
        if closed { Round::Closed } else { Round::Idle }
    }

    /// Refuses further items; what is queued can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
        self.space.notify_all();
    }

    /// Frames of `camera` dropped because inference did not keep up.
    #[must_use]
    pub fn dropped(&self, camera: usize) -> u64 {
        self.dropped[camera].load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn drop_oldest_frame(&mut self) {
        if let Some(at) = self.items.iter().position(|item| matches!(item, Captured::Frame { .. })) {
            self.items.remove(at);
            self.frames -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kinewatch_capture::GapReason;
    use kinewatch_core::frame::{FrameBuf, FrameMeta};
    use kinewatch_core::time::{Pts, SessionId};

    use super::*;

    fn frame(ns: i64) -> Captured {
        let meta = FrameMeta { session: SessionId(1), pts: Pts(ns), arrival: None, wanted: 1 };
        Captured::Frame { branch: 0, frame: Arc::new(FrameBuf::new(meta, vec![0; 3])) }
    }

    fn gap() -> Captured {
        Captured::Gap { session: SessionId(1), last: None, reason: GapReason::EndOfStream }
    }

    fn taken(mailbox: &Mailbox) -> Vec<(usize, Option<i64>)> {
        let mut out = Vec::new();
        mailbox.round(&mut out, Duration::ZERO);
        let pts = |item: &Captured| match item {
            Captured::Frame { frame, .. } => Some(frame.meta().pts.0),
            _ => None,
        };
        out.iter().map(|(camera, item)| (*camera, pts(item))).collect()
    }

    #[test]
    fn a_full_queue_drops_its_oldest_frame_and_never_a_gap() {
        let mailbox = Mailbox::new(2, 2, Overflow::DropOldest);
        mailbox.push(0, frame(1));
        mailbox.push(0, gap());
        for ns in 2..5 {
            mailbox.push(0, frame(ns));
        }
        mailbox.push(1, frame(9));
        assert_eq!((mailbox.dropped(0), mailbox.dropped(1)), (2, 0));
        assert_eq!(taken(&mailbox), [(0, None), (0, Some(3)), (1, Some(9))], "the gap kept its place");
        assert_eq!(taken(&mailbox), [(0, Some(4))]);
    }

    #[test]
    fn a_round_takes_one_frame_of_each_camera_and_turns() {
        let mailbox = Mailbox::new(2, 8, Overflow::DropOldest);
        for ns in 0..2 {
            mailbox.push(0, frame(ns));
            mailbox.push(1, frame(10 + ns));
        }
        assert_eq!(taken(&mailbox), [(0, Some(0)), (1, Some(10))]);
        assert_eq!(taken(&mailbox), [(1, Some(11)), (0, Some(1))], "the other camera comes first in the next round");
    }

    #[test]
    fn replay_waits_for_room_and_a_close_lets_go() {
        let mailbox = Arc::new(Mailbox::new(1, 1, Overflow::Block));
        mailbox.push(0, frame(1));
        let pusher = Arc::clone(&mailbox);
        let thread = std::thread::spawn(move || {
            pusher.push(0, frame(2));
            pusher.push(0, frame(3));
        });
        assert_eq!(taken(&mailbox), [(0, Some(1))]);
        let mut out = Vec::new();
        assert_eq!(mailbox.round(&mut out, Duration::from_secs(20)), Round::Taken);
        mailbox.close();
        thread.join().unwrap();
        assert_eq!(mailbox.dropped(0), 0, "nothing is dropped in replay");
        out.clear();
        while mailbox.round(&mut out, Duration::ZERO) == Round::Taken {}
        assert_eq!(mailbox.round(&mut out, Duration::ZERO), Round::Closed);
    }
}
