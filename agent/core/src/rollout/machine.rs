//! The rules: from a record and what happened to the next record and what shall be done. Pure; see [`super::step`] for how it
//! is driven, and `agent/design/ota.md` for the table of states.

use std::time::Duration;

use jiff::Timestamp;

use super::record::raise;
use super::step::{ClockState, Failure, Input, Job, Note, Now, Policy, Poll, Settings, Step, Window};
use super::{
    Candidate, Code, Exposure, Fault, Offer, Phase, Record, Release, Slot, Stage, Verdict, backoff, first_pause,
    poll_pause,
};

/// No pause of ours is longer: a time further away was written by a clock that was wrong.
const MAX_PLAN: Duration = Duration::from_secs(30 * 3600);
/// Longest wait for the next step.
const MAX_WAKE: Duration = Duration::from_secs(3600);
/// How often to look whether the clock is set, a poll is still under way, or the maintenance window still open.
const SOON: Duration = Duration::from_secs(30);

/// The rules of a device.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) settings: Settings,
}

impl Machine {
    /// With these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// What comes of `input`. Never fails; an input that does not fit the record changes nothing.
    #[must_use]
    pub fn step(&self, record: &Record, input: &Input, now: Now) -> Step {
        let mut turn = Turn { machine: self, now, record: record.clone(), refused: None };
        turn.take(input);
        turn.advance();
        let poll = turn.poll();
        Step {
            note: note(record, &turn.record, now.time),
            job: turn.job(),
            wake: turn.wake(poll),
            refused: turn.refused,
            poll,
            record: turn.record,
        }
    }
}

/// One step in the making.
pub(super) struct Turn<'a> {
    pub(super) machine: &'a Machine,
    pub(super) now: Now,
    pub(super) record: Record,
    refused: Option<Fault>,
}

