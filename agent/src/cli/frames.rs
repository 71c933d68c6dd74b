//! `kinewatch frames`: what a model would see of a video, through the capture chain of the daemon.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use kinewatch_capture::{Branch, Camera, CameraOptions, Captured, Source, Speed};
use kinewatch_core::frame::{Filter, FrameSpec, Resize, ScaleOrder};

use super::{Failure, FramesArgs, Outcome};
use crate::npy::FramesFile;
use crate::progress::Progress;

/// Frames that capture may be ahead of the disk.
const AHEAD: usize = 16;

pub(super) fn run(args: &FramesArgs) -> Outcome {
    let (spec, rate_hz) = wanted(args)?;
    kinewatch_capture::init()?;
    let branch = Branch { spec, rates_hz: vec![rate_hz], pool_frames: AHEAD + 8 };
    let source = Source::File { path: args.video.clone(), looped: false, speed: Speed::Max };
    let mut options = CameraOptions::new("frames", source, vec![branch]);
    options.teardown_deadline = Duration::from_secs(5);
    let (send, receive) = sync_channel(AHEAD);
    // A receiver that is gone has already failed; what capture still delivers is of no use.
    let camera = Camera::spawn(options, Box::new(move |captured| drop(send.send(captured))))?;

    let told = |path: &Path| {
        let path = path.to_owned();
        move |e: std::io::Error| {
            Failure::say(format!("{}: {e}; name a file in a directory that can be written", path.display()))
        }
    };
    let times_path = args.out.with_extension("times.csv");
    let mut frames = FramesFile::create(&args.out, spec.width, spec.height).map_err(told(&args.out))?;
    let mut times = BufWriter::new(File::create(&times_path).map_err(told(&times_path))?);
    writeln!(times, "time_s,session").map_err(told(&times_path))?;
    let mut progress = Progress::spinner(&args.video.display().to_string());
    loop {
        match receive.recv_timeout(Duration::from_millis(200)) {
            Ok(Captured::Frame { frame, .. }) => {
                frames.push(frame.pixels()).map_err(told(&args.out))?;
                writeln!(times, "{:.6},{}", frame.meta().pts.seconds(), frame.meta().session.0)
                    .map_err(told(&times_path))?;
                progress.tick();
            }
            Ok(Captured::Gap { .. }) => {}
            Ok(Captured::Failed(error)) => return Err(error.into()),
            Ok(Captured::Finished) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => progress.tick(),
        }
    }
    drop(progress);
    camera.stop(Duration::from_secs(5));
    times.flush().map_err(told(&times_path))?;
    let count = frames.finish().map_err(told(&args.out))?;
    eprintln!("kinewatch: {count} frames in {}, times in {}", args.out.display(), times_path.display());
    Ok(())
}

fn wanted(args: &FramesArgs) -> Result<(FrameSpec, f64), Failure> {
    if let Some(dir) = &args.model {
        let manifest = super::model::open(dir)?;
        return Ok((manifest.input.spec, manifest.sampling.rate_hz));
    }
    let size = args.size.as_deref().unwrap_or_default();
    let side = |s: &str| s.parse::<u32>().ok().filter(|n| (8..=4096).contains(n));
    let (width, height) = size.split_once('x').and_then(|(w, h)| Some((side(w)?, side(h)?))).ok_or_else(|| {
        Failure::Usage(format!("--size {size}: write WIDTHxHEIGHT, each 8 to 4096, for example 144x144"))
    })?;
    let rate_hz = args.rate.unwrap_or_default();
    if !(0.01..=1000.0).contains(&rate_hz) {
        return Err(Failure::Usage(format!("--rate {rate_hz}: give 0.01 to 1000 frames a second")));
    }
    let spec =
        FrameSpec { width, height, resize: Resize::Stretch, filter: Filter::Bilinear, order: ScaleOrder::ScaleConvert };
    Ok((spec, rate_hz))
}
