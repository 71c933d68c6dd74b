//! When overload is worth a line in the log: once when it begins, once when it is over. Lives in the `infer` thread.

use std::time::Duration;

/// Overload is over when no window was left out for this long: a machine at its limit would fill the log otherwise.
const QUIET: Duration = Duration::from_secs(30);

/// One stretch of overload after another.
#[derive(Debug, Default)]
pub struct Overload {
    /// Windows left out when last looked.
    seen: u64,
    now: Option<Stretch>,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    since: Duration,
    last: Duration,
    /// Windows left out before it.
    before: u64,
}

/// What is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The first window was left out.
    Begins,
    /// No more are.
    Ends {
        /// In the stretch.
        left_out: u64,
        /// From its first window left out to its last.
        lasted: Duration,
    },
}

impl Overload {
    /// Looks at the number of windows left out since the start; `now` since the start.
    pub fn look(&mut self, left_out: u64, now: Duration) -> Option<Turn> {
        let more = left_out > self.seen;
        let before = std::mem::replace(&mut self.seen, left_out);
        match &mut self.now {
            None if more => {
                self.now = Some(Stretch { since: now, last: now, before });
                Some(Turn::Begins)
            }
            Some(stretch) if more => {
                stretch.last = now;
                None
            }
            Some(stretch) if now.saturating_sub(stretch.last) >= QUIET => {
                let ends = Turn::Ends { left_out: left_out - stretch.before, lasted: stretch.last - stretch.since };
                self.now = None;
                Some(ends)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_said_twice_however_long_it_is() {
        let mut overload = Overload::default();
        let mut said = Vec::new();
        // Windows are left out from 10 s to 20 s, with a pause of 10 s within, and again at 100 s.
        for second in 0..200u64 {
            let left_out = match second {
                ..10 => 0,
                10..15 => second - 9,
                15..25 => 5,
                25..30 => second - 19,
                30..100 => 10,
                _ => 11,
            };
            said.extend(overload.look(left_out, Duration::from_secs(second)).map(|turn| (second, turn)));
        }
        let ends = |left_out, s| Turn::Ends { left_out, lasted: Duration::from_secs(s) };
        assert_eq!(said, [(10, Turn::Begins), (59, ends(10, 19)), (100, Turn::Begins), (130, ends(1, 0))]);
    }
}
