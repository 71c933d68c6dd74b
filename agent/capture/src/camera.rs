//! One camera: its options, what it tells its consumer, and the handle that stops it.
//!
//! [`Camera::spawn`] starts the thread `cam-<name>`, which owns the pipeline from building to teardown ([`crate::run`]).
//! One camera's trouble never touches another: nothing here is shared between cameras.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use kinewatch_core::frame::{Frame, FrameSpec};
use kinewatch_core::time::{Pts, SessionId};

use crate::backoff::BackoffOptions;
use crate::delivery::{Consumer, Delivery, Pace};
use crate::describe::Transport;
use crate::elements::Elements;
use crate::error::CaptureError;
use crate::pipeline;
use crate::run::{CameraThread, StopSignal};
use crate::secret::Credentials;
use crate::source::Source;
use crate::stats::{CameraState, CameraStats};

/// Frames of one size and chain, for one or more samplers.
#[derive(Clone, Debug)]
pub struct Branch {
    /// What the frames look like.
    pub spec: FrameSpec,
    /// Rate of each sampler, frames a second; at most 32.
    pub rates_hz: Vec<f64>,
    /// Buffers; when all are held by the consumer, frames are dropped and counted.
    pub pool_frames: usize,
}

/// Everything a camera is made of.
#[derive(Clone, Debug)]
pub struct CameraOptions {
    /// Names the thread and the log lines.
    pub name: String,
    /// Where pictures come from.
    pub source: Source,
    /// Before those of the URL.
    pub credentials: Option<Credentials>,
    /// RTP over TCP or UDP.
    pub transport: Transport,
    /// One for each distinct [`FrameSpec`].
    pub branches: Vec<Branch>,
    /// Elements to use: [`Elements::probe`], asked once for all cameras.
    pub elements: Elements,
    /// A live source without a decoded frame for so long is rebuilt.
    pub stall_timeout: Duration,
    /// The same, before the first frame of a connection. A camera that has shown that it is quicker is given
    /// less for its first packet: twice the longest it ever took, and at least 4 s.
    pub first_frame_timeout: Duration,
    /// Waits between tries.
    pub backoff: BackoffOptions,
    /// A pipeline that takes longer to stop is left to itself, and counted.
    pub teardown_deadline: Duration,
}

impl CameraOptions {
    /// The usual times, elements by probing. [`crate::init`] must have been called.
    #[must_use]
    pub fn new(name: impl Into<String>, source: Source, branches: Vec<Branch>) -> Self {
        Self {
            name: name.into(),
            source,
            credentials: None,
            transport: Transport::default(),
            branches,
            elements: Elements::probe(),
            stall_timeout: Duration::from_secs(5),
            first_frame_timeout: Duration::from_secs(10),
            backoff: BackoffOptions::default(),
            teardown_deadline: Duration::from_secs(2),
        }
    }
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Error, silence, or the end of a live stream; one line without passwords.
    Lost(String),
    /// The file or test pattern ended.
    EndOfStream,
    /// The file begins again.
    Looped,
    /// Time stamps of a file leapt, or those of a camera over a pause of more than 10 s.
    Jump,
    /// The camera was stopped.
    Stopped,
}

/// What a camera tells its consumer, in this order: frames of a session, its gap, frames of the next session…
#[derive(Clone, Debug)]
pub enum Captured {
    /// A wanted frame.
    Frame {
        /// Index in [`CameraOptions::branches`].
        branch: usize,
        /// The frame.
        frame: Frame,
    },
    /// The session is over. Every session that began ends with exactly one.
    Gap {
        /// Which.
        session: SessionId,
        /// Media time of its last decoded frame.
        last: Option<Pts>,
        /// Why.
        reason: GapReason,
    },
    /// A source that plays once is done: nothing more will come.
    Finished,
    /// The source cannot be played and waiting does not help (files): nothing more will come.
    Failed(CaptureError),
}

/// How a stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOutcome {
    /// The thread is gone, and so is the pipeline, unless [`CameraStats::abandoned`] says otherwise.
    Joined,
    /// The thread did not end in time and was left to itself.
    Abandoned,
}

/// A running camera. Dropping it asks the thread to end, without waiting.
#[derive(Debug)]
pub struct Camera {
    name: String,
    stats: Arc<CameraStats>,
    stop: Arc<StopSignal>,
    done: Mutex<Receiver<()>>,
}

impl Camera {
    /// Starts the camera's thread. Returns at once; a file that cannot be opened and a source that this machine cannot
    /// serve at all are errors here.
    ///
    /// `on` is called on the streaming thread for frames and on the camera's thread for the rest, never from two at a
    /// time. It must be quick, except that with `speed=max` it may block to slow the file down. It must not call
    /// [`Camera::stop`].
    pub fn spawn(options: CameraOptions, on: Consumer) -> Result<Self, CaptureError> {
        check_file(&options.source)?;
        pipeline::check(&options)?;
        let name = options.name.clone();
        let stats = Arc::new(CameraStats::default());
        let stop = Arc::new(StopSignal::default());
        let pace = match &options.source {
            source if !source.is_real_time() => Pace::Unclocked,
            source if source.is_file() => Pace::Played,
            _ => Pace::Live,
        };
        let delivery = Arc::new(Delivery::new(&options.branches, pace, Arc::clone(&stats), on));
        let (ended, done) = sync_channel(1);
        let body = CameraThread::new(options, Arc::clone(&stats), Arc::clone(&stop), delivery);
        let thread_stats = Arc::clone(&stats);
        thread::Builder::new()
            .name(format!("cam-{name}"))
            .spawn(move || {
                body.run();
                thread_stats.enter(CameraState::Stopped);
                let _ = ended.send(());
            })
            .map_err(|e| CaptureError::Thread { camera: name.clone(), reason: e.to_string() })?;
        Ok(Self { name, stats, stop, done: Mutex::new(done) })
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Arc<CameraStats> {
        Arc::clone(&self.stats)
    }

    /// Asks the thread to end without waiting: with several cameras, ask all, then [`Camera::stop`] each.
    pub fn request_stop(&self) {
        self.stop.raise();
    }

    /// Stops the camera and waits at most `deadline`. An open session gets its gap, [`GapReason::Stopped`], first.
    pub fn stop(&self, deadline: Duration) -> StopOutcome {
        self.stop.raise();
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        match done.recv_timeout(deadline) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => StopOutcome::Joined,
            Err(RecvTimeoutError::Timeout) => StopOutcome::Abandoned,
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.stop.raise();
    }
}

fn check_file(source: &Source) -> Result<(), CaptureError> {
    let Source::File { path, .. } = source else { return Ok(()) };
    let unreadable = |reason: String| CaptureError::Unreadable { path: path.clone(), reason };
    match File::open(path).and_then(|file| file.metadata()) {
        Ok(meta) if meta.is_dir() => Err(unreadable("it is a folder".into())),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(CaptureError::NoFile { path: path.clone() }),
        Err(e) => Err(unreadable(e.to_string())),
    }
}
