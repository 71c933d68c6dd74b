//! Figures computed by hand, and what must hold of any set.

use proptest::prelude::*;

use super::bootstrap;
use super::figures::{Values, of_set};
use super::outcomes::Judged;
use super::{Edge, Key, Quantile};
use crate::intervals::{Detection, TrueAction, TrueVideo, Truth};

fn truth(actions: &[(&str, &str, f64, f64)], videos: &[&str]) -> Truth {
    let action = |&(camera, label, start_s, end_s): &(&str, &str, f64, f64)| TrueAction {
        camera: camera.into(),
        label: label.into(),
        start_s,
        end_s,
    };
    let video = |camera: &&str| {
        let hour = TrueVideo { name: format!("{camera}.mp4"), duration_s: 3600.0, ..TrueVideo::default() };
        ((*camera).to_owned(), hour)
    };
    Truth { actions: actions.iter().map(action).collect(), videos: videos.iter().map(video).collect() }
}

/// Decided at `decided_s`, with half a second of stated uncertainty either side.
fn detection(camera: &str, span: (f64, f64), decided_s: (f64, f64), peak: f64) -> Detection {
    Detection {
        camera: camera.into(),
        label: "x".into(),
        start_s: span.0,
        end_s: Some(span.1),
        start_uncertainty_ms: 500.0,
        end_uncertainty_ms: Some(500.0),
        decided_s: decided_s.0,
        end_decided_s: Some(decided_s.1),
        peak,
        ..Detection::default()
    }
}

fn x() -> Vec<String> {
    vec!["x".into()]
}

fn value(values: &Values, key: Key) -> Option<f64> {
    values[Key::all().iter().position(|k| *k == key).unwrap()]
}

fn label_values(detections: &[Detection], truth: &Truth) -> Values {
    let judged = Judged::new(detections, truth, &x());
    of_set(&judged, &vec![1; judged.groups()]).0.remove(0)
}

#[test]
fn figures_are_those_computed_by_hand() {
    let truth = truth(&[("a", "x", 10.0, 20.0), ("a", "x", 30.0, 40.0), ("b", "x", 5.0, 15.0)], &["a", "b"]);
    let detections = [
        detection("a", (10.0, 20.0), (12.0, 21.0), 0.9),
        detection("a", (32.0, 40.0), (33.0, 42.0), 0.8),
        detection("b", (100.0, 101.0), (100.5, 102.0), 0.7),
        detection("b", (5.0, 9.0), (6.0, 10.0), 0.6),
    ];
    let values = label_values(&detections, &truth);
    // Found: the first (tIoU 1), the second (0.8) and the fourth (0.4); the third is false.
    let third = 1.0 / 3.0;
    let three_of_four = third + third + third * 0.75;
    let expected = [
        (Key::Recall, 1.0),
        (Key::FalsePerHour, 0.5),
        (Key::F1(0.3), 6.0 / 7.0),
        (Key::F1(0.5), 4.0 / 7.0),
        (Key::F1(0.7), 4.0 / 7.0),
        (Key::Ap(0.3), three_of_four),
        (Key::Ap(0.4), three_of_four),
        (Key::Ap(0.5), 2.0 * third),
        (Key::Ap(0.6), 2.0 * third),
        (Key::Ap(0.7), 2.0 * third),
        (Key::MeanAp, (2.0 * three_of_four + 2.0) / 5.0),
        (Key::StartAp(0.25), third + third * 0.5),
        (Key::StartAp(1.0), third + third * 0.5),
        (Key::StartAp(2.0), three_of_four),
        (Key::Error(Edge::Start, Quantile::Median), 0.0),
        (Key::Error(Edge::Start, Quantile::P90), 1.6),
        (Key::Error(Edge::End, Quantile::P90), 4.8),
        (Key::Delay(Edge::Start, Quantile::Median), 2.0),
        (Key::Delay(Edge::Start, Quantile::P90), 2.8),
        (Key::Delay(Edge::End, Quantile::Median), 1.0),
        (Key::Delay(Edge::End, Quantile::P90), 1.8),
        (Key::Covered(Edge::Start), 2.0 * third),
        (Key::Covered(Edge::End), 2.0 * third),
    ];
    for (key, expected) in expected {
        let found = value(&values, key);
        assert!(found.is_some_and(|v| (v - expected).abs() < 1e-9), "{}: {found:?}, not {expected}", key.name());
    }
}

