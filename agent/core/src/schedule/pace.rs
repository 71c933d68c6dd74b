//! Which requests of a lane are run while the device is spared: evenly one of so many, by media time, and never fewer than
//! the lane's minimum. Pure.
//!
//! The minimum of a lane is one request a second ([`MINIMUM`]) unless the camera is given another, or its own rate where that is
//! lower; of an online model it is one frame within its `max_hole_s` at least, as it would see nothing beyond. What is run is the
//! request that has just come, so it is as fresh as without the cut.

use std::time::Duration;

use crate::time::Pts;

/// No lane is asked less often than that for the sake of the device unless told otherwise, or its own stride is longer.
pub const MINIMUM: Duration = Duration::from_secs(1);

/// The pace of one lane.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    every_ns: i64,
    /// Most of `one_of` that this lane follows.
    most: u32,
    last: Option<Pts>,
}

impl Pace {
    /// For requests that come `every` so often and must not come further apart than `furthest`.
    #[must_use]
    pub fn new(every: Duration, furthest: Duration) -> Self {
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let every_ns = nanos(every).max(1);
        // A quarter for the jitter of a camera.
        let most = nanos(furthest).saturating_sub(every_ns / 4) / every_ns;
        Self { every_ns, most: u32::try_from(most).unwrap_or(u32::MAX).max(1), last: None }
    }

    /// One request of so many runs here while the device asks for one of `one_of`.
    #[must_use]
    pub fn stretch(&self, one_of: u32) -> u32 {
        one_of.clamp(1, self.most)
    }

    /// Whether the request of `at` is run. To be told of every request, in order.
    pub fn admits(&mut self, at: Pts, one_of: u32) -> bool {
        let apart = i64::from(self.stretch(one_of)).saturating_mul(self.every_ns) - self.every_ns / 2;
        let due = self.last.is_none_or(|last| at < last || at - last >= apart.max(0));
        // At full rate nothing is judged: requests of a lane may come closer than they usually do.
        let admitted = self.stretch(one_of) == 1 || due;
        if admitted {
            self.last = Some(at);
        }
        admitted
    }

    /// A new session begins: its times are others.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_lane_keeps_its_minimum() {
        let stretches = |every, furthest| {
            let pace = Pace::new(ms(every), ms(furthest));
            [1, 2, 4, 8].map(|one_of| pace.stretch(one_of))
        };
        assert_eq!(stretches(200, 1000), [1, 2, 4, 4], "five windows a second: one at least");
        assert_eq!(stretches(40, 1000), [1, 2, 4, 8]);
        assert_eq!(stretches(2000, 1000), [1, 1, 1, 1], "its own rate is lower");
        assert_eq!(stretches(200, 500), [1, 2, 2, 2], "an online model at 5 Hz that carries its state over 0.5 s");
        assert_eq!(stretches(200, 400), [1, 1, 1, 1], "0.4 s and jitter would be a hole");
    }

    proptest! {
        #[test]
        fn requests_come_evenly_and_within_the_minimum(
            every in 10u64..500,
            jitter in prop::collection::vec(-100i64..100, 50..200),
            one_of in 1u32..9,
        ) {
            let mut pace = Pace::new(ms(every), MINIMUM);
            let every_ns = every as i64 * 1_000_000;
            // Up to a tenth early or late.
            let times: Vec<Pts> =
                jitter.iter().zip(0i64..).map(|(j, n)| Pts(n * every_ns + j * every_ns / 1000)).collect();
            let run: Vec<Pts> = times.iter().copied().filter(|at| pace.admits(*at, one_of)).collect();
            let n = i64::from(pace.stretch(one_of));
            let asked = i64::try_from(times.len()).unwrap();
            let got = i64::try_from(run.len()).unwrap();
            prop_assert!((got - (asked + n - 1) / n).abs() <= 1, "{got} of {asked}, one of {n}");
            for pair in run.windows(2) {
                let apart = pair[1] - pair[0];
                prop_assert!((apart - n * every_ns).abs() <= every_ns / 2);
                prop_assert!(apart <= 1_000_000_000 + every_ns / 4 || n == 1);
            }
        }

        #[test]
        fn at_full_rate_everything_is_run(times in prop::collection::vec(0i64..1_000_000_000, 0..50)) {
            let mut pace = Pace::new(ms(100), MINIMUM);
            prop_assert!(times.iter().all(|at| pace.admits(Pts(*at), 1)));
        }
    }
}
