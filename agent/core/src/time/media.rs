//! Media time that goes on when a camera sets its clock.
//!
//! Owned by the capture thread of a live camera. Constant time, no allocation, never reads a clock. Not for files: without
//! arrivals a jump cannot be told from a cut.

use super::NANOS_PER_SECOND;

/// A camera's clock that goes back by this much was set. (Less is disorder, which the selector drops.)
const BACK_NS: i64 = NANOS_PER_SECOND / 4;
/// A frame that comes this much before it can have been captured shows a clock that was set forward.
const FORWARD_NS: i64 = NANOS_PER_SECOND / 2;
/// Frames that arrive while the time stands still, and for how long, until it is taken to be broken. (GStreamer holds the
/// time of an RTP stream whose clock went back by an hour, until that hour is over.)
const STANDING_FRAMES: u32 = 3;
const STANDING_NS: i64 = NANOS_PER_SECOND * 3 / 10;
/// Silence longer than this is a gap, whatever the clock says after it.
const GAP_NS: i64 = 10 * NANOS_PER_SECOND;
/// A lowest offset is forgotten at the rate of the worst clock: 1,000 ppm.
const FORGET: i64 = 1000;

/// Joins the stretches of a camera's time line when its clock is set while frames go on arriving.
///
/// A frame cannot arrive before it was captured, and a stalled network makes frames late but not their time stamps go
/// back: so a time stamp that goes back, or one ahead of every arrival so far, is the camera's clock being set, and its
/// frame is placed one frame interval after the one before (or as much as passed until it arrived, if that was longer).
/// While the camera's time stands still, frames are placed by their arrivals.
#[derive(Clone, Debug, Default)]
pub struct MediaClock {
    /// Added to the camera's time.
    shift: i64,
    newest: Option<Seen>,
    /// Between frames, usually.
    interval: i64,
    /// Lowest `arrival - time`, slowly forgotten.
    lowest: i64,
    /// Frames since the camera's time stands still.
    standing: u32,
    follows_arrivals: bool,
    rebases: u32,
}

/// The newest frame that moved on: camera's time, time given, arrival. `arrived` is of the newest of all.
#[derive(Clone, Copy, Debug)]
struct Seen {
    running: i64,
    given: i64,
    mono: i64,
    arrived: i64,
}

impl MediaClock {
    /// A clock for a new pipeline; the count of joins goes on.
    pub fn restart(&mut self) {
        *self = Self { rebases: self.rebases, ..Self::default() };
    }

    /// How often the time line was joined.
    #[must_use]
    pub fn rebases(&self) -> u32 {
        self.rebases
    }

    /// The continuous time of a frame. `running_ns`: its time on the camera's time line; `mono_ns`: its arrival.
    pub fn place(&mut self, running_ns: i64, mono_ns: i64) -> i64 {
        let given = match self.newest {
            None => {
                self.lowest = mono_ns.saturating_sub(running_ns.saturating_add(self.shift));
                running_ns.saturating_add(self.shift)
            }
            Some(before) if before.running == running_ns => return self.stand(before, mono_ns),
            Some(before) => self.advance(before, running_ns, mono_ns),
        };
        (self.standing, self.follows_arrivals) = (0, false);
        self.lowest = self.lowest.min(mono_ns.saturating_sub(given));
        self.newest = Some(Seen { running: running_ns, given, mono: mono_ns, arrived: mono_ns });
        given
    }

    fn advance(&mut self, before: Seen, running_ns: i64, mono_ns: i64) -> i64 {
        let given = running_ns.saturating_add(self.shift);
        let advance = running_ns.saturating_sub(before.running);
        let waited = mono_ns.saturating_sub(before.arrived).max(0);
        self.lowest = self.lowest.saturating_add(waited / FORGET);
        let back = advance < -BACK_NS;
        let early = mono_ns.saturating_sub(given) < self.lowest.saturating_sub(FORWARD_NS);
        let forward = advance.saturating_sub(waited) > FORWARD_NS && early;
        if waited <= GAP_NS && (back || forward) {
            let step = if waited < self.interval.saturating_mul(2) { self.interval } else { waited };
            return self.join(before.given.saturating_add(step.max(1)), running_ns);
        }
        if (1..=NANOS_PER_SECOND).contains(&advance) {
            self.interval = advance;
        }
        if waited > GAP_NS {
            // Whatever the camera's clock says after a silence: offsets of before tell nothing of it.
            self.lowest = mono_ns.saturating_sub(given);
        }
        given
    }

