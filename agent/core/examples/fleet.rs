//! A fleet against a static server: how many requests and bytes, how fast a release spreads, how fast a halt arrives.
//!
//! `cargo run --release -p kinewatch-core --example fleet [-- DEVICES]`. Every device is the product's own [`Machine`]; the server,
//! the network and the time are simulated. Beside each figure stands what a formula says; the tests compare the two.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use jiff::Timestamp;
use kinewatch_core::rollout::step::{ClockState, Done, Health, Input, Job, Now, Policy, Poll, Settings, Step, Window};
use kinewatch_core::rollout::{
    Channel, Gates, Labels, Machine, Measured, Offer, Phase, Record, Requires, SCHEMA, SEEDS, Stage, Wave, seed,
};
use semver::Version;

/// Of a bundle: the larger of the shipped models.
const BUNDLE: u64 = 9_400_000;
/// What a device gets from the network, bytes a second (10 Mbit/s).
const RATE: u64 = 1_250_000;
/// Of a poll that finds nothing new: `N.root.json` (not found) and `timestamp.json`, with their headers.
const IDLE_POLL: (u64, u64) = (2, 1_700);
/// Beside it, of a poll that finds something new: snapshot, targets, channel file.
const NEW_POLL: (u64, u64) = (3, 9_000);
const HOUR: u64 = 3600;

/// What is published when, in seconds since the beginning, by rising time.
type Plan = Vec<(u64, Offer)>;

struct Fleet {
    begin: Timestamp,
    devices: Vec<Device>,
    /// When a device has to be looked at: time in ms, device, and the number of its appointment (older ones are void).
    queue: BinaryHeap<Reverse<(u64, usize, u64)>>,
    server: Server,
}

struct Device {
    machine: Machine,
    record: Record,
    appointment: u64,
    job: Option<(Job, u64)>,
    probation_since: u64,
    known: usize,
    /// When the release was committed, ms.
    done: Option<u64>,
    /// When a halt was seen, ms.
    halted: Option<u64>,
}

/// What the server was asked, by second.
#[derive(Default)]
struct Server {
    requests: Vec<u64>,
    metadata: u64,
    bundles: u64,
    /// Bundle bytes by second, spread over each transfer.
    egress: Vec<u64>,
}

impl Fleet {
    /// `together`: all start at once, as after a power cut; otherwise over a period.
    fn new(count: usize, period: u64, together: bool) -> Self {
        let begin = "2026-12-01T08:00:00Z".parse().unwrap_or_default();
        let devices: Vec<Device> = (0..count).map(|i| Device::new(i, period)).collect();
        let start = |i: usize| if together { 0 } else { i as u64 * period * 1000 / count as u64 };
        let queue = (0..count).map(|i| Reverse((start(i), i, 0))).collect();
        Self { begin, devices, queue, server: Server::default() }
    }

    fn run(&mut self, seconds: u64, plan: &Plan) {
        while let Some(&Reverse((at, index, appointment))) = self.queue.peek() {
            if at >= seconds * 1000 {
                break;
            }
            self.queue.pop();
            if appointment == self.devices[index].appointment {
                self.look(at, index, plan);
            }
        }
    }

    fn look(&mut self, at: u64, index: usize, plan: &Plan) {
        let now = Now { time: self.time(at), clock: ClockState::Synchronised, window: Window::Open };
        let device = &mut self.devices[index];
        let input = device.input(at);
        let mut step = device.take(&input, now);
        if step.poll == Poll::Begin {
            let published = plan.iter().take_while(|(from, _)| from * 1000 <= at).count();
            self.server.polled(at, published > device.known);
            device.known = published;
            let offer =
                published.checked_sub(1).map_or_else(|| release(now.time, 0, &[], false), |last| plan[last].1.clone());
            if offer.channel.halt && device.halted.is_none() {
                device.halted = Some(at);
            }
            step = device.take(&Input::Polled(Ok(Box::new(offer))), now);
        }
        let next = device.schedule(at, &step, &mut self.server, self.begin);
        self.queue.push(Reverse((next, index, device.appointment)));
    }

    fn time(&self, at: u64) -> Timestamp {
        self.begin.checked_add(Duration::from_millis(at)).unwrap_or(Timestamp::MAX)
    }

