//! What goes into the machine and what comes out of it: the whole interface between the rules and whoever carries them out.
//!
//! # The driver
//! One thread or task owns a model's record and does nothing but this:
//!
//! ```text
//! input = Started
//! loop {
//!     step = machine.step(&record, &input, now)
//!     if step.record != record { commit (step.record, step.note) in updates.db }   // one transaction; when it fails: see below
//!     record = step.record
//!     answer the command, if the input was one, with step.refused
//!     if step.poll == Begin and no poll is under way { begin one; its end is Polled(…) }
//!     if step.job differs from the job under way { cancel that one and wait until it has ended, then begin step.job }
//!     input = the first of: the job has ended → Ended{job, result} (exactly once a job)
//!                           the poll has ended → Polled(result)
//!                           a command          → Check | Install | Rollback | Pin | Unpin
//!                           once a second while `probation` → Health (counted from the load on)
//!                           `step.wake` has come → Tick
//!                           the agent stops in order → Stopped, after the inference thread has ended; then leave
//! }
//! ```
//!
//! * **At the start** the agent loads [`Record::serving`] of the record *after* `Started` was committed, in the place of the
//!   configured package. When that succeeded and `step.job` is [`Job::Load`] of the same slot, the job has ended well. When it
//!   failed: input [`Input::Unusable`], commit, and load what `serving` says then. It ends at [`Slot::Factory`] at the latest.
//! * **A commit that fails** (full disk): the step did not happen. Nothing of it is done; the same input is given again later, and
//!   `Started` before any other. At the start, load `record.current` meanwhile, never the candidate: its try could not be spent.
//! * **Every job may be done twice**: after a crash the same job is asked for again, and does what is left of it.
//! * A job that is cancelled has no end: its `Ended`, should it be given all the same, is not the job that the machine waits for.
//! * `Stopped` is only for a stop in good order. A watchdog, a panic or an inference thread that does not end is none: the try stays
//!   spent, which is what it is for.
//! * **While the agent stops** no end of a job is an input: what ended it may be the stop itself. `Stopped` alone is.

use std::time::Duration;

use jiff::Timestamp;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::{Fault, Gates, Labels, Measured, Offer, Record, Release, Slot};

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The agent has started: the first input of each process.
    Started,
    /// The agent is about to end, in good order, and nothing has a model loaded any more: the last input of a process.
    Stopped,
    /// Time has passed.
    Tick,
    /// A poll has ended: the channel file, verified and parsed, with what the repository says of its bundle.
    Polled(Result<Box<Offer>, Failure>),
    /// Somebody asks to look now. A hint: the repository alone says what there is.
    Check,
    /// Somebody approves what is offered, or only if it is of this epoch. Waves, pauses and the maintenance window are
    /// passed over; quarantine, halt and pin are not.
    Install {
        /// Approve only this epoch.
        epoch: Option<u64>,
    },
    /// Somebody wants the model before.
    Rollback,
    /// Somebody wants what runs to stay.
    Pin,
    /// Somebody wants updates again.
    Unpin,
    /// A job has ended.
    Ended {
        /// The job, as it was handed out.
        job: Box<Job>,
        /// How.
        result: Result<Done, Failure>,
    },
    /// What was to be loaded at the start could not be.
    Unusable {
        /// What [`Record::serving`] said.
        slot: Slot,
        /// Why.
        fault: Fault,
    },
    /// How the model that took over does.
    Health(Health),
}

/// Why something did not go well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub fault: Fault,
    /// The server asked to be left alone for so long.
    pub retry_after: Option<Duration>,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { fault, retry_after: None }
    }
}

/// How a model does, counted from its load in this process on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// For how long it has been loaded, by a clock that no one sets.
    pub ran: Duration,
    /// Windows that it has scored.
    pub windows: u64,
    /// For how long there has been no window for it, by the same clock.
    pub idle: Duration,
    /// Inference errors, values that are no numbers among them.
    pub errors: u64,
    /// The last error, for people.
    pub detail: String,
    /// That it is slower than it may be, for people. A device that has much else to do makes it so.
    pub late: Option<String>,
}

