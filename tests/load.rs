//! Overload, with real models and decoders in simulated time: each call of a model takes as long as the test says.
//!
//! The cost is injected through the clock alone ([`Analytics::with_time`]): the second look at it during a call is so much
//! later. Everything else is the daemon's own path, so figures do not depend on the machine.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use kinewatch::analytics::{Analytics, CameraPlan, Origin, Sink, WindowDrop};
use kinewatch::models;
use kinewatch_core::decode::{Decision, EndReason, Status};
use kinewatch_core::frame::{Frame, FrameBuf, FrameMeta};
use kinewatch_core::manifest::Overrides;
use kinewatch_core::schedule::{Load, PATIENCE};
use kinewatch_core::time::{Pts, SessionId};
use kinewatch_engine::{BackendChoice, OpenOptions};
use support::root;

const MS: u64 = 1_000_000;
/// Sampled frames, ten a second.
const STRIDE_MS: u64 = 100;
const FRAMES: u64 = 120;
/// Bright from 4 s to 8 s.
const BRIGHT: std::ops::Range<u64> = 40..80;

/// Time that passes only as the test says.
#[derive(Clone, Default)]
struct Simulated {
    now: Arc<AtomicU64>,
    /// Looks left until the call at hand is over.
    looks: Arc<AtomicU64>,
    cost: Arc<AtomicU64>,
}

impl Simulated {
    fn look(&self) -> Duration {
        let left = self.looks.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).unwrap_or(0);
        if left == 1 {
            self.now.fetch_add(self.cost.load(Relaxed), Relaxed);
        }
        Duration::from_nanos(self.now.load(Relaxed))
    }
}

/// What a camera came to.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Label, start, end, their uncertainties (s), reason.
    actions: Vec<(u16, f64, f64, f64, f64, EndReason)>,
    /// Media time of each score and its age when it was there, ms.
    scores: Vec<(u64, u64)>,
    holes: u32,
    overload: u32,
    derated: u32,
}

struct Watch {
    time: Simulated,
    /// When media time zero reached us, by camera, ns.
    begins: Vec<u64>,
    seen: Vec<Seen>,
}

impl Sink for Watch {
    fn decision(&mut self, origin: Origin<'_>, d: &Decision) {
        if let Status::Ended { end, end_uncertainty_ms, reason } = d.status {
            let sure = |ms: f32| f64::from(ms) / 1e3;
            let action = (
                d.label,
                d.start.seconds(),
                end.seconds(),
                sure(d.start_uncertainty_ms),
                sure(end_uncertainty_ms),
                reason,
            );
            self.seen[origin.camera].actions.push(action);
        }
    }

    fn scores(&mut self, origin: Origin<'_>, at: Pts, _scores: &[f32], _labels: &[String]) {
        let at = at.0 as u64;
        let age = self.time.now.load(Relaxed) - self.begins[origin.camera] - at;
        let seen = &mut self.seen[origin.camera];
        assert!(seen.scores.last().is_none_or(|last| last.0 < at / MS), "out of order");
        seen.scores.push((at / MS, age / MS));
    }

    fn inferred(&mut self, _model: usize, _requests: usize, _took: Duration) {}

    fn windows_dropped(&mut self, camera: usize, _watcher: usize, why: WindowDrop, count: u32) {
        match why {
            WindowDrop::Overload => self.seen[camera].overload += count,
            WindowDrop::Hole => self.seen[camera].holes += count,
            WindowDrop::Failed | WindowDrop::Swap => panic!("the model failed"),
            WindowDrop::Derated => self.seen[camera].derated += count,
        }
    }
}

/// What reaches the inference thread: at (ns), camera, frame number or the end of the stream.
type Arrival = (u64, usize, Option<u64>);

/// Cameras that begin `phases` (ms) late and show the bright clip.
fn arrivals(phases: &[u64]) -> Vec<Arrival> {
    let of = |(camera, &phase): (usize, &u64)| {
        let frames = (0..FRAMES).map(move |k| ((phase + k * STRIDE_MS) * MS, camera, Some(k)));
        frames.chain([((phase + FRAMES * STRIDE_MS) * MS, camera, None)])
    };
    let mut all: Vec<_> = phases.iter().enumerate().flat_map(of).collect();
    all.sort_unstable();
    all
}

fn frame(number: u64) -> Frame {
    let meta =
        FrameMeta { session: SessionId(1), pts: Pts((number * STRIDE_MS * MS) as i64), arrival: None, wanted: 1 };
    let level = if BRIGHT.contains(&number) { 235 } else { 16 };
    Arc::new(FrameBuf::new(meta, vec![level; 24 * 16 * 3]))
}

