//! The daemon: everything is built in the order of the data, and stopped in that order.
//!
//! Configuration ends here: each part takes its own options. The calling thread waits for a signal; see
//! `agent/design/data-flow.md` for the threads.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use kinewatch_capture::{Branch, Camera, CameraOptions, Elements};
use kinewatch_core::event::{DeviceStatus, EventContext};
use kinewatch_core::topic;
use kinewatch_mqtt::{Client, Retained, Signal};
use kinewatch_store::{Store, StoreOptions};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};

use crate::analytics::{self, Analytics, BranchPlan};
use crate::camera_states;
use crate::clock;
use crate::clock_journal::ClockJournal;
use crate::config::file::Transport;
use crate::config::plan::{self, Plan};
use crate::delivery::{self, Command, Delivery};
use crate::health::{CameraView, Shared};
use crate::infer::Inference;
use crate::live::LiveSink;
use crate::mailbox::{Mailbox, Overflow};
use crate::models::{self, OpenedModel};
use crate::{inference, systemd, web};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Frames of a camera that may wait for inference.
const MAILBOX_FRAMES: usize = 16;
/// Buffers beyond ring, mailbox and waiting requests: in the appsink, in a batch, in a hand.
const SPARE_FRAMES: usize = 8;

// Deadlines of a stop; their sum is below 5 s.
const CAMERAS_STOP: Duration = Duration::from_millis(1200);
const INFERENCE_STOP: Duration = Duration::from_millis(1000);
const DRAIN: Duration = Duration::from_millis(1000);
const FAREWELL: Duration = Duration::from_millis(700);
const STORE_STOP: Duration = Duration::from_millis(400);

/// What `run` was asked for beside the configuration.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Folder for the scores of every camera.
    pub scores: Option<PathBuf>,
}

/// Runs until SIGTERM or SIGINT; a second one ends the process at once.
///
/// # Errors
/// Something could not be started, or a thread ended by itself.
pub fn run(plan: &Plan, options: &RunOptions) -> anyhow::Result<()> {
    kinewatch_capture::init()?;
    if let Some(folder) = &options.scores {
        std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    }
    let runtime = runtime().context("the control runtime cannot be started")?;
    let signals = watch_signals(&runtime)?;
    let (store, session) = open_store(&plan.device.state_dir)?;
    let shared = Arc::new(shared(plan));
    let (stop_web, web_stopped) = watch::channel(false);
    if let Some(address) = plan.web {
        let listener = runtime.block_on(web::bind(address))?;
        runtime.spawn(web::serve(listener, Arc::clone(&shared), web_stopped));
    }
    start_broker(plan)?;

    let (client, mqtt_signals) = Client::spawn(mqtt_options(plan, session), runtime.handle());
    let (commands, command_queue) = mpsc::channel(delivery::QUEUE);
    runtime.spawn(forward_signals(mqtt_signals, commands.clone(), Arc::clone(&shared)));
    let now = (clock::both_ns(), &clock::state());
    let (journal, device_clock) = ClockJournal::open(&plan.device.state_dir, session, store.last_sequence(), now);
    let delivery = Delivery::new(store, plan.mqtt.window, client.outgoing(), Arc::clone(&shared), journal)?;
    let handle = runtime.handle().clone();
    let store_thread = Worker::spawn("store", move || delivery.run(command_queue, &handle))?;

    let opened = open_models(plan, &shared)?;
    let mut references = Vec::with_capacity(opened.len());
    let mut loaded = Vec::with_capacity(opened.len());
    for model in opened {
        references.push(model.reference);
        loaded.push(model.loaded);
    }
    let layout = |c: &plan::CameraPlan| analytics::CameraPlan {
        name: c.name.clone(),
        models: c.models.clone(),
        zones: c.zones.clone(),
    };
    let camera_plans: Vec<_> = plan.cameras.iter().map(layout).collect();
    let manifests: Vec<_> = loaded.iter().map(|m| Arc::clone(&m.manifest)).collect();
    let analytics = Analytics::new(loaded, &camera_plans)?;
    let contexts = analytics
        .watchers()
        .map(|w| EventContext {
            group: plan.device.group.clone(),
            device: plan.device.name.clone(),
            camera: plan.cameras[w.camera].name.clone(),
            model: references[w.model].clone(),
            labels: w.decoder.published_labels().to_vec(),
            label_ids: w.decoder.published_label_ids().to_vec(),
        })
        .collect();
    let scores = options.scores.as_deref();
    let sink = LiveSink::new(Arc::clone(&shared), commands.clone(), contexts, device_clock, scores);
    let mailbox = Arc::new(Mailbox::new(plan.cameras.len(), MAILBOX_FRAMES, Overflow::DropOldest));
    let inference = Inference::new(analytics, Arc::clone(&mailbox), sink, Arc::clone(&shared));
    let infer_thread = Worker::spawn("infer", move || inference.run())?;

    let elements = Elements::probe();
    let mut cameras = Vec::with_capacity(plan.cameras.len());
    for (index, (camera, layout)) in plan.cameras.iter().zip(&camera_plans).enumerate() {
        let branches = analytics::branches(&manifests, layout);
        let to = Arc::clone(&mailbox);
        let on = Box::new(move |captured| to.push(index, captured));
        let camera = Camera::spawn(camera_options(camera, branches, elements), on)?;
        // Set once, here; a second value cannot come.
        let _unset = shared.cameras[index].capture.set(camera.stats());
        cameras.push(camera);
    }
    let client = Arc::new(client);
    let states =
        runtime.spawn(camera_states::run(Arc::clone(&shared), Arc::clone(&mailbox), Arc::clone(&client), session));
    for beat in [&shared.inference_beat_ms, &shared.store_beat_ms] {
        shared.beat(beat);
    }
    shared.ready.store(true, Relaxed);
    systemd::ready(&match cameras.len() {
        0 => format!("waiting for a camera: add one to {}", plan.file.display()),
        1 => "watching 1 camera".into(),
        n => format!("watching {n} cameras"),
    });
    runtime.spawn(systemd::feed_watchdog(Arc::clone(&shared)));
    tracing::info!(cameras = cameras.len(), models = manifests.len(), session, "watching");

    let ended = runtime.block_on(wait(signals, [&infer_thread, &store_thread]));
    shared.stopping.store(true, Relaxed);
    systemd::stopping();
    thread::scope(|scope| {
        for camera in &cameras {
            scope.spawn(|| camera.stop(CAMERAS_STOP));
        }
    });
    mailbox.close();
    infer_thread.join(INFERENCE_STOP);
    let (drained, when_drained) = oneshot::channel();
    runtime.block_on(async {
        let drain = async {
            if commands.send(Command::Drain(drained)).await.is_ok() {
                let _gone = when_drained.await;
            }
        };
        let _late = tokio::time::timeout(DRAIN, drain).await;
        states.abort();
        let _aborted = states.await;
        if let Some(client) = Arc::into_inner(client) {
            client.stop(FAREWELL).await;
        }
        // A store that cannot write does not read its queue either; it sees `stopping`.
        let _late = tokio::time::timeout(STORE_STOP, commands.send(Command::Stop)).await;
    });
    store_thread.join(STORE_STOP);
    let _nobody_listens = stop_web.send(true);
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build()
}

