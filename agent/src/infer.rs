//! The `infer` thread: empties the mailbox, makes one call of a model, and so on; closes every open action when it ends.
//!
//! The only place that calls a model in the daemon. Every frame that has come is taken in before each call, so that the
//! scheduler chooses among all that waits. Waits at most a second for frames, so its beat never grows old while it is
//! alive; a batch across cameras waits at most [`BATCH_DEADLINE`] for company, and under overload not at all.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use kinewatch_capture::{Captured, GapReason};
use kinewatch_core::batch::{Batch, BatchPolicy};
use kinewatch_core::decode::EndReason;
use kinewatch_core::manifest::Plan;
use kinewatch_core::schedule::Load;
use kinewatch_core::time::DelaySource;
use kinewatch_engine::InferError;

use crate::analytics::{Analytics, LoadedModel};
use crate::health::Shared;
use crate::layout;
use crate::live::LiveSink;
use crate::mailbox::{Mailbox, Round};
use crate::overload::{Overload, Turn};

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
    begun: Instant,
    overload: Overload,
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
        let begun = Instant::now();
        let analytics = analytics.with_time(move || begun.elapsed());
        let (overload, delays) = (Overload::default(), vec![DelaySource::Assumed; shared.cameras.len()]);
        Self { analytics, mailbox, sink, shared, policy, begun, overload, last_failure: None, last_look: None, delays }
    }

    /// Runs until the mailbox is closed and empty.
    pub fn run(mut self) {
        self.shared.stages.inference.touch(Instant::now());
        let mut round = Vec::new();
        // What has come, then what to do with it.
        while self.take_in(&mut round, Duration::ZERO) != Round::Closed {
            match self.choose() {
                Batch::Idle => {
                    self.analytics.rest();
                    self.take_in(&mut round, IDLE);
                }
                Batch::Wait(more) => {
                    self.take_in(&mut round, more);
                    self.analytics.pause();
                }
                Batch::Run(_) => self.run_next(),
            }
            self.note_overload();
            if self.last_look.is_none_or(|last| last.elapsed() >= CLOCK_LOOK) {
                self.last_look = Some(Instant::now());
                self.sink.look_at_clock();
                self.say_delays();
            }
            self.shared.stages.inference.touch(Instant::now());
        }
        for camera in 0..self.shared.cameras.len() {
            self.gap(camera, EndReason::Shutdown);
        }
        self.shared.stages.inference.rest(Instant::now());
    }

    /// Everything that is queued, after waiting for at most `wait` for the first of it.
    fn take_in(&mut self, round: &mut Vec<(usize, Captured)>, wait: Duration) -> Round {
        let first = self.mailbox.round(round, wait);
        let mut found = first;
        while found == Round::Taken {
            for (camera, captured) in round.drain(..) {
                self.take(camera, captured);
            }
            found = self.mailbox.round(round, Duration::ZERO);
        }
        first
    }

    fn choose(&self) -> Batch {
        match self.analytics.load() {
            Load::Kept => self.policy.decide(self.analytics.waiting(), self.analytics.longest_wait()),
            Load::Over => {
                BatchPolicy { deadline: Duration::ZERO, ..self.policy }.decide(self.analytics.waiting(), Duration::ZERO)
            }
        }
    }

    fn take(&mut self, camera: usize, captured: Captured) {
        match captured {
            Captured::Frame { branch, frame } => {
                self.analytics.frame(camera, branch, frame, &mut self.sink);
            }
            Captured::Gap { reason, .. } => {
                self.gap(camera, end_reason(&reason));
            }
            Captured::Finished => tracing::info!(camera = self.name(camera), "the source has played to its end"),
            Captured::Failed(error) => tracing::error!(camera = self.name(camera), "{error}"),
        }
    }

    fn run_next(&mut self) {
        let result = self.analytics.run_next(&mut self.sink);
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

    fn note_overload(&mut self) {
        match self.overload.look(self.analytics.left_out(), self.begun.elapsed()) {
            Some(Turn::Begins) => tracing::warn!(
                "inference does not keep up: the cameras ask for {:.1} times the time that this device has; each is served \
                 its newest windows, the others are left out and counted (windows_dropped, overload), and boundaries are \
                 less certain{}. Watch fewer cameras or models, choose a package with a longer stride or a lower rate, or \
                 a faster [engine]: precision = \"int8\" on ONNX Runtime, more threads, a GPU",
                self.analytics.demand(),
                self.blind()
            ),
            Some(Turn::Ends { left_out, lasted }) => tracing::info!(
                "inference keeps up again: {left_out} windows were left out within {:.0} s",
                lasted.as_secs_f64()
            ),
            None => {}
        }
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

    /// Online models whose frames come further apart than they carry their state, in words: they find nothing.
    fn blind(&self) -> String {
        let apart = |m: &&LoadedModel| layout::every(&m.manifest).as_secs_f64() * self.analytics.demand();
        let online = self.analytics.models().iter().filter(|m| m.manifest.plan == Plan::Online);
        let blind = online.filter(|m| apart(m) > m.manifest.sampling.max_hole as f64 / 1e9);
        let names: Vec<_> = blind.map(|m| m.name.as_str()).collect();
        match &names[..] {
            [] => String::new(),
            names => {
                format!(", and {} find nothing: their frames come further apart than max_hole_s", names.join(", "))
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
