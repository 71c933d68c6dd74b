//! Hours of ordinary trouble: four cameras at 5 fps over RTSP, streams and the broker's connection cut at random moments.
//!
//! Memory, descriptors and threads are written to `soak.csv` every few seconds while it runs. They are judged in the second half
//! of the time (until then caches and arenas fill: SQLite's, GStreamer's, the allocator's), descriptors and threads where the
//! agent was well (every camera up, broker connected); the messages are judged all.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::bench::{Context, Outcome, Size};
use crate::media::{self, Clip};
use crate::procfs::{self, Usage};
use crate::rig::{Agent, Mosquitto, Recorder, Server, Setup, pause, program, wait_until};
use crate::support::check::Closure;
use crate::support::proxy::{Mode, Proxy};
use crate::support::root;

const CAMERAS: usize = 4;
const LONGEST_HOLE: Duration = Duration::from_secs(45);
/// After a cut, how long everything may take to be well again: the backoff of the broker's client is the longest.
const HEALING: Duration = Duration::from_secs(90);
/// Growth of memory that is borne, KiB an hour; judged in runs of at least [`JUDGED`].
const GROWTH_KIB: f64 = 1024.0;
const JUDGED: Duration = Duration::from_secs(1800);

/// One look at the agent.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at_s: f64,
    usage: Usage,
    well: bool,
}

/// Everything that can be cut.
struct Site {
    /// To each camera, and to the broker.
    lines: Vec<Line>,
    server: Server,
    cuts: Cuts,
}

struct Line {
    proxy: Proxy,
    /// When the hole in it is filled.
    hole_until: Option<Instant>,
}

/// What was done to it, by kind.
#[derive(Default)]
struct Cuts {
    cameras: u32,
    broker: u32,
    server: u32,
}

/// Runs the scenario.
pub(crate) fn run(context: &Context) -> anyhow::Result<Outcome> {
    let folder = context.folder.as_path();
    let quick = context.size == Size::Quick;
    let broker = Mosquitto::start(folder)?;
    let recorder = Recorder::start(broker.port, folder)?;
    let serve = folder.join("rtsp-serve");
    std::fs::copy(program()?, &serve)?;
    let clip = format!("cam={}", media::clip(Clip::Slow)?.display());
    let server = Server::start_copy(serve, folder, &["--loop".into(), clip])?;
    let mut site = Site::new(server, broker.port);
    let mut agent = Setup::new(folder, site.config()).with_own_copy()?.start_ready()?;
    wait_until("every camera", HEALING, || is_well(&agent))?;

    let mut chance = context.chance();
    let mut samples = Vec::new();
    let mut csv = File::create(folder.join("soak.csv"))?;
    writeln!(csv, "seconds,rss_kib,own_kib,fds,threads,well,messages")?;
    let (every, mean_s) = if quick { (Duration::from_secs(1), 6.0) } else { (Duration::from_secs(5), 30.0) };
    let began = Instant::now();
    let mut next_cut = began;
    while began.elapsed() < context.soak {
        agent.must_live()?;
        let sample = Sample { at_s: began.elapsed().as_secs_f64(), usage: agent.usage()?, well: is_well(&agent) };
        let Usage { rss_kib, own_kib, fds, threads } = sample.usage;
        let messages = recorder.look(|heard| heard.checker.distinct());
        writeln!(csv, "{:.1},{rss_kib},{own_kib},{fds},{threads},{},{messages}", sample.at_s, u8::from(sample.well))?;
        samples.push(sample);
        site.fill_holes(Instant::now());
        if Instant::now() >= next_cut {
            site.cut(&mut chance)?;
            next_cut = Instant::now() + Duration::from_secs_f64(-mean_s * (1.0 - chance.f64()).ln());
        }
        pause(every);
    }
    site.fill_holes(began + context.soak + LONGEST_HOLE);
    wait_until("everything to be well again", HEALING, || {
        is_well(&agent) && agent.metric("kinewatch_outbox_messages ") == Some(0.0)
    })?;
    agent.stop()?;
    recorder.wait("the farewell", HEALING, |heard| {
        heard.states.get("kinewatch/v1/test/box/status").is_some_and(|status| status["state"] == "stopped")
    })?;
    let verdict = recorder.verdict(Closure::Required)?;
    ensure!(verdict.holes == 0 && verdict.gaps_stated == 0, "{verdict:?}");
    println!("{}", tenths(&samples));
    let steady = judge(&samples, context.soak)?;
    Ok(Outcome::new(
        format!(
            "{:.1} h, {CAMERAS} cameras at 5 fps; at random moments {} cuts of a camera, {} of the broker, {} restarts of the RTSP server",
            context.soak.as_secs_f64() / 3600.0,
            site.cuts.cameras,
            site.cuts.broker,
            site.cuts.server
        ),
        format!(
            "{} messages, {} actions, 0 holes, 0 faults, all ended; {steady}",
            verdict.messages - verdict.duplicates,
            verdict.actions
        ),
    ))
}

impl Site {
    fn new(server: Server, broker_port: u16) -> Self {
        let broker = Proxy::start(([127, 0, 0, 1], broker_port).into());
        let proxies = (0..CAMERAS).map(|_| Proxy::start(server.address())).chain([broker]);
        let lines = proxies.map(|proxy| Line { proxy, hole_until: None }).collect();
        Self { lines, server, cuts: Cuts::default() }
    }

