//! Rust heap allocations per sampled frame, from appsink to scores, in all threads: `make bench`.
//!
//! Usage: `cargo bench --bench allocations -- VIDEO MODEL`. The same capture, mailbox and analytics as the daemon, on ONNX
//! Runtime when `ORT_DYLIB_PATH` names it, else on tract (whose own allocations are Rust's and are counted too). What
//! GStreamer and ONNX Runtime allocate inside is C and C++ and passes by this counter.

mod counting;

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use counting::COUNT;
use kinewatch::analytics::{Analytics, CameraPlan, Origin, Sink, WindowDrop};
use kinewatch::models;
use kinewatch::replay::play;
use kinewatch_capture::{Elements, Source, Speed};
use kinewatch_core::decode::Decision;
use kinewatch_core::manifest::Overrides;
use kinewatch_core::time::Pts;
use kinewatch_engine::OpenOptions;

/// Rows of scores until buffers have their size.
const WARM_UP: u64 = 20;

/// The counter at the end of the warm-up and at the newest scores.
#[derive(Default)]
struct Watch {
    rows: u64,
    warm: u64,
    last: u64,
}

impl Sink for Watch {
    fn decision(&mut self, _origin: Origin<'_>, _decision: &Decision) {}

    fn scores(&mut self, _origin: Origin<'_>, _at: Pts, _scores: &[f32], _labels: &[String]) {
        self.rows += 1;
        self.last = COUNT.load(Ordering::Relaxed);
        if self.rows == WARM_UP {
            self.warm = self.last;
        }
    }

    fn inferred(&mut self, _model: usize, _requests: usize, _took: Duration) {}

    fn windows_dropped(&mut self, _camera: usize, _watcher: usize, _why: WindowDrop, _count: u32) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    // `cargo test --all-targets` runs benches too, without this flag.
    let Some(flag) = args.iter().position(|a| a.as_os_str() == "--bench") else { return Ok(()) };
    let [video, dir] =
        [&args[..flag], &args[flag + 1..]].concat().try_into().map_err(|_| "usage: allocations VIDEO MODEL")?;
    kinewatch_capture::init()?;
    let options =
        OpenOptions { ort_library: std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from), ..OpenOptions::default() };
    let opened = models::open("bench", &dir, Overrides::default(), &options)?;
    let manifest = &opened.loaded.manifest;
    let frames_per_row = manifest.sampling.stride as f64 / 1e9 * manifest.sampling.rate_hz;
    let plan = CameraPlan { name: "bench".into(), models: vec![0], zones: Vec::new() };
    let mut analytics = Analytics::new(vec![opened.loaded], std::slice::from_ref(&plan))?;
    let source = Source::File { path: video, looped: false, speed: Speed::Max };
    let mut watch = Watch::default();
    play(&mut analytics, &plan, source, Elements::probe(None), &mut watch, &mut |_| {})?;
    if watch.rows <= WARM_UP {
        return Err("the video is too short".into());
    }
    let (count, frames) = (watch.last - watch.warm, (watch.rows - WARM_UP) as f64 * frames_per_row);
    let on = opened.reference.accel;
    println!("{:.2} allocations per sampled frame ({count} in {frames:.0} frames, {on})", count as f64 / frames);
    Ok(())
}
