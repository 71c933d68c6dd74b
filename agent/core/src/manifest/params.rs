//! Parameters of a label's decoder, and what a configuration may change of them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::error::nearest;
use super::{Manifest, ManifestError, Period, ScoreModel};

/// How scores of one label become intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecoderKind {
    /// Two-sided CUSUM with a back-dated start: for per-frame scores.
    Cusum,
    /// Box-smoothed hysteresis: for clip scores.
    Hysteresis,
    /// Hidden Markov model of the scores: needs [`DecoderParams::hmm`].
    Hmm,
}

/// Parameters of one label's decoder; seconds of media time unless the name says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderParams {
    /// Which decoder.
    pub kind: DecoderKind,
    /// Probability to open at, below 1.
    pub on: f64,
    /// Probability to close at, above 0, at most `on`.
    pub off: f64,
    /// Hysteresis: span of the box filter over logits.
    #[serde(default)]
    pub smooth_s: f64,
    /// CUSUM: evidence to open, logit-seconds.
    #[serde(default = "half")]
    pub h_on: f64,
    /// CUSUM: evidence to close, logit-seconds.
    #[serde(default = "half")]
    pub h_off: f64,
    /// Shorter actions are not reported.
    #[serde(default)]
    pub min_duration_s: f64,
    /// A repetition that begins this soon after the end is the same action; the end is told that much later.
    #[serde(default)]
    pub merge_gap_s: f64,
    /// Longer actions are closed.
    #[serde(default = "minute")]
    pub max_duration_s: f64,
    /// An action that begins this soon after the last one ended is not reported.
    #[serde(default)]
    pub cooldown_s: f64,
    /// Subtracted from the decoder's start.
    #[serde(default)]
    pub lag_start_s: f64,
    /// Subtracted from the decoder's end.
    #[serde(default)]
    pub lag_end_s: f64,
    /// Of the start, milliseconds.
    #[serde(default)]
    pub uncertainty_start_ms: f64,
    /// Of the end, milliseconds.
    #[serde(default)]
    pub uncertainty_end_ms: f64,
    /// HMM: how scores behave.
    pub hmm: Option<ScoreModel>,
}

fn half() -> f64 {
    0.5
}

fn minute() -> f64 {
    60.0
}

impl DecoderParams {
    /// Checks every bound; `key` is the path of the table, for the error; `stride_s`: usual time between scores.
    pub(crate) fn check(&self, key: &str, stride_s: f64) -> Result<(), ManifestError> {
        let within = |name: &str, value: f64, lo: f64, hi: f64| {
            if value.is_finite() && (lo..=hi).contains(&value) {
                return Ok(());
            }
            Err(ManifestError::invalid(format!("{key}.{name}"), format!("{value} is outside {lo} to {hi}")))
        };
        within("on", self.on, 1e-6, 1.0 - 1e-6)?;
        within("off", self.off, 1e-6, 1.0 - 1e-6)?;
        if self.off > self.on {
            let problem = format!("{} is above on = {}; set off at or below on", self.off, self.on);
            return Err(ManifestError::invalid(format!("{key}.off"), problem));
        }
        within("smooth_s", self.smooth_s, 0.0, 60.0)?;
        within("h_on", self.h_on, 1e-6, 1000.0)?;
        within("h_off", self.h_off, 1e-6, 1000.0)?;
        within("min_duration_s", self.min_duration_s, 0.0, 3600.0)?;
        within("merge_gap_s", self.merge_gap_s, 0.0, 600.0)?;
        within("max_duration_s", self.max_duration_s, 1e-3, 86_400.0)?;
        if self.max_duration_s <= self.min_duration_s {
            let problem =
                format!("{} is not above min_duration_s = {}; raise it", self.max_duration_s, self.min_duration_s);
            return Err(ManifestError::invalid(format!("{key}.max_duration_s"), problem));
        }
        within("cooldown_s", self.cooldown_s, 0.0, 86_400.0)?;
        within("lag_start_s", self.lag_start_s, -60.0, 60.0)?;
        within("lag_end_s", self.lag_end_s, -60.0, 60.0)?;
        within("uncertainty_start_ms", self.uncertainty_start_ms, 0.0, 60_000.0)?;
        within("uncertainty_end_ms", self.uncertainty_end_ms, 0.0, 60_000.0)?;
        match (self.kind, self.hmm) {
            (DecoderKind::Hmm, None) => {
                Err(ManifestError::invalid(format!("{key}.hmm"), "is missing; kind \"hmm\" needs this table"))
            }
            (DecoderKind::Hmm, Some(model)) => {
                let key = format!("{key}.hmm");
                model.check(&key)?;
                model.check_stride(&key, stride_s)
            }
            (_, Some(_)) => Err(ManifestError::invalid(format!("{key}.hmm"), "is only for kind \"hmm\"; remove it")),
            (_, None) => Ok(()),
        }
    }
}

/// What a configuration changes of a package's decoders: by label (or sequence) name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Overrides(pub BTreeMap<String, DecoderOverride>);

