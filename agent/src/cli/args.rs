//! Arguments of each command. Nothing is done with them here.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kinewatch_core::region::Region;

pub use self::events::{
    EventsCommand, ExportArgs, FilterArgs, HistoryArgs, OutboxArgs, StateArgs, TableArgs, TailArgs,
};
use crate::config::DEFAULT_PATH;
use crate::config::file::{Backend, Precision, Provider};

mod events;

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration file.
    #[arg(short, long, default_value = DEFAULT_PATH, value_name = "FILE")]
    pub config: PathBuf,
    /// Write every camera's scores into this directory (CAMERA.csv), as long as it runs.
    #[arg(long, value_name = "DIR")]
    pub scores: Option<PathBuf>,
}

/// `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Videos.
    #[arg(required = true, value_name = "VIDEO")]
    pub videos: Vec<PathBuf>,
    /// Model package.
    #[arg(short, long, value_name = "DIR")]
    pub model: PathBuf,
    /// Write scores here (CSV: time_s and the log-odds of each label); with several videos NAME.csv becomes NAME.CAMERA.csv.
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    /// What comes of it.
    #[command(flatten)]
    pub outputs: OutputArgs,
    /// Where a model with boxes looks, as fractions of the picture; once for each zone. Default: all of it.
    #[arg(long, value_name = "X0,Y0,X1,Y1", value_parser = zone)]
    pub zones: Vec<Region>,
    /// Inference.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// `kinewatch decode`
#[derive(Clone, Debug, Args)]
pub struct DecodeArgs {
    /// Scores of a video, as `replay --scores` writes them: time_s and a column of log-odds for each label.
    #[arg(value_name = "SCORES.csv")]
    pub scores: PathBuf,
    /// Model package, or a directory whose model.toml has decoder settings alone.
    #[arg(short, long, value_name = "DIR")]
    pub model: PathBuf,
    /// Camera id of the events, and the video's name in the annotations. Default: their only video, or the one that the
    /// file of scores is named after.
    #[arg(long, value_name = "NAME")]
    pub camera: Option<String>,
    /// What comes of it.
    #[command(flatten)]
    pub outputs: OutputArgs,
}

/// Annotated videos, and the package that is held against them.
#[derive(Clone, Debug, Args)]
pub struct AnnotatedArgs {
    /// Model package; with --from-scores, decoder settings are enough.
    #[arg(short, long, value_name = "DIR")]
    pub model: PathBuf,
    /// Where the annotated videos are.
    #[arg(long, value_name = "DIR", required_unless_present = "from_scores", conflicts_with = "from_scores")]
    pub videos: Option<PathBuf>,
    /// Take saved scores instead of videos: VIDEO.csv or ANY.VIDEO.csv for each, as `replay --scores` or --report write them.
    #[arg(long, value_name = "DIR")]
    pub from_scores: Option<PathBuf>,
    /// Annotations: JSON, CSV, or a folder of texts.
    #[arg(long, value_name = "FILE")]
    pub truth: PathBuf,
    /// Frames a second of annotations that have a label per frame.
    #[arg(long, value_name = "HZ", value_parser = frame_rate)]
    pub truth_fps: Option<f64>,
    /// CSV table with columns video (or path) and group, where the annotations do not say what belongs together.
    #[arg(long, value_name = "FILE.csv")]
    pub groups: Option<PathBuf>,
    /// Only the videos of this subset of the annotations; once for each subset.
    #[arg(long, value_name = "NAME")]
    pub subset: Vec<String>,
    /// Labels to judge; those that the model reports and the annotations have when none is given.
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// Go on without the videos that are not there.
    #[arg(long)]
    pub skip_missing: bool,
    /// Models opened at once, each with its own video. Default: as many as there are processors.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub jobs: Option<u32>,
    /// Where a model with boxes looks in every video, as fractions of the picture; once for each zone. Default: all of it.
    #[arg(long, value_name = "X0,Y0,X1,Y1", value_parser = zone)]
    pub zones: Vec<Region>,
    /// Inference.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// `eval`.
#[derive(Clone, Debug, Args)]
pub struct EvalArgs {
    /// What is judged.
    #[command(flatten)]
    pub set: AnnotatedArgs,
    /// Write every figure here as JSON; `-` is standard output, which leaves the table out.
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Write events here, one JSON a line.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Write a report into this directory: index.html to look at, metrics.json, events.jsonl, and scores.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

/// `calibrate`.
#[derive(Clone, Debug, Args)]
pub struct CalibrateArgs {
    /// What the settings are from.
    #[command(flatten)]
    pub set: AnnotatedArgs,
    /// Write the package with the new settings here; a directory that is not there yet, or is empty.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// What is to be good.
    #[arg(long, value_enum, default_value_t)]
    pub objective: Objective,
    /// With --objective latency: false alarms that are allowed per day.
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = per_day)]
    pub false_per_day: f64,
    /// Leave thresholds, lags and temperature as they are, and only find out how uncertain the times are.
    #[arg(long)]
    pub only_uncertainty: bool,
    /// Into how many parts the groups fall to tell what to expect of other videos; 0: do not ask.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub folds: u32,
}

