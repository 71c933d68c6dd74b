//! The command line: what can be asked, with examples, and which exit code says what.
//!
//! Standard output carries data alone (tables, JSON, events); everything told to a person goes to standard error.
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 78 the configuration cannot be used, 101 a panic.

mod annotated;
mod args;
mod calibrate;
mod check_config;
mod check_update;
mod completions;
mod decode;
mod devices;
mod doctor;
mod eval;
mod events;
mod frames;
mod man;
mod model;
mod outputs;
mod probe;
mod publish;
mod publish_args;
mod replay;
mod run;
mod updates;
mod version;
mod ways;

pub(crate) use version::commit as version_commit;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use self::args::*;
pub use self::publish_args::*;
use crate::app::Hooks;
use crate::config::file::LogFormat;
use crate::{logging, supervise};

/// Watches cameras, tells over MQTT what people do, and when exactly it began and ended.
#[derive(Debug, Parser)]
#[command(name = "kinewatch", version, max_term_width = 110, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Examples:
  kinewatch replay fall.mp4 --model models/falls --timeline fall.png   try a model on a video
  kinewatch check-config --config kinewatch.toml                       find every mistake of a configuration
  kinewatch run --config kinewatch.toml                                watch the cameras
  kinewatch events tail --broker mqtt://127.0.0.1                      see actions as they are published

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 the configuration cannot be used, 101 a fault of kinewatch itself.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Log more: -v debug, -vv trace. RUST_LOG is stronger.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Form of log lines, which go to standard error or the journal.
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the cameras of a configuration until stopped.
    #[command(after_help = "Examples:
  kinewatch run
  kinewatch run --config kinewatch.toml -v
  systemctl start kinewatch

SIGTERM and SIGINT end open actions, deliver what the broker takes, and stop within 5 seconds; a second one ends the process
at once. SIGHUP (systemctl reload kinewatch) reads the configuration again and applies what is different.")]
    Run(RunArgs),
    /// Run a model over videos as fast as possible, with the code of the daemon.
    #[command(after_help = "Examples:
  kinewatch replay fall.mp4 --model models/falls
  kinewatch replay *.mp4 --model models/falls --events events.jsonl --truth annotations.json
  kinewatch replay fall.mp4 --model models/falls --scores scores.csv --timeline fall.png
  kinewatch replay fall.mp4 --model models/falls --events - | jq .data.label

Times count from the first frame; the camera id is the file's stem. The same video gives the same bytes.")]
    Replay(ReplayArgs),
    /// Run the decoder of a model over saved scores, to try thresholds in a moment.
    #[command(after_help = "Examples:
  kinewatch replay fall.mp4 --model models/falls --scores fall.csv
  kinewatch decode fall.csv --model models/falls
  kinewatch decode fall.csv --model tried --truth annotations.json --timeline fall.png
  kinewatch decode fall.csv --model tried --events events.jsonl

The model may be a directory whose model.toml has decoder settings alone: format, name, version, stride_s, background,
labels and sequences.")]
    Decode(DecodeArgs),
    /// Measure a model on annotated videos: what it finds, how exactly, how late, and how sure that is.
    #[command(after_help = "Examples:
  kinewatch eval --model models/falls --videos data --truth data/annotations.json --subset test --groups data/clips.csv
  kinewatch eval --model models/falls --videos data --truth data/truth.csv --report report
  kinewatch eval --model tried --from-scores report/scores --truth data/truth.csv --report tried-report
  kinewatch eval --model models/falls --videos data --truth labels/ --truth-fps 15 --json -

FILE is ActivityNet's or THUMOS' JSON, CSV (video,label,start_s,end_s[,subset,group,duration_s]), or MS-TCN's folder with
a NAME.txt per video and a label per frame. Videos are found in DIR by the path that FILE states, or by their name.
Ranges are 95 % bootstrap intervals over groups: videos that share a scene or a person are no independent evidence, say so
with a group (of FILE or --groups). A video without one is a group of its own.")]
    Eval(EvalArgs),
    /// Choose decoder settings from annotated videos, and write a package that has them.
    #[command(after_help = "Examples:
  kinewatch calibrate --model models/falls --videos mine --truth mine/annotations.json --out falls-here
  kinewatch calibrate --model models/falls --from-scores report/scores --truth annotations.json --out falls-here
  kinewatch calibrate --model models/falls --videos mine --truth mine.csv --out quick --objective latency --false-per-day 2

Chosen for every label: temperature, kind of decoder, thresholds, lags, and how uncertain its times are. The report
(CALIBRATION.md in the new package) tells what that gives on these videos and, calibrated on parts of them, on the rest.
Keep videos aside that are not used here, and judge the result on those with `kinewatch eval`.")]
    Calibrate(CalibrateArgs),
    /// Check a configuration, with every model, device, secret and directory it names.
    #[command(after_help = "Examples:
  kinewatch check-config --config kinewatch.toml
  kinewatch check-config --config kinewatch.toml --json
  kinewatch check-config --config for-another-machine.toml --file-only

