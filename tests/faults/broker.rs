//! The broker is away while thousands of events are decided, then back; or back, and away again in the middle of them.
//!
//! All must arrive, once by id, in the order of their numbers. Meanwhile the agent's memory stays as it is and inference goes
//! on at its rate: cameras here have a pace of their own, so a rate that falls is frames left out.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::bench::{Context, Outcome};
use crate::decided::Decided;
use crate::media;
use crate::rig::{Agent, Mosquitto, PATIENCE, Recorder, Setup, pause, wait_until};
use crate::support::check::Closure;
use crate::support::proxy::{Mode, Proxy};

const CAMERAS: u32 = 6;
/// Each frame of a camera that changes with every frame is an event.
const FPS: u32 = 50;
/// The rate before the fault is taken over this.
const CALM: Duration = Duration::from_secs(8);
/// Part of the rate that must stay.
const UNCHANGED: f64 = 0.95;
/// Memory that may come to be in use in an outage, beyond its first quarter. What is decided in that time is several times as
/// much.
const GROWTH_KIB: u64 = 4096;
/// The outbox sends at least so many a second.
const SLOWEST: f64 = 100.0;

/// The broker goes and comes back.
pub(crate) fn away(context: &Context) -> anyhow::Result<Outcome> {
    run(context, false)
}

/// The same; and it is killed and started again, without a memory, when half of what waited was sent.
pub(crate) fn restarted(context: &Context) -> anyhow::Result<Outcome> {
    run(context, true)
}

fn run(context: &Context, again: bool) -> anyhow::Result<Outcome> {
    let folder = context.folder.as_path();
    let events = context.count(20_000, 2_000);
    let mut broker = Mosquitto::start(folder)?;
    let mut recorder = Recorder::start(broker.port, folder)?;
    let line = Proxy::start(([127, 0, 0, 1], broker.port).into());
    let setup = Setup::new(folder, config(&line, context, events)?);
    let mut agent = setup.start_ready()?;
    recorder.wait("events", PATIENCE, |heard| heard.checker.distinct() > 100)?;
    let before = Rate::over(&agent, CALM)?;

    line.set(Mode::Refuse);
    line.reset();
    broker.kill();
    let (began, at_first) = (Instant::now(), decided(&agent)?);
    let outage = watch(&agent, at_first + f64::from(events), PATIENCE.mul_f64(f64::from(events) / 2000.0))?;
    let (lasted, waiting) = (began.elapsed(), decided(&agent)? - at_first);
    // It has connected before the subscriber has: what it sent then would reach nobody.
    broker.restart()?;
    recorder.subscribe_again()?;
    line.set(Mode::Forward);
    let back = Instant::now();
    if again {
        let half = recorder.look(|heard| heard.checker.distinct()) + u64::from(events) / 2;
        recorder.wait("half of what waited", PATIENCE.mul_f64(waiting / SLOWEST / 60.0 + 1.0), |heard| {
            heard.checker.distinct() >= half
        })?;
        cut_and_restart(&line, &mut broker, &mut recorder)?;
    }
    let limit = PATIENCE + Duration::from_secs_f64(waiting / SLOWEST);
    wait_until("the outbox to be empty", limit, || {
        agent.metric("kinewatch_outbox_messages ").is_some_and(|n| n < f64::from(FPS))
    })?;
    let drained = back.elapsed();
    wait_until("the cameras to end", PATIENCE * 2, || agent.total("kinewatch_stream_up{") == Some(0.0))?;
    agent.stop()?;
    let mut stored = Decided::default();
    stored.read(&setup.state, &folder.join("copy"))?;
    recorder.wait("the newest event", PATIENCE, |heard| heard.checker.newest() >= stored.newest())?;
    let verdict = recorder.verdict(Closure::Required)?;
    ensure!(verdict.holes == 0 && verdict.gaps_stated == 0, "{verdict:?}");
    let distinct = recorder.look(|heard| heard.checker.distinct());
    ensure!(distinct == stored.newest(), "{distinct} of {} events came", stored.newest());
    recorder.look(|heard| stored.compare(|id| heard.checker.sequence_of(id)))?;
    ensure!(
        outage.rate.per_s >= UNCHANGED * before.per_s,
        "{:.0} windows a second before, {:.0} meanwhile",
        before.per_s,
        outage.rate.per_s
    );
    ensure!(
        outage.growth_kib <= GROWTH_KIB,
        "memory grew by {} KiB while {waiting:.0} events waited",
        outage.growth_kib
    );
    let midway = if again { "; back, and killed and started again when half had been sent" } else { "; back" };
    Ok(Outcome::new(
        format!("broker away for {:.0} s while {waiting:.0} events were decided{midway}", lasted.as_secs_f64()),
        format!(
            "{distinct} events arrived, once by id and in order, {} messages came twice; nothing waited {:.0} s after; {:.0} windows a second \
             before, {:.0} meanwhile; memory {:+.1} MiB over the outage",
            verdict.duplicates,
            drained.as_secs_f64(),
            before.per_s,
            outage.rate.per_s,
            outage.growth_kib as f64 / 1024.0
        ),
    ))
}

