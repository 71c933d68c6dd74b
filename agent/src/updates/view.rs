//! What is shown of updates: on MQTT, in `/status`, in metrics, to `kinewatch model list`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use kinewatch_core::event::{
    InstalledModel, ModelError, ModelProgress, ModelState, ModelsState, OfferedModel, QuarantinedModel,
};
use kinewatch_core::rollout::step::{ClockState, Failure, Input, Now, Policy, Settings, Window};
use kinewatch_core::rollout::{Code, Disposition, Machine, Offer, Record, Release, Slot, Verdict};

/// What can be seen of updates. Written by the updater, read by anybody.
#[derive(Debug, Default)]
pub struct UpdatesView {
    /// As on MQTT.
    pub state: ArcSwap<ModelsState>,
    /// What is under way, by model.
    pub progress: ArcSwap<BTreeMap<String, ModelProgress>>,
    /// Looks at the repository that went well.
    pub polls: AtomicU64,
    /// Those that did not.
    pub polls_failed: AtomicU64,
    /// Bytes of bundles that came over the network.
    pub downloaded_bytes: AtomicU64,
    /// Releases that have proven themselves.
    pub committed: AtomicU64,
    /// Releases that were gone back from after they had taken over.
    pub rolled_back: AtomicU64,
    /// Releases that were found to be at fault.
    pub quarantined: AtomicU64,
    /// Trials put off through no fault of the release.
    pub delayed: AtomicU64,
}

impl UpdatesView {
    /// Counts what an input has led to.
    pub(super) fn count(&self, before: &Record, after: &Record, input: &Input) {
        match input {
            Input::Polled(Ok(_)) if after.polls.fault.is_none() => self.polls.fetch_add(1, Relaxed),
            Input::Polled(_) => self.polls_failed.fetch_add(1, Relaxed),
            _ => 0,
        };
        let back = after.state() == "rolling_back" && before.state() != "rolling_back";
        self.rolled_back.fetch_add(u64::from(back), Relaxed);
        let more = after.quarantine.len().saturating_sub(before.quarantine.len());
        self.quarantined.fetch_add(more as u64, Relaxed);
        let committed = before.state() == "probation" && after.current != before.current;
        self.committed.fetch_add(u64::from(committed), Relaxed);
        if let Input::Ended { result: Err(Failure { fault, .. }), .. } = input {
            let delayed = fault.code.disposition() == Disposition::Delay;
            self.delayed.fetch_add(u64::from(delayed), Relaxed);
        }
    }
}

/// What is said of a model. `factory`: version of the package that the configuration names. `channel`: `None` when updates are
/// off.
pub(super) fn state(
    machine: &Machine,
    record: &Record,
    now: Now,
    factory: Option<&str>,
    channel: Option<&str>,
) -> ModelState {
    let installed = |slot: &Slot| match slot {
        Slot::Factory => InstalledModel { version: factory.unwrap_or("unknown").to_owned(), epoch: None, sha256: None },
        Slot::Release(release) => of_release(release),
    };
    let offered = |offer: &Offer| OfferedModel {
        version: offer.channel.version.to_string(),
        epoch: offer.channel.epoch,
        halted: offer.channel.halt,
    };
    ModelState {
        model: record.model.clone(),
        installed: installed(&record.serving()),
        previous: record.previous.as_ref().map(installed),
        channel: channel.map(str::to_owned),
        offered: record.offer.as_ref().filter(|offer| Some(&*offer.channel.channel) == channel).map(offered),
        state: record.state().to_owned(),
        candidate: record.candidate().map(|candidate| of_release(&candidate.release)),
        waits_for: waits_for(&machine.verdict(record, now), record, now),
        pinned: record.pinned,
        error: record.fault.as_ref().map(ModelError::from),
        repository_error: record.polls.fault.as_ref().map(ModelError::from),
        checked_at: record.polls.succeeded.map(|at| format!("{at:.0}")),
        checks: record.polls.count,
        quarantine: record
            .quarantine
            .iter()
            .map(|q| QuarantinedModel {
                version: q.release.version.to_string(),
                epoch: q.release.epoch,
                code: q.fault.code,
                at: format!("{:.0}", q.at),
            })
            .collect(),
    }
}

/// What is said of a model while no agent runs.
pub(super) fn at_rest(record: &Record) -> ModelState {
    let settings = Settings {
        device: String::new(),
        agent: semver::Version::new(0, 0, 0),
        factory: None,
        channel: record.offer.as_ref().map_or_else(String::new, |offer| offer.channel.channel.clone()),
        policy: Policy::Auto,
        poll_period: Duration::ZERO,
        boot: None,
    };
    let channel = settings.channel.clone();
    let channel = Some(channel.as_str()).filter(|channel| !channel.is_empty());
    let state = state(&Machine::new(settings), record, super::moment::now(None), None, channel);
    // Settings of the configuration decide that.
    ModelState { waits_for: None, ..state }
}

fn of_release(release: &Release) -> InstalledModel {
    let (version, sha256) = (release.version.to_string(), release.sha256.clone());
    InstalledModel { version, epoch: Some(release.epoch), sha256: Some(sha256) }
}

/// What the offer waits for, in a word.
fn waits_for(verdict: &Verdict, record: &Record, now: Now) -> Option<String> {
    if record.candidate().is_some() {
        let approved = record.candidate().is_some_and(|c| record.approved == Some(c.release.epoch));
        let closed = now.window != Window::Open && !approved;
        return (closed && matches!(record.state(), "downloading" | "ready")).then(|| "window".to_owned());
    }
    // Before it is, nothing is asked for and nothing begun.
    if now.clock == ClockState::NotSynchronised {
        return Some(Code::ClockNotSynchronised.as_str().to_owned());
    }
    match verdict {
        Verdict::NoOffer | Verdict::UpToDate | Verdict::Begin => None,
        Verdict::Refused(fault) => Some(fault.code.as_str().to_owned()),
        Verdict::NeedsApproval => Some("approval".to_owned()),
        Verdict::NoWave => Some("wave".to_owned()),
        Verdict::NotYet(_) if is_paused(record) => Some("pause".to_owned()),
        Verdict::NotYet(_) => Some("wave".to_owned()),
    }
}

/// Whether what is offered was tried, and is tried again later.
fn is_paused(record: &Record) -> bool {
    let tried = record.offer.as_ref().map(Offer::release).and_then(|r| record.attempts_at(&r.channel, r.epoch));
    tried.is_some_and(|attempts| attempts.not_before.is_some())
}

/// A code for metrics: every one that a model waits or failed for now.
pub(crate) fn code_of(state: &ModelState) -> Option<Code> {
    state.error.as_ref().or(state.repository_error.as_ref()).map(|error| error.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_offer_waits_for_is_a_word() {
        let record = Record::new("falls");
        let state = at_rest(&record);
        assert_eq!((state.state.as_str(), state.installed.version.as_str()), ("settling", "unknown"));
        assert_eq!((state.offered, state.candidate, state.waits_for, state.error), (None, None, None, None));
    }
}
