//! So many a second, with a reserve for a burst: a token bucket. Pure.

use std::time::Instant;

#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    most: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// `(per second, at once)`; full at `now`.
    pub(super) fn new((per_second, most): (f64, f64), now: Instant) -> Self {
        Self { per_second, most, tokens: most, filled: now }
    }

    /// Whether one more is within the rate; if so it counts.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * self.per_second).min(self.most);
        self.filled = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new((10.0, 20.0), start);
        let taken = |bucket: &mut Bucket, at| (0..100).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, start), 20);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(1)), 10);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(3600)), 20, "no more is saved up");
    }
}
