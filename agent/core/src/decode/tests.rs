//! Decoders: clean steps, noise, gaps, dropped scores, and the life cycle under any input.

use proptest::prelude::*;

use super::*;
use crate::manifest::{Manifest, Overrides};
use crate::time::Pts;

const EXAMPLE: &str = include_str!("../../testdata/model.toml");
const STRIDE: i64 = 200_000_000;

const KINDS: [&str; 3] = ["cusum", "hysteresis", "hmm"];
const HMM: &str = r#"
[labels.decoder.hmm]
window_s = 0.2
low = -5.0
high = 4.0
deviation = 2.0
correlation = 0.4
shortest_s = 0.6
pause_s = 0.4
length_s = 4.0
apart_s = 60.0
burst = 4.0
burst_s = 0.4
bursts_per_hour = 60.0
dropouts_per_hour = 20.0
"#;

/// The example, or the same with hysteresis over one second, or with a model of the scores.
fn manifest(kind: &str) -> Manifest {
    let text = match kind {
        "cusum" => EXAMPLE.to_owned(),
        "hmm" => {
            let text = EXAMPLE.replace("\"cusum\"", "\"hmm\"").replace("on = 0.6\noff = 0.4", "on = 0.95\noff = 0.05");
            let text = text.replace("on = 0.5\noff = 0.2", "on = 0.95\noff = 0.05");
            let text = text.replace("lag_start_s = 0.1\nlag_end_s = 0.0\n", "").replace("merge_gap_s = 0.4\n", "");
            text.replace("uncertainty_end_ms = 200.0\n", &format!("uncertainty_end_ms = 200.0\n{HMM}"))
        }
        _ => EXAMPLE
            .replace("\"cusum\"", "\"hysteresis\"")
            .replace("smooth_s = 0.0", "smooth_s = 1.0")
            .replace("lag_start_s = 0.1\nlag_end_s = 0.0", "lag_start_s = 0.5\nlag_end_s = 0.5"),
    };
    let publish_all = text.replace("publish = false\n", "");
    Manifest::parse(&publish_all).unwrap()
}

fn decoder(kind: &str) -> Decoder {
    Decoder::new(&manifest(kind), &Overrides::default()).unwrap()
}

/// Logits that give `falling` and `lying` these log-odds, nearly.
fn row(falling: bool, lying: bool) -> [f32; 3] {
    match (falling, lying) {
        (true, _) => [-2.0, 2.0, -4.0],
        (_, true) => [-2.0, -4.0, 2.0],
        _ => [3.0, -2.0, -2.0],
    }
}

fn at(step: i64) -> Pts {
    Pts(step * STRIDE)
}

/// Feeds steps given as (falling, lying) and then a gap.
fn run(d: &mut Decoder, steps: impl IntoIterator<Item = (i64, bool, bool)>) -> Vec<Decision> {
    let mut out = Vec::new();
    let mut last = 0;
    for (k, f, l) in steps {
        d.step(at(k), &row(f, l), &mut out);
        last = k;
    }
    d.gap(at(last + 1), EndReason::StreamLost, &mut out);
    let mut first = None;
    lifecycle(&out.iter().filter_map(|d| renumbered(&mut first, *d)).collect::<Vec<_>>());
    out
}

/// What every stream of decisions keeps, closed by a gap.
fn lifecycle(out: &[Decision]) {
    let actions = out.iter().map(|d| d.action).max().map_or(0, |a| a + 1);
    let mut ends = std::collections::BTreeMap::new();
    for action in 0..actions {
        let revs: Vec<&Decision> = out.iter().filter(|d| d.action == action).collect();
        assert!(matches!(revs[0].status, Status::Started));
        for (want, d) in revs.iter().enumerate() {
            assert_eq!(d.rev as usize, want);
            assert_eq!(d.label, revs[0].label);
            assert!(d.start >= Pts::ZERO && d.start <= d.decided_at, "{d:?}");
            assert!((0.0..=1.0).contains(&d.confidence.peak) && d.confidence.mean <= d.confidence.peak, "{d:?}");
            assert!(d.windows >= 1 && d.start_uncertainty_ms >= 0.0);
            match d.status {
                Status::Started => assert_eq!(want, 0),
                Status::Updated => assert!(want > 0 && want + 1 < revs.len()),
                Status::Ended { end, .. } => {
                    assert_eq!(want + 1, revs.len(), "something follows the end");
                    assert!(d.start <= end && end <= d.decided_at, "{d:?}");
                    let before = ends.insert(d.label, end).unwrap_or(Pts::ZERO);
                    assert!(d.start >= before, "actions of a label overlap: {d:?} after {before}");
                }
            }
        }
        let ended = matches!(revs.last().map(|d| d.status), Some(Status::Ended { .. }));
        assert!(ended, "action {action} never ended");
    }
}

