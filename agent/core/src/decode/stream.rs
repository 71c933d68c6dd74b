//! The decoder of one (camera, model) pair.

use super::{Decision, EndReason};
use crate::manifest::{Manifest, ManifestError, Overrides};
use crate::time::Pts;

/// Turns the logits of one (camera, model) pair into decisions.
#[derive(Clone, Debug)]
pub struct Decoder {
    published: Vec<String>,
    ids: Vec<Option<u16>>,
    score_labels: Vec<String>,
    scores: Vec<f32>,
}

impl Decoder {
    /// A decoder for a model, with the changes of the configuration.
    ///
    /// # Errors
    /// The overrides do not fit the package.
    pub fn new(manifest: &Manifest, overrides: &Overrides) -> Result<Self, ManifestError> {
        overrides.check(manifest)?;
        let _ = manifest;
        Ok(Self { published: vec![], ids: vec![], score_labels: vec![], scores: vec![] })
    }

    /// Names by [`Decision::label`].
    #[must_use]
    pub fn published_labels(&self) -> &[String] {
        &self.published
    }

    /// Logit index by [`Decision::label`]; `None` for a sequence.
    #[must_use]
    pub fn published_label_ids(&self) -> &[Option<u16>] {
        &self.ids
    }

    /// Names of [`Decoder::scores`].
    #[must_use]
    pub fn score_labels(&self) -> &[String] {
        &self.score_labels
    }

    /// Logit of the calibrated probability of each label but the background, of the last step.
    #[must_use]
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// Takes the logits of a window whose newest frame is at `at`.
    pub fn step(&mut self, _at: Pts, _logits: &[f32], _out: &mut Vec<Decision>) {}

    /// Closes all open actions.
    pub fn gap(&mut self, _at: Pts, _reason: EndReason, _out: &mut Vec<Decision>) {}

    /// Published labels of the actions that go on, with their start.
    pub fn open_actions(&self) -> impl Iterator<Item = (&str, Pts)> {
        std::iter::empty()
    }
}
