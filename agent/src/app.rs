//! The daemon: everything is built in the order of the data, and stopped in that order.
//!
//! Configuration ends here: each part takes its own options. The calling thread owns the cameras, and waits for a signal or
//! for what a reload hands over; see `agent/design/data-flow.md` for the threads.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kinewatch_engine::{Build, OpenOptions, Provider};
use kinewatch_mqtt::Client;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::cameras::Cameras;
use crate::clock_journal::ClockJournal;
use crate::commands;
use crate::config::diff::Difference;
use crate::config::plan::{self, Plan};
use crate::delivery::{self, Command, Delivery, Disk, Queues};
use crate::health::{CameraView, Shared};
use crate::infer::Inference;
use crate::live::LiveSink;
use crate::mailbox::{Mailbox, Overflow};
use crate::prepare::{MAILBOX_FRAMES, Preparer};
use crate::reload::{self, Pending, Reloader};
use crate::root::Root;
use crate::supervise::{self, Opened, StopSignals};
use crate::updates::boot::{Boot, to_factory};
use crate::web::{self, Web};
use crate::{board, builds};
use crate::{broker, camera_states, clock, control, inference, systemd, updates};

// Deadlines of a stop; with that of the cameras their sum is about 5 s.
const INFERENCE_STOP: Duration = Duration::from_millis(1000);
const DRAIN: Duration = Duration::from_millis(1000);
const FAREWELL: Duration = Duration::from_millis(700);
const UPDATES_STOP: Duration = Duration::from_millis(300);
const STORE_STOP: Duration = Duration::from_millis(400);

/// What `run` was asked for beside the configuration.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Folder for the scores of every camera.
    pub scores: Option<PathBuf>,
    /// For tests.
    pub hooks: Hooks,
}

/// What programs of tests change; `kinewatch` itself nothing.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// Called with its name at each sign of life of a stage, to make one hang.
    pub on_beat: Option<fn(&str)>,
    /// Where the board's files lie; `None` is the machine.
    pub board: Option<Root>,
    /// The provider that counts as one that has to build an engine first; `None` is TensorRT.
    pub put_off: Option<Provider>,
}

