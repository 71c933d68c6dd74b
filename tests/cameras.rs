//! Cameras and models that come and go beside a camera that stays, with real models and decoders.
//!
//! The promise: whoever is not changed decides what it would have decided alone, to the bit.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kinewatch::analytics::{
    Analytics, CameraPlan, LoadedModel, ModelTurn, NewCamera, Origin, Sink, Successor, Tried, WindowDrop, exchangeable,
};
use kinewatch::models;
use kinewatch_core::decode::{Decision, EndReason, Status};
use kinewatch_core::frame::{Frame, FrameBuf, FrameMeta};
use kinewatch_core::manifest::Overrides;
use kinewatch_core::time::{Pts, SessionId};
use kinewatch_engine::{BackendChoice, InferError, OpenOptions};
use proptest::prelude::*;
use support::root;

const STRIDE_NS: i64 = 100_000_000;
/// The one that stays. It is watched by all models, the others by some.
const STAYS: usize = 0;
const OTHERS: usize = 3;
/// Read frame by frame, every frame, four frames each second stride, cached features: all of one frame format.
const PACKAGES: [&str; 4] = ["tiny-online", "tiny-bright", "tiny-clip", "tiny-cached"];

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A camera's next frame, and what it shows.
    Frame(usize, u8),
    /// A camera's stream breaks off.
    Gap(usize),
    /// One call of a model.
    Call,
    /// Another camera goes, or comes again with the models of this number's bits; what is there is exchanged.
    Leave(usize),
    Join(usize, usize),
}

/// Everything that was told of a camera.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    decisions: Vec<(usize, SessionId, Decision)>,
    /// Watcher, media time, bits of the scores.
    scores: Vec<(usize, Pts, Vec<u32>)>,
    dropped: u32,
}

#[derive(Default)]
struct Watch {
    /// By camera.
    told: Vec<Told>,
    tried: Tried,
    turns: Vec<ModelTurn>,
}

impl Watch {
    fn of(cameras: usize) -> Self {
        Self { told: vec![Told::default(); cameras], ..Self::default() }
    }
}

impl Sink for Watch {
    fn decision(&mut self, origin: Origin<'_>, decision: &Decision) {
        self.told[origin.camera].decisions.push((origin.watcher, origin.session, *decision));
    }

    fn scores(&mut self, origin: Origin<'_>, at: Pts, scores: &[f32], _labels: &[String]) {
        self.told[origin.camera].scores.push((origin.watcher, at, scores.iter().map(|s| s.to_bits()).collect()));
    }

    fn inferred(&mut self, _model: usize, _requests: usize, _took: Duration) {}

    fn windows_dropped(&mut self, camera: usize, _watcher: usize, _why: WindowDrop, count: u32) {
        self.told[camera].dropped += count;
    }

    fn model_turned(&mut self, _camera: usize, _watcher: usize, turn: ModelTurn) {
        self.turns.push(turn);
    }

    fn tried(&mut self, _model: usize, tried: &Tried, _error: Option<&InferError>) {
        self.tried.requests += tried.requests;
        self.tried.compared += tried.compared;
        self.tried.agreed += tried.agreed;
        self.tried.failed += tried.failed;
    }
}

fn open(package: &str) -> LoadedModel {
    let options = OpenOptions { backend: BackendChoice::Tract, ..OpenOptions::default() };
    models::open(package, &root().join("tests/data/packages").join(package), Overrides::default(), &options)
        .unwrap()
        .loaded
}

fn frame(session: u32, number: i64, level: u8, models: usize) -> Frame {
    let (session, pts) = (SessionId(session), Pts(number * STRIDE_NS));
    let wanted = (1 << models) - 1;
    Arc::new(FrameBuf::new(FrameMeta { session, pts, arrival: None, wanted }, vec![level; 24 * 16 * 3]))
}

/// A camera that is watched by the models of the set bits.
fn lay_out(analytics: &Analytics, camera: usize, models: usize) -> NewCamera {
    let models = (0..PACKAGES.len()).filter(|m| models & (1 << m) != 0).collect();
    let plan = CameraPlan { name: format!("c{camera}"), models, zones: Vec::new() };
    let contract =
        |slot| analytics.models().find(|(s, _)| *s == slot).map(|(_, model)| (&*model.manifest, &model.overrides));
    NewCamera::lay_out(&plan, contract).unwrap()
}