/// What a calibration makes good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Objective {
    /// F1 at a temporal intersection over union of one half.
    #[default]
    F1,
    /// Begins told early, at no more false alarms than --false-per-day.
    Latency,
}

fn per_day(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|n| (0.0..=1e6).contains(n)).ok_or_else(|| "write a number of 0 to 1000000".into())
}

fn frame_rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|hz| (0.01..=1000.0).contains(hz)).ok_or_else(|| "write a number of 0.01 to 1000".into())
}

/// What a command makes of the actions it finds.
#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// Write events here, one JSON a line; `-` is standard output, which leaves the table out.
    #[arg(long, value_name = "FILE|-")]
    pub events: Option<PathBuf>,
    /// Draw scores, detected and true intervals into this PNG file.
    #[arg(long, value_name = "FILE.png")]
    pub timeline: Option<PathBuf>,
    /// Compare with these annotations (ActivityNet's JSON, or CSV: video,label,start_s,end_s).
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
}

fn zone(text: &str) -> Result<Region, String> {
    let numbers: Vec<f32> = text.split(',').map_while(|number| number.trim().parse().ok()).collect();
    let corners = <[f32; 4]>::try_from(numbers).ok().filter(|_| text.matches(',').count() == 3);
    Region::new(corners.ok_or("write four numbers, for example 0.1,0.2,0.5,0.9")?).map_err(|e| e.to_string())
}

/// How a model is run; the same keys as `[engine]` of the configuration.
#[derive(Clone, Debug, Args)]
pub struct EngineArgs {
    /// Inference library.
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// Which graph of the package, and how it is computed.
    #[arg(long, value_enum, default_value_t)]
    pub precision: Precision,
    /// ONNX Runtime library to load.
    #[arg(long, value_name = "FILE")]
    pub ort_library: Option<PathBuf>,
    /// Fail unless this execution provider really runs the model.
    #[arg(long, value_enum, value_name = "PROVIDER")]
    pub require_provider: Option<Provider>,
    /// Threads of the inference library.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
}

/// `check-config`.
#[derive(Debug, Args)]
pub struct CheckConfigArgs {
    /// Configuration file.
    #[arg(short, long, default_value = DEFAULT_PATH, value_name = "FILE")]
    pub config: PathBuf,
    /// Print problems and what was understood as JSON.
    #[arg(long)]
    pub json: bool,
    /// Check the file alone, not the models, devices, secrets and directories of this machine.
    #[arg(long)]
    pub file_only: bool,
    /// Look at everything but the secret files: systemd hides credentials from the commands of a reload.
    #[arg(long, conflicts_with = "file_only")]
    pub without_secrets: bool,
}

/// `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Configuration file.
    #[arg(short, long, default_value = DEFAULT_PATH, value_name = "FILE")]
    pub config: PathBuf,
    /// Print the findings as JSON.
    #[arg(long)]
    pub json: bool,
    /// Ask no camera and no broker: look at this machine alone.
    #[arg(long)]
    pub offline: bool,
}

/// `devices`.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `model`.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Print what a package says of itself.
    #[command(after_help = "Example:\n  kinewatch model info models/falls")]
    Info(ModelInfoArgs),
    /// Verify every file, open every graph that runs here, compare with the golden clips, and tell how far another platform's
    /// scaler moves the logits.
    #[command(after_help = "Examples:
  kinewatch model check models/falls
  kinewatch model check models/falls --backend ort --precision int8
  kinewatch model check models/falls --provider tensorrt
  kinewatch model check models/falls --video recorded-by-my-camera.mp4")]
    Check(ModelCheckArgs),
    /// Measure milliseconds per frame and per window for each back end, provider and precision.
    #[command(after_help = "Examples:
  kinewatch model bench models/falls
  kinewatch model bench models/falls --backend tract --seconds 10 --json
  sudo -u kinewatch kinewatch model bench /usr/share/kinewatch/models/falls --provider tensorrt,cuda

TensorRT builds an engine for each precision, which may take minutes. Run as the daemon's user, the command takes engines from the
daemon's place and keeps them there.")]
    Bench(ModelBenchArgs),
    /// Print what runs, what is offered, and why an update does not go on.
    #[command(after_help = "Examples:
  kinewatch model list
  kinewatch model list --json | jq '.models[].error'")]
    List(ModelListArgs),
    /// Let the daemon look at the repository now, and say what came of it.
    #[command(after_help = "Example:
  kinewatch model check-update