/// Runs until SIGTERM or SIGINT; a second one ends the process at once. SIGHUP reads the configuration again.
///
/// # Errors
/// Something could not be started, or a thread ended by itself.
pub fn run(plan: Plan, options: &RunOptions) -> anyhow::Result<()> {
    kinewatch_capture::init()?;
    if let Some(folder) = &options.scores {
        std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    }
    let runtime = runtime().context("the control runtime cannot be started")?;
    let mut signals = StopSignals::watch(&runtime).context("SIGTERM and SIGINT cannot be watched")?;
    let (reloads, request_queue) = reload::requests();
    reload::watch_hangup(&runtime, reloads.clone()).context("SIGHUP cannot be watched")?;
    let shared = Arc::new(shared(&plan, options));
    // Kept to the end: the thread ends with the last of them, and watches over the stop too.
    let requests = supervise::spawn(Arc::clone(&shared)).context("the supervise thread cannot be started")?;
    let disk = Disk::open(&plan.device.state_dir, plan.outbox.store.clone(), Arc::clone(&shared))?;
    let session = disk.session();
    let web = plan.web.map(|address| web::start(address, Arc::clone(&shared))).transpose()?;
    broker::start_embedded(&plan)?;

    let (mut client, mqtt_signals) = Client::spawn(broker::options(&plan, &shared, session), runtime.handle());
    let (commands, command_queue) = mpsc::channel(delivery::QUEUE);
    let (decided, decision_queue) = mpsc::channel(delivery::QUEUE);
    let (updates, update_queue) = updates::requests();
    let parts = {
        let (shared, delivery, cameras) = (Arc::clone(&shared), commands.clone(), requests.clone());
        let (reload, updates) = (reloads.clone(), updates.clone());
        Arc::new(commands::Parts { shared, session, delivery, cameras, reload, updates })
    };
    if let Some(incoming) = client.incoming() {
        runtime.spawn(commands::run(Arc::clone(&parts), incoming, client.replies()));
    }
    let root = options.hooks.board.clone().unwrap_or_else(Root::machine);
    runtime.spawn(board::watch::run(Arc::clone(&shared), root));
    runtime.spawn(control::run(plan.device.state_dir.clone(), parts));
    runtime.spawn(broker::forward_signals(mqtt_signals, commands.clone(), Arc::clone(&shared)));
    let now = (clock::both_ns(), &clock::state());
    let (journal, device_clock, step) = ClockJournal::open(&plan.device.state_dir, session, now);
    let (keep_until, feed) = (plan.outbox.store.keep_until, plan.outbox.feed(plan.mqtt.window));
    let delivery = Delivery::new(disk, keep_until, feed, client.outgoing(), Arc::clone(&shared), (journal, step));
    let handle = runtime.handle().clone();
    let queues = Queues { decided: decision_queue, commands: command_queue };
    let store_thread = Worker::spawn("store", move || delivery.run(queues, &handle))?;

    // The start is a reload from nothing: everything is opened before the first thread that works on frames.
    let engines = inference::engines(&plan.device.state_dir);
    let put_off = options.hooks.put_off.map(Build::Later);
    let open = {
        let (mut plan, shared) = (plan.clone(), Arc::clone(&shared));
        move || -> anyhow::Result<_> {
            shared.stages.opening.touch(Instant::now());
            let engine = inference::serving_options(&plan.engine, engines.clone())?;
            let engine = OpenOptions { build: put_off.unwrap_or(engine.build), ..engine };
            let mut preparer = Preparer::new(&plan.device.group, &plan.device.name, engine).on(plan.device.platform);
            let mut boot = Boot::begin(&mut plan);
            let prepared = loop {
                match preparer.prepare(&Difference::from_nothing(&plan), &plan) {
                    Ok(prepared) => break prepared,
                    // What was installed may not open here any more; there is always the package of the configuration.
                    Err(error) if boot.as_mut().is_some_and(|boot| boot.unusable(&mut plan, &error)) => {}
                    Err(error) if boot.is_none() && to_factory(&mut plan) => {
                        tracing::error!(%error, "what was installed cannot be loaded: the packages of the configuration are");
                    }
                    Err(error) => return Err(error.into()),
                }
            };
            if boot.is_none() {
                inference::sweep(&engines, plan.models.iter().map(|model| model.digest.clone()));
            }
            Ok((plan, boot, preparer, prepared))
        }
    };
    let opening = supervise::interruptible(&mut signals, &shared.stages.opening, plan.models.len(), open);
    let (plan, boot, mut preparer, (handover, _none_leaves)) =
        match runtime.block_on(opening).context("the open thread cannot be started")? {
            Opened::Done(opened) => opened?,
            Opened::Interrupted(name) => {
                begin_stop(&shared, name);
                let client = Arc::new(client);
                close(runtime, Closing { commands, states: None, client, store_thread, web });
                return Ok(());
            }
        };
    let mailbox = Arc::new(Mailbox::new(MAILBOX_FRAMES, Overflow::DropOldest));
    let sink = LiveSink::new(Arc::clone(&shared), decided, device_clock, options.scores.as_deref());
    let inference = Inference::new(Arc::clone(&mailbox), sink, Arc::clone(&shared));
    let infer_thread = Worker::spawn("infer", move || inference.run())?;
    let mut cameras = Cameras::new(Arc::clone(&mailbox), Arc::clone(&shared));
    if let Some(failed) = cameras.take_over(handover).into_iter().next() {
        return Err(failed.into());
    }
    let (handovers, mut pending) = mpsc::channel(1);
    let (models, state_dir) = (plan.models.len(), plan.device.state_dir.clone());
    let build_reload = reloads.clone();
    let update_parts = updates::Parts {
        boot,
        plan: plan.clone(),
        reload: reloads,
        replies: client.replies(),
        shared: Arc::clone(&shared),
        session,
    };
    let update_thread = Worker::spawn("updates", move || updates::run(update_parts, update_queue))?;
    let (to_build, build_queue) = builds::requests();
    builds::ask(&to_build, preparer.take_postponed());
    let build_parts = builds::Parts {
        engine: plan.engine.clone(),
        engines: inference::engines(&plan.device.state_dir),
        reload: build_reload,
        shared: Arc::clone(&shared),
        proof_timeout: plan.updates.as_ref().map(|updates| updates.proof_timeout),
        runtime: runtime.handle().clone(),
    };
    // Ends by itself, with its child, when the agent stops.
    let _engines = Worker::spawn("engines", move || builds::run(&build_parts, build_queue))?;
    let reloader = Reloader::new(plan, preparer, handovers, Arc::clone(&mailbox), Arc::clone(&shared), to_build);
    let reload_thread = Worker::spawn("reload", move || reloader.run(request_queue))?;
    let client = Arc::new(client);
    let states = {
        let (shared, client) = (Arc::clone(&shared), Arc::clone(&client));
        runtime.spawn(async move { camera_states::run(shared, client, session, &state_dir).await })
    };
    shared.ready.store(true, Relaxed);
    systemd::ready();
    tracing::info!(cameras = cameras.count(), models, session, "watching");

    let threads = [&infer_thread, &store_thread, &reload_thread];
    let ended = loop {
        match runtime.block_on(wait(&mut signals, &mut pending, threads)) {
            Ok(Next::Handover(pending)) => {
                let Pending { handover, done } = *pending;
                // The reload thread waits for it.
                let _gone = done.send(cameras.take_over(handover));
            }
            Ok(Next::Stop(name)) => break Ok(name),
            Err(error) => break Err(error),
        }
    };
    drop(pending);
    // First of all: the updater takes nothing for a verdict that ends from here on.
    begin_stop(&shared, ended.as_ref().copied().unwrap_or("a thread has ended"));
    cameras.stop_all();
    mailbox.close();
    // A model that is new in its place has not ended this process: its try is given back.
    if infer_thread.join(INFERENCE_STOP) == Ended::InTime {
        stop_updates(&runtime, &updates);
    }
    drop((updates, update_thread));
    close(runtime, Closing { commands, states: Some(states), client, store_thread, web });
    ended.map(|_signal| ())
}

