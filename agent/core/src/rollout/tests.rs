//! Trials from end to end: what is asked for in which order, and what each thing that can go wrong leads to.

use std::time::Duration;

use jiff::Timestamp;
use semver::Version;

use super::step::{ClockState, Done, Failure, Health, Input, Job, Now, Policy, Poll, Settings, Step, Window};
use super::*;

pub(super) const NOON: &str = "2026-12-01T12:00:00Z";

pub(super) fn settings(policy: Policy) -> Settings {
    Settings {
        device: "jetson01".into(),
        agent: Version::new(0, 1, 0),
        factory: Some(Version::new(1, 0, 0)),
        channel: "stable".into(),
        policy,
        poll_period: Duration::from_secs(900),
        boot: Some("first".into()),
    }
}

pub(super) fn offer(epoch: u64, minor: u64) -> Offer {
    let version = Version::new(1, minor, 0);
    let channel = Channel {
        schema: SCHEMA,
        channel: "stable".into(),
        model: "falls".into(),
        bundle: Channel::bundle_target("falls", &version),
        version,
        epoch,
        requires: Requires { agent: None, min_free_mb: 600 },
        waves: Vec::new(),
        halt: false,
        labels: Labels::Same,
        gates: Gates {
            latency_p99_ms: Some(33.0),
            peak_memory_mb: Some(800),
            shadow_windows: 300,
            shadow_agreement: Some(0.97),
            ..Gates::default()
        },
    };
    Offer { channel, sha256: format!("{minor:064x}"), length: 9_000_000 }
}

pub(super) const MEASURED: Measured = Measured { p50_ms: 12.0, p99_ms: 20.0, peak_memory_mb: 300 };

/// What a job that goes well ends with.
pub(super) fn well(job: &Job) -> Done {
    match job {
        Job::Prove { .. } => Done::Proven(MEASURED),
        Job::Shadow { windows, .. } => Done::Shadowed { windows: *windows, agreed: *windows },
        _ => Done::Plain,
    }
}

pub(super) fn healthy() -> Health {
    Health { ran: Duration::from_secs(601), windows: 3001, ..Health::default() }
}

/// A device: its record, the time, and the last step.
pub(super) struct Device {
    pub(super) machine: Machine,
    pub(super) now: Now,
    pub(super) record: Record,
    pub(super) step: Step,
    pub(super) states: Vec<&'static str>,
}

impl Device {
    pub(super) fn new(policy: Policy) -> Self {
        let now = Now { time: NOON.parse().unwrap(), clock: ClockState::Synchronised, window: Window::Open };
        let (machine, record) = (Machine::new(settings(policy)), Record::new("falls"));
        let step = machine.step(&record, &Input::Started, now);
        let mut device = Self { machine, now, record: step.record.clone(), step, states: Vec::new() };
        device.ends_well();
        assert_eq!(device.record.phase, Phase::Idle);
        device
    }

    pub(super) fn give(&mut self, input: Input) -> &Step {
        self.step = self.machine.step(&self.record, &input, self.now);
        self.record = self.step.record.clone();
        if self.states.last() != Some(&self.record.state()) {
            self.states.push(self.record.state());
        }
        &self.step
    }

    pub(super) fn offered(&mut self, offer: Offer) -> &Step {
        self.give(Input::Polled(Ok(Box::new(offer))))
    }

    pub(super) fn ends(&mut self, result: Result<Done, Failure>) -> &Step {
        let job = Box::new(self.step.job.clone());
        assert_ne!(*job, Job::None, "a job is under way in {}", self.record.state());
        self.give(Input::Ended { job, result })
    }

    pub(super) fn ends_well(&mut self) {
        self.ends(Ok(well(&self.step.job)));
    }

    pub(super) fn fails(&mut self, code: Code) -> &Step {
        self.ends(Err(Fault::from(code).into()))
    }

    pub(super) fn until(&mut self, state: &str) {
        for _ in 0..20 {
            if self.record.state() == state {
                return;
            }
            if self.record.state() == "probation" {
                self.give(Input::Health(healthy()));
            } else {
                self.ends_well();
            }
        }
        panic!("never {state}: {:?}", self.states);
    }