#[test]
fn what_cannot_be_divided_is_not_defined() {
    let false_one = [detection("a", (1.0, 2.0), (1.5, 3.0), 0.9)];
    let nothing_true = label_values(&false_one, &truth(&[], &["a"]));
    assert_eq!(value(&nothing_true, Key::FalsePerHour), Some(1.0));
    assert_eq!(value(&nothing_true, Key::F1(0.5)), Some(0.0));
    for key in [Key::Recall, Key::Ap(0.5), Key::StartAp(1.0), Key::Error(Edge::End, Quantile::P90)] {
        assert_eq!(value(&nothing_true, key), None, "{}", key.name());
    }
    let nothing_found = label_values(&[], &truth(&[("a", "x", 1.0, 2.0)], &["a"]));
    assert_eq!((value(&nothing_found, Key::Recall), value(&nothing_found, Key::Ap(0.3))), (Some(0.0), Some(0.0)));
    let nothing = label_values(&[], &truth(&[], &["a"]));
    assert_eq!(value(&nothing, Key::F1(0.3)), None);
}

#[test]
fn over_labels_precision_is_averaged_and_the_rest_counted_together() {
    let truth = truth(&[("a", "x", 1.0, 2.0), ("a", "y", 5.0, 6.0), ("a", "y", 8.0, 9.0)], &["a"]);
    let detections = [detection("a", (1.0, 2.0), (1.5, 2.5), 0.9)];
    let labels = ["x", "y", "never"].map(str::to_owned);
    let judged = Judged::new(&detections, &truth, &labels);
    let (_, all) = of_set(&judged, &[1]);
    assert_eq!(value(&all, Key::Ap(0.5)), Some(0.5), "of two: nobody annotated the third");
    assert_eq!(value(&all, Key::F1(0.5)), Some(0.5));
    assert_eq!(value(&all, Key::Recall), Some(1.0 / 3.0));
}

#[test]
fn videos_of_a_group_are_drawn_together_and_few_groups_give_no_interval() {
    let cameras: Vec<String> = (0..8).map(|n| format!("v{n}")).collect();
    let names: Vec<&str> = cameras.iter().map(String::as_str).collect();
    let actions: Vec<_> = names.iter().map(|camera| (*camera, "x", 1.0, 2.0)).collect();
    let mut truth = truth(&actions, &names);
    let detections: Vec<Detection> =
        names.iter().take(6).map(|camera| detection(camera, (1.0, 2.0), (1.5, 2.5), 0.9)).collect();
    let figure = |truth: &Truth, key: Key| {
        let figures = bootstrap::figures(&Judged::new(&detections, truth, &x())).0.remove(0);
        figures[Key::all().iter().position(|k| *k == key).unwrap()]
    };
    let recall = |truth: &Truth| figure(truth, Key::Recall);
    let apart = recall(&truth);
    assert_eq!(apart, recall(&truth), "seeded");
    let (low, high) = apart.interval.unwrap();
    assert!(apart.value == Some(0.75) && (0.3..0.6).contains(&low) && high == 1.0, "{apart:?}");
    let few = Truth { actions: truth.actions[..4].to_vec(), ..truth.clone() };
    assert_eq!(recall(&few).interval, None, "only four groups have anything to find");
    assert!(figure(&few, Key::FalsePerHour).interval.is_some(), "all have hours without");
    for (n, video) in truth.videos.values_mut().enumerate() {
        video.group = Some(format!("g{}", n / 2));
    }
    assert_eq!(recall(&truth).interval, None, "four groups");
}

