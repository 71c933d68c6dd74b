//! From a plan to what the running parts are handed: models opened, cameras laid out, everything that may fail found out.
//!
//! The start of the daemon and each reload go through here; the start is a reload from nothing. Blocks for as long as
//! models take to open, so never on a thread that carries frames. Changes nothing that runs: [`crate::cameras`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use kinewatch_capture::platform::display_trap;
use kinewatch_capture::{Branch, Camera, CameraOptions, CaptureError, Elements, Platform};
use kinewatch_core::decode::{Decoder, EndReason};
use kinewatch_core::event::{EventContext, ModelRef};
use kinewatch_core::manifest::{Manifest, Overrides};
use kinewatch_engine::{Build, OpenOptions, Provider};
use tokio::sync::oneshot;

use crate::analytics::{LoadedModel, NewCamera, Successor, exchangeable};
use crate::board::Memory;
use crate::change::{Exchange, Joining};
use crate::config::diff::{Aspect, CameraDifference, Difference, ModelDifference};
use crate::config::file::Transport;
use crate::config::plan::{CameraPlan, ModelPlan, Plan};
use crate::health::{CameraView, ModelInfo, ModelView};
use crate::layout::{self, BranchPlan, LayoutError};
use crate::live::LiveCamera;
use crate::models::{self, ModelError, OpenedModel};
use crate::root::Root;

/// Frames of a camera that may wait for inference.
pub const MAILBOX_FRAMES: usize = 16;
/// Buffers beyond ring, mailbox and waiting requests: in the appsink, in a batch, in a hand.
const SPARE_FRAMES: usize = 8;
/// How long a pipeline may take to stop before it is left behind.
const TEARDOWN: Duration = Duration::from_millis(1000);

/// Why a plan that is right cannot be carried out. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A package cannot be opened.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Cameras and models do not fit each other.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// This machine cannot serve a source.
    #[error("camera {camera}: {source}")]
    Source {
        /// Name.
        camera: String,
        /// Why.
        source: CaptureError,
    },
}

/// Everything that is to be told and started, in this order.
#[derive(Debug, Default)]
pub struct Handover {
    /// Models that come: slot, and where their work is shown.
    pub models: Vec<(usize, LoadedModel, Arc<ModelView>)>,
    /// Models that take the place of others.
    pub exchanged: Vec<Exchange>,
    /// Models with other decoder settings, by slot.
    pub revised: Vec<(usize, Overrides)>,
    /// Cameras whose stream goes on under other models, by name.
    pub relaid: Vec<(String, Joining)>,
    /// Cameras that stop, and what their open actions end with; some start again.
    pub stopped: Vec<(String, EndReason)>,
    /// Cameras that start.
    pub started: Vec<NewStream>,
    /// Models that go, by slot, and where they are sent back to.
    pub leaving: Vec<(usize, oneshot::Sender<LoadedModel>)>,
    /// What is to be seen from then on.
    pub cameras: Vec<Arc<CameraView>>,
    /// Likewise.
    pub model_views: Vec<Arc<ModelView>>,
}

/// A camera to be started.
#[derive(Debug)]
pub struct NewStream {
    /// Of its capture.
    pub options: CameraOptions,
    /// Of its inference.
    pub joining: Joining,
    /// Where it is shown.
    pub view: Arc<CameraView>,
}

/// Knows what runs, as it was handed over.
#[derive(Debug)]
pub struct Preparer {
    group: String,
    device: String,
    options: OpenOptions,
    elements: Elements,
    models: Vec<Known>,
    cameras: BTreeMap<String, Laid>,
    candidate: Option<Candidate>,
    /// The model whose engine has been built.
    built: Option<String>,
    /// Models of the last plan that wait for an engine.
    postponed: Vec<Postponed>,
}

/// A model that runs, and would run better with an engine that has to be built first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postponed {
    /// Name in the configuration.
    pub model: String,
    /// Its package.
    pub path: PathBuf,
    /// The package's digest.
    pub digest: String,
    /// What runs it then.
    pub provider: Provider,
}

/// A model that is tried beside another.
#[derive(Clone, Debug)]
struct Candidate {
    name: String,
    manifest: Arc<Manifest>,
    reference: ModelRef,
    info: ModelInfo,
}

