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

use bench::{Context, Load, Scenario, Size};
use clap::Parser;

/// In the order of the table.
const SCENARIOS: &[Scenario] = &[
    Scenario { name: "judge", load: Load::Waits, run: judge::run },
    Scenario { name: "rtsp-reset", load: Load::Waits, run: |c| rtsp::run(&rtsp::RESET, c) },
    Scenario { name: "rtsp-half-open", load: Load::Waits, run: |c| rtsp::run(&rtsp::HALF_OPEN, c) },
    Scenario { name: "rtsp-hole", load: Load::Waits, run: |c| rtsp::run(&rtsp::HOLE, c) },
    Scenario { name: "rtsp-server", load: Load::Waits, run: |c| rtsp::run(&rtsp::SERVER, c) },
    Scenario { name: "rtsp-end", load: Load::Waits, run: |c| rtsp::run(&rtsp::END, c) },
    Scenario { name: "rtsp-mute", load: Load::Waits, run: |c| rtsp::run(&rtsp::MUTE, c) },
    Scenario { name: "rtsp-password", load: Load::Waits, run: |c| rtsp::run(&rtsp::PASSWORD, c) },
    Scenario { name: "rtsp-resolution", load: Load::Waits, run: |c| rtsp::run(&rtsp::RESOLUTION, c) },
    Scenario { name: "rtsp-codec", load: Load::Waits, run: |c| rtsp::run(&rtsp::CODEC, c) },
    Scenario { name: "rtsp-clock", load: Load::Waits, run: |c| rtsp::run(&rtsp::CLOCK, c) },
    Scenario { name: "rtsp-frozen", load: Load::Waits, run: |c| rtsp::run(&rtsp::FROZEN, c) },
    Scenario { name: "rtsp-loss", load: Load::Waits, run: |c| rtsp::run(&rtsp::LOSS, c) },
    Scenario { name: "rtsp-throttle", load: Load::Waits, run: |c| rtsp::run(&rtsp::THROTTLE, c) },
    Scenario { name: "rtsp-garbage", load: Load::Waits, run: |c| rtsp::run(&rtsp::GARBAGE, c) },
    Scenario { name: "rtsp-names", load: Load::Waits, run: rtsp::names },
    Scenario { name: "rtsp-reconnects", load: Load::Waits, run: rtsp::reconnects },
    Scenario { name: "kill", load: Load::Works, run: kill::run },
    Scenario { name: "broker-away", load: Load::Works, run: broker::away },
    Scenario { name: "broker-restarted", load: Load::Works, run: broker::restarted },
    Scenario { name: "soak", load: Load::Works, run: soak::run },
];

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
