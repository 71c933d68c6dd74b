//! Refusals that may pass: how long to wait before sending on, and when one message is to blame after all. Pure.
//!
//! A broker that is overloaded, or whose plugin is down, answers 0x80 or 0x83 to messages that it would take a minute later.
//! They stay in the outbox; what must not happen is that they are sent again and again as fast as the line goes. A broker that
//! takes all others but never this one is told from that by time, tries, and what else it accepted meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// A message is to blame only after so many tries …
const TRIES: u32 = 8;
/// … over so long a time.
const PATIENCE: Duration = Duration::from_secs(300);
/// Messages remembered at most; one that is not is never blamed.
const MOST: usize = 1024;

/// Whether the code of a PUBACK says that the same message may be taken later.
pub(crate) fn may_pass(code: u8) -> bool {
    matches!(code, 0x80 | 0x83 | 0x91)
}

/// What to do about a message that was put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try it again; `news` is true for the first of a time of trouble.
    Later { news: bool },
    /// The broker takes everything but this.
    ToBlame,
}

#[derive(Debug)]
pub(crate) struct Deferrals {
    next: Duration,
    until: Option<Instant>,
    /// Messages accepted so far.
    accepted: u64,
    messages: BTreeMap<u64, Tries>,
}

#[derive(Debug)]
struct Tries {
    count: u32,
    since: Instant,
    /// [`Deferrals::accepted`] at `since`.
    accepted: u64,
}

impl Deferrals {
    pub(crate) fn new() -> Self {
        Self { next: FIRST, until: None, accepted: 0, messages: BTreeMap::new() }
    }

    /// Nothing is to be sent before this.
    pub(crate) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// The broker puts something off. Several within one wait count once: they were sent before it.
    pub(crate) fn pause(&mut self, now: Instant) -> bool {
        if self.paused_until(now).is_some() {
            return false;
        }
        let news = self.next == FIRST;
        self.until = Some(now + self.next);
        self.next = (self.next * 2).min(LONGEST);
        news
    }

    /// The broker puts off the message `sequence`.
    pub(crate) fn deferred(&mut self, sequence: u64, now: Instant) -> Verdict {
        let news = self.pause(now);
        let accepted = self.accepted;
        if self.messages.len() < MOST || self.messages.contains_key(&sequence) {
            let tries = self.messages.entry(sequence).or_insert(Tries { count: 0, since: now, accepted });
            tries.count += 1;
            if tries.count >= TRIES && now.duration_since(tries.since) >= PATIENCE && accepted > tries.accepted {
                self.messages.remove(&sequence);
                return Verdict::ToBlame;
            }
        }
        Verdict::Later { news }
    }

    /// The broker takes messages.
    pub(crate) fn accepted(&mut self, sequence: u64) {
        self.accepted += 1;
        self.next = FIRST;
        self.messages.remove(&sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn waits_grow_to_a_bound_and_a_burst_counts_once() {
        let mut deferrals = Deferrals::new();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for burst in 0..9 {
            assert_eq!(deferrals.deferred(1, now), Verdict::Later { news: burst == 0 });
            assert_eq!(deferrals.deferred(2, now), Verdict::Later { news: false });
            let until = deferrals.paused_until(now).unwrap();
            waits.push((until - now).as_secs());
            now = until;
            assert_eq!(deferrals.paused_until(now), None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        deferrals.accepted(1);
        assert_eq!(deferrals.deferred(2, now), Verdict::Later { news: true });
        assert_eq!(deferrals.paused_until(now), Some(now + FIRST));
    }

    #[test]
    fn a_broker_in_trouble_blames_no_message_and_a_choosy_one_does() {
        let start = Instant::now();
        let mut deferrals = Deferrals::new();
        for minute in 0..1000 {
            assert_ne!(
                deferrals.deferred(1, start + seconds(60 * minute)),
                Verdict::ToBlame,
                "nothing else is accepted"
            );
        }
        let mut deferrals = Deferrals::new();
        let mut verdicts = Vec::new();
        for second in 0..400 {
            deferrals.accepted(1000 + second);
            verdicts.push(deferrals.deferred(1, start + seconds(second)));
        }
        let blamed = verdicts.iter().position(|v| *v == Verdict::ToBlame);
        assert_eq!(blamed, Some(300), "after five minutes, not earlier");
    }

    #[test]
    fn memory_is_bounded() {
        let (mut deferrals, now) = (Deferrals::new(), Instant::now());
        for sequence in 0..5000 {
            deferrals.deferred(sequence, now);
        }
        assert_eq!(deferrals.messages.len(), MOST);
    }
}
