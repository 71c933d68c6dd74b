//! What a device says of its models: which one runs, what is offered, how an update goes, and why one did not go on.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rollout::Code;

/// Retained on the device's `model/state` topic; another when anything in it changes but `checked_at` and
/// `checks`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelsState {
    /// Every model that the agent was started with, in the order of its configuration.
    pub models: Vec<ModelState>,
    /// Larger with each start of the agent.
    pub session: u64,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelState {
    /// Name in the configuration.
    pub model: String,
    /// What runs.
    pub installed: InstalledModel,
    /// What is gone back to by `model-rollback`; null when there is nothing.
    pub previous: Option<InstalledModel>,
    /// Channel that is followed; null when updates are off.
    pub channel: Option<String>,
    /// What the channel offers; null when nothing was heard of it yet.
    pub offered: Option<OfferedModel>,
    /// `idle`, `reserving`, `downloading`, `unpacking`, `proving`, `shadowing`, `ready`, `swapping`, `probation`, `rolling_back`
    /// or `settling`. More may be added.
    pub state: String,
    /// The release that is on trial; null when none is.
    pub candidate: Option<InstalledModel>,
    /// What `offered`, or a look for one, waits for: a code, or `wave`, `approval`, `pause`, `window`; null when nothing waits.
    pub waits_for: Option<String>,
    /// Somebody has pinned the model here.
    pub pinned: bool,
    /// Why the last trial ended, or what could not be asked of the present one; null once another has begun or gone well. That what
    /// was known before is lost (`state_damaged`) stands until one has gone well.
    pub error: Option<ModelError>,
    /// Why the last look at the repository failed; null once one went well.
    pub repository_error: Option<ModelError>,
    /// When the repository was last looked at with success, RFC 3339, UTC.
    #[schemars(extend("format" = "date-time"))]
    pub checked_at: Option<String>,
    /// Looks at the repository that have ended, well or not.
    #[serde(default)]
    pub checks: u64,
    /// Releases that failed here, newest last; none of them is tried again before a new epoch.
    pub quarantine: Vec<QuarantinedModel>,
}

/// A package that is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstalledModel {
    /// Version of the package.
    pub version: String,
    /// Epoch of its release; null for the package that the configuration names.
    pub epoch: Option<u64>,
    /// SHA-256 of its bundle, hex; null for the package that the configuration names.
    pub sha256: Option<String>,
}

/// What a channel offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OfferedModel {
    /// Version of the package.
    pub version: String,
    /// Epoch of the release.
    pub epoch: u64,
    /// The publisher has halted it.
    pub halted: bool,
}

/// Why something did not go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelError {
    /// For programs: one of a closed list.
    pub code: Code,
    /// For people: what was found, with its coordinates.
    pub detail: String,
    /// For people: what happened, and what to do.
    pub explain: String,
}

impl fmt::Display for ModelError {
    /// For people: code, what to do, and what was found.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.explain)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

/// A release that failed here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QuarantinedModel {
    /// Version of the package.
    pub version: String,
    /// Epoch of the release.
    pub epoch: u64,
    /// Why.
    pub code: Code,
    /// Since when, RFC 3339, UTC.
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
}

/// On the device's `model/progress` topic, not retained: at most one a second while something is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelProgress {
    /// Name in the configuration.
    pub model: String,
    /// As in [`ModelState::state`].
    pub state: String,
    /// Version of the release that it is about.
    pub version: Option<String>,
    /// How much is done: bytes of a download, windows of a trial or of a probation.
    pub done: u64,
    /// Of how much; null where nobody knows.
    pub of: Option<u64>,
}

impl From<&crate::rollout::Fault> for ModelError {
    fn from(fault: &crate::rollout::Fault) -> Self {
        Self { code: fault.code, detail: fault.detail.clone(), explain: fault.code.explain().to_owned() }
    }
}
