//! Compares decoders on saved scores with known actions: the package's kinds, simpler ones and ones that see the whole
//! recording. A tool for development, no part of the product; writes the tables of `agent/design/boundaries.md`.
//!
//! Every decoder is tuned on one set of videos for the objective of `kinewatch calibrate`, and measured on another.
//! Never plays video. The main thread does the work; a set of hours takes minutes.

mod families;
mod lags;
mod offline;
mod online;
mod ours;
mod set;
mod stream;
mod table;
mod tune;
mod watershed;

use std::path::PathBuf;

use clap::Parser;

use kinewatch::calibrate::KINDS;

use families::{FAMILIES, Sees};
use set::{CutEnds, Set};
use table::Row;

/// What is compared on what.
#[derive(Parser)]
struct Args {
    /// Package, or a directory with a model.toml of decoder settings alone.
    #[arg(long)]
    package: PathBuf,
    /// Scores to tune on: a folder with a CSV file per video.
    #[arg(long)]
    tune: PathBuf,
    /// Their annotations.
    #[arg(long)]
    tune_truth: PathBuf,
    /// Scores to measure on.
    #[arg(long)]
    test: PathBuf,
    /// Their annotations.
    #[arg(long)]
    test_truth: PathBuf,
    /// All labels share one setting and are judged together: for sets with few actions of each.
    #[arg(long)]
    shared: bool,
    /// What the other decoders do with an end that is only that of the video.
    #[arg(long, value_enum, default_value = "lagged")]
    cut_ends: CutEnds,
    /// Name of the table.
    #[arg(long)]
    section: String,
    /// Document whose table of that name is replaced; without, it is printed.
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let told = anyhow::Error::msg;
    let read = |scores, truth| Set::read(&args.package, scores, truth, args.cut_ends).map_err(told);
    let (tuning, test) = (read(&args.tune, &args.tune_truth)?, read(&args.test, &args.test_truth)?);
    let found = ours::find(&test.decoding, &test);
    let packaged = Row {
        name: "kinewatch, as packaged".to_owned(),
        sees: Sees::Past,
        used: true,
        seen: None,
        found: test.qualities(&found),
        ns: Some(ours::cost_ns(&test.decoding, &test)),
    };
    let text = if args.shared {
        let pooled = test.pooled();
        let found = pooled.qualities(&Set::pooled_detections(&found));
        compared(&tuning.pooled(), &pooled, Row { found, ..packaged })
    } else {
        compared(&tuning, &test, packaged)
    };
    match &args.write {
        Some(path) => table::replace(path, &args.section, &text).map_err(told),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

fn compared(tuning: &Set, test: &Set, packaged: Row) -> String {
    let mut rows = Vec::new();
    for family in &FAMILIES {
        eprintln!("{}", family.name);
        let settings = tune::tune(family, tuning);
        let [seen, found] = [tuning, test].map(|set| set.qualities(&tune::find(family, set, &settings)));
        let ns = Some(tune::cost_ns(family, test, &settings));
        rows.push(Row { name: family.name.to_owned(), sees: family.sees, used: false, seen: Some(seen), found, ns });
    }
    for kinds in [&KINDS[..1], &KINDS[1..2], &KINDS[2..], &KINDS] {
        let decoding = ours::tuned(tuning, kinds);
        let used = kinds.len() > 1;
        let name = format!("kinewatch, {}{}", if used { "as calibrated: " } else { "" }, ours::kinds(&decoding));
        eprintln!("{name}");
        let [seen, found] = [tuning, test].map(|set| set.qualities(&ours::find(&decoding, set)));
        let ns = Some(ours::cost_ns(&decoding, test));
        rows.push(Row { name, sees: Sees::Past, used, seen: Some(seen), found, ns });
    }
    rows.push(packaged);
    table::text(&rows, tuning, test)
}
