//! What is loaded when the agent starts: the release that serves, the one before it, or the package of the configuration.
//!
//! Runs before any model is opened, on the thread that opens them. A try is spent, and committed, before a release that has
//! not proven itself is loaded; where that cannot be committed it is not loaded. Whatever is wrong with updates, a model is
//! loaded: the package of the configuration at the latest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kinewatch_core::rollout::step::{Done, Input, Job, Policy, Settings, Step};
use kinewatch_core::rollout::{Code, Fault, Machine, Record, Slot};
use kinewatch_engine::is_of_memory;
use kinewatch_ota::depot::{Depot, Options};
use semver::Version;

use super::driver::loads;
use super::ledger::Ledger;
use super::moment;
use crate::clock;
use crate::config::file::UpdatePolicy;
use crate::config::plan::{Plan, UpdatesPlan};
use crate::inference;
use crate::prepare::PrepareError;
use crate::reload::put;

/// Where updates of a state directory live.
#[must_use]
pub fn home(state_dir: &Path) -> PathBuf {
    state_dir.join("models")
}

/// Updates as the start has left them.
#[derive(Debug)]
pub struct Boot {
    pub(super) ledger: Ledger,
    pub(super) home: PathBuf,
    pub(super) depot: Depot,
    /// Every record that is stored.
    pub(super) records: BTreeMap<String, Record>,
    pub(super) models: Vec<Started>,
    /// Versions and digests of the packages that the configuration names, by model.
    pub(super) factory: BTreeMap<String, (String, String)>,
}

/// A model that is about to be loaded.
#[derive(Debug)]
pub(super) struct Started {
    pub name: String,
    pub machine: Machine,
    /// The last step; the record in it is committed.
    pub step: Step,
    /// What is loaded.
    pub slot: Slot,
    /// That this process has started stands in the record.
    pub committed: bool,
}

impl Boot {
    /// Chooses for each model of the plan what is loaded, and says so in the plan. `None` where there are no updates, and never
    /// were: then nothing is made on the disk.
    pub fn begin(plan: &mut Plan) -> Option<Self> {
        let home = home(&plan.device.state_dir);
        if plan.updates.is_none() && !home.exists() {
            return None;
        }
        let options = Options { reserve_bytes: plan.updates.as_ref().map_or(0, |updates| updates.reserve) };
        let opened = Ledger::open(&home).and_then(|ledger| {
            let depot = Depot::open(&home, options).map_err(|error| error.fault())?;
            let depot = depot.with_engines(inference::engines(&plan.device.state_dir));
            // Of models that are not configured too: what they name stays on the disk.
            let records = ledger.records()?;
            Ok((ledger, depot, records))
        });
        let (ledger, depot, records) = match opened {
            Ok(opened) => opened,
            Err(fault) => {
                tracing::error!(%fault, "updates do not work: {}", fault.code.explain());
                load_linked(plan, &home);
                return None;
            }
        };
        let version =
            |m: &crate::config::plan::ModelPlan| (m.name.clone(), (m.manifest.version.clone(), m.digest.clone()));
        let factory = plan.models.iter().map(version).collect();
        let records = records.into_iter().map(|record| (record.model.clone(), record)).collect();
        let mut boot = Self { ledger, home, depot, records, models: Vec::new(), factory };
        for index in 0..plan.models.len() {
            let (name, version) = (plan.models[index].name.clone(), plan.models[index].manifest.version.clone());
            let machine = Machine::new(settings(plan, &version));
            let started = boot.start(&name, machine, plan.updates.as_ref());
            boot.models.push(started);
            boot.place(plan, index);
        }
        Some(boot)
    }

    /// A model could not be opened. Gives whether there is another to try, which stands in the plan then.
    pub fn unusable(&mut self, plan: &mut Plan, error: &PrepareError) -> bool {
        let PrepareError::Model(error) = error else { return false };
        // Both kinds of failure name the directory that they are about.
        let said = error.to_string();
        let about = |path: &Path| said.contains(&path.display().to_string());
        let index = plan.models.iter().position(|model| model.path != model.factory && about(&model.path));
        let Some(index) = index else { return false };
        let code = if is_of_memory(&said) { Code::NoMemory } else { Code::LoadFailed };
        let fault = Fault::new(code, said);
        self.give_up(index, &fault, plan.updates.as_ref());
        self.place(plan, index);
        true
    }