/// Carries the steps out, all of them or those of the camera that stays alone; gives what was told of each camera, and the
/// models back.
fn run(models: Vec<LoadedModel>, steps: &[Step], alone: bool) -> (Vec<Told>, Vec<LoadedModel>) {
    let mut analytics = Analytics::new(models, &[]).unwrap();
    let mut watch = Watch::of(OTHERS + 1);
    let all = (1 << PACKAGES.len()) - 1;
    let mut there = [0; OTHERS + 1];
    let (mut sessions, mut numbers) = ([1; OTHERS + 1], [0; OTHERS + 1]);
    let staying = lay_out(&analytics, STAYS, all);
    analytics.join(STAYS, staying, &mut watch).unwrap();
    there[STAYS] = all;
    for &step in steps {
        match step {
            Step::Frame(camera, _) | Step::Gap(camera) | Step::Leave(camera) | Step::Join(camera, _)
                if alone && camera != STAYS => {}
            Step::Frame(camera, level) => {
                let watching = usize::try_from(there[camera].count_ones()).unwrap();
                analytics.frame(camera, 0, frame(sessions[camera], numbers[camera], level, watching), &mut watch);
                numbers[camera] += 1;
            }
            Step::Gap(camera) => {
                analytics.gap(camera, EndReason::StreamLost, &mut watch).unwrap();
                sessions[camera] += 1;
            }
            Step::Call => analytics.run_next(&mut watch).unwrap(),
            Step::Leave(camera) => {
                analytics.leave(camera, EndReason::Shutdown, &mut watch).unwrap();
                (there[camera], sessions[camera]) = (0, sessions[camera] + 1);
            }
            Step::Join(camera, models) => {
                let new = lay_out(&analytics, camera, models);
                analytics.join(camera, new, &mut watch).unwrap();
                there[camera] = models;
            }
        }
    }
    analytics.run_all(&mut watch).unwrap();
    (0..=OTHERS).for_each(|camera| analytics.leave(camera, EndReason::Shutdown, &mut watch).unwrap());
    assert_eq!((analytics.watchers().count(), analytics.waiting()), (0, 0));
    (watch.told, analytics.into_models())
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let other = || 1..=OTHERS;
    // Long enough runs of dark and bright that actions begin and end.
    let frames = (0..=OTHERS, any::<bool>(), 1usize..12).prop_map(|(camera, bright, count)| {
        let level = if bright { 235 } else { 16 };
        (0..count).flat_map(|_| [Step::Frame(camera, level), Step::Call, Step::Call]).collect()
    });
    let burst = (0..=OTHERS, any::<bool>(), 1usize..6)
        .prop_map(|(camera, bright, count)| vec![Step::Frame(camera, if bright { 235 } else { 16 }); count]);
    let one = |step| vec![step];
    let steps = prop_oneof![
        8 => frames,
        3 => burst,
        2 => Just(one(Step::Call)),
        1 => (0..=OTHERS).prop_map(move |camera| one(Step::Gap(camera))),
        2 => other().prop_map(move |camera| one(Step::Leave(camera))),
        4 => (other(), 1usize..1 << PACKAGES.len()).prop_map(move |(camera, models)| one(Step::Join(camera, models))),
    ];
    prop::collection::vec(steps, 1..60).prop_map(|steps| steps.concat())
}

/// Every action that began ended, and the last word on it is its end.
fn all_ended(told: &Told, what: &str) {
    let mut open = BTreeSet::new();
    for (watcher, session, decision) in &told.decisions {
        let known = match decision.status {
            Status::Started => open.insert((*watcher, *session, decision.action)),
            Status::Updated => open.contains(&(*watcher, *session, decision.action)),
            Status::Ended { .. } => open.remove(&(*watcher, *session, decision.action)),
        };
        assert!(known, "{what}: {decision:?}");
    }
    assert_eq!(open.len(), 0, "{what}: left open");
}

