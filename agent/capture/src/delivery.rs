//! From decoded buffers to delivered frames: media time, sessions, selection, and the one copy.
//!
//! Lives as long as the camera, over all its pipelines. [`Delivery::offer`] runs in a pad probe before the scaler,
//! [`Delivery::deliver`] in the sink after it, both on the streaming thread; [`Delivery::close`] on the camera thread.
//! One lock orders frames and gaps; it is held while the consumer takes a frame, so that no frame of an old session can
//! follow its gap. Never allocates per frame, never logs.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use kinewatch_core::frame::{FrameMeta, FramePool, FrameSpec};
use kinewatch_core::sampling::{FrameSelector, Verdict};
use kinewatch_core::time::{Arrival, MediaClock, Pts, SessionId};

use crate::camera::{Branch, Captured, GapReason};
use crate::clock::{mono_ns, wall_ns};
use crate::describe::Layout;
use crate::stats::{CameraState, CameraStats, count};
use crate::still::Still;

/// The consumer.
pub(crate) type Consumer = Box<dyn Fn(Captured) + Send + Sync>;

/// Identifies one pipeline of a camera; what an older one still sends is discarded.
pub(crate) type Generation = u64;

pub(crate) struct Delivery {
    stats: Arc<CameraStats>,
    on: Consumer,
    pace: Pace,
    /// The consumer holds a frame right now: silence is its doing, not the camera's.
    busy: AtomicBool,
    /// `CLOCK_MONOTONIC` since when all frames have been the same, nanoseconds; 0 when they are not, or not watched.
    still_since: AtomicI64,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Of the pipeline that counts.
    newest: Generation,
    open: Option<Generation>,
    session: Option<Session>,
    next_session: SessionId,
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// From the caps; nanoseconds.
    frame_duration: Option<i64>,
    previous: Option<Previous>,
    /// Of live sources: goes on when the camera sets its clock.
    media: MediaClock,
    /// The frame now passing the branches.
    current: Option<Current>,
    /// Of sources whose pictures never repeat.
    still: Option<Still>,
    branches: Vec<BranchState>,
}

struct Session {
    id: SessionId,
    /// Running time of its first frame, nanoseconds.
    origin: i64,
    last: Pts,
}

/// The frame before; nanoseconds.
#[derive(Clone, Copy)]
struct Previous {
    running: i64,
    mono_ns: i64,
}

#[derive(Clone, Copy)]
struct Current {
    running: i64,
    arrival: Option<Arrival>,
}

struct BranchState {
    spec: FrameSpec,
    selector: FrameSelector,
    pool: FramePool,
    format: Option<(gst_video::VideoInfo, Layout)>,
    /// Chosen, now in the scaler.
    pending: Option<FrameMeta>,
}

/// Between frames of a file that states neither times nor a rate, as other players assume; nanoseconds.
const USUAL_DURATION: i64 = 40_000_000;

/// How frames come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As fast as they are taken: arrivals mean nothing.
    Unclocked,
    /// A file played in its own time: a jump of its time stamps is a cut.
    Played,
    /// From a camera: a jump of its time stamps is its clock being set.
    Live,
}

/// Who says when a frame was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CaptureClock {
    /// Nobody.
    Unknown,
    /// The sender, by its own clock: Unix nanoseconds.
    Sender { unix_ns: i64 },
    /// This machine's driver stamps frames by the monotonic clock, which was so many nanoseconds at running time zero.
    Ours { base_ns: i64 },
}

/// What becomes of a decoded buffer in a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    Scale,
    Drop,
}

