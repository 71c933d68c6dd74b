//! Waiting times between attempts: doubling from half a second to half a minute, jittered so that a fleet does not come
//! back in step; and what counts as too many connections that broke.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// Between connections that each deliver something before they break.
const LONGEST_WITH_PROGRESS: Duration = Duration::from_secs(10);
/// After a takeover: the other client is as stubborn as we are.
const AFTER_TAKEOVER: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The connection has proved useful: start small again.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next wait. `progress`: something was acknowledged on the connection that is gone.
    pub(crate) fn wait(&mut self, progress: bool) -> Duration {
        let longest = if progress { LONGEST_WITH_PROGRESS } else { LONGEST };
        let wait = jittered(self.next.min(longest));
        self.next = (self.next * 2).min(LONGEST);
        wait
    }

    pub(crate) fn after_takeover(&mut self) -> Duration {
        self.next = LONGEST;
        jittered(AFTER_TAKEOVER)
    }
}

/// So many connections that broke …
const MANY: usize = 3;
/// … within this time are no accident.
pub(crate) const LATELY: Duration = Duration::from_secs(180);

/// Connections that broke lately, whatever their age: two twins throw each other out at the pace of their patience.
#[derive(Debug, Default)]
pub(crate) struct Breaks(VecDeque<Instant>);

impl Breaks {
    /// One more; how many there were lately (from 64 on not counted any further).
    pub(crate) fn note(&mut self, now: Instant) -> usize {
        self.0.retain(|at| now.duration_since(*at) < LATELY);
        self.0.truncate(63);
        self.0.push_front(now);
        self.0.len()
    }

    /// Whether these are too many for a coincidence.
    pub(crate) fn are_many(&self, now: Instant) -> bool {
        self.0.iter().filter(|at| now.duration_since(**at) < LATELY).count() >= MANY
    }
}

/// Between half of `longest` and all of it.
fn jittered(longest: Duration) -> Duration {
    // Seeded from the operating system's randomness for each instance; no need for a generator of our own.
    let random = RandomState::new().build_hasher().finish();
    longest.mul_f64(0.5 + 0.5 * (random >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_bound_and_resets() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..12).map(|_| backoff.wait(false)).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST);
        assert!(waits[11] >= LONGEST / 2 && waits[11] <= LONGEST);
        assert!(backoff.wait(true) <= LONGEST_WITH_PROGRESS, "a connection that delivers is worth coming back to");
        backoff.reset();
        assert!(backoff.wait(false) <= FIRST);
        assert!(backoff.after_takeover() >= AFTER_TAKEOVER / 2);
    }

    #[test]
    fn many_breaks_are_those_within_three_minutes() {
        let (mut breaks, start) = (Breaks::default(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        assert_eq!([0, 100, 181, 240].map(|s| breaks.note(at(s))), [1, 2, 2, 3]);
        assert!(breaks.are_many(at(241)) && !breaks.are_many(at(290)));
        for _ in 0..1000 {
            breaks.note(at(300));
        }
        assert_eq!(breaks.0.len(), 64);
    }
}
