//! How long to wait before a camera is tried again. Pure: time and chance are handed in.

use std::time::Duration;

/// Waiting times after failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffOptions {
    /// After the first failure; doubles from there.
    pub first: Duration,
    /// At most. A try costs a few milliseconds, a camera that is back and not asked costs what it sees meanwhile.
    pub max: Duration,
}

impl Default for BackoffOptions {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), max: Duration::from_secs(3) }
    }
}

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

    /// The next wait. `chance` lies in 0..1 and spreads it over 80 to 120 %, so that cameras behind one switch do not return
    /// together.
    pub(crate) fn next(&mut self, chance: f64) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        self.options.first.saturating_mul(factor).min(self.options.max).mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit() {
        let mut backoff = Backoff::new(BackoffOptions::default());
        let waits: Vec<_> = (0..5).map(|_| backoff.next(0.5).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 3000, 3000]);
        for _ in 0..100 {
            assert_eq!(backoff.next(1.0).as_millis(), 3600);
        }
        backoff.reset();
        assert_eq!(backoff.next(1.0).as_millis(), 600);
    }
}
