//! From frames to decisions: the inference thread's state, driven alike by the daemon and by replay.
//!
//! Owns every model, ring, sampler, cache and temporal decoder; one thread owns all of it, so nothing here is locked.
//! A frame goes into its ring at once and makes requests, which wait for their turn in the [`Scheduler`];
//! [`Analytics::run_next`] makes one call of one model. Gaps travel in the same order as the frames they stand between,
//! and so do cameras and models that come and go: each has a *slot*, an index that serves the next one once it is free,
//! so that a frame finds its camera without a search.
//! Reads no clock but the one it is given, never blocks but in the back end, and makes no heap allocation of its own per
//! frame once warm.
//!
//! `frames`: a frame is taken in. `calls`: a model is called, and decoders step. `slots`: who comes and goes. `exchange`: a
//! model takes the place of another. `trial`: a candidate beside the model that it may replace. `camera`: what belongs to
//! one camera. `watcher`: what belongs to one model at it.

mod calls;
mod camera;
mod exchange;
mod frames;
mod slots;
mod trial;
mod watcher;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kinewatch_core::decode::{Decision, Decoder};
use kinewatch_core::frame::Frame;
use kinewatch_core::manifest::{Manifest, Overrides, TimeOfDay};
use kinewatch_core::schedule::{Load, Scheduler, Ticket};
use kinewatch_core::time::{ClockMap, DelaySource, Pts, SessionId};
use kinewatch_engine::{InferError, Logits, Model, Request};

use self::camera::Camera;
pub use self::camera::NewCamera;
pub use self::exchange::{Successor, exchangeable};
use self::trial::Trial;
pub use self::trial::Tried;
pub use self::watcher::{FAILING_AFTER_S, ModelTurn};
pub use crate::layout::{BranchPlan, CameraPlan, LayoutError, branches};

/// An opened model with what its decoders need.
#[derive(Debug)]
pub struct LoadedModel {
    /// Name in the configuration.
    pub name: String,
    /// Its contract.
    pub manifest: Arc<Manifest>,
    /// Decoder settings of the configuration that replace the package's.
    pub overrides: Overrides,
    /// The opened back end.
    pub model: Model,
}

/// What a decision or a row of scores belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Slot of the camera.
    pub camera: usize,
    /// Slot of the model.
    pub model: usize,
    /// Index of the model among those that watch the camera, in the order of [`NewCamera::decoders`]: names a decoder.
    pub watcher: usize,
    /// Stream session.
    pub session: SessionId,
    /// Media time to wall clock, for this session.
    pub clock: &'a ClockMap,
}

/// A (camera, model) pair, for whoever names its decisions.
#[derive(Clone, Copy, Debug)]
pub struct WatcherView<'a> {
    /// Slot of the camera.
    pub camera: usize,
    /// As [`Origin::watcher`].
    pub index: usize,
    /// Slot of the model.
    pub model: usize,
    /// Its decoder.
    pub decoder: &'a Decoder,
}