fn open_all() -> Vec<LoadedModel> {
    PACKAGES.map(open).into()
}

#[test]
fn who_stays_decides_what_it_would_have_decided_alone() {
    // Models take long to open; they are laid out anew for each case.
    let (models, seen) = (RefCell::new(Some(open_all())), Cell::new((0, 0)));
    let config = ProptestConfig { cases: 400, ..ProptestConfig::default() };
    let one = |steps: Vec<Step>| {
        let opened = models.take().unwrap_or_else(open_all);
        let (together, back) = run(opened, &steps, false);
        let (alone, back) = run(back, &steps, true);
        models.replace(Some(back));
        prop_assert_eq!(&together[STAYS], &alone[STAYS]);
        together.iter().enumerate().for_each(|(camera, told)| all_ended(told, &format!("camera {camera}")));
        let (decisions, scores) = seen.get();
        seen.set((decisions + alone[STAYS].decisions.len(), scores + alone[STAYS].scores.len()));
        Ok(())
    };
    proptest::test_runner::TestRunner::new(config).run(&any_steps(), one).unwrap();
    assert!(seen.get().0 > 100 && seen.get().1 > 5_000, "the cases decide something: {:?}", seen.get());
}

/// A model is opened in another slot, its camera goes over to it between two frames, and the old one comes back.
#[test]
fn a_model_is_exchanged_while_the_stream_goes_on() {
    let mut analytics = Analytics::new(vec![open("tiny-bright")], &[]).unwrap();
    let mut watch = Watch::of(1);
    let first = lay_out(&analytics, 0, 1);
    analytics.join(0, first, &mut watch).unwrap();
    let feed = |analytics: &mut Analytics, watch: &mut Watch, numbers: std::ops::Range<i64>| {
        for number in numbers {
            analytics.frame(0, 0, frame(1, number, 235, 1), watch);
            analytics.run_all(watch).unwrap();
        }
    };
    feed(&mut analytics, &mut watch, 0..20);
    analytics.add_model(1, open("tiny-bright"));
    assert!(analytics.take_model(0).is_none(), "a camera is watched by it");
    let second = lay_out(&analytics, 0, 2);
    analytics.join(0, second, &mut watch).unwrap();
    assert_eq!(analytics.take_model(0).unwrap().name, "tiny-bright");
    feed(&mut analytics, &mut watch, 20..40);
    analytics.leave(0, EndReason::Shutdown, &mut watch).unwrap();
    assert!(analytics.take_model(1).is_some() && analytics.models().next().is_none());
    // A frame that comes too late is nothing.
    feed(&mut analytics, &mut watch, 40..42);
    let seconds = |at: Pts| (at.seconds() * 10.0).round() as i64;
    let ended = |(_, session, d): &(usize, SessionId, Decision)| match d.status {
        Status::Ended { end, reason, .. } => Some((session.0, seconds(d.start), seconds(end), reason)),
        _ => None,
    };
    let ends: Vec<_> = watch.told[0].decisions.iter().filter_map(ended).collect();
    assert_eq!(
        ends,
        [(1, 0, 19, EndReason::ModelSwap), (1, 20, 39, EndReason::Shutdown)],
        "no frame in between is lost"
    );
    assert_eq!(watch.told[0].scores.len(), 40);
    all_ended(&watch.told[0], "the camera");
}

