//! A part of the picture: what a zone of a camera and a box of a model are.

/// A rectangle in fractions of the picture: `0 <= x0 < x1 <= 1` from the left, `0 <= y0 < y1 <= 1` from the top.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region([f32; 4]);

/// Four numbers that are no region.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RegionError {
    /// Not within the picture.
    #[error("{name} = {value} is outside 0 to 1; write x0, y0, x1, y1 as fractions of the picture, not as pixels")]
    Outside {
        /// Which of the four.
        name: &'static str,
        /// As given.
        value: f32,
    },
    /// Nothing lies between the two.
    #[error("{low} = {from} is not below {high} = {to}; write x0, y0, x1, y1 with the upper left corner first")]
    Empty {
        /// Name of the first.
        low: &'static str,
        /// As given.
        from: f32,
        /// Name of the second.
        high: &'static str,
        /// As given.
        to: f32,
    },
}

impl Region {
    /// All of the picture.
    pub const WHOLE: Self = Self([0.0, 0.0, 1.0, 1.0]);

    /// From x0, y0, x1, y1.
    ///
    /// # Errors
    /// A number outside 0 to 1, or a corner that does not lie before its opposite.
    pub fn new(corners: [f32; 4]) -> Result<Self, RegionError> {
        for (name, value) in ["x0", "y0", "x1", "y1"].into_iter().zip(corners) {
            if !(0.0..=1.0).contains(&value) {
                return Err(RegionError::Outside { name, value });
            }
        }
        let [x0, y0, x1, y1] = corners;
        for (low, from, high, to) in [("x0", x0, "x1", x1), ("y0", y0, "y1", y1)] {
            if from >= to {
                return Err(RegionError::Empty { low, from, high, to });
            }
        }
        Ok(Self(corners))
    }

    /// x0, y0, x1, y1.
    #[must_use]
    pub fn corners(self) -> [f32; 4] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rectangles_within_the_picture_are_regions() {
        assert_eq!(Region::new([0.0, 0.0, 1.0, 1.0]), Ok(Region::WHOLE));
        let told = |corners| Region::new(corners).unwrap_err().to_string();
        let fractions = "write x0, y0, x1, y1 as fractions of the picture, not as pixels";
        assert_eq!(told([0.0, 0.0, 320.0, 0.5]), format!("x1 = 320 is outside 0 to 1; {fractions}"));
        assert_eq!(told([0.0, -0.1, 0.5, 0.5]), format!("y0 = -0.1 is outside 0 to 1; {fractions}"));
        assert_eq!(told([f32::NAN, 0.0, 1.0, 1.0]), format!("x0 = NaN is outside 0 to 1; {fractions}"));
        let corner = "write x0, y0, x1, y1 with the upper left corner first";
        assert_eq!(told([0.5, 0.0, 0.1, 1.0]), format!("x0 = 0.5 is not below x1 = 0.1; {corner}"));
        assert_eq!(told([0.1, 0.5, 0.5, 0.5]), format!("y0 = 0.5 is not below y1 = 0.5; {corner}"));
    }
}