    /// When this share of the fleet had the release, seconds.
    fn share_done(&self, share: f64) -> Option<f64> {
        let mut done: Vec<u64> = self.devices.iter().filter_map(|d| d.done).collect();
        done.sort_unstable();
        let wanted = (self.devices.len() as f64 * share).ceil() as usize;
        done.get(wanted.max(1) - 1).map(|&at| at as f64 / 1000.0)
    }
}

impl Device {
    fn new(index: usize, period: u64) -> Self {
        let settings = Settings {
            device: format!("device-{index}"),
            agent: Version::new(0, 1, 0),
            factory: Some(Version::new(1, 0, 0)),
            channel: "stable".into(),
            policy: Policy::Auto,
            poll_period: Duration::from_secs(period),
            boot: None,
        };
        let (machine, record) = (Machine::new(settings), Record::new("falls"));
        let (done, halted) = (None, None);
        Self { machine, record, appointment: 0, job: None, probation_since: 0, known: 0, done, halted }
    }

    fn input(&mut self, at: u64) -> Input {
        if self.record.starts == 0 {
            return Input::Started;
        }
        match self.job.take() {
            Some((job, until)) if until <= at => Input::Ended { result: Ok(ends(&job)), job: Box::new(job) },
            other => {
                self.job = other;
                if matches!(self.record.phase, Phase::Trial { stage: Stage::Probation, .. }) {
                    let ran = Duration::from_millis(at - self.probation_since);
                    return Input::Health(Health { ran, windows: ran.as_secs() * 8, ..Health::default() });
                }
                Input::Tick
            }
        }
    }

    fn take(&mut self, input: &Input, now: Now) -> Step {
        let step = self.machine.step(&self.record, input, now);
        self.record = step.record.clone();
        step
    }

    /// When to look at it again.
    fn schedule(&mut self, at: u64, step: &Step, server: &mut Server, begin: Timestamp) -> u64 {
        self.appointment += 1;
        let mut next = (step.wake.duration_since(begin).as_millis() as u64).max(at + 1);
        if matches!(self.record.phase, Phase::Trial { stage: Stage::Probation, .. }) {
            if self.probation_since == 0 {
                self.probation_since = at;
            }
            next = next.min(at + 10_000);
        }
        if self.record.current.release().is_some() && self.done.is_none() {
            self.done = Some(at);
        }
        if self.job.as_ref().map(|(job, _)| job) != Some(&step.job) {
            self.job = (step.job != Job::None).then(|| (step.job.clone(), at + 1000 * lasts(&step.job)));
            if let Some((Job::Download { release }, until)) = &self.job {
                server.fetched(at, *until, release.length);
            }
        }
        self.job.as_ref().map_or(next, |(_, until)| next.min(*until))
    }
}

impl Server {
    fn polled(&mut self, at: u64, news: bool) {
        let (requests, bytes) = if news { (IDLE_POLL.0 + NEW_POLL.0, IDLE_POLL.1 + NEW_POLL.1) } else { IDLE_POLL };
        *slot(&mut self.requests, at / 1000) += requests;
        self.metadata += bytes;
    }

    fn fetched(&mut self, from: u64, until: u64, bytes: u64) {
        *slot(&mut self.requests, from / 1000) += 1;
        self.bundles += bytes;
        let (first, last) = (from / 1000, (until / 1000).max(from / 1000 + 1));
        for second in first..last {
            *slot(&mut self.egress, second) += bytes / (last - first);
        }
    }

    /// Requests a second over a stretch: mean, and the busiest minute of it.
    fn load(&self, from: u64, until: u64) -> (f64, f64) {
        let part = &self.requests[(from as usize).min(self.requests.len())..(until as usize).min(self.requests.len())];
        let mean = part.iter().sum::<u64>() as f64 / (until - from) as f64;
        let minute = part.chunks(60).map(|m| m.iter().sum::<u64>()).max().unwrap_or(0);
        (mean, minute as f64 / 60.0)
    }

    /// Bundle bytes a second in the busiest minute.
    fn peak_egress(&self) -> f64 {
        self.egress.chunks(60).map(|m| m.iter().sum::<u64>()).max().unwrap_or(0) as f64 / 60.0
    }
}

