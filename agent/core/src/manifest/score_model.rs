//! What scores look like within and outside an action: the model behind `kind = "hmm"`.

use serde::Deserialize;

use super::ManifestError;

/// Most strides that a window may span for the model to stay small.
const MAX_WINDOW_STRIDES: f64 = 16.0;

/// How the scores of one label behave. Levels are log-odds, times seconds of media.
///
/// A score is the mean, over the window it looks back on, of `high` where the action goes on and `low` where it does not;
/// plus a deviation that is correlated from one score to the next; plus now and then a short burst up or down.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreModel {
    /// Media time that a score looks back on.
    pub window_s: f64,
    /// Mean score outside an action.
    pub low: f64,
    /// Mean score of a window that the action fills.
    pub high: f64,
    /// Standard deviation of a score about its mean.
    pub deviation: f64,
    /// Correlation of a deviation with the one a stride before.
    pub correlation: f64,
    /// Shortest action.
    pub shortest_s: f64,
    /// Shortest pause between two actions.
    pub pause_s: f64,
    /// Mean length of an action beyond the shortest.
    pub length_s: f64,
    /// Mean time from the end of an action to the next.
    pub apart_s: f64,
    /// Height of bursts, up or down.
    pub burst: f64,
    /// Mean length of a burst.
    pub burst_s: f64,
    /// Bursts up.
    pub bursts_per_hour: f64,
    /// Bursts down.
    pub dropouts_per_hour: f64,
}

impl ScoreModel {
    /// Checks every bound; `key` is the path of the table, for the error.
    pub(crate) fn check(&self, key: &str) -> Result<(), ManifestError> {
        let within = |name: &str, value: f64, lo: f64, hi: f64| {
            if value.is_finite() && (lo..=hi).contains(&value) {
                return Ok(());
            }
            Err(ManifestError::invalid(format!("{key}.{name}"), format!("{value} is outside {lo} to {hi}")))
        };
        within("window_s", self.window_s, 0.0, 60.0)?;
        within("low", self.low, -20.0, 20.0)?;
        within("high", self.high, -20.0, 20.0)?;
        if self.high < self.low + 0.1 {
            let problem = format!("{} is not above low = {}; scores tell nothing then", self.high, self.low);
            return Err(ManifestError::invalid(format!("{key}.high"), problem));
        }
        within("deviation", self.deviation, 0.01, 20.0)?;
        within("correlation", self.correlation, 0.0, 0.99)?;
        within("shortest_s", self.shortest_s, 0.0, 60.0)?;
        within("pause_s", self.pause_s, 0.0, 60.0)?;
        within("length_s", self.length_s, 1e-3, 86_400.0)?;
        within("apart_s", self.apart_s, 1e-3, 31_536_000.0)?;
        within("burst", self.burst, 0.0, 20.0)?;
        within("burst_s", self.burst_s, 1e-3, 60.0)?;
        within("bursts_per_hour", self.bursts_per_hour, 0.0, 1000.0)?;
        within("dropouts_per_hour", self.dropouts_per_hour, 0.0, 1000.0)
    }

    /// Checks that a window spans few enough strides, and that bursts are rare.
    pub(crate) fn check_stride(&self, key: &str, stride_s: f64) -> Result<(), ManifestError> {
        let per_stride = (self.bursts_per_hour + self.dropouts_per_hour) * stride_s / 3600.0;
        if per_stride > 0.2 {
            let problem = format!("{} an hour is a burst in one stride of five; lower it", self.bursts_per_hour);
            return Err(ManifestError::invalid(format!("{key}.bursts_per_hour"), problem));
        }
        if self.window_s <= MAX_WINDOW_STRIDES * stride_s {
            return Ok(());
        }
        let most = MAX_WINDOW_STRIDES * stride_s;
        let problem = format!(
            "{} s is more than {MAX_WINDOW_STRIDES} strides; kind \"hmm\" takes up to {most:.2} s, use \"hysteresis\"",
            self.window_s
        );
        Err(ManifestError::invalid(format!("{key}.window_s"), problem))
    }
}
