//! `kinewatch model`: what a package says of itself, whether it holds here, and how fast it is.
//!
//! Opens models in this process, which a broken library may end. Leaves nothing behind but engines ([`super::ways`]).

use std::path::Path;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment};
use kinewatch_core::manifest::{Manifest, Overrides};
use kinewatch_engine::{BenchResult, Model, OpenError, OpenReport};
use serde_json::{Value, json};

use super::ways::{self, Way, Ways};
use super::{Failure, ModelBenchArgs, ModelCheckArgs, ModelInfoArgs, Outcome, print};
use crate::chains::{self, Shift};
use crate::{models, progress};

/// Verifies a package and gives its contract.
pub(super) fn open(dir: &Path) -> Result<Manifest, Failure> {
    kinewatch_ota::open_verified(dir).map(|p| p.manifest).map_err(Failure::say)
}

/// `model info`.
pub(super) fn info(args: &ModelInfoArgs) -> Outcome {
    let package = kinewatch_ota::open_verified(&args.dir).map_err(Failure::say)?;
    let m = &package.manifest;
    let labels: Vec<&str> =
        m.labels.iter().filter(|l| l.publish && l.decoder.is_some()).map(|l| l.name.as_str()).collect();
    let sequences: Vec<&str> = m.sequences.iter().map(|s| s.name.as_str()).collect();
    let reports = [labels, sequences].concat();
    let s = &m.sampling;
    let seconds = |ns: i64| ns as f64 / 1e9;
    if args.json {
        let value = json!({
            "name": m.name, "version": m.version, "architecture": m.architecture, "plan": plan(m), "sha256": package.digest,
            "description": m.description, "license": m.license, "provenance": m.provenance,
            "input": { "width": m.input.spec.width, "height": m.input.spec.height },
            "sampling": {
                "rate_hz": s.rate_hz, "segments": s.segments, "snippet": s.snippet,
                "window_s": seconds(s.window), "stride_s": seconds(s.stride), "max_hole_s": seconds(s.max_hole),
            },
            "labels": m.labels.iter().map(|l| &l.name).collect::<Vec<_>>(), "reports": reports,
            "boxes": m.tensors.boxes.as_ref().map(|b| b.count),
            "requires": m.requires.as_ref().map(|r| json!({ "backend": "ort", "because": r.because })),
            "int8": m.graphs.int8.is_some(), "files": m.files,
        });
        return print(&value.to_string());
    }
    let size: u64 = m.files.keys().filter_map(|f| std::fs::metadata(package.dir.join(f)).ok()).map(|f| f.len()).sum();
    let precisions = if m.graphs.int8.is_some() { "fp32, int8" } else { "fp32" };
    print(&format!(
        "{} {}  {}\n\narchitecture  {}, plan {}\ninput         {}x{}, {} frames a second\nwindow        {} frames over {} s, every {} s\n{}{}reports       {}\nall labels    {}\ngraphs        {precisions}, {:.1} MB with everything\nlicence       {}\ntrained on    {}\nsha256        {}",
        m.name,
        m.version,
        m.description,
        m.architecture,
        plan(m),
        m.input.spec.width,
        m.input.spec.height,
        s.rate_hz,
        m.frames_per_window(),
        seconds(s.window),
        seconds(s.stride),
        m.tensors.boxes.as_ref().map_or_else(String::new, |b| format!("boxes         {}\n", b.count)),
        m.requires.as_ref().map_or_else(String::new, |r| format!("needs         ONNX Runtime: {}\n", r.because)),
        reports.join(", "),
        m.labels.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join(", "),
        size as f64 / 1e6,
        m.license,
        m.provenance.join("\n              "),
        package.digest,
    ))
}

fn plan(m: &Manifest) -> String {
    format!("{:?}", m.plan).to_lowercase()
}

/// What came of one way.
enum Row {
    /// It was opened.
    Opened(Box<OpenReport>),
    /// Its provider is not here, and was not asked for.
    Absent(String, String),
    /// It could not be opened.
    Failed(String, String),
}

impl Row {
    fn of((way, outcome): &(Way, Result<OpenReport, OpenError>), asked: bool) -> Self {
        match outcome {
            Ok(report) => Self::Opened(Box::new(report.clone())),
            Err(e @ OpenError::Provider { .. }) if !asked => Self::Absent(way.to_string(), e.to_string()),
            Err(e) => Self::Failed(way.to_string(), e.to_string()),
        }
    }

