//! The moment of a step: wall time, whether it can be believed, and whether the maintenance window is open.

use jiff::{Timestamp, ZonedDateTime};
use kinewatch_core::manifest::TimeOfDay;
use kinewatch_core::rollout::step::{ClockState, Now, Window};

use crate::clock;
use crate::config::file::UpdateClock;
use crate::config::plan::UpdatesPlan;

/// Now, as `updates` sees it. Without updates there is nothing that a clock decides.
#[must_use]
pub(crate) fn now(updates: Option<&UpdatesPlan>) -> Now {
    let trusted = updates.is_none_or(|updates| updates.clock == UpdateClock::Trusted);
    let synced = trusted || clock::state().synced;
    let clock = if synced { ClockState::Synchronised } else { ClockState::NotSynchronised };
    let window = updates.and_then(|updates| updates.window);
    let window = window.map_or(Window::Open, |window| window_at(&ZonedDateTime::now(), window));
    Now { time: Timestamp::now(), clock, window }
}

/// Whether the window is open, in local time; the same time twice is all day.
fn window_at(now: &ZonedDateTime, (from, to): (TimeOfDay, TimeOfDay)) -> Window {
    let minutes = u16::try_from(i32::from(now.hour()) * 60 + i32::from(now.minute())).unwrap_or(0);
    let time = TimeOfDay::from_minutes(minutes);
    let open = if from < to { from <= time && time < to } else { from <= time || time < to };
    if open {
        return Window::Open;
    }
    let today = from.at(now).filter(|opens| opens > now);
    let opens = today.or_else(|| from.at(&now.tomorrow().ok()?));
    Window::Closed { opens: opens.map_or_else(|| now.timestamp(), |opens| opens.timestamp()) }
}

/// A time of day on the day of another moment.
trait At {
    fn at(&self, day: &ZonedDateTime) -> Option<ZonedDateTime>;
}

impl At for TimeOfDay {
    fn at(&self, day: &ZonedDateTime) -> Option<ZonedDateTime> {
        let (hour, minute) = (i8::try_from(self.minutes() / 60).ok()?, i8::try_from(self.minutes() % 60).ok()?);
        // An hour that the clock skips in spring is the one after it.
        day.with().hour(hour).minute(minute).second(0).subsec_nanosecond(0).build().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> ZonedDateTime {
        text.parse().unwrap()
    }

    fn window(from: &str, to: &str) -> (TimeOfDay, TimeOfDay) {
        (from.parse().unwrap(), to.parse().unwrap())
    }

    #[test]
    fn a_window_is_open_from_its_first_minute_to_its_last_also_over_midnight() {
        let night = window("22:00", "05:00");
        for open in ["22:00:00", "23:59:59", "00:00:00", "04:59:59"] {
            assert_eq!(window_at(&at(&format!("2026-11-29T{open}[Europe/Berlin]")), night), Window::Open, "{open}");
        }
        let closed = window_at(&at("2026-11-29T05:00:00[Europe/Berlin]"), night);
        assert_eq!(closed, Window::Closed { opens: "2026-11-29T21:00:00Z".parse().unwrap() });
        assert_eq!(window_at(&at("2026-11-29T12:00:00[UTC]"), window("00:00", "00:00")), Window::Open, "all day");
    }

    #[test]
    fn one_that_has_passed_opens_the_next_day_and_what_the_clock_skips_opens_after() {
        let closed = window_at(&at("2026-11-29T06:00:00[UTC]"), window("02:00", "05:00"));
        assert_eq!(closed, Window::Closed { opens: "2026-11-30T02:00:00Z".parse().unwrap() });
        // In Berlin there is no 02:30 on that day.
        let spring = window_at(&at("2026-03-28T12:00:00[Europe/Berlin]"), window("02:30", "05:00"));
        assert_eq!(spring, Window::Closed { opens: "2026-03-29T01:30:00Z".parse().unwrap() });
    }
}
