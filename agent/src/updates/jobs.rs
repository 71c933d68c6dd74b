//! What the rules ask for, done: each job as it is described at [`Job`].
//!
//! Tasks of the thread `updates`; a job that is cut off lets go of what it holds, and may be begun again at any point. What
//! blocks runs on threads of the runtime, never on one that carries frames. None of it touches the running model but
//! [`Job::Load`].

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use kinewatch_core::event::ModelProgress;
use kinewatch_core::manifest::{Manifest, Overrides};
use kinewatch_core::rollout::step::{Done, Failure, Job};
use kinewatch_core::rollout::{Code, Fault, Gates, Labels, Measured, Offer, Release, Slot};
use kinewatch_engine::is_of_memory;
use kinewatch_ota::bundle;
use kinewatch_ota::depot::Wanted;
use kinewatch_ota::tuf::Floors;
use tokio::sync::oneshot;

use super::desk::Desk;
use super::ledger::disk;
use super::{memory, repository};
use crate::config::file::UpdateSwap;
use crate::models;
use crate::reload::{Fit, ModelRequest, Package, Request, SwapError};
use crate::tally::TrialView;
use crate::worker;

/// How often a trial is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A trial that compares nothing for so long is put off.
const NO_WINDOWS: Duration = Duration::from_secs(300);

type Outcome = Result<Done, Failure>;
/// The end of a poll: what the metadata must not go below from then on, and what is offered.
pub(super) type Answered = (Floors, Result<Box<Offer>, Failure>);

/// Asks what the channel offers.
pub(super) async fn poll(desk: Rc<Desk>, model: String) -> Answered {
    let mut floors = match desk.floors() {
        Ok(floors) => floors,
        Err(fault) => return (Floors::default(), Err(fault.into())),
    };
    let Some(plan) = &desk.plan else {
        return (floors, Err(Fault::new(Code::Unreachable, "updates are off").into()));
    };
    let mut repository = desk.repository.lock().await;
    let repository = repository.get_or_insert_with(|| repository::Repository::new(plan.clone(), desk.home.clone()));
    let offer = repository.poll(&model, &mut floors).await;
    (floors, offer.map(Box::new))
}

/// Does a job.
pub(super) async fn run(desk: Rc<Desk>, model: String, job: Job) -> Outcome {
    match job {
        Job::None => Ok(Done::Plain),
        Job::Reserve { release, min_free_mb, .. } => reserve(&desk, release, min_free_mb).await,
        Job::Download { release } => download(&desk, &model, &release).await,
        Job::Unpack { release, labels, current } => unpack(&desk, &model, release, labels, &current).await,
        Job::Prove { release, gates } => prove(&desk, &model, &release, gates).await,
        Job::Shadow { release, windows } => shadow(&desk, &model, &release, windows).await,
        Job::Load { slot } => load(&desk, &model, &slot).await,
        Job::Settle { current, previous, .. } => settle(&desk, &model, current, previous).await,
    }
}

async fn reserve(desk: &Desk, release: Release, min_free_mb: u64) -> Outcome {
    let depot = desk.depot.clone();
    let reserve = move |wanted: &Wanted| depot.reserve(&release, min_free_mb, wanted).map_err(|e| e.fault());
    let freed = on_disk(desk, reserve).await?;
    tracing::debug!(?freed, "there is space for the release");
    Ok(Done::Plain)
}

async fn download(desk: &Desk, model: &str, release: &Release) -> Outcome {
    let Some(plan) = &desk.plan else { return Err(Fault::new(Code::Unreachable, "updates are off").into()) };
    if desk.depot.is_installed(model, release) {
        return Ok(Done::Plain);
    }
    let floors = desk.floors()?;
    let into = desk.depot.bundle(release);
    // The callback must be `Send`; what shows it is not.
    let (sender, mut pieces) = tokio::sync::watch::channel(None);
    let shows = async {
        while pieces.changed().await.is_ok() {
            let piece: Option<kinewatch_ota::tuf::Progress> = *pieces.borrow_and_update();
            if let Some(piece) = piece {
                tell(desk, model, "downloading", release, piece.bytes, Some(piece.total));
            }
        }
        std::future::pending::<()>().await;
    };
    let mut progress = move |piece| {
        let _gone = sender.send(Some(piece));
    };
    let fetch = repository::fetch(plan, &desk.home, &floors, release, &into, &mut progress);
    tokio::select! {
        result = fetch => {
            desk.shared.updates.downloaded_bytes.fetch_add(result?, Relaxed);
        }
        () = shows => {}
    }
    tell(desk, model, "downloading", release, release.length, Some(release.length));
    Ok(Done::Plain)
}

