//! Whether to ask the broker for subscriptions. Pure.
//!
//! They are a convenience; delivery is the purpose. A broker may answer a SUBSCRIBE that its access rules forbid by closing the
//! connection, or not at all. So a client that dies asking, several times in a row, does not ask for a while; nor does one that
//! is sent what it cannot read, as a retained message would end every connection.

use std::time::{Duration, Instant};

/// Connections that ended while the answer was awaited, in a row, before it is not asked any more …
const DEATHS: u32 = 3;
/// … for so long.
const PAUSE: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(crate) struct Subscriptions {
    filters: Vec<String>,
    deaths: u32,
    not_before: Option<Instant>,
    said: bool,
}

impl Subscriptions {
    pub(crate) fn new(filters: Vec<String>) -> Self {
        Self { filters, deaths: 0, not_before: None, said: false }
    }

    /// What to subscribe to now, if anything.
    pub(crate) fn due(&self, now: Instant) -> Option<&[String]> {
        let due = !self.filters.is_empty() && self.not_before.is_none_or(|not_before| now >= not_before);
        due.then_some(&self.filters)
    }

    /// The broker has answered; `refused` are places in the list. True when that should be said.
    pub(crate) fn answered(&mut self, refused: &[usize]) -> (Vec<String>, bool) {
        (self.deaths, self.not_before) = (0, None);
        let refused: Vec<_> = refused.iter().filter_map(|place| self.filters.get(*place).cloned()).collect();
        let news = !refused.is_empty() && !self.said;
        self.said = !refused.is_empty();
        (refused, news)
    }

    /// The connection ended before the answer. True when this was once too often, which should be said.
    pub(crate) fn died_asking(&mut self, now: Instant) -> bool {
        self.deaths += 1;
        if self.deaths < DEATHS {
            return false;
        }
        self.pause(now)
    }

    /// What comes by them ends the connection. True when that should be said.
    pub(crate) fn pause(&mut self, now: Instant) -> bool {
        self.not_before = Some(now + PAUSE);
        !std::mem::replace(&mut self.said, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_asking_when_asking_is_deadly_and_tries_again_later() {
        let now = Instant::now();
        let mut subscriptions = Subscriptions::new(vec!["a/+".into(), "b/+".into()]);
        assert_eq!(subscriptions.due(now).map(<[_]>::len), Some(2));
        assert!(!subscriptions.died_asking(now));
        assert!(!subscriptions.died_asking(now));
        assert!(subscriptions.died_asking(now), "said");
        assert_eq!(subscriptions.due(now), None);
        let later = now + PAUSE;
        assert!(subscriptions.due(later).is_some());
        assert!(!subscriptions.died_asking(later), "not said again");
        assert_eq!(subscriptions.due(later), None, "one more death is enough");
        assert_eq!(subscriptions.answered(&[]), (vec![], false));
        assert!(!subscriptions.died_asking(later) && !subscriptions.died_asking(later));
    }

    #[test]
    fn a_refusal_is_said_once() {
        let mut subscriptions = Subscriptions::new(vec!["a/+".into(), "b/+".into()]);
        assert_eq!(subscriptions.answered(&[1, 9]), (vec!["b/+".to_owned()], true));
        assert_eq!(subscriptions.answered(&[1]), (vec!["b/+".to_owned()], false));
        assert_eq!(subscriptions.answered(&[]), (vec![], false));
        assert!(subscriptions.answered(&[0]).1, "refused again after it was allowed");
        assert_eq!(Subscriptions::new(vec![]).due(Instant::now()), None);
    }
}