    pub(super) fn later(&mut self, seconds: u64) {
        self.now.time = self.now.time.checked_add(Duration::from_secs(seconds)).unwrap();
        self.give(Input::Tick);
    }

    pub(super) fn tries(&self) -> Option<u8> {
        self.record.attempts.as_ref().map(|a| a.tries_left)
    }

    pub(super) fn runs(&self) -> Option<String> {
        self.record.current.release().map(|r| r.version.to_string())
    }

    pub(super) fn code(&self) -> Option<Code> {
        self.record.fault.as_ref().map(|f| f.code)
    }
}

#[test]
fn a_good_release_goes_all_the_way() {
    let mut device = Device::new(Policy::Auto);
    device.offered(offer(7, 1));
    device.until("shadowing");
    assert_eq!(device.tries(), Some(1), "spent before it is loaded");
    device.ends_well();
    assert_eq!((device.record.state(), device.tries()), ("swapping", Some(1)), "given back, and spent again");
    assert_eq!(device.runs(), None, "the record names what is proven");
    assert_eq!(device.record.serving().release().unwrap().epoch, 7);
    device.until("idle");
    let all = "idle reserving downloading unpacking proving shadowing swapping probation settling idle";
    assert_eq!(device.states.join(" "), all);
    assert_eq!((device.runs().as_deref(), &device.record.previous), (Some("1.1.0"), &Some(Slot::Factory)));
    assert_eq!(device.machine.verdict(&device.record, device.now), Verdict::UpToDate);
    assert_eq!(device.offered(offer(7, 1)).job, Job::None);
}

#[test]
fn what_the_release_is_to_blame_for_quarantines_it_until_a_new_epoch() {
    use Code::*;
    let cases: &[(&str, &[Code])] = &[
        ("unpacking", &[BundleUnsafe, PackageInvalid, WrongRelease, LabelsChanged]),
        ("proving", &[WorkerFailed, WorkerCrashed, WorkerTimeout, WorkerMemory, GoldenMismatch, NotFinite]),
        ("shadowing", &[ShadowFailed]),
        ("swapping", &[LoadFailed]),
    ];
    for (state, codes) in cases {
        for &code in *codes {
            let mut device = Device::new(Policy::Auto);
            device.offered(offer(7, 1));
            device.until(state);
            device.fails(code);
            device.until("idle");
            assert_eq!((device.code(), device.runs()), (Some(code), None), "{state}: {code}");
            assert_eq!(device.record.quarantined("stable", 7).unwrap().fault.code, code);
            device.offered(offer(7, 1));
            device.later(1_000_000);
            assert_eq!(device.step.job, Job::None, "{code}: never again");
            assert_eq!(device.give(Input::Install { epoch: None }).refused.as_ref().unwrap().code, Quarantined);
            device.offered(offer(8, 1));
            assert_eq!(device.record.state(), "reserving", "{code}: a new epoch is a new chance");
        }
    }
}

#[test]
fn gates_are_compared_here() {
    let proven = |measured| Done::Proven(measured);
    let shadowed = |windows, agreed| Done::Shadowed { windows, agreed };
    let cases = [
        ("proving", proven(Measured { p99_ms: 33.1, ..MEASURED }), Code::TooSlowModel),
        ("proving", proven(Measured { p99_ms: f64::NAN, ..MEASURED }), Code::TooSlowModel),
        ("proving", proven(Measured { peak_memory_mb: 801, ..MEASURED }), Code::WorkerMemory),
        ("shadowing", shadowed(300, 290), Code::ShadowDisagrees),
        ("shadowing", shadowed(0, 0), Code::ShadowDisagrees),
    ];
    for (state, done, code) in cases {
        let mut device = Device::new(Policy::Auto);
        device.offered(offer(7, 1));
        device.until(state);
        device.ends(Ok(done));
        assert_eq!(device.record.quarantined("stable", 7).unwrap().fault.code, code);
        assert_eq!(device.record.state(), "settling", "{code}: the model that runs was not touched");
    }
}

