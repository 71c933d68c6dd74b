//! What the daemon makes of decisions: events for delivery, camera states for MQTT, counters for metrics.
//!
//! Lives in the `infer` thread, and watches the system clock for it. Sending an event may wait for the store thread; nothing else blocks.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use kinewatch_core::decode::{Decision, Status};
use kinewatch_core::event::{ClockState, Clocks, EventContext, Ids, action_event};
use kinewatch_core::manifest::TimeOfDay;
use kinewatch_core::time::{DeviceClock, Pts, STEP_NS};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::analytics::{FAILING_AFTER_S, ModelTurn, Origin, Sink, WindowDrop};
use crate::clock;
use crate::delivery::{Command, NewEvent};
use crate::health::{ActiveAction, CameraView, Shared};
use crate::scores::ScoresWriter;

/// Sink of the daemon.
#[derive(Debug)]
pub struct LiveSink {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    /// Of each watcher, what its events share.
    contexts: Vec<EventContext>,
    /// Ids of open actions by (watcher, action).
    ids: HashMap<(usize, u64), Uuid>,
    /// Open actions by (camera, watcher, action).
    active: Vec<(usize, usize, u64, ActiveAction)>,
    /// Of each camera, the place of each model among those that watch it.
    places: Vec<Vec<Option<usize>>>,
    clock: DeviceClock,
    /// [`clock::both_ns`], but in tests.
    read_clocks: fn() -> (i64, i64),
    clock_state: ClockState,
    time_of_day: Option<TimeOfDay>,
    scores: Option<ScoresWriter>,
}

impl LiveSink {
    /// A sink that sends to `commands`, dates by `clock`, and writes scores of every camera into the folder `scores` when one is given.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        commands: mpsc::Sender<Command>,
        contexts: Vec<EventContext>,
        clock: DeviceClock,
        scores: Option<&Path>,
    ) -> Self {
        let scores = scores.map(ScoresWriter::in_folder);
        let (ids, active) = (HashMap::new(), Vec::new());
        let place = |c: &CameraView| shared.models.iter().map(|m| c.models.iter().position(|n| *n == m.name)).collect();
        let places = shared.cameras.iter().map(place).collect();
        let clock_state = clock::state();
        let (read_clocks, time_of_day) = (clock::both_ns as fn() -> _, None);
        Self { shared, commands, contexts, ids, active, places, clock, read_clocks, clock_state, time_of_day, scores }
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
            let _stopping = self.send(Command::ClockStepped(step));
        }
        wall_ns
    }

    /// Waits while the queue is full. Then it is the store that makes no progress, and its own beat that tells.
    fn send(&self, command: Command) -> Result<(), mpsc::error::SendError<Command>> {
        let command = match self.commands.try_send(command) {
            Err(mpsc::error::TrySendError::Full(command)) => command,
            sent => return sent.map_err(|error| mpsc::error::SendError(error.into_inner())),
        };
        self.shared.stages.inference.rest(Instant::now());
        let sent = self.commands.blocking_send(command);
        self.shared.stages.inference.touch(Instant::now());
        sent
    }

    fn note_active(&mut self, origin: Origin<'_>, decision: &Decision, label: &str) {
        let key = (origin.camera, origin.watcher, decision.action);
        match decision.status {
            Status::Started => {
                let start_unix_ns = origin.clock.wall(decision.start, self.clock.wall_minus_mono_ns()).unix_ns;
                self.active.push((key.0, key.1, key.2, ActiveAction { label: label.to_owned(), start_unix_ns }));
            }
            Status::Updated => return,
            Status::Ended { .. } => self.active.retain(|(c, w, a, _)| (*c, *w, *a) != key),
        }
        let now = self.active.iter().filter(|(camera, ..)| *camera == origin.camera).map(|(.., action)| action.clone());
        self.shared.cameras[origin.camera].active.store(Arc::new(now.collect()));
    }
}

