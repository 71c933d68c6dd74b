//! Models over the air, in the running agent: the thread `updates`, which looks for releases, proves them, lets them take over
//! between two batches, and goes back by itself.
//!
//! `boot`: what is loaded at the start. `driver`: one model, driven by the rules of [`kinewatch_core::rollout`]. `jobs`: what
//! they ask for, done. `repository`: the TUF client. `desk`: what all of it shares. `view`: what is shown.
//! Why it is built so: `agent/design/ota.md`.
//!
//! Never touches a frame, a decoder or the outbox; asks the thread `reload` for whatever concerns the running model. It may
//! end, hang or find no disk: the agent watches on.

pub mod boot;
mod desk;
mod driver;
mod jobs;
mod ledger;
mod memory;
pub(crate) mod moment;
pub(crate) mod repository;
mod view;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use kinewatch_core::command::{CommandError, ErrorCode};
use kinewatch_core::event::ModelsState;
use kinewatch_core::rollout::step::{Input, Note};
use kinewatch_core::rollout::{Code, Fault};
use kinewatch_mqtt::Reply;
use kinewatch_store::updates::Seen;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::LocalSet;

use self::boot::Boot;
use self::desk::{Desk, Factory};
#[cfg(test)]
pub(crate) use self::driver::level;
use self::driver::{Driver, Told};
pub use self::view::UpdatesView;
pub(crate) use self::view::code_of;
use crate::config::plan::{Plan, UpdatesPlan};
use crate::health::Shared;
use crate::reload;

/// Requests that may wait.
const QUEUE: usize = 8;

/// How a request is answered.
pub type Answer = oneshot::Sender<Result<Value, CommandError>>;

/// What is asked for, by whoever may give commands.
#[derive(Debug)]
pub enum Request {
    /// Look at the repository now.
    Check(Answer),
    /// Install what the channel offers.
    Install(String, Answer),
    /// Go back to the model before.
    Rollback(String, Answer),
    /// Leave a model as it is.
    Pin(String, Answer),
    /// The opposite.
    Unpin(String, Answer),
    /// The agent stops in good order, and nothing has a model loaded any more: the last request.
    Stop(oneshot::Sender<()>),
}

/// Where that is asked for; bounded.
pub type Requests = mpsc::Sender<Request>;

/// The queue of requests.
#[must_use]
pub fn requests() -> (Requests, mpsc::Receiver<Request>) {
    mpsc::channel(QUEUE)
}

/// What the updater works with.
pub struct Parts {
    /// Updates as the start has left them; `None`: there are none.
    pub boot: Option<Boot>,
    /// What runs.
    pub plan: Plan,
    /// The way into the running agent.
    pub reload: reload::Requests,
    /// To the broker: progress.
    pub replies: mpsc::Sender<Reply>,
    /// What is seen of the agent.
    pub shared: Arc<Shared>,
    /// Counts the starts of the agent.
    pub session: u64,
}

/// Serves requests until it is told to stop. The body of the thread `updates`.
pub fn run(parts: Parts, requests: mpsc::Receiver<Request>) {
    // Timers and sockets of its own: unpacking and hashing must not delay what carries events.
    match tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build() {
        Ok(runtime) => {
            LocalSet::new().block_on(&runtime, serve(parts, requests));
            runtime.shutdown_timeout(Duration::from_millis(100));
        }
        Err(error) => tracing::error!(%error, "updates do not work: their runtime cannot be started"),
    }
}

async fn serve(parts: Parts, mut requests: mpsc::Receiver<Request>) {
    let drivers = match parts.boot {
        Some(boot) => drive(boot, &parts.plan, parts.reload, parts.replies, parts.shared, parts.session),
        None => BTreeMap::new(),
    };
    while let Some(request) = requests.recv().await {
        match request {
            Request::Check(answer) => check(&drivers, answer).await,
            Request::Install(model, answer) => tell(&drivers, &model, Input::Install { epoch: None }, answer).await,
            Request::Rollback(model, answer) => tell(&drivers, &model, Input::Rollback, answer).await,
            Request::Pin(model, answer) => tell(&drivers, &model, Input::Pin, answer).await,
            Request::Unpin(model, answer) => tell(&drivers, &model, Input::Unpin, answer).await,
            Request::Stop(done) => {
                for driver in drivers.values() {
                    let (stopped, ended) = oneshot::channel();
                    if driver.send(Told::Stop(stopped)).await.is_ok() {
                        let _ended = ended.await;
                    }
                }
                let _gone = done.send(());
                return;
            }
        }
    }
}

type Drivers = BTreeMap<String, mpsc::Sender<Told>>;