/// A model that is open.
#[derive(Clone, Debug)]
struct Known {
    slot: usize,
    name: String,
    manifest: Arc<Manifest>,
    overrides: Overrides,
    reference: ModelRef,
    view: Arc<ModelView>,
}

/// A camera that has been started.
#[derive(Clone, Debug)]
struct Laid {
    branches: Vec<Branch>,
    view: Arc<CameraView>,
}

/// What will be known once all is handed over.
struct Next {
    models: Vec<Known>,
    cameras: BTreeMap<String, Laid>,
    handover: Handover,
    returning: Vec<oneshot::Receiver<LoadedModel>>,
    /// Names of models that take the place of others without a camera being laid out anew.
    /// Models that are not any more what a candidate was tried beside: exchanged, or closed.
    left: BTreeSet<String>,
    postponed: Vec<Postponed>,
}

impl Preparer {
    /// Nothing runs yet. `options`: what models are opened with.
    #[must_use]
    pub fn new(group: &str, device: &str, options: OpenOptions) -> Self {
        let (group, device) = (group.to_owned(), device.to_owned());
        let (elements, models, cameras) = (Elements::probe(None), Vec::new(), BTreeMap::new());
        let (built, postponed) = (None, Vec::new());
        Self { group, device, options, elements, models, cameras, candidate: None, built, postponed }
    }

    /// With the family of GStreamer elements that the configuration names.
    #[must_use]
    pub fn on(mut self, platform: Option<Platform>) -> Self {
        self.elements = Elements::probe(platform);
        let family = self.elements.platform;
        tracing::info!(platform = %family, chosen = platform.is_some(), "decoders and scalers");
        if let Some(trap) = display_trap(family, &|name| std::env::var(name).ok()) {
            tracing::warn!("{trap}");
        }
        self
    }

    /// Opens and lays out what is different in `plan`. What it gives has to be handed over; models come back through the
    /// receivers, one for each that leaves, before this is called again.
    ///
    /// # Errors
    /// Something cannot be had; all is as before then.
    pub fn prepare(
        &mut self,
        difference: &Difference,
        plan: &Plan,
    ) -> Result<(Handover, Vec<oneshot::Receiver<LoadedModel>>), PrepareError> {
        let (models, cameras) = (self.models.clone(), self.cameras.clone());
        let (handover, left) = (Handover::default(), BTreeSet::new());
        let mut next = Next { models, cameras, handover, returning: Vec::new(), left, postponed: Vec::new() };
        for change in &difference.models {
            let model = plan.models.iter().find(|model| model.name == change.name);
            match (&change.what, model) {
                (ModelDifference::Thresholds(_), Some(model)) => next.revise(model),
                (ModelDifference::Added | ModelDifference::Package, Some(model)) => self.open(model, &mut next)?,
                _ => next.close(&change.name),
            }
        }
        for change in &difference.cameras {
            match (&change.what, plan.cameras.iter().find(|camera| camera.name == change.name)) {
                (CameraDifference::Changed(aspects), Some(camera)) => self.change(camera, aspects, plan, &mut next)?,
                (CameraDifference::Added, Some(camera)) => self.start(camera, plan, &mut next)?,
                _ => next.stop(&change.name, EndReason::Shutdown),
            }
        }
        let Next { models, cameras, mut handover, returning, left, postponed } = next;
        self.postponed.retain(|earlier| !postponed.iter().any(|later| later.model == earlier.model));
        self.postponed.extend(postponed);
        handover.cameras = plan.cameras.iter().filter_map(|c| Some(Arc::clone(&cameras.get(&c.name)?.view))).collect();
        let view = |model: &ModelPlan| models.iter().find(|m| m.name == model.name).map(|m| Arc::clone(&m.view));
        handover.model_views = plan.models.iter().filter_map(view).collect();
        (self.models, self.cameras) = (models, cameras);
        // Whether it was taken or not: what it was tried beside is not there any more.
        self.candidate.take_if(|candidate| left.contains(&candidate.name));
        Ok((handover, returning))
    }