    fn is_fault(&self) -> bool {
        match self {
            Self::Opened(report) => deviates(report),
            Self::Absent(..) => false,
            Self::Failed(..) => true,
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Opened(report) => check_json(report),
            Self::Absent(what, why) => json!({ "way": what, "absent": why }),
            Self::Failed(what, why) => json!({ "way": what, "error": why }),
        }
    }

    fn lines(&self) -> Vec<String> {
        match self {
            Self::Opened(report) => check_lines(report),
            Self::Absent(what, why) => vec![format!("{what}: not here: {why}")],
            Self::Failed(what, why) => vec![format!("{what}: FAILED: {why}")],
        }
    }
}

/// `model check`.
pub(super) fn check(check: &ModelCheckArgs) -> Outcome {
    let args = &check.run;
    let package = kinewatch_ota::open_verified(&args.dir).map_err(Failure::say)?;
    let manifest = &package.manifest;
    let Ways { list, asked } = ways::of(args, manifest, &package.digest)?;
    let tried = ways::each(list, |way| {
        progress::spin(&format!("checking {way}"), || kinewatch_engine::check(&args.dir, manifest, &way.options))
    });
    let rows: Vec<Row> = tried.iter().map(|one| Row::of(one, asked)).collect();
    let holds = tried.iter().rev().find_map(|(tried, outcome)| {
        let report = outcome.as_ref().ok().filter(|report| !deviates(report))?;
        Some((way(report), &tried.options))
    });
    let video = check.video.as_deref();
    let shifts = holds.map(|(way, options)| {
        progress::spin("comparing scalers", || {
            let opened = models::open("check", &args.dir, Overrides::default(), options)?;
            anyhow::Ok((way, chains::shifts(opened.loaded, video)?))
        })
    });
    let shifts = shifts.transpose()?;
    let faults = rows.iter().filter(|row| row.is_fault()).count();
    let here = rows.iter().filter(|row| !matches!(row, Row::Absent(..))).count();
    if args.json {
        let ways: Vec<Value> = rows.iter().map(Row::json).collect();
        let chains = shifts.map(|(way, shifts)| {
            let rows: Vec<Value> = shifts.iter().map(shift_json).collect();
            json!({ "way": way, "on": chains::subject(video), "chains": rows })
        });
        let ok = faults == 0 && here > 0;
        let value = json!({ "name": manifest.name, "version": manifest.version, "ok": ok, "ways": ways, "other_scalers": chains });
        print(&value.to_string())?;
    } else {
        let mut lines =
            vec![format!("{} {}: {} files as packaged", manifest.name, manifest.version, manifest.files.len())];
        lines.extend(rows.iter().flat_map(Row::lines));
        if let Some((way, shifts)) = shifts {
            lines.push(format!("other scalers move the logits of {way} on {}:", chains::subject(video)));
            lines.extend(shifts.iter().map(shift_line));
        }
        print(&lines.join("\n"))?;
    }
    let dir = args.dir.display();
    match (faults, here) {
        (0, 0) => Err(Failure::say(format!("{dir}: nothing that could run it is here"))),
        (0, _) => Ok(()),
        _ => Err(Failure::say(format!("{dir}: {faults} of {here} ways to run it do not hold"))),
    }
}

fn deviates(report: &OpenReport) -> bool {
    report.golden.iter().any(|g| g.max_diff.is_nan() || g.max_diff > g.tolerance)
}

fn way(report: &OpenReport) -> String {
    format!("{} {} {}", report.backend.name(), report.provider.name(), report.precision.name())
}

fn check_lines(r: &OpenReport) -> Vec<String> {
    let nodes = r.placement().map(|nodes| format!("; {nodes}")).unwrap_or_default();
    let mut lines = vec![format!("{}: opened in {:.0} ms ({}{nodes})", way(r), r.load_ms + r.golden_ms, r.why)];
    lines.extend(r.caution().map(|caution| format!("    warning: {caution}")));
    for g in &r.golden {
        let verdict = if g.max_diff <= g.tolerance { "ok" } else { "DIFFERS" };
        lines.push(format!(
            "    {}: {} rows, largest difference {:.2e}, allowed {:.0e}: {verdict}",
            g.clip, g.rows, g.max_diff, g.tolerance
        ));
    }
    lines.extend(r.refused.iter().map(|reason| format!("    passed over: {reason}")));
    lines
}

