//! Models that are tried, exchanged and taken back on request: what the updater asks of the running agent.
//!
//! On the thread `reload`, one after the other with reloads, so that each finds what the one before has left. A model that
//! cannot be opened changes nothing; where the old one had to go first ([`Fit::One`]) it is opened again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kinewatch_core::manifest::ManifestError;
use kinewatch_ota::PackageError;
use tokio::sync::oneshot;

use super::{Outcome, Reloader, Verdict};
use crate::change::Change;
use crate::config::diff::diff;
use crate::config::plan::{ModelPlan, Plan};
use crate::prepare::PrepareError;
use crate::tally::TrialView;

const STILL_MISSING: &str = "the model that ran before cannot be opened again: nothing is scored by it, and its open actions end; \
     a reload of the configuration (SIGHUP) tries it again";

/// What is asked for.
#[derive(Debug)]
pub enum ModelRequest {
    /// Open the package and try it beside the model of that name. Another trial ends.
    Try {
        /// Name in the configuration.
        model: String,
        /// Directory of the package.
        path: PathBuf,
        /// Answered once it is being tried.
        reply: oneshot::Sender<Result<(), SwapError>>,
    },
    /// Nothing is to be tried any more.
    EndTrial {
        /// Answered once the candidate's memory is free.
        reply: oneshot::Sender<()>,
    },
    /// Put a package in the place of the model of that name. The candidate, where it is that package.
    Exchange {
        /// Name in the configuration.
        model: String,
        /// Which package.
        package: Package,
        /// Whether memory holds both at once.
        fit: Fit,
        /// Answered once it has taken its place, or all is as before.
        reply: oneshot::Sender<Result<(), SwapError>>,
    },
    /// Open the package that runs once more, with whatever that takes: the engine that it waited for is there. Nothing is done
    /// where another package has taken its place.
    Reopen {
        /// Name in the configuration.
        model: String,
        /// Of the package.
        digest: String,
        /// Whether memory holds both at once.
        fit: Fit,
        /// Answered once it has taken its place, or all is as before.
        reply: oneshot::Sender<Result<(), SwapError>>,
    },
}

/// What is to run under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Package {
    /// The package that the configuration names.
    Factory,
    /// One that was installed over it, in this directory.
    Installed(PathBuf),
}

/// Whether memory holds the old model and the new one at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Both: no window is left out.
    Both,
    /// One: the old goes before the new is opened, and windows between are left out and counted.
    One,
}

/// Why a model was not tried, or not exchanged. All is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// No model of this name is in the configuration.
    #[error("no model \"{model}\" is in the configuration")]
    Unknown {
        /// Name.
        model: String,
    },
    /// The package on disk is not what it should be.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Decoder settings of the configuration do not fit it.
    #[error("[model.labels] of the configuration does not fit the package: {0}")]
    Overrides(#[from] ManifestError),
    /// It reads other frames or has other labels than the model in use: there is nothing to compare.
    #[error("it reads other frames or has other labels than the model in use, so the two cannot be compared")]
    Incomparable,
    /// The model in use is lost: there is nothing to compare with.
    #[error("the model in use cannot be opened, so there is nothing to compare with")]
    NothingBeside,
    /// It cannot be opened or laid out here.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// Refused by the running agent.
    #[error("{0}")]
    Refused(String),
}

impl Reloader {
    /// `None` when the process stops meanwhile.
    pub(super) fn serve(&mut self, request: ModelRequest) -> Option<()> {
        // Whoever asked may have stopped waiting.
        match request {
            ModelRequest::Try { model, path, reply } => {
                let _gone = reply.send(self.begin_trial(&model, &path));
            }
            ModelRequest::EndTrial { reply } => {
                self.end_trial();
                let _gone = reply.send(());
            }
            ModelRequest::Exchange { model, package, fit, reply } => {
                let result = match self.with_package(&model, &package) {
                    Ok(plan) => self.exchange(&model, plan, fit)?,
                    Err(error) => Err(error),
                };
                if result.is_ok() {
                    self.installed.remove(&model);
                    if let Package::Installed(path) = package {
                        self.installed.insert(model, path);
                    }
                }
                let _gone = reply.send(result);
            }
            ModelRequest::Reopen { model, digest, fit, reply } => {
                let _gone = reply.send(self.reopen(&model, &digest, fit)?);
                // What did not serve is not built again before the next start.
                drop(self.preparer.take_postponed());
            }
        }
        Some(())
    }

    /// What is to be seen of a trial goes with the model that it was beside.
    pub(super) fn note_trial(&self) {
        let trial = self.shared.trial.load();
        if trial.as_ref().is_some_and(|trial| !self.preparer.tries(&trial.model)) {
            self.shared.trial.store(None);
        }
    }

    fn begin_trial(&mut self, model: &str, path: &Path) -> Result<(), SwapError> {
        self.end_trial();
        if self.missing.contains(model) {
            return Err(SwapError::NothingBeside);
        }
        let plan = self.with_package(model, &Package::Installed(path.to_owned()))?;
        let Some(new) = plan.models.iter().find(|m| m.name == model) else { return Err(unknown(model)) };
        let (slot, loaded) = self.preparer.open_candidate(new)?.ok_or(SwapError::Incomparable)?;
        let (version, sha256) = (new.manifest.version.clone(), new.digest.clone());
        tracing::info!(model, version, "the candidate is tried beside the model in use");
        let view = TrialView { model: model.to_owned(), version, sha256, ..TrialView::default() };
        self.shared.trial.store(Some(Arc::new(view)));
        self.mailbox.change(Change::TrialBegins { slot, candidate: Box::new(loaded) });
        Ok(())
    }