impl Sink for LiveSink {
    fn decision(&mut self, origin: Origin<'_>, decision: &Decision) {
        let now_unix_ns = Some(self.follow_clock());
        let context = &self.contexts[origin.watcher];
        let label = context.label(decision).to_owned();
        let camera = &self.shared.cameras[origin.camera];
        if let Some(counts) = camera.events.iter().find(|e| e.label == label) {
            let count = match decision.status {
                Status::Started => &counts.started,
                Status::Updated => &counts.updated,
                Status::Ended { .. } => &counts.ended,
            };
            count.fetch_add(1, Relaxed);
        }
        let key = (origin.watcher, decision.action);
        let action_id = *self.ids.entry(key).or_insert_with(Uuid::now_v7);
        if matches!(decision.status, Status::Ended { .. }) {
            self.ids.remove(&key);
        }
        let ids = Ids { id: Uuid::now_v7(), action_id };
        let wall_minus_mono_ns = self.clock.wall_minus_mono_ns();
        let clocks = Clocks { map: origin.clock, state: &self.clock_state, wall_minus_mono_ns, now_unix_ns };
        let event = action_event(context, decision, origin.session, &clocks, ids, 0);
        let topic = context.topic(decision);
        if self.send(Command::Event(Box::new(NewEvent { topic, event }))).is_err() {
            self.shared.delivery.decisions_lost.fetch_add(1, Relaxed);
            tracing::error!(label, "the store thread is gone: a decision is lost");
        }
        self.note_active(origin, decision, &label);
    }

    fn scores(&mut self, origin: Origin<'_>, at: Pts, scores: &[f32], labels: &[String]) {
        let camera = &self.shared.cameras[origin.camera];
        camera.windows.fetch_add(1, Relaxed);
        // Both on the monotonic clock: a step of the device's clock is no age.
        let age = clock::mono_ns().saturating_sub(origin.clock.wall(at, 0).unix_ns);
        camera.age.observe(Duration::from_nanos(u64::try_from(age).unwrap_or(0)));
        if let Some(writer) = &mut self.scores {
            writer.write(&camera.name, origin.session, at, labels, scores);
        }
    }

    fn inferred(&mut self, model: usize, _requests: usize, took: Duration) {
        self.shared.models[model].duration.observe(took);
        // A gap may run many calls in a row.
        self.shared.stages.inference.touch(Instant::now());
    }

    fn windows_dropped(&mut self, camera: usize, model: usize, why: WindowDrop, dropped: u32) {
        let Some(place) = self.places[camera][model] else { return };
        let counts = &self.shared.cameras[camera].dropped[place];
        let count = match why {
            WindowDrop::Hole => &counts.hole,
            WindowDrop::Failed => &counts.failed,
            WindowDrop::Overload => &counts.overload,
        };
        count.fetch_add(u64::from(dropped), Relaxed);
    }

    fn model_turned(&mut self, camera: usize, model: usize, turn: ModelTurn) {
        let Some(place) = self.places[camera][model] else { return };
        let (camera, model) = (&self.shared.cameras[camera], &self.shared.models[model].name);
        camera.dropped[place].failing.store(turn == ModelTurn::Fails, Relaxed);
        let camera = &camera.name;
        match turn {
            ModelTurn::Fails => tracing::error!(
                camera,
                model,
                "the model has given nothing but failures for {} s: its open actions end with stream_lost; see the \
                 failure above, and `kinewatch model check`",
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
    use crate::health::CameraView;

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
        let (commands, mut queue) = mpsc::channel(8);
        let camera = CameraView::new("front", "test:", vec![], vec![]);
        let shared = Arc::new(Shared::new("g", "d", "b", vec![camera], vec![]));
        let model = ModelRef { name: "m".into(), version: "1".into(), sha256: "0".into(), accel: "none".into() };
        let (group, device, camera) = ("g".into(), "d".into(), "front".into());
        let (labels, label_ids) = (vec!["wave".into()], vec![None]);
        let context = EventContext { group, device, camera, model, labels, label_ids };
        let synced = clock::state().synced;
        let clock = DeviceClock::new(10 * S, 1_000 * S, synced);
        let mut sink = LiveSink::new(Arc::clone(&shared), commands, vec![context], clock, None);
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
        while let Ok(command) = queue.try_recv() {
            told.push(match command {
                Command::Event(new) => new.event.data.start.time[11..19].to_owned(),
                Command::ClockStepped(step) => format!("{} s", step.step_ns() / S),
                other => format!("{other:?}"),
            });
        }
        // 8 s of the monotonic clock, less the 40 ms assumed.
        assert_eq!(told, ["00:16:37", "4000 s", "01:23:17", "01:23:17"]);
        assert_eq!(shared.clock_steps.load(Relaxed), 1);
    }
}
