//! The stage of a fault: broker, subscriber, agent, the patient behind its proxy, and the neighbour that must notice nothing.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::Pictures;
use super::frames::{self, RATE_HZ};
use crate::media::{self, Clip};
use crate::rig::{Agent, Mosquitto, PATIENCE, Recorder, Server, Setup};
use crate::support::check::{Closure, Told};
use crate::support::proxy::Proxy;
use crate::support::root;

/// The action of every clip lasts this long, seconds; found to a stride at each end.
const TRUE_S: f64 = 2.0;
const OFF_S: f64 = 0.35;
/// And comes again after this.
const PERIOD_S: f64 = 6.0;
/// User and password of the patient.
pub(crate) const LOGIN: (&str, &str) = ("viewer", "right-horse");

/// Everything that is there.
pub(crate) struct Stage {
    pub(crate) agent: Agent,
    pub(crate) recorder: Recorder,
    /// The patient's camera, and its line.
    pub(crate) server: Server,
    pub(crate) proxy: Proxy,
    _neighbour: Server,
    _broker: Mosquitto,
}

/// What the agent knows of its cameras at one moment.
pub(crate) struct Look {
    at: Instant,
    /// Sessions of the patient.
    pub(crate) sessions: u64,
    /// Frames of the neighbour.
    neighbour: f64,
}

impl Stage {
    /// Sets it up; both cameras are up. `clips`: what patient and neighbour show.
    pub(crate) fn start(folder: &Path, clips: [Clip; 2], transport: &str) -> anyhow::Result<Self> {
        Self::start_at(folder, clips, transport, "127.0.0.1", Vec::new())
    }

    /// The same with a patient that the agent knows by the name `host`, and an agent that is started through `wrapper`.
    pub(crate) fn start_at(
        folder: &Path,
        clips: [Clip; 2],
        transport: &str,
        host: &str,
        wrapper: Vec<String>,
    ) -> anyhow::Result<Self> {
        let broker = Mosquitto::start(folder)?;
        let recorder = Recorder::start(broker.port, folder)?;
        let login = ["--user", LOGIN.0, "--password", LOGIN.1].map(str::to_owned);
        let shows = |clip| anyhow::Ok(format!("cam={}", media::clip(clip)?.display()));
        let arguments: Vec<_> = login.into_iter().chain(["--loop".to_owned(), shows(clips[0])?]).collect();
        let server = Server::start(folder, &arguments)?;
        let neighbour = Server::start(folder, &["--loop".to_owned(), shows(clips[1])?])?;
        let proxy = Proxy::start(server.address());
        let port = proxy.address.port();
        // Media over UDP do not pass the proxy; the connection that controls them does.
        let login = folder.join("patient.login");
        std::fs::write(&login, format!("{}:{}\n", LOGIN.0, LOGIN.1))?;
        std::fs::set_permissions(&login, Permissions::from_mode(0o600))?;
        let package = root().join("tests/data/packages/tiny-bright");
        let config = format!(
            "[mqtt]\nurl = \"{}\"\n\n[engine]\nbackend = \"tract\"\n\n[[model]]\nname = \"m\"\npath = \"{}\"\n\n\
             [[camera]]\nname = \"patient\"\nsource = \"rtsp://{host}:{port}/cam\"\ncredentials_file = \"{}\"\n\
             transport = \"{transport}\"\n\n\
             [[camera]]\nname = \"neighbour\"\nsource = \"rtsp://{}/cam\"\n",
            broker.url(),
            package.display(),
            login.display(),
            neighbour.address()
        );
        let agent = Setup::new(folder, config).through(wrapper).start_ready()?;
        let stage = Self { agent, recorder, server, proxy, _neighbour: neighbour, _broker: broker };
        for camera in ["patient", "neighbour"] {
            frames::again(&stage.agent, camera, Instant::now(), PATIENCE)?;
        }
        Ok(stage)
    }

    /// Waits until the patient shows an action that goes on.
    pub(crate) fn await_open_action(&self) -> anyhow::Result<()> {
        let begun = |told: &[Told]| told.len();
        let before = begun(&self.patients_actions());
        self.recorder.wait("an action to begin", PATIENCE, |_| true)?;
        let what = "an open action of the patient";
        crate::rig::wait_until(what, PATIENCE, || {
            let told = self.patients_actions();
            begun(&told) > before && told.iter().any(|action| action.end.is_none())
        })?;
        Ok(())
    }

    /// Waits until an action of the patient that began from now on was told from begin to end.
    pub(crate) fn await_whole_action(&self, limit: Duration) -> anyhow::Result<()> {
        let before = self.patients_actions().iter().filter(|action| is_whole(action)).count();
        crate::rig::wait_until("a whole action of the patient", limit, || {
            self.patients_actions().iter().filter(|action| is_whole(action)).count() > before
        })?;
        Ok(())
    }

