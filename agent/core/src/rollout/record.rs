//! What a device knows of one model: what runs, what ran before, what is on trial, and what must never be tried again.
//!
//! One [`Record`] a model, kept in `updates.db` as JSON. It changes only in [`Machine::step`](super::Machine::step), and each
//! change is one commit that comes before whatever follows from it. So the record is the truth, and links and folders
//! follow: after a crash they are made to agree with it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::{Channel, Fault, Gates, Labels};

/// The only `schema` of a [`Record`] that this agent reads.
pub const RECORD_SCHEMA: u32 = 1;
/// How often a release may be loaded in the agent's own process without having come out of it whole.
pub const TRIES: u8 = 2;
/// How often the proof of a release may be cut off by restarts before it waits.
pub const MAX_PROOFS: u32 = 3;
/// How often the agent may end with a release in its memory, in a way that the release is hardly to blame for, before it waits.
pub const MAX_CUTS: u32 = 3;
/// Quarantined releases that are remembered for people. Those that could be offered again are remembered in any case.
pub(super) const QUARANTINE_KEPT: usize = 32;

/// A release of a model: one signed bundle, offered by a channel at an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Channel that offered it.
    pub channel: String,
    /// Its epoch there.
    pub epoch: u64,
    /// Version of the model.
    pub version: Version,
    /// Target with the bundle.
    pub bundle: String,
    /// SHA-256 of the bundle, lower-case hex, as the repository signed it.
    pub sha256: String,
    /// Length of the bundle, bytes, as signed.
    pub length: u64,
}

impl Release {
    /// Name of the folder below `installed/<model>/`: it says what is in it, so it is never another.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{}-{:.12}", self.version, self.sha256)
    }

    pub(super) fn is(&self, channel: &str, epoch: u64) -> bool {
        self.channel == channel && self.epoch == epoch
    }
}

/// Something that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// The package that the configuration names. Never removed.
    Factory,
    /// An installed release.
    Release(Release),
}

impl Slot {
    /// The release, unless it is the factory model.
    #[must_use]
    pub fn release(&self) -> Option<&Release> {
        match self {
            Self::Factory => None,
            Self::Release(release) => Some(release),
        }
    }
}

/// A release on trial, with what its channel asked of it when the trial began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The release.
    pub release: Release,
    /// What it must prove.
    pub gates: Gates,
    /// Whether it may have other labels.
    pub labels: Labels,
    /// Free disk space that its channel asks for, MiB.
    pub min_free_mb: u64,
    /// What the proof measured, once it has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// How a candidate that has taken over does, since it was loaded last: what tells whose fault it is when the agent dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exposure {
    /// It is being loaded or was a moment ago, and has scored nothing yet.
    #[default]
    Loading,
    /// It scores windows.
    Scoring,
    /// There has been no window for it to score for a while: cameras are away, or there are none.
    Quiet,
}

/// What the proof measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Median time of a window, ms.
    pub p50_ms: f64,
    /// Slowest of a hundred, ms.
    pub p99_ms: f64,
    /// Peak memory of the process that tried it, MiB.
    pub peak_memory_mb: u64,
}

/// How far a trial has come. In this order; up to and including [`Stage::Ready`] the running model is untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Disk space is made sure of.
    Reserving,
    /// The bundle is fetched, within the maintenance window.
    Downloading,
    /// The bundle is unpacked and the package verified.
    Unpacking,
    /// A child process opens it, compares its golden clips, and measures it.
    Proving,
    /// It reads live windows beside the model that runs, in the agent's own process: a try is spent.
    Shadowing,
    /// It waits for the maintenance window.
    Ready,
    /// It is loaded in the place of the model that runs: a try is spent.
    Swapping,
    /// It runs and is watched.
    Probation,
}

impl Stage {
    /// Whether the candidate has taken, or is taking, the place of the model that runs.
    #[must_use]
    pub fn has_taken_over(self) -> bool {
        self >= Self::Swapping
    }
}

