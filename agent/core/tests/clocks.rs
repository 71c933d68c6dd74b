//! A simulated day: every published time lies within its stated uncertainty of the truth, whatever the clocks do.
//!
//! The world knows the true time; the camera's and the device's clocks are functions of it. Frames go the way of the
//! daemon: `MediaClock`, `FrameSelector`, `ClockMap`, `DeviceClock`, `action_event`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::VecDeque;

use kinewatch_core::decode::{Confidence, Decision, EndReason, Status};
use kinewatch_core::event::{
    ActionEvent, ClockRecord, ClockState, Clocks, EventContext, Instant, ModelRef, action_event, replay_ids,
};
use kinewatch_core::sampling::{FrameSelector, Verdict};
use kinewatch_core::time::{Arrival, ClockMap, DelaySource, DeviceClock, MediaClock, Pts, SessionId};
use proptest::prelude::*;

const MS: f64 = 1e6;
const SECOND: f64 = 1e9;
const HOUR: f64 = 3600.0 * SECOND;
/// Of the true time's zero, Unix nanoseconds.
const EPOCH: i64 = 1_790_000_000_000_000_000;
/// What the time service promises once it has set the clock.
const MAX_ERR_MS: f64 = 12.0;
/// Discipline changes its mind this often.
const SLEW: f64 = 100.0 * SECOND;

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }
}

/// What happens to one camera and its device.
#[derive(Clone, Debug)]
struct Scene {
    seed: u64,
    length: f64,
    /// Of the camera: parts per million, and how far it wanders over hours.
    ppm: f64,
    wander_ppm: f64,
    /// (true time, by how much the camera's clock is set), nanoseconds.
    camera_steps: Vec<(f64, f64)>,
    /// Delay of every frame, and what comes on top evenly spread.
    delay: f64,
    jitter: f64,
    /// Seconds between bursts (extra 50 to 300 ms for 3 to 15 s), stalls (up to 2 s) and reconnects, on average.
    bursts: f64,
    stalls: f64,
    reconnects: f64,
    /// The device's clock: wrong by so much until it is set, and its own rate until then.
    boot_error: f64,
    set_at: f64,
    raw_ppm: f64,
    /// The camera reports its clock, which is wrong by so much.
    reports: Option<f64>,
}

impl Scene {
    fn day(seed: u64, ppm: f64) -> Self {
        Self {
            seed,
            length: 24.0 * HOUR,
            ppm,
            wander_ppm: 0.0,
            camera_steps: vec![(5.0 * HOUR, HOUR), (9.0 * HOUR, -3.0 * SECOND), (13.3 * HOUR, 3.0 * SECOND)],
            delay: 35.0 * MS,
            jitter: 20.0 * MS,
            bursts: 300.0,
            stalls: 600.0,
            reconnects: 7200.0,
            boot_error: -3.0 * HOUR,
            set_at: 1200.0 * SECOND,
            raw_ppm: 40.0,
            reports: None,
        }
    }
}

/// The device's clocks at all true times.
struct Device {
    /// Monotonic time at the begin of each stretch of `SLEW`.
    mono: Vec<f64>,
    boot_error: f64,
    set_at: f64,
    /// Of the wall clock when it is set.
    offset: f64,
}

impl Device {
    fn new(scene: &Scene, chance: &mut Chance) -> Self {
        let mut device =
            Self { mono: vec![50.0 * SECOND], boot_error: scene.boot_error, set_at: scene.set_at, offset: 0.0 };
        let stretches = (scene.length / SLEW) as usize + 20;
        let mut error = 0.0;
        for k in 0..stretches {
            let ppm = if (k as f64) * SLEW < scene.set_at {
                scene.raw_ppm
            } else {
                // Towards the truth, now and then away from it.
                let sign = if error > 2.0 * MS || (error > -2.0 * MS && chance.unit() < 0.5) { -1.0 } else { 1.0 };
                error += sign * 50e-6 * SLEW;
                sign * 50.0
            };
            device.mono.push(device.mono[k] + SLEW * (1.0 + ppm * 1e-6));
        }
        device.offset = scene.set_at - device.mono(scene.set_at) + 1.5 * MS;
        device
    }

    fn mono(&self, t: f64) -> f64 {
        let k = (t / SLEW).max(0.0) as usize;
        self.mono[k] + (self.mono[k + 1] - self.mono[k]) * (t / SLEW - k as f64)
    }

    /// Monotonic and wall clock, and whether it is synchronised.
    fn read(&self, t: f64) -> (i64, i64, bool) {
        let synced = t >= self.set_at;
        let offset = if synced { self.offset } else { self.boot_error - self.mono[0] };
        let mono = self.mono(t) as i64;
        (mono, EPOCH + mono + offset as i64, synced)
    }
}

