//! From frames to decisions: the inference thread's state, driven alike by the daemon and by replay.
//!
//! Owns every model, ring, sampler, cache and temporal decoder; one thread owns all of it, so nothing here is locked.
//! A frame goes into its ring at once and makes requests, which wait for their turn in the [`Scheduler`];
//! [`Analytics::run_next`] makes one call of one model. Gaps travel in the same order as the frames they stand between.
//! Reads no clock but the one it is given, never blocks but in the back end, and makes no heap allocation of its own per
//! frame once warm.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kinewatch_core::decode::{Decision, Decoder, EndReason};
use kinewatch_core::frame::{Frame, FrameMeta};
use kinewatch_core::manifest::{Manifest, Overrides, TimeOfDay};
use kinewatch_core::ring::Ring;
use kinewatch_core::sampling::Continuity;
use kinewatch_core::schedule::{Lane, Load, Scheduler, Ticket};
use kinewatch_core::time::{ClockMap, DelaySource, Pts, SessionId};
use kinewatch_engine::{InferError, Logits, Model, Request};

use crate::layout::every;
pub use crate::layout::{BranchPlan, CameraPlan, LayoutError, branches};
pub use crate::watcher::{FAILING_AFTER_S, ModelTurn};
use crate::watcher::{Sampler, Watcher};

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
    /// Index of the camera.
    pub camera: usize,
    /// Index of the model.
    pub model: usize,
    /// Index of the (camera, model) pair over all cameras: names a decoder.
    pub watcher: usize,
    /// Stream session.
    pub session: SessionId,
    /// Media time to wall clock, for this session.
    pub clock: &'a ClockMap,
}

/// A (camera, model) pair, for whoever names its decisions.
#[derive(Clone, Copy, Debug)]
pub struct WatcherView<'a> {
    /// Index of the camera.
    pub camera: usize,
    /// Index of the model.
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
    /// Windows of a model at a camera were left out, or an online state was zeroed.
    fn windows_dropped(&mut self, camera: usize, model: usize, why: WindowDrop, count: u32);
    /// A model begins or ceases to give nothing but failures at a camera.
    fn model_turned(&mut self, _camera: usize, _model: usize, _turn: ModelTurn) {}
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
}

/// The state of the inference thread.
#[derive(Debug)]
pub struct Analytics {
    models: Vec<LoadedModel>,
    cameras: Vec<Camera>,
    /// Camera and place within it of each watcher, by its id.
    places: Vec<(usize, usize)>,
    schedule: Scheduler<Waiting>,
    running: Vec<Ticket<Waiting>>,
    let_go: Vec<Ticket<Waiting>>,
    left_out: u64,
    /// Emptied, for the requests to come.
    spare: Vec<Vec<Frame>>,
    time: Time,
    requests: Vec<Request<'static>>,
    logits: Logits,
    decisions: Vec<Decision>,
}

#[derive(Debug)]
struct Camera {
    session: SessionId,
    clock: ClockMap,
    /// What the clock of a new session begins as: knowing nothing, or fixed in replay.
    new_clock: ClockMap,
    newest: Option<Pts>,
    branches: Vec<Branch>,
    watchers: Vec<Watcher>,
}

