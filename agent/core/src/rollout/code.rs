//! The closed list of reasons why an update did not go on: what each means, what to do, and whether the release is to blame.
//!
//! These words are on the wire (`model/state`), in the log, in `model history` and in the doctor's lines. A word is never
//! renamed within version 1; a new one may be added.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What follows from a [`Code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// The release is not to blame (network, disk, clock, repository): tried again, after pauses that grow.
    Delay,
    /// Somebody decided so, or this agent cannot take the release: nothing to try; the next poll or command decides.
    Wait,
    /// The release is to blame: it is quarantined on this device, and not touched again before a new epoch.
    Quarantine,
}

macro_rules! codes {
    ($($code:ident $wire:literal $disposition:ident $text:literal)*) => {
        /// Why an update did not go on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Code {
            $(#[doc = $text] $code,)*
        }

        impl Code {
            /// Every code, in the order of an update.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// The word on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => $wire,)* }
            }

            /// One line for people: what happened, and what to do.
            #[must_use]
            pub fn explain(self) -> &'static str {
                match self { $(Self::$code => $text,)* }
            }

            /// What follows.
            #[must_use]
            pub fn disposition(self) -> Disposition {
                match self { $(Self::$code => Disposition::$disposition,)* }
            }
        }
    };
}

codes! {
    // The repository.
    ClockNotSynchronised "clock_not_synchronised" Delay
        "the clock is not synchronised, so expiry dates mean nothing: updates wait for it; check the time service (`timedatectl`)"
    AnchorInvalid "anchor_invalid" Delay
        "the trust anchor (the root.json given in [updates]) is missing or no root metadata: copy the repository's root.json to the device again"
    Unreachable "unreachable" Delay
        "the repository cannot be reached, or answers with an error: check [updates] url, the network, the proxy and the server"
    Certificate "certificate" Delay
        "the server's certificate is not trusted or has expired: check the server, the device's certificate authorities and its clock"
    TooSlow "too_slow" Delay
        "the server sends too slowly, so the transfer was cut off: it resumes where it stopped; check the network"
    RootRollback "root_rollback" Delay
        "the repository offers root metadata older than this device has seen: the mirror is stale or hostile; bring it up to date"
    TimestampRollback "timestamp_rollback" Delay
        "the repository offers timestamp metadata older than this device has seen: the mirror is stale or hostile; bring it up to date"
    SnapshotRollback "snapshot_rollback" Delay
        "the repository offers snapshot metadata older than this device has seen: the mirror is stale or hostile; bring it up to date"
    TargetsRollback "targets_rollback" Delay
        "the repository offers targets metadata older than this device has seen: the mirror is stale or hostile; bring it up to date"
    Expired "expired" Delay
        "the repository's metadata has expired: run `kinewatch publish refresh` where it is published; the model that runs goes on running"
    BelowThreshold "below_threshold" Delay
        "metadata is signed by too few of the keys that its role demands: sign it with enough keys and publish again"
    MetadataInvalid "metadata_invalid" Delay
        "metadata is no TUF metadata, or its parts do not belong together: publish again, and copy the whole folder to the server"
    MetadataTooLarge "metadata_too_large" Delay
        "metadata is larger than any honest one: the mirror is broken or hostile"
    WrongHash "wrong_hash" Delay
        "a file of the repository is not the one that was signed: copy the folder to the server again, or suspect the mirror"
    WrongLength "wrong_length" Delay
        "a file of the repository is shorter or longer than was signed: copy the folder to the server again, or suspect the mirror"
    TargetMissing "target_missing" Delay
        "the signed metadata or the server lacks a file that the channel names: publish the bundle before the channel, and copy all of it"
    TargetUnsafe "target_unsafe" Delay
        "the name of a target leads out of its folder: the repository is broken or hostile"

    // The channel.
    ChannelMissing "channel_missing" Delay
        "the repository has no such channel for this model: check [updates] channel, or publish it with `kinewatch publish channel set`"
    ChannelInvalid "channel_invalid" Delay
        "the channel file breaks a rule of its format: publish it again with `kinewatch publish channel set`"
    ChannelNewer "channel_newer" Wait
        "the channel file is of a format newer than this agent reads: upgrade kinewatch"
    EpochRollback "epoch_rollback" Delay
        "the channel offers an epoch below one that this device has seen: to go back to an older version, publish it with a higher epoch"
    RequiresAgent "requires_agent" Wait
        "the release needs another version of kinewatch than this one: upgrade kinewatch"
    Halted "halted" Wait
        "the publisher has halted this release: nothing to do here; `kinewatch publish resume` lets it go on"
    Quarantined "quarantined" Wait
        "this release failed here before and is not tried again: publish a mended one, or the same one with a new epoch"
    NothingToDo "nothing_to_do" Wait
        "there is nothing to install or to go back to: look at `kinewatch model list`"
    Pinned "pinned" Wait
        "the model is pinned here: `kinewatch model unpin` lets it be updated"

    // The disk.
    NoSpace "no_space" Delay
        "too little disk space is free beside what is kept for events: free some on the file system of [device] state_dir"
    DiskError "disk_error" Delay
        "the disk refused to read or write: look in the kernel's log (`journalctl -k`), and check the file system"
    StateDamaged "state_damaged" Delay
        "the database of updates was damaged and has been set aside: a new one was begun from the models that are installed"

    // The release.
    BundleUnsafe "bundle_unsafe" Quarantine
        "the bundle holds what no bundle may (links, devices, paths that leave it, entries twice, too much): build it with `kinewatch publish add`"
    PackageInvalid "package_invalid" Quarantine
        "the package breaks its own contract (model.toml): check it with `kinewatch model check` before it is published"
    WrongRelease "wrong_release" Quarantine
        "the bundle holds another model or version than the channel says: publish the channel again with the right one"
    LabelsChanged "labels_changed" Quarantine
        "the release has other labels than the model that runs, and its channel does not say so: publish it with `--labels changed` if that is meant"

    // The proof, in a child process.
    WorkerUnavailable "worker_unavailable" Delay
        "the process that tries models out cannot be started: check memory and the limits of the service"
    Interrupted "interrupted" Delay
        "the trial was cut off several times by restarts: it is tried again later; check the device's power and memory"
    WorkerFailed "worker_failed" Quarantine
        "the inference library cannot open or run the model: check it with `kinewatch model check` on such a device"
    WorkerCrashed "worker_crashed" Quarantine
        "the model crashed the inference library (in a process of its own, so nothing else was harmed): build it anew, and report it"
    WorkerTimeout "worker_timeout" Quarantine
        "the model did not finish loading or its golden clips in time: it hangs, or is too large for this device"
    WorkerMemory "worker_memory" Quarantine
        "the model needed more memory than it may: build a smaller one, or raise gates.peak_memory_mb"
    GoldenMismatch "golden_mismatch" Quarantine
        "the model does not compute here what its golden clips say: compare the inference library with the one that it was made with"
    NotFinite "not_finite" Quarantine
        "the model computes values that are not numbers: build it anew, and check its quantisation"
    TooSlowModel "too_slow_model" Quarantine
        "the model is slower here than its channel permits: build a faster one, or raise gates.latency_p99_ms"

    // In the running agent.
    NoWindows "no_windows" Delay
        "too few windows of live video came to compare the models on: check the cameras"
    NotCompared "not_compared" Wait
        "the release cannot be compared with the model that runs, though its channel asks for agreement: the trial goes on without; watch it, or halt it"
    ShadowDisagrees "shadow_disagrees" Quarantine
        "the model says too often something else than the one that runs: look at both on recorded video, or lower gates.shadow_agreement"
    ShadowFailed "shadow_failed" Quarantine
        "the model failed on live video beside the one that runs: look in the log for the error"
    LoadFailed "load_failed" Quarantine
        "the agent could not load the model, though the proof had passed: look in the log for the error"
    NoMemory "no_memory" Delay
        "too little memory is free to load the model: free some, or use a smaller model"
    SlowHere "slow_here" Delay
        "the model is slower on live video than its channel permits, and the one before is back: is the device overloaded? It is tried again"
    ProbationFailed "probation_failed" Quarantine
        "the model failed on live video after it had taken over: the one before is back; look in the log for the error"
    TriesSpent "tries_spent" Quarantine
        "the agent died each time with the new model loaded: the one before is back; look for its crash in the log"
    RolledBack "rolled_back" Quarantine
        "somebody went back to the model before: this release is not installed again before a new epoch"
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Most bytes of a [`Fault::detail`].
pub const MAX_DETAIL: usize = 500;

/// Why an update did not go on, with its coordinates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Fault {
    /// The reason.
    pub code: Code,
    /// One line with the coordinates (file, limit, what was found), at most [`MAX_DETAIL`] bytes.
    pub detail: String,
}

impl Fault {
    /// `detail` is cut at [`MAX_DETAIL`] bytes and made one line, since what it names may come from outside.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        let end = (0..=MAX_DETAIL.min(detail.len())).rev().find(|&i| detail.is_char_boundary(i)).unwrap_or(0);
        detail.truncate(end);
        Self { code, detail: detail.replace(char::is_control, " ") }
    }
}

impl From<Code> for Fault {
    fn from(code: Code) -> Self {
        Self { code, detail: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_serde_and_explanations_say_what_to_do() {
        for &code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!(code.explain().contains(": "), "{code}: what happened, a colon, and what to do");
            assert!(code.explain().len() < 180 && !code.explain().ends_with('.'), "{code}: one line");
        }
    }

    #[test]
    fn details_are_one_bounded_line() {
        let long = Fault::new(Code::BundleUnsafe, format!("{}\n\u{1b}[2J", "é".repeat(1000)));
        assert!(long.detail.len() <= MAX_DETAIL);
        assert_eq!(Fault::new(Code::BundleUnsafe, "a\nb\u{1b}").detail, "a b ");
    }
}