#[test]
fn what_is_no_fault_of_the_release_is_tried_again_later_and_later() {
    let mut device = Device::new(Policy::Auto);
    device.offered(offer(7, 1));
    let mut pauses = Vec::new();
    for _ in 0..12 {
        device.until("downloading");
        device.fails(Code::Unreachable);
        assert!(matches!(&device.record.phase, Phase::Settling { keep: Some(_), .. }), "what has come is kept");
        device.until("idle");
        let until = device.record.attempts.as_ref().unwrap().not_before.unwrap();
        let pause = until.duration_since(device.now.time).as_secs_f64().ceil() as u64;
        device.later(pause - 1);
        assert_eq!(device.record.state(), "idle");
        device.later(1);
        pauses.push(pause);
    }
    assert!(pauses[0] <= 60 && pauses[11] > 3 * 3600 && pauses.iter().all(|p| *p <= 6 * 3600), "{pauses:?}");
    assert_eq!(device.record.quarantine, []);
}

#[test]
fn a_full_disk_gets_back_what_the_update_took() {
    let mut device = Device::new(Policy::Auto);
    device.offered(offer(7, 1));
    device.until("downloading");
    device.fails(Code::NoSpace);
    assert!(matches!(&device.record.phase, Phase::Settling { keep: None, .. }));
    device.until("idle");
    assert_eq!(device.code(), Some(Code::NoSpace));
}

#[test]
fn an_error_in_probation_goes_back() {
    let mut device = Device::new(Policy::Auto);
    device.offered(offer(7, 1));
    device.until("probation");
    device.give(Input::Health(Health { windows: 100, ran: Duration::from_secs(9), ..Health::default() }));
    assert_eq!(device.record.state(), "probation");
    let detail = "output is not finite".to_owned();
    device.give(Input::Health(Health { windows: 101, errors: 1, detail, ..Health::default() }));
    assert_eq!(device.step.job, Job::Load { slot: Slot::Factory });
    let note = device.step.note.clone().unwrap();
    assert_eq!((note.from.as_str(), note.to.as_str()), ("probation", "rolling_back"));
    let fault = note.fault.unwrap();
    assert_eq!(fault.to_string(), "probation_failed: 1 errors in 101 windows: output is not finite");
    device.until("idle");
}

#[test]
fn both_bounds_of_probation_must_be_reached() {
    let mut device = Device::new(Policy::Auto);
    device.offered(offer(7, 1));
    device.until("probation");
    for (ran, windows) in [(86_400, 2999), (599, 1_000_000)] {
        device.give(Input::Health(Health { ran: Duration::from_secs(ran), windows, ..Health::default() }));
        assert_eq!(device.record.state(), "probation");
    }
}

#[test]
fn a_halt_stops_a_trial_wherever_it_is_and_resuming_goes_on() {
    let halted = Offer { channel: Channel { halt: true, ..offer(7, 1).channel }, ..offer(7, 1) };
    for state in ["reserving", "downloading", "unpacking", "proving", "shadowing", "swapping", "probation"] {
        let mut device = Device::new(Policy::Auto);
        device.offered(offer(7, 1));
        device.until(state);
        device.offered(halted.clone());
        let expected = if matches!(state, "swapping" | "probation") { "rolling_back" } else { "settling" };
        assert_eq!((device.record.state(), device.code()), (expected, Some(Code::Halted)), "{state}");
        device.until("idle");
        device.later(7200);
        assert_eq!((device.record.state(), device.runs()), ("idle", None));
        device.offered(offer(7, 1));
        assert_eq!((device.record.state(), device.tries().unwrap_or(TRIES)), ("reserving", TRIES), "{state}");
    }
}