    /// A model takes the place of the one before where it can, and else a place of its own.
    fn open(&self, model: &ModelPlan, next: &mut Next) -> Result<(), PrepareError> {
        let before = next.models.iter().find(|known| known.name == model.name);
        let replaces = before.is_some_and(|before| exchangeable(&before.manifest, &model.manifest));
        let candidate = self.candidate.as_ref().filter(|c| c.name == model.name && c.reference.sha256 == model.digest);
        if let Some(Candidate { manifest, reference, info, .. }) = candidate.filter(|_| replaces).cloned() {
            model.overrides.check(&manifest).map_err(LayoutError::from)?;
            next.exchange(model, (Successor::Tried, manifest, reference, info));
            return Ok(());
        }
        self.warn_of_memory(model, !next.models.is_empty());
        let build = if self.built.as_ref() == Some(&model.name) { Build::Before } else { self.options.build };
        let options = OpenOptions { build, ..self.options.clone() };
        let opened = models::open(&model.name, &model.path, model.overrides.clone(), &options)?;
        next.postponed.extend(opened.postponed.map(|provider| Postponed {
            model: model.name.clone(),
            path: model.path.clone(),
            digest: model.digest.clone(),
            provider,
        }));
        if replaces {
            let OpenedModel { loaded, reference, info, .. } = opened;
            let manifest = Arc::clone(&loaded.manifest);
            next.exchange(model, (Successor::Opened(Box::new(loaded)), manifest, reference, info));
        } else {
            next.close(&model.name);
            next.open(opened, &self.models);
        }
        Ok(())
    }

    /// Says beforehand what the kernel would say by killing the process. `beside`: others are open.
    fn warn_of_memory(&self, model: &ModelPlan, beside: bool) {
        let (needs, memory) = (models::estimate(&model.path), Memory::read(&Root::machine()));
        if beside && !memory.holds(needs) {
            let (needs_mb, free_mb) = (needs >> 20, memory.free().unwrap_or(0) >> 20);
            tracing::warn!(
                model = model.name,
                needs_mb,
                free_mb,
                "memory may not hold this model beside the others; watch with fewer or smaller ones"
            );
        }
    }

    /// The model whose engine has been built, and that is opened with it from here on.
    pub fn expect_engine(&mut self, model: Option<&str>) {
        self.built = model.map(str::to_owned);
    }

    /// Models that wait for an engine. Gives each once.
    pub fn take_postponed(&mut self) -> Vec<Postponed> {
        std::mem::take(&mut self.postponed)
    }

    /// Opens a candidate for the model of that name, which goes on: gives the slot that it can be tried beside. `None`
    /// where it reads other frames or has other labels, so that there is nothing to compare.
    ///
    /// # Errors
    /// No back end runs it.
    pub fn open_candidate(&mut self, model: &ModelPlan) -> Result<Option<(usize, LoadedModel)>, PrepareError> {
        let Some(known) = self.models.iter().find(|known| known.name == model.name) else { return Ok(None) };
        if !exchangeable(&known.manifest, &model.manifest) {
            return Ok(None);
        }
        let slot = known.slot;
        let OpenedModel { loaded, reference, info, .. } =
            models::open(&model.name, &model.path, model.overrides.clone(), &self.options)?;
        let manifest = Arc::clone(&loaded.manifest);
        self.candidate = Some(Candidate { name: model.name.clone(), manifest, reference, info });
        Ok(Some((slot, loaded)))
    }

    /// Whether a candidate is tried beside this model.
    #[must_use]
    pub fn tries(&self, model: &str) -> bool {
        self.candidate.as_ref().is_some_and(|candidate| candidate.name == model)
    }

    /// Nothing is tried any more. Gives whether something was.
    pub fn forget_candidate(&mut self) -> bool {
        self.candidate.take().is_some()
    }

    /// The slot of a model that is open.
    #[must_use]
    pub fn slot_of(&self, model: &str) -> Option<usize> {
        self.models.iter().find(|known| known.name == model).map(|known| known.slot)
    }

    /// A camera could not be started after all.
    pub fn forget(&mut self, camera: &str) {
        self.cameras.remove(camera);
    }