    /// How long after `since` the patient's frames came again at their usual rate.
    pub(crate) fn frames_again(&self, since: Instant, limit: Duration) -> anyhow::Result<Duration> {
        frames::again(&self.agent, "patient", since, limit)
    }

    /// What is known now.
    pub(crate) fn look(&self) -> anyhow::Result<Look> {
        let of = |metric, camera| self.agent.of_camera(metric, camera).context("the agent does not answer");
        Ok(Look {
            at: Instant::now(),
            sessions: of("stream_sessions_total", "patient")? as u64,
            neighbour: of("frames_total", "neighbour")?,
        })
    }

    /// An error unless an action of the patient ended with its stream.
    pub(crate) fn ensure_an_action_was_lost(&self) -> anyhow::Result<()> {
        let lost = self.patients_actions().iter().any(|action| ended(action, "stream_lost"));
        ensure!(lost, "no action ended with `stream_lost`: {:?}", self.patients_actions());
        Ok(())
    }

    /// Stops the agent and judges everything that was told, and the neighbour since `before`.
    pub(crate) fn finish(mut self, before: &Look, pictures: Pictures) -> anyhow::Result<String> {
        let now = self.look()?;
        let reconnects = self.agent.of_camera("stream_reconnects_total", "neighbour");
        ensure!(reconnects == Some(0.0), "the neighbour was connected again: {reconnects:?}");
        let rate = (now.neighbour - before.neighbour) / (now.at - before.at).as_secs_f64();
        ensure!(rate > 0.9 * RATE_HZ, "the neighbour had {rate:.1} frames a second");
        self.agent.stop()?;
        let status = "kinewatch/v1/test/box/status";
        self.recorder
            .wait("the farewell", PATIENCE, |h| h.states.get(status).is_some_and(|s| s["state"] == "stopped"))?;
        let verdict = self.recorder.verdict(Closure::Required)?;
        ensure!(verdict.holes == 0 && verdict.gaps_stated == 0, "{verdict:?}");
        let (patient, neighbour): (Vec<_>, Vec<_>) =
            self.recorder.look(|h| h.checker.told().cloned().partition(|a| a.camera == "patient"));
        let odd: Vec<_> = neighbour.iter().filter(|a| !is_whole(a) && !ended(a, "shutdown")).collect();
        ensure!(odd.is_empty(), "actions of the neighbour: {odd:?}");
        let odd = odd_actions(&patient);
        let borne = match pictures {
            Pictures::Whole => odd.is_empty(),
            Pictures::Changed => odd.len() <= 1,
            Pictures::Poor => odd.iter().all(|action| overlaps_truth(action, &patient)),
        };
        ensure!(borne, "actions of the patient that it did not show: {odd:?}");
        let blurred = if odd.is_empty() { String::new() } else { format!(", {} with other boundaries", odd.len()) };
        let told = patient.len() + neighbour.len();
        Ok(format!("{told} actions told, none invented{blurred}; the neighbour missed nothing"))
    }

    fn patients_actions(&self) -> Vec<Told> {
        self.recorder.look(|h| h.checker.told().filter(|a| a.camera == "patient").cloned().collect())
    }
}

fn seconds(action: &Told) -> Option<f64> {
    action.end.as_ref().map(|end| (end.at_ns - action.start_ns) as f64 / 1e9)
}

fn ended(action: &Told, by: &str) -> bool {
    action.end.as_ref().is_some_and(|end| end.reason == by)
}

/// As the clip shows it.
fn is_whole(action: &Told) -> bool {
    ended(action, "boundary") && seconds(action).is_some_and(|s| (s - TRUE_S).abs() <= OFF_S)
}

/// As the clip shows it up to the end of the stream.
fn is_broken_off(action: &Told) -> bool {
    !ended(action, "boundary") && seconds(action).is_some_and(|s| s <= TRUE_S + OFF_S)
}

fn odd_actions(all: &[Told]) -> Vec<&Told> {
    let mut odd: Vec<_> = all.iter().filter(|a| !is_whole(a) && !is_broken_off(a)).collect();
    odd.sort_by_key(|a| (a.epoch, a.start_ns));
    odd
}

/// Whether the clip showed the action for a part of the time that was told: where it shows one is known from the first action
/// of the session.
fn overlaps_truth(action: &Told, all: &[Told]) -> bool {
    let first_ns = all.iter().filter(|a| a.epoch == action.epoch).map(|a| a.start_ns).min().unwrap_or(0);
    let since = |at_ns: i64| (at_ns - first_ns) as f64 / 1e9;
    let (start, end) = (since(action.start_ns), since(action.end.as_ref().map_or(action.start_ns, |end| end.at_ns)));
    let turn = (start / PERIOD_S).floor() * PERIOD_S;
    [turn, turn + PERIOD_S].iter().any(|begin| start <= begin + TRUE_S + OFF_S && end >= begin - OFF_S)
}