fn check_json(r: &OpenReport) -> Value {
    let golden = r
        .golden
        .iter()
        .map(|g| json!({ "clip": g.clip, "rows": g.rows, "max_diff": g.max_diff, "tolerance": g.tolerance }));
    json!({
        "backend": r.backend.name(), "provider": r.provider.name(), "precision": r.precision.name(), "why": r.why,
        "nodes": r.named_nodes(), "warning": r.caution(), "refused": r.refused, "load_ms": r.load_ms, "golden": golden.collect::<Vec<_>>(), "ok": !deviates(r),
    })
}

fn shift_line(shift: &Shift) -> String {
    let Shift { chain, rows, mean, max, flips } = shift;
    format!("    {chain}: by {mean:.2} on average, {max:.2} at most; another label wins in {flips} of {rows} rows")
}

fn shift_json(s: &Shift) -> Value {
    json!({ "chain": s.chain, "rows": s.rows, "mean": s.mean, "max": s.max, "flips": s.flips })
}

/// `model bench`.
pub(super) fn bench(args: &ModelBenchArgs) -> Outcome {
    let dir = &args.run.dir;
    let package = kinewatch_ota::open_verified(dir).map_err(Failure::say)?;
    let manifest = &package.manifest;
    let Ways { list, .. } = ways::of(&args.run, manifest, &package.digest)?;
    let mut results = Vec::new();
    let measured = ways::each(list, |way| {
        progress::spin(&format!("measuring {way}"), || {
            // Opened once: an engine may have to be built for it.
            let mut model = Model::open(dir, manifest, &way.options)?;
            let quick = kinewatch_engine::measure(&mut model, dir, manifest, 5, Duration::MAX)?;
            let runs = (args.seconds.clamp(0.1, 600.0) * 1000.0 / quick.wall.median.max(0.01)) as usize;
            kinewatch_engine::measure(&mut model, dir, manifest, runs.clamp(5, 100_000), Duration::MAX)
        })
    });
    for (way, outcome) in measured {
        match outcome {
            Ok(result) => results.push(result),
            Err(e) => eprintln!("kinewatch: {way}: {e}"),
        }
    }
    if results.is_empty() {
        return Err(Failure::say(format!("{}: nothing could be measured", dir.display())));
    }
    print(&if args.run.json { bench_json(manifest, &results).to_string() } else { bench_table(&results) })
}

fn bench_table(results: &[BenchResult]) -> String {
    let mut table = crate::table::new_table(&[
        "back end",
        "provider",
        "precision",
        "ms per window",
        "fastest",
        "CPU ms per window",
        "ms per frame",
        "CPU ms per frame",
        "windows",
    ]);
    for r in results {
        let numbers = [r.wall.median, r.wall.min, r.cpu.median, r.wall_ms_per_frame(), r.cpu_ms_per_frame()]
            .map(|ms| format!("{ms:.2}"));
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let names = [r.report.backend.name(), r.report.provider.name(), r.report.precision.name()].map(Cell::new);
        table.add_row(
            names.into_iter().chain(numbers.map(right)).chain([right(r.runs.to_string())]).collect::<Vec<_>>(),
        );
    }
    format!("{table}\nmedians, one window at a time")
}

fn bench_json(manifest: &Manifest, results: &[BenchResult]) -> Value {
    let one = |r: &BenchResult| {
        json!({
            "backend": r.report.backend.name(), "provider": r.report.provider.name(), "precision": r.report.precision.name(),
            "nodes": r.report.named_nodes(), "windows": r.runs,
            "ms_per_window": r.wall.median, "cpu_ms_per_window": r.cpu.median, "ms_per_frame": r.wall_ms_per_frame(), "cpu_ms_per_frame": r.cpu_ms_per_frame(),
        })
    };
    json!({ "name": manifest.name, "version": manifest.version, "results": results.iter().map(one).collect::<Vec<_>>() })
}
