//! Replay: the daemon's path over a file, as fast as the machine allows, with nothing dropped and no clock.
//!
//! The same capture chain, sampler, engine and decoder as `run`; only the mailbox waits instead of dropping, and the sink
//! collects. Times count from the first frame, wall time from the Unix epoch, and ids derive from the content: the same video
//! and package give the same bytes. The calling thread does the inference; it blocks until the video has ended.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kinewatch_capture::{Branch, Camera, CameraOptions, CaptureError, Captured, Elements, Source, Speed};
use kinewatch_core::decode::{Decision, Decoder, EndReason};
use kinewatch_core::event::{ActionEvent, ClockState, Clocks, EventContext, ModelRef, action_event, replay_ids};
use kinewatch_core::name;
use kinewatch_core::region::Region;
use kinewatch_core::time::{ClockMap, Pts, SessionId};
use kinewatch_engine::InferError;
use sha2::{Digest, Sha256};

use crate::analytics::{Analytics, CameraPlan, LayoutError, LoadedModel, Origin, Sink, WindowDrop, branches};
use crate::mailbox::{Mail, Mailbox, Overflow, Round};

/// Frames that capture may be ahead of inference.
const AHEAD: usize = 16;
/// How often the progress display is told while nothing comes.
const TICK: Duration = Duration::from_millis(200);

/// Why a video could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The video.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a video that can be played.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The model failed on it.
    #[error("{}: {source}", path.display())]
    Inference {
        /// The video.
        path: PathBuf,
        /// Why.
        source: InferError,
    },
}

/// What came of a video.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Camera id: the file's stem as a name.
    pub camera: String,
    /// Events, in the order of their decision.
    pub events: Vec<ActionEvent>,
    /// Labels of the scores.
    pub score_labels: Vec<String>,
    /// Time and score of each label, in order.
    pub scores: Vec<(Pts, Vec<f32>)>,
    /// Media time of the last sampled frame.
    pub duration: Pts,
    /// For each row of scores, how long it took from the frame to the decision.
    pub took: Vec<Duration>,
    /// Windows left out because frames were missing or the model failed on them.
    pub windows_dropped: u64,
}

/// Replays videos through one opened model.
#[derive(Debug)]
pub struct Replayer {
    analytics: Analytics,
    plan: CameraPlan,
    model: ModelRef,
    sequence: u64,
}

impl Replayer {
    /// Around an opened model, which looks at `zones` if it takes boxes.
    ///
    /// # Errors
    /// Its decoders cannot be made, or it takes fewer boxes.
    pub fn new(loaded: LoadedModel, model: ModelRef, zones: Vec<Region>) -> Result<Self, LayoutError> {
        let zones = if loaded.manifest.tensors.boxes.is_some() { zones } else { Vec::new() };
        let plan = CameraPlan { name: "replay".into(), models: vec![0], zones };
        let analytics = Analytics::new(vec![loaded], std::slice::from_ref(&plan))?.with_clock(&ClockMap::fixed(0));
        Ok(Self { analytics, plan, model, sequence: 1 })
    }

    /// Runs one video from its first frame to its last. `progress` is told the media time now and then.
    ///
    /// # Errors
    /// The file is no video, or the model failed on it. A video that breaks off midway is replayed up to there.
    pub fn run(&mut self, path: &Path, mut progress: impl FnMut(Pts)) -> Result<Replayed, ReplayError> {
        let camera = name::slug(path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().as_ref());
        let content = content_key(path, &self.model.sha256, &self.plan.zones)
            .map_err(|source| ReplayError::Unreadable { path: path.to_owned(), source })?;
        let source = Source::File { path: path.to_owned(), looped: false, speed: Speed::Max };
        let decoder = self.analytics.watchers().next().map(|w| w.decoder);
        let events = Events::new(context(&camera, &self.model, decoder), content, &mut self.sequence);
        // A video that is shorter than a window has labels all the same.
        let score_labels = decoder.map(|d| d.score_labels().to_vec()).unwrap_or_default();
        let mut sink = Collect { events, replayed: Replayed { camera, score_labels, ..Replayed::default() } };
        let before = *sink.events.sequence;
        match play(&mut self.analytics, &self.plan, source, Elements::probe(None), &mut sink, &mut progress) {
            Ok(duration) => Ok(Replayed { duration, events: sink.events.made, ..sink.replayed }),
            Err(stopped) => {
                // What was begun must not reach into the next video; its events are not used, nor are their numbers.
                let _same_failure = self.analytics.gap(0, EndReason::StreamLost, &mut sink);
                *sink.events.sequence = before;
                Err(match stopped {
                    Stopped::Capture(error) => error.into(),
                    Stopped::Inference(source) => ReplayError::Inference { path: path.to_owned(), source },
                })
            }
        }
    }
}

/// Why a source was not played to its end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// No picture came, or no more.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The model failed.
    #[error(transparent)]
    Inference(#[from] InferError),
}

