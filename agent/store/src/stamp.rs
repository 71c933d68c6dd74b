//! Instants on a clock that nobody sets. Pure: whoever calls the store reads the clocks.
//!
//! The wall clock of a device is set while events wait, by minutes or by decades. Ages are therefore taken from the time
//! since boot (`CLOCK_BOOTTIME`, which counts suspended time and is never set); only over a reboot there is nothing but
//! the wall clock, and that counts where it was synchronised at both ends.

use std::time::Duration;

use rusqlite::Row;

/// An instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Unix time, nanoseconds, as the wall clock had it.
    pub unix_ns: i64,
    /// Time since boot, nanoseconds.
    pub boot_ns: i64,
    /// Which boot; 0 when that is not known.
    pub boot: i64,
    /// Whether the wall clock was synchronised.
    pub synced: bool,
}

/// Columns of a stamp in `event`, in the order that [`Stamp::read`] expects.
pub(crate) const COLUMNS: &str = "e.created_ns, e.boot_ns, e.boot, e.synced";

impl Stamp {
    /// How long after `earlier` this is. Over a reboot without a synchronised clock: at least the time since this boot,
    /// which is all that can be said.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        let difference = |now: i64, then: i64| now.saturating_sub(then).max(0);
        let ns = if self.boot == earlier.boot && self.boot != 0 {
            difference(self.boot_ns, earlier.boot_ns)
        } else if self.synced && earlier.synced {
            difference(self.unix_ns, earlier.unix_ns).max(self.boot_ns)
        } else {
            self.boot_ns
        };
        Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
    }

    /// From four columns that begin at `first`.
    pub(crate) fn read(row: &Row<'_>, first: usize) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            unix_ns: row.get(first)?,
            boot_ns: row.get(first + 1)?,
            boot: row.get(first + 2)?,
            synced: row.get(first + 3)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn a_clock_that_is_set_makes_nothing_older() {
        let at =
            |unix_s: i64, boot_s: i64, boot, synced| Stamp { unix_ns: unix_s * S, boot_ns: boot_s * S, boot, synced };
        let stored = at(100, 50, 7, false);
        let age = |now: Stamp| now.since(&stored).as_secs();
        assert_eq!(age(at(1_700_000_000, 60, 7, true)), 10, "set forward while it waits");
        assert_eq!(age(at(3, 60, 7, true)), 10, "set back");
        assert_eq!(age(at(1_700_000_000, 30, 8, true)), 30, "another boot, and what was stored bears an unset clock");
        let stored = at(1_700_000_000, 50, 7, true);
        assert_eq!(at(1_700_000_100, 30, 8, true).since(&stored).as_secs(), 100);
        assert_eq!(at(1_700_000_100, 30, 8, false).since(&stored).as_secs(), 30, "unsynchronised after the reboot");
        assert_eq!(at(1_700_000_000, 70, 0, false).since(&at(0, 50, 0, false)).as_secs(), 70, "no boot is known");
    }
}
