//! What about the connection is worth a line in the log. Pure.
//!
//! Everything is said once. The same trouble again is news only after the connection was good for a while; a fight with a twin,
//! in which connections look good until the other one takes over, only after an hour. A connection is said when the last thing
//! said was trouble, so the last line is always true.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};

use crate::DisconnectReason;

/// Trouble that goes on is said again after this long.
const AGAIN: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub(crate) struct News {
    said: HashMap<Discriminant<DisconnectReason>, Instant>,
    /// The last thing said is that there is a connection.
    said_connected: bool,
}

impl News {
    /// Whether to say that a connection ended, or was not made, for this reason. Its numbers may differ: the kind counts.
    pub(crate) fn is_news(&mut self, reason: &DisconnectReason, now: Instant) -> bool {
        let kind = discriminant(reason);
        let news = self.said.get(&kind).is_none_or(|said| now.duration_since(*said) >= AGAIN);
        if news {
            self.said.insert(kind, now);
            self.said_connected = false;
        }
        news
    }

    /// Whether to say that there is a connection.
    pub(crate) fn connection_is_news(&mut self) -> bool {
        !std::mem::replace(&mut self.said_connected, true)
    }

    /// The connection has lasted: what ends it is news.
    pub(crate) fn proven(&mut self) {
        let fights = [
            discriminant(&DisconnectReason::TakenOver),
            discriminant(&DisconnectReason::Unstable { times: 0, minutes: 0 }),
        ];
        self.said.retain(|kind, _| fights.contains(kind));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_said_once_until_it_was_good() {
        let (mut news, now) = (News::default(), Instant::now());
        let closed = |detail: &str| DisconnectReason::Closed { detail: detail.to_owned() };
        assert!(news.connection_is_news());
        assert!(news.is_news(&closed("a"), now) && news.connection_is_news());
        assert!(!news.is_news(&closed("b"), now) && !news.connection_is_news(), "neither the end nor the next begin");
        assert!(news.is_news(&DisconnectReason::KeepAlive, now));
        assert!(!news.is_news(&DisconnectReason::KeepAlive, now), "however often it is tried");
        assert!(!news.is_news(&closed("a"), now), "not even when they take turns");
        assert!(news.connection_is_news(), "the last word is that there is a connection");
        news.proven();
        assert!(news.is_news(&closed("a"), now));
    }

    #[test]
    fn a_fight_is_said_once_an_hour() {
        let (mut news, mut now) = (News::default(), Instant::now());
        let mut said = 0;
        for _ in 0..180 {
            now += Duration::from_secs(60);
            news.proven();
            said += u32::from(news.is_news(&DisconnectReason::TakenOver, now));
        }
        assert_eq!(said, 3);
    }
}
