//! What the daemon makes of decisions: events for delivery, camera states for MQTT, counters for metrics.
//!
//! Lives in the `infer` thread, and watches the system clock for it. Sending an event may wait for the store thread; nothing else
//! blocks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use kinewatch_core::beat::Beat;
use kinewatch_core::decode::{Decision, Status};
use kinewatch_core::event::{ClockState, Clocks, EventContext, Ids, ModelRef, action_event};
use kinewatch_core::manifest::TimeOfDay;
use kinewatch_core::time::{DeviceClock, Pts, STEP_NS};
use kinewatch_engine::{Counters, InferError};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::analytics::{FAILING_AFTER_S, ModelTurn, Origin, Sink, Tried, WindowDrop};
use crate::clock;
use crate::delivery::{Decided, NewEvent};
use crate::health::{ActiveAction, CameraView, ModelView, Shared};
use crate::scores::ScoresWriter;

/// Sink of the daemon.
#[derive(Debug)]
pub struct LiveSink {
    shared: Arc<Shared>,
    decided: mpsc::Sender<Decided>,
    /// By slot.
    cameras: Vec<Option<LiveCamera>>,
    /// By slot.
    models: Vec<Option<Arc<ModelView>>>,
    clock: DeviceClock,
    /// [`clock::both_ns`], but in tests.
    read_clocks: fn() -> (i64, i64),
    clock_state: ClockState,
    time_of_day: Option<TimeOfDay>,
    scores: Option<ScoresWriter>,
}

/// A camera as its events and counters tell of it.
#[derive(Debug)]
pub struct LiveCamera {
    view: Arc<CameraView>,
    /// What the events of each model share, by [`Origin::watcher`].
    contexts: Vec<EventContext>,
    open: Vec<OpenAction>,
}

#[derive(Debug)]
struct OpenAction {
    watcher: usize,
    action: u64,
    id: Uuid,
    active: ActiveAction,
}

impl LiveCamera {
    /// `contexts` by [`Origin::watcher`], as are the models of `view`.
    #[must_use]
    pub fn new(view: Arc<CameraView>, contexts: Vec<EventContext>) -> Self {
        Self { view, contexts, open: Vec::new() }
    }

    /// The id of the decision's action, which is new with its first.
    fn action_id(&self, origin: Origin<'_>, decision: &Decision) -> Uuid {
        self.open.iter().find(|open| open.is(origin, decision)).map_or_else(Uuid::now_v7, |open| open.id)
    }

    /// Keeps the open actions, and shows them.
    fn note(&mut self, origin: Origin<'_>, decision: &Decision, id: Uuid, active: ActiveAction) {
        let (watcher, action) = (origin.watcher, decision.action);
        match decision.status {
            Status::Started => self.open.push(OpenAction { watcher, action, id, active }),
            Status::Updated => return,
            Status::Ended { .. } => self.open.retain(|open| !open.is(origin, decision)),
        }
        self.view.active.store(Arc::new(self.open.iter().map(|open| open.active.clone()).collect()));
    }
}

impl OpenAction {
    fn is(&self, origin: Origin<'_>, decision: &Decision) -> bool {
        (self.watcher, self.action) == (origin.watcher, decision.action)
    }
}

impl LiveSink {
    /// A sink that sends to `decided`, dates by `clock`, and writes scores of every camera into the folder `scores` when
    /// one is given.
    #[must_use]
    pub fn new(shared: Arc<Shared>, decided: mpsc::Sender<Decided>, clock: DeviceClock, scores: Option<&Path>) -> Self {
        let scores = scores.map(ScoresWriter::in_folder);
        let (cameras, models) = (Vec::new(), Vec::new());
        let clock_state = clock::state();
        let (read_clocks, time_of_day) = (clock::both_ns as fn() -> _, None);
        Self { shared, decided, cameras, models, clock, read_clocks, clock_state, time_of_day, scores }
    }

