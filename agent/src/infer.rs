//! The `infer` thread: empties the mailbox, makes one call of a model, and so on; closes every open action when it ends.
//!
//! The only place that calls a model in the daemon. Begins with no camera and no model: they come, and go, through the
//! mailbox ([`crate::change`]). Every frame that has come is taken in before each call, so that the
//! scheduler chooses among all that waits. Waits at most a second for frames, so its beat never grows old while it is
//! alive; a batch across cameras waits at most [`BATCH_DEADLINE`] for company, and under overload not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kinewatch_capture::{Captured, GapReason};
use kinewatch_core::batch::{Batch, BatchPolicy};
use kinewatch_core::decode::EndReason;
use kinewatch_core::event::ModelRef;
use kinewatch_core::manifest::Plan;
use kinewatch_core::schedule::Load;
use kinewatch_core::time::DelaySource;
use kinewatch_engine::InferError;
use tokio::sync::oneshot;

use crate::analytics::{Analytics, LoadedModel};
use crate::change::{Change, Exchange, Joining};
use crate::health::Shared;
use crate::layout;
use crate::live::LiveSink;
use crate::mailbox::{Mail, Mailbox, Round};
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
    mailbox: Arc<Mailbox<Change>>,
    sink: LiveSink,
    shared: Arc<Shared>,
    policy: BatchPolicy,
    begun: Instant,
    overload: Overload,
    last_failure: Option<Instant>,
    last_look: Option<Instant>,
    /// By slot of the camera: where the delay of its frames was taken from when that was last said.
    delays: Vec<DelaySource>,
    /// Models that go back once no camera is watched by them: slot, and where to.
    leaving: Vec<(usize, oneshot::Sender<LoadedModel>)>,
    /// What events say of models that took the place of another, by slot: cameras that join may know the one before.
    references: BTreeMap<usize, ModelRef>,
}

impl Inference {
    /// Nothing to watch yet.
    #[must_use]
    pub fn new(mailbox: Arc<Mailbox<Change>>, sink: LiveSink, shared: Arc<Shared>) -> Self {
        let begun = Instant::now();
        Self {
            analytics: Analytics::empty().with_time(move || begun.elapsed()),
            mailbox,
            sink,
            shared,
            policy: BatchPolicy { max_batch: 1, deadline: BATCH_DEADLINE },
            begun,
            overload: Overload::default(),
            last_failure: None,
            last_look: None,
            delays: Vec::new(),
            leaving: Vec::new(),
            references: BTreeMap::new(),
        }
    }