/// What is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Nothing.
    Idle,
    /// A release is on trial.
    Trial {
        /// How far it has come.
        stage: Stage,
        /// The release.
        candidate: Candidate,
    },
    /// `current` is being loaded again.
    RollingBack {
        /// A release that will be wanted again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep: Option<Release>,
        /// Not even the factory model could be loaded, and it is not tried again before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<Timestamp>,
    },
    /// Links are made to agree with the record, and what nobody needs is removed.
    Settling {
        /// A release that will be wanted again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep: Option<Release>,
        /// It failed, and is not tried again before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<Timestamp>,
    },
}

impl Phase {
    pub(super) fn rolling_back(keep: Option<Release>) -> Self {
        Self::RollingBack { keep, not_before: None }
    }

    pub(super) fn settling(keep: Option<Release>) -> Self {
        Self::Settling { keep, not_before: None }
    }
}

/// A channel file that was accepted, and the bundle that it names as the repository signed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// The file.
    pub channel: Channel,
    /// SHA-256 of the bundle, lower-case hex.
    pub sha256: String,
    /// Length of the bundle, bytes.
    pub length: u64,
}

impl Offer {
    /// The release that it offers.
    #[must_use]
    pub fn release(&self) -> Release {
        Release {
            channel: self.channel.channel.clone(),
            epoch: self.channel.epoch,
            version: self.channel.version.clone(),
            bundle: self.channel.bundle.clone(),
            sha256: self.sha256.clone(),
            length: self.length,
        }
    }
}

/// What was tried with the release that is offered. Begins anew only with another channel or epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Channel of the release.
    pub channel: String,
    /// Epoch of the release.
    pub epoch: u64,
    /// Loads in the agent's own process that are left, of [`TRIES`].
    pub tries_left: u8,
    /// Proofs begun and not ended.
    pub proofs: u32,
    /// Ends of the agent with it in memory that it was hardly to blame for, since it waited last.
    #[serde(default)]
    pub cuts: u32,
    /// How it does in the agent's own process.
    #[serde(default)]
    pub exposure: Exposure,
    /// Boot of the machine in which it was loaded last; none after a stop in good order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Failures in a row that were not the release's fault.
    pub failures: u32,
    /// Not tried again before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

/// How the asking goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Polls {
    /// Polls that ended, well or not.
    pub count: u64,
    /// Failures in a row.
    pub failures: u32,
    /// The next one. `None`: none was planned yet.
    pub next: Option<Timestamp>,
    /// The last one that went well.
    pub succeeded: Option<Timestamp>,
    /// Why the last one failed, or its answer was refused.
    pub fault: Option<Fault>,
}

/// A release that failed here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The release.
    pub release: Release,
    /// Why.
    pub fault: Fault,
    /// Since when.
    pub at: Timestamp,
}

/// All that a device knows of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format of this record: 1.
    pub schema: u32,
    /// Name of the model.
    pub model: String,
    /// Proven: what runs while nothing has taken over, and what is gone back to.
    pub current: Slot,
    /// What ran before `current`.
    pub previous: Option<Slot>,
    /// What is under way.
    #[serde(flatten)]
    pub phase: Phase,
    /// The newest channel file that was accepted.
    pub offer: Option<Offer>,
    /// Epoch of the offer that somebody has approved here.
    pub approved: Option<u64>,
    /// Somebody has pinned the model here.
    pub pinned: bool,
    /// Highest epoch seen, by channel. Never falls.
    pub floors: BTreeMap<String, u64>,
    /// Releases that failed here, oldest first.
    pub quarantine: Vec<Quarantined>,
    /// What was tried with the offer.
    pub attempts: Option<Attempts>,
    /// How the asking goes.
    pub polls: Polls,
    /// Why the last trial ended, or what could not be asked of the present one, until another begins or one is committed; or that
    /// what was known before was lost, until one is committed.
    pub fault: Option<Fault>,
    /// Starts of the agent that this record has seen.
    pub starts: u64,
}

