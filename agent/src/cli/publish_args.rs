//! Arguments of `kinewatch publish`. Nothing is done with them here.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `publish`.
#[derive(Debug, Subcommand)]
pub enum PublishCommand {
    /// Make an empty repository, and the keys that will sign it.
    #[command(after_help = "Examples:
  kinewatch publish init repo --keys keys
  kinewatch publish init repo --keys keys --root-keys 3 --root-threshold 2 --targets-keys 2 --targets-threshold 2
  kinewatch publish init repo --keys keys --timestamp-days 14

repo is the folder to copy to a web server. keys must never be copied there. How long metadata of each role is valid is
written into the root metadata, and kept by every later command.")]
    Init(PublishInitArgs),
    /// Pack a model package and publish it as a release, which no device runs before a channel names it.
    #[command(after_help = "Examples:
  kinewatch publish add repo models/falls --keys keys

The version is that of model.toml, and is published once: other content needs another version.")]
    Add(PublishAddArgs),
    /// Say which release the devices on a channel shall run.
    #[command(
        subcommand,
        after_help = "Examples:
  kinewatch publish channel set repo stable --model falls --version 1.2.0 --keys keys
  kinewatch publish channel set repo stable --model falls --version 1.2.0 --waves 1%:0h,10%:24h,100%:72h --keys keys"
    )]
    Channel(PublishChannelCommand),
    /// Stop a rollout: no device begins it, and those that have not finished go back.
    #[command(after_help = "Examples:
  kinewatch publish halt repo stable --model falls --keys keys")]
    Halt(PublishHaltArgs),
    /// Let a rollout go on that was halted.
    #[command(after_help = "Examples:
  kinewatch publish resume repo stable --model falls --keys keys")]
    Resume(PublishHaltArgs),
    /// Replace a key, whether the old one is lost, stolen, or only old.
    #[command(after_help = "Examples:
  kinewatch publish rotate repo timestamp --keys keys
  kinewatch publish rotate repo root --lost --keys usb-4 --keys usb-1 --keys usb-2
  kinewatch publish rotate repo root --revoke 3f2a91c0 --keys usb-4 --keys usb-1

The new key is made in the first folder of --keys. Root must sign: with as many of its keys as its threshold says. Where they
are not all here, root.pending.json waits for the others: see `kinewatch publish sign`.")]
    Rotate(PublishRotateArgs),
    /// Add the signatures of the root keys at hand to a root that waits for them.
    #[command(after_help = "Examples:
  kinewatch publish sign repo --keys /media/usb")]
    Sign(PublishSignArgs),
    /// Sign anew what is about to expire; to be run more often than the timestamp is valid, by a timer.
    #[command(after_help = "Examples:
  kinewatch publish refresh repo --keys keys
  kinewatch publish refresh repo --root --keys keys

Needs the keys of snapshot and timestamp; with enough of those of targets, the list of files is signed anew when half of its
time is over. --root makes a new version of root with the same keys and a later date.")]
    Refresh(PublishRefreshArgs),
    /// Print what is published, who may sign it, and when it expires.
    #[command(after_help = "Examples:
  kinewatch publish status repo
  kinewatch publish status repo --keys keys --json

Exits with 1 when something has expired, or does not hold.")]
    Status(PublishStatusArgs),
}

/// The folder, and the keys.
#[derive(Debug, Args)]
pub struct RepositoryArgs {
    /// Folder of the repository.
    #[arg(value_name = "REPO")]
    pub repo: PathBuf,
}

/// Keys at hand.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Folder with private keys (*.key); once for each.
    #[arg(long = "keys", value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
}

/// `publish init`.
#[derive(Debug, Args)]
pub struct PublishInitArgs {
    /// Folder.
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// Folder for the new private keys.
    #[arg(long, value_name = "DIR")]
    pub keys: PathBuf,
    /// Keys of root.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub root_keys: u32,
    /// How many of them must sign.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub root_threshold: u32,
    /// Keys of targets.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub targets_keys: u32,
    /// How many of them must sign.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub targets_threshold: u32,
    /// Days that root is valid.
    #[arg(long, default_value_t = 365, value_name = "DAYS")]
    pub root_days: u32,
    /// Days that the list of files is valid.
    #[arg(long, default_value_t = 90, value_name = "DAYS")]
    pub targets_days: u32,
    /// Days that the snapshot is valid.
    #[arg(long, default_value_t = 14, value_name = "DAYS")]
    pub snapshot_days: u32,
    /// Days that the timestamp is valid: `refresh` must come more often.
    #[arg(long, default_value_t = 3, value_name = "DAYS")]
    pub timestamp_days: u32,
}

/// `publish add`.
#[derive(Debug, Args)]
pub struct PublishAddArgs {
    /// Folder.
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// Model package.
    #[arg(value_name = "PACKAGE")]
    pub package: PathBuf,
    /// Keys of targets; with those of snapshot and timestamp devices see it at once.
    #[command(flatten)]
    pub keys: KeyArgs,
}