#[test]
fn other_thresholds_hold_from_the_next_score_and_end_nothing() {
    let mut analytics = Analytics::new(vec![open("tiny-bright")], &[]).unwrap();
    let mut watch = Watch::of(2);
    for camera in 0..2 {
        let new = lay_out(&analytics, camera, 1);
        analytics.join(camera, new, &mut watch).unwrap();
    }
    let feed = |analytics: &mut Analytics, watch: &mut Watch, numbers: std::ops::Range<i64>, level: u8| {
        for number in numbers {
            (0..2).for_each(|camera| analytics.frame(camera, 0, frame(1, number, level, 1), watch));
            analytics.run_all(watch).unwrap();
        }
    };
    feed(&mut analytics, &mut watch, 0..20, 235);
    let never: Overrides = toml::from_str("[wave]\nmin_duration_s = 50.0").unwrap();
    analytics.revise(0, never).unwrap();
    assert!(analytics.revise(0, toml::from_str("[jumping]\non = 0.5").unwrap()).is_err(), "no such label");
    feed(&mut analytics, &mut watch, 20..60, 16);
    feed(&mut analytics, &mut watch, 60..90, 235);
    // Who comes later has them too.
    let third = lay_out(&analytics, 0, 1);
    analytics.join(0, third, &mut watch).unwrap();
    feed(&mut analytics, &mut watch, 90..120, 235);
    (0..2).for_each(|camera| analytics.leave(camera, EndReason::Shutdown, &mut watch).unwrap());
    for told in &watch.told {
        let statuses: Vec<_> = told.decisions.iter().map(|(_, _, d)| d.status).collect();
        let boundary = |status: &Status| matches!(status, Status::Ended { reason: EndReason::Boundary, .. });
        assert!(statuses.len() == 2 && boundary(&statuses[1]), "one action, to its end: {statuses:?}");
    }
}

/// Four cameras that show an action all the time.
struct Bright {
    analytics: Analytics,
    watch: Watch,
    next: i64,
}

impl Bright {
    fn watched_by(package: &str) -> Self {
        Self::watching(open(package))
    }

    fn watching(model: LoadedModel) -> Self {
        let mut analytics = Analytics::new(vec![model], &[]).unwrap();
        let mut watch = Watch::of(4);
        for camera in 0..4 {
            let new = lay_out(&analytics, camera, 1);
            analytics.join(camera, new, &mut watch).unwrap();
        }
        Self { analytics, watch, next: 0 }
    }

    fn feed(&mut self, frames: i64) {
        for _ in 0..frames {
            self.feed_one(1);
            while self.analytics.trial_due() == Some(Duration::ZERO) {
                self.analytics.run_trial(&mut self.watch);
            }
        }
    }

    /// A frame, and so many strides until the next. The candidate has no time.
    fn feed_one(&mut self, strides: i64) {
        (0..4).for_each(|c| self.analytics.frame(c, 0, frame(1, self.next, 235, 1), &mut self.watch));
        self.analytics.run_all(&mut self.watch).unwrap();
        self.next += strides;
    }

    fn exchange(&mut self, successor: Successor) -> Option<LoadedModel> {
        self.analytics.exchange(0, successor, Overrides::default(), &mut self.watch)
    }

    /// Scores of each camera, windows left out, and the decisions.
    fn end(mut self) -> (Vec<usize>, u32, Vec<Vec<Decision>>) {
        (0..4).for_each(|camera| self.analytics.leave(camera, EndReason::Shutdown, &mut self.watch).unwrap());
        let told = &self.watch.told;
        let decisions = told.iter().map(|t| t.decisions.iter().map(|(.., d)| *d).collect()).collect();
        (told.iter().map(|t| t.scores.len()).collect(), told.iter().map(|t| t.dropped).sum(), decisions)
    }
}

fn ended_once(decisions: &[Vec<Decision>], with: EndReason) {
    for camera in decisions {
        let ends = camera.iter().filter_map(|d| match d.status {
            Status::Ended { reason, .. } => Some(reason),
            _ => None,
        });
        let begins = camera.iter().filter(|d| d.status == Status::Started).count();
        assert_eq!((begins, ends.collect::<Vec<_>>()), (1, vec![with]), "{camera:?}");
    }
}

#[test]
fn a_model_takes_the_place_of_one_with_the_same_labels_and_no_window_is_left_out() {
    for package in ["tiny-bright", "tiny-online", "tiny-cached", "tiny-clip"] {
        let mut alone = Bright::watched_by(package);
        alone.feed(60);
        let (scores, _, decisions) = alone.end();
        let mut bright = Bright::watched_by(package);
        bright.feed(30);
        let old = bright.exchange(Successor::Opened(Box::new(open(package))));
        assert_eq!(old.unwrap().name, package);
        bright.feed(30);
        let (after, dropped, carried) = bright.end();
        assert_eq!((&after, dropped), (&scores, 0), "{package}");
        if package != "tiny-online" {
            // A state cannot be carried from one model to another; windows can.
            assert_eq!(carried, decisions, "{package}: the same model in the place of itself changes nothing");
        }
    }
}