    fn end_trial(&mut self) {
        if self.preparer.forget_candidate() {
            let (back, comes) = oneshot::channel();
            self.mailbox.change(Change::TrialEnds { back });
            // Its memory is let go here, not in the thread that carries frames.
            drop(comes.blocking_recv());
        }
        self.shared.trial.store(None);
    }

    fn exchange(&mut self, model: &str, plan: Plan, fit: Fit) -> Option<Result<(), SwapError>> {
        let before = self.running.clone();
        if diff(&before, &plan).models.is_empty() {
            return if self.missing.contains(model) { self.open_again(model, plan) } else { Some(Ok(())) };
        }
        if fit == Fit::One {
            self.end_trial();
            self.withdraw(model);
        }
        let outcome = taken(&self.apply(&diff(&before, &plan), plan)?);
        if outcome.is_err()
            && self.missing.contains(model)
            && let Err(error) = self.open_again(model, before)?
        {
            self.lose(model, &error);
        }
        Some(outcome)
    }

    fn reopen(&mut self, model: &str, digest: &str, fit: Fit) -> Option<Result<(), SwapError>> {
        let running = self.running.clone();
        if !running.models.iter().any(|m| m.name == model && m.digest == digest) {
            return Some(Ok(()));
        }
        if fit == Fit::One {
            self.end_trial();
            self.withdraw(model);
        }
        self.preparer.expect_engine(Some(model));
        let outcome = self.open_again(model, running.clone());
        self.preparer.expect_engine(None);
        let outcome = outcome?;
        if outcome.is_err()
            && self.missing.contains(model)
            && let Err(error) = self.open_again(model, running)?
        {
            self.lose(model, &error);
        }
        Some(outcome)
    }

    /// Opens the package of a model that is planned already.
    fn open_again(&mut self, model: &str, plan: Plan) -> Option<Result<(), SwapError>> {
        // Anything but the digest: the same package is opened again.
        let mut none = plan.clone();
        none.models.iter_mut().filter(|m| m.name == model).for_each(|m| m.digest.clear());
        Some(taken(&self.apply(&diff(&none, &plan), plan)?))
    }

    /// What could not be put back may fit by now.
    pub(super) fn put_back_missing(&mut self) -> Option<()> {
        for model in self.missing.clone() {
            if let Err(error) = self.open_again(&model, self.running.clone())? {
                tracing::error!(model, %error, "{STILL_MISSING}");
            }
        }
        Some(())
    }

    /// Neither the new model nor the one before can be opened.
    fn lose(&self, model: &str, error: &SwapError) {
        tracing::error!(model, %error, "{STILL_MISSING}");
        if let Some(slot) = self.preparer.slot_of(model) {
            self.mailbox.change(Change::Lost { slot });
        }
    }

    /// Takes the model out of the thread that infers, and frees its memory.
    fn withdraw(&mut self, model: &str) {
        let Some(slot) = self.preparer.slot_of(model) else { return };
        self.missing.insert(model.to_owned());
        let (back, comes) = oneshot::channel();
        self.mailbox.change(Change::Withdrawn { slot, back });
        drop(comes.blocking_recv());
    }

    /// The running plan with another package for one model.
    fn with_package(&self, model: &str, package: &Package) -> Result<Plan, SwapError> {
        let mut plan = self.running.clone();
        let Some(planned) = plan.models.iter_mut().find(|m| m.name == model) else { return Err(unknown(model)) };
        let path = match package {
            Package::Factory => planned.factory.clone(),
            Package::Installed(path) => path.clone(),
        };
        put(planned, &path)?;
        Ok(plan)
    }

    /// Releases that are installed stay in the place of what the configuration names.
    pub(super) fn keep_installed(&self, plan: &mut Plan) -> Result<(), SwapError> {
        for model in &mut plan.models {
            if let Some(path) = self.installed.get(&model.name) {
                put(model, path)?;
            }
        }
        Ok(())
    }
}

/// Lets a model be loaded from another directory.
///
/// # Errors
/// The package there is not whole, or the configuration's decoder settings do not fit it.
pub fn put(model: &mut ModelPlan, path: &Path) -> Result<(), SwapError> {
    let package = kinewatch_ota::open_verified(path)?;
    model.overrides.check(&package.manifest)?;
    path.clone_into(&mut model.path);
    (model.digest, model.manifest) = (package.digest, Arc::new(package.manifest));
    Ok(())
}

fn unknown(model: &str) -> SwapError {
    SwapError::Unknown { model: model.to_owned() }
}

fn taken(outcome: &Outcome) -> Result<(), SwapError> {
    match outcome.result {
        Verdict::Applied => Ok(()),
        Verdict::Refused => Err(SwapError::Refused(outcome.problems.join("; "))),
    }
}