#[test]
fn epochs_only_rise_and_one_epoch_is_one_release() {
    let mut device = Device::new(Policy::Manual);
    device.offered(offer(7, 1));
    for (wrong, code) in [
        (offer(6, 2), Code::EpochRollback),
        (offer(7, 2), Code::ChannelInvalid),
        (
            Offer { channel: Channel { model: "fights".into(), ..offer(9, 2).channel }, ..offer(9, 2) },
            Code::ChannelInvalid,
        ),
        (
            Offer { channel: Channel { channel: "beta".into(), ..offer(9, 2).channel }, ..offer(9, 2) },
            Code::ChannelInvalid,
        ),
    ] {
        device.offered(wrong);
        assert_eq!(device.record.polls.fault.as_ref().unwrap().code, code);
        assert_eq!((device.record.floors["stable"], device.record.offer.clone().unwrap()), (7, offer(7, 1)));
    }
    device.offered(offer(8, 0));
    assert_eq!(device.record.offer.clone().unwrap().channel.version, Version::new(1, 0, 0), "a signed downgrade");
}

#[test]
fn a_newer_offer_replaces_a_trial_that_has_not_taken_over() {
    let mut device = Device::new(Policy::Auto);
    device.offered(offer(7, 1));
    device.until("proving");
    device.offered(offer(8, 2));
    assert_eq!(device.record.state(), "settling");
    device.until("probation");
    assert_eq!(device.record.candidate().unwrap().release.epoch, 8);
    device.offered(offer(9, 3));
    assert_eq!(device.record.state(), "probation", "what has taken over is watched to its end");
    device.until("settling");
    device.ends_well();
    assert_eq!((device.runs().as_deref(), device.record.state()), (Some("1.2.0"), "reserving"));
}

#[test]
fn manual_waits_for_approval_and_approval_passes_over_waves_and_the_window() {
    let mut device = Device::new(Policy::Manual);
    let later: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    let opens = device.now.time.checked_add(Duration::from_secs(50_000)).unwrap();
    device.now.window = Window::Closed { opens };
    let waves = vec![Wave { seed_below: SEEDS, not_before: later }];
    device.offered(Offer { channel: Channel { waves, ..offer(7, 1).channel }, ..offer(7, 1) });
    assert_eq!(device.machine.verdict(&device.record, device.now), Verdict::NeedsApproval);
    assert!(device.give(Input::Install { epoch: Some(6) }).refused.is_some());
    assert_eq!(device.give(Input::Install { epoch: Some(7) }).refused, None);
    device.until("probation");
}

#[test]
fn waves_and_requirements_hold_a_release_back() {
    let mut device = Device::new(Policy::Auto);
    let not_before = device.now.time.checked_add(Duration::from_secs(1800)).unwrap();
    let waves = vec![Wave { seed_below: SEEDS, not_before }];
    device.offered(Offer { channel: Channel { waves, ..offer(7, 1).channel }, ..offer(7, 1) });
    assert_eq!(device.machine.verdict(&device.record, device.now), Verdict::NotYet(not_before));
    device.later(1800);
    assert_eq!(device.record.state(), "idle", "a wave counts from the first poll after it");
    device.offered(device.record.offer.clone().unwrap());
    assert_eq!(device.record.state(), "reserving");
    let requires = Requires { agent: Some(">=2".parse().unwrap()), min_free_mb: 0 };
    device.until("idle");
    device.offered(Offer { channel: Channel { requires, ..offer(8, 2).channel }, ..offer(8, 2) });
    let Verdict::Refused(fault) = device.machine.verdict(&device.record, device.now) else { panic!() };
    assert_eq!(fault.to_string(), "requires_agent: it needs >=2, this is 0.1.0");
}

#[test]
fn going_back_by_hand_quarantines_and_falls_to_the_factory_model_at_last() {
    let mut device = Device::new(Policy::Auto);
    assert_eq!(device.give(Input::Rollback).refused.as_ref().unwrap().code, Code::NothingToDo);
    for epoch in [7, 8] {
        device.offered(offer(epoch, epoch));
        device.until("idle");
    }
    device.give(Input::Rollback);
    device.until("idle");
    assert_eq!(device.runs().as_deref(), Some("1.7.0"));
    device.offered(offer(8, 8));
    assert_eq!(device.step.job, Job::None, "what somebody went back from is not installed again");
    device.give(Input::Rollback);
    device.until("idle");
    assert_eq!((&device.record.current, &device.record.previous), (&Slot::Factory, &None));
}

