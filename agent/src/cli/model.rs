//! `kinewatch model`: what a package says of itself, whether it holds here, and how fast it is.

use std::path::Path;

use comfy_table::{Cell, CellAlignment};
use kinewatch_core::manifest::{Manifest, Overrides};
use kinewatch_engine::{BackendChoice, BenchResult, OpenOptions, OpenReport, PrecisionChoice};
use serde_json::{Value, json};

use super::{Failure, ModelBenchArgs, ModelCheckArgs, ModelInfoArgs, ModelRunArgs, Outcome, print};
use crate::chains::{self, Shift};
use crate::config::file::{Backend, Precision};
use crate::config::plan::EnginePlan;
use crate::{inference, models, progress};

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

/// `model check`.
pub(super) fn check(check: &ModelCheckArgs) -> Outcome {
    let args = &check.run;
    let manifest = open(&args.dir)?;
    let mut faults = 0;
    let mut rows = Vec::new();
    let mut holds = None;
    for options in ways(args, &manifest)? {
        let what = name(&options);
        match progress::spin(&format!("checking {what}"), || kinewatch_engine::check(&args.dir, &manifest, &options)) {
            Ok(report) => {
                faults += usize::from(deviates(&report));
                if !deviates(&report) {
                    holds = Some((way(&report), options));
                }
                rows.push(Ok(report));
            }
            Err(e) => {
                faults += 1;
                rows.push(Err((what, e.to_string())));
            }
        }
    }
    let video = check.video.as_deref();
    let shifts = holds.map(|(way, options)| {
        progress::spin("comparing scalers", || {
            let opened = models::open("check", &args.dir, Overrides::default(), &options)?;
            anyhow::Ok((way, chains::shifts(opened.loaded, video)?))
        })
    });
    let shifts = shifts.transpose()?;
    if args.json {
        let ways: Vec<Value> = rows
            .iter()
            .map(|r| r.as_ref().map_or_else(|(what, e)| json!({ "way": what, "error": e }), check_json))
            .collect();
        let chains = shifts.map(|(way, shifts)| {
            let rows: Vec<Value> = shifts.iter().map(shift_json).collect();
            json!({ "way": way, "on": chains::subject(video), "chains": rows })
        });
        let value = json!({ "name": manifest.name, "version": manifest.version, "ok": faults == 0, "ways": ways, "other_scalers": chains });
        print(&value.to_string())?;
    } else {
        let mut lines =
            vec![format!("{} {}: {} files as packaged", manifest.name, manifest.version, manifest.files.len())];
        for row in &rows {
            match row {
                Ok(r) => lines.extend(check_lines(r)),
                Err((what, e)) => lines.push(format!("{what}: FAILED: {e}")),
            }
        }
        if let Some((way, shifts)) = shifts {
            lines.push(format!("other scalers move the logits of {way} on {}:", chains::subject(video)));
            lines.extend(shifts.iter().map(shift_line));
        }
        print(&lines.join("\n"))?;
    }
    if faults > 0 {
        Err(Failure::say(format!("{}: {faults} of {} ways to run it do not hold", args.dir.display(), rows.len())))
    } else {
        Ok(())
    }
}

fn deviates(report: &OpenReport) -> bool {
    report.golden.iter().any(|g| g.max_diff.is_nan() || g.max_diff > g.tolerance)
}

fn way(report: &OpenReport) -> String {
    format!("{} {} {}", report.backend.name(), report.provider.name(), report.precision.name())
}

fn check_lines(r: &OpenReport) -> Vec<String> {
    let mut lines = vec![format!("{}: opened in {:.0} ms ({})", way(r), r.load_ms + r.golden_ms, r.why)];
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
        "refused": r.refused, "load_ms": r.load_ms, "golden": golden.collect::<Vec<_>>(), "ok": !deviates(r),
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
    let manifest = open(dir)?;
    let mut results = Vec::new();
    for options in ways(&args.run, &manifest)? {
        let what = name(&options);
        let measured = progress::spin(&format!("measuring {what}"), || {
            let quick = kinewatch_engine::bench(dir, &manifest, &options, 5)?;
            let runs = (args.seconds.clamp(0.1, 600.0) * 1000.0 / quick.wall.median.max(0.01)) as usize;
            kinewatch_engine::bench(dir, &manifest, &options, runs.clamp(5, 100_000))
        });
        match measured {
            Ok(result) => results.push(result),
            Err(e) => eprintln!("kinewatch: {what}: {e}"),
        }
    }
    if results.is_empty() {
        return Err(Failure::say(format!("{}: nothing could be measured", dir.display())));
    }
    print(&if args.run.json { bench_json(&manifest, &results).to_string() } else { bench_table(&results) })
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
            "backend": r.report.backend.name(), "provider": r.report.provider.name(), "precision": r.report.precision.name(), "windows": r.runs,
            "ms_per_window": r.wall.median, "cpu_ms_per_window": r.cpu.median, "ms_per_frame": r.wall_ms_per_frame(), "cpu_ms_per_frame": r.cpu_ms_per_frame(),
        })
    };
    json!({ "name": manifest.name, "version": manifest.version, "results": results.iter().map(one).collect::<Vec<_>>() })
}

/// Every back end and precision that the options allow and this machine may have.
fn ways(args: &ModelRunArgs, manifest: &Manifest) -> Result<Vec<OpenOptions>, Failure> {
    let plan = EnginePlan::from(&args.engine);
    let options = inference::open_options(&plan, None)?;
    kinewatch_engine::check_requires(manifest, &options)
        .map_err(|e| Failure::say(format!("{}: {e}", args.dir.display())))?;
    if plan.backend != Backend::Tract && options.ort_library.is_none() {
        eprintln!(
            "kinewatch: ONNX Runtime was not found: tract alone is looked at; name the library with --ort-library"
        );
    }
    let backends = [(Backend::Tract, BackendChoice::Tract), (Backend::Ort, BackendChoice::Ort)];
    let precisions = [(Precision::Fp32, PrecisionChoice::Fp32), (Precision::Int8, PrecisionChoice::Int8)];
    let mut ways = Vec::new();
    for (_, backend) in backends.into_iter().filter(|(b, _)| plan.backend == Backend::Auto || plan.backend == *b) {
        let missing = backend == BackendChoice::Ort && options.ort_library.is_none();
        if missing || (backend == BackendChoice::Tract && manifest.requires.is_some()) {
            continue;
        }
        for (_, precision) in
            precisions.into_iter().filter(|(p, _)| plan.precision == Precision::Auto || plan.precision == *p)
        {
            let asked = plan.precision == Precision::Int8;
            // The int8 graph is made for ONNX Runtime; tract runs it more slowly than fp32.
            let useful = manifest.graphs.int8.is_some() && backend == BackendChoice::Ort;
            if precision == PrecisionChoice::Fp32 || useful || asked {
                ways.push(OpenOptions { backend, precision, ..options.clone() });
            }
        }
    }
    Ok(ways)
}

fn name(options: &OpenOptions) -> String {
    let backend = if options.backend == BackendChoice::Ort { "ort" } else { "tract" };
    let precision = if options.precision == PrecisionChoice::Int8 { "int8" } else { "fp32" };
    format!("{backend} {precision}")
}
