//! Retained states: the newest payload per topic, sent again on every connection.
//!
//! A broker restarted without persistence has forgotten them, so each connection sends all of them. Writers only take a
//! short lock; the newest payload of a topic replaces one not yet sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::flight::StateDoes;

/// Retained topics a client keeps at most.
pub const MAX_STATES: usize = 1024;

/// Too many retained topics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_STATES} retained topics: {topic} is not kept")]
pub struct StatesFull {
    /// The topic left out.
    pub topic: String,
}

#[derive(Debug, Default)]
pub(crate) struct States {
    inner: Mutex<Inner>,
    pub(crate) changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    newest: BTreeMap<String, Bytes>,
    unsent: BTreeSet<String>,
    /// Topics of `newest` of which a refusal was said.
    refused: BTreeSet<String>,
    /// Size of payloads that ended a connection: so large a one is not sent again.
    too_large: BTreeMap<String, usize>,
}

impl States {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, topic: String, payload: Bytes) -> Result<(), StatesFull> {
        let mut inner = self.lock();
        if inner.newest.len() >= MAX_STATES && !inner.newest.contains_key(&topic) {
            return Err(StatesFull { topic });
        }
        inner.unsent.insert(topic.clone());
        inner.newest.insert(topic, payload);
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// A new connection: everything is to be sent.
    pub(crate) fn all_unsent(&self) {
        let mut inner = self.lock();
        inner.unsent = inner.newest.keys().cloned().collect();
    }

    pub(crate) fn take_unsent(&self) -> Option<(String, Bytes)> {
        let mut inner = self.lock();
        loop {
            let topic = inner.unsent.pop_first()?;
            let payload = inner.newest.get(&topic)?.clone();
            if inner.too_large.get(&topic).is_none_or(|bytes| payload.len() < *bytes) {
                return Some((topic, payload));
            }
        }
    }

    /// The broker does not take this one now: it is to be sent again.
    pub(crate) fn deferred(&self, topic: String) {
        let mut inner = self.lock();
        if inner.newest.contains_key(&topic) {
            inner.unsent.insert(topic);
        }
    }

    /// The broker refuses this one. True the first time, which should be said.
    pub(crate) fn refused(&self, topic: &str) -> bool {
        self.lock().refused.insert(topic.to_owned())
    }

    /// The broker hangs up because of the size of this one. True the first time, which should be said.
    pub(crate) fn too_large(&self, topic: &str) -> bool {
        let mut inner = self.lock();
        let Some(bytes) = inner.newest.get(topic).map(Bytes::len) else { return false };
        inner.too_large.insert(topic.to_owned(), bytes);
        inner.refused.insert(topic.to_owned())
    }

    /// An acknowledged removal need not be kept; but one that is still under way behind a state of the same topic must.
    pub(crate) fn acked(&self, topic: &str, does: StateDoes) {
        let mut inner = self.lock();
        inner.refused.remove(topic);
        if does == StateDoes::Remove
            && !inner.unsent.contains(topic)
            && inner.newest.get(topic).is_some_and(Bytes::is_empty)
        {
            inner.newest.remove(topic);
            inner.too_large.remove(topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_wins_and_removals_end() {
        let states = States::default();
        states.set("a".into(), "1".into()).unwrap();
        states.set("a".into(), "2".into()).unwrap();
        states.set("b".into(), Bytes::new()).unwrap();
        assert_eq!(states.take_unsent(), Some(("a".into(), "2".into())));
        assert_eq!(states.take_unsent(), Some(("b".into(), Bytes::new())));
        assert_eq!(states.take_unsent(), None);
        states.acked("b", StateDoes::Remove);
        states.all_unsent();
        assert_eq!(states.take_unsent(), Some(("a".into(), "2".into())));
        assert_eq!(states.take_unsent(), None);
    }

    #[test]
    fn a_removal_outlives_the_acknowledgement_of_the_state_before_it() {
        let states = States::default();
        states.set("a".into(), "1".into()).unwrap();
        assert!(states.take_unsent().is_some());
        states.set("a".into(), Bytes::new()).unwrap();
        assert!(states.take_unsent().is_some());
        states.acked("a", StateDoes::Set);
        // The connection breaks before the removal is acknowledged.
        states.all_unsent();
        assert_eq!(states.take_unsent(), Some(("a".into(), Bytes::new())));
        states.acked("a", StateDoes::Remove);
        states.all_unsent();
        assert_eq!(states.take_unsent(), None);
    }

    #[test]
    fn what_was_put_off_goes_out_again_and_a_refusal_is_said_once() {
        let states = States::default();
        states.set("a".into(), "1".into()).unwrap();
        assert!(states.take_unsent().is_some());
        states.deferred("a".into());
        states.deferred("gone".into());
        assert_eq!(states.take_unsent(), Some(("a".into(), "1".into())));
        assert_eq!(states.take_unsent(), None);
        assert!(states.refused("a") && !states.refused("a"));
        states.acked("a", StateDoes::Set);
        assert!(states.refused("a"), "it was allowed in between");
    }

    #[test]
    fn what_is_too_large_is_left_out_until_it_is_smaller() {
        let states = States::default();
        states.set("a".into(), "four".into()).unwrap();
        states.set("b".into(), "1".into()).unwrap();
        assert!(states.take_unsent().is_some());
        assert!(states.too_large("a") && !states.too_large("a"));
        states.all_unsent();
        assert_eq!(states.take_unsent(), Some(("b".into(), "1".into())));
        states.set("a".into(), "many more".into()).unwrap();
        assert_eq!(states.take_unsent(), None);
        states.set("a".into(), "two".into()).unwrap();
        assert_eq!(states.take_unsent(), Some(("a".into(), "two".into())));
    }

    #[test]
    fn bounded() {
        let states = States::default();
        for i in 0..MAX_STATES {
            states.set(i.to_string(), "x".into()).unwrap();
        }
        assert!(states.set("one more".into(), "x".into()).is_err());
        assert!(states.set("5".into(), "y".into()).is_ok());
    }
}
