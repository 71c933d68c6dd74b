//! The stages that the agent cannot do without, and what is said of one that hangs.
//!
//! A camera's thread is not among them: it is replaced alone.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kinewatch_core::beat::{self, Beat};

use crate::clock;

/// A model may be opened for so long without using the processor.
const OPENING_LIMIT: Duration = Duration::from_secs(120);

/// Their signs of life; each is written by its own thread or task.
#[derive(Debug)]
pub struct Stages {
    /// Opening of models at start.
    pub opening: Arc<Beat>,
    /// The `infer` thread: each round, and each call of a model.
    pub inference: Arc<Beat>,
    /// The `store` thread: each round, and each commit.
    pub store: Arc<Beat>,
    /// The task of the MQTT client: each second, with or without a connection.
    pub publisher: Arc<Beat>,
}

/// A stage that hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Its name.
    pub stage: String,
    /// Since its last sign of life.
    pub silence: Duration,
}

impl Default for Stages {
    fn default() -> Self {
        let beat = |name, limit| Arc::new(Beat::new(name, limit, Instant::now()));
        Self {
            opening: beat("opening", OPENING_LIMIT),
            inference: beat("inference", beat::LIMIT),
            store: beat("store", beat::LIMIT),
            publisher: beat("publisher", beat::LIMIT),
        }
    }
}

impl Stages {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Beat> {
        [&*self.opening, &*self.inference, &*self.store, &*self.publisher].into_iter()
    }

    /// A shorter limit for those that run, so that a short `WatchdogSec=` does not fire first, unnamed.
    pub fn limit_to(&self, limit: Duration) {
        for beat in [&self.inference, &self.store, &self.publisher] {
            beat.limit_to(limit);
        }
    }

    /// The one that has hung for longest.
    #[must_use]
    pub fn stuck(&self, now: Instant) -> Option<Stuck> {
        let overdue = self.iter().filter_map(|beat| Some((beat.overdue(now)?, beat)));
        let (silence, beat) = overdue.max_by_key(|(silence, _)| *silence)?;
        Some(Stuck { stage: beat.name().to_owned(), silence })
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} makes no progress since {} ({} s)",
            self.stage,
            clock::shown(self.silence),
            self.silence.as_secs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_hung_first_is_named() {
        let stages = Stages::default();
        let begun = Instant::now();
        let at = |s| begun + Duration::from_secs(s);
        assert_eq!(stages.stuck(at(1000)), None, "none has begun");
        stages.inference.touch(at(10));
        stages.store.touch(at(5));
        stages.publisher.touch(at(60));
        let stuck = stages.stuck(at(50)).unwrap();
        assert_eq!((stuck.stage.as_str(), stuck.silence.as_secs()), ("store", 45));
        assert!(stuck.to_string().starts_with("store makes no progress since "), "{stuck}");
        stages.store.rest(at(50));
        stages.limit_to(Duration::from_secs(4));
        assert_eq!(stages.stuck(at(50)).unwrap().stage, "inference");
        stages.inference.touch(at(50));
        assert_eq!(stages.stuck(at(54)), None);
    }
}