    /// What `slot` is from here on; the one before has no open action any more.
    pub fn set_camera(&mut self, slot: usize, camera: Option<LiveCamera>) {
        // Its models begin anew, and have not failed yet.
        for dropped in camera.iter().flat_map(|camera| &camera.view.dropped) {
            dropped.failing.store(false, Relaxed);
        }
        if let (Some(writer), Some(Some(before))) = (&mut self.scores, self.cameras.get(slot)) {
            writer.close(&before.view.name);
        }
        set(&mut self.cameras, slot, camera);
    }

    /// The same for a model.
    pub fn set_model(&mut self, slot: usize, model: Option<Arc<ModelView>>) {
        set(&mut self.models, slot, model);
    }

    /// What decisions of a model at a camera ([`Origin::watcher`]) say of the model from here on.
    pub fn set_reference(&mut self, camera: usize, watcher: usize, reference: &ModelRef) {
        let camera = self.cameras.get_mut(camera).and_then(Option::as_mut);
        if let Some(context) = camera.and_then(|camera| camera.contexts.get_mut(watcher)) {
            context.model = reference.clone();
        }
    }

    /// Name of the camera in a slot, for the log.
    #[must_use]
    pub fn camera_name(&self, slot: usize) -> &str {
        self.camera(slot).map_or("", |camera| &camera.view.name)
    }

    /// Shows the work that a model has done.
    pub fn count(&self, model: usize, counters: Counters) {
        let Some(Some(view)) = self.models.get(model) else { return };
        view.backbone_runs.store(counters.backbone_runs, Relaxed);
        view.head_runs.store(counters.head_runs, Relaxed);
        view.batches.store(counters.batches, Relaxed);
    }

    fn camera(&self, slot: usize) -> Option<&LiveCamera> {
        self.cameras.get(slot)?.as_ref()
    }

    /// Asks the operating system how far the clock can be trusted, and tells a step.
    pub fn look_at_clock(&mut self) {
        self.clock_state = clock::state();
        self.shared.clock_synced.store(self.clock_state.synced, Relaxed);
        self.time_of_day = clock::time_of_day();
        self.follow_clock();
    }

    /// The wall time now. Called for each event, so that none made after a step bears the time of before it.
    fn follow_clock(&mut self) -> i64 {
        let (mono_ns, wall_ns) = (self.read_clocks)();
        let moved = wall_ns.saturating_sub(mono_ns).saturating_sub(self.clock.wall_minus_mono_ns());
        if moved.saturating_abs() >= STEP_NS {
            self.clock_state = clock::state();
        }
        if let Some(step) = self.clock.look(mono_ns, wall_ns, self.clock_state.synced) {
            self.shared.clock_steps.fetch_add(1, Relaxed);
            // In the same queue as events: what is in front of it bears the old time.
            let _stopping = send(&self.decided, &self.shared.stages.inference, Decided::ClockStepped(step));
        }
        wall_ns
    }
}

/// Waits while the queue is full: for a disk that fails as long as it does, which `/readyz` says. A thread of the store that hangs
/// is told by its own beat.
fn send(
    queue: &mpsc::Sender<Decided>,
    inference: &Beat,
    decided: Decided,
) -> Result<(), mpsc::error::SendError<Decided>> {
    let decided = match queue.try_send(decided) {
        Err(mpsc::error::TrySendError::Full(decided)) => decided,
        sent => return sent.map_err(|error| mpsc::error::SendError(error.into_inner())),
    };
    inference.rest(Instant::now());
    let sent = queue.blocking_send(decided);
    inference.touch(Instant::now());
    sent
}

/// Puts a value into its slot.
fn set<T>(slots: &mut Vec<Option<T>>, slot: usize, value: Option<T>) {
    if slots.len() <= slot {
        slots.resize_with(slot + 1, || None);
    }
    slots[slot] = value;
}