#[derive(Debug)]
struct Branch {
    ring: Option<Ring>,
    /// Watcher (index within the camera) of each sampler bit.
    watchers: Vec<usize>,
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
    /// Lays out decoders, rings and model streams for the cameras.
    ///
    /// # Errors
    /// Decoder settings or zones of the configuration do not fit a package.
    pub fn new(mut models: Vec<LoadedModel>, plans: &[CameraPlan]) -> Result<Self, LayoutError> {
        let manifests: Vec<_> = models.iter().map(|m| Arc::clone(&m.manifest)).collect();
        let mut places = Vec::new();
        let mut lanes = Vec::new();
        let mut cameras = Vec::with_capacity(plans.len());
        for plan in plans {
            let mut camera = Camera {
                session: SessionId::default(),
                clock: ClockMap::new(),
                new_clock: ClockMap::new(),
                newest: None,
                branches: Vec::new(),
                watchers: Vec::new(),
            };
            for branch in branches(&manifests, plan) {
                let mut watchers = Vec::with_capacity(branch.models.len());
                for (bit, &model) in (0u32..).zip(&branch.models) {
                    let (id, place) = (places.len(), camera.watchers.len());
                    watchers.push(place);
                    camera.watchers.push(Watcher::new(id, bit, model, &mut models[model], plan)?);
                    places.push((cameras.len(), place));
                    lanes.push(Lane { camera: cameras.len(), model, every: every(&manifests[model]) });
                }
                let bytes = branch.ring_frames * branch.spec.bytes();
                let ring = (branch.ring_frames > 0).then(|| Ring::new(branch.ring_ns, bytes, branch.ring_frames));
                camera.branches.push(Branch { ring, watchers });
            }
            cameras.push(camera);
        }
        let batches: Vec<_> = models.iter().map(|m| m.model.report().batch).collect();
        Ok(Self {
            models,
            cameras,
            places,
            schedule: Scheduler::new(&lanes, &batches),
            running: Vec::new(),
            let_go: Vec::new(),
            left_out: 0,
            spare: Vec::new(),
            time: Time(Box::new(|| Duration::ZERO)),
            requests: Vec::new(),
            logits: Logits::default(),
            decisions: Vec::new(),
        })
    }

