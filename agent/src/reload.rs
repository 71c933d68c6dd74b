//! Another configuration while the process runs: read and checked whole, compared, prepared, handed over. One that is wrong
//! changes nothing.
//!
//! Lives in the thread `reload`, which may block for as long as models take to open; only the handover itself happens on
//! the main thread. Asked for by SIGHUP, and by whoever has a [`Requests`]. See `agent/design/reload.md`.

mod models;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

pub use self::models::{Fit, ModelRequest, Package, SwapError, put};
use crate::builds;
use crate::cameras::NotStarted;
use crate::change::Change;
use crate::config::diff::{Difference, ModelDifference, applied, diff};
use crate::config::plan::Plan;
use crate::config::{self, Environment, Probe, Severity};
use crate::health::Shared;
use crate::logging;
use crate::mailbox::Mailbox;
use crate::prepare::{Handover, Preparer};

/// Requests that may wait. One that finds no room is of no use: one that waits reads the file as it is by then.
const QUEUE: usize = 4;
/// Mistakes that are told, of a file that may hold thousands.
const MOST_PROBLEMS: usize = 50;
/// A reload that takes longer hangs; a TensorRT engine may be built for minutes.
const LONG: Duration = Duration::from_secs(600);

/// What is asked for.
#[derive(Debug)]
pub enum Request {
    /// To read the configuration again. `None` as the way to answer: nobody waits.
    Read(Option<oneshot::Sender<Arc<Outcome>>>),
    /// To try or exchange a model.
    Model(ModelRequest),
}

/// Where that is asked for; bounded. With `try_send`, a full queue means that one is about to happen.
pub type Requests = mpsc::Sender<Request>;

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// When, RFC 3339.
    pub at: String,
    /// Whether the file is in use.
    pub result: Verdict,
    /// What is different now, one line each; nothing when nothing was.
    pub changes: Vec<String>,
    /// Keys whose new value counts after a restart of the process.
    pub after_restart: Vec<String>,
    /// What is wrong, as `check-config` prints it; at most 50 lines.
    pub problems: Vec<String>,
}

/// Whether a file was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is in use.
    Applied,
    /// All goes on as before.
    Refused,
}

/// How reloads went, for status and metrics.
#[derive(Debug, Default)]
pub struct ReloadView {
    /// Files taken, whether or not anything was different.
    pub applied: AtomicU64,
    /// Files refused.
    pub refused: AtomicU64,
    /// The newest.
    pub last: ArcSwapOption<Outcome>,
    /// When the one that is going on began.
    begun: ArcSwapOption<Instant>,
}

/// A handover for the main thread, and where it says what could not be started.
#[derive(Debug)]
pub struct Pending {
    /// To be carried out.
    pub handover: Handover,
    /// To be answered.
    pub done: oneshot::Sender<Vec<NotStarted>>,
}

/// The state of the `reload` thread.
#[derive(Debug)]
pub struct Reloader {
    running: Plan,
    preparer: Preparer,
    handovers: mpsc::Sender<Pending>,
    mailbox: Arc<Mailbox<Change>>,
    shared: Arc<Shared>,
    builds: builds::Requests,
    /// Releases that run instead of what the configuration names, by model.
    installed: BTreeMap<String, PathBuf>,
    /// Models that were withdrawn and could not be put back: they stand in the plan, and nothing is scored by them.
    missing: BTreeSet<String>,
}

impl ReloadView {
    /// Whether the newest file was taken; so long as none was read, that of the start was.
    #[must_use]
    pub fn last_is_applied(&self) -> bool {
        self.last.load().as_ref().is_none_or(|last| last.result == Verdict::Applied)
    }

    /// For how long one has been going on that should have ended: a file, a device or a model hangs.
    #[must_use]
    pub fn hangs(&self, now: Instant) -> Option<Duration> {
        let begun = self.begun.load();
        begun.as_ref().map(|begun| now.saturating_duration_since(**begun)).filter(|since| *since >= LONG)
    }

    fn note(&self, outcome: Arc<Outcome>) {
        let count = if outcome.result == Verdict::Applied { &self.applied } else { &self.refused };
        count.fetch_add(1, Relaxed);
        self.last.store(Some(outcome));
    }
}

