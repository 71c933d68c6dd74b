//! Any sequence of what can happen, crashes at any point among it: what must hold all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use semver::Version;

use super::step::{ClockState, Done, Failure, Health, Input, Job, Now, Policy, Settings, Step, Window};
use super::tests::{MEASURED, NOON, healthy, offer, settings, well};
use super::*;

/// What can happen to a device.
#[derive(Clone, Debug)]
enum Event {
    /// A poll ends with this epoch; whether it is halted.
    Polled(u64, bool),
    PollFails(usize),
    JobEndsWell,
    JobFails(usize),
    /// A job ends with what it cannot end with.
    Nonsense,
    /// Windows, errors, and whether it is long since the last window.
    Health(u64, u64, bool),
    Command(u8),
    /// The process is killed: before the step is committed, after it, or after what follows from it has begun.
    Killed(Moment),
    /// The machine goes down with it.
    PowerCut,
    Stopped,
    /// The commit of what comes next fails.
    DiskRefuses,
    Unusable(usize),
    Time(i64),
    Clock(bool),
    Window(bool),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    BeforeCommit,
    Later,
}

fn event() -> impl Strategy<Value = Event> {
    let codes = 0..Code::ALL.len();
    prop_oneof![
        6 => (1..9_u64, prop::bool::weighted(0.1)).prop_map(|(epoch, halt)| Event::Polled(epoch, halt)),
        1 => codes.clone().prop_map(Event::PollFails),
        20 => Just(Event::JobEndsWell),
        3 => codes.clone().prop_map(Event::JobFails),
        1 => Just(Event::Nonsense),
        6 => (0..4000_u64, prop_oneof![9 => Just(0_u64), 1 => 1..9_u64], prop::bool::weighted(0.2))
            .prop_map(|(windows, errors, idle)| Event::Health(windows, errors, idle)),
        2 => (0..5_u8).prop_map(Event::Command),
        4 => prop_oneof![Just(Moment::BeforeCommit), Just(Moment::Later)].prop_map(Event::Killed),
        2 => Just(Event::PowerCut),
        2 => Just(Event::Stopped),
        1 => Just(Event::DiskRefuses),
        1 => codes.prop_map(Event::Unusable),
        4 => prop_oneof![8 => 1..100_000_i64, 1 => -400_000_000..400_000_000_i64].prop_map(Event::Time),
        1 => any::<bool>().prop_map(Event::Clock),
        1 => any::<bool>().prop_map(Event::Window),
    ]
}

/// A device and all that was ever true of it.
struct World {
    machine: Machine,
    policy: Policy,
    boots: u32,
    /// The machine has gone down since the candidate was loaded.
    rebooted: bool,
    now: Now,
    /// As it is on the disk.
    record: Record,
    job: Job,
    /// The candidate, where the process may have it in its memory.
    exposed: Option<Release>,
    /// What the process runs.
    loaded: Slot,
    /// `Started` of this process is on the disk.
    started: bool,
    next_commit_fails: bool,
    killed_before_commit: bool,
    proven: BTreeSet<(String, u64)>,
    passed: BTreeSet<(String, u64)>,
    quarantined: BTreeSet<(String, u64)>,
    deaths: BTreeMap<(String, u64), u32>,
    /// The last of them, while the start after it is not on the disk: a power cut wipes out every trace of it.
    untold: Option<Release>,
}

fn key(release: &Release) -> (String, u64) {
    (release.channel.clone(), release.epoch)
}

impl World {
    fn new(policy: Policy) -> Self {
        let now = Now { time: NOON.parse().unwrap(), clock: ClockState::Synchronised, window: Window::Open };
        let mut world = Self {
            machine: Machine::new(settings(policy)),
            policy,
            boots: 0,
            rebooted: false,
            now,
            record: Record::new("falls"),
            job: Job::None,
            exposed: None,
            loaded: Slot::Factory,
            started: false,
            next_commit_fails: false,
            killed_before_commit: false,
            proven: BTreeSet::new(),
            passed: BTreeSet::new(),
            quarantined: BTreeSet::new(),
            deaths: BTreeMap::new(),
            untold: None,
        };
        world.give(&Input::Started);
        world
    }

    /// One turn of the driver.
    fn give(&mut self, input: &Input) {
        if !self.started && *input != Input::Started {
            self.give(&Input::Started);
            if !self.started {
                return; // nothing comes before it
            }
        }
        let step = self.machine.step(&self.record, input, self.now);
        self.check(&step);
        if std::mem::take(&mut self.next_commit_fails) {
            return;
        }
        if std::mem::take(&mut self.killed_before_commit) {
            return self.start();
        }
        self.commit(input, step);
    }