    fn config(&self) -> String {
        let package = root().join("tests/data/packages/tiny-bright");
        let address = |k: usize| self.lines[k].proxy.address;
        let mut text = format!(
            "[mqtt]\nurl = \"mqtt://{}\"\nkeep_alive_s = 5\n\n[engine]\nbackend = \"tract\"\n\n[[model]]\nname = \"m\"\npath = \"{}\"\n",
            address(CAMERAS),
            package.display()
        );
        for k in 0..CAMERAS {
            text += &format!("\n[[camera]]\nname = \"cam-{k}\"\nsource = \"rtsp://{}/cam\"\n", address(k));
        }
        text
    }

    /// One cut, chosen at random.
    fn cut(&mut self, chance: &mut fastrand::Rng) -> anyhow::Result<()> {
        let line = match chance.usize(..10) {
            0 => {
                self.cuts.server += 1;
                return self.server.restart();
            }
            1..=6 => {
                self.cuts.cameras += 1;
                chance.usize(..CAMERAS)
            }
            _ => {
                self.cuts.broker += 1;
                CAMERAS
            }
        };
        let line = &mut self.lines[line];
        match chance.u8(..4) {
            0 => line.proxy.reset(),
            1 => line.proxy.close(),
            2 => line.proxy.half_open(),
            _ => {
                line.proxy.set(Mode::Hole);
                line.hole_until = Some(Instant::now() + LONGEST_HOLE.mul_f64(chance.f64()));
            }
        }
        Ok(())
    }

    fn fill_holes(&mut self, now: Instant) {
        for line in &mut self.lines {
            if line.hole_until.is_some_and(|until| until <= now) {
                line.proxy.set(Mode::Forward);
                line.hole_until = None;
            }
        }
    }
}

fn is_well(agent: &Agent) -> bool {
    agent.total("kinewatch_stream_up{") == Some(CAMERAS as f64)
        && agent.metric("kinewatch_mqtt_connected ") == Some(1.0)
}

/// Whether it holds as much at the end as in the middle; says the figures.
fn judge(samples: &[Sample], length: Duration) -> anyhow::Result<String> {
    let warm_s = length.as_secs_f64() / 2.0;
    let warm: Vec<_> = samples.iter().filter(|s| s.at_s >= warm_s).collect();
    let own: Vec<_> = warm.iter().map(|s| (s.at_s / 3600.0, s.usage.own_kib as f64)).collect();
    let slope = procfs::slope(&own).filter(|_| length >= JUDGED);
    let well: Vec<_> = warm.iter().filter(|s| s.well).map(|s| s.usage).collect();
    ensure!(well.len() >= 3, "it was well at {} of {} looks", well.len(), warm.len());
    let third = well.len() / 3;
    let (first, last) = (&well[..third], &well[well.len() - third..]);
    let held = |part: &[Usage], what: fn(&Usage) -> u64| median(part.iter().map(what).collect());
    let [fds, threads] =
        [(|u: &Usage| u.fds) as fn(&Usage) -> u64, |u: &Usage| u.threads].map(|w| (held(first, w), held(last, w)));
    // A cut is still being mended at any moment of a short run.
    let borne = if length < JUDGED { 2 } else { 0 };
    ensure!(fds.1 <= fds.0 + borne, "descriptors: {} at first, {} at last", fds.0, fds.1);
    ensure!(threads.1 <= threads.0 + borne, "threads: {} at first, {} at last", threads.0, threads.1);
    let (low, high) = least_and_most(&warm, |u| u.own_kib);
    let (rss_low, rss_high) = least_and_most(&warm, |u| u.rss_kib);
    let mut memory = format!("own memory {low:.1} to {high:.1} MiB (resident {rss_low:.1} to {rss_high:.1})");
    if let Some(slope) = slope {
        memory += &format!(", {:+.2} ± {:.2} MiB/h", slope.per_x / 1024.0, slope.error / 1024.0);
        ensure!(slope.per_x < GROWTH_KIB, "{memory}");
    }
    Ok(format!("{memory}, descriptors {} → {}, threads {} → {}", fds.0, fds.1, threads.0, threads.1))
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// MiB.
fn least_and_most(samples: &[&Sample], what: fn(&Usage) -> u64) -> (f64, f64) {
    let of = || samples.iter().map(|s| what(&s.usage));
    (of().min().unwrap_or(0) as f64 / 1024.0, of().max().unwrap_or(0) as f64 / 1024.0)
}

/// What it held in each tenth of the time.
fn tenths(samples: &[Sample]) -> String {
    let head = "| from h | own memory MiB | resident MiB | descriptors | threads |\n|---|---|---|---|---|\n";
    let mut text = head.to_owned();
    for part in samples.chunks(samples.len().div_ceil(10).max(1)) {
        let part: Vec<_> = part.iter().collect();
        let (own, rss) = (least_and_most(&part, |u| u.own_kib), least_and_most(&part, |u| u.rss_kib));
        let count = |what: fn(&Usage) -> u64| {
            let of = || part.iter().map(|s| what(&s.usage));
            format!("{} to {}", of().min().unwrap_or(0), of().max().unwrap_or(0))
        };
        let (fds, threads) = (count(|u| u.fds), count(|u| u.threads));
        let from_h = part[0].at_s / 3600.0;
        text += &format!(
            "| {from_h:.2} | {:.1} to {:.1} | {:.1} to {:.1} | {fds} | {threads} |\n",
            own.0, own.1, rss.0, rss.1
        );
    }
    text
}