/// Receives what analytics finds: the daemon's delivery, or replay's files and table.
pub trait Sink {
    /// An action was opened, revised or closed.
    fn decision(&mut self, origin: Origin<'_>, decision: &Decision);
    /// Scores at `at` (logit of the calibrated probability), one per label of `labels`.
    fn scores(&mut self, origin: Origin<'_>, at: Pts, scores: &[f32], labels: &[String]);
    /// A batch ran: frames or windows in it, and how long it took.
    fn inferred(&mut self, model: usize, requests: usize, took: Duration);
    /// A frame was taken in, and all that it made due was inferred and decided, in so much time.
    fn stepped(&mut self, _took: Duration) {}
    /// What came of the requests of the last call: how many were answered, on how many the back end failed, and how many
    /// gave a number that is not finite.
    fn answered(&mut self, _model: usize, _valid: usize, _failed: usize, _not_finite: usize) {}
    /// A candidate that is tried beside a model was called.
    fn tried(&mut self, _model: usize, _tried: &Tried, _error: Option<&InferError>) {}
    /// Windows of a model at a camera ([`Origin::watcher`]) were left out, or an online state was zeroed.
    fn windows_dropped(&mut self, camera: usize, watcher: usize, why: WindowDrop, count: u32);
    /// A model ([`Origin::watcher`]) begins or ceases to score nothing at a camera.
    fn model_turned(&mut self, _camera: usize, _watcher: usize, _turn: ModelTurn) {}
    /// For thresholds that depend on it; `None` where it has no meaning.
    fn time_of_day(&self) -> Option<TimeOfDay> {
        None
    }
}

/// Why a window never reached the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowDrop {
    /// No frame near enough to a wanted time.
    Hole,
    /// The model failed on it.
    Failed,
    /// The device does not keep up, and a newer one came.
    Overload,
    /// The old model had to go before the new one could be opened.
    Swap,
    /// The device is spared.
    Derated,
}

/// The state of the inference thread.
#[derive(Debug)]
pub struct Analytics {
    /// By slot.
    models: Vec<Option<LoadedModel>>,
    /// Contracts of models that were taken out of their slots for a while, although they are watched with.
    withdrawn: Vec<(usize, Arc<Manifest>)>,
    /// A candidate.
    trial: Option<Trial>,
    /// By slot; one that is free has no branches and no watchers.
    cameras: Vec<Camera>,
    /// Camera and watcher of each lane of the schedule.
    places: Vec<(usize, usize)>,
    schedule: Scheduler<Waiting>,
    running: Vec<Ticket<Waiting>>,
    let_go: Vec<Ticket<Waiting>>,
    left_out: u64,
    /// Watchers of a camera whose window has a hole.
    holed: Vec<usize>,
    /// One request of so many is run.
    one_of: u32,
    /// Emptied, for the requests to come.
    spare: Vec<Vec<Frame>>,
    /// What the clock of a new session begins as: knowing nothing, or fixed in replay.
    new_clock: ClockMap,
    time: Time,
    requests: Vec<Request<'static>>,
    logits: Logits,
    decisions: Vec<Decision>,
}

/// A request that waits for its turn: the frames of a window, or the next frame of an online model.
#[derive(Debug)]
struct Waiting {
    at: Pts,
    frames: Vec<Frame>,
}

/// Tells the time since the thread began.
struct Time(Box<dyn Fn() -> Duration + Send>);

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl Analytics {
    /// No model and no camera.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            models: Vec::new(),
            withdrawn: Vec::new(),
            trial: None,
            cameras: Vec::new(),
            places: Vec::new(),
            schedule: Scheduler::new(&[], &[]),
            running: Vec::new(),
            let_go: Vec::new(),
            left_out: 0,
            holed: Vec::new(),
            one_of: 1,
            spare: Vec::new(),
            new_clock: ClockMap::new(),
            time: Time(Box::new(|| Duration::ZERO)),
            requests: Vec::new(),
            logits: Logits::default(),
            decisions: Vec::new(),
        }
    }

    /// Models and cameras in the slots of their indices.
    ///
    /// # Errors
    /// Decoder settings or zones of the configuration do not fit a package.
    pub fn new(models: Vec<LoadedModel>, plans: &[CameraPlan]) -> Result<Self, LayoutError> {
        let contract = |slot: usize| models.get(slot).map(|model| (&*model.manifest, &model.overrides));
        let cameras: Result<Vec<_>, _> = plans.iter().map(|plan| NewCamera::lay_out(plan, contract)).collect();
        let cameras = cameras?;
        let mut analytics = Self::empty();
        models.into_iter().enumerate().for_each(|(slot, model)| analytics.add_model(slot, model));
        cameras.into_iter().enumerate().for_each(|(slot, camera)| analytics.seat(slot, camera));
        Ok(analytics)
    }

    /// The clock that each session of every camera begins with: replay has a fixed one.
    #[must_use]
    pub fn with_clock(mut self, clock: &ClockMap) -> Self {
        self.new_clock = clock.clone();
        self
    }

    /// What tells the time since the thread began: without it the time stands still, so that replay cannot depend on the
    /// machine, and the device always keeps up.
    #[must_use]
    pub fn with_time(mut self, time: impl Fn() -> Duration + Send + 'static) -> Self {
        self.time = Time(Box::new(time));
        self
    }

    /// The (camera, model) pairs, camera by camera.
    pub fn watchers(&self) -> impl Iterator<Item = WatcherView<'_>> {
        self.cameras.iter().enumerate().flat_map(|(camera, c)| {
            let watchers = c.watchers.iter().enumerate();
            watchers.map(move |(index, w)| WatcherView { camera, index, model: w.model, decoder: &w.decoder })
        })
    }

    /// The opened models with their slots.
    pub fn models(&self) -> impl Iterator<Item = (usize, &LoadedModel)> {
        self.models.iter().enumerate().filter_map(|(slot, model)| Some((slot, model.as_ref()?)))
    }

    /// The opened models back, to be laid out anew.
    #[must_use]
    pub fn into_models(self) -> Vec<LoadedModel> {
        self.models.into_iter().flatten().collect()
    }

    /// Where the delay of a camera's frames is taken from.
    #[must_use]
    pub fn delay_source(&self, camera: usize) -> DelaySource {
        self.cameras.get(camera).map_or(DelaySource::Assumed, |camera| camera.stream.clock.delay_source())
    }

    /// Requests that wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.schedule.waiting()
    }

    /// How long the first of them has waited.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        self.schedule.longest_wait((self.time.0)())
    }

    /// Whether the device keeps up.
    #[must_use]
    pub fn load(&self) -> Load {
        self.schedule.load()
    }

    /// Device time that is asked for, per time.
    #[must_use]
    pub fn demand(&self) -> f64 {
        self.schedule.demand()
    }

    /// Windows let go so far because the device did not keep up.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// From here on one request of so many is run, evenly and never below a lane's minimum, so that the device is spared;
    /// 1 is all.
    pub fn spare(&mut self, one_of: u32) {
        self.one_of = one_of.max(1);
    }

    /// To be told when what waits was held for company.
    pub fn pause(&mut self) {
        self.schedule.pause((self.time.0)());
    }

    /// To be told when nothing waits and every frame has been taken in: the device has kept up.
    pub fn rest(&mut self) {
        self.schedule.rest();
    }
}

/// Lets the frames go and keeps their list for another request.
fn give_back(spare: &mut Vec<Vec<Frame>>, mut waiting: Waiting) {
    waiting.frames.clear();
    spare.push(waiting.frames);
}