fn endings(out: &[Decision], label: u16) -> Vec<(Pts, Pts, EndReason)> {
    let ended = |d: &Decision| match d.status {
        Status::Ended { end, reason, .. } if d.label == label => Some((d.start, end, reason)),
        _ => None,
    };
    out.iter().filter_map(ended).collect()
}

fn near(a: Pts, b: Pts) -> bool {
    (a - b).abs() <= STRIDE
}

#[test]
fn a_clean_step_is_one_action_within_a_stride() {
    for kind in KINDS {
        let out = run(&mut decoder(kind), (0..80).map(|k| (k, (20..40).contains(&k), false)));
        let found = endings(&out, 0);
        assert_eq!(found.len(), 1, "{kind}: {out:?}");
        let (start, end, reason) = found[0];
        assert!(near(start, at(20)) && near(end, at(40)) && reason == EndReason::Boundary, "{kind}: {start} to {end}");
    }
}

#[test]
fn an_interrupted_action_ends_at_the_last_score_with_the_reason() {
    for kind in KINDS {
        let out = run(&mut decoder(kind), (0..40).map(|k| (k, k >= 20, false)));
        assert_eq!(endings(&out, 0), [(out[0].start, at(39), EndReason::StreamLost)], "{kind}");
        assert_eq!(out.last().unwrap().decided_at, at(40));
    }
}

#[test]
fn a_fall_is_falling_then_lying() {
    let mut d = decoder("cusum");
    assert_eq!(d.published_labels(), ["falling", "lying", "fall"]);
    assert_eq!(d.published_label_ids(), [Some(1), Some(2), None]);
    let steps = |lie_from: i64| (0..60).map(move |k| (k, (20..25).contains(&k), (lie_from..50).contains(&k)));
    let out = run(&mut d, steps(25));
    let falls: Vec<&Decision> = out.iter().filter(|d| d.label == 2).collect();
    assert_eq!(falls.len(), 2, "{out:?}");
    let (start, end, _) = endings(&out, 2)[0];
    assert!(near(start, at(20)) && near(end, at(25)));
    let lying = out.iter().find(|d| d.label == 1).unwrap();
    assert_eq!((falls[0].decided_at, falls[1].decided_at), (lying.decided_at, lying.decided_at));
    // Lying down three seconds after is no fall; nor is lying alone.
    assert!(endings(&run(&mut d, steps(40)), 2).is_empty());
    assert!(endings(&run(&mut d, (0..60).map(|k| (k, false, k > 20))), 2).is_empty());
}

#[test]
fn a_fall_is_told_though_lying_flickered_just_before() {
    let merging: Overrides = toml::from_str("[lying]\nmerge_gap_s = 2.0\nmin_duration_s = 0.0").unwrap();
    let mut d = Decoder::new(&manifest("cusum"), &merging).unwrap();
    let lies = |k: i64| (14..17).contains(&k) || (25..50).contains(&k);
    let out = run(&mut d, (0..60).map(|k| (k, (20..25).contains(&k), lies(k))));
    assert_eq!(endings(&out, 1).len(), 1, "one lying, with a pause: {out:?}");
    let falls = endings(&out, 2);
    assert_eq!(falls.len(), 1, "{out:?}");
    assert!(near(falls[0].0, at(20)) && near(falls[0].1, at(25)), "{falls:?}");
    // Who has long been lying and rolls over does not fall.
    let lies = |k: i64| (2..20).contains(&k) || (25..50).contains(&k);
    let out = run(&mut d, (0..60).map(|k| (k, (20..25).contains(&k), lies(k))));
    assert_eq!((endings(&out, 1).len(), endings(&out, 2).len()), (1, 0), "{out:?}");
    // Getting up for a moment and lying on is no second fall.
    let lies = |k: i64| (25..40).contains(&k) || (46..55).contains(&k);
    let out = run(&mut d, (0..70).map(|k| (k, (20..25).contains(&k), lies(k))));
    assert_eq!(endings(&out, 2).len(), 1, "{out:?}");
}