impl Sink for LiveSink {
    fn decision(&mut self, origin: Origin<'_>, decision: &Decision) {
        let now_unix_ns = Some(self.follow_clock());
        let camera = self.cameras.get_mut(origin.camera).and_then(Option::as_mut);
        let Some(camera) = camera.filter(|camera| origin.watcher < camera.contexts.len()) else {
            // A camera joins here before its first frame is taken.
            self.shared.delivery.decisions_lost.fetch_add(1, Relaxed);
            tracing::error!(slot = origin.camera, "a decision of a camera that is not known is lost");
            return;
        };
        let context = &camera.contexts[origin.watcher];
        let label = context.label(decision).to_owned();
        if let Some(counts) = camera.view.events.iter().find(|e| e.label == label) {
            let count = match decision.status {
                Status::Started => &counts.started,
                Status::Updated => &counts.updated,
                Status::Ended { .. } => &counts.ended,
            };
            count.fetch_add(1, Relaxed);
        }
        let ids = Ids { id: Uuid::now_v7(), action_id: camera.action_id(origin, decision) };
        let wall_minus_mono_ns = self.clock.wall_minus_mono_ns();
        let clocks = Clocks { map: origin.clock, state: &self.clock_state, wall_minus_mono_ns, now_unix_ns };
        let event = action_event(context, decision, origin.session, &clocks, ids, 0);
        let topic = context.topic(decision);
        if send(&self.decided, &self.shared.stages.inference, Decided::Event(Box::new(NewEvent { topic, event })))
            .is_err()
        {
            self.shared.delivery.decisions_lost.fetch_add(1, Relaxed);
            tracing::error!(label, "the store thread is gone: a decision is lost");
        }
        let start_unix_ns = origin.clock.wall(decision.start, wall_minus_mono_ns).unix_ns;
        camera.note(origin, decision, ids.action_id, ActiveAction { label, start_unix_ns });
    }

    fn scores(&mut self, origin: Origin<'_>, at: Pts, scores: &[f32], labels: &[String]) {
        let Some(Some(camera)) = self.cameras.get(origin.camera) else { return };
        let view = &camera.view;
        view.windows.fetch_add(1, Relaxed);
        // Both on the monotonic clock: a step of the device's clock is no age.
        let age = clock::mono_ns().saturating_sub(origin.clock.wall(at, 0).unix_ns);
        view.age.observe(Duration::from_nanos(u64::try_from(age).unwrap_or(0)));
        if let Some(writer) = &mut self.scores {
            writer.write(&view.name, origin.session, at, labels, scores);
        }
    }

    fn inferred(&mut self, model: usize, requests: usize, took: Duration) {
        if let Some(Some(view)) = self.models.get(model) {
            view.duration.observe(took);
            view.tally.latency.observe(took, requests);
        }
        // A gap may run many calls in a row.
        self.shared.stages.inference.touch(Instant::now());
    }

    fn answered(&mut self, model: usize, valid: usize, failed: usize, not_finite: usize) {
        if let Some(Some(view)) = self.models.get(model) {
            view.tally.note(valid, failed, not_finite);
        }
    }

    fn tried(&mut self, _model: usize, tried: &Tried, error: Option<&InferError>) {
        self.shared.stages.inference.touch(Instant::now());
        let trial = self.shared.trial.load();
        let Some(view) = trial.as_ref() else { return };
        let valid = tried.requests.saturating_sub(tried.failed + tried.not_finite);
        view.tally.note(valid, tried.failed, tried.not_finite);
        view.tally.latency.observe(tried.took, tried.requests);
        view.compared.fetch_add(tried.compared as u64, Relaxed);
        view.agreed.fetch_add(tried.agreed as u64, Relaxed);
        if let Some(error) = error {
            view.fault.store(Some(Arc::new(error.to_string())));
        }
    }

    fn windows_dropped(&mut self, camera: usize, watcher: usize, why: WindowDrop, dropped: u32) {
        let Some(counts) = self.camera(camera).and_then(|camera| camera.view.dropped.get(watcher)) else { return };
        let count = match why {
            WindowDrop::Hole => &counts.hole,
            WindowDrop::Failed => &counts.failed,
            WindowDrop::Overload => &counts.overload,
            WindowDrop::Swap => &counts.swap,
            WindowDrop::Derated => &counts.derated,
        };
        count.fetch_add(u64::from(dropped), Relaxed);
    }

