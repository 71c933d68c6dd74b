//! `kinewatch eval`: a package measured on annotated videos.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use kinewatch_core::manifest::Overrides;
use kinewatch_core::name;

use super::{EvalArgs, Failure, Outcome, print};
use crate::config::plan::EnginePlan;
use crate::decode::decode;
use crate::eval::report::{self, Material};
use crate::eval::{self, Evaluation, Input, Job, set};
use crate::intervals::{FrameRate, Truth, read_truth};
use crate::progress::{self, Progress};
use crate::replay::{Replayed, Replayer};
use crate::{inference, models};

pub(super) fn run(args: &EvalArgs) -> Outcome {
    let whole = read_truth(&args.truth, args.truth_fps.map(FrameRate)).map_err(Failure::say)?;
    if whole.videos.is_empty() {
        return Err(Failure::say(format!("{}: names no video; there is nothing to judge", args.truth.display())));
    }
    let (decoding, digest) = kinewatch_ota::open_decoding(&args.model)?;
    let labels = set::labels(&args.label, &decoding, &whole).map_err(Failure::Usage)?;
    let mut truth = set::of_subsets(whole, &args.subset).map_err(Failure::Usage)?;
    let groups = args.groups.as_deref().map(|path| eval::read_groups(path, &mut truth));
    let ungrouped = groups.transpose().map_err(Failure::say)?.filter(|&n| n > 0);
    let files = files(args, &mut truth)?;
    let ungrouped = ungrouped.map(|n| format!("{n} videos are not in --groups: each is a group of its own"));
    let notes: Vec<String> = set::oddities(&truth).into_iter().chain(ungrouped).chain(not_judged(&labels)).collect();
    notes.iter().for_each(|line| eprintln!("kinewatch: {line}"));
    let (replayed, accel) = if args.from_scores.is_some() {
        let one = |(camera, path): (&String, &PathBuf)| decode(path, &decoding, &digest, camera).map_err(Failure::say);
        (files.iter().map(one).collect::<Result<_, _>>()?, "scores".to_owned())
    } else {
        replayed(args, &files, &truth)?
    };
    let annotated = truth.videos.len();
    if replayed.is_empty() {
        return Err(Failure::say("no video could be replayed; there is nothing to judge"));
    }
    let truth = with_durations(truth.only(|camera| replayed.iter().any(|r| r.camera == camera)), &replayed);
    let input = Input { decoding: &decoding, accel, truth: &truth, labels: &labels.judged, replayed: &replayed };
    let evaluation = Evaluation::new(&input)?;
    let wanted = args.report.is_some() || args.json.is_some();
    let trade_offs =
        progress::spin("trying other settings", || if wanted { eval::trade_offs(&input) } else { Vec::new() });
    let json = format!("{:#}\n", eval::json(&evaluation, &trade_offs));
    if let Some(path) = &args.events {
        write_events(path, &replayed)?;
    }
    if let Some(folder) = &args.report {
        let (evaluation, trade_offs) = (&evaluation, trade_offs.as_slice());
        let (truth, replayed, decoding) = (&truth, replayed.as_slice(), &decoding);
        let page = report::page(&Material { evaluation, trade_offs, truth, replayed, decoding, notes: &notes });
        write_report(folder, &page, &json, replayed)?;
    }
    match args.json.as_deref() {
        Some(path) if path == Path::new("-") => print(json.trim_end())?,
        path => {
            path.map_or(Ok(()), |path| std::fs::write(path, &json).map_err(|e| told(path, &e)))?;
            print(&eval::summary(&evaluation))?;
        }
    }
    match annotated - replayed.len() {
        0 => Ok(()),
        failed => {
            Err(Failure::say(format!("{failed} of {annotated} videos could not be replayed: not in the figures")))
        }
    }
}

fn not_judged(labels: &set::Labels) -> Vec<String> {
    let line = |labels: &[String], why: &str| {
        (!labels.is_empty()).then(|| format!("not judged: {} ({why})", labels.join(", ")))
    };
    let unannotated = line(&labels.unannotated, "the model reports it, the annotations have none");
    let unreported = line(&labels.unreported, "annotated, but not reported by the model");
    unannotated.into_iter().chain(unreported).collect()
}

