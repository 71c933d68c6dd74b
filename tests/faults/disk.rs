//! The disk under the agent's state: full, read-only, hanging, damaged, gone. Each on a file system of the scenario's own.
//!
//! Promised: detection goes on; what is wrong is said in the log, by `/readyz`, in the metrics and on MQTT; it passes by itself
//! when the disk is well again; and no event is lost but those that `sys/gap` states.

mod mount;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::bench::{Context, Outcome};
use crate::decided::Decided;
use crate::media;
use crate::rig::{Agent, Mosquitto, PATIENCE, Recorder, Setup, pause, wait_until};
use crate::support::check::Closure;
use crate::support::proxy::{Mode, Proxy};
use mount::Mount;

/// Until what is wrong is said, and until it works again when nothing is wrong any more.
const SOON: Duration = Duration::from_secs(15);
/// Part of the rate of inference that must stay.
const UNCHANGED: f64 = 0.9;
/// From when memory is full: its queue fills too, and then inference waits for longer than a stage may hang.
const HELD_UP: Duration = Duration::from_secs(45);
const STORE: &str = "kinewatch/v1/test/box/store";
const STATUS: &str = "kinewatch/v1/test/box/status";

/// The agent on a disk that can be spoilt.
struct Stage {
    setup: Setup,
    agent: Agent,
    recorder: Recorder,
    line: Proxy,
    _broker: Mosquitto,
}

/// No space left.
pub(crate) fn full(context: &Context) -> anyhow::Result<Outcome> {
    let tried = "disk full, then space again";
    let Some(mount) = Mount::tmpfs(&context.folder.join("disk"), 16) else { return Ok(not_tried(tried)) };
    let mut stage = Stage::start(context, &mount.path)?;
    let filler = mount.path.join("filler");
    fill(&filler)?;
    let said = stage.goes_on_and_says("full", context)?;
    fs::remove_file(&filler)?;
    let works = stage.works_again()?;
    let judged = stage.finish(context, Loss::None)?;
    Ok(Outcome::new(tried, format!("said after {said:.1} s, works again {works:.1} s after there was space; {judged}")))
}

/// No space left for so long that memory is full of events: inference waits, longer than a stage may hang, and the process lives.
pub(crate) fn full_for_long(context: &Context) -> anyhow::Result<Outcome> {
    let tried = "disk full until memory is full of events, then space again";
    let Some(mount) = Mount::tmpfs(&context.folder.join("disk"), 96) else { return Ok(not_tried(tried)) };
    let mut stage = Stage::with(context, &mount.path, &busy())?;
    let filler = mount.path.join("filler");
    fill(&filler)?;
    let held = |agent: &Agent| agent.get("/readyz").is_some_and(|(_, body)| body.contains("nothing is watched"));
    let filled = wait_until("memory to be full", PATIENCE, || held(&stage.agent))?;
    ensure!(stage.agent.has_said("memory is full of events"), "the log does not say that memory is full");
    pause(HELD_UP);
    stage.agent.must_live()?;
    ensure!(held(&stage.agent), "inference goes on, and its events have no place");
    fs::remove_file(&filler)?;
    let works = stage.works_again()?;
    let judged = stage.finish(context, Loss::None)?;
    let (filled, held_s) = (filled.as_secs_f64(), HELD_UP.as_secs());
    Ok(Outcome::new(
        tried,
        format!(
            "memory full after {filled:.0} s, held up for {held_s} s, works again {works:.1} s after there was space; {judged}"
        ),
    ))
}

/// The kernel takes the file system for broken and makes it read-only; later another is mounted in its place.
pub(crate) fn read_only(context: &Context) -> anyhow::Result<Outcome> {
    let tried = "file system read-only (aborted by the kernel), then mounted anew";
    let Some(mut mount) = Mount::ext4(&context.folder.join("disk"), 48) else { return Ok(not_tried(tried)) };
    let mut stage = Stage::start(context, &mount.path)?;
    mount.abort()?;
    let said = stage.goes_on_and_says("read_only", context)?;
    mount.again()?;
    let works = stage.works_again()?;
    let judged = stage.finish(context, Loss::Stated)?;
    Ok(Outcome::new(tried, format!("said after {said:.1} s, works again {works:.1} s after the new mount; {judged}")))
}

