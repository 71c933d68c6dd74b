//! What the agent knows of itself, for whoever looks: metrics, the status page, systemd, camera states on MQTT.
//!
//! Written by the threads that do the work, with relaxed atomics and swapped pointers; read at any time by any thread.
//! Never locks on the path of a frame, and never holds a secret: sources are stored redacted.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use kinewatch_capture::{CameraState, CameraStats};
use kinewatch_core::event::ClockRecord;

use crate::commands::Counts;

/// Upper bounds of the inference duration histogram, seconds.
pub const DURATION_BOUNDS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// Everything that can be seen of a running agent.
#[derive(Debug)]
pub struct Shared {
    /// Device name.
    pub device: String,
    /// Device group.
    pub group: String,
    /// When the process started.
    pub started: Instant,
    /// Cameras, in the order of the configuration.
    pub cameras: Vec<CameraView>,
    /// Models, in the order of the configuration.
    pub models: Vec<ModelView>,
    /// Outbox and broker.
    pub delivery: DeliveryView,
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
    /// Monotonic milliseconds since `started` of the last progress of the inference thread.
    pub inference_beat_ms: AtomicU64,
    /// The same of the store thread.
    pub store_beat_ms: AtomicU64,
}

/// One camera.
#[derive(Debug)]
pub struct CameraView {
    /// Name.
    pub name: String,
    /// Source, without passwords.
    pub source: String,
    /// Names of the models that watch it.
    pub models: Vec<String>,
    /// Counters of the capture thread; set when the camera was spawned.
    pub capture: OnceLock<Arc<CameraStats>>,
    /// Frames dropped because inference did not keep up.
    pub overflow: AtomicU64,
    /// Windows that were scored.
    pub windows: AtomicU64,
    /// Windows not scored, by model: in the order of `models`.
    pub dropped: Vec<DroppedWindows>,
    /// From the newest frame of a window, in front of the camera, to its scores.
    pub age: DurationHistogram,
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
    /// Why this back end and precision.
    pub why: String,
}

/// Outbox and broker.
#[derive(Debug, Default)]
pub struct DeliveryView {
    /// Broker, without user or password.
    pub broker: String,
    /// A connection stands.
    pub connected: AtomicBool,
    /// Protocol of the connection.
    pub protocol: ArcSwapOption<String>,
    /// Why there is no connection.
    pub last_error: ArcSwapOption<String>,
    /// Connections made.
    pub connections: AtomicU64,
    /// Events acknowledged by the broker.
    pub acked: AtomicU64,
    /// Events that the broker refused for good.
    pub refused: AtomicU64,
    /// Times that the broker put an event off.
    pub deferred: AtomicU64,
    /// Events in the outbox.
    pub outbox_messages: AtomicU64,
    /// Bytes of them.
    pub outbox_bytes: AtomicU64,
    /// Unix time of the oldest, nanoseconds; 0 when the outbox is empty.
    pub outbox_oldest_unix_ns: AtomicI64,
    /// Events put aside because the broker refuses them.
    pub outbox_parked: AtomicU64,
    /// Events dropped to keep within the quota, each stated in a `sys/gap`.
    pub outbox_dropped: AtomicU64,
    /// Writes to the store that failed.
    pub store_errors: AtomicU64,
    /// Decisions lost because the store could not take them.
    pub decisions_lost: AtomicU64,
}

impl Shared {
    /// A view of an agent that has just started.
    #[must_use]
    pub fn new(group: &str, device: &str, broker: &str, cameras: Vec<CameraView>, models: Vec<String>) -> Self {
        Self {
            device: device.to_owned(),
            group: group.to_owned(),
            started: Instant::now(),
            cameras,
            models: models.into_iter().map(ModelView::new).collect(),
            delivery: DeliveryView { broker: broker.to_owned(), ..DeliveryView::default() },
            commands: Counts::default(),
            clock: ArcSwapOption::empty(),
            clock_synced: AtomicBool::new(false),
            clock_steps: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            inference_beat_ms: AtomicU64::new(0),
            store_beat_ms: AtomicU64::new(0),
        }
    }

    /// Notes progress on one of the beats.
    pub fn beat(&self, beat: &AtomicU64) {
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        beat.store(since, Relaxed);
    }

    /// Time since the last progress noted on a beat.
    #[must_use]
    pub fn silence(&self, beat: &AtomicU64) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(beat.load(Relaxed)))
    }

    /// Whether inference and store made progress within `limit`.
    #[must_use]
    pub fn is_alive(&self, limit: Duration) -> bool {
        !self.ready.load(Relaxed)
            || (self.silence(&self.inference_beat_ms) < limit && self.silence(&self.store_beat_ms) < limit)
    }

    /// Whether the agent watches: started and not stopping. A camera or broker that is away does not change it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed) && !self.stopping.load(Relaxed)
    }

    /// Cameras whose stream is up.
    #[must_use]
    pub fn cameras_up(&self) -> usize {
        self.cameras.iter().filter(|c| c.is_up()).count()
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
            overflow: AtomicU64::new(0),
            windows: AtomicU64::new(0),
            age: DurationHistogram::default(),
            active: ArcSwap::default(),
            events: labels.into_iter().map(|label| LabelEvents { label, ..LabelEvents::default() }).collect(),
        }
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
    fn new(name: String) -> Self {
        Self {
            name,
            info: ArcSwapOption::empty(),
            duration: DurationHistogram::default(),
            backbone_runs: AtomicU64::new(0),
            head_runs: AtomicU64::new(0),
            batches: AtomicU64::new(0),
        }
    }
}

/// Counts of durations by [`DURATION_BOUNDS`], without a lock.
#[derive(Debug, Default)]
pub struct DurationHistogram {
    /// One more than the bounds: the last counts what lies above.
    buckets: [AtomicU64; DURATION_BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl DurationHistogram {
    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = DURATION_BOUNDS.iter().position(|b| seconds <= *b).unwrap_or(DURATION_BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Sum in seconds, count, and the count of each bucket with its upper bound.
    #[must_use]
    pub fn read(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let bounds = DURATION_BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.buckets.iter().map(|b| b.load(Relaxed))).collect();
        let count = buckets.iter().map(|b| b.1).sum();
        (self.sum_ns.load(Relaxed) as f64 / 1e9, count, buckets)
    }
}

/// Seconds since a Unix time; `None` when it is 0 or lies ahead.
#[must_use]
pub fn age_s(unix_ns: i64) -> Option<f64> {
    let then = UNIX_EPOCH + Duration::from_nanos(u64::try_from(unix_ns).ok().filter(|ns| *ns > 0)?);
    SystemTime::now().duration_since(then).ok().map(|d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_that_holds_them() {
        let h = DurationHistogram::default();
        for ms in [1, 4, 4, 9_000] {
            h.observe(Duration::from_millis(ms));
        }
        let (sum, count, buckets) = h.read();
        assert_eq!((count, buckets[0].1, buckets[2].1, buckets[14].1), (4, 1, 2, 1));
        assert!((sum - 9.009).abs() < 1e-9);
    }

    #[test]
    fn silence_is_a_fault_only_once_ready() {
        let shared = Shared::new("g", "d", "b", vec![], vec![]);
        assert!(shared.is_alive(Duration::ZERO), "still opening models");
        shared.ready.store(true, Relaxed);
        assert!(!shared.is_alive(Duration::ZERO));
        shared.beat(&shared.inference_beat_ms);
        shared.beat(&shared.store_beat_ms);
        assert!(shared.is_alive(Duration::from_secs(60)) && shared.is_ready());
    }
}
