//! What the drivers of all models share: the database, the depot, the repository, the way into the running agent, and what is
//! shown of it all.
//!
//! Belongs to the thread `updates`. Whatever blocks is done on threads beside it, one after the other where it is about the
//! depot.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kinewatch_core::event::{ModelProgress, ModelState};
use kinewatch_core::manifest::Overrides;
use kinewatch_core::rollout::step::{Job, Note};
use kinewatch_core::rollout::{Fault, Record, Release, Slot};
use kinewatch_core::topic;
use kinewatch_mqtt::Reply;
use kinewatch_ota::depot::{Depot, Wanted};
use kinewatch_ota::tuf::Floors;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::ledger::Ledger;
use super::repository::Repository;
use crate::config::plan::{EnginePlan, UpdatesPlan};
use crate::health::Shared;
use crate::reload::{self, ModelRequest};

/// Progress is told this often, at most.
const PROGRESS: Duration = Duration::from_secs(1);

/// A model as the configuration has it.
#[derive(Clone, Debug)]
pub(super) struct Factory {
    /// Directory of the package.
    pub path: PathBuf,
    /// Its version.
    pub version: String,
    /// Its digest.
    pub digest: String,
    /// Decoder settings of the configuration.
    pub overrides: Overrides,
}

/// What is shared.
pub(super) struct Desk {
    pub plan: Option<UpdatesPlan>,
    pub engine: EnginePlan,
    /// Where back ends keep what they build.
    pub engines: PathBuf,
    /// `models` in the state directory.
    pub home: PathBuf,
    pub depot: Depot,
    pub factory: BTreeMap<String, Factory>,
    /// Every record that is known, those of models that are not in the configuration too: what they name stays on the disk.
    pub records: RefCell<BTreeMap<String, Record>>,
    pub ledger: RefCell<Ledger>,
    pub repository: tokio::sync::Mutex<Option<Repository>>,
    pub reload: reload::Requests,
    pub replies: mpsc::Sender<Reply>,
    pub shared: Arc<Shared>,
    pub session: u64,
    /// Held by whatever changes the depot; first come, first served.
    pub disk: Arc<tokio::sync::Mutex<()>>,
    /// One model is tried at a time.
    pub trials: Arc<Semaphore>,
    /// Who tries one.
    pub trial: RefCell<Option<(String, Release, OwnedSemaphorePermit)>>,
    /// Memory that releases took when they were proven, bytes, by model.
    pub measured: RefCell<BTreeMap<String, u64>>,
    /// When progress was last told.
    pub told: Cell<Option<Instant>>,
}

impl Desk {
    /// One transaction.
    pub(super) fn commit(&self, record: &Record, note: Option<&Note>, floors: Option<&Floors>) -> Result<(), Fault> {
        self.ledger.borrow_mut().commit(record, note, floors)
    }

    pub(super) fn floors(&self) -> Result<Floors, Fault> {
        self.ledger.borrow().floors()
    }

    /// The package of a slot.
    pub(super) fn path_of(&self, model: &str, slot: &Slot) -> Option<PathBuf> {
        match slot {
            Slot::Factory => self.factory.get(model).map(|factory| factory.path.clone()),
            Slot::Release(release) => Some(self.depot.installed(model, release)),
        }
    }

    /// What must stay on the disk.
    pub(super) fn wanted(&self) -> Wanted {
        let running = self.shared.models.load();
        let running = running.iter().filter_map(|view| Some(view.info.load().as_ref()?.sha256.clone()));
        // Engines of what the configuration names are as dear as those of what came over the air.
        let digests = self.factory.values().map(|factory| factory.digest.clone()).chain(running);
        let wanted = Wanted::by(self.records.borrow().values());
        digests.fold(wanted, |wanted, digest| wanted.with_engines_of(&digest))
    }

    /// What a model is from here on, for who looks.
    pub(super) fn show(&self, state: ModelState) {
        let mut all = (**self.shared.updates.state.load()).clone();
        all.session = self.session;
        match all.models.iter_mut().find(|known| known.model == state.model) {
            Some(known) => *known = state,
            None => all.models.push(state),
        }
        self.shared.updates.state.store(Arc::new(all));
    }

    /// Something that is not committed, so no part of the record.
    pub(super) fn note_fault(&self, model: &str, fault: &Fault) {
        let state = self.shared.updates.state.load();
        if let Some(known) = state.models.iter().find(|known| known.model == model) {
            self.show(ModelState { error: Some(fault.into()), ..known.clone() });
        }
    }

    /// How far something is; told when it begins, once a second, and at its end.
    pub(super) fn progress(&self, record: &Record, done: u64, of: Option<u64>) {
        let version = record.candidate().map(|candidate| candidate.release.version.to_string());
        let (model, state) = (record.model.clone(), record.state().to_owned());
        self.tell_progress(ModelProgress { model, state, version, done, of });
    }

    pub(super) fn tell_progress(&self, progress: ModelProgress) {
        let mut all = (**self.shared.updates.progress.load()).clone();
        let ended = progress.of == Some(progress.done);
        let before = all.insert(progress.model.clone(), progress.clone());
        let begins = before.is_none_or(|before| before.state != progress.state);
        self.shared.updates.progress.store(Arc::new(all));
        if self.told.get().is_some_and(|told| told.elapsed() < PROGRESS) && !begins && !ended {
            return;
        }
        self.told.set(Some(Instant::now()));
        let topic = topic::model_progress(&self.shared.group, &self.shared.device);
        let payload = Bytes::from(serde_json::to_vec(&progress).unwrap_or_default());
        // Worth nothing later: dropped where there is no room.
        let _dropped = self.replies.try_send(Reply { topic, payload, correlation: None });
    }

    /// Whether what is to be loaded is the candidate that is tried.
    pub(super) fn is_tried(&self, model: &str, slot: &Slot) -> bool {
        let trial = self.trial.borrow();
        trial.as_ref().is_some_and(|(of, release, _)| of == model && slot.release() == Some(release))
    }

    /// A candidate is let go, unless the job is to let it take over.
    pub(super) fn leave_trial_unless(&self, model: &str, job: &Job) {
        let goes_on = |release: &Release| match job {
            Job::Load { slot: Slot::Release(loaded) } => loaded == release,
            Job::Shadow { release: shadowed, .. } => shadowed == release,
            _ => false,
        };
        let left = self.trial.borrow().as_ref().is_some_and(|(of, release, _)| of == model && !goes_on(release));
        if left {
            self.end_trial();
        }
    }

    /// The candidate goes, and another may be tried.
    pub(super) fn end_trial(&self) {
        let Some((.., permit)) = self.trial.borrow_mut().take() else { return };
        let reload = self.reload.clone();
        tokio::task::spawn_local(async move {
            let (reply, gone) = tokio::sync::oneshot::channel();
            if reload.send(reload::Request::Model(ModelRequest::EndTrial { reply })).await.is_ok() {
                let _ended = gone.await;
            }
            drop(permit);
        });
    }
}