    fn commit(&mut self, input: &Input, step: Step) {
        for (channel, floor) in &self.record.floors {
            assert!(step.record.floors.get(channel) >= Some(floor), "a floor fell");
        }
        // What the disk holds is what was meant.
        let json = serde_json::to_string(&step.record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), step.record);
        if let (Input::Health(health), Some(candidate)) = (input, self.record.candidate())
            && self.record.state() == "probation"
            && health.errors == 0
            && health.windows >= candidate.gates.probation_windows
        {
            self.passed.insert(key(&candidate.release));
            // Should it be tried once more (its files were damaged), that is another trial with tries of its own.
            self.deaths.remove(&key(&candidate.release));
        }
        self.quarantined.extend(step.record.quarantine.iter().map(|q| key(&q.release)));
        if let Input::Ended { job, result } = input
            && **job == self.job
        {
            self.job_ended(result);
        }
        if matches!(input, Input::Unusable { .. }) {
            // Only at the start, where it is loaded next.
            self.loaded = step.record.serving();
        }
        (self.started, self.untold) = (true, None);
        self.record = step.record;
        self.job = step.job;
        self.exposed = self.exposes();
        self.hold();
    }

    /// What a job's end means, as the rules are meant, whatever the machine makes of it.
    fn job_ended(&mut self, result: &Result<Done, Failure>) {
        match (&self.job, result) {
            (Job::Prove { release, .. }, Ok(Done::Proven(_))) => {
                self.proven.insert(key(release));
            }
            (Job::Load { slot }, Ok(_)) => self.loaded = slot.clone(),
            (_, Err(failure)) if failure.fault.code.disposition() == Disposition::Quarantine => {
                self.quarantined.extend(self.record.candidate().map(|c| key(&c.release)));
            }
            _ => {}
        }
    }

    /// What must hold of every record that is on the disk.
    fn hold(&self) {
        let slots = [Some(&self.record.current), self.record.previous.as_ref()];
        for release in slots.into_iter().flatten().filter_map(Slot::release) {
            assert!(self.passed.contains(&key(release)), "{release:?} never passed its probation");
            assert!(!self.quarantined.contains(&key(release)), "{release:?} is quarantined and would be loaded");
        }
        if let Slot::Release(release) = self.record.serving() {
            assert!(self.proven.contains(&key(&release)), "{release:?} is loaded and was never proven");
        }
        if self.started && matches!(self.record.phase, Phase::Idle | Phase::Settling { .. }) {
            assert_eq!(self.loaded, self.record.current, "what runs is what the record says");
        }
        if let Some(candidate) = self.record.candidate() {
            assert!(!self.quarantined.contains(&key(&candidate.release)), "a quarantined release is on trial");
            let floor = self.record.floors[&candidate.release.channel];
            assert!(candidate.release.epoch <= floor);
        }
    }

    fn check(&self, step: &Step) {
        let hour = self.now.time.checked_add(Duration::from_secs(3600)).unwrap();
        assert!(step.wake > self.now.time && step.wake <= hour, "{} at {}", step.wake, self.now.time);
        let again = self.machine.step(&step.record, &Input::Tick, self.now);
        assert_eq!((&again.record, &again.job), (&step.record, &step.job), "what is settled stays so");
        assert_eq!(step.note.is_some(), {
            let (a, b) = (&self.record, &step.record);
            a.phase != b.phase || a.current != b.current || a.fault != b.fault
        });
    }

    /// The candidate, where what follows from the record brings it into the agent's own process.
    fn exposes(&self) -> Option<Release> {
        match &self.record.phase {
            Phase::Trial { stage: Stage::Shadowing | Stage::Swapping | Stage::Probation, candidate } => {
                Some(candidate.release.clone())
            }
            _ => None,
        }
    }

    /// The process has died and is started again.
    fn start(&mut self) {
        let rebooted = std::mem::take(&mut self.rebooted);
        let idle = self.record.attempts.as_ref().is_some_and(|attempts| attempts.exposure == Exposure::Quiet);
        if let Some(release) = self.exposed.take().filter(|_| !rebooted && !idle) {
            let deaths = self.deaths.entry(key(&release)).or_default();
            *deaths += 1;
            assert!(*deaths <= u32::from(TRIES), "{release:?} killed the agent {deaths} times");
            self.untold = Some(release);
        }
        (self.job, self.started) = (Job::None, false);
        self.begin();
    }

    /// What the driver does at the start.
    fn begin(&mut self) {
        self.loaded = self.record.current.clone();
        self.give(&Input::Started);
        if self.started {
            self.loaded = self.record.serving();
            if matches!(&self.job, Job::Load { .. }) {
                self.ends(Ok(Done::Plain));
            }
        }
    }

    fn ends(&mut self, result: Result<Done, Failure>) {
        if self.job != Job::None {
            self.give(&Input::Ended { job: Box::new(self.job.clone()), result });
        }
    }

    fn happens(&mut self, event: &Event) {
        let failure = |code: usize| Failure::from(Fault::from(Code::ALL[code]));
        match *event {
            Event::Polled(epoch, halt) => {
                let good = offer(epoch, epoch);
                let channel = Channel { halt, ..good.channel };
                self.give(&Input::Polled(Ok(Box::new(Offer { channel, ..good }))));
            }
            Event::PollFails(code) => self.give(&Input::Polled(Err(failure(code)))),
            Event::JobEndsWell => self.ends(Ok(well(&self.job))),
            Event::JobFails(code) => self.ends(Err(failure(code))),
            Event::Nonsense => {
                let done = if matches!(self.job, Job::Prove { .. }) { Done::Plain } else { Done::Proven(MEASURED) };
                self.ends(Ok(done));
            }
            Event::Health(windows, errors, idle) => {
                let idle = Duration::from_secs(if idle { 61 } else { 0 });
                let health = Health { ran: Duration::from_secs(windows), windows, idle, errors, ..Health::default() };
                self.give(&Input::Health(health));
            }
            Event::Command(which) => self.give(&match which {
                0 => Input::Check,
                1 => Input::Install { epoch: None },
                2 => Input::Rollback,
                3 => Input::Pin,
                _ => Input::Unpin,
            }),
            Event::Killed(Moment::BeforeCommit) => self.killed_before_commit = true,
            Event::Killed(Moment::Later) => self.start(),
            Event::PowerCut => {
                self.boots += 1;
                let boot = Some(self.boots.to_string());
                self.machine = Machine::new(Settings { boot, ..settings(self.policy) });
                self.rebooted = true;
                if let Some(deaths) = self.untold.take().and_then(|release| self.deaths.get_mut(&key(&release))) {
                    *deaths -= 1;
                }
                self.start();
            }
            Event::Stopped => {
                self.give(&Input::Stopped);
                (self.job, self.exposed, self.started) = (Job::None, None, false);
                self.begin();
            }
            Event::DiskRefuses => self.next_commit_fails = true,
            Event::Unusable(code) => {
                let (slot, fault) = (self.record.serving(), Fault::from(Code::ALL[code]));
                self.give(&Input::Unusable { slot, fault });
            }
            Event::Time(seconds) => {
                if let Ok(time) = self.now.time.checked_add(jiff::SignedDuration::from_secs(seconds)) {
                    self.now.time = time;
                }
                self.give(&Input::Tick);
            }
            Event::Clock(set) => {
                self.now.clock = if set { ClockState::Synchronised } else { ClockState::NotSynchronised };
            }
            Event::Window(open) => {
                let opens = self.now.time.checked_add(Duration::from_secs(500)).unwrap();
                self.now.window = if open { Window::Open } else { Window::Closed { opens } };
            }
        }
    }

    /// All goes well from here on, and a release of a new epoch is offered.
    fn all_is_well(&mut self) {
        (self.next_commit_fails, self.killed_before_commit) = (false, false);
        (self.now.clock, self.now.window) = (ClockState::Synchronised, Window::Open);
        self.give(&Input::Unpin);
        self.give(&Input::Polled(Ok(Box::new(offer(100, 99)))));
        self.give(&Input::Install { epoch: None });
        for _ in 0..60 {
            match (&self.record.phase, &self.job) {
                (Phase::Idle, Job::None) => return,
                (Phase::Trial { stage: Stage::Probation, .. }, _) => self.give(&Input::Health(healthy())),
                (_, Job::None) => {
                    self.now.time = self.now.time.checked_add(Duration::from_secs(4000)).unwrap();
                    self.give(&Input::Tick);
                }
                _ => self.ends(Ok(well(&self.job))),
            }
            if self.record.approved != Some(100) {
                self.give(&Input::Install { epoch: None });
            }
        }
        panic!("it never came to rest: {:?}", self.record);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(policy in prop_oneof![4 => Just(Policy::Auto), 1 => Just(Policy::Manual)],
                        events in prop::collection::vec(event(), 0..120)) {
        let mut world = World::new(policy);
        for event in &events {
            world.happens(event);
        }
        world.all_is_well();
        prop_assert_eq!(world.record.current.release().map(|r| r.version.clone()), Some(Version::new(1, 99, 0)));
    }
}
