//! Sampling: ticks, windows and holes under any time stamps.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::frame::{Frame, FrameBuf, FrameMeta};
use crate::manifest::Sampling;
use crate::ring::Ring;
use crate::time::{SessionId, seconds_to_nanos};

const MS: i64 = 1_000_000;

fn sampling(rate_hz: f64, segments: usize, snippet: usize, window_s: f64, stride_s: f64) -> Sampling {
    Sampling {
        rate_hz,
        segments,
        snippet,
        window: seconds_to_nanos(window_s),
        stride: seconds_to_nanos(stride_s),
        max_hole: seconds_to_nanos(0.5),
    }
}

fn taken(selector: &mut FrameSelector, times: impl IntoIterator<Item = i64>) -> Vec<i64> {
    times.into_iter().filter(|&t| matches!(selector.offer(Pts(t)), Verdict::Take { .. })).collect()
}

/// Selects and windows a stream of frames; gives the frame times of each window.
fn windows(s: &Sampling, times: impl IntoIterator<Item = i64>) -> Vec<(Pts, Result<Vec<i64>, Hole>)> {
    let mut selector = FrameSelector::new(&[s.rate_hz]);
    let mut windower = Windower::new(s, 0);
    let mut ring = Ring::new(windower.plan().history_ns(), 1 << 20, 4096);
    let (mut frames, mut out) = (Vec::<Frame>::new(), Vec::new());
    for t in times {
        let Verdict::Take { wanted } = selector.offer(Pts(t)) else { continue };
        let meta = FrameMeta { session: SessionId(1), pts: Pts(t), arrival: None, wanted };
        ring.push(Arc::new(FrameBuf::new(meta, vec![0])));
        if let Some(request) = windower.push(Pts(t)) {
            let span = windower.gather(&ring, &request, &mut frames);
            out.push((request.end, span.map(|_| frames.iter().map(|f| f.meta().pts.0).collect())));
        }
    }
    out
}

#[test]
fn jitter_at_30_fps_does_not_move_the_choice() {
    let jitter = [0, 3, -3, 2, -2, 3, -3i64];
    let times: Vec<i64> = (0..300).map(|k: i64| k * 100 * MS / 3 + jitter[k as usize % 7] * MS).collect();
    let want: Vec<i64> = times.iter().copied().step_by(6).collect();
    assert_eq!(taken(&mut FrameSelector::new(&[5.0]), times), want);
}

#[test]
fn a_rate_above_the_cameras_takes_every_frame_once() {
    let times: Vec<i64> = (0..50).map(|k| k * 100 * MS).collect();
    assert_eq!(taken(&mut FrameSelector::new(&[30.0]), times.clone()), times);
}

#[test]
fn several_rates_share_a_verdict() {
    let mut s = FrameSelector::new(&[5.0, 10.0]);
    let got: Vec<Verdict> = (0..5).map(|k| s.offer(Pts(k * 50 * MS))).collect();
    let take = |wanted| Verdict::Take { wanted };
    assert_eq!(got, [take(3), Verdict::Skip, take(2), Verdict::Skip, take(3)]);
}

#[test]
fn odd_timestamps_are_named() {
    let mut s = FrameSelector::new(&[5.0]);
    assert_eq!(s.offer(Pts(0)), Verdict::Take { wanted: 1 });
    assert_eq!(s.offer(Pts(0)), Verdict::Duplicate);
    assert_eq!(s.offer(Pts(400 * MS)), Verdict::Take { wanted: 1 });
    assert_eq!(s.offer(Pts(300 * MS)), Verdict::Backward);
    assert_eq!(s.offer(Pts(10_401 * MS)), Verdict::Jump);
    assert_eq!(s.offer(Pts(-601 * MS)), Verdict::Jump);
    assert_eq!(s.offer(Pts(10_400 * MS)), Verdict::Take { wanted: 1 });
    s.reset();
    assert_eq!(s.offer(Pts(0)), Verdict::Take { wanted: 1 });
}

