//! The sign of life of something that must not hang: when it last moved, and by when it has to move again.
//!
//! Written by the thread or task that it stands for, read by whoever watches. Never locks. Pure: instants are handed in.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What a stage keeps to: its longest step is shorter, on the slowest device.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Not watched: nothing is due.
const NEVER: u64 = u64::MAX;

/// A sign of life. At rest until it is touched for the first time.
#[derive(Debug)]
pub struct Beat {
    name: String,
    origin: Instant,
    limit_ms: AtomicU64,
    /// Milliseconds since `origin` of the last sign.
    last_ms: AtomicU64,
    /// Waiting that was announced with it, on top of the limit; [`NEVER`] at rest.
    allowed_ms: AtomicU64,
    on_touch: OnceLock<fn(&str)>,
}

impl Beat {
    /// A beat at rest. `origin`: any instant before the first touch. Longer than `limit` without a sign is a fault.
    #[must_use]
    pub fn new(name: impl Into<String>, limit: Duration, origin: Instant) -> Self {
        Self {
            name: name.into(),
            origin,
            limit_ms: AtomicU64::new(milliseconds(limit)),
            last_ms: AtomicU64::new(0),
            allowed_ms: AtomicU64::new(NEVER),
            on_touch: OnceLock::new(),
        }
    }

    /// What it stands for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets another limit.
    pub fn limit_to(&self, limit: Duration) {
        self.limit_ms.store(milliseconds(limit), Relaxed);
    }

    /// Calls `f` with the name at each sign of life, on the thread that gives it. For tests that make a stage hang or
    /// panic; set once.
    pub fn on_touch(&self, f: fn(&str)) {
        let _set_before = self.on_touch.set(f);
    }

    /// It moves.
    pub fn touch(&self, now: Instant) {
        self.allow(now, Duration::ZERO);
    }

    /// It moves, and is about to wait on purpose for up to `wait`.
    pub fn allow(&self, now: Instant, wait: Duration) {
        if let Some(f) = self.on_touch.get() {
            f(&self.name);
        }
        self.last_ms.store(self.since_origin(now), Relaxed);
        self.allowed_ms.store(milliseconds(wait), Relaxed);
    }

    /// It has ended, or waits for something that has a beat of its own: nothing is due until the next touch.
    pub fn rest(&self, now: Instant) {
        self.last_ms.store(self.since_origin(now), Relaxed);
        self.allowed_ms.store(NEVER, Relaxed);
    }

    /// Time since the last sign; zero at rest.
    #[must_use]
    pub fn silence(&self, now: Instant) -> Duration {
        if self.allowed_ms.load(Relaxed) == NEVER {
            return Duration::ZERO;
        }
        Duration::from_millis(self.since_origin(now).saturating_sub(self.last_ms.load(Relaxed)))
    }

    /// The silence, when it is longer than the limit and what was allowed.
    #[must_use]
    pub fn overdue(&self, now: Instant) -> Option<Duration> {
        let silence = self.silence(now);
        let due_ms = self.limit_ms.load(Relaxed).saturating_add(self.allowed_ms.load(Relaxed));
        (milliseconds(silence) > due_ms).then_some(silence)
    }

    fn since_origin(&self, now: Instant) -> u64 {
        milliseconds(now.saturating_duration_since(self.origin))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "an origin for a clock of the test's own")]
mod tests {
    use super::*;

    #[test]
    fn overdue_beyond_the_limit_and_what_was_allowed_and_never_at_rest() {
        let origin = Instant::now();
        let at = |s: u64| origin + Duration::from_secs(s);
        let beat = Beat::new("store", Duration::from_secs(20), origin);
        assert_eq!((beat.overdue(at(1000)), beat.silence(at(1000))), (None, Duration::ZERO), "not begun");
        beat.touch(at(10));
        assert_eq!(beat.overdue(at(30)), None);
        assert_eq!(beat.overdue(at(31)), Some(Duration::from_secs(21)));
        beat.allow(at(40), Duration::from_secs(60));
        assert_eq!((beat.overdue(at(120)), beat.silence(at(120))), (None, Duration::from_secs(80)));
        assert_eq!(beat.overdue(at(121)), Some(Duration::from_secs(81)));
        beat.touch(at(122));
        assert_eq!(beat.overdue(at(142)), None, "what was allowed is over with the next sign");
        beat.limit_to(Duration::from_secs(5));
        assert_eq!(beat.overdue(at(128)), Some(Duration::from_secs(6)));
        beat.rest(at(130));
        assert_eq!(beat.overdue(at(10_000)), None);
        assert_eq!(beat.silence(at(5)), Duration::ZERO, "an instant before is no silence");
    }

    #[test]
    fn a_test_can_step_in_at_each_sign() {
        static TOUCHED: AtomicU64 = AtomicU64::new(0);
        let beat = Beat::new("infer", Duration::from_secs(1), Instant::now());
        beat.touch(Instant::now());
        beat.on_touch(|name| {
            TOUCHED.fetch_add(name.len() as u64, Relaxed);
        });
        beat.touch(Instant::now());
        beat.rest(Instant::now());
        assert_eq!(TOUCHED.load(Relaxed), 5, "once, and not by resting");
    }
}