#[test]
fn a_pin_ends_a_trial_that_has_not_taken_over_and_holds() {
    let mut device = Device::new(Policy::Auto);
    device.offered(offer(7, 1));
    device.until("proving");
    device.give(Input::Pin);
    device.until("idle");
    assert_eq!(device.give(Input::Install { epoch: None }).refused.as_ref().unwrap().code, Code::Pinned);
    device.give(Input::Unpin);
    assert_eq!(device.record.state(), "reserving");
}

#[test]
fn what_cannot_be_loaded_at_the_start_is_passed_over() {
    let mut device = Device::new(Policy::Auto);
    for epoch in [7, 8] {
        device.offered(offer(epoch, epoch));
        device.until("idle");
    }
    let mut seen = Vec::new();
    device.give(Input::Started);
    while let Slot::Release(release) = device.record.serving() {
        seen.push(release.version.to_string());
        let fault = Fault::from(Code::DiskError);
        device.give(Input::Unusable { slot: Slot::Release(release), fault });
    }
    assert_eq!(seen, ["1.8.0", "1.7.0"]);
    device.until("reserving");
    assert_eq!(device.record.candidate().unwrap().release.epoch, 8, "it is fetched again");
}

/// Records and tables both know of the quarantine; together they forget only what cannot be offered again, oldest first.
#[test]
fn a_long_quarantine_forgets_the_oldest() {
    let confined = |epoch: u64| Quarantined {
        release: offer(epoch, epoch).release(),
        fault: Code::NotFinite.into(),
        at: Timestamp::from_second(epoch as i64).unwrap(),
    };
    let mut record = Record::new("falls");
    record.quarantine = (20..=60).map(confined).collect();
    let all: Vec<_> = (1..=60).map(confined).collect();
    record.merge(&[("stable".to_owned(), 60)].into(), &all);
    let kept: Vec<u64> = record.quarantine.iter().map(|q| q.release.epoch).collect();
    assert_eq!(kept, (29..=60).collect::<Vec<_>>());
    let mut record = Record::new("falls");
    record.merge(&[("stable".to_owned(), 1)].into(), &all);
    assert_eq!(record.quarantine.len(), 60, "those could be offered again");
}

#[test]
fn polls_follow_the_clock_and_survive_a_wrong_one() {
    let mut device = Device::new(Policy::Auto);
    let next = device.record.polls.next.unwrap();
    assert!(next <= device.now.time.checked_add(Duration::from_secs(300)).unwrap());
    device.later(300);
    assert_eq!(device.step.poll, Poll::Begin);
    device.now.clock = ClockState::NotSynchronised;
    device.later(1);
    assert_eq!(device.step.poll, Poll::Later, "a clock that is not set proves nothing");
    device.now.clock = ClockState::Synchronised;
    device.offered(offer(7, 1));
    assert_eq!(device.step.poll, Poll::Later);
    let after = |device: &Device| device.record.polls.next.unwrap().duration_since(device.now.time).as_secs();
    assert!((810..=990).contains(&after(&device)), "{}", after(&device));
    for failures in 0..40 {
        device.give(Input::Polled(Err(Fault::from(Code::Unreachable).into())));
        assert!(after(&device) <= 900, "{failures}: a fleet that comes back asks no more often than ever");
    }
    let retry_after = Some(Duration::from_secs(7200));
    device.give(Input::Polled(Err(Failure { fault: Code::Unreachable.into(), retry_after })));
    assert!(after(&device) >= 7200, "what the server asks for is honoured");
    for years in [-10_i64, 20] {
        device.now.time = device.now.time.checked_add(jiff::SignedDuration::from_hours(years * 8766)).unwrap();
        assert_eq!(device.give(Input::Tick).poll, Poll::Begin, "no plan locks the device out");
    }
}