async fn unpack(desk: &Desk, model: &str, release: Release, labels: Labels, current: &Slot) -> Outcome {
    let running = desk.path_of(model, current);
    let overrides = desk.factory.get(model).map(|factory| factory.overrides.clone()).unwrap_or_default();
    let permit = Arc::clone(&desk.shared.heavy).acquire_owned().await.map_err(|_| stopping())?;
    let (depot, model) = (desk.depot.clone(), model.to_owned());
    on_disk(desk, move |_| {
        let _one_at_a_time = permit;
        let fits = |manifest: &Manifest| fits(manifest, &release, &model, labels, running.as_deref(), &overrides);
        // Done already, before a crash.
        if let Ok(package) = kinewatch_ota::open_verified(depot.installed(&model, &release)) {
            return fits(&package.manifest);
        }
        let bundle = depot.bundle(&release);
        let archive = std::fs::File::open(&bundle).map_err(|e| disk(&bundle, &e))?;
        let place = depot.place(&model, &release).map_err(|e| e.fault())?;
        let package = bundle::unpack(archive, &place, bundle::Bounds::default()).map_err(|e| e.fault())?;
        fits(&package.manifest)?;
        depot.install(&model, &release, &package).map(drop).map_err(|e| e.fault())
    })
    .await?;
    Ok(Done::Plain)
}

/// Whether the package is the release that the channel speaks of, and may take the place of the model that runs.
fn fits(
    manifest: &Manifest,
    release: &Release,
    model: &str,
    labels: Labels,
    running: Option<&std::path::Path>,
    overrides: &Overrides,
) -> Result<(), Fault> {
    if manifest.name != model || manifest.version != release.version.to_string() {
        let detail = format!(
            "the bundle holds {} {}, the channel says {model} {}",
            manifest.name, manifest.version, release.version
        );
        return Err(Fault::new(Code::WrongRelease, detail));
    }
    if let Err(error) = overrides.check(manifest) {
        let detail = format!("[model.labels] of the configuration does not fit it: {error}");
        return Err(Fault::new(Code::LabelsChanged, detail));
    }
    let Some(before) = running.filter(|_| labels == Labels::Same) else { return Ok(()) };
    let before = kinewatch_ota::open_verified(before)
        .map_err(|e| Fault::new(Code::DiskError, format!("the model that runs cannot be read: {e}")))?;
    bundle::keeps_labels(&before.manifest, manifest)
}

async fn prove(desk: &Desk, model: &str, release: &Release, gates: Gates) -> Outcome {
    let permit = Arc::clone(&desk.shared.heavy).acquire_owned().await.map_err(|_| stopping())?;
    let stop = StopOnDrop::default();
    let package = desk.depot.installed(model, release);
    let job = worker::Job::new(package, desk.engine.clone(), Some(desk.engines.clone()));
    let flag = Arc::clone(&stop.0);
    let usual = worker::Limits::default();
    let wall = desk.plan.as_ref().map_or(usual.wall, |updates| updates.proof_timeout);
    let proof = tokio::task::spawn_blocking(move || {
        let _one_at_a_time = permit;
        let worker = worker::Worker::of_this_binary();
        worker
            .prove(&job, &worker::Limits { wall, ..usual }, &gates, &flag, &mut |step| tracing::debug!(?step, "proof"))
    });
    match proof.await {
        Ok(Ok(proof)) => {
            tracing::info!(
                model,
                version = %release.version,
                backend = proof.backend,
                provider = proof.provider,
                precision = proof.precision,
                golden_max_diff = proof.golden_max_diff,
                p50_ms = proof.p50_ms,
                p99_ms = proof.p99_ms,
                peak_memory_mb = proof.peak_memory_mb,
                "the release computes here what it should"
            );
            let (p50_ms, p99_ms, peak_memory_mb) = (proof.p50_ms, proof.p99_ms, proof.peak_memory_mb);
            Ok(Done::Proven(Measured { p50_ms, p99_ms, peak_memory_mb }))
        }
        Ok(Err(worker::Refusal::Fault(fault))) => Err(fault.into()),
        Ok(Err(worker::Refusal::Stopped)) | Err(_) => Err(stopping()),
    }
}

