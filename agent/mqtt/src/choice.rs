//! Which MQTT version to try next, and when to doubt it. Pure.

use crate::{DisconnectReason, Protocol, Version};

/// Which version to try next.
#[derive(Debug)]
pub(crate) struct Choice {
    wanted: Protocol,
    version: Version,
    proven: bool,
    doubts: u32,
}

impl Choice {
    pub(crate) fn new(wanted: Protocol) -> Self {
        let version = if wanted == Protocol::V311 { Version::V311 } else { Version::V5 };
        Self { wanted, version, proven: false, doubts: 0 }
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn worked(&mut self) {
        self.proven = true;
        self.doubts = 0;
    }

    /// Switch when the version may be the reason. One that has worked is given up only after a plain refusal or three
    /// doubtful failures in a row: a broker that restarts also hangs up without a word.
    pub(crate) fn failed(&mut self, reason: &DisconnectReason) {
        if self.wanted != Protocol::Auto || !reason.may_be_protocol() {
            return;
        }
        self.doubts += 1;
        if self.proven && self.doubts < 3 && !reason.refuses_protocol() {
            return;
        }
        self.version = match self.version {
            Version::V5 => Version::V311,
            Version::V311 => Version::V5,
        };
        (self.proven, self.doubts) = (false, 0);
        tracing::info!(version = %self.version, "MQTT: trying the other version next");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_switched_with_care() {
        let refused = DisconnectReason::ProtocolRefused { version: Version::V5 };
        let doubtful =
            DisconnectReason::NotMqtt { endpoint: String::new(), version: Version::V5, detail: String::new() };
        let mut choice = Choice::new(Protocol::Auto);
        choice.failed(&DisconnectReason::BadCredentials);
        assert_eq!(choice.version(), Version::V5);
        choice.failed(&doubtful);
        assert_eq!(choice.version(), Version::V311);
        choice.worked();
        choice.failed(&doubtful);
        choice.failed(&doubtful);
        assert_eq!(choice.version(), Version::V311, "a version that worked is kept through a restart of the broker");
        choice.failed(&refused);
        assert_eq!(choice.version(), Version::V5);
        let mut fixed = Choice::new(Protocol::V5);
        fixed.failed(&refused);
        assert_eq!(fixed.version(), Version::V5);
    }
}