/// The line is held first, so that what the broker has acknowledged has reached the subscriber when it dies.
fn cut_and_restart(line: &Proxy, broker: &mut Mosquitto, recorder: &mut Recorder) -> anyhow::Result<()> {
    line.set(Mode::Hole);
    let heard = |recorder: &Recorder| recorder.look(|heard| heard.checker.distinct());
    let mut before = u64::MAX;
    wait_until("the subscriber to have everything", PATIENCE, || {
        let now = heard(recorder);
        pause(Duration::from_millis(300));
        std::mem::replace(&mut before, now) == now
    })?;
    broker.kill();
    line.reset();
    line.set(Mode::Refuse);
    broker.restart()?;
    recorder.subscribe_again()?;
    line.set(Mode::Forward);
    Ok(())
}

/// Windows that were scored in a second.
struct Rate {
    per_s: f64,
}

impl Rate {
    fn over(agent: &Agent, length: Duration) -> anyhow::Result<Self> {
        let (began, before) = (Instant::now(), windows(agent)?);
        pause(length);
        Ok(Self { per_s: (windows(agent)? - before) / began.elapsed().as_secs_f64() })
    }
}

struct Outage {
    rate: Rate,
    /// Of its own memory, between its first quarter and its end.
    growth_kib: u64,
}

/// Looks at the agent until so many events are decided.
fn watch(agent: &Agent, until: f64, limit: Duration) -> anyhow::Result<Outage> {
    let (began, before) = (Instant::now(), windows(agent)?);
    let mut memory = Vec::new();
    while decided(agent)? < until {
        ensure!(began.elapsed() < limit, "{:.0} of {until:.0} events were decided in {limit:?}", decided(agent)?);
        memory.push(agent.usage()?.own_kib);
        pause(Duration::from_millis(500));
    }
    let per_s = (windows(agent)? - before) / began.elapsed().as_secs_f64();
    let quarter = memory[memory.len() / 4];
    let growth_kib = memory.iter().skip(memory.len() / 4).max().context("it was watched")?.saturating_sub(quarter);
    Ok(Outage { rate: Rate { per_s }, growth_kib })
}

fn windows(agent: &Agent) -> anyhow::Result<f64> {
    agent.total("kinewatch_windows_total{").context("the agent does not answer")
}

fn decided(agent: &Agent) -> anyhow::Result<f64> {
    agent.total("kinewatch_events_total{").context("the agent does not answer")
}

/// Cameras that end by themselves some time after `events` were decided without the broker.
fn config(line: &Proxy, context: &Context, events: u32) -> anyhow::Result<String> {
    let package = media::hasty_package(&context.folder)?;
    let mut text = format!(
        "[mqtt]\nurl = \"mqtt://{}\"\n\n[engine]\nbackend = \"tract\"\n\n[[model]]\nname = \"m\"\npath = \"{}\"\n",
        line.address,
        package.display()
    );
    let frames = (CALM.as_secs() as u32 + 15) * FPS + events * 5 / 4 / CAMERAS;
    for k in 0..CAMERAS {
        let source = format!("test:blink?size=64x48&fps={FPS}&frames={frames}");
        text += &format!("\n[[camera]]\nname = \"blink-{k}\"\nsource = \"{source}\"\n");
    }
    Ok(text)
}
