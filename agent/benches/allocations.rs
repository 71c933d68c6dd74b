//! Rust heap allocations per sampled frame, from appsink to scores, in all threads: `make bench`.
//!
//! Usage: `cargo bench --bench allocations -- VIDEO MODEL`. The same capture, mailbox and analytics as the daemon, on ONNX Runtime when
//! `ORT_DYLIB_PATH` names it, else on tract (whose own allocations are Rust's and are counted too). What GStreamer and ONNX
//! Runtime allocate inside is C and C++ and passes by this counter.

use std::alloc::{GlobalAlloc, Layout, System};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kinewatch::analytics::{Analytics, CameraPlan, Origin, Sink, WindowDrop, branches};
use kinewatch::mailbox::{Mailbox, Overflow, Round};
use kinewatch::models;
use kinewatch_capture::{Branch, Camera, CameraOptions, Captured, Source, Speed};
use kinewatch_core::decode::Decision;
use kinewatch_core::manifest::Overrides;
use kinewatch_core::time::Pts;
use kinewatch_engine::OpenOptions;

/// Frames until buffers have their size.
const WARM_UP: u64 = 20;
const AHEAD: usize = 8;

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Silent;

impl Sink for Silent {
    fn decision(&mut self, _origin: Origin<'_>, _decision: &Decision) {}
    fn scores(&mut self, _origin: Origin<'_>, _at: Pts, _scores: &[f32], _labels: &[String]) {}
    fn inferred(&mut self, _model: usize, _requests: usize, _took: Duration) {}
    fn windows_dropped(&mut self, _camera: usize, _why: WindowDrop, _count: u32) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    // `cargo test --all-targets` runs benches too, without this flag.
    let Some(flag) = args.iter().position(|a| a.as_os_str() == "--bench") else { return Ok(()) };
    let [video, dir] =
        [&args[..flag], &args[flag + 1..]].concat().try_into().map_err(|_| "usage: allocations VIDEO MODEL")?;
    let (frames, count, on) = count(&video, &dir)?;
    println!(
        "{:.2} allocations per sampled frame ({count} in {frames} frames after {WARM_UP}, {on})",
        count as f64 / frames as f64
    );
    Ok(())
}

fn count(video: &Path, dir: &Path) -> Result<(u64, u64, String), Box<dyn Error>> {
    kinewatch_capture::init()?;
    let options =
        OpenOptions { ort_library: std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from), ..OpenOptions::default() };
    let opened = models::open("bench", dir, Overrides::default(), &options)?;
    let on = opened.reference.accel.clone();
    let plan = CameraPlan { name: "bench".into(), models: vec![0] };
    let manifests = [Arc::clone(&opened.loaded.manifest)];
    let branches = branches(&manifests, &plan)
        .into_iter()
        .map(|b| Branch { spec: b.spec, rates_hz: b.rates_hz, pool_frames: b.ring_frames + 2 * AHEAD })
        .collect();
    let mut analytics = Analytics::new(vec![opened.loaded], std::slice::from_ref(&plan))?;
    let source = Source::File { path: video.to_owned(), looped: false, speed: Speed::Max };
    let mailbox = Arc::new(Mailbox::new(1, AHEAD, Overflow::Block));
    let inbox = Arc::clone(&mailbox);
    let _camera = Camera::spawn(
        CameraOptions::new("bench", source, branches),
        Box::new(move |captured| inbox.push(0, captured)),
    )?;
    let (mut frames, mut warm, mut last) = (0, 0, 0);
    let mut round = Vec::new();
    while mailbox.round(&mut round, Duration::from_secs(5)) != Round::Closed {
        for (_, captured) in round.drain(..) {
            match captured {
                Captured::Frame { branch, frame } => {
                    analytics.frame(0, branch, frame, &mut Silent)?;
                    analytics.run_staged(&mut Silent)?;
                    frames += 1;
                    last = COUNT.load(Ordering::Relaxed);
                    if frames == WARM_UP {
                        warm = last;
                    }
                }
                Captured::Gap { .. } => {}
                Captured::Failed(error) => return Err(error.into()),
                Captured::Finished if frames > WARM_UP => return Ok((frames - WARM_UP, last - warm, on)),
                Captured::Finished => return Err("the video is too short".into()),
            }
        }
    }
    Err("the camera stopped".into())
}
