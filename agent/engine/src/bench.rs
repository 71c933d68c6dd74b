//! Measurements for `kinewatch model check` and `model bench`: golden differences, and milliseconds a frame and a window.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kinewatch_core::frame::{Frame, FrameBuf, FrameMeta};
use kinewatch_core::manifest::{Manifest, Plan};
use kinewatch_core::time::{Pts, SessionId};

use crate::error::{InferError, OpenError};
use crate::golden;
use crate::logits::Logits;
use crate::model::{Model, Request};
use crate::open::{OnDeviation, open};
use crate::options::OpenOptions;
use crate::report::OpenReport;

/// Runs that are not counted.
const WARM_UP: usize = 3;
/// Runs without which no figure means anything.
const FEWEST: usize = 10;

/// Milliseconds of a repeated piece of work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Milliseconds {
    /// Half of the runs took less.
    pub median: f64,
    /// The quickest run.
    pub min: f64,
    /// All but one of a hundred took less, or as much.
    pub p99: f64,
}

/// How long a model takes, one request at a time.
#[derive(Clone, Debug)]
pub struct BenchResult {
    /// Back end, provider, precision and golden differences.
    pub report: OpenReport,
    /// Runs counted.
    pub runs: usize,
    /// New frames in a window: 1 for `online` and `cached` (windows move by one frame), all for `clip`.
    pub frames_per_window: usize,
    /// A window, by the wall clock.
    pub wall: Milliseconds,
    /// A window, CPU time of all threads of the process.
    pub cpu: Milliseconds,
}

impl BenchResult {
    /// CPU milliseconds a frame, median.
    #[must_use]
    pub fn cpu_ms_per_frame(&self) -> f64 {
        self.cpu.median / self.frames_per_window as f64
    }

    /// Wall milliseconds a frame, median.
    #[must_use]
    pub fn wall_ms_per_frame(&self) -> f64 {
        self.wall.median / self.frames_per_window as f64
    }
}

/// Opens the model and runs its golden clips, without refusing a difference: the report has them all.
///
/// # Errors
/// When it cannot be opened or run.
pub fn check(dir: &Path, manifest: &Manifest, options: &OpenOptions) -> Result<OpenReport, OpenError> {
    open(dir, manifest, options, OnDeviation::Report).map(|model| model.report().clone())
}

/// Measures `runs` windows over the frames of the golden clips; ends after `at_most` too, once ten windows have been measured.
///
/// # Errors
/// When the model cannot be run, computes what is not finite, or has no golden clip.
pub fn measure(
    model: &mut Model,
    dir: &Path,
    manifest: &Manifest,
    runs: usize,
    at_most: Duration,
) -> Result<BenchResult, OpenError> {
    let clips = golden::read(dir, manifest)?;
    let pictures: Vec<&Frame> = clips.iter().flat_map(|clip| &clip.frames).collect();
    if pictures.is_empty() {
        return Err(OpenError::Options("the package has no golden clip to measure with".to_owned()));
    }
    let step = match manifest.plan {
        Plan::Clip => model.frames_per_request(),
        Plan::Online | Plan::Cached => 1,
    };
    let mut clip = Endless { pictures, next: 0, interval: Pts::from_seconds(1.0 / manifest.sampling.rate_hz).0 };
    let mut window: Vec<Frame> = (0..model.frames_per_request()).map(|_| clip.next_frame()).collect();
    let stream = model.add_stream();
    let mut logits = Logits::new();
    let (mut wall, mut cpu) = (Vec::with_capacity(runs), Vec::with_capacity(runs));
    let begun = Instant::now();
    for run in 0..runs.max(1) + WARM_UP {
        if wall.len() >= FEWEST && begun.elapsed() >= at_most {
            break;
        }
        let (start, start_cpu) = (Instant::now(), process_cpu());
        let outcome = model.infer(&[Request { stream, frames: &window }], &mut logits);
        let (elapsed, elapsed_cpu) = (start.elapsed(), process_cpu().saturating_sub(start_cpu));
        let (path, backend) = (PathBuf::from(dir), model.report().backend.name());
        outcome.map_err(|error| match error {
            InferError::NotFinite { tensor, .. } => OpenError::NotFinite { path, backend, tensor },
            other => OpenError::WarmUp { path, backend, detail: other.to_string() },
        })?;
        if run >= WARM_UP {
            wall.push(elapsed);
            cpu.push(elapsed_cpu);
        }
        window.rotate_left(step);
        let kept = window.len() - step;
        for frame in &mut window[kept..] {
            *frame = clip.next_frame();
        }
    }
    model.remove_stream(stream);
    Ok(BenchResult {
        report: model.report().clone(),
        runs: wall.len(),
        frames_per_window: step,
        wall: summary(wall),
        cpu: summary(cpu),
    })
}

/// The pictures over and over, with media times that go on.
struct Endless<'a> {
    pictures: Vec<&'a Frame>,
    next: usize,
    interval: i64,
}

impl Endless<'_> {
    fn next_frame(&mut self) -> Frame {
        let picture = self.pictures[self.next % self.pictures.len()];
        let pts = Pts(self.interval.saturating_mul(i64::try_from(self.next).unwrap_or(i64::MAX)));
        self.next += 1;
        let meta = FrameMeta { session: SessionId::default(), pts, arrival: None, wanted: 1 };
        Arc::new(FrameBuf::new(meta, picture.pixels()))
    }
}

fn summary(mut times: Vec<Duration>) -> Milliseconds {
    times.sort();
    let ms = |index: usize| times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let p99 = (times.len() * 99).div_ceil(100).saturating_sub(1);
    Milliseconds { median: ms(times.len() / 2), min: ms(0), p99: ms(p99) }
}

/// CPU time of this process so far, all threads.
#[allow(unsafe_code)]
fn process_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that lives through the call; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