fn slot(seconds: &mut Vec<u64>, at: u64) -> &mut u64 {
    let at = at as usize;
    if seconds.len() <= at {
        seconds.resize(at + 1, 0);
    }
    &mut seconds[at]
}

/// How long a job takes, seconds: the transfer at the device's rate, the rest as measured on a small board.
fn lasts(job: &Job) -> u64 {
    match job {
        Job::Download { release } => release.length.div_ceil(RATE),
        Job::Unpack { .. } | Job::Load { .. } => 2,
        Job::Prove { .. } => 60,
        Job::Shadow { windows, .. } => windows / 8,
        Job::None | Job::Reserve { .. } | Job::Settle { .. } => 0,
    }
}

fn ends(job: &Job) -> Done {
    match job {
        Job::Prove { .. } => Done::Proven(Measured { p50_ms: 12.0, p99_ms: 20.0, peak_memory_mb: 300 }),
        Job::Shadow { windows, .. } => Done::Shadowed { windows: *windows, agreed: *windows },
        _ => Done::Plain,
    }
}

/// Seconds from the beginning of a trial to its commit, when nothing goes wrong.
fn trial_lasts(gates: &Gates) -> f64 {
    let (probation, shadow) = ((gates.probation_windows / 8).max(gates.probation_s), gates.shadow_windows / 8);
    (BUNDLE.div_ceil(RATE) + 2 + 60 + shadow + 2 + probation) as f64
}

/// Version 1.0 is that of the factory.
fn release(begin: Timestamp, minor: u64, waves: &[(u16, u64)], halt: bool) -> Offer {
    let version = Version::new(1, minor, 0);
    let wave = |&(seed_below, hours): &(u16, u64)| Wave {
        seed_below,
        not_before: begin.checked_add(Duration::from_secs(hours * HOUR)).unwrap_or(Timestamp::MAX),
    };
    let channel = Channel {
        schema: SCHEMA,
        channel: "stable".into(),
        model: "falls".into(),
        bundle: Channel::bundle_target("falls", &version),
        version,
        epoch: 1 + minor,
        requires: Requires::default(),
        waves: waves.iter().map(wave).collect(),
        halt,
        labels: Labels::Same,
        gates: Gates { shadow_windows: 300, ..Gates::default() },
    };
    Offer { channel, sha256: "a".repeat(64), length: BUNDLE }
}

