//! How far the work is cut back while the device is too hot, short of power or short of memory: pure, no clock, no files.
//!
//! Policy. While a cause stands, one request of 2 is run, after [`SETTLE`] one of 4, then one of [`MOST`]: a step has to show in
//! the temperature before the next is due. For memory alone it stays at one of [`MOST_FOR_MEMORY`]. After [`CALM`] without a
//! cause it goes back up by one step, and so on. A cause that returns on a step up takes that step back at once, and doubles the
//! calm asked for before the next try (up to [`LONGEST`]): a device that only just holds a rate does not swing about it. What
//! each camera keeps whatever the device asks for is [`crate::schedule::Pace`]'s.
//!
//! Owned by whoever looks at the device. It never says more than one step at a time.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From a step down to the next.
pub const SETTLE: Duration = Duration::from_secs(20);
/// Without a cause for this long: a step up.
pub const CALM: Duration = Duration::from_secs(30);
/// The longest calm that is waited for.
pub const LONGEST: Duration = Duration::from_secs(16 * 60);
/// At the lowest, one request of so many is run.
pub const MOST: u32 = 8;
/// The same where memory alone is short: what takes it are models and cameras, and hardly their rate.
pub const MOST_FOR_MEMORY: u32 = 2;

/// Why the device is to be spared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The board slows its processors down against heat.
    Heat,
    /// The supply gives too little: under-voltage, or more current than the board may take.
    Power,
    /// Memory is short: programs wait for it, or little is left.
    Memory,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 3] = [Self::Heat, Self::Power, Self::Memory];

    /// As written on MQTT and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Heat => "heat",
            Self::Power => "power",
            Self::Memory => "memory",
        }
    }
}

/// What is different since the look before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One request of so many is run, less than before.
    Down(u32),
    /// More than before; 1 is all.
    Up(u32),
}

/// The state of one device.
#[derive(Clone, Debug)]
pub struct Derating {
    one_of: u32,
    last: Option<(Step, Duration)>,
    calm_since: Option<Duration>,
    /// Calm that the next step up needs.
    calm: Duration,
}

impl Default for Derating {
    fn default() -> Self {
        Self { one_of: 1, last: None, calm_since: None, calm: CALM }
    }
}

impl Derating {
    /// One request of so many is run; 1 is all.
    #[must_use]
    pub fn one_of(&self) -> u32 {
        self.one_of
    }

    /// Takes what stands now; `now` never goes back. To be called every few seconds.
    pub fn look(&mut self, causes: &[Cause], now: Duration) -> Option<Step> {
        let most = match causes {
            [] => 1,
            causes if causes.iter().all(|cause| *cause == Cause::Memory) => MOST_FOR_MEMORY,
            _ => MOST,
        };
        // What stands asks for less than what stood before.
        if causes.is_empty() || self.one_of > most { self.calm(now) } else { self.strained(most, now) }
    }

    fn strained(&mut self, most: u32, now: Duration) -> Option<Step> {
        self.calm_since = None;
        if self.one_of == most {
            return None;
        }
        let due = match self.last {
            // The step up was one too many.
            Some((Step::Up(_), at)) => {
                let soon = now.saturating_sub(at) < self.calm;
                self.calm = if soon { (self.calm * 2).min(LONGEST) } else { CALM };
                true
            }
            Some((Step::Down(_), at)) => now.saturating_sub(at) >= SETTLE,
            None => true,
        };
        due.then(|| self.step(Step::Down(self.one_of * 2), now))
    }

    fn calm(&mut self, now: Duration) -> Option<Step> {
        let since = *self.calm_since.get_or_insert(now);
        let calm = now.saturating_sub(since) >= self.calm;
        if self.one_of == 1 {
            if calm {
                self.calm = CALM;
            }
            return None;
        }
        calm.then(|| {
            self.calm_since = Some(now);
            self.step(Step::Up(self.one_of / 2), now)
        })
    }