impl Delivery {
    pub(crate) fn new(branches: &[Branch], pace: Pace, stats: Arc<CameraStats>, on: Consumer) -> Self {
        let begun = u32::try_from(stats.sessions.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let next_session = SessionId(begun).next();
        let branches = branches
            .iter()
            .map(|branch| BranchState {
                selector: FrameSelector::new(&branch.rates_hz),
                spec: branch.spec,
                pool: FramePool::new(branch.spec.bytes(), branch.pool_frames),
                format: None,
                pending: None,
            })
            .collect();
        let inner = Inner {
            newest: 0,
            open: None,
            session: None,
            next_session,
            segment: None,
            frame_duration: None,
            previous: None,
            media: MediaClock::default(),
            current: None,
            still: None,
            branches,
        };
        let (busy, still_since) = (AtomicBool::new(false), AtomicI64::new(0));
        Self { stats, on, pace, busy, still_since, inner: Mutex::new(inner) }
    }

    /// Takes note of frames of the first branch that repeat.
    pub(crate) fn watch_stillness(self) -> Self {
        self.lock().still = Some(Still::default());
        self
    }

    /// A number for a new pipeline. From here on those before it can neither open nor close: their thread may have hung
    /// and come to life again.
    pub(crate) fn next_generation(&self) -> Generation {
        let mut inner = self.lock();
        inner.newest += 1;
        inner.newest
    }

    /// Lets frames of a new pipeline in.
    pub(crate) fn open(&self, generation: Generation) {
        let mut inner = self.lock();
        if generation != inner.newest {
            return;
        }
        inner.open = Some(generation);
        inner.segment = None;
        inner.frame_duration = None;
        inner.previous = None;
        inner.media.restart();
        inner.current = None;
        if let Some(still) = &mut inner.still {
            still.restart(mono_ns());
        }
        self.still_since.store(0, Ordering::Relaxed);
    }

    /// Shuts the pipeline out and ends its session, if one began. Waits for a consumer that is taking a frame.
    pub(crate) fn close(&self, generation: Generation, reason: GapReason) {
        let mut inner = self.lock();
        if generation != inner.newest {
            return;
        }
        inner.open = None;
        for branch in &mut inner.branches {
            branch.pending = None;
        }
        self.end_session(&mut inner, reason);
    }

    /// Hands over what is not a frame, in order with frames.
    pub(crate) fn tell(&self, captured: Captured) {
        let _inner = self.lock();
        (self.on)(captured);
    }

    /// Whether the consumer is taking a frame right now.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Since when all frames have been the same, `CLOCK_MONOTONIC` nanoseconds.
    pub(crate) fn still_since(&self) -> Option<i64> {
        Some(self.still_since.load(Ordering::Relaxed)).filter(|since| *since != 0)
    }

    /// How often a frame was not like the one before it, over all pipelines.
    pub(crate) fn changes(&self) -> u64 {
        self.lock().still.as_ref().map_or(0, Still::changes)
    }

    pub(crate) fn set_layout(&self, branch: usize, layout: Layout) {
        let mut inner = self.lock();
        let Some(branch) = inner.branches.get_mut(branch) else { return };
        let format = match layout {
            Layout::Rgb => gst_video::VideoFormat::Rgb,
            Layout::Rgba => gst_video::VideoFormat::Rgba,
        };
        let info = gst_video::VideoInfo::builder(format, branch.spec.width, branch.spec.height).build();
        branch.format = info.ok().map(|info| (info, layout));
    }

    /// Time base of the buffers that follow.
    pub(crate) fn segment(&self, generation: Generation, segment: &gst::Segment) {
        let mut inner = self.lock();
        if inner.open == Some(generation) {
            inner.segment = segment.downcast_ref::<gst::ClockTime>().cloned();
        }
    }

    /// Format of the buffers that follow.
    pub(crate) fn caps(&self, generation: Generation, caps: &gst::CapsRef) {
        let mut inner = self.lock();
        if inner.open == Some(generation) {
            let rate = caps.structure(0).and_then(|s| s.get::<gst::Fraction>("framerate").ok());
            inner.frame_duration = rate
                .filter(|rate| rate.numer() > 0)
                .map(|rate| 1_000_000_000 * i64::from(rate.denom()) / i64::from(rate.numer()));
        }
    }

    /// Decides on a decoded buffer before it is scaled.
    pub(crate) fn offer(
        &self,
        generation: Generation,
        branch: usize,
        pts: Option<gst::ClockTime>,
        captured: CaptureClock,
    ) -> Offer {
        let mut guard = self.lock();
        let inner = &mut *guard;
        if inner.open != Some(generation) {
            return Offer::Drop;
        }
        if branch == 0 {
            inner.current = self.receive(inner, pts, captured);
        }
        let Some(current) = inner.current else { return Offer::Drop };
        let (mut id, mut pts) = self.place(inner, current);
        let mut verdict = inner.branches[branch].selector.offer(pts);
        if verdict == Verdict::Jump {
            self.end_session(inner, GapReason::Jump);
            (id, pts) = self.place(inner, current);
            verdict = inner.branches[branch].selector.offer(pts);
        }
        let counter = match verdict {
            Verdict::Take { wanted } => {
                let meta = FrameMeta { session: id, pts, arrival: current.arrival, wanted };
                inner.branches[branch].pending = Some(meta);
                advance(inner, pts);
                return Offer::Scale;
            }
            Verdict::Skip => {
                advance(inner, pts);
                &self.stats.skipped
            }
            Verdict::Duplicate => &self.stats.duplicates,
            Verdict::Backward | Verdict::Jump => &self.stats.backward,
        };
        count(counter);
        Offer::Drop
    }

    /// Copies a scaled buffer into the pool and hands it to the consumer. False when the pipeline is shut out.
    pub(crate) fn deliver(&self, generation: Generation, branch: usize, buffer: &gst::BufferRef) -> bool {
        let mut guard = self.lock();
        if guard.open != Some(generation) {
            return false;
        }
        let state = &mut guard.branches[branch];
        let (Some(meta), Some((info, layout))) = (state.pending.take(), state.format.as_ref()) else {
            count(&self.stats.unreadable);
            return true;
        };
        let Ok(picture) = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info) else {
            count(&self.stats.unreadable);
            return true;
        };
        let Some(frame) = state.pool.fill(meta, |out| copy(&picture, *layout, out)) else {
            count(&self.stats.pool_exhausted);
            return true;
        };
        count(&self.stats.taken);
        if let Some(still) = guard.still.as_mut().filter(|_| branch == 0) {
            let since = still.look(frame.pixels(), mono_ns());
            self.still_since.store(since.unwrap_or(0), Ordering::Relaxed);
        }
        self.busy.store(true, Ordering::Relaxed);
        (self.on)(Captured::Frame { branch, frame });
        self.stats.last_frame_mono_ns.store(mono_ns(), Ordering::Relaxed);
        self.busy.store(false, Ordering::Relaxed);
        true
    }

