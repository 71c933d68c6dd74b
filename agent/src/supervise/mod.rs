//! The thread `supervise`: finds what hangs, restarts a camera alone, ends the process when nothing less helps, and tells
//! systemd how things are.
//!
//! It looks at signs of life ([`kinewatch_core::beat::Beat`]) and must itself depend on nothing that it watches: it takes
//! no lock of a stage, and waits for nothing but its own clock. Which stage is watched how: `agent/design/supervision.md`.

mod judge;
mod opening;
pub mod panics;
mod signals;
pub mod stages;
mod status;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use kinewatch_core::beat;

use self::judge::{Judge, Verdict};
pub use self::opening::{Opened, interruptible};
pub use self::signals::StopSignals;
use self::stages::Stuck;
use self::status::StatusLine;
use crate::health::{CameraView, Shared};
use crate::{builds, systemd};

/// How often the thread looks.
const TICK: Duration = Duration::from_millis(500);
/// From naming a stage that hangs to ending the process.
const GRACE: Duration = Duration::from_secs(5);
/// A look that comes so late says that the whole process was held up, not a stage.
const HELD_UP: Duration = Duration::from_secs(3);
/// Requests that may wait.
const REQUESTS: usize = 8;
/// So many threads of cameras left behind are borne: each holds memory, and perhaps a device.
const LEFT_BEHIND: u64 = 4;
/// A process that ends for its cameras' sake has run for this long: one that never works must not stop the others again
/// and again.
const HOLD_OFF: Duration = Duration::from_secs(600);
/// A stop that takes longer than the deadlines of `crate::app` together hangs; below `TimeoutStopSec=`.
const STOP_LIMIT: Duration = Duration::from_secs(12);
/// What systemd gets to act on `WATCHDOG=trigger`.
const TRIGGER_WAIT: Duration = Duration::from_secs(2);

/// What the thread can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A new pipeline for this camera, now; its open actions end with `stream_lost`. No other camera is touched.
    RestartCamera(String),
}

/// A request that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No camera of this name is configured.
    #[error("no camera {0} is configured")]
    UnknownCamera(String),
    /// Too many requests wait.
    #[error("too many requests wait; try again")]
    Busy,
}

/// Asks the thread. The thread ends when the last of them is dropped.
#[derive(Clone, Debug)]
pub struct Requests {
    shared: Arc<Shared>,
    queue: SyncSender<Request>,
}

impl Requests {
    /// Hands a request over; it is served within half a second. Never blocks.
    ///
    /// # Errors
    /// It makes no sense, or too many wait.
    pub fn send(&self, request: Request) -> Result<(), RequestError> {
        let Request::RestartCamera(name) = &request;
        if !self.shared.cameras.load().iter().any(|c| c.name == *name) {
            return Err(RequestError::UnknownCamera(name.clone()));
        }
        self.queue.try_send(request).map_err(|_| RequestError::Busy)
    }
}

/// The queue of requests about the cameras of `shared`.
#[must_use]
pub fn requests(shared: Arc<Shared>) -> (Requests, Receiver<Request>) {
    let (queue, requests) = sync_channel(REQUESTS);
    (Requests { shared, queue }, requests)
}

/// Starts the thread.
///
/// # Errors
/// The operating system gives no thread.
pub fn spawn(shared: Arc<Shared>) -> io::Result<Requests> {
    let (asking, asked) = requests(Arc::clone(&shared));
    let supervisor = Supervisor::new(shared, asked, systemd::watchdog_limit());
    thread::Builder::new().name("supervise".into()).spawn(move || supervisor.run())?;
    Ok(asking)
}

/// Ends the process without the exit handlers of the libraries in it: they would run beside threads that still use them,
/// and a thread that hangs could hang them. What is buffered must have been written.
pub fn exit(code: u8) -> ! {
    signal_hook::low_level::exit(code.into())
}

struct Supervisor {
    shared: Arc<Shared>,
    requests: Receiver<Request>,
    begun: Instant,
    judge: Judge,
    last_look: Instant,
    /// Until then nobody is judged: all were held up alike.
    lenient_until: Instant,
    status: StatusLine,
    /// How often the watchdog is fed, and when it was last.
    feeding: Option<(Duration, Option<Instant>)>,
    stopping_since: Option<Instant>,
    said_reload: bool,
    /// Minutes that the last look saw an engine being built.
    building_min: u64,
}

impl Supervisor {
    fn new(shared: Arc<Shared>, requests: Receiver<Request>, watchdog: Option<Duration>) -> Self {
        let begun = Instant::now();
        let mut grace = GRACE;
        if let Some(limit) = watchdog {
            // Named, and ended by ourselves, before systemd does it without a word.
            shared.stages.limit_to(beat::LIMIT.min(limit * 2 / 3).max(Duration::from_secs(2)));
            grace = grace.min(limit / 6);
        }
        let feeding = watchdog.map(|limit| (limit / 4, None));
        let (judge, status) = (Judge::new(grace), StatusLine::new(begun));
        let (last_look, lenient_until) = (begun, begun);
        Self {
            shared,
            requests,
            begun,
            judge,
            last_look,
            lenient_until,
            status,
            feeding,
            stopping_since: None,
            said_reload: false,
            building_min: 0,
        }
    }

