//! How long to wait before a camera is tried again. Pure: time and chance are handed in.

use std::time::Duration;

/// Waiting times after failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffOptions {
    /// After the first failure; doubles from there.
    pub first: Duration,
    /// At most, during the first minute of an outage: most outages are a restart.
    pub early_max: Duration,
    /// At most, later.
    pub max: Duration,
}

impl Default for BackoffOptions {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), early_max: Duration::from_secs(2), max: Duration::from_secs(30) }
    }
}

/// An outage lasts `EARLY` before the longer limit holds.
const EARLY: Duration = Duration::from_secs(60);

/// A stream that ran so long ends the outage before it.
pub(crate) const HEALTHY: Duration = Duration::from_secs(10);

/// State of one outage.
#[derive(Debug)]
pub(crate) struct Backoff {
    options: BackoffOptions,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(options: BackoffOptions) -> Self {
        Self { options, failures: 0 }
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next wait. `outage` is the time since the stream was last well, `chance` lies in 0..1 and spreads the wait
    /// over 80 to 120 %, so that cameras behind one switch do not return together.
    pub(crate) fn next(&mut self, outage: Duration, chance: f64) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        let limit = if outage < EARLY { self.options.early_max } else { self.options.max };
        self.options.first.saturating_mul(factor).min(limit).mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_their_limits() {
        let mut backoff = Backoff::new(BackoffOptions::default());
        let mut wait = |outage| backoff.next(Duration::from_secs(outage), 0.5).as_millis();
        assert_eq!([wait(0), wait(1), wait(2), wait(5)], [500, 1000, 2000, 2000]);
        assert_eq!([wait(60), wait(80)], [8000, 16000]);
        assert_eq!(wait(4000), 30_000);
        backoff.reset();
        assert_eq!(backoff.next(Duration::ZERO, 1.0).as_millis(), 600);
    }
}