/// What shall be under way. At most one at a time; none of them stops the model that runs, but [`Job::Load`].
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// Nothing: what is under way is cancelled.
    None,
    /// Make sure of disk space for this release: remove what no record names, in the stated order, and no more than is needed.
    /// Fails with `no_space`. Ends with [`Done::Plain`].
    Reserve {
        /// What it is for; `length` is that of the bundle.
        release: Release,
        /// Free space that is wanted at least, MiB, beside the device's own reserve.
        min_free_mb: u64,
    },
    /// Fetch the bundle, going on where a former attempt stopped, and verify its length and hash. Done at once when it, or what
    /// is in it, is here already. Cut off where the maintenance window ends. Ends with [`Done::Plain`].
    Download {
        /// Which one.
        release: Release,
    },
    /// Unpack the bundle, verify the package, compare name, version and (for [`Labels::Same`]) labels, install it. Fails with
    /// `bundle_unsafe`, `package_invalid`, `wrong_release`, `labels_changed`. Ends with [`Done::Plain`].
    Unpack {
        /// Which one.
        release: Release,
        /// Whether its labels may differ from those of `current`.
        labels: Labels,
        /// Whose labels to compare with.
        current: Slot,
    },
    /// Open it in a child process of low priority, bounded in memory and time; compare the golden clips; measure it. Ends with
    /// [`Done::Proven`]; the machine compares with the gates.
    Prove {
        /// Which one.
        release: Release,
        /// What it must prove; `peak_memory_mb` bounds the child.
        gates: Gates,
    },
    /// Load it beside the model that runs and compare what they say on live windows. The model that runs loses no window to
    /// it. Ends with [`Done::Shadowed`], or [`Done::ShadowSkipped`] where memory does not allow two, or the two cannot be
    /// compared.
    Shadow {
        /// Which one.
        release: Release,
        /// Windows to compare.
        windows: u64,
    },
    /// Load it in the place of the model that runs, between two batches. When it serves already there is nothing to do. When it
    /// cannot be loaded, what served before goes on if it can. Ends with [`Done::Plain`].
    Load {
        /// What shall run.
        slot: Slot,
    },
    /// Make `current/<model>` and `previous/<model>` name these, durably; then remove what no record names. Ends with
    /// [`Done::Plain`].
    Settle {
        /// What the link `current` shall name; none for the factory model.
        current: Slot,
        /// What the link `previous` shall name.
        previous: Option<Slot>,
    },
}

/// How a job ended well.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// There is nothing more to say.
    Plain,
    /// The proof ran through.
    Proven(Measured),
    /// The comparison ran through.
    Shadowed {
        /// Windows that both scored.
        windows: u64,
        /// Windows on which both said the same.
        agreed: u64,
    },
    /// There was no comparison.
    ShadowSkipped {
        /// For people: what the two lack for it.
        why: String,
    },
}

/// What comes of an input. In this order: commit, answer, poll, job, wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The record from now on.
    pub record: Record,
    /// A line for the history, in the same commit.
    pub note: Option<Note>,
    /// Why the command was refused.
    pub refused: Option<Fault>,
    /// Whether to ask the repository now.
    pub poll: Poll,
    /// What shall be under way now.
    pub job: Job,
    /// Give [`Input::Tick`] then, at the latest. Within the hour.
    pub wake: Timestamp,
}

/// Whether to ask the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Not yet.
    Later,
    /// Now, unless a poll is under way.
    Begin,
}

/// A line of the history of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    pub at: Timestamp,
    /// State before, as in [`Record::state`].
    pub from: String,
    /// State after.
    pub to: String,
    /// Which release it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// Why, where something went wrong or was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Identity of the device, for waves and pauses.
    pub device: String,
    /// Version of this agent.
    pub agent: Version,
    /// Version of the factory package: it is not fetched to replace itself.
    pub factory: Option<Version>,
    /// Channel to follow.
    pub channel: String,
    /// What may be done without asking.
    pub policy: Policy,
    /// Time between polls.
    pub poll_period: Duration,
    /// Which boot of the machine this is; `None` where that cannot be told.
    pub boot: Option<String>,
}

/// What may be done without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Everything.
    Auto,
    /// Looking; each release waits for [`Input::Install`].
    Manual,
    /// Looking; nothing is installed.
    Pinned,
}

/// The moment of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall time.
    pub time: Timestamp,
    /// Whether it can be believed.
    pub clock: ClockState,
    /// Whether a release may be fetched, and take over.
    pub window: Window,
}

/// Whether wall time can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockState {
    /// The system says so.
    Synchronised,
    /// Not yet: nothing is asked and nothing begun.
    NotSynchronised,
}

/// The maintenance window: when a release may be fetched, and when it may take over. All else happens at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Now; also when there is none.
    Open,
    /// Not now.
    Closed {
        /// When it opens next.
        opens: Timestamp,
    },
}
