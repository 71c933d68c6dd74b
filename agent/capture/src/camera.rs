//! One camera: its options, what it tells its consumer, and the handles that stop and restart it.
//!
//! [`Camera::spawn`] starts the thread `cam-<name>`, which owns the pipeline from building to teardown ([`crate::run`]).
//! One camera's trouble never touches another: nothing here is shared between cameras.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use kinewatch_core::beat::{self, Beat};
use kinewatch_core::frame::{Frame, FrameSpec};
use kinewatch_core::time::{Pts, SessionId};

use crate::backoff::BackoffOptions;
use crate::delivery::{Consumer, Delivery, Pace};
use crate::describe::Transport;
use crate::elements::Elements;
use crate::error::CaptureError;
use crate::pipeline;
use crate::run::CameraThread;
use crate::secret::Credentials;
use crate::source::Source;
use crate::stats::{CameraState, CameraStats, count};
use crate::stop::StopSignal;
use crate::teardown::Teardowns;

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
    /// A live source that sends the same picture, byte for byte, for so long is rebuilt; where that brings little
    /// else, after twice as long, and so on. `None`: never. Files and test patterns never are.
    pub frozen_timeout: Option<Duration>,
    /// File that is made to ask for a restart of `nvargus-daemon`, when a CSI camera gives nothing. `None`: nobody is asked.
    pub argus_request: Option<PathBuf>,
    /// Waits between tries.
    pub backoff: BackoffOptions,
    /// A pipeline that takes longer to stop is left to itself, and counted.
    pub teardown_deadline: Duration,
    /// Sessions that a camera of this name has begun before: their numbers are not used again.
    pub sessions_before: u32,
    /// Sign of life of the camera's thread: it stops when the thread hangs, not when the camera is away.
    pub beat: Arc<Beat>,
}

impl CameraOptions {
    /// The usual times, elements by probing. [`crate::init`] must have been called.
    #[must_use]
    pub fn new(name: impl Into<String>, source: Source, branches: Vec<Branch>) -> Self {
        let name = name.into();
        Self {
            frozen_timeout: frozen_timeout(&source),
            argus_request: None,
            beat: Arc::new(Beat::new(format!("capture {name}"), beat::LIMIT, Instant::now())),
            name,
            source,
            credentials: None,
            transport: Transport::default(),
            branches,
            elements: Elements::probe(None),
            stall_timeout: Duration::from_secs(5),
            first_frame_timeout: Duration::from_secs(10),
            backoff: BackoffOptions::default(),
            teardown_deadline: Duration::from_secs(2),
            sessions_before: 0,
        }
    }
}

/// The usual time after which a source that repeats itself counts as hanging. Pictures straight from a sensor never repeat;
/// encoders repeat those of a still scene.
#[must_use]
pub fn frozen_timeout(source: &Source) -> Option<Duration> {
    matches!(source, Source::Csi { .. }).then_some(Duration::from_secs(10))
}

