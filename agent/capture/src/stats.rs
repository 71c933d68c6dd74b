//! Counters of one camera, read by metrics and status at any time.
//!
//! Never locks on the path of a frame: counters are relaxed atomics, each written by the camera's own threads. Only
//! the text of the last error sits behind a mutex.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::secret::redact;

/// What a camera is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CameraState {
    /// Pipeline built, no frame yet.
    Connecting = 0,
    /// Frames arrive.
    Up = 1,
    /// Waiting before the next try.
    Down = 2,
    /// Stopped, finished or failed for good.
    Stopped = 3,
}

/// Counters since the camera was spawned. All counts are of frames unless said otherwise.
#[derive(Debug, Default)]
pub struct CameraStats {
    /// Came out of the decoder.
    pub decoded: AtomicU64,
    /// Delivered to the consumer, over all branches.
    pub taken: AtomicU64,
    /// Not wanted by any sampler, dropped before the scaler, over all branches.
    pub skipped: AtomicU64,
    /// Dropped: same time stamp as the one before.
    pub duplicates: AtomicU64,
    /// Dropped: time stamp went back by less than a second.
    pub backward: AtomicU64,
    /// Came without time stamp: timed by the stream's frame rate, else by their arrival (files: 25 a second).
    pub no_pts: AtomicU64,
    /// Dropped: every buffer of the pool was in use.
    pub pool_exhausted: AtomicU64,
    /// Dropped: scaled, but unreadable or not matching the frame that was chosen.
    pub unreadable: AtomicU64,
    /// Pipelines rebuilt after a failure, or on request.
    pub reconnects: AtomicU64,
    /// Of those, because of silence.
    pub stalls: AtomicU64,
    /// Of those, because the same picture came again and again.
    pub freezes: AtomicU64,
    /// Times that the hardware decoder failed and the processor took over.
    pub decoder_fallbacks: AtomicU64,
    /// It has, and decodes since.
    pub on_processor: AtomicBool,
    /// Sessions begun (first frames), with those of [`crate::CameraOptions::sessions_before`].
    pub sessions: AtomicU64,
    /// Times that the camera set its clock while frames went on.
    pub clock_steps: AtomicU64,
    /// Pipelines whose teardown did not end in time.
    pub abandoned: AtomicU64,
    /// So many of those still hold their resources that no new one is built.
    pub clogged: AtomicBool,
    /// Threads of the camera that hung and were replaced.
    pub threads_abandoned: AtomicU64,
    /// `CLOCK_MONOTONIC` of the last decoded frame, nanoseconds; 0 before the first.
    pub last_frame_mono_ns: AtomicI64,
    state: AtomicU8,
    last_error: Mutex<Option<String>>,
}

impl CameraStats {
    /// What the camera is doing.
    #[must_use]
    pub fn state(&self) -> CameraState {
        match self.state.load(Relaxed) {
            0 => CameraState::Connecting,
            1 => CameraState::Up,
            2 => CameraState::Down,
            _ => CameraState::Stopped,
        }
    }

    /// The last failure, without passwords; kept after recovery.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn enter(&self, state: CameraState) {
        self.state.store(state as u8, Relaxed);
    }

    /// True when the text differs from the one before.
    pub(crate) fn fail(&self, text: &str) -> bool {
        let text = redact(text);
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        let news = last.as_deref() != Some(text.as_str());
        *last = Some(text);
        news
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
