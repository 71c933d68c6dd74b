//! Pictures that repeat byte for byte: a source that hangs and still says all is well, as Argus can after an error.
//!
//! A sensor's noise makes every picture a new one, however still the scene. An encoder does not: where nothing moves it
//! says "as before", and the same bytes are right. So only sources straight from a sensor are watched unless told
//! otherwise ([`crate::CameraOptions::frozen_timeout`]). Whole frames are compared, by a hash (25 µs for 160x160): a sample
//! of the bytes would miss what is small and moves. Pure; owned by the delivery.

use std::hash::{DefaultHasher, Hasher};

/// Between the darkest and the brightest of one colour in a picture that shows something. A covered lens gives the same
/// black again and again and is no fault.
const CONTRAST: u8 = 16;

/// What the last frames had in common. Times are of `CLOCK_MONOTONIC`, nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Still {
    hash: Option<u64>,
    since: i64,
    changes: u64,
    /// Whether the last picture shows something, once it has come again.
    shows: Option<bool>,
}

impl Still {
    /// Takes a frame note of. Since when all frames were like it; `None` when the one before was not.
    pub(crate) fn look(&mut self, rgb: &[u8], now: i64) -> Option<i64> {
        let mut hasher = DefaultHasher::new();
        hasher.write(rgb);
        let hash = hasher.finish();
        if self.hash.replace(hash) != Some(hash) {
            self.since = now;
            self.changes += 1;
            self.shows = None;
            return None;
        }
        self.shows.get_or_insert_with(|| shows_something(rgb)).then_some(self.since)
    }

    /// A new pipeline: its time counts from its own first frame.
    pub(crate) fn restart(&mut self, now: i64) {
        self.since = now;
    }

    /// How often a frame was not like the one before, over all pipelines.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }
}

/// Each colour for itself: a picture of one tint shows nothing.
fn shows_something(rgb: &[u8]) -> bool {
    let (mut low, mut high) = ([u8::MAX; 3], [0; 3]);
    for pixel in rgb.as_chunks::<3>().0 {
        for (colour, byte) in pixel.iter().enumerate() {
            low[colour] = low[colour].min(*byte);
            high[colour] = high[colour].max(*byte);
        }
    }
    low.iter().zip(high).any(|(low, high)| high.saturating_sub(*low) >= CONTRAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_is_a_change_and_a_black_picture_is_no_sign_of_anything() {
        let mut still = Still::default();
        let mut picture = vec![0_u8; 64 * 48 * 3];
        picture[100] = 200;
        assert_eq!(still.look(&picture, 1), None);
        assert_eq!(still.look(&picture, 2), Some(1));
        assert_eq!(still.look(&picture, 3), Some(1));
        picture[9000] ^= 1;
        assert_eq!(still.look(&picture, 4), None);
        assert_eq!(still.look(&picture, 5), Some(4));
        still.restart(7);
        assert_eq!(still.look(&picture, 8), Some(7), "the picture is that of the pipeline before");
        assert_eq!(still.changes(), 2);
        let black = vec![3_u8; 64 * 48 * 3];
        assert_eq!((still.look(&black, 9), still.look(&black, 10)), (None, None));
    }

    #[test]
    fn one_colour_is_no_sign_of_anything_however_bright() {
        let mut still = Still::default();
        let mut picture: Vec<u8> = [250, 120, 10].repeat(64 * 48);
        assert_eq!((still.look(&picture, 1), still.look(&picture, 2)), (None, None));
        picture[3 * 100 + 2] += 40;
        assert_eq!((still.look(&picture, 3), still.look(&picture, 4)), (None, Some(3)));
    }
}