/// The video, or the saved scores, of each annotated video; `truth` is left with those that are there.
fn files(args: &EvalArgs, truth: &mut Truth) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let (located, folder) = match (&args.from_scores, &args.videos) {
        (Some(folder), _) => (set::with_scores(truth, &saved_scores(folder)?), folder),
        (None, Some(folder)) => (set::locate(folder, truth).map_err(Failure::say)?, folder),
        (None, None) => return Err(Failure::Usage("give --videos or --from-scores".into())),
    };
    if located.missing.is_empty() {
        return Ok(located.found);
    }
    let told = set::told_missing(&located.missing, truth.videos.len(), folder);
    if !args.skip_missing {
        return Err(Failure::say(format!("{told}; --skip-missing judges the rest")));
    }
    if located.found.is_empty() {
        return Err(Failure::say(format!("{told}; nothing is left to judge")));
    }
    eprintln!("kinewatch: {told}; left out");
    *truth = truth.only(|camera| located.found.contains_key(camera));
    Ok(located.found)
}

fn replayed(
    args: &EvalArgs,
    files: &BTreeMap<String, PathBuf>,
    truth: &Truth,
) -> Result<(Vec<Replayed>, String), Failure> {
    let duration_s = |camera: &String| truth.videos.get(camera).map_or(0.0, |v| v.duration_s);
    let job = |(camera, path): (&String, &PathBuf)| Job { path: path.clone(), duration_s: duration_s(camera) };
    let jobs: Vec<Job> = files.iter().map(job).collect();
    kinewatch_capture::init()?;
    let options = inference::open_options(&EnginePlan::from(&args.engine), None)?;
    let wanted = args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), |n| n as usize);
    let mut accel = String::new();
    let mut replayers = Vec::new();
    for _ in 0..wanted.min(jobs.len()) {
        let open = || models::open("eval", &args.model, Overrides::default(), &options);
        let opened = progress::spin("opening the model", open)?;
        accel.clone_from(&opened.reference.accel);
        replayers.push(Replayer::new(opened.loaded, opened.reference, Vec::new())?);
    }
    let mut progress = bar(&jobs);
    let results = eval::replay_all(&jobs, replayers, |done_s| progress.set(done_s as u64));
    drop(progress);
    let mut replayed = Vec::new();
    for result in results {
        match result {
            Ok(one) => replayed.push(one),
            Err(error) => eprintln!("kinewatch: {error}"),
        }
    }
    warn_dropped(&replayed);
    Ok((replayed, accel))
}

fn bar(jobs: &[Job]) -> Progress {
    let total: f64 = jobs.iter().map(|job| job.duration_s).sum();
    let message = format!("{} videos", jobs.len());
    Progress::bar(&message, total as u64, "s of video")
}

fn warn_dropped(replayed: &[Replayed]) {
    let dropped: u64 = replayed.iter().map(|r| r.windows_dropped).sum();
    if dropped > 0 {
        eprintln!("kinewatch: {dropped} windows left out: the videos have holes wider than the model allows");
    }
}

/// By camera id: `VIDEO.csv`, or `ANY.VIDEO.csv` as `replay` names the files of several videos.
fn saved_scores(folder: &Path) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let told = |e: std::io::Error| Failure::say(format!("{}: {e}", folder.display()));
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(told)? {
        let path = entry.map_err(told)?.path();
        if path.extension().is_some_and(|e| e == "csv") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let camera = name::slug(stem.rsplit('.').next().unwrap_or_default());
            if let Some(other) = files.insert(camera.clone(), path.clone()) {
                let (one, other) = (path.display(), other.display());
                return Err(Failure::say(format!("{one} and {other} could both be scores of {camera}; move one away")));
            }
        }
    }
    Ok(files)
}

/// The lengths of videos that the annotations do not tell, as they were replayed.
fn with_durations(mut truth: Truth, replayed: &[Replayed]) -> Truth {
    for r in replayed {
        if let Some(video) = truth.videos.get_mut(&r.camera)
            && video.duration_s <= 0.0
        {
            video.duration_s = r.duration.seconds();
        }
    }
    truth
}

fn write_events(path: &Path, replayed: &[Replayed]) -> Outcome {
    let write = || {
        let mut out = BufWriter::new(File::create(path)?);
        for event in replayed.iter().flat_map(|r| &r.events) {
            out.write_all(&event.to_json())?;
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    write().map_err(|e| told(path, &e))
}

fn write_report(folder: &Path, page: &str, json: &str, replayed: &[Replayed]) -> Outcome {
    let scores = folder.join("scores");
    std::fs::create_dir_all(&scores).map_err(|e| told(&scores, &e))?;
    for (name, text) in [("index.html", page), ("metrics.json", json)] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| told(&path, &e))?;
    }
    write_events(&folder.join("events.jsonl"), replayed)?;
    for r in replayed {
        let path = scores.join(format!("{}.csv", r.camera));
        crate::scores::write(&path, &r.score_labels, &r.scores).map_err(Failure::say)?;
    }
    Ok(())
}

fn told(path: &Path, error: &std::io::Error) -> Failure {
    Failure::say(format!("{}: {error}; name a file in a directory that can be written", path.display()))
}