#[test]
fn a_candidate_is_compared_on_the_windows_of_the_model_and_takes_its_place_warm() {
    for package in ["tiny-bright", "tiny-online", "tiny-cached", "tiny-clip"] {
        let mut alone = Bright::watched_by(package);
        alone.feed(90);
        let (scores, _, decisions) = alone.end();
        let mut bright = Bright::watched_by(package);
        bright.feed(30);
        assert!(bright.analytics.begin_trial(0, open(package)).is_none());
        bright.feed(30);
        let tried = bright.watch.tried;
        assert!(tried.requests >= 4 * 30 / 2, "{package}: {tried:?}");
        if package != "tiny-online" {
            assert_eq!((tried.compared, tried.agreed, tried.failed), (tried.requests, tried.requests, 0), "{package}");
        }
        assert!(bright.exchange(Successor::Tried).is_some() && bright.analytics.trial_due().is_none());
        assert!(bright.exchange(Successor::Tried).is_none(), "there is no candidate any more");
        bright.feed(30);
        let (after, dropped, carried) = bright.end();
        assert_eq!((&after, dropped), (&scores, 0), "{package}");
        if package != "tiny-online" {
            assert_eq!(carried, decisions, "{package}");
        }
    }
}

#[test]
fn a_model_that_has_to_go_first_leaves_windows_out_and_ends_nothing() {
    let mut bright = Bright::watched_by("tiny-bright");
    bright.feed(20);
    assert!(bright.analytics.withdraw(0).is_some() && bright.analytics.withdraw(0).is_none());
    bright.feed(5);
    assert!(bright.exchange(Successor::Opened(Box::new(open("tiny-bright")))).is_none());
    bright.feed(20);
    let (scores, dropped, decisions) = bright.end();
    assert_eq!((scores, dropped), (vec![40; 4], 4 * 5));
    ended_once(&decisions, EndReason::Shutdown);
}

#[test]
fn a_candidate_that_has_fallen_behind_does_not_take_its_state_over_the_hole() {
    let mut bright = Bright::watched_by("tiny-online");
    bright.feed(30);
    assert!(bright.analytics.begin_trial(0, open("tiny-online")).is_none());
    bright.feed(30);
    // The package takes half a second for a hole.
    (0..8).for_each(|_| bright.feed_one(1));
    assert!(bright.exchange(Successor::Tried).is_some());
    bright.feed(30);
    let (scores, dropped, _) = bright.end();
    assert_eq!((scores, dropped), (vec![98; 4], 4), "each camera's state was zeroed once");
}

#[test]
fn a_state_is_not_carried_over_frames_that_the_model_failed_on() {
    let mut bright = Bright::watched_by("tiny-online");
    bright.feed(30);
    // Cut short on their way; the package takes half a second for a hole.
    for _ in 0..8 {
        let broken = FrameBuf::new(*frame(1, bright.next, 235, 1).meta(), [235]);
        bright.analytics.frame(0, 0, Arc::new(broken), &mut bright.watch);
        bright.analytics.run_all(&mut bright.watch).unwrap_err();
        bright.next += 1;
    }
    bright.feed(30);
    let (scores, dropped, _) = bright.end();
    assert_eq!((scores, dropped), (vec![60; 4], 8 + 4), "eight failed, and each camera's state was zeroed");
}