async fn shadow(desk: &Desk, model: &str, release: &Release, windows: u64) -> Outcome {
    let path = desk.depot.installed(model, release);
    if desk.fit(model, &path) == Fit::One {
        return Ok(Done::ShadowSkipped { why: "memory holds one model at a time".into() });
    }
    let permit = Arc::clone(&desk.trials).acquire_owned().await.map_err(|_| stopping())?;
    *desk.trial.borrow_mut() = Some((model.to_owned(), release.clone(), permit));
    let (reply, answer) = oneshot::channel();
    let request = ModelRequest::Try { model: model.to_owned(), path, reply };
    match ask(desk, request, answer).await? {
        Ok(()) => {}
        Err(why @ (SwapError::Incomparable | SwapError::NothingBeside)) => {
            tracing::info!(model, version = %release.version, "not tried: {why}");
            return Ok(Done::ShadowSkipped { why: why.to_string() });
        }
        Err(error) => return Err(not_loaded(&error)),
    }
    let mut last = (0, Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let trial = desk.shared.trial.load_full();
        // A reload has taken away what it was tried beside.
        let Some(trial) = trial.filter(|trial| trial.model == model) else {
            return Err(Fault::new(Code::NoWindows, "a reload ended the trial").into());
        };
        let compared = trial.compared.load(Relaxed);
        tell(desk, model, "shadowing", release, compared.min(windows), Some(windows));
        judge(&trial)?;
        if compared >= windows {
            return Ok(Done::Shadowed { windows: compared, agreed: trial.agreed.load(Relaxed) });
        }
        if compared > last.0 {
            last = (compared, Instant::now());
        } else if last.1.elapsed() > NO_WINDOWS {
            let detail = format!("{compared} of {windows}, and none within {} s", NO_WINDOWS.as_secs());
            return Err(Fault::new(Code::NoWindows, detail).into());
        }
    }
}

/// A candidate that fails on live video.
fn judge(trial: &TrialView) -> Result<(), Fault> {
    let (failed, not_finite) = (trial.tally.failed.load(Relaxed), trial.tally.not_finite.load(Relaxed));
    if failed + not_finite == 0 {
        return Ok(());
    }
    let fault = trial.fault.load();
    let said = fault.as_ref().map_or("", |fault| fault.as_str());
    let detail = format!("{} of {} windows: {said}", failed + not_finite, trial.tally.requests());
    Err(Fault::new(if failed > 0 { Code::ShadowFailed } else { Code::NotFinite }, detail))
}

async fn load(desk: &Desk, model: &str, slot: &Slot) -> Outcome {
    let Some(path) = desk.path_of(model, slot) else {
        return Err(Fault::new(Code::LoadFailed, "the configuration has no such model any more").into());
    };
    let package = match slot {
        Slot::Factory => Package::Factory,
        Slot::Release(_) => Package::Installed(path.clone()),
    };
    // A candidate that is tried is in memory already.
    let fit = if desk.is_tried(model, slot) { Fit::Both } else { desk.fit(model, &path) };
    let (reply, answer) = oneshot::channel();
    let request = ModelRequest::Exchange { model: model.to_owned(), package, fit, reply };
    match ask(desk, request, answer).await? {
        Ok(()) => Ok(Done::Plain),
        Err(error) => Err(not_loaded(&error)),
    }
}

fn not_loaded(error: &SwapError) -> Failure {
    let code = match error {
        SwapError::Package(_) => Code::PackageInvalid,
        SwapError::Overrides(_) => Code::LabelsChanged,
        // A reload has taken the model out: the release is not to blame.
        SwapError::Unknown { .. } => Code::Interrupted,
        // Nothing bounds this process but what the device has.
        error if is_of_memory(&error.to_string()) => Code::NoMemory,
        _ => Code::LoadFailed,
    };
    Fault::new(code, error.to_string()).into()
}

async fn settle(desk: &Desk, model: &str, current: Slot, previous: Option<Slot>) -> Outcome {
    let (depot, model) = (desk.depot.clone(), model.to_owned());
    on_disk(desk, move |wanted| {
        depot.link(&model, &current, previous.as_ref()).map_err(|e| e.fault())?;
        depot.collect(wanted).map_err(|e| e.fault())
    })
    .await?;
    Ok(Done::Plain)
}

/// Engines of packages that have gone while no agent ran.
pub(super) async fn sweep(desk: Rc<Desk>) {
    let depot = desk.depot.clone();
    let swept = on_disk(&desk, move |wanted| depot.collect_engines(wanted).map_err(|e| e.fault())).await;
    if let Err(Failure { fault, .. }) = swept {
        tracing::warn!(%fault, "engines of models that are gone stay on the disk");
    }
}

