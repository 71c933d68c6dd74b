//! The driver of one model: asks the rules what follows from what happened, commits it, and sees that it is done.
//!
//! A task of the thread `updates`, and the only owner of the model's record. Nothing is done before it is committed; what a
//! full disk keeps from being committed has not happened, and is said again later. See [`kinewatch_core::rollout::step`].

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kinewatch_core::command::{CommandError, ErrorCode};
use kinewatch_core::event::ModelError;
use kinewatch_core::rollout::step::{Done, Failure, Health, Input, Job, Note, Now, Poll, Step};
use kinewatch_core::rollout::{Code, Disposition, Fault, Machine, Phase, Record, Slot, Stage};
use kinewatch_ota::tuf::Floors;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::desk::Desk;
use super::{Answer, jobs, moment, view};

/// What could not be committed is tried again after this time.
const AGAIN: Duration = Duration::from_secs(5);
/// How often the health of a model on probation is looked at.
const HEALTH: Duration = Duration::from_secs(1);
/// From so many windows on the time that a model takes on live video counts.
const LATENCY_WINDOWS: u64 = 200;

/// What a driver is told beside what it finds out.
#[derive(Debug)]
pub(super) enum Told {
    /// A command.
    Command(Input, Answer),
    /// The agent stops in good order, and nothing has the model loaded any more.
    Stop(oneshot::Sender<()>),
}

/// The state of the task.
pub(super) struct Driver {
    desk: Rc<Desk>,
    machine: Machine,
    record: Record,
    told: mpsc::Receiver<Told>,
    job: Option<(Job, JoinHandle<Result<Done, Failure>>)>,
    poll: Option<JoinHandle<jobs::Answered>>,
    /// What the repository's metadata must not go below, where that is not committed yet.
    floors: Option<Floors>,
    wake: Timestamp,
    /// Inputs whose step could not be committed.
    owed: VecDeque<Input>,
    /// When what serves was loaded.
    loaded: Instant,
    /// When its health was last looked at.
    looked: Instant,
    /// Windows that it had scored when that number last was another, and when that was.
    scored: (u64, Instant),
}

/// What ended the wait.
enum Event {
    Input(Input),
    Told(Told),
    /// Nobody can tell anything any more.
    Closed,
}

impl Driver {
    /// From where the start of the agent has left it: `step` is that of the last input then.
    pub(super) fn new(desk: Rc<Desk>, machine: Machine, step: Step, told: mpsc::Receiver<Told>) -> Self {
        let Step { record, wake, .. } = step;
        let (owed, loaded) = (VecDeque::new(), Instant::now());
        let (looked, scored) = (loaded, (0, loaded));
        Self { desk, machine, record, told, job: None, poll: None, floors: None, wake, owed, loaded, looked, scored }
    }

    /// Runs until it is told to stop, from the input `first` on.
    pub(super) async fn run(mut self, first: Input) {
        // Also where the disk refuses `first`: then the fault is shown with it.
        self.show(moment::now(self.desk.plan.as_ref()));
        self.take(first);
        loop {
            match self.next().await {
                // What ends now may have been ended by the stop, which goes to every process and takes the frames away: it says
                // nothing about the release. The next start asks for it again.
                Event::Input(_) if self.desk.shared.stopping.load(Relaxed) => {}
                Event::Input(input) => {
                    self.take(input);
                }
                Event::Told(Told::Command(input, answer)) => {
                    let outcome = self.command(&input);
                    // Whoever asked may have stopped waiting.
                    let _gone = answer.send(outcome);
                }
                Event::Told(Told::Stop(done)) => {
                    self.cancel().await;
                    if !self.owes_start() {
                        self.take(Input::Stopped);
                    }
                    // It may have begun what follows; nothing does any more.
                    self.cancel().await;
                    let _gone = done.send(());
                    return;
                }
                Event::Closed => return self.cancel().await,
            }
        }
    }