Prints every mistake as FILE:LINE:COLUMN: what is wrong; what to do. Exits with 78 when there is one.")]
    CheckConfig(CheckConfigArgs),
    /// Look at everything kinewatch needs, on this machine and around it, and say what is missing and what to do.
    #[command(after_help = "Examples:
  kinewatch doctor
  sudo kinewatch doctor                     as root it looks at the service's files and passwords too
  kinewatch doctor --config kinewatch.toml --offline
  kinewatch doctor --json | jq '.checks[] | select(.verdict == \"fail\")'

One line for each finding: ok, warn, fail or skip; what is the matter; what to do. Checked are config, permissions, board,
gstreamer, each camera, inference, accelerator, each model, broker, updates, clock, disk, database, service, web, memory, thermal
and power. A running daemon is not disturbed: cameras are asked what they offer and play nothing; the broker gets one message on
doctor under another client identifier; a file of 4 KiB is written into the state directory and removed.
Permissions are those of the service's user, whoever asks.

Exits with 0 when nothing failed, 1 when something did, 78 when the configuration cannot be used.")]
    Doctor(DoctorArgs),
    /// List cameras connected to this machine, with their formats.
    #[command(after_help = "Examples:
  kinewatch devices
  kinewatch devices --json")]
    Devices(DevicesArgs),
    /// Look at, check or measure a model package; and what is installed over the air.
    #[command(
        subcommand,
        after_help = "Examples:
  kinewatch model info models/falls
  kinewatch model check models/falls
  kinewatch model bench models/falls
  kinewatch model list
  kinewatch model rollback falls"
    )]
    Model(ModelCommand),
    /// Publish model packages: a signed repository of files that any web server can serve to a fleet.
    #[command(
        subcommand,
        after_help = "Examples:
  kinewatch publish init repo --keys keys
  kinewatch publish add repo models/falls --keys keys
  kinewatch publish channel set repo stable --model falls --version 1.2.0 --waves 1%:0h,10%:24h,100%:72h --keys keys
  kinewatch publish status repo

The repository follows The Update Framework (TUF). models/PUBLISHING.md walks through it, lost keys included."
    )]
    Publish(PublishCommand),
    /// Follow, look up or judge events.
    #[command(
        subcommand,
        after_help = "Examples:
  kinewatch events tail --broker mqtt://127.0.0.1
  kinewatch events history --since 2h
  kinewatch events outbox
  kinewatch events export --out events.csv
  kinewatch events table --events events.jsonl --truth annotations.json --timeline picture.png"
    )]
    Events(EventsCommand),
    /// Write the frames that a model would see into a NumPy file, to train on what the agent reads.
    #[command(after_help = "Examples:
  kinewatch frames fall.mp4 --model models/falls --out fall.npy
  kinewatch frames fall.mp4 --size 144x144 --rate 5 --out fall.npy

Writes uint8 [frames, height, width, 3] RGB, and the times in seconds to fall.times.csv.")]
    Frames(FramesArgs),
    /// Print versions of the agent and of what it was built with.
    #[command(after_help = "Examples:
  kinewatch version
  kinewatch version --json")]
    Version(VersionArgs),
    /// Print a completion script for a shell.
    #[command(after_help = "Examples:
  kinewatch completions bash > /etc/bash_completion.d/kinewatch
  kinewatch completions fish > ~/.config/fish/completions/kinewatch.fish")]
    Completions(CompletionsArgs),
    /// Write the manual pages into a directory; the package has them.
    #[command(hide = true)]
    Man(ManArgs),
    /// Load an ONNX Runtime library and say what it is; a child process of the agent.
    #[command(hide = true)]
    EngineProbe(EngineProbeArgs),
    /// Open a model as the daemon would and say how it went; a child process of `doctor`.
    #[command(hide = true)]
    ModelProbe(ModelProbeArgs),
    /// Try out the model that a line of standard input names; a child process of the daemon.
    #[command(hide = true)]
    ModelWorker,
}

/// Why a command did not succeed; decides the exit code.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1.
    Failed(anyhow::Error),
    /// Exit code 2: understood, but it makes no sense.
    Usage(String),
    /// Exit code 78, with every problem on a line of its own.
    Config(Vec<String>),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Failure {
    /// A failure in plain words.
    pub fn say(message: impl std::fmt::Display) -> Self {
        Self::Failed(anyhow::anyhow!("{message}"))
    }

    /// Prints itself to standard error and gives the exit code.
    fn report(&self) -> u8 {
        match self {
            Self::Failed(error) => {
                eprintln!("kinewatch: {}", told(error));
                1
            }
            Self::Usage(message) => {
                eprintln!("kinewatch: {message}");
                2
            }
            Self::Config(problems) => {
                for problem in problems {
                    eprintln!("{problem}");
                }
                78
            }
        }
    }
}

