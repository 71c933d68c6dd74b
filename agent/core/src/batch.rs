//! When to run a batch: pure policy, no queue and no clock of its own. Used by the inference thread.

use std::time::Duration;

/// How many requests may share a batch, and how long the first may wait for company.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Most requests in a batch; at least 1.
    pub max_batch: usize,
    /// Longest wait of the oldest request; zero runs whatever is there at once.
    pub deadline: Duration,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Nothing is pending: block for the next request.
    Idle,
    /// Block for at most this long for more requests, then ask again.
    Wait(Duration),
    /// Run this many requests, the oldest first.
    Run(usize),
}

impl BatchPolicy {
    /// Decides from the number of pending requests and the time that the oldest has waited.
    #[must_use]
    pub fn decide(&self, pending: usize, oldest_wait: Duration) -> Batch {
        let most = self.max_batch.max(1);
        if pending == 0 {
            Batch::Idle
        } else if pending >= most {
            Batch::Run(most)
        } else if oldest_wait >= self.deadline {
            Batch::Run(pending)
        } else {
            Batch::Wait(self.deadline - oldest_wait)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_request_runs_when_the_batch_is_full_or_its_time_is_up(max in 0usize..9, deadline in 0u64..50, pending in 0usize..20, waited in 0u64..100) {
            let policy = BatchPolicy { max_batch: max, deadline: Duration::from_millis(deadline) };
            match policy.decide(pending, Duration::from_millis(waited)) {
                Batch::Idle => prop_assert_eq!(pending, 0),
                Batch::Wait(more) => {
                    prop_assert!(pending < max.max(1) && waited < deadline);
                    prop_assert_eq!(more, Duration::from_millis(deadline - waited));
                }
                Batch::Run(n) => {
                    prop_assert!(n >= 1 && n <= pending && n <= max.max(1));
                    prop_assert!(n == max.max(1) || waited >= deadline);
                }
            }
        }
    }
}
