//! The one door between the capture threads and the inference thread.
//!
//! A bounded queue per camera. Frames are dropped oldest first when a live camera's queue is full ("fresh frames beat all
//! frames") and counted; gaps are never dropped and keep their place among the frames. In replay the capture thread waits
//! instead. Capture threads push; the inference thread takes rounds of at most one frame per camera, so that no camera
//! starves another and a round is a batch.
//!
//! Cameras come and go: [`Mailbox::open`] gives one a free *slot*, the index that its frames are known by, and an
//! [`Inbox`]. What changes (`C`) travels in the queues, in order with the frames. A slot serves the next camera once the
//! last change of the one before has been taken; an inbox that has left queues nothing any more, so a capture thread that
//! would not stop cannot speak for another camera.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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

/// What is taken out.
#[derive(Debug)]
pub enum Mail<C> {
    /// Of the camera in this slot.
    Captured(usize, Captured),
    /// What is different from here on.
    Change(C),
}

/// Bounded queues, one per camera, in front of the inference thread. Without changes where nothing ever changes.
#[derive(Debug)]
pub struct Mailbox<C = Infallible> {
    inner: Mutex<Inner<C>>,
    ready: Condvar,
    space: Condvar,
    frames_per_camera: usize,
    overflow: Overflow,
}

/// A camera's way into the mailbox.
#[derive(Debug)]
pub struct Inbox<C = Infallible> {
    mailbox: Arc<Mailbox<C>>,
    slot: usize,
    holder: u64,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Inner<C> {
    /// Changes that are no camera's.
    changes: VecDeque<C>,
    /// By slot.
    queues: Vec<Queue<C>>,
    /// The slot that is served first in the next round.
    first: usize,
    /// Inboxes opened so far.
    opened: u64,
    closed: bool,
}

#[derive(Debug)]
struct Queue<C> {
    items: VecDeque<Mail<C>>,
    frames: usize,
    /// The inbox that may queue here.
    holder: Option<u64>,
}

impl<C> Mailbox<C> {
    /// No camera yet; queues of `frames_per_camera` frames each.
    #[must_use]
    pub fn new(frames_per_camera: usize, overflow: Overflow) -> Self {
        let inner = Inner { changes: VecDeque::new(), queues: Vec::new(), first: 0, opened: 0, closed: false };
        Self {
            inner: Mutex::new(inner),
            ready: Condvar::new(),
            space: Condvar::new(),
            frames_per_camera: frames_per_camera.max(1),
            overflow,
        }
    }

    /// A free slot for a camera, whose frames that inference could not take in time are counted in `dropped`.
    #[must_use]
    pub fn open(self: &Arc<Self>, dropped: Arc<AtomicU64>) -> Inbox<C> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.opened += 1;
        let holder = inner.opened;
        let free = |queue: &Queue<C>| queue.holder.is_none() && queue.items.is_empty();
        let slot = inner.queues.iter().position(free).unwrap_or(inner.queues.len());
        match inner.queues.get_mut(slot) {
            Some(queue) => queue.holder = Some(holder),
            None => {
                // Gaps come on top of the frames; a camera cannot make them faster than it reconnects.
                let items = VecDeque::with_capacity(self.frames_per_camera + 8);
                inner.queues.push(Queue { items, frames: 0, holder: Some(holder) });
            }
        }
        Inbox { mailbox: Arc::clone(self), slot, holder, dropped }
    }

    /// Queues a change that is no camera's. It is taken before whatever a camera queues after it.
    pub fn change(&self, change: C) {
        let mut inner = self.lock();
        if !inner.closed {
            inner.changes.push_back(change);
        }
        drop(inner);
        self.ready.notify_one();
    }