impl Record {
    /// The record of a model of which only the factory package is known.
    #[must_use]
    pub fn new(model: &str) -> Self {
        Self::found(model, Slot::Factory, None)
    }

    /// The record of a model whose former record is lost, from what is installed. The epochs of the releases are floors.
    #[must_use]
    pub fn found(model: &str, current: Slot, previous: Option<Slot>) -> Self {
        let mut floors = BTreeMap::new();
        for release in [Some(&current), previous.as_ref()].into_iter().flatten().filter_map(Slot::release) {
            raise(&mut floors, &release.channel, release.epoch);
        }
        Self {
            schema: RECORD_SCHEMA,
            model: model.to_owned(),
            current,
            previous,
            phase: Phase::settling(None),
            offer: None,
            approved: None,
            pinned: false,
            floors,
            quarantine: Vec::new(),
            attempts: None,
            polls: Polls::default(),
            fault: None,
            starts: 0,
        }
    }

    /// What is to be loaded when the agent starts, and what runs or is being loaded while it runs.
    #[must_use]
    pub fn serving(&self) -> Slot {
        match &self.phase {
            Phase::Trial { stage, candidate } if stage.has_taken_over() => Slot::Release(candidate.release.clone()),
            _ => self.current.clone(),
        }
    }

    /// The release on trial.
    #[must_use]
    pub fn candidate(&self) -> Option<&Candidate> {
        match &self.phase {
            Phase::Trial { candidate, .. } => Some(candidate),
            _ => None,
        }
    }

    /// Word for the state, as it is on the wire, in the log and in the history.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match &self.phase {
            Phase::Idle => "idle",
            Phase::RollingBack { .. } => "rolling_back",
            Phase::Settling { .. } => "settling",
            Phase::Trial { stage, .. } => match stage {
                Stage::Reserving => "reserving",
                Stage::Downloading => "downloading",
                Stage::Unpacking => "unpacking",
                Stage::Proving => "proving",
                Stage::Shadowing => "shadowing",
                Stage::Ready => "ready",
                Stage::Swapping => "swapping",
                Stage::Probation => "probation",
            },
        }
    }

    /// Why this release is not tried again, if so.
    #[must_use]
    pub fn quarantined(&self, channel: &str, epoch: u64) -> Option<&Quarantined> {
        self.quarantine.iter().find(|q| q.release.is(channel, epoch))
    }

    /// What was tried with this release so far.
    #[must_use]
    pub fn attempts_at(&self, channel: &str, epoch: u64) -> Option<&Attempts> {
        self.attempts.as_ref().filter(|a| a.channel == channel && a.epoch == epoch)
    }

    /// Floors and quarantine of another account of the same model are taken over, so that neither is ever lost.
    pub fn merge(&mut self, floors: &BTreeMap<String, u64>, quarantine: &[Quarantined]) {
        for (channel, &epoch) in floors {
            raise(&mut self.floors, channel, epoch);
        }
        for q in quarantine {
            if self.quarantined(&q.release.channel, q.release.epoch).is_none() {
                self.quarantine.push(q.clone());
            }
        }
        self.quarantine.sort_by_key(|q| q.at);
        self.prune_quarantine();
    }

    /// Forget the oldest of those that cannot be offered again, as their epoch is below the floor.
    pub(super) fn prune_quarantine(&mut self) {
        let mut excess = self.quarantine.len().saturating_sub(QUARANTINE_KEPT);
        let floors = &self.floors;
        self.quarantine.retain(|q| {
            let moot = floors.get(&q.release.channel).is_some_and(|&floor| q.release.epoch < floor);
            let forget = excess > 0 && moot;
            excess -= usize::from(forget);
            !forget
        });
    }
}

pub(super) fn raise(floors: &mut BTreeMap<String, u64>, channel: &str, epoch: u64) {
    let floor = floors.entry(channel.to_owned()).or_default();
    *floor = (*floor).max(epoch);
}