/// The network: in order, as TCP is.
struct Network {
    newest: f64,
    burst: (f64, f64),
    stall_until: f64,
}

impl Network {
    fn arrival(&mut self, t: f64, scene: &Scene, chance: &mut Chance) -> f64 {
        let frame = 0.1;
        if t > self.burst.0 && chance.unit() < frame / scene.bursts {
            self.burst = (t + chance.between(3.0, 15.0) * SECOND, chance.between(50.0, 300.0) * MS);
        }
        if t > self.stall_until && chance.unit() < frame / scene.stalls {
            self.stall_until = t + chance.between(0.2, 2.0) * SECOND;
        }
        let extra = if t < self.burst.0 { self.burst.1 + 60.0 * MS * chance.unit() } else { 0.0 };
        let sent = (t + scene.delay + scene.jitter * chance.unit() + extra).max(self.stall_until);
        self.newest = sent.max(self.newest + 0.2 * MS);
        self.newest
    }
}

/// The agent's part for one camera.
struct Agent {
    media: MediaClock,
    selector: FrameSelector,
    map: ClockMap,
    clock: DeviceClock,
    record: ClockRecord,
    session: SessionId,
    origin: Option<i64>,
    /// Media time and true time of the frames of the last minute.
    seen: VecDeque<(Pts, f64)>,
    sequence: u64,
}

/// A published instant: event, what it says, and the truth.
struct Claim {
    event: ActionEvent,
    instant: Instant,
    truth: f64,
    made: f64,
}

#[derive(Debug, Default)]
struct Outcome {
    checked: usize,
    uncertainties: Vec<f64>,
    errors: Vec<f64>,
    steps_told: usize,
    rebases: u32,
    sessions: u32,
    connections: u32,
    reported: usize,
    refused: usize,
}

fn context() -> EventContext {
    let model = ModelRef { name: "m".into(), version: "1".into(), sha256: "0".into(), accel: "none".into() };
    let (group, device, camera) = ("g".into(), "d".into(), "c".into());
    EventContext { group, device, camera, model, labels: vec!["wave".into()], label_ids: vec![Some(0)] }
}

fn state(synced: bool) -> ClockState {
    let (source, max_err_ms) = if synced { ("ntp", MAX_ERR_MS) } else { ("local", 0.0) };
    ClockState { synced, source: source.into(), max_err_ms, boot_id: Some("boot".into()) }
}

impl Agent {
    fn new(device: &Device) -> Self {
        let (mono, wall, synced) = device.read(0.0);
        Self {
            media: MediaClock::default(),
            selector: FrameSelector::new(&[10.0]),
            map: ClockMap::new(),
            clock: DeviceClock::new(mono, wall, synced),
            record: ClockRecord::new(1, &state(synced)),
            session: SessionId(0),
            origin: None,
            seen: VecDeque::new(),
            sequence: 1,
        }
    }

    fn begin_session(&mut self) {
        self.session = self.session.next();
        self.media.restart();
        self.selector.reset();
        self.map = ClockMap::new();
        self.origin = None;
        self.seen.clear();
    }

    fn frame(&mut self, running: i64, captured: f64, arrival: Arrival) {
        let placed = self.media.place(running, arrival.mono_ns);
        let mut pts = Pts(placed - *self.origin.get_or_insert(placed));
        let mut verdict = self.selector.offer(pts);
        if verdict == Verdict::Jump {
            self.begin_session();
            self.origin = Some(placed);
            pts = Pts::ZERO;
            verdict = self.selector.offer(pts);
        }
        if matches!(verdict, Verdict::Take { .. } | Verdict::Skip) {
            self.map.observe(pts, Arrival { rebases: self.media.rebases(), ..arrival });
            self.seen.push_back((pts, captured));
            while self.seen.front().is_some_and(|(_, t)| captured - t > 60.0 * SECOND) {
                self.seen.pop_front();
            }
        }
    }

