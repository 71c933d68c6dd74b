//! Stopping a pipeline with a deadline. `set_state(NULL)` may block for ever (driver, name resolution, daemon gone), so
//! it runs on a thread of its own, which is left behind when it takes too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use tracing::{info, warn};

/// So many pipelines that refuse to stop are borne before no new one is built.
const CLOGGED: usize = 4;

/// Stops the pipelines of one camera and remembers those that would not.
#[derive(Debug)]
pub(crate) struct Teardowns {
    camera: String,
    deadline: Duration,
    alive: Arc<AtomicUsize>,
}

impl Teardowns {
    pub(crate) fn new(camera: String, deadline: Duration) -> Self {
        Self { camera, deadline, alive: Arc::default() }
    }

    /// Whether too many abandoned pipelines still hold their resources.
    pub(crate) fn is_clogged(&self) -> bool {
        self.alive.load(Ordering::Relaxed) >= CLOGGED
    }

    /// Whether none is left that was abandoned, or is being stopped.
    pub(crate) fn are_over(&self) -> bool {
        self.alive.load(Ordering::Relaxed) == 0
    }

    /// Stops `pipeline`. False when the deadline passed and it was left behind.
    pub(crate) fn stop(&self, pipeline: gst::Pipeline) -> bool {
        let (ended, done) = sync_channel::<()>(1);
        let alive = Arc::clone(&self.alive);
        alive.fetch_add(1, Ordering::Relaxed);
        let camera = self.camera.clone();
        let deadline = self.deadline;
        let body = move || {
            let _ = pipeline.set_state(gst::State::Null);
            drop(pipeline);
            alive.fetch_sub(1, Ordering::Relaxed);
            if ended.send(()).is_err() {
                info!(camera, "an abandoned pipeline has stopped after all");
            }
        };
        // Without a thread the pipeline moves into the failed closure and is dropped with it.
        let spawned = thread::Builder::new().name(format!("end-{}", self.camera)).spawn(body).is_ok();
        if spawned && done.recv_timeout(deadline).is_ok() {
            return true;
        }
        warn!(camera = self.camera, deadline_ms = deadline.as_millis() as u64, "pipeline does not stop: left behind");
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;

    /// A pipeline whose streaming thread hangs until the returned sender is dropped.
    fn hanging() -> (gst::Pipeline, std::sync::mpsc::Sender<()>) {
        crate::init().unwrap();
        let element = gst::parse::launch("fakesrc is-live=true ! fakesink name=sink async=false").unwrap();
        let pipeline = element.downcast::<gst::Pipeline>().unwrap();
        let (release, released) = channel::<()>();
        let (hangs, hung) = channel();
        let released = Mutex::new(released);
        let pad = pipeline.by_name("sink").unwrap().static_pad("sink").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            let _ = hangs.send(());
            let _ = released.lock().unwrap().recv();
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        hung.recv_timeout(Duration::from_secs(30)).unwrap();
        (pipeline, release)
    }

    #[test]
    fn a_pipeline_that_does_not_stop_is_left_behind_and_counted() {
        let teardowns = Teardowns::new("t".into(), Duration::from_millis(50));
        let mut held = Vec::new();
        for _ in 0..CLOGGED {
            assert!(!teardowns.is_clogged());
            let (pipeline, release) = hanging();
            held.push(release);
            assert!(!teardowns.stop(pipeline), "the deadline passes");
            assert!(!teardowns.are_over());
        }
        assert!(teardowns.is_clogged(), "no more are built until one has stopped");
        held.clear();
        while !teardowns.are_over() {
            thread::yield_now();
        }
        let quick = Teardowns::new("t".into(), Duration::from_secs(30));
        let (pipeline, release) = hanging();
        drop(release);
        assert!(quick.stop(pipeline) && quick.are_over());
    }
}