/// A row of the table: what it is, what came out, and what the formula says.
type Row = (String, f64, f64, &'static str);

/// No news: what a fleet that only asks costs. And all at once after a power cut.
fn idle(count: usize, period: u64) -> Vec<Row> {
    let mut fleet = Fleet::new(count, period, false);
    fleet.run(period + 4 * HOUR, &Vec::new());
    let (mean, busiest) = fleet.server.load(period, period + 4 * HOUR);
    let formula = IDLE_POLL.0 as f64 * count as f64 / period as f64;
    let mut after = Fleet::new(count, period, true);
    after.run(period, &Vec::new());
    let (_, cut) = after.server.load(0, period);
    let spread = period.min(300) as f64;
    vec![
        ("requests/s, nothing new, mean".into(), mean, formula, ""),
        ("requests/s, nothing new, busiest minute".into(), busiest, formula, ""),
        ("requests/s after a power cut, busiest minute".into(), cut, IDLE_POLL.0 as f64 * count as f64 / spread, ""),
    ]
}

/// A release in three waves.
fn waves(count: usize, period: u64) -> Vec<Row> {
    let mut fleet = Fleet::new(count, period, false);
    let waves = [(SEEDS / 100, 0), (SEEDS / 10, 24), (SEEDS, 72)];
    // Published when every device has been started for a while.
    let offer = release(fleet.time(2 * period * 1000), 1, &waves, false);
    fleet.run(2 * period + 75 * HOUR, &vec![(2 * period, offer.clone())]);
    let published = 2.0 * period as f64;
    let reach = |share: f64| fleet.share_done(share).map_or(f64::NAN, |at| (at - published) / HOUR as f64);
    let lasts = trial_lasts(&offer.channel.gates);
    // The last device of a wave polls at most 1.1 periods after it has begun, the first almost at once.
    let last = |hours: u64| hours as f64 + (1.1 * period as f64 + lasts) / HOUR as f64;
    let seeds: Vec<u16> = (0..count).map(|i| seed(&format!("device-{i}"), "falls")).collect();
    let below = |limit: u16| seeds.iter().filter(|&&s| s < limit).count() as f64 / count as f64;
    vec![
        (
            format!("hours until wave 1 ({:.2} %) has it", 100.0 * below(waves[0].0)),
            reach(below(waves[0].0)),
            last(0),
            "at most",
        ),
        (
            format!("hours until wave 2 ({:.2} %) has it", 100.0 * below(waves[1].0)),
            reach(below(waves[1].0)),
            last(24),
            "at most",
        ),
        ("hours until all have it".into(), reach(1.0), last(72), "at most"),
        ("GB of bundles".into(), fleet.server.bundles as f64 / 1e9, (count as u64 * BUNDLE) as f64 / 1e9, ""),
        (
            "MB/s of bundles, busiest minute".into(),
            fleet.server.peak_egress() / 1e6,
            0.9 * count as f64 * BUNDLE as f64 / (0.9 * period as f64) / 1e6,
            "about",
        ),
    ]
}

/// A release for everyone that is halted while it spreads.
fn halt(count: usize, period: u64) -> Vec<Row> {
    let mut fleet = Fleet::new(count, period, false);
    let (published, halted) = (2 * period, 2 * period + period / 2);
    let plan = vec![(published, release(fleet.begin, 1, &[], false)), (halted, release(fleet.begin, 1, &[], true))];
    fleet.run(5 * period, &plan);
    let mut latencies: Vec<f64> =
        fleet.devices.iter().filter_map(|d| d.halted).map(|at| at as f64 / 1000.0 - halted as f64).collect();
    latencies.sort_by(f64::total_cmp);
    let mean = latencies.iter().sum::<f64>() / latencies.len().max(1) as f64;
    let kept = fleet.devices.iter().filter(|d| d.record.current.release().is_some()).count() as f64;
    let period = period as f64;
    // Who polls at a time that is even over a period of 0.9 to 1.1 of the nominal one waits half of it, and a little more.
    let formula = period * (1.0 + 0.01 / 3.0) / 2.0;
    let lasts = trial_lasts(&plan[0].1.channel.gates);
    // Half of them polled between the two; of these, who was through before the poll after that keeps it.
    let through = ((1.1 * period - lasts) / (0.2 * period)).clamp(0.0, 1.0);
    let kept_by_formula = count as f64 / 2.0 * through;
    vec![
        ("seconds from a halt to a device, mean".into(), mean, formula, ""),
        (
            "seconds from a halt to a device, longest".into(),
            latencies.last().copied().unwrap_or(f64::NAN),
            1.1 * period,
            "at most",
        ),
        ("devices that never saw the halt".into(), (count - latencies.len()) as f64, 0.0, ""),
        ("devices that keep a release halted half a period after".into(), kept, kept_by_formula, "about"),
    ]
}

fn main() {
    let count = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let period = 900;
    println!("{count} devices, a poll every {period} s, bundles of {:.1} MB, 10 Mbit/s each\n", BUNDLE as f64 / 1e6);
    println!("| | simulated | formula |\n|---|---|---|");
    for (what, simulated, formula, how) in [idle, waves, halt].iter().flat_map(|part| part(count, period)) {
        println!("| {what} | {simulated:.3} | {} |", format!("{how} {formula:.3}").trim_start());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_fleets_agree_with_the_formulas() {
        for (what, simulated, formula, how) in [idle, waves, halt].iter().flat_map(|part| part(400, 1800)) {
            let near = |share: f64| (simulated - formula).abs() <= formula.abs() * share + 1e-9;
            let fits = match how {
                "at most" => simulated <= formula * 1.002 && simulated > formula * 0.5,
                // A minute of a small fleet has few polls: their number scatters by its root.
                "about" => near(0.5),
                _ if what.contains("busiest minute") => simulated >= 0.9 * formula && simulated < 2.0 * formula,
                _ => near(0.05),
            };
            assert!(fits, "{what}: {simulated} simulated, {formula} by formula");
        }
    }
}
