//! The device's own clock: which wall time a monotonic instant has, and when that was changed.
//!
//! Owned by the inference thread. Never reads a clock: both readings are handed in.

/// A change of the wall clock from here on is a step and is told; what is smaller is followed in silence.
pub const STEP_NS: i64 = 100_000_000;

/// The wall clock as seen from the monotonic one. Both are disciplined alike (`clock_gettime(2)`: `CLOCK_MONOTONIC` is
/// slewed, never stepped), so their difference changes only when somebody sets the clock, or the device has slept.
#[derive(Clone, Copy, Debug)]
pub struct DeviceClock {
    wall_minus_mono: i64,
    /// What was last told, so that many small steps count as one large.
    told: i64,
    synced: bool,
}

/// The wall clock was set, or is known to be right for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// Monotonic instant at which it was noticed, nanoseconds.
    pub mono_ns: i64,
    /// What the clock would have shown then, Unix nanoseconds.
    pub old_unix_ns: i64,
    /// What it showed.
    pub new_unix_ns: i64,
    /// Whether the clock is synchronised after it.
    pub synced: bool,
}

impl DeviceClock {
    /// The clock as found.
    #[must_use]
    pub fn new(mono_ns: i64, wall_ns: i64, synced: bool) -> Self {
        let wall_minus_mono = wall_ns.saturating_sub(mono_ns);
        Self { wall_minus_mono, told: wall_minus_mono, synced }
    }

    /// The clock as an earlier run of the same boot left it: what was set in between shows at the first look.
    #[must_use]
    pub fn resumed(wall_minus_mono_ns: i64, synced: bool) -> Self {
        Self { wall_minus_mono: wall_minus_mono_ns, told: wall_minus_mono_ns, synced }
    }

    /// Add this to a monotonic instant, nanoseconds.
    #[must_use]
    pub fn wall_minus_mono_ns(&self) -> i64 {
        self.wall_minus_mono
    }

    /// Reads both clocks, taken one right after the other, and tells a step.
    pub fn look(&mut self, mono_ns: i64, wall_ns: i64, synced: bool) -> Option<ClockStep> {
        self.wall_minus_mono = wall_ns.saturating_sub(mono_ns);
        let became_synced = synced && !self.synced;
        if self.wall_minus_mono.saturating_sub(self.told).saturating_abs() < STEP_NS && !became_synced {
            // Losing the time service without a step stays silent.
            return None;
        }
        self.synced = synced;
        let old_unix_ns = mono_ns.saturating_add(self.told);
        self.told = self.wall_minus_mono;
        Some(ClockStep { mono_ns, old_unix_ns, new_unix_ns: wall_ns, synced })
    }
}

impl ClockStep {
    /// To be added to times of before, nanoseconds.
    #[must_use]
    pub fn step_ns(&self) -> i64 {
        self.new_unix_ns.saturating_sub(self.old_unix_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_unsets_the_clock_is_followed_by_its_being_set_again() {
        const S: i64 = 1_000_000_000;
        let mut clock = DeviceClock::new(0, 0, true);
        assert!(clock.look(S, 100 * S, false).is_some_and(|step| !step.synced));
        let again = clock.look(2 * S, 101 * S, true).unwrap();
        assert!(again.synced && again.step_ns() == 0);
        assert_eq!(clock.look(3 * S, 102 * S, true), None);
    }

    const MS: i64 = 1_000_000;

    #[test]
    fn a_step_is_told_once_and_slewing_never() {
        let mut clock = DeviceClock::new(0, 5_000 * MS, false);
        assert_eq!(clock.look(1_000 * MS, 6_001 * MS, false), None);
        let step = clock.look(2_000 * MS, 10_007_000 * MS, true).unwrap();
        assert_eq!((step.step_ns(), step.synced), (10_000_000 * MS, true));
        assert_eq!(clock.look(3_000 * MS, 10_008_000 * MS, true), None);
        assert_eq!(clock.wall_minus_mono_ns(), 10_005_000 * MS);
    }

    #[test]
    fn becoming_synchronised_is_told_without_a_step_and_small_steps_add_up() {
        let mut clock = DeviceClock::new(0, 0, false);
        assert_eq!(clock.look(MS, MS, true).map(|s| s.step_ns()), Some(0));
        assert_eq!(clock.look(2 * MS, 2 * MS, true), None);
        assert_eq!(clock.look(0, 60 * MS, false), None);
        assert_eq!(clock.look(0, 120 * MS, true).map(|s| s.step_ns()), Some(120 * MS), "once synchronised is enough");
        assert_eq!(DeviceClock::resumed(7, true).look(0, -900 * MS, true).unwrap().step_ns(), -900 * MS - 7);
    }
}