impl Outcome {
    /// One line for a person.
    #[must_use]
    pub fn summary(&self) -> String {
        match self.result {
            Verdict::Refused => {
                let first = self.problems.first().map_or("", String::as_str);
                format!("configuration refused, the one of before goes on: {first}")
            }
            Verdict::Applied if self.changes.is_empty() => "configuration reloaded: nothing is different".into(),
            Verdict::Applied if self.problems.is_empty() => {
                format!("configuration reloaded: {}", counted(self.changes.len(), "change"))
            }
            Verdict::Applied => {
                let changes = counted(self.changes.len(), "change");
                format!(
                    "configuration reloaded: {changes}, of which not all could be made: {}",
                    self.problems.join("; ")
                )
            }
        }
    }

    fn new(result: Verdict) -> Self {
        let at = jiff::Timestamp::now().to_string();
        Self { at, result, changes: Vec::new(), after_restart: Vec::new(), problems: Vec::new() }
    }

    fn refused(mut problems: Vec<String>) -> Self {
        let more = problems.len().saturating_sub(MOST_PROBLEMS);
        if more > 0 {
            problems.truncate(MOST_PROBLEMS - 1);
            problems.push(format!("… and {} more: kinewatch check-config lists them", more + 1));
        }
        Self { problems, ..Self::new(Verdict::Refused) }
    }
}

/// The queue of requests.
#[must_use]
pub fn requests() -> (Requests, mpsc::Receiver<Request>) {
    mpsc::channel(QUEUE)
}

/// Makes a request of each SIGHUP, which without this would end the process.
///
/// # Errors
/// The signal cannot be watched.
pub fn watch_hangup(runtime: &Runtime, requests: Requests) -> io::Result<()> {
    let _entered = runtime.enter();
    let mut hangup = signal(SignalKind::hangup())?;
    runtime.spawn(async move {
        while hangup.recv().await.is_some() {
            // Full: one that waits will do.
            let _queued = requests.try_send(Request::Read(None));
        }
    });
    Ok(())
}

impl Reloader {
    /// `running`: the plan that runs, as `preparer` has prepared it. Handovers go to the main thread, models that wait for an
    /// engine to `builds`.
    #[must_use]
    pub fn new(
        running: Plan,
        preparer: Preparer,
        handovers: mpsc::Sender<Pending>,
        mailbox: Arc<Mailbox<Change>>,
        shared: Arc<Shared>,
        builds: builds::Requests,
    ) -> Self {
        let elsewhere = running.models.iter().filter(|model| model.path != model.factory);
        let installed = elsewhere.map(|model| (model.name.clone(), model.path.clone())).collect();
        let missing = BTreeSet::new();
        Self { running, preparer, handovers, mailbox, shared, builds, installed, missing }
    }

