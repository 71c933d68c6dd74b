//! `kill -9` at random moments, again and again, while events are decided at a high rate and actions are open.
//!
//! What was decided is read from the agent's own database after a kill, from a copy, and compared with what the subscriber
//! heard in the end: the same id with the same number, all of them, once each but for marked repetitions.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::bench::{Context, Outcome};
use crate::decided::Decided;
use crate::media::{self, Clip};
use crate::rig::{Mosquitto, PATIENCE, Recorder, Setup, pause};
use crate::support::check::Closure;

/// Kills are this far apart at most.
const APART: Duration = Duration::from_secs(2);
/// The database keeps 10,000 events; it is read long before that many have come.
const KILLS_A_LOOK: u32 = 8;

/// Runs the scenario.
pub(crate) fn run(context: &Context) -> anyhow::Result<Outcome> {
    let folder = context.folder.as_path();
    let kills = context.count(1000, 200);
    let mut chance = context.chance();
    let broker = Mosquitto::start(folder)?;
    let recorder = Recorder::start(broker.port, folder)?;
    let head = head(&broker, &media::hasty_package(folder)?);
    let busy = Setup::new(folder, head.clone() + &cameras()?);
    let mut decided = Decided::default();
    let began = Instant::now();
    for kill in 0..kills {
        let mut agent = busy.start()?;
        pause(APART.mul_f64(chance.f64()));
        agent.must_live()?;
        agent.kill();
        if kill % KILLS_A_LOOK == 0 {
            decided.read(&busy.state, &folder.join("copy"))?;
        }
    }
    let rate = f64::from(u32::try_from(decided.len())?) / began.elapsed().as_secs_f64();
    // A last run ends well; what it could not send in its second of farewell is sent by one that sees nothing.
    busy.start_ready()?.stop()?;
    decided.read(&busy.state, &folder.join("copy"))?;
    let mut quiet =
        busy.reconfigured(head + "\n[[camera]]\nname = \"dark\"\nsource = \"test:black?fps=5\"\n").start_ready()?;
    recorder.wait("the newest event", PATIENCE, |heard| heard.checker.newest() >= decided.newest())?;
    quiet.stop()?;
    let verdict = recorder.verdict(Closure::Required)?;
    ensure!(verdict.holes == 0 && verdict.gaps_stated == 0, "{verdict:?}");
    recorder.look(|heard| decided.compare(|id| heard.checker.sequence_of(id)))?;
    let recovered = verdict.reasons.get("recovered").copied().unwrap_or(0);
    ensure!(recovered > u64::from(kills) / 2, "only {recovered} actions were open at {kills} kills: nothing was tried");
    Ok(Outcome::new(
        format!("{kills} × kill -9, 0 to {} s apart, while {rate:.0} events a second were decided", APART.as_secs()),
        format!(
            "{} events decided, 0 lost, 0 holes, 0 faults; {} actions, all ended, {recovered} of them with `recovered`; \
             {} messages came twice, marked by their id",
            decided.len(),
            verdict.actions,
            verdict.duplicates
        ),
    ))
}

fn head(broker: &Mosquitto, package: &Path) -> String {
    let (url, path) = (broker.url(), package.display());
    format!("[mqtt]\nurl = \"{url}\"\n\n[engine]\nbackend = \"tract\"\n\n[[model]]\nname = \"m\"\npath = \"{path}\"\n")
}

/// Six that change 25 times a second, one whose action never ends by itself, and a file that begins again and again.
fn cameras() -> anyhow::Result<String> {
    let blink = |k| (format!("blink-{k}"), "test:blink?size=64x48&fps=25".to_owned());
    let file = format!("file:{}?loop=true", media::clip(Clip::Plain)?.display());
    let others = [("white".to_owned(), "test:white?size=64x48&fps=10".to_owned()), ("file".to_owned(), file)];
    let all = (0..6).map(blink).chain(others);
    Ok(all.map(|(name, source)| format!("\n[[camera]]\nname = \"{name}\"\nsource = \"{source}\"\n")).collect())
}