/// Changed parameters of one label; what is left out stays as packaged. See [`DecoderParams`] for units.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecoderOverride {
    /// Probability to open at.
    pub on: Option<f64>,
    /// Probability to close at.
    pub off: Option<f64>,
    /// Hysteresis: span of the box filter, seconds.
    pub smooth_s: Option<f64>,
    /// CUSUM: evidence to open, logit-seconds.
    pub h_on: Option<f64>,
    /// CUSUM: evidence to close, logit-seconds.
    pub h_off: Option<f64>,
    /// Shorter actions are not reported, seconds.
    pub min_duration_s: Option<f64>,
    /// Repetitions this close are one action, seconds.
    pub merge_gap_s: Option<f64>,
    /// Longer actions are closed, seconds.
    pub max_duration_s: Option<f64>,
    /// An action that begins this soon after the last one is not reported, seconds.
    pub cooldown_s: Option<f64>,
    /// Subtracted from the start, seconds.
    pub lag_start_s: Option<f64>,
    /// Subtracted from the end, seconds.
    pub lag_end_s: Option<f64>,
    /// Of the start, milliseconds.
    pub uncertainty_start_ms: Option<f64>,
    /// Of the end, milliseconds.
    pub uncertainty_end_ms: Option<f64>,
    /// Sequences only: longest pause between parts, seconds.
    pub within_s: Option<f64>,
    /// Thresholds at certain times of the day; the first that holds counts.
    pub schedule: Vec<Period>,
}

impl Overrides {
    /// Checks that every name and every resulting value fits the package.
    ///
    /// # Errors
    /// A name that the package does not decode, or a value out of bounds.
    pub fn check(&self, manifest: &Manifest) -> Result<(), ManifestError> {
        for (name, change) in &self.0 {
            let key = format!("decoder.{name}");
            if let Some(label) = manifest.labels.iter().find(|l| &l.name == name) {
                let Some(params) = label.decoder else {
                    return Err(ManifestError::invalid(key, "the package has no decoder for this label; remove it"));
                };
                if change.within_s.is_some() {
                    return Err(ManifestError::invalid(format!("{key}.within_s"), "is for sequences; remove it"));
                }
                let stride_s = manifest.sampling.stride as f64 / 1e9;
                let usual = change.applied(params);
                usual.check(&key, stride_s)?;
                for (i, period) in change.schedule.iter().enumerate() {
                    period.applied(usual).check(&format!("{key}.schedule[{i}]"), stride_s)?;
                }
            } else if manifest.sequences.iter().any(|s| &s.name == name) {
                change.check_sequence(&key)?;
            } else {
                return Err(unknown_label(manifest, name, key));
            }
        }
        Ok(())
    }

    /// The packaged parameters with the changes for `label`.
    pub(crate) fn params(&self, label: &str, packaged: DecoderParams) -> DecoderParams {
        self.0.get(label).map_or(packaged, |change| change.applied(packaged))
    }

    /// What changes with the time of day for `label`.
    pub(crate) fn schedule(&self, label: &str) -> &[Period] {
        self.0.get(label).map_or(&[], |change| &change.schedule)
    }

    /// The packaged pause between the parts of a sequence, or the changed one; ns.
    pub(crate) fn within(&self, sequence: &str, packaged: i64) -> i64 {
        self.0.get(sequence).and_then(|change| change.within_s).map_or(packaged, crate::time::seconds_to_nanos)
    }
}

fn unknown_label(manifest: &Manifest, name: &str, key: String) -> ManifestError {
    let decoded = manifest.labels.iter().filter(|l| l.decoder.is_some()).map(|l| l.name.as_str());
    let known: Vec<&str> = decoded.chain(manifest.sequences.iter().map(|s| s.name.as_str())).collect();
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it has {}", known.join(", ")),
    };
    ManifestError::invalid(key, format!("the package {} has no such label; {hint}", manifest.name))
}

impl DecoderOverride {
    fn applied(&self, p: DecoderParams) -> DecoderParams {
        DecoderParams {
            kind: p.kind,
            on: self.on.unwrap_or(p.on),
            off: self.off.unwrap_or(p.off),
            smooth_s: self.smooth_s.unwrap_or(p.smooth_s),
            h_on: self.h_on.unwrap_or(p.h_on),
            h_off: self.h_off.unwrap_or(p.h_off),
            min_duration_s: self.min_duration_s.unwrap_or(p.min_duration_s),
            merge_gap_s: self.merge_gap_s.unwrap_or(p.merge_gap_s),
            max_duration_s: self.max_duration_s.unwrap_or(p.max_duration_s),
            cooldown_s: self.cooldown_s.unwrap_or(p.cooldown_s),
            lag_start_s: self.lag_start_s.unwrap_or(p.lag_start_s),
            lag_end_s: self.lag_end_s.unwrap_or(p.lag_end_s),
            uncertainty_start_ms: self.uncertainty_start_ms.unwrap_or(p.uncertainty_start_ms),
            uncertainty_end_ms: self.uncertainty_end_ms.unwrap_or(p.uncertainty_end_ms),
            hmm: p.hmm,
        }
    }

    fn check_sequence(&self, key: &str) -> Result<(), ManifestError> {
        let only_within = Self { within_s: self.within_s, ..Self::default() };
        if *self != only_within {
            let problem = "a sequence takes only within_s; max_duration_s is the package's, set the rest on its labels";
            return Err(ManifestError::invalid(key, problem));
        }
        match self.within_s {
            Some(s) if !(s > 0.0 && s <= 600.0) => {
                Err(ManifestError::invalid(format!("{key}.within_s"), format!("{s} is outside 0 to 600")))
            }
            _ => Ok(()),
        }
    }
}