    /// Counts a decoded frame and finds its running time.
    fn receive(&self, inner: &mut Inner, pts: Option<gst::ClockTime>, captured: CaptureClock) -> Option<Current> {
        let mono_ns = mono_ns();
        count(&self.stats.decoded);
        self.stats.last_frame_mono_ns.store(mono_ns, Ordering::Relaxed);
        let mut running = match (pts, &inner.segment) {
            // Outside the segment: not meant to be shown.
            (Some(pts), Some(segment)) => segment.to_running_time(pts)?.nseconds() as i64,
            _ => {
                count(&self.stats.no_pts);
                inner.previous.map_or(0, |previous| {
                    let elapsed =
                        if self.pace != Pace::Unclocked { mono_ns - previous.mono_ns } else { USUAL_DURATION };
                    previous.running + inner.frame_duration.unwrap_or(elapsed)
                })
            }
        };
        inner.previous = Some(Previous { running, mono_ns });
        if self.pace == Pace::Unclocked {
            return Some(Current { running, arrival: None });
        }
        let reported_delay_ns = match captured {
            CaptureClock::Unknown => None,
            CaptureClock::Sender { unix_ns } => Some(wall_ns().saturating_sub(unix_ns)),
            CaptureClock::Ours { base_ns } => Some(mono_ns.saturating_sub(base_ns.saturating_add(running))),
        };
        if self.pace == Pace::Live {
            running = inner.media.place(running, mono_ns);
        }
        let rebases = inner.media.rebases();
        self.stats.clock_steps.store(u64::from(rebases), Ordering::Relaxed);
        Some(Current { running, arrival: Some(Arrival { mono_ns, reported_delay_ns, rebases }) })
    }

    /// Session and media time of `current`, which begins a session where none is open.
    fn place(&self, inner: &mut Inner, current: Current) -> (SessionId, Pts) {
        if let Some(session) = &inner.session {
            return (session.id, Pts(current.running - session.origin));
        }
        let id = inner.next_session;
        inner.next_session = id.next();
        for branch in &mut inner.branches {
            branch.selector.reset();
        }
        inner.session = Some(Session { id, origin: current.running, last: Pts::ZERO });
        count(&self.stats.sessions);
        self.stats.enter(CameraState::Up);
        (id, Pts::ZERO)
    }

