//! Time and heap allocations of the temporal decoders, per label and step: `make bench`.
//!
//! Usage: `cargo bench --bench decoder`. Every kind of decoder with 1, 7 and 50 labels, from logits to decisions, over a
//! stream in which each label acts now and then. Prints one line each and fails when a step costs more than it may.

mod counting;

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use counting::COUNT;
use kinewatch_core::decode::{Decision, Decoder};
use kinewatch_core::manifest::{DecoderKind, Manifest, Overrides};
use kinewatch_core::time::Pts;

/// Of one label in one step.
const MOST_NS: f64 = 2000.0;
const LABELS: [usize; 3] = [1, 7, 50];
/// Steps of a pass, a stride each.
const STEPS: usize = 4000;
const STRIDE_NS: i64 = 100_000_000;
/// The quickest of so many passes counts: what else the machine does only ever adds.
const PASSES: usize = 9;
/// A package whose labels are replaced.
const PACKAGE: &str = include_str!("../../tests/data/packages/tiny-bright/model.toml");

/// What a decoder cost.
struct Cost {
    ns: f64,
    allocations: u64,
    decisions: usize,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // `cargo test --all-targets` runs benches too, without this flag.
    if !std::env::args().any(|a| a == "--bench") {
        return Ok(ExitCode::SUCCESS);
    }
    let mut good = true;
    for kind in kinds()? {
        for labels in LABELS {
            let cost = measure(&kind, labels)?;
            let Cost { ns, allocations, decisions } = cost;
            println!(
                "{kind}, labels {labels}: {ns:.0} ns per label and step, {allocations} allocations, {decisions} decisions"
            );
            good &= ns <= MOST_NS && allocations == 0 && decisions > 0;
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every kind there is, as the reader of packages lists them when it is given one that there is not.
fn kinds() -> Result<Vec<String>, Box<dyn Error>> {
    let none = serde_json::from_str::<DecoderKind>("\"?\"").err().ok_or("`?` is a kind")?.to_string();
    let kinds: Vec<_> = none.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    if kinds.is_empty() { Err(none.into()) } else { Ok(kinds) }
}

fn measure(kind: &str, labels: usize) -> Result<Cost, Box<dyn Error>> {
    let manifest = Manifest::parse(&package(kind, labels))?;
    let mut decoder = Decoder::new(&manifest, &Overrides::default())?;
    let logits = logits(labels);
    let mut out: Vec<Decision> = Vec::with_capacity(4 * labels);
    let mut cost = Cost { ns: f64::INFINITY, allocations: 0, decisions: 0 };
    for pass in 0..PASSES {
        let counted = COUNT.load(Ordering::Relaxed);
        let begun = Instant::now();
        for (step, row) in logits.chunks_exact(labels + 1).enumerate() {
            out.clear();
            decoder.step(Pts((pass * STEPS + step) as i64 * STRIDE_NS), row, &mut out);
            cost.decisions += out.len();
        }
        let took = begun.elapsed();
        // The first pass warms up.
        if pass > 0 {
            cost.allocations += COUNT.load(Ordering::Relaxed) - counted;
            cost.ns = cost.ns.min(took.as_nanos() as f64 / (STEPS * labels) as f64);
        }
    }
    Ok(cost)
}

/// Scores of windows of sixteen strides, the longest there are.
const SCORE_MODEL: &str = "[labels.decoder.hmm]\nwindow_s = 1.6\nlow = -4.0\nhigh = 6.0\ndeviation = 2.0\n\
    correlation = 0.5\nshortest_s = 1.0\npause_s = 1.5\nlength_s = 3.0\napart_s = 30.0\nburst = 6.0\nburst_s = 0.6\n\
    bursts_per_hour = 60.0\ndropouts_per_hour = 20.0\n";

/// The package with so many labels beside the background, each with a decoder of one kind.
fn package(kind: &str, labels: usize) -> String {
    let (head, rest) = PACKAGE.split_once("[[labels]]").unwrap_or((PACKAGE, ""));
    let tail = rest.find("[golden]").map_or("", |at| &rest[at..]);
    let mut text = format!("{head}[[labels]]\nname = \"background\"\n");
    for label in 0..labels {
        let _fits = write!(
            text,
            "\n[[labels]]\nname = \"l{label}\"\n[labels.decoder]\nkind = \"{kind}\"\non = 0.6\noff = 0.4\n\
             smooth_s = 2.0\nmin_duration_s = 0.4\nmerge_gap_s = 0.4\nmax_duration_s = 60.0\n{}",
            if kind == "hmm" { SCORE_MODEL } else { "" }
        );
    }
    text + "\n" + tail
}

/// Rows in which one label after another is on for 4 s, with noise (SplitMix64).
fn logits(labels: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut noise = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    };
    let level = move |step: usize, label: usize| match label {
        0 => 3.0,
        _ if step / 20 % labels.max(5) == label - 1 => 9.0,
        _ => 0.0,
    };
    let cells = (0..STEPS).flat_map(|step| (0..=labels).map(move |label| (step, label)));
    cells.map(|(step, label)| level(step, label) + noise()).collect()
}
