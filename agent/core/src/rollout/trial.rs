//! The trial of a release: what follows from the end of a job, from how the model does, and by itself.

use std::time::Duration;

use super::machine::Turn;
use super::step::{Done, Failure, Health, Job};
use super::{
    Attempts, Candidate, Code, Disposition, Exposure, Fault, MAX_CUTS, MAX_PROOFS, Offer, Phase, Quarantined, Release,
    Slot, Stage, TRIES, Verdict, backoff,
};

/// Longest pause of a release whose trial failed through no fault of its own.
const MAX_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// How long to wait after links could not be set, or nothing could be loaded.
const SETTLE_PAUSE: Duration = Duration::from_secs(300);
/// A model without a window for so long is loaded and idle. Longer than a camera needs to come back when the agent starts.
const QUIET: Duration = Duration::from_secs(60);

impl Turn<'_> {
    pub(super) fn ended(&mut self, job: &Job, result: &Result<Done, Failure>) {
        match (job, result) {
            (Job::None, _) => {}
            (Job::Settle { .. }, Ok(_)) => self.record.phase = Phase::Idle,
            (Job::Settle { .. }, Err(failure)) => {
                self.record.fault = Some(failure.fault.clone());
                let again = self.after(SETTLE_PAUSE);
                if let Phase::Settling { not_before, .. } = &mut self.record.phase {
                    *not_before = Some(again);
                }
            }
            (Job::Load { .. }, Err(failure)) if self.stage().is_none() => {
                let was = self.record.current.clone();
                self.fall_back(&failure.fault);
                if was == self.record.current {
                    let not_before = Some(self.after(SETTLE_PAUSE));
                    self.record.phase = Phase::RollingBack { keep: None, not_before };
                }
            }
            (_, Err(failure)) => self.fail(failure),
            (Job::Reserve { .. }, Ok(_)) => self.enter(Stage::Downloading),
            (Job::Download { .. }, Ok(_)) => self.enter(Stage::Unpacking),
            (Job::Unpack { .. }, Ok(_)) => self.enter(Stage::Proving),
            (Job::Prove { .. }, Ok(done)) => self.proven(done),
            (Job::Shadow { .. }, Ok(done)) => self.shadowed(done),
            (Job::Load { .. }, Ok(_)) => match &self.record.phase {
                Phase::RollingBack { keep, .. } => self.record.phase = Phase::settling(keep.clone()),
                _ => self.enter(Stage::Probation),
            },
        }
    }

    fn proven(&mut self, done: &Done) {
        let Phase::Trial { candidate, .. } = &mut self.record.phase else { return };
        let Done::Proven(measured) = done else {
            return self.fail(&Fault::new(Code::WorkerUnavailable, "it measured nothing").into());
        };
        candidate.measured = Some(*measured);
        let gates = candidate.gates.clone();
        let said = |what: &str, limit: f64| format!("{what}, permitted are {limit}");
        let slow = |&limit: &f64| measured.p99_ms > limit || !measured.p99_ms.is_finite();
        if let Some(limit) = gates.latency_p99_ms.filter(slow) {
            let detail = said(&format!("99 of 100 windows took up to {:.1} ms", measured.p99_ms), limit);
            return self.fail(&Fault::new(Code::TooSlowModel, detail).into());
        }
        if let Some(limit) = gates.peak_memory_mb.filter(|&limit| measured.peak_memory_mb > limit) {
            let detail = said(&format!("it took {} MiB", measured.peak_memory_mb), limit as f64);
            return self.fail(&Fault::new(Code::WorkerMemory, detail).into());
        }
        self.attempts().proofs = 0;
        self.enter(if gates.shadow_windows > 0 { Stage::Shadowing } else { Stage::Ready });
    }

    fn shadowed(&mut self, done: &Done) {
        let Some(gate) = self.record.candidate().map(|c| c.gates.shadow_agreement) else { return };
        match (done, gate) {
            (_, None) => {}
            (Done::Shadowed { windows, agreed }, Some(least)) => {
                // No window at all agrees with nothing.
                let share = if *windows == 0 { 0.0 } else { *agreed as f64 / *windows as f64 };
                if share < least {
                    let detail = format!("the same on {agreed} of {windows} windows ({share:.3}), {least} are wanted");
                    return self.fail(&Fault::new(Code::ShadowDisagrees, detail).into());
                }
            }
            // It is not held against the release, and does not pass unsaid.
            (done, Some(_)) => {
                let why = if let Done::ShadowSkipped { why } = done { why } else { "nothing was compared" };
                self.record.fault = Some(Fault::new(Code::NotCompared, why));
            }
        }
        self.refund();
        self.enter(Stage::Ready);
    }

    pub(super) fn health(&mut self, health: &Health) {
        let Phase::Trial { stage: Stage::Probation, candidate } = &self.record.phase else { return };
        let gates = &candidate.gates;
        if health.errors > 0 {
            let detail = format!("{} errors in {} windows: {}", health.errors, health.windows, health.detail);
            self.fail(&Fault::new(Code::ProbationFailed, detail).into());
        } else if let Some(detail) = &health.late {
            self.fail(&Fault::new(Code::SlowHere, detail.clone()).into());
        } else if health.windows >= gates.probation_windows && health.ran >= Duration::from_secs(gates.probation_s) {
            let proven = Slot::Release(candidate.release.clone());
            self.record.previous = Some(std::mem::replace(&mut self.record.current, proven));
            self.record.phase = Phase::settling(None);
            (self.record.fault, self.record.attempts) = (None, None);
        } else if health.idle >= QUIET {
            self.attempts().exposure = Exposure::Quiet;
        } else if health.windows > 0 {
            self.attempts().exposure = Exposure::Scoring;
        }
    }

    /// Begin a stage of the trial. What it costs is spent here, and so is committed before anything is done.
    pub(super) fn enter(&mut self, next: Stage) {
        match next {
            Stage::Proving => {
                let attempts = self.attempts();
                attempts.proofs += 1;
                if attempts.proofs > MAX_PROOFS {
                    attempts.proofs = 0;
                    return self.fail(&Fault::new(Code::Interrupted, format!("{MAX_PROOFS} times")).into());
                }
            }
            Stage::Shadowing | Stage::Swapping => {
                let boot = self.settings().boot.clone();
                let attempts = self.attempts();
                if attempts.tries_left == 0 {
                    return self.fail(&Fault::new(Code::TriesSpent, format!("{TRIES} times")).into());
                }
                attempts.tries_left -= 1;
                (attempts.exposure, attempts.boot) = (Exposure::Loading, boot);
            }
            _ => {}
        }
        if let Phase::Trial { stage, .. } = &mut self.record.phase {
            *stage = next;
        }
    }

    /// The agent has ended without a word while the candidate was in its memory: once more from `next`, for another try. One that
    /// can hardly be to blame keeps its try; but not for ever, as it may be all the same.
    pub(super) fn load_again(&mut self, next: Stage) {
        if self.is_hardly_to_blame() {
            let attempts = self.attempts();
            attempts.cuts += 1;
            if attempts.cuts > MAX_CUTS {
                attempts.cuts = 0;
                return self.fail(&Fault::new(Code::Interrupted, format!("{MAX_CUTS} times, by restarts")).into());
            }
            self.refund();
        }
        self.enter(next);
    }

    /// Whether the machine went down with the agent, or the candidate had nothing to do.
    fn is_hardly_to_blame(&self) -> bool {
        let Some(attempts) = &self.record.attempts else { return false };
        let is_idle = attempts.exposure == Exposure::Quiet;
        let boots = attempts.boot.as_ref().zip(self.settings().boot.as_ref());
        is_idle || boots.is_some_and(|(then, now)| then != now)
    }

    /// End the trial. Whether the release is to blame, is tried later, or waits, is said by the code.
    pub(super) fn fail(&mut self, failure: &Failure) {
        let Phase::Trial { stage, candidate } = self.record.phase.clone() else { return };
        let fault = &failure.fault;
        let keep = match fault.code.disposition() {
            Disposition::Quarantine => {
                self.quarantine(candidate.release, fault.clone());
                None
            }
            Disposition::Delay => {
                self.pause(failure.retry_after);
                // What fills the disk goes, though it must be fetched again.
                (fault.code != Code::NoSpace).then_some(candidate.release)
            }
            Disposition::Wait => Some(candidate.release),
        };
        // The process has come out of it whole.
        if fault.code.disposition() != Disposition::Quarantine && (stage == Stage::Shadowing || stage.has_taken_over())
        {
            self.refund();
        }
        self.record.fault = Some(fault.clone());
        self.record.phase = if stage.has_taken_over() { Phase::rolling_back(keep) } else { Phase::settling(keep) };
    }

    /// Under each epoch at which the bundle is known: a channel that was published again may offer it under a higher one already.
    pub(super) fn quarantine(&mut self, release: Release, fault: Fault) {
        let offered = self.record.offer.as_ref().map(Offer::release);
        let offered = offered.filter(|offered| offered.sha256 == release.sha256 && *offered != release);
        for release in std::iter::once(release).chain(offered) {
            if self.record.quarantined(&release.channel, release.epoch).is_none() {
                self.record.quarantine.push(Quarantined { release, fault: fault.clone(), at: self.now.time });
            }
        }
        self.record.prune_quarantine();
    }

    fn pause(&mut self, asked: Option<Duration>) {
        let failures = self.attempts().failures.saturating_add(1);
        let until = self.after(backoff(failures, MAX_PAUSE, &self.settings().device, asked));
        let attempts = self.attempts();
        (attempts.failures, attempts.not_before) = (failures, Some(until));
    }

    pub(super) fn refund(&mut self) {
        let attempts = self.attempts();
        attempts.tries_left = (attempts.tries_left + 1).min(TRIES);
    }

    /// A trial that is given up while the candidate reads along has cost nothing.
    pub(super) fn leave_shadow(&mut self) {
        if self.stage() == Some(Stage::Shadowing) {
            self.refund();
        }
    }

    pub(super) fn advance(&mut self) {
        if let Some((stage, release)) = self.trial() {
            let newer = self.record.offer.as_ref().is_some_and(|offer| offer.release() != release);
            let unwanted = newer || self.is_pinned() || release.channel != self.settings().channel;
            if unwanted && !stage.has_taken_over() {
                self.leave_shadow();
                self.record.phase = Phase::settling(None);
            } else if stage == Stage::Probation && self.is_superseded() {
                self.record.phase = Phase::rolling_back(None);
            }
        }
        if self.record.phase == Phase::Idle && self.machine.verdict(&self.record, self.now) == Verdict::Begin {
            self.begin();
        }
        if self.stage() == Some(Stage::Ready) && self.is_window_open() {
            self.enter(Stage::Swapping);
        }
    }

    /// Whether the candidate watches nothing, so that its probation may never end, and another bundle is wanted by now: one that may
    /// begin, or the one that it took over from.
    fn is_superseded(&self) -> bool {
        let (Some(candidate), Some(offer)) = (self.record.candidate(), &self.record.offer) else { return false };
        self.record.attempts.as_ref().is_some_and(|attempts| attempts.exposure == Exposure::Quiet)
            && offer.sha256 != candidate.release.sha256
            && matches!(self.machine.verdict(&self.record, self.now), Verdict::Begin | Verdict::UpToDate)
    }

    fn begin(&mut self) {
        let Some(offer) = &self.record.offer else { return };
        let file = &offer.channel;
        let candidate = Candidate {
            release: offer.release(),
            gates: file.gates.clone(),
            labels: file.labels,
            min_free_mb: file.requires.min_free_mb,
            measured: None,
        };
        // That the state was lost is told until a release has come through.
        self.record.fault = self.record.fault.take().filter(|fault| fault.code == Code::StateDamaged);
        self.record.phase = Phase::Trial { stage: Stage::Reserving, candidate };
    }

    /// The account of the release on trial.
    pub(super) fn attempts(&mut self) -> &mut Attempts {
        let (channel, epoch) = match self.record.candidate() {
            Some(candidate) => (candidate.release.channel.clone(), candidate.release.epoch),
            None => (String::new(), 0),
        };
        if self.record.attempts_at(&channel, epoch).is_none() {
            self.record.attempts = None;
        }
        self.record.attempts.get_or_insert(Attempts {
            channel,
            epoch,
            tries_left: TRIES,
            proofs: 0,
            cuts: 0,
            exposure: Exposure::Loading,
            boot: None,
            failures: 0,
            not_before: None,
        })
    }
}