    fn run(mut self) {
        let tick = self.feeding.map_or(TICK, |(every, _)| TICK.min(every));
        loop {
            self.look(Instant::now());
            match self.requests.recv_timeout(tick) {
                Ok(Request::RestartCamera(name)) => self.restart(&name),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self, now: Instant) {
        if self.shared.stopping.load(Relaxed) {
            return self.look_at_stop(now);
        }
        let lenient = self.is_lenient(now);
        let stuck = if lenient { None } else { self.overdue(now) };
        if let Some(why) = self.beyond_bearing(now) {
            self.give_up(&why);
        }
        let verdict = if lenient { self.judge.pause() } else { self.judge.look(now, stuck.clone()) };
        let well = match verdict {
            Verdict::Well => true,
            Verdict::Stuck(stuck) => {
                tracing::error!(stage = stuck.stage, "{stuck}");
                false
            }
            Verdict::Waiting => false,
            Verdict::Recovered(stage) => {
                tracing::warn!(stage, "{stage} makes progress again");
                true
            }
            Verdict::GiveUp(stuck) => self.give_up(&stuck.to_string()),
        };
        self.look_at_reload(now);
        self.building_min = builds::remind(self.shared.building.load().as_deref(), self.building_min, now);
        if let Some(line) = self.status.look(&self.shared, stuck.as_ref(), now) {
            systemd::status(line);
        }
        if let Some((every, last)) = &mut self.feeding
            && well
            && self.shared.ready.load(Relaxed)
            && last.is_none_or(|last| now.saturating_duration_since(last) >= *every)
        {
            *last = Some(now);
            systemd::feed_watchdog();
        }
    }

    /// Whether this thread was held up itself just now: then the others may have been, too.
    fn is_lenient(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(std::mem::replace(&mut self.last_look, now));
        if since >= HELD_UP {
            tracing::warn!("the process was held up for {:.0} s", since.as_secs_f64());
            self.lenient_until = now + GRACE;
        }
        now < self.lenient_until
    }

    /// Replaces the threads of cameras that hang, and names the stage that does.
    fn overdue(&self, now: Instant) -> Option<Stuck> {
        for camera in self.shared.cameras.load().iter() {
            replace_if_hung(camera, now);
        }
        self.shared.stuck(now)
    }

    /// Stages end one after another, so none is judged; the whole has a limit.
    fn look_at_stop(&mut self, now: Instant) {
        let since = *self.stopping_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= STOP_LIMIT {
            tracing::error!(
                "the stop hangs: the process ends; what is left open is ended with `recovered` by the next run"
            );
            exit(1);
        }
    }

    fn restart(&self, name: &str) {
        let cameras = self.shared.cameras.load();
        let control = cameras.iter().find(|c| c.name == name).and_then(|c| c.control.get());
        let Some(control) = control else {
            tracing::warn!(camera = name, "not restarted: it has not been started yet");
            return;
        };
        if let Err(error) = control.restart() {
            tracing::error!(camera = name, "not restarted: {error}");
        }
    }

    /// Why the process should end for its cameras' sake.
    fn beyond_bearing(&self, now: Instant) -> Option<String> {
        if now.saturating_duration_since(self.begun) < HOLD_OFF {
            return None;
        }
        let cameras = self.shared.cameras.load();
        let stats = || cameras.iter().filter_map(|c| Some((c, c.capture.get()?)));
        if let Some((camera, _)) = stats().find(|(_, s)| s.clogged.load(Relaxed)) {
            return Some(format!("camera {}: its pipelines do not stop", camera.name));
        }
        let left = stats().map(|(_, s)| s.threads_abandoned.load(Relaxed)).sum::<u64>()
            + self.shared.threads_left.load(Relaxed);
        (left >= LEFT_BEHIND).then(|| format!("{left} threads of cameras hang"))
    }

    /// A reload that hangs costs nothing that runs, so it is only said.
    fn look_at_reload(&mut self, now: Instant) {
        let hangs = self.shared.reloads.hangs(now);
        if let Some(since) = hangs
            && !self.said_reload
        {
            let minutes = since.as_secs() / 60;
            tracing::error!(
                "the configuration has been read for {minutes} min: a file, a device or a model that it names hangs; all goes on \
                 as before, and nothing can be changed before a restart"
            );
        }
        self.said_reload = hangs.is_some();
    }

    /// Ends the process, so that the service manager starts it again.
    fn give_up(&self, why: &str) -> ! {
        tracing::error!("{why}: the process ends, to be started again; open actions are ended with `recovered` then");
        systemd::status(&format!("ending: {why}"));
        if self.feeding.is_some() {
            systemd::trigger_watchdog();
            thread::sleep(TRIGGER_WAIT);
        }
        exit(1);
    }
}

fn replace_if_hung(camera: &CameraView, now: Instant) {
    let (Some(silence), Some(control)) = (camera.beat.overdue(now), camera.control.get()) else { return };
    let (camera, seconds) = (&camera.name, silence.as_secs());
    match control.replace() {
        Ok(()) => tracing::error!(camera, "its thread has hung for {seconds} s: left behind, another takes its place"),
        Err(error) => {
            tracing::error!(camera, "its thread has hung for {seconds} s, and no other takes its place: {error}")
        }
    }
}
