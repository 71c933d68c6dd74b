//! From frames to decisions: the inference thread's state, driven alike by the daemon and by replay.
//!
//! Owns every model, ring, sampler, cache and temporal decoder; one thread owns all of it, so nothing here is locked.
//! Frames are staged as they come; [`Analytics::run_staged`] makes one batch per model of them. Gaps travel in the same
//! order as the frames they stand between. Never reads a clock, never blocks but in the back end, and makes no heap
//! allocation of its own per frame once warm.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kinewatch_core::decode::{Decision, Decoder, EndReason};
use kinewatch_core::frame::{Frame, FrameMeta, FrameSpec};
use kinewatch_core::manifest::{Manifest, ManifestError, Overrides, Plan};
use kinewatch_core::region::Region;
use kinewatch_core::ring::Ring;
use kinewatch_core::sampling::{Continuity, HoleDetector, WindowPlan, Windower};
use kinewatch_core::time::{ClockMap, DelaySource, Pts, SessionId};
use kinewatch_engine::{InferError, Logits, Model, Request, Stream};

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

/// One camera and the models that watch it.
#[derive(Clone, Debug)]
pub struct CameraPlan {
    /// Name.
    pub name: String,
    /// Indices of models, each at most once.
    pub models: Vec<usize>,
    /// Boxes of those models that take any.
    pub zones: Vec<Region>,
}

/// Models and cameras do not fit each other.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Decoder settings of the configuration do not fit a package.
    #[error(transparent)]
    Decoder(#[from] ManifestError),
    /// A camera has more zones than a model takes.
    #[error("camera {camera}: {source}")]
    Zones {
        /// Name.
        camera: String,
        /// Which model, and how many it takes.
        source: InferError,
    },
}

/// A branch of a camera's pipeline: one frame format, and the models that read it in the order of their samplers.
#[derive(Clone, Debug, PartialEq)]
pub struct BranchPlan {
    /// Frame format.
    pub spec: FrameSpec,
    /// Indices of models; sampler `i` of the branch belongs to `models[i]`.
    pub models: Vec<usize>,
    /// Sampling rates of those models, frames a second.
    pub rates_hz: Vec<f64>,
    /// Frames that the branch's ring holds; 0 when its models read frame by frame.
    pub ring_frames: usize,
    /// Media time that the ring reaches back, nanoseconds.
    pub ring_ns: i64,
}

/// Groups the models of a camera by the frames that they read.
#[must_use]
pub fn branches(models: &[Arc<Manifest>], camera: &CameraPlan) -> Vec<BranchPlan> {
    let mut branches: Vec<BranchPlan> = Vec::new();
    for &index in &camera.models {
        let manifest = &models[index];
        let spec = manifest.input.spec;
        let at = branches.iter().position(|b| b.spec == spec).unwrap_or_else(|| {
            branches.push(BranchPlan { spec, models: Vec::new(), rates_hz: Vec::new(), ring_frames: 0, ring_ns: 0 });
            branches.len() - 1
        });
        branches[at].models.push(index);
        branches[at].rates_hz.push(manifest.sampling.rate_hz);
        if manifest.plan != Plan::Online {
            branches[at].ring_ns = branches[at].ring_ns.max(WindowPlan::new(&manifest.sampling).history_ns());
        }
    }
    for branch in &mut branches {
        // Frames of every sampler of the branch lie in its ring.
        let per_second: f64 = branch.rates_hz.iter().sum();
        branch.ring_frames = (branch.ring_ns as f64 / 1e9 * per_second).ceil() as usize;
    }
    branches
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
    /// Windows of a camera were left out, or an online state was zeroed.
    fn windows_dropped(&mut self, camera: usize, why: WindowDrop, count: u32);
}

/// Why a window never reached the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowDrop {
    /// No frame near enough to a wanted time.
    Hole,
    /// The model failed on it.
    Failed,
}