    fn model_turned(&mut self, camera: usize, watcher: usize, turn: ModelTurn) {
        let Some(camera) = self.camera(camera) else { return };
        let (view, Some(context)) = (&camera.view, camera.contexts.get(watcher)) else { return };
        if let Some(dropped) = view.dropped.get(watcher) {
            dropped.failing.store(turn == ModelTurn::Fails, Relaxed);
        }
        let (camera, model) = (&view.name, &context.model.name);
        match turn {
            ModelTurn::Fails => tracing::error!(
                camera,
                model,
                "the model has scored nothing for {} s, or is gone: its open actions end with stream_lost; see what has \
                 failed above, kinewatch_windows_dropped_total for its reason, and `kinewatch model check`",
                FAILING_AFTER_S
            ),
            ModelTurn::Works => tracing::info!(camera, model, "the model works again: decoding begins anew"),
        }
    }

    fn time_of_day(&self) -> Option<TimeOfDay> {
        self.time_of_day
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use kinewatch_core::decode::Confidence;
    use kinewatch_core::event::ModelRef;
    use kinewatch_core::time::{Arrival, ClockMap, SessionId};

    use super::*;

    const S: i64 = 1_000_000_000;
    static WALL_NS: AtomicI64 = AtomicI64::new(1_000 * S);

    fn decision(action: u64) -> Decision {
        Decision {
            action,
            rev: 0,
            label: 0,
            start: Pts(0),
            start_uncertainty_ms: 0.0,
            decided_at: Pts(S),
            confidence: Confidence { mean: 0.5, peak: 0.5, last: 0.5 },
            windows: 1,
            status: Status::Started,
        }
    }

    #[test]
    fn a_step_is_told_between_the_events_of_before_and_of_after() {
        let (decided, mut queue) = mpsc::channel(8);
        let view = Arc::new(CameraView::new("front", "test:", vec!["m".into()], vec!["wave".into()]));
        let shared = Arc::new(Shared::new("g", "d", "b", vec![], vec![]));
        let model = ModelRef { name: "m".into(), version: "1".into(), sha256: "0".into(), accel: "none".into() };
        let (group, device, camera) = ("g".into(), "d".into(), "front".into());
        let (labels, label_ids) = (vec!["wave".into()], vec![None]);
        let context = EventContext { group, device, camera, model, labels, label_ids };
        let synced = clock::state().synced;
        let clock = DeviceClock::new(10 * S, 1_000 * S, synced);
        let mut sink = LiveSink::new(Arc::clone(&shared), decided, clock, None);
        sink.set_camera(0, Some(LiveCamera::new(Arc::clone(&view), vec![context])));
        sink.read_clocks = || (10 * S, WALL_NS.load(Relaxed));
        let mut map = ClockMap::new();
        map.observe(Pts(S), Arrival { mono_ns: 9 * S, ..Arrival::default() });
        let origin = Origin { camera: 0, model: 0, watcher: 0, session: SessionId(1), clock: &map };
        sink.decision(origin, &decision(0));
        WALL_NS.store(5_000 * S, Relaxed);
        sink.decision(origin, &decision(1));
        sink.decision(origin, &decision(2));
        drop(sink);
        let mut told = Vec::new();
        while let Ok(decided) = queue.try_recv() {
            told.push(match decided {
                Decided::Event(new) => new.event.data.start.time[11..19].to_owned(),
                Decided::ClockStepped(step) => format!("{} s", step.step_ns() / S),
            });
        }
        // 8 s of the monotonic clock, less the 40 ms assumed.
        assert_eq!(told, ["00:16:37", "4000 s", "01:23:17", "01:23:17"]);
        assert_eq!(shared.clock_steps.load(Relaxed), 1);
        assert_eq!((view.active.load().len(), view.events[0].started.load(Relaxed)), (3, 3));
    }
}
