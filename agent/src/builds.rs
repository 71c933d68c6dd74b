//! Engines that are built in a child process while another provider serves.
//!
//! TensorRT takes minutes for an engine on a small device, and says nothing meanwhile. So a model whose engine is not kept from
//! before is opened on the next provider ([`kinewatch_engine::Build::Later`]), and watches; the thread `engines` has a child,
//! last in line for the processor, build the engine and prove it on the golden clips; then the model is opened again with it, in
//! place, and no action ends by that. An engine that cannot be built is told once: the model stays where it is until the next
//! start. One at a time, proofs of releases included; the child is ended when the agent stops. Where `require_provider` is set
//! nothing else may serve, and the start waits for the engine instead.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use kinewatch_core::rollout::Gates;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::board::Memory;
use crate::config::plan::EnginePlan;
use crate::health::Shared;
use crate::prepare::Postponed;
use crate::reload::{self, Fit, ModelRequest};
use crate::root::Root;
use crate::worker::{Job, Limits, Proof, Refusal, Step, Worker};

/// Engines that may wait to be built; models are no more.
const QUEUE: usize = 64;
/// Windows that the child measures: whether it computes what it should, the golden clips have told.
const WINDOWS: u32 = 20;
/// How long a child may take where `[updates] proof_timeout_s` does not allow more: nobody waits for it, and last in line for
/// the processor a large model takes hours on a small device.
const LONGEST: Duration = Duration::from_secs(4 * 3600);

/// Where that is asked for; bounded.
pub type Requests = mpsc::Sender<Postponed>;

/// An engine that is built now.
#[derive(Clone, Debug)]
pub struct Building {
    /// Name in the configuration of the model that waits for it.
    pub model: String,
    /// When it was begun.
    pub since: Instant,
    /// What the child does; `None` until it says so.
    pub step: Option<Step>,
    /// Time of processors that the child has used so far, ms: whether it works at all.
    pub busy_ms: Arc<AtomicU64>,
}

impl Building {
    /// How long it has been built.
    #[must_use]
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// In whole minutes.
    #[must_use]
    pub fn minutes(&self, now: Instant) -> u64 {
        self.elapsed(now).as_secs() / 60
    }

    /// The child's step in a word.
    #[must_use]
    pub fn step_name(&self) -> &'static str {
        self.step.map_or("start", Step::name)
    }

    /// Time of processors that the child has used so far.
    #[must_use]
    pub fn busy(&self) -> Duration {
        Duration::from_millis(self.busy_ms.load(Relaxed))
    }
}

/// Says that a build goes on, after one minute, two, four and so on. Each look is given the minutes that the last one gave.
pub fn remind(building: Option<&Building>, told: u64, now: Instant) -> u64 {
    let Some(building) = building else { return 0 };
    let minutes = building.minutes(now);
    if is_due(minutes, told) {
        let (model, step, busy_s) = (&building.model, building.step_name(), building.busy().as_secs());
        tracing::info!(model, step, busy_s, "its engine has been built for {minutes} min; it watches meanwhile");
    }
    minutes
}

fn is_due(minutes: u64, told: u64) -> bool {
    minutes != told && minutes.is_power_of_two()
}

/// What the thread needs.
#[derive(Debug)]
pub struct Parts {
    /// How the daemon runs models.
    pub engine: EnginePlan,
    /// Where engines are kept.
    pub engines: PathBuf,
    /// The way into the running agent.
    pub reload: reload::Requests,
    /// What is seen of it.
    pub shared: Arc<Shared>,
    /// `[updates] proof_timeout_s`, where models come over the air.
    pub proof_timeout: Option<Duration>,
    /// Of the control tasks.
    pub runtime: Handle,
}

/// The queue of requests.
#[must_use]
pub fn requests() -> (Requests, mpsc::Receiver<Postponed>) {
    mpsc::channel(QUEUE)
}

/// Hands over models that wait for an engine. One that finds no room stays as it is until the next start.
pub fn ask(requests: &Requests, postponed: Vec<Postponed>) {
    for model in postponed {
        if let Err(error) = requests.try_send(model) {
            tracing::warn!(%error, "an engine is not built before the next start");
        }
    }
}