/// Writes hang, as on a worn flash card.
pub(crate) fn hangs(context: &Context) -> anyhow::Result<Outcome> {
    let tried = "every write hangs for 8 s (frozen file system)";
    let Some(mount) = Mount::ext4(&context.folder.join("disk"), 48) else { return Ok(not_tried(tried)) };
    let stage = Stage::start(context, &mount.path)?;
    let before = stage.windows_per_s(Duration::from_secs(3))?;
    mount.freeze(true)?;
    let meanwhile = stage.windows_per_s(Duration::from_secs(8));
    mount.freeze(false)?;
    let meanwhile = meanwhile?;
    ensure!(meanwhile >= UNCHANGED * before, "{before:.0} windows a second before, {meanwhile:.0} meanwhile");
    let works = stage.works_again()?;
    let judged = stage.finish(context, Loss::None)?;
    let rates = format!("{before:.0} windows a second before, {meanwhile:.0} meanwhile");
    Ok(Outcome::new(tried, format!("{rates}; works again {works:.1} s after; {judged}")))
}

/// Bits of every page of the database turn while it is in use and the broker away; then the agent is killed.
pub(crate) fn damaged(context: &Context) -> anyhow::Result<Outcome> {
    let state = context.folder.join("disk");
    let mut stage = Stage::start(context, &state)?;
    stage.line.set(Mode::Refuse);
    stage.line.reset();
    let waits = |n: f64| move |agent: &Agent| agent.metric("kinewatch_outbox_messages ").is_some_and(|m| m >= n);
    wait_until("events to wait", PATIENCE, || waits(100.0)(&stage.agent))?;
    let flipped = flip_bits(&stage.setup.state, &mut context.chance())?;
    let before = stage.windows_per_s(Duration::from_secs(5))?;
    stage.agent.must_live()?;
    stage.agent.kill();
    stage.agent = stage.setup.start_ready()?;
    let meanwhile = stage.windows_per_s(Duration::from_secs(5))?;
    ensure!(
        meanwhile >= UNCHANGED * before,
        "{before:.0} windows a second before the restart, {meanwhile:.0} after it"
    );
    stage.line.set(Mode::Forward);
    let works = stage.works_again()?;
    let judged = stage.finish(context, Loss::Stated)?;
    Ok(Outcome::new(
        format!("{flipped} bits of the database flipped in use, the broker away; then kill -9"),
        format!("events again {works:.1} s after the broker was back; {judged}"),
    ))
}

/// Somebody removes the state directory.
pub(crate) fn gone(context: &Context) -> anyhow::Result<Outcome> {
    let state = context.folder.join("disk").join("state");
    let mut stage = Stage::start(context, &context.folder.join("disk"))?;
    fs::remove_dir_all(&state)?;
    let back = wait_until("the database to be there again", SOON, || state.join("events.db").exists())?;
    stage.agent.must_live()?;
    let works = stage.works_again()?;
    stage.agent.kill();
    stage.agent = stage.setup.start_ready()?;
    stage.works_again()?;
    let judged = stage.finish(context, Loss::Stated)?;
    Ok(Outcome::new(
        "state directory removed in use; later kill -9",
        format!("there again after {:.1} s, events again after {works:.1} s; {judged}", back.as_secs_f64()),
    ))
}

/// Whether the fault may take events with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    None,
    /// If it is said which.
    Stated,
}

/// Two cameras whose picture changes, and one that shows an action without an end.
fn few() -> String {
    let sources = [("a", "blink"), ("b", "blink"), ("white", "white")];
    sources.map(|(name, picture)| camera(name, picture, 12)).concat()
}

/// Enough to fill memory with events in half a minute.
fn busy() -> String {
    (0..8).map(|n| camera(&format!("blink-{n}"), "blink", 25)).collect()
}

fn camera(name: &str, picture: &str, fps: u32) -> String {
    format!("\n[[camera]]\nname = \"{name}\"\nsource = \"test:{picture}?size=64x48&fps={fps}\"\n")
}

impl Stage {
    fn start(context: &Context, disk: &Path) -> anyhow::Result<Self> {
        Self::with(context, disk, &few())
    }

    fn with(context: &Context, disk: &Path, cameras: &str) -> anyhow::Result<Self> {
        let folder = context.folder.as_path();
        let broker = Mosquitto::start(folder)?;
        let recorder = Recorder::start(broker.port, folder)?;
        let line = Proxy::start(([127, 0, 0, 1], broker.port).into());
        let package = media::hasty_package(folder)?;
        let config = format!(
            "[mqtt]\nurl = \"mqtt://{}\"\n\n[engine]\nbackend = \"tract\"\n\n[[model]]\nname = \"m\"\npath = \"{}\"\n{cameras}",
            line.address,
            package.display()
        );
        let setup = Setup::new(folder, config).with_state(disk.join("state"));
        let agent = setup.start_ready()?;
        recorder.wait("events", PATIENCE, |heard| heard.checker.distinct() > 10)?;
        Ok(Self { setup, agent, recorder, line, _broker: broker })
    }

    fn windows_per_s(&self, length: Duration) -> anyhow::Result<f64> {
        let windows = || self.agent.total("kinewatch_windows_total{").context("the agent does not answer");
        let (began, before) = (Instant::now(), windows()?);
        pause(length);
        Ok((windows()? - before) / began.elapsed().as_secs_f64())
    }

