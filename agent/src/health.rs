//! What the agent knows of itself, for whoever looks: metrics, the status page, systemd, camera states on MQTT.
//!
//! Written by the threads that do the work, with relaxed atomics and swapped pointers; read at any time by any thread.
//! Never locks on the path of a frame, and never holds a secret: sources are stored redacted.

mod delivery;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use kinewatch_capture::{CameraControl, CameraState, CameraStats};
use kinewatch_core::beat::{self, Beat};
use kinewatch_core::event::{ClockRecord, Derated};
use tokio::sync::Semaphore;

pub use self::delivery::{DeliveryView, OldestBootNs, StoreView};
use crate::board::Board;
use crate::builds::Building;
use crate::reload::ReloadView;
pub use crate::tally::{DURATION_BOUNDS, DurationHistogram};
use crate::tally::{Tally, TrialView};
use crate::updates::UpdatesView;

use crate::supervise::stages::{Stages, Stuck};

use crate::commands::Counts;

/// Everything that can be seen of a running agent.
#[derive(Debug)]
pub struct Shared {
    /// Device name.
    pub device: String,
    /// Device group.
    pub group: String,
    /// Random: tells this start of the agent from every other, of any device.
    pub instance: String,
    /// When the process started.
    pub started: Instant,
    /// Cameras, in the order of the configuration; another list after each reload. Who goes on keeps its view.
    pub cameras: ArcSwap<Vec<Arc<CameraView>>>,
    /// Models, likewise.
    pub models: ArcSwap<Vec<Arc<ModelView>>>,
    /// Outbox and broker.
    pub delivery: DeliveryView,
    /// The newest failure of a model in use.
    pub inference_fault: ArcSwapOption<String>,
    /// Models over the air.
    pub updates: UpdatesView,
    /// The candidate that is tried beside a model.
    pub trial: ArcSwapOption<TrialView>,
    /// How reloads of the configuration went.
    pub reloads: ReloadView,
    /// Threads of cameras that would not end, and whose cameras are configured no more or anew.
    pub threads_left: AtomicU64,
    /// Whether events can be stored.
    pub store: StoreView,
    /// Held by whoever unpacks a release or runs a model in a child process: memory holds one at a time.
    pub heavy: Arc<Semaphore>,
    /// The engine that is built now.
    pub building: ArcSwapOption<Building>,
    /// The board as it was last read; `None` until then.
    pub board: ArcSwapOption<Board>,
    /// How far the device is spared; `None` while it does not have to be.
    pub derated: ArcSwapOption<Derated>,
    /// Commands that came from the broker.
    pub commands: Counts,
    /// How the system clock was set since boot; set once the store is open.
    pub clock: ArcSwapOption<ClockRecord>,
    /// Whether the system clock is synchronised.
    pub clock_synced: AtomicBool,
    /// Times it was set while the agent ran.
    pub clock_steps: AtomicU64,
    /// Set once when every part has started and the models are open.
    pub ready: AtomicBool,
    /// Set once when the agent is told to stop.
    pub stopping: AtomicBool,
    /// Signs of life of what the agent cannot do without.
    pub stages: Stages,
    /// Called with its name at each sign of life, for tests that make a stage hang.
    pub on_beat: Option<fn(&str)>,
}

/// One camera.
#[derive(Debug)]
pub struct CameraView {
    /// Name.
    pub name: String,
    /// Source, without passwords.
    pub source: String,
    /// Names of the models that watch it, by [`crate::analytics::Origin::watcher`].
    pub models: Vec<String>,
    /// Counters of the capture thread; set when the camera was spawned.
    pub capture: OnceLock<Arc<CameraStats>>,
    /// Restarts the camera; set when it was spawned.
    pub control: OnceLock<CameraControl>,
    /// Sign of life of its thread.
    pub beat: Arc<Beat>,
    /// Frames dropped because inference did not keep up; counted by the mailbox.
    pub overflow: Arc<AtomicU64>,
    /// Windows that were scored.
    pub windows: AtomicU64,
    /// Windows not scored, by model: in the order of `models`.
    pub dropped: Vec<DroppedWindows>,
    /// From the newest frame of a window, in front of the camera, to its scores.
    pub age: DurationHistogram,
    /// However far the device is spared, one window of so many is scored by each of its models at least.
    pub furthest: AtomicU32,
    /// Actions that go on.
    pub active: ArcSwap<Vec<ActiveAction>>,
    /// Events by label.
    pub events: Vec<LabelEvents>,
}

/// Windows of a model at a camera that were not scored.
#[derive(Debug, Default)]
pub struct DroppedWindows {
    /// No frame near enough to a wanted time.
    pub hole: AtomicU64,
    /// The back end failed or gave NaN.
    pub failed: AtomicU64,
    /// The device does not keep up, and a newer window came.
    pub overload: AtomicU64,
    /// The old model had gone before the new one was open.
    pub swap: AtomicU64,
    /// The device is spared.
    pub derated: AtomicU64,
    /// For some time it has scored nothing.
    pub failing: AtomicBool,
}

