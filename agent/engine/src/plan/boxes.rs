//! The boxes of every stream, in one array: a stream is a row, written when its boxes are set and copied for each window.

use kinewatch_core::region::Region;

/// Boxes by slot.
#[derive(Debug)]
pub(crate) struct BoxTable {
    values: Vec<f32>,
    count: usize,
}

impl BoxTable {
    /// For `count` boxes of a stream.
    pub(crate) fn new(count: usize) -> Self {
        Self { values: Vec::new(), count }
    }

    /// Streams not seen before have the whole picture for every box.
    pub(crate) fn grow(&mut self, slots: usize) {
        while self.values.len() < slots * 4 * self.count {
            self.values.extend(Region::WHOLE.corners());
        }
    }

    /// Boxes that `regions` do not name are the whole picture.
    pub(crate) fn set(&mut self, slot: usize, regions: &[Region]) {
        let all = regions.iter().copied().chain(std::iter::repeat(Region::WHOLE));
        let base = slot * 4 * self.count;
        for (to, region) in self.values[base..base + 4 * self.count].chunks_exact_mut(4).zip(all) {
            to.copy_from_slice(&region.corners());
        }
    }

    /// The boxes of a stream, four numbers each.
    pub(crate) fn row(&self, slot: usize) -> &[f32] {
        &self.values[slot * 4 * self.count..(slot + 1) * 4 * self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_the_whole_picture() {
        let corners = [0.25, 0.0, 0.5, 1.0];
        let region = Region::new(corners).unwrap();
        let whole = Region::WHOLE.corners();
        let mut table = BoxTable::new(2);
        table.grow(2);
        table.set(1, &[region]);
        assert_eq!((table.row(0), table.row(1)), (&[whole, whole].concat()[..], &[corners, whole].concat()[..]));
        table.grow(3);
        assert_eq!(table.row(1)[..4], corners, "growing keeps what is there");
        table.set(1, &[]);
        assert_eq!(table.row(1), table.row(2));
    }
}
