//! How the calls of one model go: what a candidate, or a model that is new in its place, is judged by.
//!
//! Written by the thread that infers, with relaxed atomics, and read by any; no lock, no memory that grows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;

/// Steps to a doubling: a quantile is known to a twelfth.
const STEPS: u32 = 8;
/// The shortest time that is told apart, microseconds; 24 doublings above lie 28 minutes.
const SHORTEST_US: f64 = 100.0;
const BUCKETS: usize = 24 * STEPS as usize;

/// Upper bounds of the inference duration histogram, seconds.
pub const DURATION_BOUNDS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// Requests by what became of them, and how long calls took.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that were answered.
    pub answered: AtomicU64,
    /// Requests that the back end failed on.
    pub failed: AtomicU64,
    /// Requests whose answer held a number that is not finite.
    pub not_finite: AtomicU64,
    /// Time of a call, by request in it.
    pub latency: Latencies,
}

/// A candidate that is tried beside the model that it may replace.
#[derive(Debug, Default)]
pub struct TrialView {
    /// Name in the configuration.
    pub model: String,
    /// Version of the candidate.
    pub version: String,
    /// SHA-256 of its manifest, hex.
    pub sha256: String,
    /// Its calls.
    pub tally: Tally,
    /// Windows that could be compared with the model in use.
    pub compared: AtomicU64,
    /// Of those, on how many both agreed.
    pub agreed: AtomicU64,
    /// Its newest failure.
    pub fault: ArcSwapOption<String>,
}

/// A histogram of durations with steps of a twelfth.
#[derive(Debug)]
pub struct Latencies([AtomicU64; BUCKETS]);

impl Default for Latencies {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Latencies {
    /// Counts a call of `requests` requests: each as long as its part of the call.
    pub fn observe(&self, took: Duration, requests: usize) {
        let each_us = took.as_secs_f64() * 1e6 / requests.max(1) as f64;
        let step = (each_us / SHORTEST_US).max(1.0).log2() * f64::from(STEPS);
        // A float that is too large is cast to the largest integer.
        let bucket = (step.ceil() as usize).min(BUCKETS - 1);
        self.0[bucket].fetch_add(requests as u64, Relaxed);
    }

    /// The time that so large a part of them (0 to 1) stayed within is not shorter than this, milliseconds; `None` before the
    /// first.
    #[must_use]
    pub fn quantile_at_least_ms(&self, part: f64) -> Option<f64> {
        self.quantile_ms(part).map(|most| most / 2f64.powf(1.0 / f64::from(STEPS)))
    }

    /// The time that so large a part of them (0 to 1) stayed within, milliseconds, at most a twelfth too large; `None` before
    /// the first.
    #[must_use]
    pub fn quantile_ms(&self, part: f64) -> Option<f64> {
        let counts: Vec<u64> = self.0.iter().map(|n| n.load(Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let wanted = ((all as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = counts.iter().position(|n| {
            seen += n;
            seen >= wanted
        })?;
        Some(SHORTEST_US / 1e3 * 2f64.powf(bucket as f64 / f64::from(STEPS)))
    }
}

/// Counts of durations by [`DURATION_BOUNDS`], without a lock.
#[derive(Debug, Default)]
pub struct DurationHistogram {
    /// One more than the bounds: the last counts what lies above.
    buckets: [AtomicU64; DURATION_BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl DurationHistogram {
    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = DURATION_BOUNDS.iter().position(|b| seconds <= *b).unwrap_or(DURATION_BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Sum in seconds, count, and the count of each bucket with its upper bound.
    #[must_use]
    pub fn read(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let bounds = DURATION_BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.buckets.iter().map(|b| b.load(Relaxed))).collect();
        let count = buckets.iter().map(|b| b.1).sum();
        (self.sum_ns.load(Relaxed) as f64 / 1e9, count, buckets)
    }
}

impl Tally {
    /// Requests that were answered or not.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.answered.load(Relaxed) + self.failed.load(Relaxed) + self.not_finite.load(Relaxed)
    }

    /// Adds the requests of a call.
    pub fn note(&self, answered: usize, failed: usize, not_finite: usize) {
        self.answered.fetch_add(answered as u64, Relaxed);
        self.failed.fetch_add(failed as u64, Relaxed);
        self.not_finite.fetch_add(not_finite as u64, Relaxed);
    }
}

impl TrialView {
    /// The part of the windows on which both models agreed, 0 to 1; `None` before the first.
    #[must_use]
    pub fn agreement(&self) -> Option<f64> {
        let compared = self.compared.load(Relaxed);
        (compared > 0).then(|| self.agreed.load(Relaxed) as f64 / compared as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_that_holds_them() {
        let h = DurationHistogram::default();
        for ms in [1, 4, 4, 9_000] {
            h.observe(Duration::from_millis(ms));
        }
        let (sum, count, buckets) = h.read();
        assert_eq!((count, buckets[0].1, buckets[2].1, buckets[14].1), (4, 1, 2, 1));
        assert!((sum - 9.009).abs() < 1e-9);
    }

    #[test]
    fn a_quantile_is_at_most_a_twelfth_too_large() {
        let latencies = Latencies::default();
        assert_eq!(latencies.quantile_ms(0.99), None);
        (0..98).for_each(|_| latencies.observe(Duration::from_millis(10), 1));
        (0..2).for_each(|_| latencies.observe(Duration::from_millis(400), 2));
        let (half, p99) = (latencies.quantile_ms(0.5).unwrap(), latencies.quantile_ms(0.99).unwrap());
        assert!((10.0..10.0 * 1.0906).contains(&half), "{half}");
        assert!((200.0..200.0 * 1.0906).contains(&p99), "a call of two is two of half its time: {p99}");
        assert!((200.0 / 1.0906..=200.0).contains(&latencies.quantile_at_least_ms(0.99).unwrap()));
        latencies.observe(Duration::ZERO, 1);
        latencies.observe(Duration::from_secs(1 << 40), 1);
        assert_eq!(latencies.quantile_ms(0.0), Some(0.1));
    }
}
