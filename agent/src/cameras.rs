//! The cameras that run: each with its capture and its inbox. Started, relaid and stopped one by one; who is not named in a
//! [`Handover`] notices nothing.
//!
//! Owned by the main thread. Blocks for as long as the cameras that stop may take, all at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use kinewatch_capture::{Camera, CaptureError, StopOutcome};
use kinewatch_core::decode::EndReason;

use crate::change::Change;
use crate::health::Shared;
use crate::mailbox::{Inbox, Mailbox};
use crate::prepare::{Handover, NewStream};

/// A camera may take this long to stop; then it is left behind.
const CAMERAS_STOP: Duration = Duration::from_millis(1200);

/// A camera that could not be started although nothing spoke against it; it is not there.
#[derive(Debug, thiserror::Error)]
#[error("camera {camera}: {source}")]
pub struct NotStarted {
    /// Name.
    pub camera: String,
    /// Why.
    pub source: CaptureError,
}

/// The cameras that run.
#[derive(Debug)]
pub struct Cameras {
    mailbox: Arc<Mailbox<Change>>,
    shared: Arc<Shared>,
    running: BTreeMap<String, Running>,
    /// Sessions that cameras of these names have begun, so that none of their numbers comes twice.
    sessions: BTreeMap<String, u32>,
}

#[derive(Debug)]
struct Running {
    capture: Camera,
    inbox: Arc<Inbox<Change>>,
}

impl Cameras {
    /// None yet.
    #[must_use]
    pub fn new(mailbox: Arc<Mailbox<Change>>, shared: Arc<Shared>) -> Self {
        Self { mailbox, shared, running: BTreeMap::new(), sessions: BTreeMap::new() }
    }

    /// How many run.
    #[must_use]
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// Carries out a handover, and shows what runs then. Gives the cameras that could not be started.
    pub fn take_over(&mut self, handover: Handover) -> Vec<NotStarted> {
        for (slot, model, view) in handover.models {
            self.mailbox.change(Change::ModelJoins { slot, model: Box::new(model), view });
        }
        for exchange in handover.exchanged {
            self.mailbox.change(Change::Exchanged(Box::new(exchange)));
        }
        for (slot, overrides) in handover.revised {
            self.mailbox.change(Change::Revised { slot, overrides });
        }
        for (name, joining) in handover.relaid {
            if let Some(Running { inbox, .. }) = self.running.get(&name) {
                inbox.change(Change::Joins { slot: inbox.slot(), camera: Box::new(joining) });
            }
        }
        self.stop(handover.stopped);
        let failed: Vec<_> = handover.started.into_iter().filter_map(|new| self.start(new).err()).collect();
        for (slot, back) in handover.leaving {
            self.mailbox.change(Change::ModelLeaves { slot, back });
        }
        let mut cameras = handover.cameras;
        cameras.retain(|view| self.running.contains_key(&view.name));
        self.shared.cameras.store(Arc::new(cameras));
        self.shared.models.store(Arc::new(handover.model_views));
        failed
    }

    /// Stops all of them at once; each ends its session first, so that open actions end with `shutdown`.
    pub fn stop_all(&self) {
        wait_for(self.running.values().map(|running| &running.capture));
    }

    /// Their open actions end where they are now, whatever the pipelines still deliver while they stop.
    fn stop(&mut self, leaving: Vec<(String, EndReason)>) {
        let mut stopped = Vec::with_capacity(leaving.len());
        for (name, reason) in leaving {
            let Some(running) = self.running.remove(&name) else { continue };
            running.inbox.leave(Change::Leaves { slot: running.inbox.slot(), reason });
            stopped.push((name, running.capture));
        }
        let abandoned = wait_for(stopped.iter().map(|(_, capture)| capture));
        self.shared.threads_left.fetch_add(abandoned, Relaxed);
        for (name, capture) in stopped {
            let stats = capture.stats();
            self.shared.threads_left.fetch_add(stats.threads_abandoned.load(Relaxed), Relaxed);
            let begun = stats.sessions.load(Relaxed);
            self.sessions.insert(name, u32::try_from(begun).unwrap_or(u32::MAX));
        }
    }

    fn start(&mut self, new: NewStream) -> Result<(), NotStarted> {
        let NewStream { mut options, joining, view } = new;
        let name = options.name.clone();
        options.beat = Arc::clone(&view.beat);
        if let Some(f) = self.shared.on_beat {
            view.beat.on_touch(f);
        }
        options.sessions_before = self.sessions.get(&name).copied().unwrap_or(0);
        let inbox = Arc::new(self.mailbox.open(Arc::clone(&view.overflow)));
        let slot = inbox.slot();
        inbox.change(Change::Joins { slot, camera: Box::new(joining) });
        let to = Arc::clone(&inbox);
        match Camera::spawn(options, Box::new(move |captured| to.push(captured))) {
            Ok(capture) => {
                // Set once, here: the view is as new as the camera.
                let _unset = view.capture.set(capture.stats());
                let _unset = view.control.set(capture.control());
                self.running.insert(name, Running { capture, inbox });
                Ok(())
            }
            Err(source) => {
                inbox.leave(Change::Leaves { slot, reason: EndReason::Shutdown });
                Err(NotStarted { camera: name, source })
            }
        }
    }
}

/// Stops them side by side. Gives how many did not in time, and were left behind.
fn wait_for<'a>(captures: impl Iterator<Item = &'a Camera>) -> u64 {
    let abandoned = AtomicU64::new(0);
    thread::scope(|scope| {
        for capture in captures {
            scope.spawn(|| {
                if capture.stop(CAMERAS_STOP) == StopOutcome::Abandoned {
                    tracing::warn!(camera = capture.name(), "the camera does not stop in time and is left behind");
                    abandoned.fetch_add(1, Relaxed);
                }
            });
        }
    });
    abandoned.into_inner()
}