impl Turn<'_> {
    pub(super) fn settings(&self) -> &Settings {
        &self.machine.settings
    }

    fn take(&mut self, input: &Input) {
        match input {
            Input::Started => self.started(),
            Input::Stopped => self.stopped(),
            Input::Tick => {}
            Input::Polled(Ok(offer)) => self.polled(offer),
            Input::Polled(Err(failure)) => self.poll_failed(failure),
            Input::Check => self.check(),
            Input::Install { epoch } => self.refused = self.install(*epoch).err(),
            Input::Rollback => self.refused = self.go_back().err(),
            Input::Pin => self.record.pinned = true,
            Input::Unpin => self.record.pinned = false,
            Input::Ended { job, result } => {
                if **job == self.due() {
                    self.ended(job, result);
                }
            }
            Input::Unusable { slot, fault } => self.unusable(slot, fault),
            Input::Health(health) => self.health(health),
        }
    }

    // ---- the life of a process

    fn started(&mut self) {
        self.record.starts = self.record.starts.saturating_add(1);
        let settings = self.settings();
        // A plan made under a longer period than the one that holds now.
        let latest = self.after(settings.poll_period.saturating_mul(2));
        let is_too_far = self.record.polls.failures == 0 && self.record.polls.next.is_some_and(|next| next > latest);
        if self.is_poll_due() || is_too_far {
            let pause = first_pause(settings.poll_period, &settings.device, self.record.starts);
            self.record.polls.next = Some(self.after(pause));
        }
        // What was under way in the agent's own process when it ended is what ended it, unless `stopped` has said otherwise.
        match self.stage() {
            Some(Stage::Proving) => self.enter(Stage::Proving),
            Some(Stage::Shadowing) => self.load_again(Stage::Shadowing),
            Some(Stage::Swapping | Stage::Probation) => self.load_again(Stage::Swapping),
            _ => {}
        }
    }

    fn stopped(&mut self) {
        match self.stage() {
            Some(Stage::Proving) => self.attempts().proofs = self.attempts().proofs.saturating_sub(1),
            Some(Stage::Shadowing | Stage::Swapping | Stage::Probation) => self.refund(),
            _ => {}
        }
        // The next start finds nothing that would have to be explained.
        if let Some(attempts) = &mut self.record.attempts {
            (attempts.exposure, attempts.boot) = (Exposure::Loading, None);
        }
    }

    fn unusable(&mut self, slot: &Slot, fault: &Fault) {
        if *slot != self.record.serving() {
            return;
        }
        if self.stage().is_some_and(Stage::has_taken_over) {
            self.fail(&fault.clone().into());
        } else {
            self.fall_back(fault);
        }
    }

    /// `current` cannot be loaded: what ran before it is next, and at last the factory model.
    pub(super) fn fall_back(&mut self, fault: &Fault) {
        self.record.fault = Some(fault.clone());
        if self.record.current != Slot::Factory {
            self.record.current = self.record.previous.take().unwrap_or(Slot::Factory);
            if self.record.phase == Phase::Idle {
                self.record.phase = Phase::settling(None);
            }
        }
    }

    // ---- polls

    fn polled(&mut self, offer: &Offer) {
        if let Err(fault) = self.accept(offer) {
            return self.poll_failed(&fault.into());
        }
        let settings = self.settings();
        let pause = poll_pause(settings.poll_period, &settings.device, self.record.polls.count);
        let next = self.after(pause);
        let polls = &mut self.record.polls;
        (polls.failures, polls.fault) = (0, None);
        polls.count = polls.count.saturating_add(1);
        (polls.succeeded, polls.next) = (Some(self.now.time), Some(next));
    }

    fn poll_failed(&mut self, failure: &Failure) {
        let failures = self.record.polls.failures.saturating_add(1);
        let settings = self.settings();
        // Never longer than a period: a fleet that comes back asks no more often than one that was never away.
        let pause = backoff(failures, settings.poll_period, &settings.device, failure.retry_after);
        let next = self.after(pause);
        let polls = &mut self.record.polls;
        polls.count = polls.count.saturating_add(1);
        (polls.failures, polls.next, polls.fault) = (failures, Some(next), Some(failure.fault.clone()));
    }

    /// Take the offer as the newest, or say why not.
    fn accept(&mut self, offer: &Offer) -> Result<(), Fault> {
        let (file, settings) = (&offer.channel, self.settings());
        if file.channel != settings.channel || file.model != self.record.model {
            let asked = format!("channel {:?} of {:?}", settings.channel, self.record.model);
            return Err(Fault::new(
                Code::ChannelInvalid,
                format!("asked for {asked}, got {:?} of {:?}", file.channel, file.model),
            ));
        }
        let floor = self.record.floors.get(&file.channel).copied().unwrap_or_default();
        if file.epoch < floor {
            return Err(Fault::new(Code::EpochRollback, format!("epoch {}, seen was {floor}", file.epoch)));
        }
        let (release, known) = (offer.release(), self.record.offer.as_ref().map(Offer::release));
        if let Some(known) = known.filter(|known| known.is(&release.channel, release.epoch) && *known != release) {
            let said = format!(
                "epoch {} was {}, and is now {}: another release needs a higher epoch",
                file.epoch, known.bundle, release.bundle
            );
            return Err(Fault::new(Code::ChannelInvalid, said));
        }
        if self.record.offer.as_ref().map(Offer::release).as_ref() != Some(&release) {
            self.record.approved = None;
        }
        raise(&mut self.record.floors, &file.channel, file.epoch);
        self.record.prune_quarantine();
        let halted = file.halt;
        self.record.offer = Some(offer.clone());
        if halted && self.record.candidate().is_some_and(|c| c.release.channel == release.channel) {
            self.fail(&Fault::from(Code::Halted).into());
        }
        Ok(())
    }

    // ---- commands

    fn check(&mut self) {
        if self.now.clock == ClockState::Synchronised {
            self.record.polls.next = Some(self.now.time);
        } else {
            self.refused = Some(Code::ClockNotSynchronised.into());
        }
    }

    fn install(&mut self, epoch: Option<u64>) -> Result<(), Fault> {
        let nothing = |detail: &str| Fault::new(Code::NothingToDo, detail);
        let offered = self.record.offer.as_ref().map(Offer::release).ok_or_else(|| nothing("nothing is offered"))?;
        if epoch.is_some_and(|epoch| epoch != offered.epoch) {
            return Err(nothing(&format!("offered is epoch {}", offered.epoch)));
        }
        match self.machine.verdict(&self.record, self.now) {
            Verdict::NoOffer => return Err(nothing("nothing is offered")),
            Verdict::UpToDate => return Err(nothing("what is offered runs already")),
            Verdict::Refused(fault) => return Err(fault),
            Verdict::NeedsApproval | Verdict::NotYet(_) | Verdict::NoWave | Verdict::Begin => {}
        }
        self.record.approved = Some(offered.epoch);
        if let Some(attempts) = self.record.attempts.as_mut().filter(|a| offered.is(&a.channel, a.epoch)) {
            attempts.not_before = None;
        }
        Ok(())
    }

    fn go_back(&mut self) -> Result<(), Fault> {
        let by_hand = Fault::from(Code::RolledBack);
        match &self.record.phase {
            Phase::Trial { stage, .. } if stage.has_taken_over() => self.fail(&by_hand.into()),
            Phase::RollingBack { .. } => return Err(Fault::new(Code::NothingToDo, "it is going back already")),
            _ => {
                let Slot::Release(release) = self.record.current.clone() else {
                    return Err(Fault::new(Code::NothingToDo, "the factory model runs"));
                };
                self.leave_shadow();
                self.quarantine(release, by_hand.clone());
                self.record.current = self.record.previous.take().unwrap_or(Slot::Factory);
                self.record.fault = Some(by_hand);
                self.record.phase = Phase::rolling_back(None);
            }
        }
        Ok(())
    }

    // ---- what shall be done

    pub(super) fn job(&self) -> Job {
        match self.due() {
            Job::Download { .. } if !self.is_window_open() => Job::None,
            job => job,
        }
    }

    /// What comes next, whether the maintenance window lets it go on now or not: what has ended is through.
    fn due(&self) -> Job {
        let record = &self.record;
        match &record.phase {
            Phase::Idle => Job::None,
            Phase::RollingBack { not_before, .. } | Phase::Settling { not_before, .. }
                if not_before.is_some_and(|at| !is_due(at, self.now.time)) =>
            {
                Job::None
            }
            Phase::RollingBack { .. } => Job::Load { slot: record.current.clone() },
            Phase::Settling { .. } => {
                Job::Settle { current: record.current.clone(), previous: record.previous.clone() }
            }
            Phase::Trial { stage, candidate } => self.trial_job(*stage, candidate),
        }
    }

    fn trial_job(&self, stage: Stage, candidate: &Candidate) -> Job {
        let release = candidate.release.clone();
        match stage {
            Stage::Reserving => Job::Reserve { release, min_free_mb: candidate.min_free_mb },
            Stage::Downloading => Job::Download { release },
            Stage::Unpacking => Job::Unpack { release, labels: candidate.labels, current: self.record.current.clone() },
            Stage::Proving => Job::Prove { release, gates: candidate.gates.clone() },
            Stage::Shadowing => Job::Shadow { release, windows: candidate.gates.shadow_windows },
            Stage::Ready | Stage::Probation => Job::None,
            Stage::Swapping => Job::Load { slot: Slot::Release(release) },
        }
    }

    fn poll(&self) -> Poll {
        if self.is_poll_due() && self.now.clock == ClockState::Synchronised { Poll::Begin } else { Poll::Later }
    }

    fn wake(&self, poll: Poll) -> Timestamp {
        let polls = self.record.polls.next;
        let poll_at = match (poll, self.now.clock) {
            (Poll::Later, ClockState::Synchronised) => polls,
            _ => Some(self.after(SOON)),
        };
        let settle = match self.record.phase {
            Phase::RollingBack { not_before, .. } | Phase::Settling { not_before, .. } => not_before,
            _ => None,
        };
        let admitted = match self.machine.verdict(&self.record, self.now) {
            Verdict::NotYet(at) => Some(at),
            _ => None,
        };
        let opens = match (self.stage(), self.now.window) {
            (Some(Stage::Downloading | Stage::Ready), Window::Closed { opens }) => Some(opens),
            // It stops soon after the window has closed.
            (Some(Stage::Downloading), Window::Open) => Some(self.after(SOON)),
            _ => None,
        };
        let times = [poll_at, settle, admitted, opens].into_iter().flatten().filter(|&at| at > self.now.time);
        times.min().unwrap_or(Timestamp::MAX).min(self.after(MAX_WAKE))
    }

    // ---- small questions

    pub(super) fn trial(&self) -> Option<(Stage, Release)> {
        match &self.record.phase {
            Phase::Trial { stage, candidate } => Some((*stage, candidate.release.clone())),
            _ => None,
        }
    }

    pub(super) fn stage(&self) -> Option<Stage> {
        self.trial().map(|(stage, _)| stage)
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.record.pinned || self.settings().policy == Policy::Pinned
    }

    /// Also where somebody has asked for the release by hand.
    pub(super) fn is_window_open(&self) -> bool {
        self.now.window == Window::Open || self.is_approved()
    }

    pub(super) fn is_approved(&self) -> bool {
        self.record.candidate().is_some_and(|c| self.record.approved == Some(c.release.epoch))
    }

    fn is_poll_due(&self) -> bool {
        let most = MAX_PLAN.max(self.settings().poll_period.saturating_mul(2));
        self.record.polls.next.is_none_or(|next| is_due_within(next, self.now.time, most))
    }

    pub(super) fn after(&self, pause: Duration) -> Timestamp {
        after(self.now.time, pause)
    }
}

/// Whether a time that we planned has come.
pub(super) fn is_due(at: Timestamp, now: Timestamp) -> bool {
    is_due_within(at, now, MAX_PLAN)
}

/// One that lies further ahead than any plan was written under a wrong clock.
fn is_due_within(at: Timestamp, now: Timestamp, most: Duration) -> bool {
    at <= now || at > after(now, most)
}

fn after(time: Timestamp, pause: Duration) -> Timestamp {
    time.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// The line of the history for this change, if it is worth one.
fn note(before: &Record, after: &Record, at: Timestamp) -> Option<Note> {
    let told = before.phase != after.phase || before.current != after.current || before.fault != after.fault;
    told.then(|| {
        let release = before.candidate().or(after.candidate()).map(|c| c.release.clone());
        let release = release.or_else(|| before.current.release().cloned());
        let fault = after.fault.clone().filter(|_| before.fault != after.fault);
        Note { at, from: before.state().to_owned(), to: after.state().to_owned(), release, fault }
    })
}