    /// Its stream goes on where only the models are different and read the same frames; else it stops and starts.
    fn change(
        &self,
        camera: &CameraPlan,
        aspects: &[Aspect],
        plan: &Plan,
        next: &mut Next,
    ) -> Result<(), PrepareError> {
        let of_camera = |name: &str| camera.models.iter().any(|&model| plan.models[model].name == name);
        if aspects == [Aspect::Package] && next.exchanged_all(of_camera) {
            return Ok(());
        }
        let (new, branches) = next.lay_out(camera, plan)?;
        let goes_on = aspects.iter().all(|aspect| aspect.keeps_stream());
        match next.cameras.get(&camera.name) {
            Some(before) if goes_on && serves(&before.branches, &branches) => {
                let view = next.view(camera, &new, Some(&before.view));
                let laid = Laid { branches: before.branches.clone(), view: Arc::clone(&view) };
                let joining = self.joining(camera, new, view, next);
                next.handover.relaid.push((camera.name.clone(), joining));
                next.cameras.insert(camera.name.clone(), laid);
                Ok(())
            }
            _ => {
                let exchanged = aspects.iter().all(|aspect| *aspect == Aspect::Package);
                next.stop(&camera.name, if exchanged { EndReason::ModelSwap } else { EndReason::Shutdown });
                self.start(camera, plan, next)
            }
        }
    }

    fn start(&self, camera: &CameraPlan, plan: &Plan, next: &mut Next) -> Result<(), PrepareError> {
        let (new, branches) = next.lay_out(camera, plan)?;
        let options = camera_options(camera, branches.clone(), self.elements);
        Camera::check(&options).map_err(|source| PrepareError::Source { camera: camera.name.clone(), source })?;
        let view = next.view(camera, &new, None);
        let joining = self.joining(camera, new, Arc::clone(&view), next);
        next.handover.started.push(NewStream { options, joining, view: Arc::clone(&view) });
        next.cameras.insert(camera.name.clone(), Laid { branches, view });
        Ok(())
    }

    fn joining(&self, camera: &CameraPlan, new: NewCamera, view: Arc<CameraView>, next: &Next) -> Joining {
        let context = |(slot, decoder): (usize, &Decoder)| {
            Some(EventContext {
                group: self.group.clone(),
                device: self.device.clone(),
                camera: camera.name.clone(),
                model: next.known(slot)?.reference.clone(),
                labels: decoder.published_labels().to_vec(),
                label_ids: decoder.published_label_ids().to_vec(),
            })
        };
        let contexts = new.decoders().filter_map(context).collect();
        Joining { camera: new, live: LiveCamera::new(view, contexts) }
    }
}

impl Next {
    fn known(&self, slot: usize) -> Option<&Known> {
        self.models.iter().find(|model| model.slot == slot)
    }

    fn revise(&mut self, model: &ModelPlan) {
        if let Some(known) = self.models.iter_mut().find(|known| known.name == model.name) {
            known.overrides = model.overrides.clone();
            self.handover.revised.push((known.slot, model.overrides.clone()));
        }
    }

    /// Into the slot of the one before.
    fn exchange(&mut self, model: &ModelPlan, new: (Successor, Arc<Manifest>, ModelRef, ModelInfo)) {
        let (successor, manifest, reference, info) = new;
        let Some(known) = self.models.iter_mut().find(|known| known.name == model.name) else { return };
        let view = Arc::new(ModelView::new(model.name.clone()));
        view.info.store(Some(Arc::new(info)));
        known.manifest = manifest;
        known.overrides = model.overrides.clone();
        known.reference = reference.clone();
        known.view = Arc::clone(&view);
        let (back, comes) = oneshot::channel();
        let (slot, overrides) = (known.slot, model.overrides.clone());
        self.handover.exchanged.push(Exchange { slot, successor, overrides, view, reference, back });
        self.returning.push(comes);
        self.left.insert(model.name.clone());
    }

    /// Whether each model that has come, among those of a camera, took the place of another.
    fn exchanged_all(&self, of_camera: impl Fn(&str) -> bool) -> bool {
        !self.handover.models.iter().any(|(_, model, _)| of_camera(&model.name))
    }

