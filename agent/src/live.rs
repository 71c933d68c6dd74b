//! What the daemon makes of decisions: events for delivery, camera states for MQTT, counters for metrics.
//!
//! Lives in the `infer` thread. Sending an event may wait for the store thread; nothing else blocks.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use kinewatch_core::decode::{Decision, Status};
use kinewatch_core::event::{ClockState, Clocks, EventContext, Ids, action_event};
use kinewatch_core::time::Pts;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::analytics::{Origin, Sink, WindowDrop};
use crate::clock::wall_ns;
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
    clock: ClockState,
    scores: Option<ScoresWriter>,
}

impl LiveSink {
    /// A sink that sends to `commands`, and writes scores of every camera into the folder `scores` when one is given.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        commands: mpsc::Sender<Command>,
        contexts: Vec<EventContext>,
        scores: Option<&Path>,
    ) -> Self {
        let scores = scores.map(ScoresWriter::in_folder);
        let (ids, active) = (HashMap::new(), Vec::new());
        let place = |c: &CameraView| shared.models.iter().map(|m| c.models.iter().position(|n| *n == m.name)).collect();
        let places = shared.cameras.iter().map(place).collect();
        Self { shared, commands, contexts, ids, active, places, clock: ClockState::default(), scores }
    }

    /// Uses what the operating system says of the clock for the events that follow.
    pub fn set_clock(&mut self, clock: ClockState) {
        self.clock = clock;
    }

    fn note_active(&mut self, origin: Origin<'_>, decision: &Decision, label: &str) {
        let key = (origin.camera, origin.watcher, decision.action);
        match decision.status {
            Status::Started => {
                let start_unix_ns = origin.clock.wall(decision.start).unix_ns;
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
        let clocks = Clocks { map: origin.clock, state: &self.clock, now_unix_ns: Some(wall_ns()) };
        let event = action_event(context, decision, origin.session, &clocks, ids, 0);
        let topic = context.topic(decision);
        if self.commands.blocking_send(Command::Event(Box::new(NewEvent { topic, event }))).is_err() {
            self.shared.delivery.decisions_lost.fetch_add(1, Relaxed);
            tracing::error!(label, "the store thread is gone: a decision is lost");
        }
        self.note_active(origin, decision, &label);
    }

    fn scores(&mut self, origin: Origin<'_>, at: Pts, scores: &[f32], labels: &[String]) {
        let camera = &self.shared.cameras[origin.camera];
        camera.windows.fetch_add(1, Relaxed);
        let age = wall_ns().saturating_sub(origin.clock.wall(at).unix_ns);
        camera.age.observe(Duration::from_nanos(u64::try_from(age).unwrap_or(0)));
        if let Some(writer) = &mut self.scores {
            writer.write(&camera.name, origin.session, at, labels, scores);
        }
    }

    fn inferred(&mut self, model: usize, _requests: usize, took: Duration) {
        self.shared.models[model].duration.observe(took);
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
}