/// An action that goes on.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ActiveAction {
    /// Label.
    pub label: String,
    /// Unix time of its begin, nanoseconds.
    pub start_unix_ns: i64,
}

/// Events of one label.
#[derive(Debug, Default)]
pub struct LabelEvents {
    /// Label.
    pub label: String,
    /// Messages `started`.
    pub started: AtomicU64,
    /// Messages `updated`.
    pub updated: AtomicU64,
    /// Messages `ended`.
    pub ended: AtomicU64,
}

/// One model.
#[derive(Debug)]
pub struct ModelView {
    /// Name.
    pub name: String,
    /// What was opened; `None` until then.
    pub info: ArcSwapOption<ModelInfo>,
    /// Time of one call of the back end for a batch.
    pub duration: DurationHistogram,
    /// Runs of the backbone, per frame.
    pub backbone_runs: AtomicU64,
    /// Runs of the head, per window.
    pub head_runs: AtomicU64,
    /// Batches.
    pub batches: AtomicU64,
    /// What the model is judged by while it is new in its place.
    pub tally: Tally,
}

/// An opened model.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ModelInfo {
    /// Version of the package.
    pub version: String,
    /// Architecture.
    pub architecture: String,
    /// SHA-256 of the manifest, hex.
    pub sha256: String,
    /// Back end, such as `tract` or `ort`.
    pub backend: String,
    /// Execution provider that really runs it.
    pub provider: String,
    /// Precision in use.
    pub precision: String,
    /// Nodes of the graph by execution provider; none for tract.
    pub nodes: BTreeMap<String, usize>,
    /// Why this back end and precision.
    pub why: String,
}

impl Shared {
    /// A view of an agent that has just started.
    #[must_use]
    pub fn new(group: &str, device: &str, broker: &str, cameras: Vec<CameraView>, models: Vec<String>) -> Self {
        Self {
            device: device.to_owned(),
            group: group.to_owned(),
            instance: format!("{:016x}", fastrand::u64(..)),
            started: Instant::now(),
            cameras: ArcSwap::from_pointee(cameras.into_iter().map(Arc::new).collect()),
            models: ArcSwap::from_pointee(models.into_iter().map(|name| Arc::new(ModelView::new(name))).collect()),
            updates: UpdatesView::default(),
            inference_fault: ArcSwapOption::empty(),
            trial: ArcSwapOption::empty(),
            reloads: ReloadView::default(),
            threads_left: AtomicU64::new(0),
            delivery: DeliveryView { broker: broker.to_owned(), ..DeliveryView::default() },
            store: StoreView::default(),
            heavy: Arc::new(Semaphore::new(1)),
            building: ArcSwapOption::empty(),
            board: ArcSwapOption::empty(),
            derated: ArcSwapOption::empty(),
            commands: Counts::default(),
            clock: ArcSwapOption::empty(),
            clock_synced: AtomicBool::new(false),
            clock_steps: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stages: Stages::default(),
            on_beat: None,
        }
    }

    /// The stage that hangs, if one does. While stopping nothing is judged: stages end one after another.
    #[must_use]
    pub fn stuck(&self, now: Instant) -> Option<Stuck> {
        if self.stopping.load(Relaxed) { None } else { self.stages.stuck(now) }
    }

    /// Whether the agent watches. A camera or broker that is away does not change it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unready().is_none()
    }

    /// Why it does not watch, in one line.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        if self.stopping.load(Relaxed) {
            return Some("stopping".into());
        }
        if !self.ready.load(Relaxed) {
            let models = self.models.load();
            let opening = models.iter().find(|m| m.info.load().is_none());
            return Some(opening.map_or_else(|| "starting".into(), |m| format!("opening model {}", m.name)));
        }
        self.failing().or_else(|| self.unstored())
    }

    /// Why events wait in memory, in one line.
    #[must_use]
    pub fn unstored(&self) -> Option<String> {
        let fault = self.store.fault()?;
        // A store that is back works the events off: until then they wait for nothing but their turn.
        let full =
            if self.store.memory_full.load(Relaxed) { "; memory is full of them, so nothing is watched" } else { "" };
        Some(format!("events cannot be stored: {fault}{full}"))
    }

    /// The models that score nothing, in one line.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        let fails = |camera: &CameraView| {
            let failing = camera.models.iter().zip(&camera.dropped).filter(|(_, d)| d.failing.load(Relaxed));
            failing.map(|(model, _)| format!("model {model} fails at {}", camera.name)).collect::<Vec<_>>()
        };
        let failing: Vec<_> = self.cameras.load().iter().flat_map(|camera| fails(camera)).collect();
        (!failing.is_empty()).then(|| failing.join(", "))
    }

    /// One window of so many is scored, so that the device is spared; 1 is all.
    #[must_use]
    pub fn one_of(&self) -> u32 {
        self.derated.load().as_ref().map_or(1, |derated| derated.one_of)
    }

    /// Cameras whose stream is up.
    #[must_use]
    pub fn cameras_up(&self) -> usize {
        self.cameras.load().iter().filter(|c| c.is_up()).count()
    }
}

