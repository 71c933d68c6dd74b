//! The result of one call: a row of logits for each request. Reused from call to call.

/// Rows of logits, in the order of the requests. Allocates only when a call has more requests than any before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logits {
    values: Vec<f32>,
    valid: Vec<bool>,
    classes: usize,
}

impl Logits {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.valid.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.valid.is_empty()
    }

    /// Logits of request `index`, one a label; zeros if the request failed.
    ///
    /// # Panics
    /// When there are not so many rows.
    #[must_use]
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.classes..(index + 1) * self.classes]
    }

    /// Whether request `index` was answered. All are after a call without error.
    #[must_use]
    pub fn is_valid(&self, index: usize) -> bool {
        self.valid.get(index).copied().unwrap_or(false)
    }

    pub(crate) fn prepare(&mut self, rows: usize, classes: usize) {
        self.classes = classes;
        self.values.clear();
        self.values.resize(rows * classes, 0.0);
        self.valid.clear();
        self.valid.resize(rows, false);
    }

    pub(crate) fn set(&mut self, index: usize, logits: &[f32]) {
        let classes = self.classes;
        self.values[index * classes..(index + 1) * classes].copy_from_slice(logits);
        self.valid[index] = true;
    }
}