fn drive(
    boot: Boot,
    plan: &Plan,
    reload: reload::Requests,
    replies: mpsc::Sender<Reply>,
    shared: Arc<Shared>,
    session: u64,
) -> Drivers {
    let factory = |m: &crate::config::plan::ModelPlan| {
        let (version, digest) = boot.factory.get(&m.name).cloned().unwrap_or_default();
        (m.name.clone(), Factory { path: m.factory.clone(), version, digest, overrides: m.overrides.clone() })
    };
    let desk = Rc::new(Desk {
        plan: plan.updates.clone(),
        engine: plan.engine.clone(),
        engines: crate::inference::engines(&plan.device.state_dir),
        home: boot.home,
        depot: boot.depot,
        records: RefCell::new(boot.records),
        factory: plan.models.iter().map(factory).collect(),
        ledger: RefCell::new(boot.ledger),
        repository: tokio::sync::Mutex::new(None),
        reload,
        replies,
        shared,
        session,
        disk: Arc::default(),
        trials: Arc::new(Semaphore::new(1)),
        trial: RefCell::new(None),
        measured: RefCell::new(BTreeMap::new()),
        told: Cell::new(None),
    });
    tokio::task::spawn_local(jobs::sweep(Rc::clone(&desk)));
    let mut drivers = Drivers::new();
    for started in boot.models {
        let (to, told) = mpsc::channel(QUEUE);
        let first = started.first();
        let driver = Driver::new(Rc::clone(&desk), started.machine, started.step, told);
        tokio::task::spawn_local(driver.run(first));
        drivers.insert(started.name, to);
    }
    drivers
}

async fn tell(drivers: &Drivers, model: &str, input: Input, answer: Answer) {
    let (code, message) = match drivers.get(model) {
        Some(driver) => {
            // It answers by itself; one that has ended drops the answer, which says so.
            let _ended = driver.send(Told::Command(input, answer)).await;
            return;
        }
        None if drivers.is_empty() => (ErrorCode::Unavailable, "updates are off: set [updates] url".to_owned()),
        None => {
            let known: Vec<_> = drivers.keys().map(String::as_str).collect();
            (ErrorCode::UnknownModel, format!("no model is called {model:?}; there are: {}", known.join(", ")))
        }
    };
    let _gone = answer.send(Err(CommandError::new(code, message)));
}

async fn check(drivers: &Drivers, answer: Answer) {
    let mut outcome = Err(CommandError::new(ErrorCode::Unavailable, "updates are off: set [updates] url"));
    for driver in drivers.values() {
        let (to, answered) = oneshot::channel();
        let _ended = driver.send(Told::Command(Input::Check, to)).await;
        match answered.await {
            Ok(Ok(_)) => outcome = Ok(json!({ "models": drivers.keys().collect::<Vec<_>>() })),
            Ok(Err(error)) => {
                outcome = Err(error);
                break;
            }
            Err(_) => {}
        }
    }
    let _gone = answer.send(outcome);
}

/// A line of the history of models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryLine {
    /// Name in the configuration.
    pub model: String,
    /// What happened.
    #[serde(flatten)]
    pub note: Note,
}

/// What is stored of the models in a state directory, also beside the agent that runs there.
///
/// # Errors
/// The database cannot be read.
pub fn stored(state_dir: &Path) -> Result<ModelsState, Fault> {
    let models = look_into(state_dir, 0)?.records.iter().map(view::at_rest).collect();
    Ok(ModelsState { models, session: 0 })
}

/// The newest lines of the history, oldest first; of one model or of all.
///
/// # Errors
/// The database cannot be read.
pub fn history(state_dir: &Path, model: Option<&str>, limit: usize) -> Result<Vec<HistoryLine>, Fault> {
    let of = |name: &String| model.is_none_or(|model| name == model);
    let seen = look_into(state_dir, limit)?.history.into_iter().filter(|(name, _)| of(name));
    let line = |model: &String, note| HistoryLine { model: model.clone(), note };
    let mut lines: Vec<_> = seen
        .flat_map(|(model, notes)| notes.into_iter().map(move |note| line(&model, note)).collect::<Vec<_>>())
        .collect();
    lines.sort_by_key(|line| line.note.at);
    lines.drain(..lines.len().saturating_sub(limit));
    Ok(lines)
}

fn look_into(state_dir: &Path, limit: usize) -> Result<Seen, Fault> {
    let path = ledger::path(&boot::home(state_dir));
    if !path.exists() {
        return Ok(Seen::default());
    }
    kinewatch_store::updates::read(&path, limit).map_err(|error| ledger::fault(&error))
}

/// Whether the trust anchor can be read.
///
/// # Errors
/// It cannot.
pub fn anchor(plan: &UpdatesPlan) -> Result<(), Fault> {
    repository::read_anchor(&plan.root).map(drop)
}

/// Looks at the repository, and gives when the first of its metadata expires. What a daemon trusts is not touched. Blocks for
/// as long as the network takes.
///
/// # Errors
/// Why a daemon could not update from it.
pub fn look(plan: &UpdatesPlan) -> Result<jiff::Timestamp, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Fault::new(Code::Unreachable, format!("no runtime: {e}")))?;
    runtime.block_on(repository::look(plan))
}

/// Where the trusted metadata, the parts and the packages of a state directory lie, for who looks.
#[must_use]
pub fn home(state_dir: &Path) -> PathBuf {
    boot::home(state_dir)
}