/// An error with its causes, each said once: many of our messages already end with their cause.
fn told(error: &anyhow::Error) -> String {
    error
        .chain()
        .skip(1)
        .map(ToString::to_string)
        .fold(error.to_string(), |text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
}

/// What a command gives back.
pub type Outcome = Result<(), Failure>;

/// Runs the process's command. Returns its exit code; the daemon, and a panic, end the process themselves.
pub fn run() -> ExitCode {
    run_with(Hooks::default())
}

/// [`run`] for a program of tests, which makes a stage hang or panic on purpose, or shows another board.
#[doc(hidden)]
pub fn run_with(hooks: Hooks) -> ExitCode {
    supervise::panics::install();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" of clap's that go to standard output; a closed pipe is nobody's concern.
            let _closed = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let is_daemon = matches!(cli.command, Command::Run(_));
    let code = match dispatch(cli, hooks) {
        Ok(()) => 0,
        Err(failure) => failure.report(),
    };
    if is_daemon {
        supervise::exit(code);
    }
    ExitCode::from(code)
}

fn dispatch(cli: Cli, hooks: Hooks) -> Outcome {
    // `run` starts the log itself, once it has read the configuration.
    if !matches!(cli.command, Command::Run(_)) {
        let format = cli.log_format.unwrap_or(LogFormat::Human);
        // What capture warns of, a one-shot command returns as its error; what `doctor` finds stands in its report.
        let level = match cli.command {
            Command::Doctor(_) => "error,kinewatch_capture=off,kinewatch_mqtt=off".into(),
            _ => "warn,kinewatch_capture=error".into(),
        };
        logging::init(&logging::Options { format, level, verbose: cli.verbose }).map_err(Failure::Usage)?;
    }
    match cli.command {
        Command::Run(args) => run::run(args, cli.verbose, cli.log_format, hooks),
        Command::Replay(args) => replay::run(args),
        Command::Decode(args) => decode::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Model(ModelCommand::Info(args)) => model::info(&args),
        Command::Model(ModelCommand::Check(args)) => model::check(&args),
        Command::Model(ModelCommand::Bench(args)) => model::bench(&args),
        Command::Model(ModelCommand::List(args)) => updates::list(&args),
        Command::Model(ModelCommand::CheckUpdate(args)) => check_update::run(&args),
        Command::Model(ModelCommand::Install(args)) => updates::act("model-install", &args),
        Command::Model(ModelCommand::Rollback(args)) => updates::act("model-rollback", &args),
        Command::Model(ModelCommand::Pin(args)) => updates::act("model-pin", &args),
        Command::Model(ModelCommand::Unpin(args)) => updates::act("model-unpin", &args),
        Command::Model(ModelCommand::History(args)) => updates::history(&args),
        Command::Publish(command) => publish::run(command),
        Command::Events(EventsCommand::Tail(args)) => events::tail(args),
        Command::Events(EventsCommand::History(args)) => events::history(&args),
        Command::Events(EventsCommand::Outbox(args)) => events::outbox(&args),
        Command::Events(EventsCommand::Export(args)) => events::export(&args),
        Command::Events(EventsCommand::Table(args)) => events::table(&args),
        Command::Frames(args) => frames::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::EngineProbe(args) => probe::library(&args),
        Command::ModelProbe(args) => probe::model(&args),
        Command::ModelWorker => Ok(crate::worker::run_child(std::io::stdin(), std::io::stdout().lock())?),
    }
}

/// Prints to standard output; a reader that went away (`| head`) is not an error.
pub(crate) fn print(text: &str) -> Outcome {
    print_to_reader(text).map(|_| ())
}

/// [`print`] for what has no end of its own: whether the reader is still there.
pub(crate) fn print_to_reader(text: &str) -> Result<Reader, Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(e) => Err(Failure::say(format!("standard output: {e}"))),
    }
}

/// Who reads standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    There,
    Gone,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn walk(command: &clap::Command, path: &str, missing: &mut Vec<String>) {
            for sub in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
                let path = format!("{path} {}", sub.get_name());
                if !sub.get_after_help().is_some_and(|h| h.to_string().contains("Example")) {
                    missing.push(path.clone());
                }
                walk(sub, &path, missing);
            }
        }
        let mut missing = Vec::new();
        walk(&Cli::command(), "kinewatch", &mut missing);
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn help_is_as_reviewed() {
        insta::assert_snapshot!("help", Cli::command().term_width(110).render_help());
        let mut command = Cli::command().term_width(110);
        let replay = command.find_subcommand_mut("replay").unwrap();
        insta::assert_snapshot!("help_replay", replay.render_long_help());
        let eval = command.find_subcommand_mut("eval").unwrap();
        insta::assert_snapshot!("help_eval", eval.render_long_help());
    }
}