/// Builds until nobody can ask any more or the agent stops. The body of the thread `engines`.
pub fn run(parts: &Parts, mut queue: mpsc::Receiver<Postponed>) {
    while let Some(postponed) = queue.blocking_recv() {
        // A release may be on trial: memory is for one child at a time.
        let heavy = Arc::clone(&parts.shared.heavy);
        let Ok(one_at_a_time) = parts.runtime.block_on(heavy.acquire_owned()) else { return };
        let outcome = build(parts, &postponed);
        parts.shared.building.store(None);
        drop(one_at_a_time);
        let (model, provider) = (&postponed.model, postponed.provider.name());
        match outcome {
            Ok(()) => {}
            Err(Refusal::Stopped) => return,
            Err(Refusal::Fault(fault)) => {
                tracing::warn!(model, provider, %fault, "its engine cannot be used: the model stays as it is");
            }
        }
    }
}

fn build(parts: &Parts, postponed: &Postponed) -> Result<(), Refusal> {
    let Postponed { model, path, provider, .. } = postponed;
    let provider = provider.name();
    let worker = Worker::of_this_binary();
    let begun = Building { model: model.clone(), since: Instant::now(), step: None, busy_ms: worker.busy_ms() };
    let show = |step| parts.shared.building.store(Some(Arc::new(Building { step, ..begun.clone() })));
    show(None);
    tracing::info!(
        model,
        provider,
        "its engine is built in a process beside, which may take minutes; it watches meanwhile"
    );
    let mut job = Job::new(path.clone(), parts.engine.clone(), Some(parts.engines.clone()));
    job.windows = WINDOWS;
    let step = &mut |step| {
        tracing::debug!(model, ?step, "engine");
        show(Some(step));
    };
    let stop = &parts.shared.stopping;
    let limits = Limits { wall: wall(parts.proof_timeout), ..Limits::default() };
    let proof = worker.prove(&job, &limits, &Gates::default(), stop, step)?;
    let took_s = begun.since.elapsed().as_secs();
    // It may leave most of the graph to others.
    if proof.provider != provider && !proof.nodes.contains_key(provider) {
        let why = proof.refused.first().map_or(proof.why.as_str(), String::as_str);
        tracing::warn!(model, provider, took_s, why, "its engine cannot be built: the model stays as it is");
        return Ok(());
    }
    tracing::info!(model, provider, took_s, p50_ms = proof.p50_ms, "its engine is built");
    reopen(parts, postponed, &proof)
}

fn wall(proof_timeout: Option<Duration>) -> Duration {
    proof_timeout.map_or(LONGEST, |timeout| timeout.max(LONGEST))
}

fn reopen(parts: &Parts, postponed: &Postponed, proof: &Proof) -> Result<(), Refusal> {
    let needs = proof.peak_memory_mb << 20;
    let fit = if Memory::read(&Root::machine()).holds(needs) { Fit::Both } else { Fit::One };
    let (reply, answer) = oneshot::channel();
    let (model, digest) = (postponed.model.clone(), postponed.digest.clone());
    let request = ModelRequest::Reopen { model, digest, fit, reply };
    // Either fails only when the agent stops.
    parts.reload.blocking_send(reload::Request::Model(request)).map_err(|_| Refusal::Stopped)?;
    match answer.blocking_recv().map_err(|_| Refusal::Stopped)? {
        Ok(()) => {}
        Err(error) => tracing::error!(model = postponed.model, %error, "it cannot be opened with its engine"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_may_take_hours_and_as_long_as_a_proof_where_that_is_more() {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        assert_eq!([None, Some(hours(1)), Some(hours(10))].map(wall), [LONGEST, LONGEST, hours(10)]);
        assert!(LONGEST > Limits::default().wall);
    }

    #[test]
    fn a_build_that_goes_on_is_said_more_and_more_seldom() {
        let begun = Instant::now();
        let building = Building { model: "falls".into(), since: begun, step: None, busy_ms: Arc::default() };
        let at = |s: u64| begun + Duration::from_secs(s);
        assert_eq!((building.minutes(at(59)), building.minutes(at(60)), building.step_name()), (0, 1, "start"));
        let (mut told, mut said) = (0, vec![]);
        for s in (0..=20 * 60).step_by(5) {
            said.extend(is_due(building.minutes(at(s)), told).then_some(s / 60));
            told = remind(Some(&building), told, at(s));
        }
        assert_eq!(said, [1, 2, 4, 8, 16]);
        assert_eq!(remind(None, told, at(1300)), 0);
    }
}
