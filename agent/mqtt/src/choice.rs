//! Which MQTT version to try next, and when to doubt it. Pure.
//!
//! A connection that ends without an MQTT answer may mean a broker that knows only the older version, or a proxy whose broker is
//! away. So a version 3.1.1 that was reached by doubt alone is not settled on before MQTT 5 has failed once more, right after
//! the older one was answered.

use crate::{DisconnectReason, Protocol, Version};

/// Which version to try next.
#[derive(Debug)]
pub(crate) struct Choice {
    wanted: Protocol,
    version: Version,
    proven: bool,
    doubts: u32,
    suspicion: Suspicion,
    /// That the older version was settled on by doubt was said.
    said: bool,
}

/// What an answer to the version that was tried means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This is the version.
    Settled,
    /// Somebody is there: end this connection and try MQTT 5 once more.
    AskAgain,
}

/// When the next version is to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// After the usual wait.
    Later,
    /// In a moment: the question is only which version.
    Soon,
}

/// That MQTT 5 is not spoken, as far as nobody has said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspicion {
    None,
    /// An attempt has ended without an answer.
    Raised,
    /// The older version was answered since, and MQTT 5 is tried once more.
    Examined,
    /// That ended without an answer too.
    Confirmed,
}

impl Choice {
    pub(crate) fn new(wanted: Protocol) -> Self {
        let version = if wanted == Protocol::V311 { Version::V311 } else { Version::V5 };
        Self { wanted, version, proven: false, doubts: 0, suspicion: Suspicion::None, said: false }
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The broker takes a connection of this version, and that is good enough.
    pub(crate) fn worked(&mut self) {
        (self.proven, self.doubts, self.suspicion) = (true, 0, Suspicion::None);
    }

    /// The broker takes a connection of this version; MQTT 5 is better, where it is spoken.
    pub(crate) fn answered(&mut self) -> Answer {
        if self.suspicion == Suspicion::Raised {
            tracing::info!("MQTT: the broker answers 3.1.1; version 5 is tried once more");
            (self.version, self.suspicion, self.doubts) = (Version::V5, Suspicion::Examined, 0);
            return Answer::AskAgain;
        }
        if self.suspicion == Suspicion::Confirmed && !std::mem::replace(&mut self.said, true) {
            tracing::warn!(
                "MQTT: the broker does not answer version 5 but 3.1.1, which has no refusals: what its access rules or \
                 quotas forbid may be lost without a word; set [mqtt] protocol = \"3.1.1\" if it knows no other, else look at its log"
            );
        }
        self.worked();
        Answer::Settled
    }

    /// Switch when the version may be the reason. One that has worked is given up only after a plain refusal or three
    /// doubtful failures in a row: a broker that restarts also hangs up without a word.
    pub(crate) fn failed(&mut self, reason: &DisconnectReason) -> Next {
        if self.wanted != Protocol::Auto || !reason.may_be_protocol() {
            return Next::Later;
        }
        self.doubts += 1;
        if self.proven && self.doubts < 3 && !reason.refuses_protocol() {
            return Next::Later;
        }
        let before = self.suspicion;
        (self.version, self.suspicion) = match self.version {
            Version::V311 => (Version::V5, Suspicion::None),
            Version::V5 if reason.refuses_protocol() => (Version::V311, Suspicion::None),
            Version::V5 if before == Suspicion::Examined => (Version::V311, Suspicion::Confirmed),
            Version::V5 => (Version::V311, Suspicion::Raised),
        };
        (self.proven, self.doubts) = (false, 0);
        tracing::info!(version = %self.version, "MQTT: trying the other version next");
        if before == Suspicion::Examined { Next::Soon } else { Next::Later }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> DisconnectReason {
        DisconnectReason::ProtocolRefused { version: Version::V5 }
    }

    fn doubtful() -> DisconnectReason {
        DisconnectReason::NotMqtt { endpoint: String::new(), version: Version::V5, detail: String::new() }
    }

    #[test]
    fn versions_are_switched_with_care() {
        let mut choice = Choice::new(Protocol::Auto);
        choice.failed(&DisconnectReason::BadCredentials);
        assert_eq!(choice.version(), Version::V5);
        choice.failed(&refused());
        assert_eq!(choice.version(), Version::V311);
        assert_eq!(choice.answered(), Answer::Settled, "the broker has said so");
        choice.failed(&doubtful());
        choice.failed(&doubtful());
        assert_eq!(choice.version(), Version::V311, "a version that worked is kept through a restart of the broker");
        choice.failed(&refused());
        assert_eq!(choice.version(), Version::V5);
        let mut fixed = Choice::new(Protocol::V5);
        fixed.failed(&refused());
        assert_eq!(fixed.version(), Version::V5);
    }

    #[test]
    fn the_older_version_is_not_settled_on_by_a_broker_that_was_away() {
        let mut choice = Choice::new(Protocol::Auto);
        for _ in 0..3 {
            assert_eq!(choice.failed(&doubtful()), Next::Later);
        }
        assert_eq!((choice.version(), choice.answered()), (Version::V311, Answer::AskAgain));
        assert_eq!((choice.version(), choice.answered()), (Version::V5, Answer::Settled));
        // Away again for longer than a restart.
        for _ in 0..3 {
            choice.failed(&doubtful());
        }
        assert_eq!((choice.version(), choice.answered()), (Version::V311, Answer::AskAgain));
        assert_eq!(choice.failed(&DisconnectReason::BadCredentials), Next::Later);
        assert_eq!(choice.version(), Version::V5, "it speaks");
    }

    #[test]
    fn a_broker_that_answers_only_the_older_version_is_believed_the_second_time() {
        let mut choice = Choice::new(Protocol::Auto);
        choice.failed(&doubtful());
        assert_eq!(choice.answered(), Answer::AskAgain);
        assert_eq!((choice.failed(&doubtful()), choice.version()), (Next::Soon, Version::V311));
        assert_eq!(choice.answered(), Answer::Settled);
        choice.failed(&doubtful());
        assert_eq!((choice.version(), choice.answered()), (Version::V311, Answer::Settled));
    }
}
