//! Features of the frames that coming windows may still need, by stream: each frame goes through the backbone once.

use kinewatch_core::frame::FrameMeta;
use kinewatch_core::time::{Pts, SessionId};

/// One stream's entries.
#[derive(Debug)]
struct Shelf {
    session: SessionId,
    /// Frame of each place, and the window that last used it.
    entries: Vec<Option<(Pts, u64)>>,
    /// Features, place by place.
    values: Vec<f32>,
    /// Number of the window at hand.
    window: u64,
}

/// Features by slot, each stream bounded.
#[derive(Debug)]
pub(crate) struct FeatureStore {
    shelves: Vec<Shelf>,
    capacity: usize,
    feature: usize,
}

/// Where a frame's feature is, or is to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Computed (or about to be, for an earlier place of the same window).
    Known(usize),
    /// To be computed.
    New(usize),
}

impl FeatureStore {
    /// `capacity` frames a stream, `feature` elements a frame.
    pub(crate) fn new(capacity: usize, feature: usize) -> Self {
        Self { shelves: Vec::new(), capacity, feature }
    }

    pub(crate) fn grow(&mut self, slots: usize) {
        while self.shelves.len() < slots {
            self.shelves.push(Shelf {
                session: SessionId::default(),
                entries: vec![None; self.capacity],
                values: vec![0.0; self.capacity * self.feature],
                window: 0,
            });
        }
    }

    pub(crate) fn reset(&mut self, slot: usize) {
        self.shelves[slot].entries.fill(None);
    }

    /// A window of this stream begins: what it touches from here on is not given up for it.
    pub(crate) fn begin_window(&mut self, slot: usize) {
        self.shelves[slot].window += 1;
    }

    /// Place of a frame's feature. Gives up the place that was used longest ago, so the capacity must be at least the
    /// number of frames of a window.
    pub(crate) fn place(&mut self, slot: usize, frame: &FrameMeta) -> Place {
        let shelf = &mut self.shelves[slot];
        if shelf.session != frame.session {
            // Media times of different sessions are not comparable.
            shelf.session = frame.session;
            shelf.entries.fill(None);
        }
        let window = shelf.window;
        for (index, entry) in shelf.entries.iter_mut().enumerate() {
            if let Some((pts, used)) = entry
                && *pts == frame.pts
            {
                *used = window;
                return Place::Known(index);
            }
        }
        let oldest = shelf.entries.iter().enumerate().min_by_key(|(_, entry)| entry.map(|(pts, used)| (used, pts)));
        let index = oldest.map_or(0, |(index, _)| index);
        shelf.entries[index] = Some((frame.pts, window));
        Place::New(index)
    }

    pub(crate) fn feature(&self, slot: usize, place: usize) -> &[f32] {
        &self.shelves[slot].values[place * self.feature..(place + 1) * self.feature]
    }

    pub(crate) fn feature_mut(&mut self, slot: usize, place: usize) -> &mut [f32] {
        &mut self.shelves[slot].values[place * self.feature..(place + 1) * self.feature]
    }

    /// Forgets one frame: its feature could not be computed.
    pub(crate) fn forget(&mut self, slot: usize, place: usize) {
        self.shelves[slot].entries[place] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(session: u32, pts: i64) -> FrameMeta {
        FrameMeta { session: SessionId(session), pts: Pts(pts), arrival: None, wanted: 1 }
    }

    #[test]
    fn keeps_what_the_window_uses_and_gives_up_the_longest_unused() {
        let mut store = FeatureStore::new(3, 1);
        store.grow(1);
        store.begin_window(0);
        for pts in 0..3 {
            assert_eq!(store.place(0, &frame(1, pts)), Place::New(pts as usize));
        }
        store.begin_window(0);
        assert_eq!(store.place(0, &frame(1, 0)), Place::Known(0), "used again");
        assert_eq!(store.place(0, &frame(1, 3)), Place::New(1), "frame 1 was not");
        assert_eq!(store.place(0, &frame(1, 0)), Place::Known(0));
        assert_eq!(store.place(0, &frame(2, 0)), Place::New(0), "another session's frame of the same time");
    }
}