#[test]
fn a_dense_window_is_the_last_frames() {
    let s = sampling(5.0, 8, 1, 1.6, 0.4);
    let times: Vec<i64> = (0..20).map(|k| k * 200 * MS).collect();
    let got = windows(&s, times.clone());
    let want: Vec<_> = (7..20).step_by(2).map(|k| (Pts(times[k]), Ok(times[k - 7..=k].to_vec()))).collect();
    assert_eq!(got, want);
}

#[test]
fn segments_are_read_in_their_middle() {
    // TSN: four segments of a window of 16 ticks.
    let offsets = |t, n, w| {
        let got = windows(&sampling(1.0, t, n, w, 1.0), (0..w as i64).map(|k| k * 1000 * MS));
        got[0].1.as_ref().unwrap().iter().map(|t| t / (1000 * MS)).collect::<Vec<_>>()
    };
    assert_eq!(offsets(4, 1, 16.0), [2, 6, 10, 14]);
    assert_eq!(offsets(4, 2, 16.0), [1, 2, 5, 6, 9, 10, 13, 14]);
    assert_eq!(offsets(2, 5, 10.0), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_hole_spoils_the_windows_over_it_and_no_other() {
    let s = sampling(5.0, 5, 1, 1.0, 0.2);
    let got = windows(&s, (0..60).filter(|k| !(20..30).contains(k)).map(|k| k * 200 * MS));
    let spoilt: Vec<i64> = got.iter().filter(|(_, w)| w.is_err()).map(|(end, _)| end.0 / (200 * MS)).collect();
    // Ticks 22 to 27 lie more than half a second from both 19 and 30.
    assert_eq!(spoilt, [30, 31]);
    assert_eq!(got.iter().filter(|(_, w)| w.is_ok()).count(), 16 + 28);
    let mut windower = Windower::new(&s, 0);
    windower.push(Pts(800 * MS));
    assert_eq!(windower.push(Pts(1400 * MS)).map(|r| r.skipped), Some(2));
}

#[test]
fn holes_between_frames_are_seen() {
    let mut d = HoleDetector::new(500);
    assert_eq!(d.offer(Pts(0)), Continuity::First);
    assert_eq!(d.offer(Pts(500)), Continuity::Continuous);
    assert_eq!(d.offer(Pts(1001)), Continuity::Hole(501));
    d.reset();
    assert_eq!(d.offer(Pts(9000)), Continuity::First);
}

#[test]
fn a_frame_that_was_not_taken_in_leaves_a_hole() {
    let mut d = HoleDetector::new(500);
    d.offer(Pts(0));
    for pts in [300, 500] {
        assert_eq!(d.offer(Pts(pts)), Continuity::Continuous);
        d.retract();
    }
    assert_eq!(d.offer(Pts(700)), Continuity::Hole(700), "since the last one that was");
    d.retract();
    assert_eq!(d.offer(Pts(900)), Continuity::First, "the state was zeroed, and holds nothing");
    assert_eq!(d.offer(Pts(1300)), Continuity::Continuous);
}

#[test]
fn who_joins_late_has_missed_nothing() {
    let s = sampling(5.0, 5, 1, 1.0, 0.2);
    let mut windower = Windower::new(&s, 0);
    windower.join_at(Pts(3_600_000 * MS));
    assert_eq!(windower.push(Pts(3_600_800 * MS)), None, "it begins at a frame that only others have seen");
    assert_eq!(windower.push(Pts(3_601_000 * MS)).map(|r| r.skipped), Some(0));
    assert_eq!(windower.push(Pts(3_601_600 * MS)).map(|r| r.skipped), Some(2));
}

#[test]
fn the_next_window_is_known_before_its_frame() {
    let plan = WindowPlan::new(&sampling(5.0, 5, 1, 1.0, 0.4));
    assert_eq!(plan.next_due(Pts(0)), Pts(800 * MS));
    assert_eq!(plan.next_due(Pts(800 * MS)), Pts(1200 * MS));
}

proptest! {
    #[test]
    fn any_timestamps_are_taken_once_a_tick(rate in 0.1f64..240.0, times in prop::collection::vec(any::<i64>(), 0..100)) {
        let mut s = FrameSelector::new(&[rate, 5.0]);
        for t in times {
            if s.offer(Pts(t)) == Verdict::Jump {
                s.reset();
            }
        }
    }

    #[test]
    fn spacing_is_a_tick_less_what_the_stream_allows(
        rate in 1.0f64..30.0, steps in prop::collection::vec(-20i64..120, 1..400),
    ) {
        let ticks = Ticks::new(rate);
        let mut s = FrameSelector::new(&[rate]);
        let (mut now, mut newest, mut widest) = (0, -1, 0);
        let mut chosen = Vec::new();
        for step in steps {
            now += step * MS;
            if now > newest {
                widest = widest.max(now - newest.max(0));
                newest = now;
            }
            if let Verdict::Take { wanted } = s.offer(Pts(now)) {
                prop_assert_eq!(wanted, 1);
                chosen.push(Pts(now));
            }
        }
        for pair in chosen.windows(2) {
            prop_assert!(ticks.of(pair[1]) > ticks.of(pair[0]), "two frames of a tick");
            prop_assert!(pair[1] - pair[0] >= ticks.interval_ns() * 7 / 8 - widest - 2);
        }
    }

    #[test]
    fn a_steady_camera_is_sampled_at_the_rate(fps in 10.0f64..120.0, rate in 1.0f64..10.0, offset in 0.0f64..1.0) {
        let n = (fps * 20.0) as i64;
        let jitter = |k: i64| ((k * 7919) % 101 - 50) as f64 / 50.0 * 0.2 * offset;
        let times: Vec<i64> = (0..n).map(|k| ((k as f64 + jitter(k)) / fps * 1e9).max(0.0) as i64).collect();
        let got = taken(&mut FrameSelector::new(&[rate]), times).len() as f64;
        // A camera hardly faster than the rate, whose frames jitter, puts two frames into one tick now and then: one is lost.
        let missing = if fps < 1.25 * rate { 0.1 * rate * 20.0 } else { 0.0 };
        prop_assert!((-2.0 - missing..=2.0).contains(&(got - rate * 20.0)), "{} frames at {} Hz", got, rate);
    }

    #[test]
    fn windows_depend_on_timestamps_alone(
        segments in 1usize..6, snippet in 1usize..4, spare in 0usize..10, stride in 1usize..6,
        gaps in prop::collection::vec(prop::bool::weighted(0.1), 80), from in 0usize..40,
    ) {
        let length = segments * snippet + spare;
        let s = sampling(10.0, segments, snippet, length as f64 / 10.0, stride as f64 / 10.0);
        let times: Vec<i64> = (0..80).filter(|&k| !gaps[k]).map(|k| k as i64 * 100 * MS).collect();
        let all = windows(&s, times.iter().copied());
        // Who joins later sees the same windows, once the ring is full.
        let late = windows(&s, times.iter().copied().filter(|&t| t >= from as i64 * 100 * MS));
        let settled = Pts((from + length + 6) as i64 * 100 * MS);
        let after = |w: &[(Pts, Result<Vec<i64>, Hole>)]| w.iter().filter(|w| w.0 > settled).cloned().collect::<Vec<_>>();
        prop_assert_eq!(after(&late), after(&all));
        for (end, frames) in &all {
            let tick = (end.0 / (100 * MS)) as usize;
            prop_assert_eq!((tick + 1 - length) % stride, 0);
            if let Ok(frames) = frames {
                prop_assert_eq!(frames.len(), segments * snippet);
                prop_assert!(frames.windows(2).all(|w| w[0] <= w[1]));
                prop_assert!(spare > 0 || gaps.iter().any(|g| *g) || *frames.last().unwrap() == end.0);
            }
        }
    }
}