/// The loop of the inference thread, over `arrivals`; a call takes `cost_ms`.
fn run(package: &str, cameras: usize, arrivals: &[Arrival], cost_ms: u64) -> Vec<Seen> {
    run_spared(package, cameras, arrivals, cost_ms, 1)
}

/// The same on a device that is spared: one request of `one_of` is run.
fn run_spared(package: &str, cameras: usize, arrivals: &[Arrival], cost_ms: u64, one_of: u32) -> Vec<Seen> {
    let options = OpenOptions { backend: BackendChoice::Tract, ..OpenOptions::default() };
    let dir = root().join("tests/data/packages").join(package);
    let loaded = models::open("m", &dir, Overrides::default(), &options).unwrap().loaded;
    let plan = |camera| CameraPlan { name: format!("c{camera}"), models: vec![0], zones: Vec::new() };
    let plans: Vec<_> = (0..cameras).map(plan).collect();
    let time = Simulated::default();
    time.cost.store(cost_ms * MS, Relaxed);
    let clock = time.clone();
    let mut analytics = Analytics::new(vec![loaded], &plans).unwrap().with_time(move || clock.look());
    analytics.spare(one_of);
    let begin = |camera| arrivals.iter().find(|a| a.1 == camera).map_or(0, |a| a.0);
    let begins = (0..cameras).map(begin).collect();
    let mut watch = Watch { time: time.clone(), begins, seen: vec![Seen::default(); cameras] };
    let mut left = arrivals.iter().peekable();
    loop {
        let now = time.now.load(Relaxed);
        while let Some(&(_, camera, what)) = left.next_if(|a| a.0 <= now) {
            match what {
                Some(number) => analytics.frame(camera, 0, frame(number), &mut watch),
                None => analytics.gap(camera, EndReason::StreamLost, &mut watch).unwrap(),
            }
        }
        if analytics.waiting() > 0 {
            time.looks.store(2, Relaxed);
            analytics.run_next(&mut watch).unwrap();
            continue;
        }
        analytics.rest();
        assert_eq!(analytics.load(), Load::Kept);
        let Some(next) = left.peek() else { return watch.seen };
        time.now.store(next.0, Relaxed);
    }
}

/// Longest time between two scores.
fn hole(seen: &Seen) -> f64 {
    seen.scores.windows(2).map(|w| w[1].0 - w[0].0).max().unwrap() as f64 / 1e3
}

#[test]
fn overload_blurs_boundaries_by_the_hole_and_invents_nothing() {
    let whole = run("tiny-bright", 1, &arrivals(&[0]), 0).remove(0);
    assert_eq!((whole.actions.len(), whole.overload, whole.scores.len()), (1, 0, FRAMES as usize));
    // Cameras and cost of a call: from a little too much to eight times what there is time for.
    for (cameras, cost_ms) in [(1, 110), (1, 400), (2, 60), (3, 90), (4, 50), (4, 200), (6, 30), (8, 100)] {
        let phases: Vec<_> = (0..cameras).map(|c| 37 * c as u64 % STRIDE_MS).collect();
        let all = run("tiny-bright", cameras, &arrivals(&phases), cost_ms);
        let what = format!("{cameras} cameras, {cost_ms} ms");
        for seen in &all {
            assert!(seen.overload > 0, "{what}: it is too much");
            assert_eq!(
                seen.overload as usize + seen.scores.len(),
                FRAMES as usize,
                "{what}: nothing is lost uncounted"
            );
            assert_eq!(seen.actions.len(), 1, "{what}: {:?}", seen.actions);
            let (label, start, end, start_sure, end_sure, reason) = seen.actions[0];
            let (true_label, true_start, true_end, ..) = whole.actions[0];
            assert_eq!((label, reason), (true_label, EndReason::Boundary), "{what}");
            let stride = STRIDE_MS as f64 / 1e3;
            let hole = hole(seen) - stride;
            for (found, truth, sure) in [(start, true_start, start_sure), (end, true_end, end_sure)] {
                let off = (found - truth).abs();
                assert!(off <= hole + 1e-9, "{what}: off by {off}, the holes are {hole}");
                assert!(off <= stride + sure, "{what}: off by {off}, {sure} stated");
            }
        }
        fresh_and_fair(&all, cost_ms, &what);
    }
}