    /// Into a slot that is free, now and before.
    fn open(&mut self, opened: OpenedModel, before: &[Known]) {
        let OpenedModel { loaded, reference, info, .. } = opened;
        let taken = |slot: usize| self.models.iter().chain(before).any(|known| known.slot == slot);
        let slot = (0..).find(|&slot| !taken(slot)).unwrap_or(usize::MAX);
        let view = Arc::new(ModelView::new(loaded.name.clone()));
        view.info.store(Some(Arc::new(info)));
        self.models.push(Known {
            slot,
            name: loaded.name.clone(),
            manifest: Arc::clone(&loaded.manifest),
            overrides: loaded.overrides.clone(),
            reference,
            view: Arc::clone(&view),
        });
        self.handover.models.push((slot, loaded, view));
    }

    fn close(&mut self, name: &str) {
        if let Some(at) = self.models.iter().position(|known| known.name == name) {
            let (back, comes) = oneshot::channel();
            self.handover.leaving.push((self.models.remove(at).slot, back));
            self.returning.push(comes);
            self.left.insert(name.to_owned());
        }
    }

    fn stop(&mut self, camera: &str, reason: EndReason) {
        if self.cameras.remove(camera).is_some() {
            self.handover.stopped.push((camera.to_owned(), reason));
        }
    }

    fn lay_out(&self, camera: &CameraPlan, plan: &Plan) -> Result<(NewCamera, Vec<Branch>), LayoutError> {
        let names = camera.models.iter().filter_map(|&model| plan.models.get(model));
        let slots = names.filter_map(|model| self.models.iter().find(|known| known.name == model.name));
        let layout = layout::CameraPlan {
            name: camera.name.clone(),
            models: slots.map(|known| known.slot).collect(),
            zones: camera.zones.clone(),
        };
        let new = NewCamera::lay_out(&layout, |slot| self.known(slot).map(|m| (&*m.manifest, &m.overrides)))?;
        let new = new.at_least(camera.min_rate_hz);
        let branches = layout::branches(&layout, |slot| self.known(slot).map(|m| &*m.manifest));
        let branch = |b: BranchPlan| Branch {
            spec: b.spec,
            pool_frames: b.ring_frames + b.waiting_frames + MAILBOX_FRAMES + SPARE_FRAMES,
            rates_hz: b.rates_hz,
        };
        Ok((new, branches.into_iter().map(branch).collect()))
    }

    /// Where the camera is shown. Its counters go on with its stream, and all of them if it is watched as before.
    fn view(&self, camera: &CameraPlan, new: &NewCamera, before: Option<&Arc<CameraView>>) -> Arc<CameraView> {
        let models: Vec<&Known> = new.decoders().filter_map(|(slot, _)| self.known(slot)).collect();
        let names = models.iter().map(|model| model.name.clone()).collect();
        let labels = models.iter().flat_map(|model| model.manifest.published()).map(str::to_owned).collect();
        let view = CameraView::new(&camera.name, &camera.source.to_string(), names, labels);
        let view = match before {
            Some(before) if before.shows_the_same(&view) => Arc::clone(before),
            Some(before) => Arc::new(view.with_stream_of(before)),
            None => Arc::new(view),
        };
        view.furthest.store(new.furthest(), Relaxed);
        view
    }
}

/// Whether a running capture gives the frames that are needed, to the same samplers, with room for as many.
fn serves(running: &[Branch], needed: &[Branch]) -> bool {
    let one = |(have, need): (&Branch, &Branch)| {
        have.spec == need.spec && have.rates_hz == need.rates_hz && have.pool_frames >= need.pool_frames
    };
    running.len() == needed.len() && running.iter().zip(needed).all(one)
}

/// Names the file that asks for a restart of `nvargus-daemon`; set by `systemd/examples/csi-restart.conf`.
const ARGUS_REQUEST: &str = "KINEWATCH_ARGUS_REQUEST";

fn camera_options(camera: &CameraPlan, branches: Vec<Branch>, elements: Elements) -> CameraOptions {
    CameraOptions {
        credentials: camera.login.as_ref().map(Into::into),
        transport: match camera.transport {
            Transport::Tcp => kinewatch_capture::Transport::Tcp,
            Transport::Udp => kinewatch_capture::Transport::Udp,
        },
        elements,
        stall_timeout: camera.stall_timeout,
        frozen_timeout: camera.frozen_timeout,
        argus_request: std::env::var_os(ARGUS_REQUEST).map(Into::into),
        teardown_deadline: TEARDOWN,
        ..CameraOptions::new(camera.name.clone(), camera.source.clone(), branches)
    }
}
