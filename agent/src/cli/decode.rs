//! `kinewatch decode`: the decoder of a package over saved scores.

use super::outputs::Outputs;
use super::{DecodeArgs, Failure, Outcome};
use crate::{decode, intervals};

pub(super) fn run(args: &DecodeArgs) -> Outcome {
    let mut outputs = Outputs::new(&args.outputs)?;
    let (decoding, digest) = kinewatch_ota::open_decoding(&args.model)?;
    let camera = match (&args.camera, outputs.only_video()) {
        (Some(name), _) => intervals::slug(name),
        (None, Some(video)) => video.to_owned(),
        (None, None) => intervals::slug(&args.scores.to_string_lossy()),
    };
    let replayed = decode::decode(&args.scores, &decoding, &digest, &camera).map_err(Failure::say)?;
    outputs.take(&replayed, &decoding)?;
    outputs.finish(&decoding)
}