    /// Takes at most one frame from each camera, with the gaps and changes that stand before and directly behind it,
    /// appending to `into`; changes that are no camera's come first. Waits up to `timeout` when nothing is queued.
    pub fn round(&self, into: &mut Vec<Mail<C>>, timeout: Duration) -> Round {
        let empty = |inner: &mut Inner<C>| {
            !inner.closed && inner.changes.is_empty() && inner.queues.iter().all(|q| q.items.is_empty())
        };
        let (mut inner, _) =
            self.ready.wait_timeout_while(self.lock(), timeout, empty).unwrap_or_else(PoisonError::into_inner);
        let before = into.len();
        into.extend(inner.changes.drain(..).map(Mail::Change));
        let cameras = inner.queues.len();
        for i in 0..cameras {
            let slot = (inner.first + i) % cameras;
            let queue = &mut inner.queues[slot];
            let mut frames = 0;
            while let Some(item) = queue.items.front() {
                if item.is_frame() {
                    if frames == 1 {
                        break;
                    }
                    frames += 1;
                    queue.frames -= 1;
                }
                into.extend(queue.items.pop_front());
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

    fn lock(&self) -> MutexGuard<'_, Inner<C>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Inbox<C> {
    /// The slot that the camera's frames are known by.
    #[must_use]
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// Queues what the camera delivered; nothing once it has left. Blocks only under [`Overflow::Block`], and then until
    /// there is room or the mailbox is closed.
    pub fn push(&self, captured: Captured) {
        let is_frame = matches!(captured, Captured::Frame { .. });
        let most = self.mailbox.frames_per_camera;
        let mut inner = self.mailbox.lock();
        if is_frame && self.mailbox.overflow == Overflow::Block {
            while inner.queues[self.slot].frames >= most && !inner.closed && self.holds(&inner) {
                inner = self.mailbox.space.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if inner.closed || !self.holds(&inner) {
            return;
        }
        let queue = &mut inner.queues[self.slot];
        if is_frame {
            if queue.frames >= most {
                queue.drop_oldest_frame();
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            queue.frames += 1;
        }
        queue.items.push_back(Mail::Captured(self.slot, captured));
        drop(inner);
        self.mailbox.ready.notify_one();
    }

    /// Queues a change behind the frames that have come so far.
    pub fn change(&self, change: C) {
        self.queue(change, |_| {});
    }

    /// Queues the camera's last change: what it delivers from now on is not taken any more.
    pub fn leave(&self, last: C) {
        self.queue(last, |queue| queue.holder = None);
        self.mailbox.space.notify_all();
    }

    fn queue(&self, change: C, then: impl FnOnce(&mut Queue<C>)) {
        let mut inner = self.mailbox.lock();
        if inner.closed || !self.holds(&inner) {
            return;
        }
        let queue = &mut inner.queues[self.slot];
        queue.items.push_back(Mail::Change(change));
        then(queue);
        drop(inner);
        self.mailbox.ready.notify_one();
    }

    fn holds(&self, inner: &Inner<C>) -> bool {
        inner.queues[self.slot].holder == Some(self.holder)
    }
}

impl<C> Mail<C> {
    fn is_frame(&self) -> bool {
        matches!(self, Self::Captured(_, Captured::Frame { .. }))
    }
}

impl<C> Queue<C> {
    fn drop_oldest_frame(&mut self) {
        if let Some(at) = self.items.iter().position(Mail::is_frame) {
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
        Captured::Frame { branch: 0, frame: Arc::new(FrameBuf::new(meta, Vec::new())) }
    }

    fn gap() -> Captured {
        Captured::Gap { session: SessionId(1), last: None, reason: GapReason::EndOfStream }
    }

    fn mailbox<C>(frames: usize, overflow: Overflow) -> Arc<Mailbox<C>> {
        Arc::new(Mailbox::new(frames, overflow))
    }

    /// What a round brings: frames as "camera:time", gaps as "camera:gap", changes as they are.
    fn taken(mailbox: &Mailbox<&'static str>) -> Vec<String> {
        let mut out = Vec::new();
        mailbox.round(&mut out, Duration::ZERO);
        let told = |mail: &Mail<&'static str>| match mail {
            Mail::Captured(slot, Captured::Frame { frame, .. }) => format!("{slot}:{}", frame.meta().pts.0),
            Mail::Captured(slot, _) => format!("{slot}:gap"),
            Mail::Change(change) => (*change).to_owned(),
        };
        out.iter().map(told).collect()
    }

    #[test]
    fn a_full_queue_drops_its_oldest_frame_and_never_a_gap() {
        let mailbox = mailbox(2, Overflow::DropOldest);
        let (a, b) = (mailbox.open(Arc::default()), mailbox.open(Arc::default()));
        a.push(frame(1));
        a.push(gap());
        for ns in 2..5 {
            a.push(frame(ns));
        }
        b.push(frame(9));
        assert_eq!((a.dropped.load(Ordering::Relaxed), b.dropped.load(Ordering::Relaxed)), (2, 0));
        assert_eq!(taken(&mailbox), ["0:gap", "0:3", "1:9"], "the gap kept its place");
        assert_eq!(taken(&mailbox), ["0:4"]);
    }

    #[test]
    fn a_round_takes_one_frame_of_each_camera_and_turns() {
        let mailbox = mailbox(8, Overflow::DropOldest);
        let (a, b) = (mailbox.open(Arc::default()), mailbox.open(Arc::default()));
        for ns in 0..2 {
            a.push(frame(ns));
            b.push(frame(10 + ns));
        }
        assert_eq!(taken(&mailbox), ["0:0", "1:10"]);
        assert_eq!(taken(&mailbox), ["1:11", "0:1"], "the other camera comes first in the next round");
    }

    #[test]
    fn a_slot_is_free_once_its_camera_s_last_change_is_taken() {
        let mailbox = mailbox(8, Overflow::DropOldest);
        let first = mailbox.open(Arc::default());
        first.change("first joins");
        first.push(frame(1));
        first.push(frame(2));
        first.leave("first leaves");
        first.push(frame(3));
        first.change("too late");
        let second = mailbox.open(Arc::default());
        assert_eq!((first.slot(), second.slot()), (0, 1), "something still waits in the first slot");
        assert_eq!(taken(&mailbox), ["first joins", "0:1"], "in order with the frames");
        assert_eq!(taken(&mailbox), ["0:2", "first leaves"]);
        let third = mailbox.open(Arc::default());
        assert_eq!(third.slot(), 0);
        third.change("third joins");
        first.push(frame(4));
        third.push(frame(5));
        mailbox.change("a model comes");
        assert_eq!(taken(&mailbox), ["a model comes", "third joins", "0:5"], "one that has left says nothing more");
    }

    #[test]
    fn replay_waits_for_room_and_a_close_lets_go() {
        let mailbox = mailbox(1, Overflow::Block);
        let inbox = mailbox.open(Arc::default());
        inbox.push(frame(1));
        let dropped = Arc::clone(&inbox.dropped);
        let thread = std::thread::spawn(move || {
            inbox.push(frame(2));
            inbox.push(frame(3));
        });
        assert_eq!(taken(&mailbox), ["0:1"]);
        let mut out = Vec::new();
        assert_eq!(mailbox.round(&mut out, Duration::from_secs(20)), Round::Taken);
        mailbox.close();
        thread.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 0, "nothing is dropped in replay");
        out.clear();
        while mailbox.round(&mut out, Duration::ZERO) == Round::Taken {}
        assert_eq!(mailbox.round(&mut out, Duration::ZERO), Round::Closed);
    }
}
