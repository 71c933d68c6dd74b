//! `[updates]`: models over the air.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where newer packages of the models come from: a signed repository on any web server.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Updates {
    /// Repository: the folder that `metadata` and `targets` lie in, `https://HOST/PATH`. Default: no updates.
    pub url: Option<String>,
    /// The same repository elsewhere, asked in turn when `url` does not answer.
    #[schemars(length(max = 16))]
    pub mirrors: Vec<String>,
    /// Trust anchor: the repository's `root.json`, as it was when the device was set up.
    pub root: String,
    /// Which of the publisher's channels is followed.
    #[schemars(regex(pattern = r"^[a-z0-9_-]{1,64}$"))]
    pub channel: String,
    /// Who decides that a release is installed.
    pub policy: UpdatePolicy,
    /// Seconds between two looks at the repository.
    #[schemars(range(min = 1, max = 604_800))]
    pub poll_s: u32,
    /// Time of day within which models are downloaded and exchanged, local time, such as `02:00-05:00`. Default: any. A download
    /// that is not through at its end goes on in the next. What is installed by hand does not wait for it.
    pub window: Option<String>,
    /// KiB a second that downloads take at most; 0: no limit.
    #[schemars(range(min = 0, max = 10_000_000))]
    pub rate_limit_kib_s: u32,
    /// HTTP proxy, `http://HOST:PORT`. Default: that of the environment.
    pub proxy: Option<String>,
    /// MiB of the disk that updates leave free for events.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub reserve_mb: u32,
    /// Which clock expiry dates are judged by.
    pub clock: UpdateClock,
    /// Whether memory holds the old model and the new one at once.
    pub swap: UpdateSwap,
    /// Seconds within which a release must have proven itself in a process of its own, engines built included.
    #[schemars(range(min = 10, max = 86_400))]
    pub proof_timeout_s: u32,
}

impl Default for Updates {
    fn default() -> Self {
        Self {
            url: None,
            mirrors: Vec::new(),
            root: "/etc/kinewatch/root.json".into(),
            channel: "stable".into(),
            policy: UpdatePolicy::Auto,
            poll_s: 3600,
            window: None,
            rate_limit_kib_s: 0,
            proxy: None,
            reserve_mb: 256,
            clock: UpdateClock::Synchronised,
            swap: UpdateSwap::Auto,
            proof_timeout_s: 1800,
        }
    }
}

/// Whether memory holds the old model and the new one at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpdateSwap {
    /// As the memory that is free says.
    #[default]
    Auto,
    /// It does: the new one is tried beside the old one, and no window is left out.
    Hot,
    /// It does not: the old one goes first, and windows are left out until the new one is open.
    Serial,
}

/// Which clock expiry dates are judged by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpdateClock {
    /// One that the kernel says is synchronised; updates wait until it is.
    #[default]
    Synchronised,
    /// The device's, whatever the kernel says: where it is set in a way that the kernel is not told of, as in a container.
    Trusted,
}

/// Who decides that a release is installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpdatePolicy {
    /// The channel: what it offers this device is installed.
    #[default]
    Auto,
    /// Somebody here: `kinewatch model install`, or the command `model-install`.
    Manual,
    /// Nobody: what runs goes on running, and the repository is only looked at.
    Pinned,
}
