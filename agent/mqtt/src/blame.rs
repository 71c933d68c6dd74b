//! Which packet makes the broker hang up. Pure.
//!
//! MQTT 3.1.1 cannot refuse a message: brokers that forbid its topic end the connection, and some of MQTT 5 do too. It would be
//! sent first on the next connection, and end that as well, for ever. So after an end that may mean a packet, what was in flight
//! then goes out one by one, and the culprit is found alone in flight. Where the broker says that it is the message, once is
//! enough; "not authorised" may mean the session too, whose rights have run out, and counts the second time. An end without a word may have any cause (a broker that restarts, a proxy, the network), so the same packet has to be
//! alone in flight several times in a row, over minutes, before it is taken for guilty; and the birth, which goes first, has
//! been acknowledged on each of those connections. Whoever is guilty is set aside, not deleted. A retained state that is left out
//! loses nothing, so it is soon.
//!
//! Where the topic is to blame, all of its messages are: they are refused unsent, and one is tried again after a while. Silence says so
//! only while the broker takes other messages: one that takes none is in trouble, and what waits for it waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::DisconnectReason;

/// Of a state without a word, or of a message that is "not authorised", so many ends in a row are enough.
const TWICE: u32 = 2;
/// An end without a word counts against a message only after so many in a row …
const TRIES: u32 = 5;
/// … over so long a time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How long suspects are sent one by one: some never come again, as the quota has dropped them.
const CAUTION: Duration = Duration::from_secs(600);
/// How long nothing is sent on a topic that is to blame.
const CLOSED: Duration = Duration::from_secs(600);
/// How long it is remembered that a message of a topic was to blame.
const KNOWN: Duration = Duration::from_secs(3600);
/// Topics remembered at most.
const MOST: usize = 256;
const UNSPECIFIED: u8 = 0x80;
const NOT_AUTHORISED: u8 = 0x87;
const TOPIC_INVALID: u8 = 0x90;
const PAYLOAD_INVALID: u8 = 0x99;

/// What is sent again on the next connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Packet {
    /// A message of the outbox.
    Message(u64),
    /// The retained state of a topic.
    State(String),
}

/// A packet that was in flight when the connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suspect {
    pub(crate) packet: Packet,
    pub(crate) topic: String,
}

/// How an end of a connection speaks against what was in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charge {
    /// The broker says what is wrong with a message.
    Plain(u8),
    /// It may have been anything.
    Doubtful,
}

/// What an end of a connection has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    Nothing,
    /// The same packet was alone in flight at the last `times` ends.
    Accused {
        suspect: Suspect,
        times: u32,
    },
    /// The packet is to be refused, with this reason code.
    Guilty {
        suspect: Suspect,
        times: u32,
        code: u8,
    },
}

#[derive(Debug)]
pub(crate) struct Blame {
    patience: Duration,
    /// In flight at an end that may mean one of them, and not settled since.
    suspects: BTreeSet<Packet>,
    suspected: Option<Instant>,
    accused: Option<Accused>,
    topics: BTreeMap<String, Topic>,
    /// Messages that the broker has taken.
    taken: u64,
}

#[derive(Debug)]
struct Accused {
    packet: Packet,
    times: u32,
    since: Instant,
}

/// A topic of which a packet was guilty.
#[derive(Debug)]
struct Topic {
    code: u8,
    at: Instant,
    /// All of it is to blame.
    closed: bool,
    /// Messages that the broker had taken until then.
    taken: u64,
}

impl Charge {
    /// `None` for an end that has nothing to do with what was in flight.
    pub(crate) fn of(reason: &DisconnectReason) -> Option<Self> {
        match reason {
            DisconnectReason::ByBroker { code: code @ (NOT_AUTHORISED | TOPIC_INVALID | PAYLOAD_INVALID), .. } => {
                Some(Self::Plain(*code))
            }
            // Unspecified, malformed, against the protocol, the broker's own rules; and a quota, which may be one of the
            // connection. Others speak of the broker (busy, moved, shutting down) or of the client (taken over, too fast).
            DisconnectReason::ByBroker { code: 0x80..=0x83 | 0x97, .. } | DisconnectReason::Closed { .. } => {
                Some(Self::Doubtful)
            }
            _ => None,
        }
    }
}

impl Blame {
    pub(crate) fn new(patience: Duration) -> Self {
        let (suspects, topics) = (BTreeSet::new(), BTreeMap::new());
        Self { patience, suspects, suspected: None, accused: None, topics, taken: 0 }
    }