    /// The camera's time has not moved: twice the same frame, or a clock that stands still.
    fn stand(&mut self, mut before: Seen, mono_ns: i64) -> i64 {
        self.standing = self.standing.saturating_add(1);
        let passed = mono_ns.saturating_sub(before.mono);
        let stands = self.standing >= STANDING_FRAMES && passed >= STANDING_NS;
        if (stands || self.follows_arrivals) && passed > 0 {
            before.given = before.given.saturating_add(passed);
            before.mono = mono_ns;
            if std::mem::replace(&mut self.follows_arrivals, true) {
                self.shift = before.given.saturating_sub(before.running);
            } else {
                self.join(before.given, before.running);
            }
        }
        before.arrived = mono_ns;
        self.newest = Some(before);
        before.given
    }

    fn join(&mut self, given: i64, running_ns: i64) -> i64 {
        self.shift = given.saturating_sub(running_ns);
        self.rebases = self.rebases.wrapping_add(1);
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn ms(clock: &mut MediaClock, running: i64, mono: i64) -> i64 {
        clock.place(running * MS, mono * MS) / MS
    }

    #[test]
    fn a_clock_that_is_set_does_not_tear_the_time_line() {
        for step in [3_600_000, 3_000, -300, -3_000, -86_400_000] {
            let mut clock = MediaClock::default();
            for k in 0..50 {
                assert_eq!(ms(&mut clock, k * 40, k * 40 + k % 7), k * 40);
            }
            for k in 50..100 {
                assert_eq!(ms(&mut clock, k * 40 + step, k * 40 + k % 7), k * 40, "step of {step} ms");
            }
            assert_eq!(clock.rebases(), 1);
        }
    }

    #[test]
    fn late_frames_and_lost_frames_are_no_steps() {
        let mut clock = MediaClock::default();
        for k in 0..200 {
            // A stall of 3 s, and all that waited at once; then 2 s of frames lost.
            let arrival = if (50..125).contains(&k) { 5_000 + k } else { k * 40 };
            if !(150..200).contains(&k) {
                assert_eq!(ms(&mut clock, k * 40, arrival), k * 40);
            }
        }
        assert_eq!((ms(&mut clock, 8_000, 8_000), clock.rebases()), (8_000, 0));
    }

    #[test]
    fn small_disorder_and_true_gaps_are_left_to_the_selector() {
        let mut clock = MediaClock::default();
        ms(&mut clock, 1_000, 1_000);
        assert_eq!(ms(&mut clock, 900, 1_040), 900);
        assert_eq!(ms(&mut clock, 21_000, 21_000), 21_000, "20 s of silence");
        assert_eq!(ms(&mut clock, 5_000, 40_000), 5_000, "silence, and another clock after it");
        assert_eq!(clock.rebases(), 0);
    }

    #[test]
    fn a_step_in_a_pause_takes_as_long_as_the_pause() {
        let mut clock = MediaClock::default();
        for k in 0..50 {
            ms(&mut clock, k * 40, k * 40);
        }
        assert_eq!(ms(&mut clock, 500, 4_000), 4_000, "2 s of pause");
    }

    #[test]
    fn a_clock_that_stands_still_is_replaced_by_arrivals_until_it_moves() {
        let mut clock = MediaClock::default();
        let mut newest = 0;
        for k in 0..200 {
            let running = if (50..150).contains(&k) { 2_000 } else { k * 40 };
            let given = ms(&mut clock, running, k * 40);
            assert!((0..=360).contains(&(given - newest)), "frame {k}: {given} after {newest}");
            assert!(k < 60 || given > newest, "frame {k} moves");
            newest = given;
        }
        assert_eq!((newest, clock.rebases()), (199 * 40, 2), "once to arrivals, once back");
        let mut clock = MediaClock::default();
        for k in 0..100 {
            assert_eq!(ms(&mut clock, k / 2 * 40, k * 20), k / 2 * 40, "each frame twice");
        }
        assert_eq!(clock.rebases(), 0);
    }

    #[test]
    fn nothing_overflows() {
        let mut clock = MediaClock::default();
        for running in [i64::MIN, 0, i64::MAX, i64::MIN] {
            for mono in [i64::MIN, 0, i64::MAX] {
                clock.place(running, mono);
            }
        }
    }
}
