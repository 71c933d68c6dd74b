//! Whether the newest offer may be begun, and if not, why: the question that the machine asks itself, and that people ask.

use jiff::Timestamp;

use super::machine::is_due;
use super::step::{ClockState, Now, Policy};
use super::{Admission, Code, Fault, Machine, Record, Slot, seed};

/// What is to be said of the newest offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is none.
    NoOffer,
    /// It runs already.
    UpToDate,
    /// It may not be begun.
    Refused(Fault),
    /// It waits for somebody to approve it.
    NeedsApproval,
    /// Its wave, or the next attempt, is then; the wave counts from the first poll after it.
    NotYet(Timestamp),
    /// No wave reaches this device.
    NoWave,
    /// It may be begun.
    Begin,
}

impl Machine {
    /// What is to be said of the newest offer now. Approval passes over waves, pauses and policy, and over nothing else.
    #[must_use]
    pub fn verdict(&self, record: &Record, now: Now) -> Verdict {
        let settings = &self.settings;
        let Some(offer) = record.offer.as_ref().filter(|o| o.channel.channel == settings.channel) else {
            return Verdict::NoOffer;
        };
        let (file, refused) = (&offer.channel, |code: Code| Verdict::Refused(code.into()));
        let runs = match &record.current {
            Slot::Factory => settings.factory.as_ref() == Some(&file.version),
            Slot::Release(current) => current.sha256 == offer.sha256,
        };
        if runs {
            return Verdict::UpToDate;
        }
        if let Some(q) = record.quarantined(&file.channel, file.epoch) {
            return Verdict::Refused(Fault::new(Code::Quarantined, q.fault.to_string()));
        }
        if file.halt {
            return refused(Code::Halted);
        }
        if record.pinned || settings.policy == Policy::Pinned {
            return refused(Code::Pinned);
        }
        if let Some(wanted) = file.requires.agent.as_ref().filter(|wanted| !wanted.matches(&settings.agent)) {
            let detail = format!("it needs {wanted}, this is {}", settings.agent);
            return Verdict::Refused(Fault::new(Code::RequiresAgent, detail));
        }
        if now.clock == ClockState::NotSynchronised {
            return refused(Code::ClockNotSynchronised);
        }
        let pause = record.attempts_at(&file.channel, file.epoch).and_then(|a| a.not_before);
        let pause = pause.filter(|&at| !is_due(at, now.time));
        if record.approved == Some(file.epoch) {
            return pause.map_or(Verdict::Begin, Verdict::NotYet);
        }
        if settings.policy == Policy::Manual {
            return Verdict::NeedsApproval;
        }
        // Waves are read at the last poll, not now: so the devices of a wave begin one after the other as they poll, within a period of
        // its time, and none on a file that is older than its wave.
        let polled = record.polls.succeeded.map_or(now.time, |polled| polled.min(now.time));
        match (file.admission(seed(&settings.device, &record.model), polled), pause) {
            (Admission::Never, _) => Verdict::NoWave,
            (Admission::At(wave), pause) => Verdict::NotYet(pause.map_or(wave, |pause| pause.max(wave))),
            (Admission::Now, Some(pause)) => Verdict::NotYet(pause),
            (Admission::Now, None) => Verdict::Begin,
        }
    }
}
