//! Arguments of `events` and its commands.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::DEFAULT_PATH;

/// `events`.
#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// Print actions as they are published, until stopped.
    #[command(after_help = "Examples:
  kinewatch events tail --broker mqtt://127.0.0.1
  kinewatch events tail --config kinewatch.toml
  kinewatch events tail --broker mqtt://127.0.0.1 --json > events.jsonl")]
    Tail(TailArgs),
    /// Print events that this device has stored, also while the daemon runs.
    #[command(after_help = "Examples:
  kinewatch events history
  kinewatch events history --camera front --label fall --since 2h
  kinewatch events history --since 2026-11-29 --limit 1000 --json

How many are stored, and for how long: history_rows and history_age_d in [outbox] of the configuration.")]
    History(HistoryArgs),
    /// Print what waits on this device for the broker, what the broker refuses, and which losses are to be stated.
    #[command(after_help = "Examples:
  kinewatch events outbox
  kinewatch events outbox --limit 500
  kinewatch events outbox --state-dir /var/lib/kinewatch --json")]
    Outbox(OutboxArgs),
    /// Write events that this device has stored into a file.
    #[command(after_help = "Examples:
  kinewatch events export --out events.jsonl
  kinewatch events export --out falls.csv --label fall --since 7d
  kinewatch events export --out - | kinewatch events table --events /dev/stdin

NAME.jsonl holds the messages as they were published, one a line; NAME.csv a table of their fields.")]
    Export(ExportArgs),
    /// Print saved events as a table, beside the truth if there is one.
    #[command(after_help = "Examples:
  kinewatch events table --events events.jsonl
  kinewatch events table --events events.jsonl --truth annotations.json --label fall
  kinewatch events table --events events.jsonl --truth a.json --scores scores.csv --timeline picture.png

FILE holds lines of topic<TAB>payload (as mosquitto_sub -F '%t\\t%p' prints them), or of payloads alone.")]
    Table(TableArgs),
}

/// `events tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Broker.
    #[arg(long, value_name = "URL", conflicts_with = "config", required_unless_present = "config")]
    pub broker: Option<String>,
    /// Take broker, user and certificates from a configuration.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Topics to follow.
    #[arg(long, default_value = "kinewatch/v1/+/+/evt/#", value_name = "FILTER")]
    pub topic: String,
    /// Print topic<TAB>payload, as it came.
    #[arg(long)]
    pub json: bool,
    /// Stop after this many messages.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// Whose events: the state directory of a daemon on this device.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// Configuration file that names the state directory.
    #[arg(short, long, default_value = DEFAULT_PATH, value_name = "FILE")]
    pub config: PathBuf,
    /// State directory, instead of the configuration's.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Which events.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Of this camera alone.
    #[arg(long, value_name = "NAME")]
    pub camera: Option<String>,
    /// Of this label alone.
    #[arg(long, value_name = "LABEL")]
    pub label: Option<String>,
    /// Stored since then: how long ago (2h, 3d), a day, or a time with its zone.
    #[arg(long, value_name = "TIME", value_parser = crate::cli::events::since)]
    pub since: Option<jiff::Timestamp>,
}

/// `events history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Whose.
    #[command(flatten)]
    pub state: StateArgs,
    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// The newest so many.
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: usize,
    /// Print JSON, one event a line.
    #[arg(long)]
    pub json: bool,
}

/// `events outbox`.
#[derive(Debug, Args)]
pub struct OutboxArgs {
    /// Whose.
    #[command(flatten)]
    pub state: StateArgs,
    /// Messages that are listed, oldest first.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub limit: usize,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `events export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Whose.
    #[command(flatten)]
    pub state: StateArgs,
    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// File to write; `-` is standard output.
    #[arg(short, long, value_name = "FILE.jsonl|FILE.csv|-")]
    pub out: PathBuf,
}

/// `events table`.
#[derive(Debug, Args)]
pub struct TableArgs {
    /// Saved events.
    #[arg(long, value_name = "FILE")]
    pub events: PathBuf,
    /// Annotations (ActivityNet's JSON, or CSV: video,label,start_s,end_s).
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
    /// Labels to judge; all of the annotations when none is given.
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// Scores, as `replay --scores` writes them; NAME.CAMERA.csv where there are several cameras.
    #[arg(long, value_name = "FILE")]
    pub scores: Vec<PathBuf>,
    /// Model package, for the thresholds in the picture.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Draw a picture.
    #[arg(long, value_name = "FILE.png")]
    pub timeline: Option<PathBuf>,
}