    /// Serves requests until nobody can ask any more or the main thread stops.
    pub fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.blocking_recv() {
            self.shared.reloads.begun.store(Some(Arc::new(Instant::now())));
            let reply = match request {
                Request::Read(reply) => reply,
                Request::Model(request) => {
                    if self.serve(request).is_none() {
                        return;
                    }
                    self.shared.reloads.begun.store(None);
                    builds::ask(&self.builds, self.preparer.take_postponed());
                    continue;
                }
            };
            tracing::info!(file = %self.running.file.display(), "the configuration is read again");
            let Some(outcome) = self.reload() else { return };
            builds::ask(&self.builds, self.preparer.take_postponed());
            self.shared.reloads.begun.store(None);
            say(&outcome);
            let outcome = Arc::new(outcome);
            self.shared.reloads.note(Arc::clone(&outcome));
            if let Some(reply) = reply {
                // Whoever asked may have stopped waiting.
                let _gone = reply.send(outcome);
            }
        }
    }

    /// `None` when the process stops meanwhile.
    fn reload(&mut self) -> Option<Outcome> {
        self.put_back_missing()?;
        let mut report = config::check(&self.running.file, &Environment::of_process(), Probe::Machine);
        report.lines(Severity::Warning).iter().for_each(|warning| tracing::warn!("{warning}"));
        let Some(mut plan) = report.plan.take().filter(|_| report.is_ok()) else {
            return Some(Outcome::refused(report.lines(Severity::Error)));
        };
        if let Err(error) = self.keep_installed(&mut plan) {
            return Some(Outcome::refused(vec![format!("{}: {error}", plan.file.display())]));
        }
        let difference = diff(&self.running, &plan);
        self.apply(&difference, plan)
    }

    fn apply(&mut self, difference: &Difference, plan: Plan) -> Option<Outcome> {
        let mut outcome = Outcome::new(Verdict::Applied);
        outcome.changes = difference.applied();
        outcome.after_restart = difference.restart.iter().map(|key| (*key).to_owned()).collect();
        let mut plan = applied(&self.running, plan);
        if !(difference.models.is_empty() && difference.cameras.is_empty()) {
            let (handover, returning) = match self.preparer.prepare(difference, &plan) {
                Ok(prepared) => prepared,
                Err(error) => return Some(Outcome::refused(vec![format!("{}: {error}", plan.file.display())])),
            };
            let (done, failed) = oneshot::channel();
            self.handovers.blocking_send(Pending { handover, done }).ok()?;
            for failed in failed.blocking_recv().ok()? {
                // Not there: the next reload tries it again.
                self.preparer.forget(&failed.camera);
                plan.cameras.retain(|camera| camera.name != failed.camera);
                outcome.problems.push(failed.to_string());
            }
            for change in &difference.models {
                if !matches!(change.what, ModelDifference::Thresholds(_)) {
                    self.missing.remove(&change.name);
                }
            }
            // Their memory is let go here, not in the thread that carries frames.
            returning.into_iter().for_each(|model| drop(model.blocking_recv()));
            self.note_trial();
        }
        if let Some(level) = &difference.log_level
            && let Err(problem) = logging::set_level(level)
        {
            outcome.problems.push(problem);
        }
        self.running = plan;
        Some(outcome)
    }
}

fn say(outcome: &Outcome) {
    outcome.problems.iter().for_each(|problem| tracing::error!("{problem}"));
    for key in &outcome.after_restart {
        tracing::warn!("{key} changed: takes effect after `systemctl restart kinewatch`");
    }
    outcome.changes.iter().for_each(|change| tracing::info!("{change}"));
    match outcome.result {
        Verdict::Applied => tracing::info!("{}", outcome.summary()),
        Verdict::Refused => tracing::error!("{}", outcome.summary()),
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_mistakes_is_told_within_bounds() {
        let outcome = Outcome::refused((0..2000).map(|k| format!("f:{k}:1: x")).collect());
        assert_eq!((outcome.problems.len(), outcome.problems[48].as_str()), (MOST_PROBLEMS, "f:48:1: x"));
        assert_eq!(outcome.problems[49], "… and 1951 more: kinewatch check-config lists them");
        assert_eq!(outcome.summary(), "configuration refused, the one of before goes on: f:0:1: x");
        assert_eq!(Outcome::new(Verdict::Applied).summary(), "configuration reloaded: nothing is different");
    }

    #[test]
    fn one_that_does_not_end_is_noticed() {
        let (view, begun) = (ReloadView::default(), Instant::now());
        assert_eq!(view.hangs(begun + LONG), None, "none is going on");
        view.begun.store(Some(Arc::new(begun)));
        assert_eq!((view.hangs(begun + LONG / 2), view.hangs(begun + LONG)), (None, Some(LONG)));
    }

    #[test]
    fn a_refusal_is_seen_until_a_file_is_taken() {
        let view = ReloadView::default();
        assert!(view.last_is_applied(), "that of the start");
        for (verdict, good) in [(Verdict::Refused, false), (Verdict::Refused, false), (Verdict::Applied, true)] {
            view.note(Arc::new(Outcome::new(verdict)));
            assert_eq!(view.last_is_applied(), good);
        }
        assert_eq!((view.applied.load(Relaxed), view.refused.load(Relaxed)), (1, 2));
    }
}