/// The state of the inference thread.
#[derive(Debug)]
pub struct Analytics {
    models: Vec<LoadedModel>,
    cameras: Vec<Camera>,
    staged: Vec<Staged>,
    frames: Vec<Frame>,
    window: Vec<Frame>,
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

/// A model at a camera.
#[derive(Debug)]
struct Watcher {
    id: usize,
    model: usize,
    stream: Stream,
    sampler: Sampler,
    decoder: Decoder,
}

#[derive(Debug)]
enum Sampler {
    /// Every sampled frame is a request.
    Frames(HoleDetector),
    /// Windows over the branch's ring.
    Windows(Windower),
}

/// A request waiting for its batch.
#[derive(Debug)]
struct Staged {
    camera: usize,
    watcher: usize,
    model: usize,
    frames: Range<usize>,
    at: Pts,
}

impl Analytics {
    /// Lays out decoders, rings and model streams for the cameras.
    ///
    /// # Errors
    /// Decoder settings or zones of the configuration do not fit a package.
    pub fn new(mut models: Vec<LoadedModel>, plans: &[CameraPlan]) -> Result<Self, LayoutError> {
        let manifests: Vec<_> = models.iter().map(|m| Arc::clone(&m.manifest)).collect();
        let mut id = 0;
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
                    watchers.push(camera.watchers.len());
                    camera.watchers.push(Watcher::new(id, bit, model, &mut models[model], plan)?);
                    id += 1;
                }
                let bytes = branch.ring_frames * branch.spec.bytes();
                let ring = (branch.ring_frames > 0).then(|| Ring::new(branch.ring_ns, bytes, branch.ring_frames));
                camera.branches.push(Branch { ring, watchers });
            }
            cameras.push(camera);
        }
        Ok(Self {
            models,
            cameras,
            staged: Vec::new(),
            frames: Vec::new(),
            window: Vec::new(),
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

    /// Requests that wait for their batch.
    #[must_use]
    pub fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Takes in a sampled frame and stages what it makes due. A window that cannot be filled is reported and left out; a
    /// hole in an online stream zeroes its state.
    ///
    /// # Errors
    /// As [`Analytics::run_staged`], which runs first when this camera has something staged: a hole must not zero the
    /// state under an earlier frame.
    pub fn frame(
        &mut self,
        camera_index: usize,
        branch_index: usize,
        frame: Frame,
        sink: &mut impl Sink,
    ) -> Result<(), InferError> {
        let meta = *frame.meta();
        let earlier = self.staged.iter().any(|s| s.camera == camera_index);
        let result = if earlier { self.run_staged(sink) } else { Ok(()) };
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
            let first = self.frames.len();
            match &mut watcher.sampler {
                Sampler::Frames(holes) => {
                    if let Continuity::Hole(_) = holes.offer(meta.pts) {
                        self.models[watcher.model].model.reset(watcher.stream);
                        sink.windows_dropped(camera_index, WindowDrop::Hole, 1);
                    }
                    self.frames.push(Arc::clone(&frame));
                }
                Sampler::Windows(windower) => {
                    let (Some(request), Some(ring)) = (windower.push(meta.pts), &branch.ring) else { continue };
                    let whole = windower.gather(ring, &request, &mut self.window).is_ok();
                    let dropped = request.skipped + u32::from(!whole);
                    if dropped > 0 {
                        sink.windows_dropped(camera_index, WindowDrop::Hole, dropped);
                    }
                    if !whole {
                        continue;
                    }
                    self.frames.append(&mut self.window);
                }
            }
            self.staged.push(Staged {
                camera: camera_index,
                watcher: index,
                model: watcher.model,
                frames: first..self.frames.len(),
                at: meta.pts,
            });
        }
        result
    }

    /// Runs everything staged, one call per model, and steps the decoders.
    ///
    /// # Errors
    /// The first model that failed. Its windows are counted as dropped; the other models have run.
    pub fn run_staged(&mut self, sink: &mut impl Sink) -> Result<(), InferError> {
        let mut failure = None;
        for model in 0..self.models.len() {
            if self.staged.iter().any(|s| s.model == model)
                && let Err(error) = self.run_model(model, sink)
            {
                failure.get_or_insert(error);
            }
        }
        self.staged.clear();
        self.frames.clear();
        failure.map_or(Ok(()), Err)
    }

    fn run_model(&mut self, model: usize, sink: &mut impl Sink) -> Result<(), InferError> {
        let mut requests = recycle(std::mem::take(&mut self.requests));
        for staged in self.staged.iter().filter(|s| s.model == model) {
            let stream = self.cameras[staged.camera].watchers[staged.watcher].stream;
            requests.push(Request { stream, frames: &self.frames[staged.frames.clone()] });
        }
        let count = requests.len();
        let begun = Instant::now();
        let result = self.models[model].model.infer(&requests, &mut self.logits);
        self.requests = recycle(requests);
        sink.inferred(model, count, begun.elapsed());
        for (row, staged) in self.staged.iter().filter(|s| s.model == model).enumerate() {
            let camera = &mut self.cameras[staged.camera];
            if !self.logits.is_valid(row) {
                sink.windows_dropped(staged.camera, WindowDrop::Failed, 1);
                continue;
            }
            let watcher = &mut camera.watchers[staged.watcher];
            watcher.decoder.step(staged.at, self.logits.row(row), &mut self.decisions);
            let origin = Origin {
                camera: staged.camera,
                model,
                watcher: watcher.id,
                session: camera.session,
                clock: &camera.clock,
            };
            sink.scores(origin, staged.at, watcher.decoder.scores(), watcher.decoder.score_labels());
            self.decisions.drain(..).for_each(|decision| sink.decision(origin, &decision));
        }
        result
    }

    /// A stream ended or broke: what is staged runs first, then every open action of the camera is closed with `reason`
    /// and all its temporal state is forgotten.
    ///
    /// # Errors
    /// As [`Analytics::run_staged`]; the gap has been applied all the same.
    pub fn gap(&mut self, camera_index: usize, reason: EndReason, sink: &mut impl Sink) -> Result<(), InferError> {
        let result = self.run_staged(sink);
        let camera = &mut self.cameras[camera_index];
        let at = camera.newest.unwrap_or(Pts::ZERO);
        for watcher in &mut camera.watchers {
            watcher.decoder.gap(at, reason, &mut self.decisions);
            let origin = Origin {
                camera: camera_index,
                model: watcher.model,
                watcher: watcher.id,
                session: camera.session,
                clock: &camera.clock,
            };
            self.decisions.drain(..).for_each(|decision| sink.decision(origin, &decision));
            watcher.sampler.clear();
            self.models[watcher.model].model.reset(watcher.stream);
        }
        camera.branches.iter_mut().filter_map(|b| b.ring.as_mut()).for_each(Ring::clear);
        camera.newest = None;
        result
    }
}

