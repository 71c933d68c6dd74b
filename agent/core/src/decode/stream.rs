//! The decoder of one (camera, model) pair: logits in, decisions out.

use super::rivals::Group;
use super::scores::Scores;
use super::sequence::Chain;
use super::track::{Emitter, Step, Track};
use super::{Decision, EndReason};
use crate::manifest::{Decoding, Manifest, ManifestError, Output, Overrides, TimeOfDay};
use crate::time::{NANOS_PER_SECOND, Pts};

/// Turns the logits of one (camera, model) pair into decisions. Allocates nothing after construction but what the
/// caller's `out` needs to grow.
#[derive(Clone, Debug)]
pub struct Decoder {
    scores: Scores,
    score_labels: Vec<String>,
    tracks: Vec<Track>,
    /// Index of each track's score.
    slots: Vec<usize>,
    chains: Vec<Chain>,
    groups: Vec<Group>,
    /// Log-odds by track, and what of them counts against rivals.
    log_odds: Vec<f64>,
    evidence: Vec<f64>,
    /// Tracks whose action went on before the step.
    went_on: Vec<bool>,
    scheduled: bool,
    time_of_day: Option<TimeOfDay>,
    published: Vec<String>,
    published_ids: Vec<Option<u16>>,
    stride: i64,
    last: Option<Pts>,
    next_action: u64,
}

impl Decoder {
    /// A decoder for a model, with the changes of the configuration.
    ///
    /// # Errors
    /// The overrides do not fit the package.
    pub fn new(manifest: &Manifest, overrides: &Overrides) -> Result<Self, ManifestError> {
        overrides.check(manifest)?;
        Ok(Self::build(&manifest.decoding(), overrides, Some(&manifest.output)))
    }

    /// A decoder for scores that are log-odds already: see [`Decoder::step_scores`].
    #[must_use]
    pub fn of_scores(decoding: &Decoding) -> Self {
        Self::build(decoding, &Overrides::default(), None)
    }

    fn build(decoding: &Decoding, overrides: &Overrides, output: Option<&Output>) -> Self {
        let stride = decoding.stride.max(1);
        let mut decoder = Self {
            scores: Scores::new(decoding.labels.len(), decoding.background, output),
            score_labels: Vec::new(),
            tracks: Vec::new(),
            slots: Vec::new(),
            chains: Vec::new(),
            groups: Vec::new(),
            log_odds: Vec::new(),
            evidence: Vec::new(),
            went_on: Vec::new(),
            scheduled: false,
            time_of_day: None,
            published: Vec::new(),
            published_ids: Vec::new(),
            stride,
            last: None,
            next_action: 0,
        };
        let mut track_of = vec![None; decoding.labels.len()];
        for (i, label) in decoding.labels.iter().enumerate().filter(|(i, _)| Some(*i) != decoding.background) {
            let slot = decoder.score_labels.len();
            decoder.score_labels.push(label.name.clone());
            let Some(packaged) = label.decoder else { continue };
            let published = label.publish.then(|| decoder.publish(&label.name, Some(i)));
            track_of[i] = Some(decoder.tracks.len());
            let (params, schedule) = (overrides.params(&label.name, packaged), overrides.schedule(&label.name));
            decoder.tracks.push(Track::new(&params, schedule, stride, published));
            decoder.slots.push(slot);
            decoder.scheduled |= !schedule.is_empty();
        }
        for sequence in &decoding.sequences {
            let label = decoder.publish(&sequence.name, None);
            let parts = sequence.parts.iter().filter_map(|&i| track_of[i]).collect();
            let within = overrides.within(&sequence.name, sequence.within);
            decoder.chains.push(Chain::new(label, parts, within, sequence.longest));
        }
        for group in &decoding.exclusive {
            let tracks = group.labels.iter().filter_map(|&i| track_of[i]).collect();
            decoder.groups.push(Group::new(tracks, group.margin));
        }
        decoder.log_odds.resize(decoder.tracks.len(), 0.0);
        decoder.evidence.resize(decoder.tracks.len(), 0.0);
        decoder.went_on.reserve(decoder.tracks.len());
        decoder
    }

    /// Takes other changes of the configuration for the model that it was made for, from the next score on. Nothing is
    /// decided by that: an action that goes on stays open under the new parameters, and what was told of it stays told.
    /// Allocates.
    ///
    /// # Errors
    /// The overrides do not fit the package; nothing is changed then.
    pub fn revise(&mut self, manifest: &Manifest, overrides: &Overrides) -> Result<(), ManifestError> {
        overrides.check(manifest)?;
        let background = manifest.output.background;
        let labels = manifest.labels.iter().enumerate().filter(|(i, _)| Some(*i) != background).map(|(_, label)| label);
        let decoded = labels.filter_map(|label| Some((label.name.as_str(), label.decoder?)));
        self.scheduled = false;
        for (track, (label, packaged)) in self.tracks.iter_mut().zip(decoded) {
            let schedule = overrides.schedule(label);
            track.revise(&overrides.params(label, packaged), schedule, self.stride);
            self.scheduled |= !schedule.is_empty();
        }
        for (chain, sequence) in self.chains.iter_mut().zip(&manifest.sequences) {
            chain.revise(overrides.within(&sequence.name, sequence.within), sequence.longest);
        }
        if self.scheduled {
            self.tracks.iter_mut().for_each(|track| track.at_time(self.time_of_day));
        }
        Ok(())
    }