fn fresh_and_fair(all: &[Seen], cost_ms: u64, what: &str) {
    // Each camera once, the call at hand, and what came meanwhile.
    let round = (all.len() as u64 + 1) * cost_ms + STRIDE_MS;
    let settled = PATIENCE.as_millis() as u64 + 2 * round;
    let late = all.iter().flat_map(|s| &s.scores).filter(|(at, age)| at + age > settled);
    let oldest = late.map(|s| s.1).max().unwrap();
    assert!(oldest <= round, "{what}: a score was {oldest} ms old, a round is {round} ms");
    let counts: Vec<_> = all.iter().map(|s| s.scores.len()).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= 3, "{what}: scores of each camera {counts:?}");
}

#[test]
fn a_device_that_is_spared_blurs_boundaries_by_the_stride_and_invents_nothing() {
    let whole = run("tiny-bright", 1, &arrivals(&[0]), 0).remove(0);
    // Three cameras that ask for 1.5 times the time that there is: with one window of two, nothing is left out.
    for one_of in [2, 4, 8] {
        for seen in run_spared("tiny-bright", 3, &arrivals(&[0, 37, 74]), 50, one_of) {
            let what = format!("one of {one_of}");
            assert_eq!((seen.overload, seen.holes), (0, 0), "{what}");
            assert_eq!(seen.scores.len(), FRAMES.div_ceil(u64::from(one_of)) as usize, "{what}");
            assert_eq!(seen.derated as usize + seen.scores.len(), FRAMES as usize, "{what}: nothing is lost uncounted");
            assert!(seen.scores.iter().all(|(_, age)| *age <= 150), "{what}: what runs is fresh");
            assert_eq!(seen.actions.len(), 1, "{what}: {:?}", seen.actions);
            let (label, start, end, start_sure, end_sure, reason) = seen.actions[0];
            let (true_label, true_start, true_end, ..) = whole.actions[0];
            assert_eq!((label, reason), (true_label, EndReason::Boundary), "{what}");
            let stride = STRIDE_MS as f64 / 1e3;
            for (found, truth, sure) in [(start, true_start, start_sure), (end, true_end, end_sure)] {
                let off = (found - truth).abs();
                assert!(off <= hole(&seen) + 1e-9 && off <= stride + sure, "{what}: off by {off}, {sure} stated");
            }
        }
    }
}

#[test]
fn what_the_device_can_do_is_all_done() {
    for (cameras, cost_ms) in [(1, 90), (3, 30), (8, 11)] {
        let phases: Vec<_> = (0..cameras).map(|c| 37 * c as u64 % STRIDE_MS).collect();
        for seen in run("tiny-bright", cameras, &arrivals(&phases), cost_ms) {
            assert_eq!((seen.overload, seen.scores.len()), (0, FRAMES as usize), "{cameras} cameras, {cost_ms} ms");
        }
    }
}

#[test]
fn a_stream_lost_under_overload_ends_its_action_and_touches_no_other() {
    let mut arrivals = arrivals(&[0, 20, 40, 60]);
    // Camera 2 breaks off at 6 s, within the action; the end of its stream comes at once.
    arrivals.retain(|&(_, camera, number)| camera != 2 || number.is_some_and(|n| n < 60));
    arrivals.push(((40 + 60 * STRIDE_MS) * MS, 2, None));
    arrivals.sort_unstable();
    let all = run("tiny-bright", 4, &arrivals, 100);
    let reasons: Vec<_> = all.iter().map(|s| s.actions.iter().map(|a| a.5).collect::<Vec<_>>()).collect();
    let (lost, whole) = (vec![EndReason::StreamLost], vec![EndReason::Boundary]);
    assert_eq!(reasons, [whole.clone(), whole.clone(), lost, whole]);
    let (_, _, end, _, sure, _) = all[2].actions[0];
    let newest = 5.9;
    assert!(end <= newest && newest - end <= 2.0 * sure + 1e-6, "ends at {end}, {sure} stated");
}

#[test]
fn an_online_state_is_zeroed_only_when_its_frames_come_too_far_apart() {
    // The package carries its state over half a second.
    let holes = |cameras: usize, cost_ms| {
        let phases: Vec<_> = (0..cameras as u64).collect();
        let all = run("tiny-online", cameras, &arrivals(&phases), cost_ms);
        assert!(all.iter().all(|s| s.overload > 0 && s.scores.len() > 5));
        all.iter().map(|s| (s.holes as usize, s.scores.len())).collect::<Vec<_>>()
    };
    // A frame every 0.3 s; the cut that begins the overload is a hole of its own.
    assert!(holes(2, 150).iter().all(|(holes, _)| *holes <= 1), "{:?}", holes(2, 150));
    // A frame every 0.8 s: each stands alone, but those of the first second.
    assert!(holes(4, 200).iter().all(|(holes, scores)| holes + 3 >= *scores), "{:?}", holes(4, 200));
}