#[test]
fn what_is_open_of_a_model_that_does_not_come_back_ends() {
    let mut bright = Bright::watched_by("tiny-bright");
    bright.feed(20);
    let late = lay_out(&bright.analytics, 3, 1);
    assert!(bright.analytics.withdraw(0).is_some());
    bright.feed(5);
    bright.analytics.lose(0, &mut bright.watch);
    for told in &bright.watch.told {
        let last = told.decisions.last().unwrap().2.status;
        assert!(matches!(last, Status::Ended { reason: EndReason::StreamLost, .. }), "{last:?}");
    }
    assert_eq!(bright.watch.turns, [ModelTurn::Fails; 4]);
    // A camera that joins meanwhile waits for it, too.
    bright.analytics.join(3, late, &mut bright.watch).unwrap();
    assert!(bright.exchange(Successor::Opened(Box::new(open("tiny-bright")))).is_none());
    bright.feed(20);
    assert_eq!(bright.watch.turns[4..], [ModelTurn::Works; 3], "the one that joined had not failed");
    let (scores, dropped, decisions) = bright.end();
    assert_eq!((scores, dropped), (vec![40; 4], 4 * 5));
    assert!(decisions.iter().all(|camera| camera.iter().filter(|d| d.status == Status::Started).count() == 2));
}

#[test]
fn what_is_open_of_a_model_that_is_away_for_long_ends() {
    let mut bright = Bright::watched_by("tiny-bright");
    bright.feed(20);
    assert!(bright.analytics.withdraw(0).is_some());
    bright.feed(110);
    assert_eq!(bright.watch.turns, [ModelTurn::Fails; 4]);
    bright.analytics.lose(0, &mut bright.watch);
    assert_eq!(bright.watch.turns.len(), 4, "that was told");
    assert!(bright.exchange(Successor::Opened(Box::new(open("tiny-bright")))).is_none());
    bright.analytics.lose(0, &mut bright.watch);
    bright.feed(20);
    assert_eq!(bright.watch.turns[4..], [ModelTurn::Works; 4], "it is back, whoever gave it up too late");
}

#[test]
fn what_is_open_ends_where_frames_come_too_seldom_for_any_window() {
    // A window is of four frames in 0.4 s.
    let mut clip = open("tiny-clip");
    let mut manifest = (*clip.manifest).clone();
    manifest.sampling.max_hole = STRIDE_NS;
    clip.manifest = Arc::new(manifest);
    let mut bright = Bright::watching(clip);
    bright.feed(30);
    (0..30).for_each(|_| bright.feed_one(5));
    assert_eq!(bright.watch.turns, [ModelTurn::Fails; 4]);
    for told in &bright.watch.told {
        let last = told.decisions.last().unwrap().2.status;
        assert!(matches!(last, Status::Ended { reason: EndReason::StreamLost, .. }), "{last:?}");
    }
    bright.feed(30);
    assert_eq!(bright.watch.turns[4..], [ModelTurn::Works; 4]);
}

#[test]
fn a_model_that_looks_for_changes_in_another_way_ends_what_is_open() {
    let mut bright = Bright::watched_by("tiny-bright");
    bright.feed(30);
    let mut other = open("tiny-bright");
    let mut manifest = (*other.manifest).clone();
    assert!(exchangeable(&manifest, &other.manifest));
    let decoders = manifest.labels.iter_mut().filter_map(|label| label.decoder.as_mut());
    decoders.for_each(|decoder| decoder.kind = kinewatch_core::manifest::DecoderKind::Hysteresis);
    other.manifest = Arc::new(manifest);
    let late = lay_out(&bright.analytics, 2, 1);
    bright.exchange(Successor::Opened(Box::new(other)));
    let reasons = |told: &Told| {
        let reason = |d: &Decision| if let Status::Ended { reason, .. } = d.status { Some(reason) } else { None };
        told.decisions.iter().filter_map(|(.., d)| reason(d)).collect::<Vec<_>>()
    };
    assert!(bright.watch.told.iter().all(|told| reasons(told) == [EndReason::ModelSwap]));
    // A camera that was laid out for the model before decides as one that is laid out now.
    bright.analytics.join(2, late, &mut bright.watch).unwrap();
    let now = lay_out(&bright.analytics, 3, 1);
    bright.analytics.join(3, now, &mut bright.watch).unwrap();
    bright.feed(30);
    let (scores, dropped, decisions) = bright.end();
    assert_eq!((scores, dropped), (vec![60; 4], 0), "and no window is left out");
    assert_eq!(decisions[2], decisions[3]);
    assert!(decisions.iter().all(|camera| camera.iter().filter(|d| d.status == Status::Started).count() == 2));
}