    /// An action that ended: begin and end anywhere in the last minute, known now.
    fn claims(&mut self, now: f64, device: &Device, chance: &mut Chance) -> Vec<Claim> {
        let (mono, wall, synced) = device.read(now);
        if let Some(step) = self.clock.look(mono, wall, synced) {
            self.record.note(&step, self.sequence - 1);
        }
        let mut pick = || self.seen[(chance.unit() * self.seen.len() as f64) as usize];
        let (mut start, mut end) = (pick(), pick());
        if start.0 > end.0 {
            std::mem::swap(&mut start, &mut end);
        }
        let decided = *self.seen.back().unwrap();
        let decision = Decision {
            action: self.sequence,
            rev: 0,
            label: 0,
            start: start.0,
            start_uncertainty_ms: 0.0,
            decided_at: decided.0,
            confidence: Confidence { mean: 0.5, peak: 0.5, last: 0.5 },
            windows: 1,
            status: Status::Ended { end: end.0, end_uncertainty_ms: 0.0, reason: EndReason::Boundary },
        };
        let state = state(synced);
        let wall_minus_mono_ns = self.clock.wall_minus_mono_ns();
        let clocks = Clocks { map: &self.map, state: &state, wall_minus_mono_ns, now_unix_ns: Some(wall) };
        let ids = replay_ids("x", self.sequence, 0, 0);
        let event = action_event(&context(), &decision, self.session, &clocks, ids, self.sequence);
        self.sequence += 1;
        let data = &event.data;
        let instants = [(&data.start, start.1), (data.end.as_ref().unwrap(), end.1), (&data.decided_at, decided.1)];
        instants
            .into_iter()
            .map(|(instant, truth)| Claim { event: event.clone(), instant: instant.clone(), truth, made: now })
            .collect()
    }
}

fn run(scene: &Scene) -> Outcome {
    let mut chance = Chance(scene.seed);
    let device = Device::new(scene, &mut chance);
    let mut agent = Agent::new(&device);
    let mut outcome = Outcome::default();
    let mut network = Network { newest: 0.0, burst: (0.0, 0.0), stall_until: 0.0 };
    let mut early = Vec::new();
    let (mut running, mut t, mut steps) = (chance.between(0.0, 1e14), 0.0, scene.camera_steps.iter().peekable());
    let mut next_claim = 0.0;
    agent.begin_session();
    outcome.connections += 1;
    while t < scene.length {
        let dt = 0.1 * SECOND;
        t += dt;
        let wander = scene.wander_ppm * (t / HOUR * std::f64::consts::TAU / 1.7).sin();
        running += dt * (1.0 + (scene.ppm + wander) * 1e-6);
        while let Some((_, by)) = steps.next_if(|(at, _)| *at <= t) {
            running += by;
        }
        if chance.unit() < 0.1 / scene.reconnects {
            t += 5.0 * SECOND;
            running = chance.between(0.0, 1e14);
            agent.begin_session();
            outcome.connections += 1;
        }
        let arrived = network.arrival(t, scene, &mut chance);
        let (mono_ns, wall_ns, _) = device.read(arrived);
        let reported = scene.reports.map(|wrong| wall_ns - (EPOCH as f64 + t + wrong) as i64);
        agent.frame(running as i64, t, Arrival { mono_ns, reported_delay_ns: reported, rebases: 0 });
        if arrived >= next_claim {
            next_claim = arrived + chance.between(0.5, 9.0) * SECOND;
            match agent.map.delay_source() {
                DelaySource::Reported => outcome.reported += 1,
                DelaySource::ReportsRefused => outcome.refused += 1,
                DelaySource::Assumed => {}
            }
            for claim in agent.claims(arrived, &device, &mut chance) {
                if claim.event.data.clock.synced {
                    check(&claim, 0.0, 0.0, &mut outcome);
                } else {
                    early.push(claim);
                }
            }
        }
    }
    // The consumer's side of the correction: a retained message that says which events to move, by how much.
    for claim in &early {
        let correction = agent.record.correction_ms(&claim.event);
        let since = (scene.set_at - claim.truth) / MS;
        check(claim, correction, since * agent.record.drift_ppm * 1e-6, &mut outcome);
    }
    outcome.steps_told = agent.record.steps.len();
    outcome.rebases = agent.media.rebases();
    outcome.sessions = agent.session.0;
    outcome.uncertainties.sort_by(f64::total_cmp);
    outcome.errors.sort_by(f64::total_cmp);
    outcome
}

fn check(claim: &Claim, correction_ms: f64, drift_ms: f64, outcome: &mut Outcome) {
    let said: jiff::Timestamp = claim.instant.time.parse().unwrap();
    let said = (said.as_nanosecond() - i128::from(EPOCH)) as f64 / MS + correction_ms;
    let error = said - claim.truth / MS;
    let clock_ms =
        if claim.event.data.clock.synced { claim.event.data.clock.max_err_ms } else { MAX_ERR_MS + drift_ms };
    let allowed = claim.instant.uncertainty_ms + clock_ms;
    let age = (claim.made - claim.truth) / SECOND;
    assert!(
        error.abs() <= allowed,
        "at {:.1} s, {age:.1} s back: wrong by {error:.1} ms, stated {allowed:.1} ms: {:?}",
        claim.made / SECOND,
        claim.instant
    );
    outcome.checked += 1;
    outcome.uncertainties.push(claim.instant.uncertainty_ms);
    outcome.errors.push(error.abs());
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * q) as usize]
}

