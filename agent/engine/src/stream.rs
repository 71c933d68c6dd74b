//! Which streams a model serves: numbered slots, reused, so that states and caches live in flat arrays.

/// A (camera, model) pair as the engine knows it. Only good for the model that gave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    slot: usize,
    generation: u32,
}

/// Slots in use and free.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    generations: Vec<u32>,
    live: Vec<bool>,
}

impl Slots {
    pub(crate) fn add(&mut self) -> Stream {
        let slot = match self.live.iter().position(|live| !live) {
            Some(free) => free,
            None => {
                self.live.push(false);
                self.generations.push(0);
                self.live.len() - 1
            }
        };
        self.live[slot] = true;
        Stream { slot, generation: self.generations[slot] }
    }

    /// The slot, or `None` after [`Slots::remove`].
    pub(crate) fn slot(&self, stream: Stream) -> Option<usize> {
        let known = self.live.get(stream.slot).copied().unwrap_or(false);
        (known && self.generations[stream.slot] == stream.generation).then_some(stream.slot)
    }

    pub(crate) fn remove(&mut self, stream: Stream) {
        if let Some(slot) = self.slot(stream) {
            self.live[slot] = false;
            self.generations[slot] = self.generations[slot].wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_stream_is_never_mistaken_for_the_next_one_in_its_slot() {
        let mut slots = Slots::default();
        let (a, b) = (slots.add(), slots.add());
        assert_eq!((slots.slot(a), slots.slot(b)), (Some(0), Some(1)));
        slots.remove(a);
        let c = slots.add();
        assert_eq!((slots.slot(a), slots.slot(c)), (None, Some(0)));
    }
}
