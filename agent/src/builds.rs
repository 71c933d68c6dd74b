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
use crate::worker::{Job, Limits, Proof, Refusal, Worker};

/// Engines that may wait to be built; models are no more.
const QUEUE: usize = 64;
/// Windows that the child measures: whether it computes what it should, the golden clips have told.
const WINDOWS: u32 = 20;
/// How long a child may take where `[updates] proof_timeout_s` does not allow more: nobody waits for it, and last in line for
/// the processor a large model takes hours on a small device.
const LONGEST: Duration = Duration::from_secs(4 * 3600);

/// Where that is asked for; bounded.
pub type Requests = mpsc::Sender<Postponed>;

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
        parts.shared.building.store(Some(Arc::new(postponed.model.clone())));
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
    tracing::info!(
        model,
        provider,
        "its engine is built in a process beside, which may take minutes; it watches meanwhile"
    );
    let begun = Instant::now();
    let mut job = Job::new(path.clone(), parts.engine.clone(), Some(parts.engines.clone()));
    job.windows = WINDOWS;
    let step = &mut |step| tracing::debug!(model, ?step, "engine");
    let stop = &parts.shared.stopping;
    let limits = Limits { wall: wall(parts.proof_timeout), ..Limits::default() };
    let proof = Worker::of_this_binary().prove(&job, &limits, &Gates::default(), stop, step)?;
    let took_s = begun.elapsed().as_secs();
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
}
