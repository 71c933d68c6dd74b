//! The states of every stream of an online model, in one array: a stream is a row, zero at its start.

use kinewatch_core::time::SessionId;

/// States by slot.
#[derive(Debug)]
pub(crate) struct StateStore {
    values: Vec<f32>,
    /// Where each state begins within a row; one more than there are states.
    offsets: Vec<usize>,
    /// Session of the last frame seen.
    sessions: Vec<Option<SessionId>>,
}

impl StateStore {
    /// For states of these numbers of elements.
    pub(crate) fn new(sizes: impl IntoIterator<Item = usize>) -> Self {
        let mut offsets = vec![0];
        for size in sizes {
            offsets.push(offsets[offsets.len() - 1] + size);
        }
        Self { values: Vec::new(), offsets, sessions: Vec::new() }
    }

    /// Number of states of a stream.
    pub(crate) fn count(&self) -> usize {
        self.offsets.len() - 1
    }

    pub(crate) fn grow(&mut self, slots: usize) {
        self.values.resize(self.values.len().max(slots * self.row()), 0.0);
        self.sessions.resize(self.sessions.len().max(slots), None);
    }

    pub(crate) fn reset(&mut self, slot: usize) {
        let row = self.row();
        self.values[slot * row..(slot + 1) * row].fill(0.0);
        self.sessions[slot] = None;
    }

    /// Notes the session of the frame to come; a new one begins with zero states.
    pub(crate) fn enter(&mut self, slot: usize, session: SessionId) {
        if self.sessions[slot].is_some_and(|before| before != session) {
            self.reset(slot);
        }
        self.sessions[slot] = Some(session);
    }

    pub(crate) fn state(&self, slot: usize, index: usize) -> &[f32] {
        let base = slot * self.row();
        &self.values[base + self.offsets[index]..base + self.offsets[index + 1]]
    }

    pub(crate) fn state_mut(&mut self, slot: usize, index: usize) -> &mut [f32] {
        let base = slot * self.row();
        &mut self.values[base + self.offsets[index]..base + self.offsets[index + 1]]
    }

    fn row(&self) -> usize {
        self.offsets[self.offsets.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_do_not_share_and_a_new_session_starts_from_zero() {
        let mut store = StateStore::new([2, 1]);
        store.grow(2);
        store.enter(0, SessionId(1));
        store.state_mut(0, 0).fill(3.0);
        store.state_mut(1, 1).fill(4.0);
        assert_eq!((store.state(0, 0), store.state(0, 1)), (&[3.0, 3.0][..], &[0.0][..]));
        assert_eq!(store.state(1, 1), [4.0]);
        store.enter(0, SessionId(1));
        assert_eq!(store.state(0, 0), [3.0, 3.0]);
        store.enter(0, SessionId(2));
        assert_eq!(store.state(0, 0), [0.0, 0.0]);
        assert_eq!(store.state(1, 1), [4.0], "the other stream is untouched");
    }
}
