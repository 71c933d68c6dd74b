//! How many commands came and what became of them, for metrics and status. Names are those that exist and `unknown`, so that
//! nobody can make more.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use kinewatch_core::command::{CommandError, CommandName, ErrorCode};

const UNKNOWN: &str = "unknown";

/// Counters of commands. Written by the command task.
#[derive(Debug, Default)]
pub struct Counts {
    /// The broker lets us listen for commands, on the connection that stands.
    pub listening: AtomicBool,
    /// In the order of [`CommandName::ALL`], then those of no known name.
    by_name: [Outcomes; CommandName::ALL.len() + 1],
    /// Dropped because too many came.
    pub too_many: AtomicU64,
    /// Dropped before they were read, because too many came.
    pub unread: AtomicU64,
    /// Ignored because they were retained.
    pub retained: AtomicU64,
    /// Times that another device of our name was heard.
    pub namesakes: AtomicU64,
    /// Answers that found no room on the way to the broker.
    pub unanswered: AtomicU64,
}

/// What became of the commands of one name.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Done.
    pub ok: AtomicU64,
    /// Not done, by the requester's fault.
    pub refused: AtomicU64,
    /// Not done, by ours.
    pub failed: AtomicU64,
}

impl Counts {
    /// Counters by name.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, &Outcomes)> {
        CommandName::ALL.into_iter().map(CommandName::as_str).chain([UNKNOWN]).zip(&self.by_name)
    }

    pub(super) fn note(&self, name: &str, outcome: Result<(), &CommandError>) {
        let place = CommandName::ALL.iter().position(|known| known.as_str() == name).unwrap_or(CommandName::ALL.len());
        let outcomes = &self.by_name[place];
        let count = match outcome.map_err(|error| error.code) {
            Ok(()) => &outcomes.ok,
            Err(ErrorCode::Unavailable | ErrorCode::Timeout | ErrorCode::Failed) => &outcomes.failed,
            Err(_) => &outcomes.refused,
        };
        count.fetch_add(1, Relaxed);
    }
}
