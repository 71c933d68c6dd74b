//! The `infer` thread: takes rounds from the mailbox, runs analytics, and closes every open action when it ends.
//!
//! The only place that calls a model in the daemon. Waits at most a second for frames, so its beat never grows old while
//! it is alive; a batch across cameras waits at most [`BATCH_DEADLINE`] for company.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use kinewatch_capture::{Captured, GapReason};
use kinewatch_core::batch::{Batch, BatchPolicy};
use kinewatch_core::decode::EndReason;
use kinewatch_core::time::DelaySource;
use kinewatch_engine::InferError;

use crate::analytics::Analytics;
use crate::health::Shared;
use crate::live::LiveSink;
use crate::mailbox::{Mailbox, Round};

/// How long the first request of a batch waits for others.
const BATCH_DEADLINE: Duration = Duration::from_millis(15);
/// How long the thread sleeps when no frame comes.
const IDLE: Duration = Duration::from_secs(1);
/// How often the system clock is looked at when no event makes it necessary.
const CLOCK_LOOK: Duration = Duration::from_secs(1);
/// A failure that goes on is said this often.
const REPEAT: Duration = Duration::from_secs(60);

/// The thread's state.
#[derive(Debug)]
pub struct Inference {
    analytics: Analytics,
    mailbox: Arc<Mailbox>,
    sink: LiveSink,
    shared: Arc<Shared>,
    policy: BatchPolicy,
    last_failure: Option<Instant>,
    last_look: Option<Instant>,
    /// By camera: where the delay of its frames was taken from when that was last said.
    delays: Vec<DelaySource>,
}

impl Inference {
    /// Takes over the opened models.
    #[must_use]
    pub fn new(analytics: Analytics, mailbox: Arc<Mailbox>, sink: LiveSink, shared: Arc<Shared>) -> Self {
        let batch = analytics.models().iter().map(|m| m.model.report().batch).max().unwrap_or(1);
        // More than one request per camera and model is a backlog, not company.
        let policy = BatchPolicy { max_batch: batch.min(analytics.watchers().count()), deadline: BATCH_DEADLINE };
        let delays = vec![DelaySource::Assumed; shared.cameras.len()];
        Self { analytics, mailbox, sink, shared, policy, last_failure: None, last_look: None, delays }
    }

    /// Runs until the mailbox is closed and empty.
    pub fn run(mut self) {
        let mut round = Vec::new();
        let mut oldest: Option<Instant> = None;
        loop {
            let waited = oldest.map_or(Duration::ZERO, |since| since.elapsed());
            let timeout = match self.policy.decide(self.analytics.staged(), waited) {
                Batch::Idle => IDLE,
                Batch::Wait(more) => more,
                Batch::Run(_) => {
                    self.run_staged();
                    oldest = None;
                    continue;
                }
            };
            match self.mailbox.round(&mut round, timeout) {
                Round::Closed => break,
                Round::Idle | Round::Taken => {}
            }
            if self.last_look.is_none_or(|last| last.elapsed() >= CLOCK_LOOK) {
                self.last_look = Some(Instant::now());
                self.sink.look_at_clock();
                self.say_delays();
            }
            for (camera, captured) in round.drain(..) {
                self.take(camera, captured);
            }
            if self.analytics.staged() > 0 {
                oldest.get_or_insert_with(Instant::now);
            }
            self.shared.beat(&self.shared.inference_beat_ms);
        }
        for camera in 0..self.shared.cameras.len() {
            self.gap(camera, EndReason::Shutdown);
        }
    }

    fn take(&mut self, camera: usize, captured: Captured) {
        match captured {
            Captured::Frame { branch, frame } => {
                let result = self.analytics.frame(camera, branch, frame, &mut self.sink);
                self.note(result);
            }
            Captured::Gap { reason, .. } => {
                self.gap(camera, end_reason(&reason));
            }
            Captured::Finished => tracing::info!(camera = self.name(camera), "the source has played to its end"),
            Captured::Failed(error) => tracing::error!(camera = self.name(camera), "{error}"),
        }
    }

    fn run_staged(&mut self) {
        let result = self.analytics.run_staged(&mut self.sink);
        self.note(result);
        for (loaded, view) in self.analytics.models().iter().zip(&self.shared.models) {
            let counters = loaded.model.counters();
            view.backbone_runs.store(counters.backbone_runs, Relaxed);
            view.head_runs.store(counters.head_runs, Relaxed);
            view.batches.store(counters.batches, Relaxed);
        }
    }

    fn gap(&mut self, camera: usize, reason: EndReason) {
        let result = self.analytics.gap(camera, reason, &mut self.sink);
        self.note(result);
    }

    /// Says once when a camera's sender reports begin to be used, or cannot be.
    fn say_delays(&mut self) {
        for camera in 0..self.delays.len() {
            let now = self.analytics.delay_source(camera);
            if now == DelaySource::Assumed || std::mem::replace(&mut self.delays[camera], now) == now {
                continue;
            }
            let camera = self.name(camera);
            if now == DelaySource::Reported {
                tracing::info!(camera, "the camera's clock agrees with ours: its sender reports date its frames");
            } else {
                tracing::warn!(
                    camera,
                    "the camera's clock disagrees with ours: its sender reports are not used, frames are dated by their \
                     arrival; let the camera use the same NTP server as this device"
                );
            }
        }
    }

    fn note(&mut self, result: Result<(), InferError>) {
        let Err(error) = result else { return };
        if self.last_failure.is_none_or(|last| last.elapsed() >= REPEAT) {
            self.last_failure = Some(Instant::now());
            tracing::error!("{error}; the windows concerned are left out and counted");
        }
    }

    fn name(&self, camera: usize) -> &str {
        &self.shared.cameras[camera].name
    }
}

fn end_reason(reason: &GapReason) -> EndReason {
    match reason {
        GapReason::Stopped => EndReason::Shutdown,
        GapReason::Lost(_) | GapReason::EndOfStream | GapReason::Looped | GapReason::Jump => EndReason::StreamLost,
    }
}
