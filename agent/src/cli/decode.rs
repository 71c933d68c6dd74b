//! `kinewatch decode`: the decoder of a package over saved scores.

use std::path::Path;

use kinewatch_core::name;

use super::outputs::{self, Outputs};
use super::{DecodeArgs, Failure, Outcome};
use crate::decode;
use crate::intervals::{self, Truth};

pub(super) fn run(args: &DecodeArgs) -> Outcome {
    let truth = outputs::read_truth(&args.outputs)?;
    let (decoding, digest) = kinewatch_ota::open_decoding(&args.model)?;
    let camera = args.camera.as_deref().map_or_else(|| camera(&args.scores, truth.as_ref()), name::slug);
    if let Some(truth) = &truth
        && !truth.videos.contains_key(&camera)
    {
        let problem = format!("--truth has no video {camera}: say with --camera which of its videos the scores are of");
        return Err(Failure::Usage(problem));
    }
    let replayed = decode::decode(&args.scores, &decoding, &digest, &camera).map_err(Failure::say)?;
    let mut outputs = Outputs::new(&args.outputs, truth)?;
    outputs.take(&replayed, &decoding)?;
    outputs.finish(&decoding)
}

/// The only video of the annotations, or the one that the file is named after: `NAME.csv`, or `SCORES.NAME.csv` as
/// `replay` names the files of several videos.
fn camera(scores: &Path, truth: Option<&Truth>) -> String {
    let whole = intervals::slug(&scores.to_string_lossy());
    let Some(truth) = truth else { return whole };
    if truth.videos.len() == 1 {
        return truth.videos.keys().next().cloned().unwrap_or(whole);
    }
    let stem = scores.file_stem().unwrap_or_default().to_string_lossy();
    let last = name::slug(stem.rsplit('.').next().unwrap_or_default());
    if truth.videos.contains_key(&last) { last } else { whole }
}
