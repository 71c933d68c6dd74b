//! Annotated videos for `eval` and `calibrate`: found, checked, and replayed through a package.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kinewatch_core::manifest::{Decoding, Overrides};
use kinewatch_core::name;

use super::{AnnotatedArgs, Failure};
use crate::config::plan::EnginePlan;
use crate::decode::decode;
use crate::eval::{self, Job, set};
use crate::intervals::{FrameRate, Truth, read_truth};
use crate::progress::{self, Progress};
use crate::replay::{Replayed, Replayer};
use crate::{inference, models};

/// What came of them.
pub(super) struct Annotated {
    pub decoding: Decoding,
    pub labels: set::Labels,
    /// Of the videos in `replayed`, each with its length.
    pub truth: Truth,
    /// In order of their camera ids.
    pub replayed: Vec<Replayed>,
    /// Back end, provider and precision, or `scores`.
    pub accel: String,
    /// What is odd, a line each; told already.
    pub notes: Vec<String>,
    /// Videos that could not be replayed; told already.
    pub failed: usize,
}

pub(super) fn read(args: &AnnotatedArgs) -> Result<Annotated, Failure> {
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
    let replayed: Vec<Replayed> = replayed.into_iter().filter(is_one_session).collect();
    if replayed.is_empty() {
        return Err(Failure::say("no video could be replayed; there is nothing to judge"));
    }
    let failed = annotated - replayed.len();
    let truth = with_durations(truth.only(|camera| replayed.iter().any(|r| r.camera == camera)), &replayed);
    Ok(Annotated { decoding, labels, truth, replayed, accel, notes, failed })
}

/// The times of annotations count from the first frame; after a break nobody knows how.
fn is_one_session(replayed: &Replayed) -> bool {
    let whole = replayed.scores.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if !whole {
        eprintln!("kinewatch: {}: its time stamps break off and begin anew; write it as one stream", replayed.camera);
    }
    whole
}

impl Annotated {
    /// Videos that could not be replayed make the command fail, once it has done the rest.
    pub(super) fn outcome(&self) -> super::Outcome {
        match self.failed {
            0 => Ok(()),
            failed => {
                let annotated = self.replayed.len() + failed;
                Err(Failure::say(format!("{failed} of {annotated} videos could not be replayed: not in the figures")))
            }
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
fn files(args: &AnnotatedArgs, truth: &mut Truth) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let (located, folder) = match (&args.from_scores, &args.videos) {
        (Some(folder), _) => (set::with_scores(truth, &saved_scores(folder, truth)?), folder),
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
    args: &AnnotatedArgs,
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
        replayers.push(Replayer::new(opened.loaded, opened.reference, args.zones.clone())?);
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
fn saved_scores(folder: &Path, truth: &Truth) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let told = |e: std::io::Error| Failure::say(format!("{}: {e}", folder.display()));
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(told)? {
        let path = entry.map_err(told)?.path();
        if path.extension().is_some_and(|e| e == "csv") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let whole = name::slug(&stem);
            let known = truth.videos.contains_key(&whole);
            let camera = if known { whole } else { name::slug(stem.rsplit('.').next().unwrap_or_default()) };
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