    fn step(&mut self, step: Step, now: Duration) -> Step {
        let (Step::Down(one_of) | Step::Up(one_of)) = step;
        self.one_of = one_of;
        self.last = Some((step, now));
        step
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOOK_S: u64 = 2;

    /// Steps with their seconds, of a device that is strained as `strained` says of the second and of the rate in force.
    fn simulate(seconds: u64, mut strained: impl FnMut(u64, u32) -> bool) -> Vec<(u64, Step)> {
        let mut derating = Derating::default();
        let mut steps = Vec::new();
        for second in (0..seconds).step_by(LOOK_S as usize) {
            let causes: &[Cause] = if strained(second, derating.one_of()) { &[Cause::Heat] } else { &[] };
            steps.extend(derating.look(causes, Duration::from_secs(second)).map(|step| (second, step)));
        }
        steps
    }

    #[test]
    fn a_hot_spell_goes_down_by_steps_and_back_up_by_steps() {
        use Step::{Down, Up};
        let steps = simulate(300, |second, _| (10..60).contains(&second));
        let expected = [(10, Down(2)), (30, Down(4)), (50, Down(8)), (90, Up(4)), (120, Up(2)), (150, Up(1))];
        assert_eq!(steps, expected);
    }

    #[test]
    fn a_device_that_holds_half_its_rate_does_not_swing_about_it() {
        // Whenever everything is asked for, it is too hot again after some seconds.
        let mut full_since = 0;
        let steps = simulate(6 * 3600, |second, one_of| {
            full_since = if one_of == 1 { full_since } else { second };
            one_of == 1 && second >= full_since + 10
        });
        let ups: Vec<u64> = steps.iter().filter(|(_, step)| *step == Step::Up(1)).map(|(second, _)| *second).collect();
        assert!(ups.len() < 30, "{} tries in six hours", ups.len());
        assert!(ups.windows(2).last().is_some_and(|w| w[1] - w[0] >= LONGEST.as_secs()), "{ups:?}");
        assert!(steps.iter().all(|(_, step)| matches!(step, Step::Down(2) | Step::Up(1))), "{steps:?}");
    }

    #[test]
    fn memory_alone_costs_half_the_rate_and_no_more() {
        use Step::{Down, Up};
        let mut derating = Derating::default();
        let mut steps = Vec::new();
        for second in (0..400).step_by(LOOK_S as usize) {
            let causes: &[Cause] = match second {
                0..100 => &[Cause::Memory],
                100..150 => &[Cause::Heat, Cause::Memory],
                150..300 => &[Cause::Memory],
                _ => &[],
            };
            steps.extend(derating.look(causes, Duration::from_secs(second)).map(|step| (second, step)));
        }
        let expected = [(0, Down(2)), (100, Down(4)), (120, Down(8)), (180, Up(4)), (210, Up(2)), (330, Up(1))];
        assert_eq!(steps, expected);
    }

    proptest! {
        #[test]
        fn under_any_weather_steps_are_single_spaced_and_undone(
            weather in prop::collection::vec((any::<bool>(), 1u64..400), 0..40),
        ) {
            let spells: Vec<bool> =
                weather.iter().flat_map(|&(strained, s)| std::iter::repeat_n(strained, s as usize)).collect();
            let quiet = LONGEST.as_secs() * 5;
            let steps = simulate(spells.len() as u64 + quiet, |second, _| {
                spells.get(second as usize).copied().unwrap_or(false)
            });
            let (mut one_of, mut before) = (1, None);
            for (second, step) in steps {
                let spaced = |least: Duration| before.is_none_or(|(at, _)| second - at >= least.as_secs());
                match step {
                    Step::Down(now) => {
                        prop_assert_eq!(now, one_of * 2);
                        prop_assert!(spaced(SETTLE) || matches!(before, Some((_, Step::Up(_)))));
                        prop_assert!(spells[second as usize], "down without a cause");
                        one_of = now;
                    }
                    Step::Up(now) => {
                        prop_assert_eq!(now, one_of / 2);
                        let calm = second.saturating_sub(CALM.as_secs())..second;
                        let seen = |s: u64| s.is_multiple_of(LOOK_S) && spells.get(s as usize).copied().unwrap_or(false);
                        prop_assert!(!calm.clone().any(seen), "up within {calm:?} of a cause");
                        one_of = now;
                    }
                }
                prop_assert!((1..=MOST).contains(&one_of));
                before = Some((second, step));
            }
            prop_assert_eq!(one_of, 1, "it always comes back");
        }

        #[test]
        fn a_cause_that_stays_brings_it_to_the_lowest_and_no_further(start in 0u64..100) {
            let steps = simulate(start + 600, |second, _| second >= start);
            let down: Vec<Step> = steps.iter().map(|(_, step)| *step).collect();
            prop_assert_eq!(down, [Step::Down(2), Step::Down(4), Step::Down(8)]);
            prop_assert!(steps[2].0 <= start + LOOK_S + 2 * (SETTLE.as_secs() + LOOK_S));
        }
    }
}