fn begin_stop(shared: &Shared, why: &str) {
    tracing::info!("{why}: stopping; a second signal ends the process at once");
    shared.stopping.store(true, Relaxed);
    systemd::stopping();
}

/// What is left to close once no more decisions come.
struct Closing {
    commands: mpsc::Sender<Command>,
    states: Option<JoinHandle<()>>,
    client: Arc<Client>,
    store_thread: Worker,
    web: Option<Web>,
}

fn close(runtime: Runtime, closing: Closing) {
    let Closing { commands, states, client, store_thread, web } = closing;
    let (drained, when_drained) = oneshot::channel();
    runtime.block_on(async {
        let drain = async {
            if commands.send(Command::Drain(drained)).await.is_ok() {
                let _gone = when_drained.await;
            }
        };
        let _late = tokio::time::timeout(DRAIN, drain).await;
        if let Some(states) = states {
            states.abort();
            let _aborted = states.await;
        }
        if let Some(client) = Arc::into_inner(client) {
            client.stop(FAREWELL).await;
        }
        let _late = tokio::time::timeout(STORE_STOP, commands.send(Command::Stop)).await;
    });
    let _told = store_thread.join(STORE_STOP);
    drop(web);
    runtime.shutdown_timeout(Duration::from_millis(100));
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build()
}

/// What is to be seen until models are open.
fn shared(plan: &Plan, options: &RunOptions) -> Shared {
    let camera = |c: &plan::CameraPlan| {
        let models = c.models.iter().map(|&m| plan.models[m].name.clone()).collect();
        CameraView::new(&c.name, &c.source.to_string(), models, Vec::new())
    };
    let cameras = plan.cameras.iter().map(camera).collect();
    let models = plan.models.iter().map(|m| m.name.clone()).collect();
    let mut shared = Shared::new(&plan.device.group, &plan.device.name, &plan.mqtt.url, cameras, models);
    if let Some(f) = options.hooks.on_beat {
        shared.stages.iter().for_each(|beat| beat.on_touch(f));
        shared.on_beat = Some(f);
    }
    shared
}

/// What the main thread is woken for.
enum Next {
    Handover(Box<Pending>),
    Stop(&'static str),
}

/// Until a handover is to be made, a signal comes, or a thread that never ends has ended.
async fn wait(
    signals: &mut StopSignals,
    pending: &mut mpsc::Receiver<Pending>,
    threads: [&Worker; 3],
) -> anyhow::Result<Next> {
    let mut looks = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            name = signals.recv() => return Ok(Next::Stop(name)),
            Some(pending) = pending.recv() => return Ok(Next::Handover(Box::new(pending))),
            _ = looks.tick() => {
                if let Some(dead) = threads.iter().find(|t| t.is_finished()) {
                    anyhow::bail!("the {} thread has ended by itself; see the log above, the service restarts", dead.name);
                }
            }
        }
    }
}

/// Tells the updater that the agent stops in good order.
fn stop_updates(runtime: &Runtime, updates: &updates::Requests) {
    runtime.block_on(async {
        let (done, when_done) = oneshot::channel();
        let stop = async {
            if updates.send(updates::Request::Stop(done)).await.is_ok() {
                let _gone = when_done.await;
            }
        };
        let _late = tokio::time::timeout(UPDATES_STOP, stop).await;
    });
}

/// How a thread was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    InTime,
    Late,
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

    fn join(self, deadline: Duration) -> Ended {
        // The channel closes when the thread ends, however it ends.
        if self.done.recv_timeout(deadline) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::error!("the {} thread did not end within {deadline:?} and is left behind", self.name);
            return Ended::Late;
        }
        Ended::InTime
    }
}
