//! `kinewatch replay`: a model over videos, with the daemon's code, as fast as the machine allows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kinewatch_core::manifest::{Manifest, Overrides};

use super::outputs::{self, Outputs};
use super::{Failure, Outcome, ReplayArgs};
use crate::config::plan::EnginePlan;
use crate::progress::{self, Progress};
use crate::replay::Replayer;
use crate::scores::{self, Videos};
use crate::{inference, intervals, models};

pub(super) fn run(args: ReplayArgs) -> Outcome {
    check_stems(&args.videos)?;
    let truth = outputs::read_truth(&args.outputs)?;
    let several = if args.videos.len() == 1 { Videos::One } else { Videos::Several };
    kinewatch_capture::init()?;
    let options = inference::open_options(&EnginePlan::from(&args.engine), None)?;
    let opened =
        progress::spin("opening the model", || models::open("replay", &args.model, Overrides::default(), &options))?;
    let manifest = std::sync::Arc::clone(&opened.loaded.manifest);
    check_zones(args.zones.len(), &manifest)?;
    let mut replayer = Replayer::new(opened.loaded, opened.reference, args.zones.clone())?;
    let mut outputs = Outputs::new(&args.outputs, truth)?;
    let decoding = manifest.decoding();
    let mut failed = 0;
    for (n, path) in args.videos.iter().enumerate() {
        let mut progress = Progress::spinner("");
        let place = format!("{} ({} of {})", path.display(), n + 1, args.videos.len());
        match replayer.run(path, |at| progress.message(&format!("{place} · {:.0} s", at.seconds()))) {
            Ok(replayed) => {
                if let Some(file) = &args.scores {
                    let path = scores::path_for(file, &replayed.camera, several);
                    scores::write(&path, &replayed.score_labels, &replayed.scores).map_err(Failure::say)?;
                }
                outputs.take(&replayed, &decoding)?;
            }
            Err(error) if args.videos.len() == 1 => return Err(error.into()),
            Err(error) => {
                drop(progress);
                eprintln!("kinewatch: {error}");
                failed += 1;
            }
        }
    }
    outputs.finish(&decoding)?;
    match failed {
        0 => Ok(()),
        n => Err(Failure::say(format!("{n} of {} videos could not be replayed", args.videos.len()))),
    }
}

/// A camera id per video, so two videos of one stem cannot be told apart.
fn check_stems(videos: &[PathBuf]) -> Outcome {
    let mut seen: BTreeMap<String, &Path> = BTreeMap::new();
    for path in videos {
        let stem = intervals::slug(&path.to_string_lossy());
        if let Some(other) = seen.insert(stem.clone(), path) {
            return Err(Failure::Usage(format!(
                "{} and {} would both be camera {stem}; rename one or replay them one at a time",
                other.display(),
                path.display()
            )));
        }
    }
    Ok(())
}

fn check_zones(given: usize, manifest: &Manifest) -> Outcome {
    let name = &manifest.name;
    match &manifest.tensors.boxes {
        None if given > 0 => eprintln!("kinewatch: --zones is of no use, model {name} takes no boxes; leave it out"),
        Some(boxes) if given > boxes.count => {
            let takes = boxes.count;
            return Err(Failure::Usage(format!(
                "--zones: there are {given}, model {name} takes {takes}: leave some out"
            )));
        }
        _ => {}
    }
    Ok(())
}