    async fn next(&mut self) -> Event {
        if let Some(input) = self.owed.pop_front() {
            tokio::select! {
                biased;
                told = self.told.recv() => {
                    self.owed.push_front(input);
                    return told.map_or(Event::Closed, Event::Told);
                }
                () = tokio::time::sleep(AGAIN) => return Event::Input(input),
            }
        }
        let until = self.wake.duration_since(Timestamp::now());
        let until = Duration::try_from(until).unwrap_or(Duration::ZERO).max(Duration::from_millis(20));
        let probation = matches!(self.record.phase, Phase::Trial { stage: Stage::Probation, .. });
        tokio::select! {
            told = self.told.recv() => told.map_or(Event::Closed, Event::Told),
            result = ended(self.job.as_mut().map(|(_, handle)| handle)) => {
                let job = self.job.take().map_or(Job::None, |(job, _)| job);
                self.mark(" done");
                Event::Input(Input::Ended { job: Box::new(job), result: result.unwrap_or_else(|| Err(broken())) })
            }
            result = ended(self.poll.as_mut()) => {
                self.poll = None;
                let (floors, result) = result.map_or_else(|| (None, Err(broken())), |(f, result)| (Some(f), result));
                self.floors = floors.filter(|floors| *floors != Floors::default());
                Event::Input(Input::Polled(result))
            }
            () = tokio::time::sleep_until((self.looked + HEALTH).into()), if probation => {
                self.looked = Instant::now();
                Event::Input(Input::Health(self.health()))
            }
            () = tokio::time::sleep(until) => Event::Input(Input::Tick),
        }
    }

    /// The start of this process is not stored yet, and nothing comes before it.
    fn owes_start(&self) -> bool {
        self.owed.front() == Some(&Input::Started)
    }

    fn command(&mut self, input: &Input) -> Result<serde_json::Value, CommandError> {
        if self.owes_start() {
            self.step(&Input::Started).map_err(|fault| CommandError::new(ErrorCode::Failed, fault.to_string()))?;
            self.owed.pop_front();
        }
        match self.step(input) {
            Ok(None) => Ok(json!({ "model": self.record.model, "state": self.record.state() })),
            Ok(Some(fault)) => Err(CommandError::new(ErrorCode::Unavailable, ModelError::from(&fault).to_string())),
            Err(fault) => Err(CommandError::new(ErrorCode::Failed, fault.to_string())),
        }
    }

    /// A step whose input is not lost where it cannot be committed.
    fn take(&mut self, input: Input) {
        if let Err(fault) = self.step(&input) {
            tracing::error!(model = self.record.model, %fault, "the state of updates cannot be stored: nothing is done until it can");
            self.desk.note_fault(&self.record.model, &fault);
            if fault.code == Code::NoSpace
                && let Err(error) = self.desk.depot.give_up_bundles()
            {
                tracing::warn!(model = self.record.model, %error, "bundles cannot be removed from the full disk");
            }
            self.owed.push_back(input);
        }
    }

    /// One step, committed and carried out. Gives why the command was refused.
    fn step(&mut self, input: &Input) -> Result<Option<Fault>, Fault> {
        let now = moment::now(self.desk.plan.as_ref());
        let step = self.machine.step(&self.record, input, now);
        if step.record != self.record || step.note.is_some() || self.floors.is_some() {
            self.desk.commit(&step.record, step.note.as_ref(), self.floors.as_ref())?;
            self.floors = None;
        }
        if let Some(note) = &step.note {
            self.say(note);
        }
        if matches!(input, Input::Ended { job, result: Ok(_) } if loads(job).is_some()) {
            self.loaded = Instant::now();
            self.scored = (0, self.loaded);
        }
        self.desk.shared.updates.count(&self.record, &step.record, input);
        self.record = step.record;
        self.desk.records.borrow_mut().insert(self.record.model.clone(), self.record.clone());
        if step.note.is_some() {
            if self.record.candidate().is_some() {
                self.desk.progress(&self.record, 0, None);
            }
            self.mark("");
        }
        if step.poll == Poll::Begin && self.poll.is_none() && self.desk.plan.is_some() {
            self.poll = Some(tokio::task::spawn_local(jobs::poll(Rc::clone(&self.desk), self.record.model.clone())));
        }
        self.begin(step.job);
        self.wake = step.wake;
        if let Some(measured) = self.record.candidate().and_then(|candidate| candidate.measured) {
            let bytes = measured.peak_memory_mb << 20;
            self.desk.measured.borrow_mut().insert(self.record.model.clone(), bytes);
        }
        self.show(now);
        Ok(step.refused)
    }

    fn show(&self, now: Now) {
        let factory = self.desk.factory.get(&self.record.model).map(|factory| factory.version.as_str());
        let channel = self.desk.plan.as_ref().map(|plan| plan.channel.as_str());
        self.desk.show(view::state(&self.machine, &self.record, now, factory, channel));
    }

