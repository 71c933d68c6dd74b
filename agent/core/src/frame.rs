//! Model-sized RGB frames in pooled, reference-counted buffers.
//!
//! Never allocates once a [`FramePool`] is warm. A pool belongs to one capture thread; frames travel to the inference
//! thread and come back by being dropped.

use std::sync::Arc;

use crate::time::{Arrival, Pts, SessionId};

/// How a picture is fitted into the model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resize {
    /// Scaled to the full input; the aspect ratio changes.
    Stretch,
    /// Scaled with its aspect ratio; the rest is black.
    Letterbox,
}

/// Interpolation of the scaler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Nearest neighbour.
    Nearest,
    /// Bilinear.
    Bilinear,
}

/// Which of scaling and colour conversion comes first. The pixels differ, so it is part of a package's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleOrder {
    /// Scale in the decoder's colour format, then convert: fewer pixels to convert.
    ScaleConvert,
    /// Convert at full size, then scale.
    ConvertScale,
}

/// What a model reads: packed RGB of `width` x `height`, three bytes a pixel, no row padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameSpec {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Fit.
    pub resize: Resize,
    /// Scaler.
    pub filter: Filter,
    /// Order of scaling and conversion.
    pub order: ScaleOrder,
}

impl FrameSpec {
    /// Bytes of one frame.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.width as usize * self.height as usize * 3
    }
}

/// Where and when a frame belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameMeta {
    /// Stream session.
    pub session: SessionId,
    /// Media time.
    pub pts: Pts,
    /// When it reached us; `None` in replay, which has no clock.
    pub arrival: Option<Arrival>,
    /// Bit `i` is set when sampler `i` of the frame's branch chose it.
    pub wanted: u32,
}

/// A frame's pixels with its place in time.
#[derive(Debug)]
pub struct FrameBuf {
    meta: FrameMeta,
    pixels: Box<[u8]>,
}

impl FrameBuf {
    /// A frame outside any pool: golden clips and tests.
    #[must_use]
    pub fn new(meta: FrameMeta, pixels: impl Into<Box<[u8]>>) -> Self {
        Self { meta, pixels: pixels.into() }
    }

    /// Place in time.
    #[must_use]
    pub fn meta(&self) -> &FrameMeta {
        &self.meta
    }

    /// Packed RGB, row by row.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

/// A shared frame. Dropping the last reference outside the pool gives the buffer back.
pub type Frame = Arc<FrameBuf>;

/// A fixed number of frame buffers, each free while nobody else holds it.
#[derive(Debug)]
pub struct FramePool {
    slots: Vec<Frame>,
    next: usize,
    bytes_per_frame: usize,
    capacity: usize,
}

impl FramePool {
    /// A pool of at most `capacity` frames of `bytes_per_frame`; buffers are made when first needed.
    #[must_use]
    pub fn new(bytes_per_frame: usize, capacity: usize) -> Self {
        Self { slots: Vec::with_capacity(capacity), next: 0, bytes_per_frame, capacity }
    }

    /// Writes a frame into a free buffer. `None` when every buffer is held: the frame is to be dropped and counted.
    pub fn fill(&mut self, meta: FrameMeta, write: impl FnOnce(&mut [u8])) -> Option<Frame> {
        let slot = self.free_slot()?;
        let frame = &mut self.slots[slot];
        let buf = Arc::get_mut(frame)?;
        buf.meta = meta;
        write(&mut buf.pixels);
        Some(Arc::clone(frame))
    }

    fn free_slot(&mut self) -> Option<usize> {
        for _ in 0..self.slots.len() {
            let slot = self.next;
            self.next = (self.next + 1) % self.slots.len();
            if Arc::get_mut(&mut self.slots[slot]).is_some() {
                return Some(slot);
            }
        }
        if self.slots.len() == self.capacity {
            return None;
        }
        let meta = FrameMeta { session: SessionId::default(), pts: Pts::ZERO, arrival: None, wanted: 0 };
        self.slots.push(Arc::new(FrameBuf::new(meta, vec![0; self.bytes_per_frame])));
        Some(self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(ns: i64) -> FrameMeta {
        FrameMeta { session: SessionId(1), pts: Pts(ns), arrival: None, wanted: 1 }
    }

    #[test]
    fn a_held_frame_is_never_overwritten() {
        let mut pool = FramePool::new(3, 2);
        let a = pool.fill(meta(1), |p| p.fill(1)).unwrap();
        let b = pool.fill(meta(2), |p| p.fill(2)).unwrap();
        assert!(pool.fill(meta(3), |p| p.fill(3)).is_none(), "both buffers are held");
        assert_eq!((a.pixels(), b.pixels()), (&[1, 1, 1][..], &[2, 2, 2][..]));
        drop(a);
        let c = pool.fill(meta(4), |p| p.fill(4)).unwrap();
        assert_eq!((b.pixels()[0], c.pixels()[0], c.meta().pts), (2, 4, Pts(4)));
    }

    #[test]
    fn buffers_are_reused() {
        let mut pool = FramePool::new(3, 4);
        let first = pool.fill(meta(1), |_| ()).map(|f| Arc::as_ptr(&f)).unwrap();
        assert_eq!(pool.fill(meta(2), |_| ()).map(|f| Arc::as_ptr(&f)), Some(first));
    }
}