Exits with 0 when the repository has answered as it should, whatever it offers, and else with 1.")]
    CheckUpdate(ModelListArgs),
    /// Install what the channel offers, now: waves, pauses and the maintenance window are passed over.
    #[command(after_help = "Example:\n  kinewatch model install falls")]
    Install(ModelActionArgs),
    /// Go back to the model before; the release that ran is not tried again before a new epoch.
    #[command(after_help = "Example:\n  kinewatch model rollback falls")]
    Rollback(ModelActionArgs),
    /// Leave a model as it is, whatever the channel offers.
    #[command(after_help = "Example:\n  kinewatch model pin falls")]
    Pin(ModelActionArgs),
    /// Follow the channel again.
    #[command(after_help = "Example:\n  kinewatch model unpin falls")]
    Unpin(ModelActionArgs),
    /// Print what happened to models, newest last.
    #[command(after_help = "Examples:
  kinewatch model history
  kinewatch model history falls --limit 200 --json")]
    History(ModelHistoryArgs),
}

/// `model list`, `model check-update`.
#[derive(Debug, Args)]
pub struct ModelListArgs {
    /// Of which daemon.
    #[command(flatten)]
    pub state: StateArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `model install`, `rollback`, `pin`, `unpin`.
#[derive(Debug, Args)]
pub struct ModelActionArgs {
    /// Name in the configuration.
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Of which daemon.
    #[command(flatten)]
    pub state: StateArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `model history`.
#[derive(Debug, Args)]
pub struct ModelHistoryArgs {
    /// Of this model alone.
    #[arg(value_name = "MODEL")]
    pub model: Option<String>,
    /// Of which daemon.
    #[command(flatten)]
    pub state: StateArgs,
    /// The newest so many.
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: usize,
    /// Print JSON, one line of the history a line.
    #[arg(long)]
    pub json: bool,
}

/// `model info`.
#[derive(Debug, Args)]
pub struct ModelInfoArgs {
    /// Model package.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `model check`.
#[derive(Debug, Args)]
pub struct ModelCheckArgs {
    /// What to run.
    #[command(flatten)]
    pub run: ModelRunArgs,
    /// Pictures on which scalers are compared; a generated pattern unless told.
    #[arg(long, value_name = "FILE")]
    pub video: Option<PathBuf>,
}

/// A package and how to run it.
#[derive(Debug, Args)]
pub struct ModelRunArgs {
    /// Model package.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Only what runs on these execution providers; one that is not here is a failure then. Default: all that are here.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PROVIDER")]
    pub provider: Vec<Provider>,
    /// State directory in which TensorRT's engines are looked for and kept. Default: the daemon's, for its own user.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Inference.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// `model bench`.
#[derive(Debug, Args)]
pub struct ModelBenchArgs {
    /// What to run.
    #[command(flatten)]
    pub run: ModelRunArgs,
    /// How long each back end, provider and precision is measured.
    #[arg(long, default_value_t = 3.0, value_name = "S")]
    pub seconds: f64,
}

/// `frames`.
#[derive(Debug, Args)]
pub struct FramesArgs {
    /// Video.
    #[arg(value_name = "VIDEO")]
    pub video: PathBuf,
    /// Take size, scaling and rate from this package.
    #[arg(long, value_name = "DIR", required_unless_present = "size", conflicts_with_all = ["size", "rate"])]
    pub model: Option<PathBuf>,
    /// Size of the frames, stretched, bilinear.
    #[arg(long, value_name = "WxH", requires = "rate")]
    pub size: Option<String>,
    /// Frames a second.
    #[arg(long, value_name = "HZ", requires = "size")]
    pub rate: Option<f64>,
    /// NumPy file to write.
    #[arg(long, value_name = "FILE.npy")]
    pub out: PathBuf,
}

/// `version`.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell.
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory; made when it is not there.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// `engine-probe`.
#[derive(Debug, Args)]
pub struct EngineProbeArgs {
    /// Library.
    pub library: PathBuf,
    /// Only load it, with all that it needs, by path or name.
    #[arg(long)]
    pub link: bool,
    /// Load this library first.
    #[arg(long, requires = "link")]
    pub before: Option<PathBuf>,
}

/// `model-probe`.
#[derive(Debug, Args)]
pub struct ModelProbeArgs {
    /// Model package.
    pub dir: PathBuf,
    /// Inference.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Providers in order of preference.
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    pub providers: Vec<Provider>,
    /// Requests in a batch, at most.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub max_batch: u32,
    /// Where TensorRT keeps its engines.
    #[arg(long)]
    pub cache_dir: Option<PathBuf>,
}