    fn start(&mut self, name: &str, machine: Machine, updates: Option<&UpdatesPlan>) -> Started {
        let record = match self.ledger.record(name, || self.depot.found(name).record(name)) {
            Ok(record) => record,
            Err(fault) => {
                tracing::error!(model = name, %fault, "the record of its releases cannot be read");
                Record { fault: Some(fault), ..self.depot.found(name).record(name) }
            }
        };
        let step = machine.step(&record, &Input::Started, moment::now(updates));
        let committed = self.ledger.commit(&step.record, step.note.as_ref(), None);
        let slot = match &committed {
            Ok(()) => step.record.serving(),
            Err(fault) => {
                // The try could not be spent.
                tracing::error!(model = name, %fault, "the state of updates cannot be stored: no release on trial is loaded");
                record.current.clone()
            }
        };
        let committed = committed.is_ok();
        let step = if committed { step } else { Step { record, job: Job::None, ..step } };
        Started { name: name.to_owned(), machine, step, slot, committed }
    }

    /// What serves cannot be loaded: what is next?
    fn give_up(&mut self, index: usize, fault: &Fault, updates: Option<&UpdatesPlan>) {
        let started = &mut self.models[index];
        tracing::error!(model = started.name, %fault, "what was installed cannot be loaded: {}", fault.code.explain());
        if !started.committed {
            // Nothing comes before `Started`; what serves by the record may be a release on trial.
            started.slot = Slot::Factory;
            return;
        }
        let input = Input::Unusable { slot: started.slot.clone(), fault: fault.clone() };
        let step = started.machine.step(&started.step.record, &input, moment::now(updates));
        match self.ledger.commit(&step.record, step.note.as_ref(), None) {
            Ok(()) => {
                started.slot = step.record.serving();
                started.step = step;
            }
            Err(error) => {
                tracing::error!(model = started.name, %error, "the state of updates cannot be stored");
                started.slot = Slot::Factory;
            }
        }
    }

    /// Puts what is to be loaded into the plan; what is damaged on the disk is given up at once.
    fn place(&mut self, plan: &mut Plan, index: usize) {
        loop {
            let started = &self.models[index];
            let model = &mut plan.models[index];
            let path = match &started.slot {
                Slot::Factory => model.factory.clone(),
                Slot::Release(release) => self.depot.installed(&started.name, release),
            };
            match (put(model, &path), &started.slot) {
                (Ok(()), slot) => {
                    if let Slot::Release(release) = slot {
                        let (model, version) = (&started.name, &release.version);
                        tracing::info!(model, %version, epoch = release.epoch, "an installed release is loaded");
                    }
                    return;
                }
                // The check of the configuration has just read it; what opens it will say what is wrong.
                (Err(_), Slot::Factory) => return,
                (Err(error), Slot::Release(_)) => {
                    let fault = Fault::new(Code::PackageInvalid, error.to_string());
                    self.give_up(index, &fault, plan.updates.as_ref());
                }
            }
        }
    }
}

/// Links name what has proven itself, also where nothing can be read or stored of how it came there.
fn load_linked(plan: &mut Plan, home: &Path) {
    for model in &mut plan.models {
        let linked = home.join("current").join(&model.name);
        let Ok(path) = std::fs::canonicalize(&linked) else { continue };
        if let Err(error) = put(model, &path) {
            tracing::error!(model = model.name, %error, "what was installed is not used");
        }
    }
}

/// Puts back what the configuration names. Gives whether anything else was there.
pub fn to_factory(plan: &mut Plan) -> bool {
    let elsewhere = plan.models.iter_mut().filter(|model| model.path != model.factory);
    elsewhere.fold(false, |_, model| {
        let factory = model.factory.clone();
        put(model, &factory).is_ok()
    })
}

impl Started {
    /// What its driver is given first: the job that loading it has done, or the start itself where that is not stored yet.
    pub(super) fn first(&self) -> Input {
        if !self.committed {
            Input::Started
        } else if loads(&self.step.job) == Some(&self.slot) {
            Input::Ended { job: Box::new(self.step.job.clone()), result: Ok(Done::Plain) }
        } else {
            Input::Tick
        }
    }
}

fn settings(plan: &Plan, factory: &str) -> Settings {
    let updates = plan.updates.as_ref();
    Settings {
        device: format!("{}/{}", plan.device.group, plan.device.name),
        agent: env!("CARGO_PKG_VERSION").parse().unwrap_or(Version::new(0, 0, 0)),
        factory: factory.parse().ok(),
        channel: updates.map_or_else(String::new, |updates| updates.channel.clone()),
        policy: match updates.map(|updates| updates.policy) {
            Some(UpdatePolicy::Auto) => Policy::Auto,
            Some(UpdatePolicy::Manual) => Policy::Manual,
            Some(UpdatePolicy::Pinned) | None => Policy::Pinned,
        },
        poll_period: updates.map_or(std::time::Duration::from_secs(3600), |updates| updates.poll),
        boot: clock::state().boot_id,
    }
}