/// `publish channel`.
#[derive(Debug, Subcommand)]
pub enum PublishChannelCommand {
    /// Name the release that the devices on a channel shall run.
    #[command(after_help = "Examples:
  kinewatch publish channel set repo stable --model falls --version 1.2.0 --keys keys
  kinewatch publish channel set repo stable --model falls --version 1.2.0 --waves 1%:0h,10%:24h,100%:72h --keys keys
  kinewatch publish channel set repo stable --model falls --version 1.1.0 --keys keys     back to an older release

A wave admits a share of the devices from a time on, counted from now. Without waves all begin at once. Gates, --agent and
what is not named stay as they were on the channel.")]
    Set(Box<PublishSetArgs>),
}

/// `publish channel set`.
#[derive(Debug, Args)]
pub struct PublishSetArgs {
    /// Folder.
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// Channel, for example stable.
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// Model.
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// Release to run; may be older than the one before.
    #[arg(long, value_name = "VERSION")]
    pub version: semver::Version,
    /// Shares of the devices and when they begin, for example 1%:0h,10%:24h,100%:72h.
    #[arg(long, value_name = "WAVES")]
    pub waves: Option<String>,
    /// Whether consumers will see other labels than before; devices refuse them unless it is said.
    #[arg(long, value_enum, default_value_t)]
    pub labels: LabelsArg,
    /// Versions of kinewatch that may run it, for example ">=0.1, <2".
    #[arg(long, value_name = "RANGE")]
    pub agent: Option<semver::VersionReq>,
    /// Free disk space that it needs, MiB. Default: bundle and files.
    #[arg(long, value_name = "MIB")]
    pub min_free_mb: Option<u64>,
    /// Slowest permitted window of a hundred, ms.
    #[arg(long, value_name = "MS")]
    pub latency_p99_ms: Option<f64>,
    /// Most memory of the process that tries it out, MiB.
    #[arg(long, value_name = "MIB")]
    pub peak_memory_mb: Option<u64>,
    /// Windows of live video to compare with the model that runs; 0: none, and no agreement is asked for.
    #[arg(long, value_name = "N")]
    pub shadow_windows: Option<u64>,
    /// Least share of them on which both must say the same, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    pub shadow_agreement: Option<f64>,
    /// Windows that it must score without an error after it has taken over.
    #[arg(long, value_name = "N")]
    pub probation_windows: Option<u64>,
    /// Seconds that it must run without an error after it has taken over.
    #[arg(long, value_name = "S")]
    pub probation_s: Option<u64>,
    /// Keys of targets; with those of snapshot and timestamp devices see it at once.
    #[command(flatten)]
    pub keys: KeyArgs,
}

/// Whether a release has other labels than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LabelsArg {
    /// The same.
    #[default]
    Same,
    /// Others, and that is meant.
    Changed,
}

/// `publish halt` and `publish resume`.
#[derive(Debug, Args)]
pub struct PublishHaltArgs {
    /// Folder.
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// Channel.
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// Model.
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// Keys of targets, snapshot and timestamp.
    #[command(flatten)]
    pub keys: KeyArgs,
}

/// A role of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Says whose keys the others are.
    Root,
    /// Signs the list of files.
    Targets,
    /// Signs which list is the latest.
    Snapshot,
    /// Signs that this is so still.
    Timestamp,
}

/// `publish rotate`.
#[derive(Debug, Args)]
pub struct PublishRotateArgs {
    /// Folder.
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// Whose key is replaced.
    #[arg(value_enum, value_name = "ROLE")]
    pub role: RoleArg,
    /// First digits of the identifier of the key that goes; needed when the role has several.
    #[arg(long, value_name = "KEYID")]
    pub revoke: Option<String>,
    /// The key that goes is the only one of the role that is in none of the folders.
    #[arg(long, conflicts_with = "revoke")]
    pub lost: bool,
    /// Keys of root, and of what is to be signed anew.
    #[command(flatten)]
    pub keys: KeyArgs,
}

/// `publish sign`.
#[derive(Debug, Args)]
pub struct PublishSignArgs {
    /// Folder.
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// Throw the waiting root away instead.
    #[arg(long, conflicts_with = "dirs")]
    pub discard: bool,
    /// Folder with private keys (*.key); once for each.
    #[arg(long = "keys", value_name = "DIR", required_unless_present = "discard")]
    pub dirs: Vec<PathBuf>,
}

/// `publish refresh`.
#[derive(Debug, Args)]
pub struct PublishRefreshArgs {
    /// Folder.
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// A new version of root with the same keys, too.
    #[arg(long)]
    pub root: bool,
    /// Keys of snapshot and timestamp; with --root those of root.
    #[command(flatten)]
    pub keys: KeyArgs,
}

/// `publish status`.
#[derive(Debug, Args)]
pub struct PublishStatusArgs {
    /// Folder.
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// Folder with private keys, to see which are at hand; once for each.
    #[arg(long = "keys", value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