    /// Runs until the mailbox is closed and empty.
    pub fn run(mut self) {
        self.shared.stages.inference.touch(Instant::now());
        let mut round = Vec::new();
        // What has come, then what to do with it.
        while self.take_in(&mut round, Duration::ZERO) != Round::Closed {
            self.analytics.spare(self.shared.one_of());
            match self.choose() {
                Batch::Idle => {
                    self.analytics.rest();
                    match self.analytics.trial_due() {
                        Some(Duration::ZERO) => self.analytics.run_trial(&mut self.sink),
                        due => {
                            self.take_in(&mut round, due.unwrap_or(IDLE).min(IDLE));
                        }
                    }
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
        for camera in 0..self.delays.len() {
            self.gap(camera, EndReason::Shutdown);
        }
        self.shared.stages.inference.rest(Instant::now());
    }

    /// Everything that is queued, after waiting for at most `wait` for the first of it.
    fn take_in(&mut self, round: &mut Vec<Mail<Change>>, wait: Duration) -> Round {
        let first = self.mailbox.round(round, wait);
        let mut found = first;
        while found == Round::Taken {
            for mail in round.drain(..) {
                match mail {
                    Mail::Captured(camera, captured) => self.take(camera, captured),
                    Mail::Change(change) => self.change(change),
                }
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
            Captured::Finished => {
                tracing::info!(camera = self.sink.camera_name(camera), "the source has played to its end");
            }
            Captured::Failed(error) => tracing::error!(camera = self.sink.camera_name(camera), "{error}"),
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Joins { slot, camera } => {
                let Joining { camera, live } = *camera;
                let result = self.analytics.join(slot, camera, &mut self.sink);
                self.note(result);
                self.sink.set_camera(slot, Some(live));
                for (model, reference) in &self.references {
                    refer(&mut self.sink, &self.analytics, (*model, reference), Some(slot));
                }
                self.delays.resize(self.delays.len().max(slot + 1), DelaySource::Assumed);
            }
            Change::Leaves { slot, reason } => {
                let result = self.analytics.leave(slot, reason, &mut self.sink);
                self.note(result);
                self.sink.set_camera(slot, None);
                self.delays[slot] = DelaySource::Assumed;
            }
            Change::ModelJoins { slot, model, view } => {
                self.analytics.add_model(slot, *model);
                self.references.remove(&slot);
                self.sink.set_model(slot, Some(view));
            }
            Change::ModelLeaves { slot, back } => self.leaving.push((slot, back)),
            Change::Exchanged(exchange) => self.exchange(*exchange),
            Change::Withdrawn { slot, back } => {
                if let Some(model) = self.analytics.withdraw(slot) {
                    // Whoever asked may have stopped waiting.
                    let _dropped_here = back.send(model);
                }
            }
            Change::Lost { slot } => self.analytics.lose(slot, &mut self.sink),
            Change::TrialBegins { slot, candidate } => {
                // One that was tried before was asked back first.
                let _none = self.analytics.begin_trial(slot, *candidate);
            }
            Change::TrialEnds { back } => {
                if let Some(candidate) = self.analytics.end_trial() {
                    let _dropped_here = back.send(candidate);
                }
            }
            Change::Revised { slot, overrides } => {
                if let Err(error) = self.analytics.revise(slot, overrides) {
                    tracing::error!(%error, "other thresholds are not taken");
                }
            }
        }
        self.send_back();
        let batch = self.analytics.models().map(|(_, m)| m.model.report().batch).max().unwrap_or(1);
        // More than one request per camera and model is a backlog, not company.
        self.policy.max_batch = batch.min(self.analytics.watchers().count());
    }

    fn exchange(&mut self, exchange: Exchange) {
        let Exchange { slot, successor, overrides, view, reference, back } = exchange;
        let begun = Instant::now();
        let before = self.analytics.exchange(slot, successor, overrides, &mut self.sink);
        self.sink.set_model(slot, Some(view));
        refer(&mut self.sink, &self.analytics, (slot, &reference), None);
        tracing::info!(
            model = reference.name,
            version = reference.version,
            took_ms = begun.elapsed().as_secs_f64() * 1e3,
            "the model has taken its place"
        );
        self.references.insert(slot, reference);
        // Whoever asked may have stopped waiting.
        if let Some(model) = before {
            let _dropped_here = back.send(model);
        }
    }

    /// Models that nobody is watched by any more.
    fn send_back(&mut self) {
        for (slot, back) in std::mem::take(&mut self.leaving) {
            match self.analytics.take_model(slot) {
                Some(model) => {
                    self.sink.set_model(slot, None);
                    // Whoever asked may have stopped waiting.
                    let _dropped_here = back.send(model);
                }
                // Withdrawn before: there is none to send.
                None if self.analytics.is_vacant(slot) => self.sink.set_model(slot, None),
                None => self.leaving.push((slot, back)),
            }
        }
    }

    fn run_next(&mut self) {
        let result = self.analytics.run_next(&mut self.sink);
        self.note(result);
        for (slot, loaded) in self.analytics.models() {
            self.sink.count(slot, loaded.model.counters());
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
            let camera = self.sink.camera_name(camera);
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
        let apart = |m: &LoadedModel| layout::every(&m.manifest).as_secs_f64() * self.analytics.demand();
        let online = self.analytics.models().map(|(_, m)| m).filter(|m| m.manifest.plan == Plan::Online);
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
        self.shared.inference_fault.store(Some(Arc::new(error.to_string())));
        if self.last_failure.is_none_or(|last| last.elapsed() >= REPEAT) {
            self.last_failure = Some(Instant::now());
            tracing::error!("{error}; the windows concerned are left out and counted");
        }
    }
}

/// From here on events of the model in a slot, at one camera or at all, say `reference` of it.
fn refer(sink: &mut LiveSink, analytics: &Analytics, (slot, reference): (usize, &ModelRef), camera: Option<usize>) {
    for watcher in analytics.watchers() {
        if watcher.model == slot && camera.is_none_or(|camera| camera == watcher.camera) {
            sink.set_reference(watcher.camera, watcher.index, reference);
        }
    }
}

fn end_reason(reason: &GapReason) -> EndReason {
    match reason {
        GapReason::Stopped => EndReason::Shutdown,
        GapReason::Lost(_) | GapReason::EndOfStream | GapReason::Looped | GapReason::Jump => EndReason::StreamLost,
    }
}