/// Up to six actions in each of five videos, none of which touch, and what is detected of them.
fn sets() -> impl Strategy<Value = (Truth, Vec<Detection>)> {
    let one = (0_usize..5, 0_u32..20, 0.2..9.0_f64, -2.0..2.0_f64, prop::bool::ANY);
    prop::collection::vec(one, 0..30).prop_map(|all| {
        let names = ["a", "b", "c", "d", "e"];
        let mut seen = std::collections::BTreeSet::new();
        let (mut actions, mut detections) = (Vec::new(), Vec::new());
        for (n, (video, slot, length_s, off_s, found)) in all.into_iter().enumerate() {
            if !seen.insert((video, slot)) {
                continue;
            }
            let start_s = f64::from(slot) * 20.0 + 5.0;
            actions.push((names[video], "x", start_s, start_s + length_s));
            if found {
                let (start_s, end_s) = (start_s + off_s, start_s + off_s + length_s);
                let peak = 0.9 - n as f64 * 0.01;
                detections.push(detection(names[video], (start_s, end_s), (start_s + 0.3, end_s + 0.4), peak));
            }
        }
        (truth(&actions, &names), detections)
    })
}

proptest! {
    #[test]
    fn a_perfect_detector_has_perfect_figures((truth, _) in sets()) {
        prop_assume!(!truth.actions.is_empty());
        let of = |(n, t): (usize, &TrueAction)| {
            detection(&t.camera, t.span(), (t.start_s + 0.3, t.end_s + 0.4), 0.9 - n as f64 * 0.01)
        };
        let detections: Vec<Detection> = truth.actions.iter().enumerate().map(of).collect();
        for (key, value) in Key::all().into_iter().zip(label_values(&detections, &truth)) {
            let expected = match key {
                Key::FalsePerHour | Key::Error(..) => 0.0,
                Key::Delay(Edge::Start, _) => 0.3,
                Key::Delay(Edge::End, _) => 0.4,
                _ => 1.0,
            };
            prop_assert!(value.is_some_and(|v| (v - expected).abs() < 1e-9), "{}: {value:?}", key.name());
        }
    }

    #[test]
    fn the_order_of_detections_does_not_matter((truth, detections) in sets(), seed in 0_u64..1000) {
        let mut shuffled = detections.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        prop_assert_eq!(label_values(&detections, &truth), label_values(&shuffled, &truth));
    }

    #[test]
    fn a_group_drawn_twice_is_a_set_with_it_twice((truth, detections) in sets(), weights in prop::array::uniform5(0_u32..3)) {
        let judged = Judged::new(&detections, &truth, &x());
        let weighed = of_set(&judged, &weights).0.remove(0);
        let (mut twice, mut found) = (Truth::default(), Vec::new());
        for (camera, &weight) in ["a", "b", "c", "d", "e"].iter().zip(&weights) {
            for copy in 0..weight {
                let name = format!("{camera}{copy}");
                twice.videos.insert(name.clone(), truth.videos[*camera].clone());
                let actions = truth.actions.iter().filter(|t| t.camera == *camera);
                twice.actions.extend(actions.map(|t| TrueAction { camera: name.clone(), ..t.clone() }));
                let of = detections.iter().filter(|d| d.camera == *camera);
                found.extend(of.map(|d| Detection { camera: name.clone(), ..d.clone() }));
            }
        }
        for ((key, a), b) in Key::all().into_iter().zip(weighed).zip(label_values(&found, &twice)) {
            let same = match (a, b) { (Some(a), Some(b)) => (a - b).abs() < 1e-9, (a, b) => a == b };
            prop_assert!(same, "{}: {a:?} {b:?}", key.name());
        }
    }
}