    /// Waits until the fault is said everywhere, and then looks whether detection goes on. Seconds until it was said.
    fn goes_on_and_says(&mut self, condition: &str, context: &Context) -> anyhow::Result<f64> {
        let mut unsaid = Vec::new();
        let said = wait_until("what is wrong to be said", SOON, || {
            unsaid = self.unsaid(condition);
            unsaid.is_empty()
        });
        let said = said.with_context(|| format!("not said by {unsaid:?}"))?;
        let expected = 3.0 * 12.0;
        let rate = self.windows_per_s(Duration::from_secs(context.count(30, 8).into()))?;
        ensure!(rate >= UNCHANGED * expected, "{rate:.0} windows a second of {expected:.0}");
        self.agent.must_live()?;
        Ok(said.as_secs_f64())
    }

    /// Who does not say yet that events cannot be stored.
    fn unsaid(&self, condition: &str) -> Vec<&'static str> {
        let on_mqtt = self.recorder.look(|h| h.states.get(STORE).is_some_and(|store| store["state"] == condition));
        let ready = self.agent.get("/readyz");
        let said = [
            ("MQTT", on_mqtt),
            ("/readyz", ready.is_some_and(|(status, body)| status == 503 && body.contains("stored"))),
            ("metrics", self.agent.metric("kinewatch_store_up ") == Some(0.0)),
            ("the log", self.agent.has_said("ERROR")),
        ];
        said.into_iter().filter(|(_, said)| !said).map(|(who, _)| who).collect()
    }

    /// Waits until events arrive that were decided from now on, and everybody says that all is well. Seconds until then.
    fn works_again(&self) -> anyhow::Result<f64> {
        let newest = self.recorder.look(|h| h.checker.newest());
        let ready = || self.agent.get("/readyz").is_some_and(|(status, _)| status == 200);
        let well = || {
            self.recorder
                .look(|h| h.states.get(STORE).is_none_or(|s| s["state"] == "ok") && h.checker.newest() > newest)
        };
        Ok(wait_until("events again", SOON, || ready() && well())?.as_secs_f64())
    }

    fn finish(mut self, context: &Context, loss: Loss) -> anyhow::Result<String> {
        wait_until("the outbox to be empty", PATIENCE, || {
            self.agent.metric("kinewatch_outbox_messages ").is_some_and(|n| n < 50.0)
        })?;
        self.agent.stop()?;
        let mut stored = Decided::default();
        if loss == Loss::None {
            stored.read(&self.setup.state, &context.folder.join("copy"))?;
        }
        self.recorder
            .wait("the farewell", PATIENCE, |h| h.states.get(STATUS).is_some_and(|s| s["state"] == "stopped"))?;
        self.recorder.wait("the newest event", PATIENCE, |h| h.checker.newest() >= stored.newest())?;
        let verdict = self.recorder.verdict(Closure::Required)?;
        ensure!(verdict.holes == 0, "{verdict:?}");
        ensure!(loss == Loss::Stated || verdict.gaps_stated == 0, "events were lost: {verdict:?}");
        self.recorder.look(|h| stored.compare(|id| h.checker.sequence_of(id)))?;
        let lost = if verdict.gaps_stated == 0 {
            "none lost, every action ended".to_owned()
        } else {
            format!(
                "{} ranges stated as lost, {} actions torn by them, every other ended",
                verdict.gaps_stated, verdict.torn
            )
        };
        Ok(format!("{} events, {lost}, 0 holes", verdict.messages - verdict.duplicates))
    }
}

fn not_tried(what: &str) -> Outcome {
    Outcome::not_tried(what, "it takes root to mount a file system")
}

/// Writes until the disk takes no more.
fn fill(path: &Path) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    // The last hole may be smaller than a large write.
    for size in [1 << 20, 4096, 1] {
        let zeros = vec![0; size];
        while file.write_all(&zeros).is_ok() {}
    }
    Ok(())
}

/// Two bits of each page: one where the page says what it is, one anywhere.
fn flip_bits(state: &Path, chance: &mut fastrand::Rng) -> anyhow::Result<usize> {
    const PAGE: u64 = 4096;
    let mut flipped = 0;
    for name in ["events.db", "events.db-wal"] {
        let file = OpenOptions::new().read(true).write(true).open(state.join(name))?;
        for page in 0..file.metadata()?.len() / PAGE {
            for within in [chance.u64(..8), chance.u64(..PAGE)] {
                let (at, mut byte) = (page * PAGE + within, [0]);
                file.read_exact_at(&mut byte, at)?;
                byte[0] ^= 1 << chance.u8(..8);
                file.write_all_at(&byte, at)?;
                flipped += 1;
            }
        }
    }
    Ok(flipped)
}