    /// Whether only one packet is to be in flight.
    pub(crate) fn is_cautious(&mut self, now: Instant) -> bool {
        if self.suspected.is_some_and(|at| now.saturating_duration_since(at) >= CAUTION) {
            (self.suspects, self.suspected) = (BTreeSet::new(), None);
        }
        !self.suspects.is_empty()
    }

    /// The reason code that packets of this topic are refused with, unsent.
    pub(crate) fn closed(&self, topic: &str, now: Instant) -> Option<u8> {
        let known = self.topics.get(topic)?;
        (known.closed && now.saturating_duration_since(known.at) < CLOSED).then_some(known.code)
    }

    /// A connection has ended with these packets unanswered. `alone`: one was, it had been sent, and nothing else was in flight.
    pub(crate) fn ended(&mut self, charge: Charge, unanswered: Vec<Suspect>, alone: bool, now: Instant) -> Finding {
        if unanswered.is_empty() {
            return Finding::Nothing;
        }
        self.suspected = Some(now);
        self.suspects.extend(unanswered.iter().map(|suspect| suspect.packet.clone()));
        match unanswered.into_iter().next() {
            Some(suspect) if alone => self.accuse(charge, suspect, now),
            _ => Finding::Nothing,
        }
    }

    fn accuse(&mut self, charge: Charge, suspect: Suspect, now: Instant) -> Finding {
        let before = self.accused.take().filter(|accused| accused.packet == suspect.packet);
        let (times, since) = before.map_or((1, now), |accused| (accused.times + 1, accused.since));
        let known = self.topics.get(&suspect.topic);
        let known =
            known.is_some_and(|topic| now.saturating_duration_since(topic.at) < KNOWN && topic.taken < self.taken);
        let lasted = now.saturating_duration_since(since) >= self.patience;
        let is_enough = match (&suspect.packet, charge) {
            (Packet::State(_), Charge::Doubtful) => times >= TWICE,
            (Packet::Message(_), Charge::Doubtful) => known || (times >= TRIES && lasted),
            (Packet::Message(_), Charge::Plain(NOT_AUTHORISED)) => known || times >= TWICE,
            (_, Charge::Plain(_)) => true,
        };
        if !is_enough {
            self.accused = Some(Accused { packet: suspect.packet.clone(), times, since });
            return Finding::Accused { suspect, times };
        }
        self.suspects.remove(&suspect.packet);
        let code = if let Charge::Plain(code) = charge { code } else { UNSPECIFIED };
        // A second message of the topic, or what is the same for all of them.
        let closed =
            known || matches!(code, NOT_AUTHORISED | TOPIC_INVALID) || matches!(suspect.packet, Packet::State(_));
        if self.topics.len() >= MOST {
            self.topics.retain(|_, topic| now.saturating_duration_since(topic.at) < KNOWN);
        }
        if self.topics.len() < MOST || self.topics.contains_key(&suspect.topic) {
            self.topics.insert(suspect.topic.clone(), Topic { code, at: now, closed, taken: self.taken });
        }
        Finding::Guilty { suspect, times, code }
    }

    /// The broker has taken a packet, so its topic is no matter.
    pub(crate) fn accepted(&mut self, packet: &Packet, topic: &str) {
        self.taken += u64::from(matches!(packet, Packet::Message(_)));
        self.answered(packet);
        self.topics.remove(topic);
    }