    /// The (camera, model) pairs, by [`Origin::watcher`].
    pub fn watchers(&self) -> impl Iterator<Item = WatcherView<'_>> {
        self.cameras.iter().enumerate().flat_map(|(camera, c)| {
            c.watchers.iter().map(move |w| WatcherView { camera, model: w.model, decoder: &w.decoder })
        })
    }

    /// The opened models.
    #[must_use]
    pub fn models(&self) -> &[LoadedModel] {
        &self.models
    }

    /// The opened models back, to be laid out anew.
    #[must_use]
    pub fn into_models(self) -> Vec<LoadedModel> {
        self.models
    }

    /// The clock that each session of every camera begins with: replay has a fixed one.
    #[must_use]
    pub fn with_clock(mut self, clock: &ClockMap) -> Self {
        for camera in &mut self.cameras {
            camera.new_clock = clock.clone();
        }
        self
    }

    /// Where the delay of a camera's frames is taken from.
    #[must_use]
    pub fn delay_source(&self, camera: usize) -> DelaySource {
        self.cameras.get(camera).map_or(DelaySource::Assumed, |camera| camera.clock.delay_source())
    }

    /// What tells the time since the thread began: without it the time stands still, so that replay cannot depend on the
    /// machine, and the device always keeps up.
    #[must_use]
    pub fn with_time(mut self, time: impl Fn() -> Duration + Send + 'static) -> Self {
        self.time = Time(Box::new(time));
        self
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

    /// To be told when what waits was held for company.
    pub fn pause(&mut self) {
        self.schedule.pause((self.time.0)());
    }

    /// To be told when nothing waits and every frame has been taken in: the device has kept up.
    pub fn rest(&mut self) {
        self.schedule.rest();
    }

    /// Takes in a sampled frame, and makes the requests that it makes due wait for their turn. A window that cannot be
    /// filled is reported and left out.
    pub fn frame(&mut self, camera_index: usize, branch_index: usize, frame: Frame, sink: &mut impl Sink) {
        let meta = *frame.meta();
        let camera = &mut self.cameras[camera_index];
        camera.observe(&meta);
        let branch = &mut camera.branches[branch_index];
        if let Some(ring) = &mut branch.ring {
            ring.push(Arc::clone(&frame));
        }
        for (bit, &index) in branch.watchers.iter().enumerate() {
            if meta.wanted & (1 << bit) == 0 {
                continue;
            }
            let watcher = &mut camera.watchers[index];
            let mut frames = self.spare.pop().unwrap_or_default();
            let due = match &mut watcher.sampler {
                Sampler::Frames(_) => {
                    frames.push(Arc::clone(&frame));
                    true
                }
                Sampler::Windows(windower) => match (windower.push(meta.pts), &branch.ring) {
                    (Some(request), Some(ring)) => {
                        let whole = windower.gather(ring, &request, &mut frames).is_ok();
                        let dropped = request.skipped + u32::from(!whole);
                        if dropped > 0 {
                            sink.windows_dropped(camera_index, watcher.model, WindowDrop::Hole, dropped);
                        }
                        whole
                    }
                    _ => false,
                },
            };
            let waiting = Waiting { at: meta.pts, frames };
            if !due {
                give_back(&mut self.spare, waiting);
            } else if let Some(gone) = self.schedule.offer(watcher.id, waiting, (self.time.0)()) {
                self.let_go.push(Ticket { lane: watcher.id, request: gone });
            }
        }
        self.note_let_go(sink);
    }

    /// Makes one call of one model, for those whose turn it is, and steps their decoders. A hole since the frame before
    /// zeroes an online state first. Does nothing when nothing waits.
    ///
    /// # Errors
    /// The model failed. The windows concerned are counted as dropped.
    pub fn run_next(&mut self, sink: &mut impl Sink) -> Result<(), InferError> {
        let begun = (self.time.0)();
        self.schedule.next(begun, &mut self.running, &mut self.let_go);
        self.note_let_go(sink);
        self.run(begun, sink)
    }

    /// Makes calls until nothing waits.
    ///
    /// # Errors
    /// The first failure; everything else has run.
    pub fn run_all(&mut self, sink: &mut impl Sink) -> Result<(), InferError> {
        let mut result = Ok(());
        while self.waiting() > 0 {
            result = result.and(self.run_next(sink));
        }
        self.rest();
        result
    }

    fn run(&mut self, begun: Duration, sink: &mut impl Sink) -> Result<(), InferError> {
        let Some(first) = self.running.first() else { return Ok(()) };
        let (camera, place) = self.places[first.lane];
        let model = self.cameras[camera].watchers[place].model;
        self.zero_after_holes(model, sink);
        let mut requests = recycle(std::mem::take(&mut self.requests));
        for ticket in &self.running {
            let (camera, place) = self.places[ticket.lane];
            let stream = self.cameras[camera].watchers[place].stream;
            requests.push(Request { stream, frames: &ticket.request.frames });
        }
        let count = requests.len();
        let result = self.models[model].model.infer(&requests, &mut self.logits);
        self.requests = recycle(requests);
        let took = (self.time.0)().saturating_sub(begun);
        self.schedule.done(took);
        sink.inferred(model, count, took);
        self.decide(model, sink);
        result
    }

    /// A state carried over a hole would speak of another moment. Judged when a frame runs, since those that were let go
    /// are holes too.
    fn zero_after_holes(&mut self, model: usize, sink: &mut impl Sink) {
        for ticket in &self.running {
            let (camera, place) = self.places[ticket.lane];
            let watcher = &mut self.cameras[camera].watchers[place];
            if let Sampler::Frames(holes) = &mut watcher.sampler
                && let Continuity::Hole(_) = holes.offer(ticket.request.at)
            {
                self.models[model].model.reset(watcher.stream);
                sink.windows_dropped(camera, model, WindowDrop::Hole, 1);
            }
        }
    }

    /// Steps the decoders of the call that has run.
    fn decide(&mut self, model: usize, sink: &mut impl Sink) {
        let mut running = std::mem::take(&mut self.running);
        for (row, ticket) in running.drain(..).enumerate() {
            let (camera_index, place) = self.places[ticket.lane];
            let at = ticket.request.at;
            give_back(&mut self.spare, ticket.request);
            let valid = self.logits.is_valid(row);
            let turn = self.cameras[camera_index].watchers[place].failures.note(at, valid);
            if let Some(turn) = turn {
                sink.model_turned(camera_index, model, turn);
            }
            if turn == Some(ModelTurn::Fails) {
                // Nobody sees any more whether what is open goes on.
                self.interrupt((camera_index, place), at, EndReason::StreamLost, sink);
            }
            if !valid {
                sink.windows_dropped(camera_index, model, WindowDrop::Failed, 1);
                continue;
            }
            let camera = &mut self.cameras[camera_index];
            let watcher = &mut camera.watchers[place];
            if watcher.decoder.is_scheduled() {
                watcher.decoder.at_time(sink.time_of_day());
            }
            watcher.decoder.step(at, self.logits.row(row), &mut self.decisions);
            let (origin, decoder) = (camera.origin(camera_index, place), &camera.watchers[place].decoder);
            sink.scores(origin, at, decoder.scores(), decoder.score_labels());
            self.decisions.drain(..).for_each(|decision| sink.decision(origin, &decision));
        }
        self.running = running;
    }

    /// Closes what is open of a model at a camera, with `reason`, and forgets what has been seen.
    fn interrupt(&mut self, (camera_index, place): (usize, usize), at: Pts, reason: EndReason, sink: &mut impl Sink) {
        let camera = &mut self.cameras[camera_index];
        let watcher = &mut camera.watchers[place];
        watcher.decoder.gap(at, reason, &mut self.decisions);
        self.models[watcher.model].model.reset(watcher.stream);
        let origin = camera.origin(camera_index, place);
        self.decisions.drain(..).for_each(|decision| sink.decision(origin, &decision));
    }

    fn note_let_go(&mut self, sink: &mut impl Sink) {
        for ticket in self.let_go.drain(..) {
            let (camera, place) = self.places[ticket.lane];
            sink.windows_dropped(camera, self.cameras[camera].watchers[place].model, WindowDrop::Overload, 1);
            self.left_out += 1;
            give_back(&mut self.spare, ticket.request);
        }
    }

    /// A stream ended or broke: what waits of the camera runs first (under overload it is let go), then every open action
    /// of the camera is closed with `reason` and all its temporal state is forgotten.
    ///
    /// # Errors
    /// The first failure of a model; the gap has been applied all the same.
    pub fn gap(&mut self, camera_index: usize, reason: EndReason, sink: &mut impl Sink) -> Result<(), InferError> {
        let mut result = Ok(());
        loop {
            let begun = (self.time.0)();
            self.schedule.next_of(camera_index, begun, &mut self.running, &mut self.let_go);
            if self.running.is_empty() {
                break;
            }
            result = result.and(self.run(begun, sink));
        }
        self.schedule.clear(camera_index, &mut self.let_go);
        self.note_let_go(sink);
        let at = self.cameras[camera_index].newest.unwrap_or(Pts::ZERO);
        for place in 0..self.cameras[camera_index].watchers.len() {
            self.interrupt((camera_index, place), at, reason, sink);
            let watcher = &mut self.cameras[camera_index].watchers[place];
            watcher.sampler.clear();
            watcher.failures.interrupt();
        }
        let camera = &mut self.cameras[camera_index];
        camera.branches.iter_mut().filter_map(|b| b.ring.as_mut()).for_each(Ring::clear);
        camera.newest = None;
        result
    }
}

impl Camera {
    fn origin(&self, camera: usize, place: usize) -> Origin<'_> {
        let watcher = &self.watchers[place];
        Origin { camera, model: watcher.model, watcher: watcher.id, session: self.session, clock: &self.clock }
    }

    fn observe(&mut self, meta: &FrameMeta) {
        if meta.session != self.session {
            self.session = meta.session;
            self.clock = self.new_clock.clone();
            self.newest = None;
        }
        // A frame comes once for each branch, and is one piece of evidence.
        let known = self.newest == Some(meta.pts);
        if let Some(arrival) = meta.arrival.filter(|_| !known) {
            self.clock.observe(meta.pts, arrival);
        }
        self.newest = Some(meta.pts);
    }
}

/// Lets the frames go and keeps their list for another request.
fn give_back(spare: &mut Vec<Vec<Frame>>, mut waiting: Waiting) {
    waiting.frames.clear();
    spare.push(waiting.frames);
}

/// The same allocation for requests of another lifetime: an emptied vector collects in place.
fn recycle<'b>(mut requests: Vec<Request<'_>>) -> Vec<Request<'b>> {
    requests.clear();
    requests.into_iter().map(|_| unreachable!("the vector was emptied")).collect()
}
