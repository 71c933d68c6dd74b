//! `kinewatch calibrate`: settings from annotated videos, written into a copy of the package.

use std::path::Path;

use kinewatch_core::manifest::{Activation, Decoding, Manifest};

use super::annotated::{self, Annotated};
use super::{CalibrateArgs, Failure, Objective, Outcome, print};
use crate::calibrate::{self, Calibration, Material, Occasion, REPORT, Scope};
use crate::progress::Progress;

/// The settings, in every package.
const MANIFEST: &str = "model.toml";
/// Of a hundred parts of the bar, those of the settings themselves.
const OWN_SHARE: f64 = 40.0;

pub(super) fn run(args: &CalibrateArgs) -> Outcome {
    usable(&args.out, &args.set.model)?;
    let set = annotated::read(&args.set)?;
    if set.truth.actions.is_empty() {
        return Err(Failure::say(format!("{}: has no action to learn from", args.set.truth.display())));
    }
    let told = |e: std::io::Error| Failure::say(format!("{}: {e}", args.set.model.join(MANIFEST).display()));
    let text = std::fs::read_to_string(args.set.model.join(MANIFEST)).map_err(told)?;
    let material = material(args, &set, &text);
    let (calibration, occasion) = chosen(args, &material);
    let report = calibrate::report(&calibration, &occasion);
    let settings = calibrate::settings(&text, &calibration, &report)
        .map_err(|e| Failure::say(format!("{}: {e}", args.set.model.join(MANIFEST).display())))?;
    // What is written can be read again: a setting out of bounds would be a fault of the search.
    Decoding::parse(&settings).map_err(|e| Failure::say(format!("the settings found cannot be used: {e}")))?;
    copy(&args.set.model, &args.out).and_then(|()| write(&args.out, MANIFEST, &settings))?;
    write(&args.out, REPORT, &report)?;
    print(&report)?;
    eprintln!("kinewatch: written to {}", args.out.display());
    set.outcome()
}

/// Makes the directory: what is wrong with it is told before the work.
fn usable(out: &Path, model: &Path) -> Outcome {
    let told = |problem: &str| Failure::Usage(format!("--out {}: {problem}", out.display()));
    let whole = std::path::absolute(out).unwrap_or_else(|_| out.to_owned());
    let there = whole.ancestors().skip(1).find(|parent| parent.exists()).unwrap_or(&whole);
    if let (Ok(parent), Ok(model)) = (there.canonicalize(), model.canonicalize())
        && parent.starts_with(&model)
    {
        return Err(told("lies within --model; name a directory outside of it"));
    }
    match std::fs::read_dir(out).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(told("is not empty; name another directory")),
        Err(_) => std::fs::create_dir_all(out).map_err(|e| told(&format!("{e}; name a directory that can be written"))),
    }
}

fn material(args: &CalibrateArgs, set: &Annotated, text: &str) -> Material {
    // A package of settings alone has no window and no temperature.
    let manifest = Manifest::parse(text).ok();
    let output: Option<(Activation, f64)> =
        manifest.as_ref().map(|m| (m.output.activation, f64::from(m.output.temperature)));
    let window_s = manifest.as_ref().map_or(set.decoding.stride, |m| m.sampling.window) as f64 / 1e9;
    let labels = &set.labels.judged;
    let mut truth = set.truth.clone();
    // Parts of a sequence that nobody asked to be judged still say how scores behave.
    truth.actions.retain(|a| labels.contains(&a.label) || set.decoding.labels.iter().any(|l| l.name == a.label));
    let objective = match args.objective {
        Objective::F1 => calibrate::Objective::F1,
        Objective::Latency => calibrate::Objective::Latency { false_per_day: args.false_per_day },
    };
    let (decoding, replayed, judged) = (set.decoding.clone(), set.replayed.clone(), labels.clone());
    let scope = if args.only_uncertainty { Scope::Uncertainty } else { Scope::All };
    let kinds = calibrate::KINDS.to_vec();
    Material { decoding, output, replayed, truth, judged, window_s, objective, kinds, scope }
}

fn chosen(args: &CalibrateArgs, material: &Material) -> (Calibration, Occasion) {
    let mut progress = Progress::bar("calibrating", 100, "%");
    let own = if args.folds < 2 { 100.0 } else { OWN_SHARE };
    let calibration = calibrate::calibrate(material.clone(), |label, share| {
        progress.message(&format!("calibrating {label}"));
        progress.set((own * share) as u64);
    });
    progress.message("calibrating on parts");
    let left_out = calibrate::left_out(material, args.folds as usize, |share| {
        progress.set((own + (100.0 - own) * share) as u64);
    });
    let videos = material.truth.videos.values();
    let mut groups: Vec<&str> = material.truth.videos.iter().map(|(c, v)| v.group.as_deref().unwrap_or(c)).collect();
    groups.sort_unstable();
    groups.dedup();
    let occasion = Occasion {
        package: format!("{} {}", material.decoding.name, material.decoding.version),
        videos: videos.len(),
        groups: groups.len(),
        hours: videos.map(|v| v.duration_s / 3600.0).sum(),
        objective: material.objective,
        left_out,
    };
    (calibration, occasion)
}

/// Copies the plain files of a package, which has no links and few levels.
fn copy(from: &Path, to: &Path) -> Outcome {
    for entry in walkdir::WalkDir::new(from).max_depth(8) {
        let entry = entry.map_err(|e| Failure::say(format!("{}: {e}", from.display())))?;
        let Ok(inside) = entry.path().strip_prefix(from) else { continue };
        let target = to.join(inside);
        let told = |e: std::io::Error| Failure::say(format!("{}: {e}", target.display()));
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target).map_err(told)?;
        } else if entry.file_type().is_file() {
            std::fs::copy(entry.path(), &target).map_err(told)?;
        }
    }
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str) -> Outcome {
    let path = folder.join(name);
    std::fs::write(&path, text).map_err(|e| Failure::say(format!("{}: {e}", path.display())))
}