    /// The broker has answered to a packet without hanging up, or it is not sent.
    pub(crate) fn answered(&mut self, packet: &Packet) {
        self.suspects.remove(packet);
        if self.accused.as_ref().is_some_and(|accused| accused.packet == *packet) {
            self.accused = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Charge = Charge::Plain(NOT_AUTHORISED);

    fn message(sequence: u64) -> Suspect {
        Suspect { packet: Packet::Message(sequence), topic: "evt".into() }
    }

    fn blame() -> (Blame, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Blame::new(PATIENCE), move |s| start + Duration::from_secs(s))
    }

    #[test]
    fn only_ends_that_may_mean_a_packet_count() {
        let by = |code| Charge::of(&DisconnectReason::ByBroker { detail: String::new(), code });
        assert_eq!([0x87, 0x90, 0x99].map(by), [0x87, 0x90, 0x99].map(|code| Some(Charge::Plain(code))));
        assert_eq!([0x80, 0x97].map(by), [Some(Charge::Doubtful); 2]);
        // Busy, shutting down, too fast, an administrator, another server.
        assert_eq!([0x89, 0x8b, 0x96, 0x98, 0x9d].map(by), [None; 5]);
        assert_eq!(Charge::of(&DisconnectReason::Closed { detail: String::new() }), Some(Charge::Doubtful));
        assert_eq!(Charge::of(&DisconnectReason::KeepAlive), None);
    }

    #[test]
    fn what_was_in_flight_together_goes_out_one_by_one_until_each_is_settled() {
        let (mut blame, at) = blame();
        assert_eq!(blame.ended(PLAIN, vec![], false, at(0)), Finding::Nothing);
        assert!(!blame.is_cautious(at(0)), "nothing was in flight");
        assert_eq!(blame.ended(PLAIN, vec![message(4), message(5)], false, at(0)), Finding::Nothing);
        blame.accepted(&Packet::Message(4), "evt");
        assert!(blame.is_cautious(at(1)));
        blame.answered(&Packet::Message(5));
        assert!(!blame.is_cautious(at(2)));
        blame.ended(PLAIN, vec![message(6), message(7)], false, at(3));
        assert!(blame.is_cautious(at(602)) && !blame.is_cautious(at(603)), "the quota has dropped them");
    }

    #[test]
    fn a_plain_word_is_believed_soon_and_for_all_of_the_topic() {
        let (mut blame, at) = blame();
        // Once may be the session, whose rights have run out.
        let once = Finding::Accused { suspect: message(4), times: 1 };
        assert_eq!(blame.ended(PLAIN, vec![message(4)], true, at(0)), once);
        let guilty = Finding::Guilty { suspect: message(4), times: 2, code: NOT_AUTHORISED };
        assert_eq!(blame.ended(PLAIN, vec![message(4)], true, at(0)), guilty);
        assert!(!blame.is_cautious(at(0)));
        assert_eq!((blame.closed("evt", at(599)), blame.closed("other", at(0))), (Some(NOT_AUTHORISED), None));
        assert_eq!(blame.closed("evt", at(600)), None, "the rules may be others now");
        blame.accepted(&Packet::Message(5), "evt");
        assert_eq!(blame.closed("evt", at(1)), None);
        blame.ended(Charge::Plain(PAYLOAD_INVALID), vec![message(6)], true, at(0));
        assert_eq!(blame.closed("evt", at(1)), None, "a payload is one message's");
    }

    #[test]
    fn silence_is_believed_only_after_minutes_and_the_second_time_at_once() {
        let (mut blame, at) = blame();
        let mut end = |sequence, s| blame.ended(Charge::Doubtful, vec![message(sequence)], true, at(s));
        for (times, s) in [(1, 0), (2, 30), (3, 60), (4, 90), (5, 119)] {
            assert_eq!(end(4, s), Finding::Accused { suspect: message(4), times });
        }
        assert_eq!(end(4, 120), Finding::Guilty { suspect: message(4), times: 6, code: UNSPECIFIED });
        assert_eq!(blame.closed("evt", at(121)), None, "it may have been this message alone");
        let second = blame.ended(Charge::Doubtful, vec![message(8)], true, at(125));
        assert_eq!(second, Finding::Accused { suspect: message(8), times: 1 }, "a broker that takes nothing at all");
        blame.accepted(&Packet::Message(5), "other");
        let second = blame.ended(Charge::Doubtful, vec![message(9)], true, at(130));
        assert_eq!(second, Finding::Guilty { suspect: message(9), times: 1, code: UNSPECIFIED });
        assert_eq!(blame.closed("evt", at(131)), Some(UNSPECIFIED));
    }

    #[test]
    fn a_message_that_gets_through_once_is_innocent() {
        let (mut blame, at) = blame();
        for round in 0..1000 {
            for try_ in 0..4 {
                let found = blame.ended(Charge::Doubtful, vec![message(round)], true, at(100 * round + try_));
                assert!(matches!(found, Finding::Accused { .. }), "{found:?}");
            }
            blame.accepted(&Packet::Message(round), "evt");
        }
        // Another in between: it was not in a row.
        for n in 0..20 {
            let found = blame.ended(Charge::Doubtful, vec![message(n % 2)], true, at(200_000 + 100 * n));
            assert_eq!(found, Finding::Accused { suspect: message(n % 2), times: 1 });
        }
    }

    #[test]
    fn a_state_is_its_topic() {
        let (mut blame, at) = blame();
        let state = || Suspect { packet: Packet::State("cam".into()), topic: "cam".into() };
        blame.ended(Charge::Doubtful, vec![state()], true, at(0));
        let found = blame.ended(Charge::Doubtful, vec![state()], true, at(1));
        assert_eq!(found, Finding::Guilty { suspect: state(), times: 2, code: UNSPECIFIED });
        assert_eq!(blame.closed("cam", at(2)), Some(UNSPECIFIED));
    }
}