impl Outcome {
    fn say(&self, name: &str) {
        let of = |v: &[f64]| [0.5, 0.95, 1.0].map(|q| quantile(v, q).round());
        println!(
            "{name}: {} times, {} sessions, {} joins; stated median, 95 %, most: {:?} ms; wrong by {:?} ms",
            self.checked,
            self.sessions,
            self.rebases,
            of(&self.uncertainties),
            of(&self.errors)
        );
    }

    fn median_ms(&self) -> f64 {
        quantile(&self.uncertainties, 0.5)
    }
}

#[test]
fn a_day_of_clocks_that_are_wrong() {
    for (seed, ppm) in [(1, 500.0), (2, -500.0), (3, 0.0)] {
        let outcome = run(&Scene::day(seed, ppm));
        outcome.say(&format!("{ppm} ppm"));
        assert!(outcome.checked > 40_000, "{}", outcome.checked);
        assert!(outcome.median_ms() <= 60.0, "stated {}", outcome.median_ms());
        assert_eq!(outcome.rebases, 3, "each setting of the camera's clock is one join");
        assert_eq!(outcome.sessions, outcome.connections, "and tears nothing");
        assert_eq!(outcome.steps_told, 1, "the device's clock was set once");
    }
}

#[test]
fn a_day_of_a_wandering_camera_on_a_worse_network() {
    let scene = Scene {
        wander_ppm: 80.0,
        delay: 75.0 * MS,
        jitter: 60.0 * MS,
        bursts: 60.0,
        stalls: 120.0,
        reconnects: 1200.0,
        ..Scene::day(4, 120.0)
    };
    let outcome = run(&scene);
    outcome.say("wandering");
    assert!(outcome.median_ms() <= 150.0, "stated {}", outcome.median_ms());
}

#[test]
fn steps_too_small_to_see_at_once_are_covered() {
    let small = |k: i32| ((f64::from(k) * 0.4 + 0.2) * HOUR, [0.2, -0.2, 0.4, -0.24, 0.1][k as usize % 5] * SECOND);
    let scene = Scene { camera_steps: (0..55).map(small).collect(), ..Scene::day(5, 30.0) };
    let outcome = run(&scene);
    outcome.say("small steps");
    assert_eq!(outcome.rebases, 0);
    assert!(outcome.median_ms() <= 60.0, "stated {}", outcome.median_ms());
}

#[test]
fn a_camera_that_tells_the_time_narrows_it_and_one_that_lies_is_not_believed() {
    let told = |wrong: f64, seed| {
        let scene = Scene { reports: Some(wrong), delay: 60.0 * MS, length: 6.0 * HOUR, ..Scene::day(seed, 50.0) };
        let outcome = run(&scene);
        outcome.say(&format!("a camera clock wrong by {} ms", wrong / MS));
        outcome
    };
    let right = told(8.0 * MS, 6);
    assert!(right.reported > right.checked / 3 * 8 / 10, "{} of {}", right.reported, right.checked / 3);
    assert!(right.median_ms() < 45.0, "stated {}", right.median_ms());
    let lying = told(HOUR, 7);
    assert_eq!(lying.reported, 0);
    assert!(lying.median_ms() <= 60.0, "stated {}", lying.median_ms());
    // Behind by less than shows: it is believed, and covered.
    told(-250.0 * MS, 8);
}

proptest! {
    // A failure prints its scene; there is no source root beside an integration test to keep it in.
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_hour_is_stated_honestly(
        seed in any::<u64>(),
        ppm in -700.0..700.0_f64,
        wander_ppm in 0.0..60.0_f64,
        delay in 0.0..80.0_f64,
        jitter in 0.0..80.0_f64,
        steps in proptest::collection::vec((0.0..560.0_f64, prop_oneof![1.0..1e5_f64, -1e5..0.0_f64, -0.4..0.0_f64]), 0..6),
        reconnects in 300.0..7200.0_f64,
        boot_error in -1e7..1e7_f64,
        set_at in 10.0..3000.0_f64,
        raw_ppm in -90.0..90.0_f64,
    ) {
        // A clock is not set twice within 20 s. Less than a second forward may hide in congestion that begins just then.
        let camera_steps =
            steps.iter().enumerate().map(|(k, (at, by))| ((k as f64 * 600.0 + at) * SECOND, by * SECOND)).collect();
        run(&Scene {
            length: HOUR,
            wander_ppm,
            delay: delay * MS,
            jitter: jitter * MS,
            camera_steps,
            reconnects,
            boot_error: boot_error * SECOND,
            set_at: set_at * SECOND,
            raw_ppm,
            ..Scene::day(seed, ppm)
        });
    }
}