#[test]
fn a_sequence_takes_no_longer_than_it_may() {
    let limited = "within_s = 2.0\nmax_duration_s = 2.0";
    let limited = Manifest::parse(&EXAMPLE.replace("within_s = 2.0", limited)).unwrap();
    let unlimited = Manifest::parse(EXAMPLE).unwrap();
    let decoder = |manifest| Decoder::new(manifest, &Overrides::default()).unwrap();
    let fall = |mut d: Decoder, fall_from: i64| {
        let out = run(&mut d, (0..60).map(|k| (k, (fall_from..25).contains(&k), (25..50).contains(&k))));
        let (start, end, _) = endings(&out, 1)[0];
        (start, end, out.iter().find(|d| d.label == 1).unwrap().start_uncertainty_ms)
    };
    assert_eq!(fall(decoder(&limited), 20), fall(decoder(&unlimited), 20), "shorter than it may be");
    let (start, end, uncertainty_ms) = fall(decoder(&limited), 5);
    assert!(near(end, at(25)));
    assert_eq!((end - start, uncertainty_ms), (2_000_000_000, 2000.0));
    for (before, after) in [(&unlimited, &limited), (&limited, &unlimited)] {
        let mut carried = decoder(before);
        carried.carry_over(after, &Overrides::default()).unwrap();
        assert_eq!(fall(carried, 5), fall(decoder(after), 5), "the limit is that of the model that goes on");
    }
}

#[test]
fn unpublished_parts_stay_silent() {
    let mut d = Decoder::new(&Manifest::parse(EXAMPLE).unwrap(), &Overrides::default()).unwrap();
    assert_eq!(d.published_labels(), ["lying", "fall"]);
    let out = run(&mut d, (0..60).map(|k| (k, (20..25).contains(&k), (25..50).contains(&k))));
    assert_eq!((endings(&out, 0).len(), endings(&out, 1).len()), (1, 1));
    assert!(out.iter().all(|d| d.label < 2));
}

#[test]
fn close_repeats_are_one_action_and_short_ones_none() {
    // A pause of 0.4 s would be two actions but for the detector's inertia and the merge gap.
    let with_pause = |k: i64| (20..30).contains(&k) || (34..44).contains(&k);
    let split = Overrides::default();
    let merged: Overrides = toml::from_str("[falling]\nmerge_gap_s = 1.5").unwrap();
    let count = |o: &Overrides| {
        let mut d = Decoder::new(&manifest("cusum"), o).unwrap();
        endings(&run(&mut d, (0..80).map(|k| (k, with_pause(k), false))), 0).len()
    };
    assert_eq!((count(&split), count(&merged)), (2, 1));
    let strict: Overrides = toml::from_str("[falling]\nmin_duration_s = 3.0").unwrap();
    assert_eq!(count(&strict), 0);
}

#[test]
fn a_long_action_is_renewed_then_cut_then_waits_for_the_score_to_fall() {
    let out = run(&mut decoder("cusum"), (0..200).map(|k| (k, k >= 20 && k != 150, false)));
    let of_label: Vec<&Decision> = out.iter().filter(|d| d.label == 0).collect();
    let found = endings(&out, 0);
    assert_eq!(found[0].2, EndReason::MaxDuration);
    assert_eq!(found[0].1 - found[0].0, 10_000_000_000);
    let renewals: Vec<i64> = of_label.iter().take_while(|d| d.action == 0).map(|d| d.decided_at.0).collect();
    assert!(renewals.windows(2).all(|w| w[1] - w[0] <= 10_000_000_000), "the lease lapsed");
    assert!(renewals.len() >= 3, "{renewals:?}");
    assert_eq!(found.len(), 2, "one before the cut, one after the dip");
    assert!(near(found[1].0, at(151)));
}

#[test]
fn a_hole_adds_no_evidence() {
    for kind in KINDS {
        // One high score every ten seconds, alone.
        let out = run(&mut decoder(kind), (0..20).map(|k| (k * 50, k % 2 == 1, false)));
        let alone = run(&mut decoder(kind), (0..500).map(|k| (k, k % 100 == 50, false)));
        assert!(out.is_empty() || !alone.is_empty(), "{kind}: a hole made an action");
    }
}

#[test]
fn a_hole_blurs_the_uncertainty() {
    let full = run(&mut decoder("cusum"), (0..60).map(|k| (k, k >= 20, false)));
    let holed = run(&mut decoder("cusum"), (0..60).filter(|k| !(15..25).contains(k)).map(|k| (k, k >= 20, false)));
    assert_eq!(full[0].start_uncertainty_ms, 100.0);
    assert_eq!(holed[0].start_uncertainty_ms, 100.0 + 1000.0, "half of the two seconds that are missing");
    assert!(holed[0].start - full[0].start <= 2_000_000_000);
}

