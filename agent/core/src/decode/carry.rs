//! Another model behind a decoder: when what it knows of the stream still holds, and what the new model says, in one word.
//!
//! Pure. A decoder's memory (smoothed scores, alarm levels, open actions) is about labels and log-odds of calibrated
//! probabilities. It goes on under a model that has the same labels and looks for changes in the same way; thresholds, lags and
//! limits of sequences may be others, as with [`super::Decoder::revise`].

use crate::manifest::{Activation, Decoding, Label, Manifest, Output};

/// Whether a decoder of `before` can go on with scores of `after`: same labels in the same order, same background, same
/// stride, the same kind of detector for each label, the same sequences and groups.
#[must_use]
pub fn carries(before: &Manifest, after: &Manifest) -> bool {
    let (Decoding { stride, background, labels, sequences, exclusive, .. }, new) =
        (before.decoding(), after.decoding());
    let same_sequences = sequences.len() == new.sequences.len()
        && sequences.iter().zip(&new.sequences).all(|(a, b)| (&a.name, &a.parts) == (&b.name, &b.parts));
    let same_labels = labels.len() == new.labels.len() && labels.iter().zip(&new.labels).all(|(a, b)| alike(a, b));
    (stride, background, exclusive) == (new.stride, new.background, new.exclusive) && same_sequences && same_labels
}

fn alike(a: &Label, b: &Label) -> bool {
    let same_detector = match (&a.decoder, &b.decoder) {
        (Some(a), Some(b)) => a.kind == b.kind && a.hmm == b.hmm,
        (None, None) => true,
        _ => false,
    };
    (&a.name, a.publish) == (&b.name, b.publish) && same_detector
}

/// The label that a row of logits speaks for: the likeliest, if it is more likely than not and not the background.
#[must_use]
pub fn spoken_for(output: &Output, logits: &[f32]) -> Option<usize> {
    let scaled = |l: f32| f64::from(l) / f64::from(output.temperature);
    let (first, most) = logits.iter().copied().map(scaled).enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let probability = match output.activation {
        Activation::Softmax => 1.0 / logits.iter().map(|&l| (scaled(l) - most).exp()).sum::<f64>(),
        Activation::Sigmoid => 1.0 / (1.0 + (-most).exp()),
    };
    (probability >= 0.5 && Some(first) != output.background).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ScoreKind;

    #[test]
    fn a_decoder_goes_on_where_labels_and_detectors_are_the_same() {
        let before = Manifest::parse(include_str!("../../testdata/model.toml")).unwrap();
        let mut after = before.clone();
        after.version = "2.0.0".into();
        after.output.temperature = 2.0;
        if let Some(decoder) = after.labels.iter_mut().find_map(|label| label.decoder.as_mut()) {
            (decoder.on, decoder.lag_start_s) = (0.9, 0.3);
        }
        assert!(carries(&before, &after), "other thresholds, lags and temperature");
        let mut renamed = before.clone();
        renamed.labels[1].name = "other".into();
        let mut silent = before.clone();
        silent.labels[1].publish = !silent.labels[1].publish;
        let mut faster = before.clone();
        faster.sampling.stride /= 2;
        assert_eq!([renamed, silent, faster].map(|after| carries(&before, &after)), [false; 3]);
    }

    #[test]
    fn a_row_speaks_for_a_label_that_is_more_likely_than_not() {
        let mut output =
            Output { scores: ScoreKind::Frame, activation: Activation::Softmax, temperature: 1.0, background: Some(0) };
        assert_eq!(spoken_for(&output, &[0.0, 3.0, 0.0]), Some(1));
        assert_eq!(spoken_for(&output, &[3.0, 0.0, 0.0]), None, "the background");
        assert_eq!(spoken_for(&output, &[0.0, 0.1, 0.0]), None, "nothing in particular");
        output.temperature = 30.0;
        assert_eq!(spoken_for(&output, &[0.0, 3.0, 0.0]), None, "less sure than it looks");
        (output.activation, output.temperature, output.background) = (Activation::Sigmoid, 1.0, None);
        assert_eq!((spoken_for(&output, &[-1.0, -2.0]), spoken_for(&output, &[-1.0, 0.5])), (None, Some(1)));
    }
}