fn open_store(state_dir: &Path) -> anyhow::Result<(Store, u64)> {
    std::fs::create_dir_all(state_dir).with_context(|| {
        format!("{}: cannot be made; set [device] state_dir to a directory that can be written", state_dir.display())
    })?;
    let mut store = Store::open(state_dir.join("events.db"), StoreOptions::default())?;
    let session = store.next_session()?;
    Ok((store, session))
}

fn shared(plan: &Plan) -> Shared {
    let camera = |c: &plan::CameraPlan| {
        let models = c.models.iter().map(|&m| &plan.models[m]);
        let labels = models.clone().flat_map(|m| m.manifest.published()).map(str::to_owned).collect();
        CameraView::new(&c.name, &c.source.to_string(), models.map(|m| m.name.clone()).collect(), labels)
    };
    let cameras = plan.cameras.iter().map(camera).collect();
    let models = plan.models.iter().map(|m| m.name.clone()).collect();
    Shared::new(&plan.device.group, &plan.device.name, &plan.mqtt.url, cameras, models)
}

#[cfg(feature = "embedded-broker")]
fn start_broker(plan: &Plan) -> anyhow::Result<()> {
    if let Some(listen) = plan.mqtt.embedded {
        // It has no stop: it ends with the process.
        kinewatch_mqtt::Broker::start(listen)?;
    }
    Ok(())
}

#[cfg(not(feature = "embedded-broker"))]
#[expect(clippy::unnecessary_wraps, reason = "the other form can fail")]
fn start_broker(_plan: &Plan) -> anyhow::Result<()> {
    // The check of the configuration has refused `embedded` in this build.
    Ok(())
}

fn mqtt_options(plan: &Plan, session: u64) -> kinewatch_mqtt::Options {
    let topic = topic::status(&plan.device.group, &plan.device.name);
    let retained = |status: DeviceStatus| {
        Some(Retained { topic: topic.clone(), payload: serde_json::to_vec(&status).unwrap_or_default().into() })
    };
    let mut options = plan.mqtt.options();
    options.will = retained(DeviceStatus::will(session, VERSION));
    options.birth = retained(DeviceStatus::birth(session, VERSION));
    options.stopped = retained(DeviceStatus::stopped(session, VERSION));
    options
}