/// Feeds one camera of `analytics` from `source` until it ends; gives the media time of the last sampled frame.
/// `progress` is told the media time now and then.
///
/// # Errors
/// The source gives no picture, or the model failed on one.
pub fn play(
    analytics: &mut Analytics,
    plan: &CameraPlan,
    source: Source,
    elements: Elements,
    sink: &mut impl Sink,
    progress: &mut impl FnMut(Pts),
) -> Result<Pts, Stopped> {
    let manifests: Vec<_> = analytics.models().map(|(_, m)| Arc::clone(&m.manifest)).collect();
    let branches = branches(plan, |model| Some(&**manifests.get(model)?))
        .into_iter()
        .map(|b| Branch { spec: b.spec, rates_hz: b.rates_hz, pool_frames: b.ring_frames + AHEAD + 8 })
        .collect();
    let mut options = CameraOptions::new(plan.name.clone(), source, branches);
    options.elements = elements;
    options.teardown_deadline = Duration::from_secs(5);
    let mailbox = Arc::new(Mailbox::new(AHEAD, Overflow::Block));
    let inbox = mailbox.open(Arc::default());
    let capture = Camera::spawn(options, Box::new(move |captured| inbox.push(captured)))?;
    let outcome = pump(analytics, &mailbox, sink, progress);
    mailbox.close();
    capture.stop(Duration::from_secs(5));
    outcome
}

fn pump(
    analytics: &mut Analytics,
    mailbox: &Mailbox,
    sink: &mut impl Sink,
    progress: &mut impl FnMut(Pts),
) -> Result<Pts, Stopped> {
    let mut newest = Pts::default();
    let mut round = Vec::new();
    while mailbox.round(&mut round, TICK) != Round::Closed {
        progress(newest);
        for mail in round.drain(..) {
            let Mail::Captured(_, captured) = mail;
            match captured {
                Captured::Frame { branch, frame } => {
                    newest = frame.meta().pts;
                    let begun = Instant::now();
                    analytics.frame(0, branch, frame, sink);
                    analytics.run_all(sink)?;
                    sink.stepped(begun.elapsed());
                }
                Captured::Gap { .. } => analytics.gap(0, EndReason::StreamLost, sink)?,
                Captured::Finished => return Ok(newest),
                Captured::Failed(error) => return Err(error.into()),
            }
        }
    }
    Ok(newest)
}

/// SHA-256 over the file's bytes, the package's digest and the zones: what the ids of events derive from.
pub(crate) fn content_key(path: &Path, package: &str, zones: &[Region]) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    hasher.update(package.as_bytes());
    zones.iter().flat_map(|zone| zone.corners()).for_each(|number| hasher.update(number.to_le_bytes()));
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes the events of a video, whose wall time counts from the Unix epoch.
pub(crate) struct Events<'a> {
    pub context: EventContext,
    pub content: String,
    pub sequence: &'a mut u64,
    pub made: Vec<ActionEvent>,
    clock: ClockState,
    ids: HashMap<u64, u64>,
}

impl<'a> Events<'a> {
    pub(crate) fn new(context: EventContext, content: String, sequence: &'a mut u64) -> Self {
        let clock = ClockState { source: "replay".into(), ..ClockState::default() };
        Self { context, content, sequence, made: Vec::new(), clock, ids: HashMap::new() }
    }

    pub(crate) fn add(&mut self, decision: &Decision, session: SessionId, map: &ClockMap) {
        // Actions are numbered within the video, so that the order of videos does not change their ids.
        let next = self.ids.len() as u64;
        let action = *self.ids.entry(decision.action).or_insert(next);
        let pts_ms = u64::try_from(decision.decided_at.0 / 1_000_000).unwrap_or(0);
        let ids = replay_ids(&self.content, action, decision.rev, pts_ms);
        let clocks = Clocks { map, state: &self.clock, wall_minus_mono_ns: 0, now_unix_ns: None };
        self.made.push(action_event(&self.context, decision, session, &clocks, ids, *self.sequence));
        *self.sequence += 1;
    }
}

/// What an event says of its source, beside the decision.
pub(crate) fn context(camera: &str, model: &ModelRef, decoder: Option<&Decoder>) -> EventContext {
    EventContext {
        group: "replay".into(),
        device: "replay".into(),
        camera: camera.to_owned(),
        model: model.clone(),
        labels: decoder.map(|d| d.published_labels().to_vec()).unwrap_or_default(),
        label_ids: decoder.map(|d| d.published_label_ids().to_vec()).unwrap_or_default(),
    }
}

/// Sink of replay.
struct Collect<'a> {
    events: Events<'a>,
    replayed: Replayed,
}

impl Sink for Collect<'_> {
    fn decision(&mut self, origin: Origin<'_>, decision: &Decision) {
        self.events.add(decision, origin.session, origin.clock);
    }

    fn scores(&mut self, _origin: Origin<'_>, at: Pts, scores: &[f32], labels: &[String]) {
        if self.replayed.score_labels.is_empty() {
            self.replayed.score_labels = labels.to_vec();
        }
        self.replayed.scores.push((at, scores.to_vec()));
    }

    fn inferred(&mut self, _model: usize, _requests: usize, _took: Duration) {}

    fn stepped(&mut self, took: Duration) {
        // Frames that only fill a window decide nothing.
        if self.replayed.took.len() < self.replayed.scores.len() {
            self.replayed.took.push(took);
        }
    }

    fn windows_dropped(&mut self, _camera: usize, _watcher: usize, _why: WindowDrop, count: u32) {
        self.replayed.windows_dropped += u64::from(count);
    }
}