    /// Another job takes the place of the one under way, which is cut off. The next one waits for what it holds.
    fn begin(&mut self, job: Job) {
        if self.job.as_ref().is_some_and(|(under_way, _)| *under_way == job) {
            return;
        }
        if let Some((_, handle)) = self.job.take() {
            handle.abort();
        }
        self.desk.leave_trial_unless(&self.record.model, &job);
        if job != Job::None {
            let doing = jobs::run(Rc::clone(&self.desk), self.record.model.clone(), job.clone());
            self.job = Some((job, tokio::task::spawn_local(doing)));
        }
    }

    async fn cancel(&mut self) {
        let poll = self.poll.take();
        for handle in [self.job.take().map(|(_, handle)| handle.abort_handle()), poll.map(|p| p.abort_handle())] {
            handle.iter().for_each(tokio::task::AbortHandle::abort);
        }
        tokio::task::yield_now().await;
    }

    /// How the model that has taken over does, since it was loaded.
    fn health(&mut self) -> Health {
        let shared = Arc::clone(&self.desk.shared);
        let (models, ran) = (shared.models.load(), self.loaded.elapsed());
        // A reload may have taken the model out: then it proves nothing by running long.
        let Some(view) = models.iter().find(|view| view.name == self.record.model) else {
            return Health { idle: self.scored.1.elapsed(), ..Health::default() };
        };
        let windows = view.tally.answered.load(Relaxed);
        if windows != self.scored.0 {
            self.scored = (windows, Instant::now());
        }
        let errors = view.tally.failed.load(Relaxed) + view.tally.not_finite.load(Relaxed);
        let fault = shared.inference_fault.load();
        let detail = fault.as_ref().map_or_else(String::new, |fault| fault.to_string());
        let limit = self.record.candidate().and_then(|candidate| candidate.gates.latency_p99_ms);
        let p99 = view.tally.latency.quantile_at_least_ms(0.99).filter(|_| windows >= LATENCY_WINDOWS);
        let late = limit.zip(p99).filter(|(limit, p99)| p99 > limit).map(|(limit, p99)| {
            format!("1 of 100 windows took {p99:.1} ms or more on live video, permitted are {limit}")
        });
        self.desk.progress(&self.record, windows, self.record.candidate().map(|c| c.gates.probation_windows));
        Health { ran, windows, idle: self.scored.1.elapsed(), errors, detail, late }
    }

    /// For tests that end the process here.
    fn mark(&self, what: &str) {
        if let Some(on_beat) = self.desk.shared.on_beat {
            on_beat(&format!("update {}{what}", self.record.state()));
        }
    }

    fn say(&self, note: &Note) {
        let model = &self.record.model;
        let release = note.release.as_ref().map(|release| format!("{} (epoch {})", release.version, release.epoch));
        let release = release.unwrap_or_else(|| "factory".to_owned());
        let (from, to) = (&note.from, &note.to);
        match &note.fault {
            None => tracing::info!(model, release, from, to, "update"),
            Some(Fault { code, detail }) if level(*code) == tracing::Level::ERROR => {
                tracing::error!(model, release, from, to, code = code.as_str(), detail, "update: {}", code.explain());
            }
            Some(Fault { code, detail }) => {
                tracing::warn!(model, release, from, to, code = code.as_str(), detail, "update: {}", code.explain());
            }
        }
    }
}

/// Of the line that says how a step ended: an error where the release is at fault.
pub(crate) fn level(code: Code) -> tracing::Level {
    match code.disposition() {
        Disposition::Quarantine => tracing::Level::ERROR,
        Disposition::Delay | Disposition::Wait => tracing::Level::WARN,
    }
}

/// The end of a task; never, where there is none. `None`: it was cut off.
async fn ended<T>(handle: Option<&mut JoinHandle<T>>) -> Option<T> {
    match handle {
        Some(handle) => handle.await.ok(),
        None => std::future::pending().await,
    }
}

/// A task that ended without a word: it was cut off by the end of the runtime.
fn broken() -> Failure {
    Fault::new(Code::Interrupted, "the task of the updater was cut off").into()
}

/// The slot that a job loads.
pub(super) fn loads(job: &Job) -> Option<&Slot> {
    match job {
        Job::Load { slot } => Some(slot),
        _ => None,
    }
}