impl Camera {
    fn observe(&mut self, meta: &FrameMeta) {
        if meta.session != self.session {
            self.session = meta.session;
            self.clock = self.new_clock.clone();
        }
        if let Some(arrival) = meta.arrival {
            self.clock.observe(meta.pts, arrival);
        }
        self.newest = Some(meta.pts);
    }
}

impl Watcher {
    fn new(
        id: usize,
        bit: u32,
        model: usize,
        loaded: &mut LoadedModel,
        plan: &CameraPlan,
    ) -> Result<Self, LayoutError> {
        let manifest = &loaded.manifest;
        let sampler = match manifest.plan {
            Plan::Online => Sampler::Frames(HoleDetector::new(manifest.sampling.max_hole)),
            Plan::Clip | Plan::Cached => Sampler::Windows(Windower::new(&manifest.sampling, bit)),
        };
        let decoder = Decoder::new(manifest, &loaded.overrides)?;
        let stream = loaded.model.add_stream();
        if manifest.tensors.boxes.is_some() {
            let told = |source| LayoutError::Zones { camera: plan.name.clone(), source };
            loaded.model.set_boxes(stream, &plan.zones).map_err(told)?;
        }
        Ok(Self { id, model, stream, sampler, decoder })
    }
}

impl Sampler {
    fn clear(&mut self) {
        match self {
            Self::Frames(holes) => holes.reset(),
            Self::Windows(windower) => windower.reset(),
        }
    }
}

/// The same allocation for requests of another lifetime: an emptied vector collects in place.
fn recycle<'b>(mut requests: Vec<Request<'_>>) -> Vec<Request<'b>> {
    requests.clear();
    requests.into_iter().map(|_| unreachable!("the vector was emptied")).collect()
}