    fn end_session(&self, inner: &mut Inner, reason: GapReason) {
        if let Some(session) = inner.session.take() {
            (self.on)(Captured::Gap { session: session.id, last: Some(session.last), reason });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn advance(inner: &mut Inner, pts: Pts) {
    if let Some(session) = &mut inner.session {
        session.last = session.last.max(pts);
    }
}

/// Rows of a picture, without padding and fourth bytes.
fn copy(picture: &gst_video::VideoFrameRef<&gst::BufferRef>, layout: Layout, out: &mut [u8]) {
    let (Ok(pixels), Ok(stride)) = (picture.plane_data(0), usize::try_from(picture.plane_stride()[0])) else { return };
    let row_bytes = picture.width() as usize * 3;
    for (row, out) in pixels.chunks(stride).zip(out.chunks_exact_mut(row_bytes)) {
        match layout {
            Layout::Rgb => {
                if let Some(row) = row.get(..row_bytes) {
                    out.copy_from_slice(row);
                }
            }
            Layout::Rgba => {
                for (pixel, out) in row.chunks_exact(4).zip(out.chunks_exact_mut(3)) {
                    out.copy_from_slice(&pixel[..3]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinewatch_core::frame::{Filter, Resize, ScaleOrder};

    /// What the consumer is told when the time stamps jump by `step_ms` in the middle of ten frames.
    fn jump(pace: Pace, step_ms: i64) -> (u32, Vec<GapReason>, u64) {
        crate::init().unwrap();
        let spec = FrameSpec {
            width: 16,
            height: 16,
            resize: Resize::Stretch,
            filter: Filter::Bilinear,
            order: ScaleOrder::ScaleConvert,
        };
        let branches = [Branch { spec, pool_frames: 1, rates_hz: vec![1000.0] }];
        let (stats, gaps) = (Arc::new(CameraStats::default()), Arc::new(Mutex::new(Vec::new())));
        let told = Arc::clone(&gaps);
        let on = move |captured| {
            if let Captured::Gap { reason, .. } = captured {
                told.lock().unwrap().push(reason);
            }
        };
        let delivery = Delivery::new(&branches, pace, Arc::clone(&stats), Box::new(on));
        assert_eq!(delivery.next_generation(), 1);
        delivery.open(1);
        delivery.segment(1, gst::FormattedSegment::<gst::ClockTime>::new().upcast_ref());
        for k in 0..10_i64 {
            let at = 10_000 + k * 40 + if k < 5 { 0 } else { step_ms };
            let offer = delivery.offer(1, 0, Some(gst::ClockTime::from_mseconds(at as u64)), CaptureClock::Unknown);
            assert_eq!(offer, Offer::Scale, "frame {k}");
        }
        let last = delivery.lock().session.as_ref().map(|s| (s.id.0, s.last.0 / 1_000_000)).unwrap();
        let gaps = gaps.lock().unwrap().clone();
        assert_eq!(last.1, if gaps.is_empty() { 360 } else { 160 }, "media time of the last frame");
        (last.0, gaps, stats.clock_steps.load(Ordering::Relaxed))
    }

    #[test]
    fn a_pipeline_of_a_thread_that_was_replaced_neither_opens_nor_closes() {
        let gaps = Arc::new(Mutex::new(0));
        let told = Arc::clone(&gaps);
        let on = move |captured| {
            if let Captured::Gap { .. } = captured {
                *told.lock().unwrap() += 1;
            }
        };
        let delivery = Delivery::new(&[], Pace::Live, Arc::default(), Box::new(on));
        let old = delivery.next_generation();
        delivery.open(old);
        let session = |delivery: &Delivery| {
            let current = Current { running: 0, arrival: None };
            delivery.place(&mut delivery.lock(), current).0.0
        };
        assert_eq!(session(&delivery), 1);
        let new = delivery.next_generation();
        delivery.close(new, GapReason::Lost("hung".into()));
        assert_eq!(*gaps.lock().unwrap(), 1, "the new thread ends what the old one left open");
        delivery.open(new);
        assert_eq!(session(&delivery), 2, "sessions are never numbered twice");
        delivery.open(old);
        delivery.close(old, GapReason::Stopped);
        assert_eq!((delivery.lock().open, *gaps.lock().unwrap()), (Some(new), 1));
    }

    #[test]
    fn a_camera_that_sets_its_clock_does_not_tear_the_session_and_a_file_that_jumps_does() {
        for step_ms in [3_600_000, 3_000, -3_000] {
            assert_eq!(jump(Pace::Live, step_ms), (1, vec![], 1), "{step_ms}");
        }
        for pace in [Pace::Played, Pace::Unclocked] {
            assert_eq!(jump(pace, 3_600_000), (2, vec![GapReason::Jump], 0), "{pace:?}");
        }
    }
}