    /// Goes on with the scores of `after`, another model, from the next one on. Nothing is decided by that: what is open
    /// stays open. Only where [`super::carries`] says so. Allocates.
    ///
    /// # Errors
    /// The overrides do not fit the package; nothing is changed then.
    pub fn carry_over(&mut self, after: &Manifest, overrides: &Overrides) -> Result<(), ManifestError> {
        self.revise(after, overrides)?;
        self.scores = Scores::new(after.labels.len(), after.output.background, Some(&after.output));
        Ok(())
    }

    /// Whether thresholds depend on the time of day, which [`Decoder::at_time`] has to tell then.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.scheduled
    }

    /// Says what time of day it is in front of the camera, for the steps that follow; `None`: not known, and the usual
    /// thresholds hold.
    pub fn at_time(&mut self, time: Option<TimeOfDay>) {
        if self.scheduled && time != self.time_of_day {
            self.time_of_day = time;
            self.tracks.iter_mut().for_each(|track| track.at_time(time));
        }
    }

    fn publish(&mut self, name: &str, id: Option<usize>) -> u16 {
        // A manifest has at most 1000 labels.
        let index = self.published.len() as u16;
        self.published.push(name.to_owned());
        self.published_ids.push(id.map(|i| i as u16));
        index
    }

    /// Names by [`Decision::label`]: published labels in the order of the logits, then sequences.
    #[must_use]
    pub fn published_labels(&self) -> &[String] {
        &self.published
    }

    /// Index of the logit by [`Decision::label`]; `None` for a sequence.
    #[must_use]
    pub fn published_label_ids(&self) -> &[Option<u16>] {
        &self.published_ids
    }

    /// Names of [`Decoder::scores`]: every label but the background.
    #[must_use]
    pub fn score_labels(&self) -> &[String] {
        &self.score_labels
    }

    /// Log-odds of the calibrated probability of each label, of the last step.
    #[must_use]
    pub fn scores(&self) -> &[f32] {
        self.scores.log_odds()
    }

    /// Takes the logits of a window whose newest frame is at `at`, and appends what was decided to `out`.
    ///
    /// A time that is not after the last one, and logits of another count or not finite, are ignored. A score stands for
    /// at most a quarter more than the usual stride, however long the last one was ago: holes add no evidence.
    pub fn step(&mut self, at: Pts, logits: &[f32], out: &mut Vec<Decision>) {
        if self.is_later(at) && self.scores.update(logits) {
            self.decide(at, out);
        }
    }

    /// The same for scores that are log-odds, one per label of [`Decoder::score_labels`].
    pub fn step_scores(&mut self, at: Pts, log_odds: &[f32], out: &mut Vec<Decision>) {
        if self.is_later(at) && self.scores.set(log_odds) {
            self.decide(at, out);
        }
    }

    fn is_later(&self, at: Pts) -> bool {
        self.last.is_none_or(|last| at > last)
    }

    fn decide(&mut self, at: Pts, out: &mut Vec<Decision>) {
        let since = self.last.map_or(self.stride, |last| at - last);
        let stands_for = since.min(self.stride + self.stride / 4);
        let dt = stands_for as f64 / NANOS_PER_SECOND as f64;
        let hole = if since > stands_for + self.stride / 4 { since - self.stride } else { 0 };
        self.last = Some(at);
        for (l, &slot) in self.log_odds.iter_mut().zip(&self.slots) {
            *l = f64::from(self.scores.log_odds()[slot]);
        }
        self.evidence.copy_from_slice(&self.log_odds);
        self.groups.iter().for_each(|group| group.weigh(&self.tracks, &self.log_odds, &mut self.evidence));
        let mut emit = Emitter { out, next_action: &mut self.next_action };
        // What goes on may end in this step; only then is it known from when another of its group may begin.
        self.went_on.clear();
        self.went_on.extend(self.tracks.iter().map(|track| track.open().is_some()));
        for went_on in [true, false] {
            for (i, track) in self.tracks.iter_mut().enumerate().filter(|(i, _)| self.went_on[*i] == went_on) {
                track.step(&Step { at, dt, hole, l: self.evidence[i], own: self.log_odds[i] }, &mut emit);
            }
            self.groups.iter().for_each(|group| group.share_ends(&mut self.tracks));
        }
        self.groups.iter().for_each(|group| group.settle(&mut self.tracks, &self.log_odds, at, &mut emit));
        for chain in &mut self.chains {
            chain.step(&self.tracks, at, self.stride, &mut emit);
        }
    }

    /// Closes all open actions, at the time of the last step, and forgets all history: the stream is interrupted, or
    /// this decoder is about to be replaced. `at`: newest media time known. The next step is of another session.
    pub fn gap(&mut self, at: Pts, reason: EndReason, out: &mut Vec<Decision>) {
        let now = at.max(self.last.unwrap_or(Pts::ZERO));
        self.interrupt(at, reason, out);
        self.tracks.iter_mut().for_each(|track| track.new_session(now));
        self.chains.iter_mut().for_each(Chain::new_session);
    }

    /// The same within a session, whose times go on: a label cools on.
    pub fn interrupt(&mut self, at: Pts, reason: EndReason, out: &mut Vec<Decision>) {
        let last = self.last.take().unwrap_or(Pts::ZERO);
        let mut emit = Emitter { out, next_action: &mut self.next_action };
        for track in &mut self.tracks {
            track.interrupt(at.max(last), last, reason, &mut emit);
        }
        self.chains.iter_mut().for_each(Chain::interrupt);
    }

    /// Published labels of the actions that go on, with their start.
    pub fn open_actions(&self) -> impl Iterator<Item = (&str, Pts)> {
        self.tracks.iter().filter_map(|track| {
            let label = self.published.get(usize::from(track.published()?))?;
            Some((label.as_str(), track.open()?.at))
        })
    }
}
