//! A stream that breaks again and again: nothing may be left behind by any of its sessions.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::stage::Stage;
use super::{AGAIN, Pictures};
use crate::bench::{Context, Outcome};
use crate::media::Clip;
use crate::procfs::{self, Usage};
use crate::rig::wait_until;

/// Growth of memory that is borne, KiB a reconnect: less than the smallest thing that a session could leave behind.
const GROWTH_KIB: f64 = 2.0;
/// Sessions until caches and pools are full.
const WARM_UP: usize = 20;

/// Runs the scenario.
pub(crate) fn run(context: &Context) -> anyhow::Result<Outcome> {
    // Nothing happens in front of the cameras: the database's cache, which grows with events up to its limit, stays as it is.
    let mut stage = Stage::start(&context.folder, [Clip::Dark; 2], "tcp")?;
    let before = stage.look()?;
    let count = context.count(200, 30) as usize;
    let (mut usages, mut slowest) = (Vec::new(), Duration::ZERO);
    let mut csv = File::create(context.folder.join("reconnects.csv"))?;
    writeln!(csv, "reconnect,rss_kib,own_kib,fds,threads")?;
    for round in 0..count {
        let sessions = |stage: &Stage| stage.look().map_or(0, |look| look.sessions);
        let at = sessions(&stage);
        let cut = Instant::now();
        match round % 3 {
            0 => stage.proxy.reset(),
            1 => stage.proxy.close(),
            _ => stage.proxy.half_open(),
        }
        wait_until("another session", AGAIN, || sessions(&stage) > at)?;
        slowest = slowest.max(cut.elapsed());
        let usage @ Usage { rss_kib, own_kib, fds, threads } = stage.agent.usage()?;
        writeln!(csv, "{round},{rss_kib},{own_kib},{fds},{threads}")?;
        usages.push(usage);
    }
    stage.frames_again(Instant::now(), AGAIN)?;
    let (first, last) = (usages[WARM_UP.min(count / 2)], *usages.last().context("none")?);
    let points: Vec<_> = usages.iter().enumerate().skip(WARM_UP).map(|(k, u)| (k as f64, u.own_kib as f64)).collect();
    let slope = procfs::slope(&points).context("too few")?;
    let flat = |what: fn(&Usage) -> u64, name: &str| {
        ensure!(
            what(&last) <= what(&first),
            "{name}: {} after the first sessions, {} at last",
            what(&first),
            what(&last)
        );
        Ok(what(&last))
    };
    let (fds, threads) = (flat(|u| u.fds, "descriptors")?, flat(|u| u.threads, "threads")?);
    let growth = format!("memory {:+.2} ± {:.2} KiB a reconnect", slope.per_x, slope.error);
    ensure!(points.len() < 100 || slope.per_x < GROWTH_KIB, "{growth}");
    stage.offer(Clip::Plain)?;
    stage.await_whole_action(super::ACTION)?;
    let judged = stage.finish(&before, Pictures::Whole)?;
    Ok(Outcome::new(
        format!("{count} reconnects in a row: reset, closed, half-open"),
        format!(
            "each within {:.1} s; {fds} descriptors and {threads} threads after the first as after the last, {growth}; {judged}",
            slowest.as_secs_f64()
        ),
    ))
}
