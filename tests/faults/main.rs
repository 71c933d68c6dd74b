//! The fault bench: the real binary, a real broker and a real RTSP server, and every fault that the promise names.
//!
//! `cargo test --test faults` runs each fault once, in minutes; `-- --long` (`make faults`) the numbers that are promised.
//! Prints a table of what was tried and what happened, and fails when one scenario does. See `tests/faults/README.md`.
#![allow(clippy::unwrap_used, reason = "a bench that cannot set itself up has failed")]

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod broker;
mod decided;
mod disk;
mod judge;
mod kill;
mod media;
mod procfs;
mod report;
mod rig;
mod rtsp;
mod soak;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bench::{Context, Load, Run, Scenario, Size};
use clap::Parser;

/// In the order of the table; the longest come first, so that others run beside them.
const SCENARIOS: &[Scenario] = &[
    waits("judge", judge::run),
    waits("soak", soak::run),
    waits("kill", kill::run),
    waits("rtsp-reconnects", rtsp::reconnects),
    waits("rtsp-reset", |c| rtsp::run(&rtsp::RESET, c)),
    waits("rtsp-half-open", |c| rtsp::run(&rtsp::HALF_OPEN, c)),
    waits("rtsp-hole", |c| rtsp::run(&rtsp::HOLE, c)),
    waits("rtsp-server", |c| rtsp::run(&rtsp::SERVER, c)),
    waits("rtsp-end", |c| rtsp::run(&rtsp::END, c)),
    waits("rtsp-mute", |c| rtsp::run(&rtsp::MUTE, c)),
    waits("rtsp-password", |c| rtsp::run(&rtsp::PASSWORD, c)),
    waits("rtsp-resolution", |c| rtsp::run(&rtsp::RESOLUTION, c)),
    waits("rtsp-codec", |c| rtsp::run(&rtsp::CODEC, c)),
    waits("rtsp-clock", |c| rtsp::run(&rtsp::CLOCK, c)),
    waits("rtsp-frozen", |c| rtsp::run(&rtsp::FROZEN, c)),
    waits("rtsp-loss", |c| rtsp::run(&rtsp::LOSS, c)),
    waits("rtsp-throttle", |c| rtsp::run(&rtsp::THROTTLE, c)),
    waits("rtsp-garbage", |c| rtsp::run(&rtsp::GARBAGE, c)),
    waits("rtsp-names", rtsp::names),
    waits("disk-full", disk::full),
    waits("disk-full-long", disk::full_for_long),
    waits("disk-read-only", disk::read_only),
    waits("disk-hangs", disk::hangs),
    waits("disk-damaged", disk::damaged),
    waits("disk-gone", disk::gone),
    works("broker-away", broker::away),
    works("broker-restarted", broker::restarted),
];

const fn waits(name: &'static str, run: Run) -> Scenario {
    Scenario { name, load: Load::Waits, run }
}

const fn works(name: &'static str, run: Run) -> Scenario {
    Scenario { name, load: Load::Works, run }
}

/// Faults and what comes of them.
#[derive(Debug, Parser)]
#[command(name = "faults")]
struct Args {
    /// Run only scenarios whose name contains one of these.
    names: Vec<String>,
    /// The numbers that are promised: about an hour, and the soak.
    #[arg(long)]
    long: bool,
    /// How long the soak runs, such as 45s, 20m or 2h.
    #[arg(long, value_parser = duration)]
    soak: Option<Duration>,
    /// Write the table to this file too.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Repeat a run: everything random follows from this.
    #[arg(long)]
    seed: Option<u64>,
    /// Keep every scenario's folder, not only that of a failed one.
    #[arg(long)]
    keep: bool,
    /// Print the names, and run nothing.
    #[arg(long)]
    list: bool,
    /// Of `cargo test`; without effect here.
    #[arg(long, hide = true)]
    nocapture: bool,
    /// Of `cargo test`; without effect here.
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let wanted = |s: &&Scenario| args.names.is_empty() || args.names.iter().any(|name| s.name.contains(name.as_str()));
    let scenarios: Vec<_> = SCENARIOS.iter().filter(wanted).copied().collect();
    if args.list {
        scenarios.iter().for_each(|s| println!("{}: test", s.name));
        return ExitCode::SUCCESS;
    }
    let size = if args.long { Size::Long } else { Size::Quick };
    let default_soak = Duration::from_secs(if args.long { 1200 } else { 45 });
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{}", std::process::id()));
    let context = Context { folder, size, soak: args.soak.unwrap_or(default_soak), seed, keep: args.keep };
    println!("{} scenarios, seed {seed}, in {}", scenarios.len(), context.folder.display());
    let rows = bench::run(&scenarios, &context);
    let table = report::table(&rows);
    println!("\n{table}");
    if let Some(path) = &args.report
        && let Err(error) = std::fs::write(path, &table)
    {
        eprintln!("{}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    if rows.iter().any(|row| row.result.is_err()) {
        return ExitCode::FAILURE;
    }
    // Empty, unless something was kept.
    let _ = std::fs::remove_dir(&context.folder);
    ExitCode::SUCCESS
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("write 45s, 20m or 2h".into()),
    };
    number.parse::<u64>().map(|n| Duration::from_secs(n * seconds)).map_err(|e| e.to_string())
}