/// Whether pictures that repeat can mean anything.
#[must_use]
pub fn can_freeze(source: &Source) -> bool {
    matches!(source, Source::Csi { .. } | Source::Rtsp { .. } | Source::V4l2 { .. })
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
pub struct Camera(CameraControl);

/// Restarts a camera from another thread than its owner's. Does not keep it running.
#[derive(Clone, Debug)]
pub struct CameraControl(Arc<Inner>);

struct Inner {
    options: CameraOptions,
    stats: Arc<CameraStats>,
    delivery: Arc<Delivery>,
    teardowns: Arc<Teardowns>,
    thread: Mutex<Thread>,
}

/// The thread `cam-<name>`.
struct Thread {
    stop: Arc<StopSignal>,
    done: Receiver<()>,
    /// The owner wants it to end: it is not started again.
    stopping: bool,
}

impl Camera {
    /// Whether [`Camera::spawn`] would find a file that cannot be opened, or a source that this machine cannot serve.
    ///
    /// # Errors
    /// It would.
    pub fn check(options: &CameraOptions) -> Result<(), CaptureError> {
        if let Source::File { path, .. } = &options.source {
            check_file(path)?;
        }
        pipeline::check(options)
    }

    /// Starts the camera's thread. Returns at once; a file that cannot be opened and a source that this machine cannot
    /// serve at all are errors here.
    ///
    /// `on` is called on the streaming thread for frames and on the camera's thread for the rest, never from two at a
    /// time. It must be quick, except that with `speed=max` it may block to slow the file down. It must not call
    /// [`Camera::stop`].
    pub fn spawn(options: CameraOptions, on: Consumer) -> Result<Self, CaptureError> {
        Self::check(&options)?;
        let stats = Arc::new(CameraStats::default());
        stats.sessions.store(options.sessions_before.into(), Relaxed);
        let pace = match &options.source {
            source if !source.is_real_time() => Pace::Unclocked,
            source if source.is_file() => Pace::Played,
            _ => Pace::Live,
        };
        let delivery = Delivery::new(&options.branches, pace, Arc::clone(&stats), on);
        let watched = options.frozen_timeout.is_some() && can_freeze(&options.source);
        let delivery = Arc::new(if watched { delivery.watch_stillness() } else { delivery });
        let teardowns = Arc::new(Teardowns::new(options.name.clone(), options.teardown_deadline));
        let thread = Mutex::new(start(&options, &stats, &delivery, &teardowns)?);
        Ok(Self(CameraControl(Arc::new(Inner { options, stats, delivery, teardowns, thread }))))
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.0.options.name
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Arc<CameraStats> {
        Arc::clone(&self.0.0.stats)
    }

    /// For whoever may restart it.
    #[must_use]
    pub fn control(&self) -> CameraControl {
        self.0.clone()
    }

    /// Asks the thread to end without waiting: with several cameras, ask all, then [`Camera::stop`] each.
    pub fn request_stop(&self) {
        let mut thread = self.0.thread();
        thread.stopping = true;
        thread.stop.raise();
    }

    /// Stops the camera and waits at most `deadline`. An open session gets its gap, [`GapReason::Stopped`], first.
    pub fn stop(&self, deadline: Duration) -> StopOutcome {
        self.request_stop();
        match self.0.thread().done.recv_timeout(deadline) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => StopOutcome::Joined,
            Err(RecvTimeoutError::Timeout) => StopOutcome::Abandoned,
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.request_stop();
    }
}

impl CameraControl {
    /// Asks for a new pipeline now, without the wait of a camera that is down; a camera that has ended begins again. An
    /// open session gets its gap, [`GapReason::Lost`]. Returns at once. Nothing else is touched: sessions and counters go
    /// on.
    ///
    /// # Errors
    /// The camera had ended and the operating system gives no thread.
    pub fn restart(&self) -> Result<(), CaptureError> {
        let mut thread = self.thread();
        let ended = thread.done.try_recv() != Err(TryRecvError::Empty);
        if !ended {
            thread.stop.rebuild();
        } else if !thread.stopping {
            *thread = self.start()?;
        }
        Ok(())
    }

    /// Leaves a thread that hangs to itself, counts it, and starts another in its place, which first ends the session
    /// that is open. Whatever the old one does when it comes to life again has no effect.
    ///
    /// # Errors
    /// The operating system gives no thread; the old one is still the camera's.
    pub fn replace(&self) -> Result<(), CaptureError> {
        let mut thread = self.thread();
        if thread.stopping {
            return Ok(());
        }
        // A new thread has a whole limit to give its first sign; where none can be had, one is tried again after it.
        self.0.options.beat.touch(Instant::now());
        let new = self.start()?;
        std::mem::replace(&mut *thread, new).stop.disown();
        count(&self.0.stats.threads_abandoned);
        Ok(())
    }

    fn start(&self) -> Result<Thread, CaptureError> {
        let Inner { options, stats, delivery, teardowns, .. } = &*self.0;
        start(options, stats, delivery, teardowns)
    }

    fn thread(&self) -> MutexGuard<'_, Thread> {
        self.0.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Camera").field("name", &self.options.name).field("stats", &self.stats).finish_non_exhaustive()
    }
}

fn start(
    options: &CameraOptions,
    stats: &Arc<CameraStats>,
    delivery: &Arc<Delivery>,
    teardowns: &Arc<Teardowns>,
) -> Result<Thread, CaptureError> {
    let (name, beat, stats) = (options.name.clone(), Arc::clone(&options.beat), Arc::clone(stats));
    let (stop, (ended, done)) = (Arc::new(StopSignal::default()), sync_channel(1));
    let raised = Arc::clone(&stop);
    let (delivery, teardowns) = (Arc::clone(delivery), Arc::clone(teardowns));
    let body = CameraThread::new(options.clone(), Arc::clone(&stats), Arc::clone(&stop), delivery, teardowns);
    thread::Builder::new()
        .name(format!("cam-{name}"))
        .spawn(move || {
            body.run();
            if !raised.is_disowned() {
                stats.enter(CameraState::Stopped);
                beat.rest(Instant::now());
            }
            let _ = ended.send(());
        })
        .map_err(|e| CaptureError::Thread { camera: name, reason: e.to_string() })?;
    Ok(Thread { stop, done, stopping: false })
}

/// Whether a video file is there and can be opened.
///
/// # Errors
/// It is not, or is something else.
pub fn check_file(path: &Path) -> Result<(), CaptureError> {
    let unreadable = |reason: String| CaptureError::Unreadable { path: path.to_owned(), reason };
    // Looked at before it is opened: opening a pipe waits for a writer.
    let checked = std::fs::metadata(path).and_then(|meta| match () {
        () if meta.is_dir() => Err(io::Error::other("it is a folder")),
        () if !meta.is_file() => Err(io::Error::other("it is not a file")),
        () => File::open(path).map(drop),
    });
    checked.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => CaptureError::NoFile { path: path.to_owned() },
        _ => unreadable(e.to_string()),
    })
}
