//! What a mount plays: one clip, or another from now on, to each client from the clip's beginning.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;

use crate::clip::Clip;

/// The clip of a mount; its clients look at it before each picture.
#[derive(Debug)]
pub(crate) struct Programme {
    now: Mutex<Arc<Clip>>,
    /// Counts clips.
    version: AtomicU32,
    /// Counts the orders to end what plays.
    ends: AtomicU32,
    /// Clients are kept, and get nothing.
    pub(crate) muted: AtomicBool,
    /// Clips begin again without a break.
    looped: bool,
}

/// One client's place in a programme.
#[derive(Debug)]
pub(crate) struct Player {
    programme: Arc<Programme>,
    clip: Arc<Clip>,
    version: u32,
    ends: u32,
    next: usize,
    has_begun: bool,
    /// When the clip, or this turn of it, began.
    begins: gst::ClockTime,
}

/// What a client gets next.
#[derive(Debug)]
pub(crate) enum Next {
    /// A picture, and its media type where that has changed.
    Picture(gst::Buffer, Option<gst::Caps>),
    /// Nothing now.
    Silence,
    /// Nothing more.
    End,
}

impl Programme {
    pub(crate) fn new(clip: Arc<Clip>, looped: bool) -> Self {
        let (version, ends) = (AtomicU32::new(0), AtomicU32::new(0));
        Self { now: Mutex::new(clip), version, ends, muted: AtomicBool::new(false), looped }
    }

    /// Clients that play now go on with this clip, which must have the codec of the one before.
    pub(crate) fn play(&self, clip: Arc<Clip>) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = clip;
        self.version.fetch_add(1, Relaxed);
    }

    /// For clients that play now, the stream ends here.
    pub(crate) fn end(&self) {
        self.ends.fetch_add(1, Relaxed);
    }

    fn clip(&self) -> Arc<Clip> {
        Arc::clone(&self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Player {
    pub(crate) fn new(programme: Arc<Programme>) -> Self {
        let (version, ends) = (programme.version.load(Relaxed), programme.ends.load(Relaxed));
        let clip = programme.clip();
        Self { programme, clip, version, ends, next: 0, has_begun: false, begins: gst::ClockTime::ZERO }
    }

    /// Media type of the first picture.
    pub(crate) fn caps(&self) -> &gst::Caps {
        &self.clip.caps
    }

    pub(crate) fn next(&mut self) -> Next {
        if self.programme.ends.load(Relaxed) != self.ends {
            return Next::End;
        }
        // Without a first picture the server could not describe the stream.
        if self.programme.muted.load(Relaxed) && self.has_begun {
            return Next::Silence;
        }
        let mut caps = None;
        let version = self.programme.version.load(Relaxed);
        if version != self.version {
            self.begins += self.clip.time_of(self.next);
            self.clip = self.programme.clip();
            (self.version, self.next, caps) = (version, 0, Some(self.clip.caps.clone()));
        }
        if self.next == self.clip.pictures.len() {
            if !self.programme.looped {
                return Next::End;
            }
            self.next = 0;
            self.begins += self.clip.period;
        }
        let mut picture = self.clip.pictures[self.next].copy();
        self.next += 1;
        self.has_begun = true;
        let begins = self.begins;
        let writable = picture.make_mut();
        writable.set_pts(writable.pts().map(|t| t + begins));
        writable.set_dts(writable.dts().map(|t| t + begins));
        Next::Picture(picture, caps)
    }
}
