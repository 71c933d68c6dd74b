//! How fast old messages go out: a token bucket that holds one second's worth.

use std::time::{Duration, Instant};

/// A rate limit. One thread owns it; it is handed the time.
#[derive(Debug)]
pub(super) struct Rate {
    per_s: f64,
    tokens: f64,
    at: Option<Instant>,
}

impl Rate {
    /// `per_s` a second, and as many at once after a rest.
    pub(super) fn new(per_s: u32) -> Self {
        let per_s = f64::from(per_s.max(1));
        Self { per_s, tokens: per_s, at: None }
    }

    /// Whether one may go now; if not, when the next may.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        self.tokens = (self.tokens + since.as_secs_f64() * self.per_s).min(self.per_s);
        if self.tokens < 1.0 {
            return Err(now + Duration::from_secs_f64((1.0 - self.tokens) / self.per_s));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_at_once_then_one_by_one() {
        let mut rate = Rate::new(10);
        let begin = Instant::now();
        let taken = (0..100).take_while(|_| rate.take(begin).is_ok()).count();
        assert_eq!(taken, 10);
        let next = rate.take(begin).unwrap_err();
        assert!((next - begin).abs_diff(Duration::from_millis(100)) < Duration::from_millis(1));
        assert!(rate.take(next + Duration::from_millis(1)).is_ok() && rate.take(next).is_err());
        let later = begin + Duration::from_secs(60);
        assert_eq!((0..100).take_while(|_| rate.take(later).is_ok()).count(), 10, "rest is not saved up");
    }
}