/// Notes what the client says for status and metrics, and hands it to the store thread.
async fn forward_signals(mut signals: mpsc::Receiver<Signal>, commands: mpsc::Sender<Command>, shared: Arc<Shared>) {
    let view = &shared.delivery;
    while let Some(signal) = signals.recv().await {
        match &signal {
            Signal::Connected { protocol, .. } => {
                view.connected.store(true, Relaxed);
                view.connections.fetch_add(1, Relaxed);
                view.protocol.store(Some(Arc::new(protocol.to_string())));
                view.last_error.store(None);
            }
            Signal::Disconnected { reason } => {
                let reason = reason.to_string();
                let said = view.last_error.load().as_deref().is_some_and(|last| *last == reason);
                if !said {
                    tracing::warn!(broker = view.broker, "{reason}; events are kept and it is tried again");
                }
                view.connected.store(false, Relaxed);
                view.last_error.store(Some(Arc::new(reason)));
            }
            Signal::Acked { .. } | Signal::Refused { .. } => {}
        }
        if commands.send(Command::Signal(signal)).await.is_err() {
            return;
        }
    }
}

fn open_models(plan: &Plan, shared: &Shared) -> anyhow::Result<Vec<OpenedModel>> {
    let cache_dir = Some(plan.device.state_dir.join("engines"));
    let options = inference::open_options(&plan.engine, cache_dir)?;
    let mut opened = Vec::with_capacity(plan.models.len());
    for (model, view) in plan.models.iter().zip(&shared.models) {
        let model = models::open(&model.name, &model.path, model.overrides.clone(), &options)?;
        view.info.store(Some(Arc::new(model.info.clone())));
        opened.push(model);
    }
    Ok(opened)
}

fn camera_options(camera: &plan::CameraPlan, branches: Vec<BranchPlan>, elements: Elements) -> CameraOptions {
    let branch = |b: BranchPlan| Branch {
        spec: b.spec,
        pool_frames: b.ring_frames + b.waiting_frames + MAILBOX_FRAMES + SPARE_FRAMES,
        rates_hz: b.rates_hz,
    };
    let branches = branches.into_iter().map(branch).collect();
    CameraOptions {
        credentials: camera.login.as_ref().map(Into::into),
        transport: match camera.transport {
            Transport::Tcp => kinewatch_capture::Transport::Tcp,
            Transport::Udp => kinewatch_capture::Transport::Udp,
        },
        elements,
        stall_timeout: camera.stall_timeout,
        teardown_deadline: Duration::from_millis(1000),
        ..CameraOptions::new(camera.name.clone(), camera.source.clone(), branches)
    }
}

/// SIGTERM and SIGINT as they come.
fn watch_signals(runtime: &Runtime) -> anyhow::Result<mpsc::Receiver<&'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let _entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be watched")?;
    let (send, receive) = mpsc::channel(1);
    runtime.spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if send.try_send(name).is_err() {
                // The first is being served: this one means now.
                tracing::warn!("{name} again: ending at once");
                std::process::exit(1);
            }
        }
    });
    Ok(receive)
}

/// Until a signal comes, or a thread that never ends has ended.
async fn wait(mut signals: mpsc::Receiver<&'static str>, threads: [&Worker; 2]) -> anyhow::Result<()> {
    let mut looks = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            Some(name) = signals.recv() => {
                tracing::info!("{name}: stopping");
                // With the receiver gone, a second signal finds the channel closed and ends the process.
                return Ok(());
            }
            _ = looks.tick() => {
                if let Some(dead) = threads.iter().find(|t| t.is_finished()) {
                    anyhow::bail!("the {} thread has ended by itself; see the log above, the service restarts", dead.name);
                }
            }
        }
    }
}

/// A named thread that can be waited for with a deadline.
struct Worker {
    name: &'static str,
    thread: thread::JoinHandle<()>,
    done: Receiver<()>,
}

impl Worker {
    fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<Self> {
        let (alive, done) = sync_channel::<()>(1);
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let _alive = alive;
                work();
            })
            .with_context(|| format!("the {name} thread cannot be started"))?;
        Ok(Self { name, thread, done })
    }

    fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    fn join(self, deadline: Duration) {
        // The channel closes when the thread ends, however it ends.
        if self.done.recv_timeout(deadline) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::error!("the {} thread did not end within {deadline:?} and is left behind", self.name);
        }
    }
}