impl Desk {
    /// Whether memory holds the package beside what runs.
    fn fit(&self, model: &str, path: &std::path::Path) -> Fit {
        let swap = self.plan.as_ref().map_or(UpdateSwap::Auto, |plan| plan.swap);
        let measured = self.measured.borrow().get(model).copied();
        memory::fit(swap, measured.unwrap_or_else(|| models::estimate(path)))
    }
}

fn tell(desk: &Desk, model: &str, state: &str, release: &Release, done: u64, of: Option<u64>) {
    let (model, state, version) = (model.to_owned(), state.to_owned(), Some(release.version.to_string()));
    desk.tell_progress(ModelProgress { model, state, version, done, of });
}

/// Asks the thread that reloads.
async fn ask<T>(desk: &Desk, request: ModelRequest, answer: oneshot::Receiver<T>) -> Result<T, Failure> {
    desk.reload.send(Request::Model(request)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}

/// On a thread of the runtime, one after the other: one that was cut off ends before the next begins. What must stay on the disk
/// is looked at when its turn has come.
async fn on_disk<T: Send + 'static>(
    desk: &Desk,
    work: impl FnOnce(&Wanted) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Failure> {
    let held = Arc::clone(&desk.disk).lock_owned().await;
    let wanted = desk.wanted();
    let one_at_a_time = move || {
        let _held = held;
        work(&wanted)
    };
    match tokio::task::spawn_blocking(one_at_a_time).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(stopping()),
    }
}

fn stopping() -> Failure {
    Fault::new(Code::Interrupted, "the agent stops").into()
}

/// Ends a child process when the job that waits for it is cut off.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use kinewatch_core::manifest::Sequence;

    use super::*;

    #[test]
    fn memory_that_is_short_is_not_the_fault_of_the_release() {
        let code = |said: &str| not_loaded(&SwapError::Refused(said.into())).fault.code;
        assert_eq!(code("tiny.fp32.onnx: ort: std::bad_alloc"), Code::NoMemory);
        assert_eq!(code("tiny.fp32.onnx: ort: CUDA failure 2: out of memory ; GPU=0"), Code::NoMemory);
        assert_eq!(code("tiny.fp32.onnx: ort: no protobuf"), Code::LoadFailed);
    }

    #[test]
    fn a_package_is_the_release_that_the_channel_speaks_of_and_labels_change_only_where_it_says_so() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/packages/tiny-bright");
        let manifest = kinewatch_ota::open_verified(&dir).unwrap().manifest;
        let release = |version: &str| Release {
            channel: "stable".into(),
            epoch: 1,
            version: version.parse().unwrap(),
            bundle: "models/tiny-bright/1.0.0/bundle.tar.zst".into(),
            sha256: "0".repeat(64),
            length: 1,
        };
        let judge = |manifest: &Manifest, version, model, labels, overrides: &str| {
            let overrides: Overrides = toml::from_str(overrides).unwrap();
            fits(manifest, &release(version), model, labels, Some(&dir), &overrides).map_err(|fault| fault.code)
        };
        let same = |version, model| judge(&manifest, version, model, Labels::Same, "");
        assert_eq!(same("1.0.0", "tiny-bright"), Ok(()));
        assert_eq!(same("1.0.1", "tiny-bright"), Err(Code::WrongRelease));
        assert_eq!(same("1.0.0", "other"), Err(Code::WrongRelease));
        let mut renamed = manifest.clone();
        renamed.labels[1].name = "greet".into();
        assert_eq!(judge(&renamed, "1.0.0", "tiny-bright", Labels::Same, ""), Err(Code::LabelsChanged));
        assert_eq!(judge(&renamed, "1.0.0", "tiny-bright", Labels::Changed, ""), Ok(()));
        let mut silenced = manifest.clone();
        silenced.labels[1].publish = false;
        let (parts, within) = (vec![1, 2], 1_000_000_000);
        silenced.sequences.push(Sequence { name: "greeting".into(), parts, within, longest: None });
        assert_eq!(judge(&silenced, "1.0.0", "tiny-bright", Labels::Same, ""), Err(Code::LabelsChanged));
        assert_eq!(judge(&silenced, "1.0.0", "tiny-bright", Labels::Changed, ""), Ok(()));
        let configured = "[wave]\non = 0.7";
        assert_eq!(judge(&manifest, "1.0.0", "tiny-bright", Labels::Changed, configured), Ok(()));
        assert_eq!(judge(&renamed, "1.0.0", "tiny-bright", Labels::Changed, configured), Err(Code::LabelsChanged));
    }
}