#[test]
fn nonsense_is_ignored() {
    let mut d = decoder("cusum");
    let mut out = Vec::new();
    d.step(at(5), &row(false, false), &mut out);
    let before = d.scores().to_vec();
    d.step(at(6), &[f32::NAN, 0.0, 0.0], &mut out);
    d.step(at(7), &[0.0, 0.0], &mut out);
    d.step(at(4), &row(true, true), &mut out);
    assert_eq!(d.scores(), before);
    assert_eq!(d.score_labels(), ["falling", "lying"]);
}

#[test]
fn scores_are_log_odds() {
    let mut d = decoder("cusum");
    d.step(at(0), &[0.0, 0.0, 0.0], &mut Vec::new());
    assert!(d.scores().iter().all(|l| (l - 0.5f32.ln()).abs() < 1e-6), "one of three: odds 1 to 2");
    d.step(at(1), &[1000.0, -1000.0, 0.0], &mut Vec::new());
    assert!(d.scores().iter().all(|l| (l + 13.8155).abs() < 1e-3), "kept finite");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_scores_at_any_times_keep_the_life_cycle(
        kind in prop::sample::select(&KINDS),
        steps in prop::collection::vec((0i64..3_000_000_000, [-9f32..9.0, -9f32..9.0, -9f32..9.0], 0u8..40), 1..300),
    ) {
        let mut d = decoder(kind);
        let mut out = Vec::new();
        let mut now = Pts::ZERO;
        for (forward, logits, gap) in steps {
            now = now + forward;
            d.step(now, &logits, &mut out);
            if gap == 0 {
                d.gap(now, EndReason::StreamLost, &mut out);
                prop_assert_eq!(d.open_actions().count(), 0);
                lifecycle(&out.split_off(0).into_iter().scan(None, renumbered).collect::<Vec<_>>());
            }
        }
        d.gap(now + 1, EndReason::Shutdown, &mut out);
        lifecycle(&out.into_iter().scan(None, renumbered).collect::<Vec<_>>());
    }

    #[test]
    fn dropping_scores_adds_no_action_and_moves_an_edge_by_the_hole_at_most(
        kind in prop::sample::select(&KINDS),
        begin in 5i64..60, length in 10i64..45, kept in prop::collection::vec(prop::bool::weighted(0.5), 160),
    ) {
        let on = |k: i64| (begin..begin + length).contains(&k);
        let steps: Vec<i64> = (0..160).filter(|&k| kept[k as usize]).collect();
        let whole = run(&mut decoder(kind), (0..160).map(|k| (k, on(k), false)));
        let holed = run(&mut decoder(kind), steps.iter().map(|&k| (k, on(k), false)));
        let (whole, holed) = (endings(&whole, 0), endings(&holed, 0));
        prop_assert_eq!(whole.iter().filter(|e| e.2 == EndReason::Boundary).count(), 1);
        prop_assert!(holed.len() <= 1, "{:?}", holed);
        // An edge moves by what is missing about it and until it was seen, at most; and a stride. Before the first score
        // nothing is known.
        let allowed = |edge: Pts, found: Pts| {
            let (from, to) = (edge.min(found) - 6 * STRIDE, edge.max(found) + 8 * STRIDE);
            let near = |pair: &&[i64]| at(pair[1]) >= from && at(pair[0]) <= to;
            let missing = steps.windows(2).filter(near).map(|pair| (pair[1] - pair[0] - 1) * STRIDE).sum::<i64>();
            if steps.first().is_some_and(|&k| at(k + 2) <= edge) { missing + STRIDE } else { 160 * STRIDE }
        };
        for found in &holed {
            let (start, end) = (whole[0].0, whole[0].1);
            prop_assert!((found.0 - start).abs() <= allowed(start, found.0), "start {} for {start}", found.0);
            if found.2 == EndReason::Boundary {
                prop_assert!((found.1 - end).abs() <= allowed(end, found.1), "end {} for {end}", found.1);
            }
        }
    }

    #[test]
    fn background_with_noise_is_silent(kind in prop::sample::select(&KINDS),
        noise in prop::collection::vec([-0.9f32..0.9, -0.9f32..0.9, -0.9f32..0.9], 300)) {
        let mut d = decoder(kind);
        let mut out = Vec::new();
        for (k, n) in noise.iter().enumerate() {
            d.step(at(k as i64), &[2.0 + n[0], -1.0 + n[1], -1.0 + n[2]], &mut out);
        }
        prop_assert!(out.is_empty());
    }
}

/// Actions count on over gaps; the check wants them from 0.
fn renumbered(first: &mut Option<u64>, mut d: Decision) -> Option<Decision> {
    d.action -= *first.get_or_insert(d.action);
    Some(d)
}