impl CameraView {
    /// A camera that has not been spawned. `labels`: what its models publish.
    #[must_use]
    pub fn new(name: &str, source: &str, models: Vec<String>, labels: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            source: source.to_owned(),
            dropped: models.iter().map(|_| DroppedWindows::default()).collect(),
            models,
            capture: OnceLock::new(),
            control: OnceLock::new(),
            beat: Arc::new(Beat::new(format!("capture {name}"), beat::LIMIT, Instant::now())),
            overflow: Arc::default(),
            windows: AtomicU64::new(0),
            age: DurationHistogram::default(),
            furthest: AtomicU32::new(u32::MAX),
            active: ArcSwap::default(),
            events: labels.into_iter().map(|label| LabelEvents { label, ..LabelEvents::default() }).collect(),
        }
    }

    /// The same camera under other models: what its stream has counted goes on.
    #[must_use]
    pub fn with_stream_of(mut self, before: &Self) -> Self {
        self.overflow = Arc::clone(&before.overflow);
        if let Some(capture) = before.capture.get() {
            self.capture = OnceLock::from(Arc::clone(capture));
        }
        if let Some(control) = before.control.get() {
            self.control = OnceLock::from(control.clone());
        }
        self.beat = Arc::clone(&before.beat);
        self
    }

    /// Whether both have the same name, source, models and labels.
    #[must_use]
    pub fn shows_the_same(&self, other: &Self) -> bool {
        let labels = |view: &Self| view.events.iter().map(|event| event.label.clone()).collect::<Vec<_>>();
        (&self.name, &self.source, &self.models) == (&other.name, &other.source, &other.models)
            && labels(self) == labels(other)
    }

    /// How far this camera is spared while the device is; `None` where its minimum leaves it all its windows.
    #[must_use]
    pub fn derated(&self, device: Option<&Derated>) -> Option<Derated> {
        let device = device?;
        let one_of = device.one_of.min(self.furthest.load(Relaxed));
        (one_of > 1).then(|| Derated { one_of, ..device.clone() })
    }

    /// Windows not scored for one reason, over all models.
    #[must_use]
    pub fn windows_dropped(&self, reason: fn(&DroppedWindows) -> &AtomicU64) -> u64 {
        self.dropped.iter().map(|d| reason(d).load(Relaxed)).sum()
    }

    /// Whether frames arrive.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.capture.get().is_some_and(|c| c.state() == CameraState::Up)
    }
}

impl ModelView {
    /// A model that has not been opened.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self {
            name,
            info: ArcSwapOption::empty(),
            duration: DurationHistogram::default(),
            backbone_runs: AtomicU64::new(0),
            head_runs: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            tally: Tally::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_keeps_the_agent_from_watching_is_said_in_a_line() {
        let camera = CameraView::new("front", "test:", vec!["falls".into()], vec![]);
        let shared = Shared::new("g", "d", "b", vec![camera], vec!["falls".into()]);
        assert_eq!(shared.unready().as_deref(), Some("opening model falls"));
        shared.ready.store(true, Relaxed);
        assert!(shared.is_ready());
        shared.cameras.load()[0].dropped[0].failing.store(true, Relaxed);
        assert_eq!(shared.unready().as_deref(), Some("model falls fails at front"));
        shared.cameras.load()[0].dropped[0].failing.store(false, Relaxed);
        let path = std::path::PathBuf::from("/var");
        let error = kinewatch_store::StoreError::DiskFull { path }.to_string();
        let status = kinewatch_core::event::StoreStatus {
            state: kinewatch_core::event::StoreCondition::Full,
            since: String::new(),
            path: "/var".into(),
            error: Some(error.clone()),
            set_aside: None,
            session: 1,
        };
        shared.store.status.store(Some(Arc::new(status)));
        assert_eq!(shared.unready(), Some(format!("events cannot be stored: {error}")));
        shared.store.memory_full.store(true, Relaxed);
        assert!(shared.unready().unwrap().ends_with("; memory is full of them, so nothing is watched"));
        shared.stopping.store(true, Relaxed);
        assert_eq!(shared.unready().as_deref(), Some("stopping"));
    }

    #[test]
    fn a_stage_that_hangs_is_named_unless_the_agent_stops() {
        let shared = Shared::new("g", "d", "b", vec![], vec![]);
        let begun = Instant::now();
        shared.stages.store.touch(begun);
        assert_eq!(shared.stuck(begun + beat::LIMIT), None);
        let stuck = shared.stuck(begun + beat::LIMIT + Duration::from_secs(1)).unwrap();
        assert_eq!((stuck.stage.as_str(), stuck.silence), ("store", Duration::from_secs(21)));
        shared.stopping.store(true, Relaxed);
        assert_eq!(shared.stuck(begun + Duration::from_secs(3600)), None);
    }
}
