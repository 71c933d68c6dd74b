//! Waiting times between attempts: doubling from half a second to half a minute, jittered so that a fleet does not come
//! back in step.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
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

    pub(crate) fn wait(&mut self) -> Duration {
        let wait = jittered(self.next);
        self.next = (self.next * 2).min(LONGEST);
        wait
    }

    pub(crate) fn after_takeover(&mut self) -> Duration {
        self.next = LONGEST;
        jittered(AFTER_TAKEOVER)
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
        let waits: Vec<_> = (0..12).map(|_| backoff.wait()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST);
        assert!(waits[11] >= LONGEST / 2 && waits[11] <= LONGEST);
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
        assert!(backoff.after_takeover() >= AFTER_TAKEOVER / 2);
    }
}
