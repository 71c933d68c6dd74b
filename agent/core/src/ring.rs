//! The newest sampled frames of one camera branch, bounded by age, bytes and count.
//!
//! Holds frames of one session only, in order of media time. Owned by the thread that infers; never allocates after
//! construction.

use std::collections::VecDeque;

use crate::frame::Frame;
use crate::time::Pts;

/// Frames in order of media time, the oldest evicted first.
#[derive(Debug)]
pub struct Ring {
    frames: VecDeque<Frame>,
    max_age_ns: i64,
    max_bytes: usize,
    capacity: usize,
    bytes: usize,
}

/// What became of a pushed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is the newest frame now.
    Kept,
    /// It is not later than the newest frame, or larger than the whole ring: left out.
    Refused,
}

impl Ring {
    /// A ring that holds at most `capacity_frames` (at least one), `max_bytes` of pixels and `max_age_ns` of media time.
    #[must_use]
    pub fn new(max_age_ns: i64, max_bytes: usize, capacity_frames: usize) -> Self {
        let capacity = capacity_frames.max(1);
        Self { frames: VecDeque::with_capacity(capacity), max_age_ns: max_age_ns.max(0), max_bytes, capacity, bytes: 0 }
    }

    /// Adds the newest frame and evicts what no longer fits. A frame of another session empties the ring first.
    pub fn push(&mut self, frame: Frame) -> Pushed {
        let meta = *frame.meta();
        if let Some(newest) = self.frames.back().map(|f| *f.meta()) {
            if newest.session != meta.session {
                self.clear();
            } else if meta.pts <= newest.pts {
                return Pushed::Refused;
            }
        }
        let size = frame.pixels().len();
        if size > self.max_bytes {
            return Pushed::Refused;
        }
        let oldest_kept = meta.pts - self.max_age_ns;
        while self.frames.front().is_some_and(|f| {
            f.meta().pts < oldest_kept || self.bytes + size > self.max_bytes || self.frames.len() >= self.capacity
        }) {
            self.evict();
        }
        self.bytes += size;
        self.frames.push_back(frame);
        Pushed::Kept
    }

    fn evict(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.pixels().len();
        }
    }

    /// The frame nearest to `at` among those that a sampler of `mask` wanted (`u32::MAX`: any sampler). Of two at the
    /// same distance, the older.
    #[must_use]
    pub fn nearest(&self, at: Pts, mask: u32) -> Option<&Frame> {
        let split = self.frames.partition_point(|f| f.meta().pts < at);
        let after = self.frames.range(split..).find(|f| f.meta().wanted & mask != 0);
        let before = self.frames.range(..split).rev().find(|f| f.meta().wanted & mask != 0);
        match (before, after) {
            (Some(b), Some(a)) if a.meta().pts - at < at - b.meta().pts => Some(a),
            (Some(b), _) => Some(b),
            (None, after) => after,
        }
    }

    /// Frames with `from <= pts < to`, oldest first.
    pub fn range(&self, from: Pts, to: Pts) -> impl DoubleEndedIterator<Item = &Frame> {
        let start = self.frames.partition_point(|f| f.meta().pts < from);
        let end = self.frames.partition_point(|f| f.meta().pts < to).max(start);
        self.frames.range(start..end)
    }

    /// The newest frame.
    #[must_use]
    pub fn newest(&self) -> Option<&Frame> {
        self.frames.back()
    }

    /// Lets every frame go.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    /// Bytes of pixels held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether no frame is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
