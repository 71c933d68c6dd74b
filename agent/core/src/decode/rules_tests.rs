//! What else a package or a configuration may ask for: a cooldown, thresholds by the time of day, exclusive groups.

use proptest::prelude::*;

use super::*;
use crate::manifest::{Decoding, Manifest, Overrides, TimeOfDay};
use crate::time::Pts;

const STRIDE: i64 = 200_000_000;

fn at(step: usize) -> Pts {
    Pts(step as i64 * STRIDE)
}

/// Two labels with the same settings, and what is added.
fn decoding(settings: &str, rest: &str) -> Decoding {
    let label = |name: &str| {
        format!("[[labels]]\nname = \"{name}\"\n[labels.decoder]\nkind = \"cusum\"\non = 0.5\noff = 0.5\n{settings}\n")
    };
    let head = "format = 1\nname = \"two\"\nversion = \"1.0.0\"\nstride_s = 0.2\n";
    Decoding::parse(&format!("{head}{}{}{rest}", label("sit"), label("stand"))).unwrap()
}

/// Feeds log-odds of the two labels; gives (label, start, end) of each action, in steps.
fn actions(decoding: &Decoding, scores: impl IntoIterator<Item = (f32, f32)>) -> Vec<(u16, i64, i64)> {
    let (mut decoder, mut out, mut last) = (Decoder::of_scores(decoding), Vec::new(), 0);
    for (k, (a, b)) in scores.into_iter().enumerate() {
        decoder.step_scores(at(k), &[a, b], &mut out);
        last = k;
    }
    decoder.gap(at(last), EndReason::Shutdown, &mut out);
    let ended = |d: &Decision| match d.status {
        Status::Ended { end, .. } => Some((d.label, d.start.0 / STRIDE, end.0 / STRIDE)),
        _ => None,
    };
    out.iter().filter_map(ended).collect()
}

#[test]
fn what_begins_within_the_cooldown_is_not_told() {
    let twice = |pause: usize| {
        (0..120).map(
            move |k| if (10..20).contains(&k) || (20 + pause..60).contains(&k) { (3.0, -3.0) } else { (-3.0, -3.0) },
        )
    };
    assert_eq!(actions(&decoding("", ""), twice(10)).len(), 2);
    assert_eq!(actions(&decoding("cooldown_s = 4.0", ""), twice(10)), [(0, 10, 20)]);
    assert_eq!(actions(&decoding("cooldown_s = 4.0", ""), twice(25)).len(), 2, "five seconds later");
}

#[test]
fn a_label_cools_on_where_only_its_model_was_interrupted() {
    let begins = |second: usize| {
        let (mut decoder, mut out) = (Decoder::of_scores(&decoding("cooldown_s = 4.0", "")), Vec::new());
        for k in 100..100 + second + 30 {
            if k == 120 {
                decoder.interrupt(at(k), EndReason::StreamLost, &mut out);
            }
            let shown = (110..120).contains(&k) || k >= 100 + second;
            decoder.step_scores(at(k), &[if shown { 3.0 } else { -3.0 }, -3.0], &mut out);
        }
        out.iter().filter(|d| d.status == Status::Started).map(|d| d.start.0 / STRIDE).collect::<Vec<_>>()
    };
    assert_eq!(begins(30), [110], "two seconds after");
    assert_eq!(begins(45), [110, 145]);
}

#[test]
fn thresholds_follow_the_time_of_day() {
    let manifest = Manifest::parse(include_str!("../../testdata/model.toml")).unwrap();
    let night: Overrides =
        toml::from_str("[[lying.schedule]]\nfrom = \"22:00\"\nto = \"06:00\"\non = 0.99\noff = 0.5\nh_on = 5.0")
            .unwrap();
    let told = |time: Option<&str>| {
        let mut decoder = Decoder::new(&manifest, &night).unwrap();
        assert!(decoder.is_scheduled());
        decoder.at_time(time.map(|text| text.parse::<TimeOfDay>().unwrap()));
        let mut out = Vec::new();
        (0..20).for_each(|k| decoder.step(at(k), &[-2.0, -4.0, 0.0], &mut out));
        out.len()
    };
    assert_eq!((told(Some("23:30")), told(Some("12:00")), told(None)), (0, 1, 1));
    assert!(!Decoder::new(&manifest, &Overrides::default()).unwrap().is_scheduled());
    let wrong: Overrides = toml::from_str("[[lying.schedule]]\nfrom = \"22:00\"\nto = \"06:00\"\noff = 0.9").unwrap();
    let error = wrong.check(&manifest).unwrap_err().to_string();
    assert!(error.contains("decoder.lying.schedule[0].off"), "{error}");
}

#[test]
fn a_rival_takes_over_only_by_the_margin() {
    // First one is likely, then both are, the other a little more.
    let scores = |lead: f32| (0..90).map(move |k| if k < 30 { (3.0, -3.0) } else { (3.0, 3.0 + lead) });
    let free = decoding("", "");
    assert_eq!(actions(&free, scores(1.0)), [(0, 0, 89), (1, 30, 89)]);
    let group =
        |margin: f32| decoding("", &format!("[[exclusive]]\nlabels = [\"sit\", \"stand\"]\nmargin = {margin:.1}\n"));
    assert_eq!(actions(&group(0.5), scores(1.0)), [(0, 0, 30), (1, 30, 89)]);
    assert_eq!(actions(&group(2.0), scores(1.0)), [(0, 0, 89)]);
}

#[test]
fn a_low_threshold_does_not_let_a_weaker_rival_in() {
    let low = |kind: &str, margin: f64| {
        let label = |name: &str| {
            format!(
                "[[labels]]\nname = \"{name}\"\n[labels.decoder]\nkind = \"{kind}\"\non = 0.3\noff = 0.3\nh_on = 0.4\nh_off = 0.4\n"
            )
        };
        let head = "format = 1\nname = \"two\"\nversion = \"1.0.0\"\nstride_s = 0.2\n";
        let group = format!("[[exclusive]]\nlabels = [\"sit\", \"stand\"]\nmargin = {margin:.1}\n");
        Decoding::parse(&format!("{head}{}{}{group}", label("sit"), label("stand"))).unwrap()
    };
    for kind in ["cusum", "hysteresis"] {
        let found = actions(&low(kind, 0.5), (0..100).map(|_| (0.3, 0.0)));
        assert_eq!(found, [(0, found[0].1, 99)], "{kind}: the likelier goes on alone");
    }
}

#[test]
fn what_was_cut_is_not_begun_again_by_a_noisy_score() {
    // Three seconds are the most; a single low score in a mean of two seconds is no end.
    let text = "format = 1\nname = \"one\"\nversion = \"1.0.0\"\nstride_s = 0.2\n[[labels]]\nname = \"sit\"\n[labels.decoder]\n\
                kind = \"hysteresis\"\non = 0.5\noff = 0.4\nsmooth_s = 2.0\nmax_duration_s = 3.0\n";
    let mut decoder = Decoder::of_scores(&Decoding::parse(text).unwrap());
    let mut out = Vec::new();
    for k in 0..100 {
        decoder.step_scores(at(k), &[if k % 7 == 3 { -1.0 } else { 2.0 }], &mut out);
    }
    let ended = out.iter().filter(|d| matches!(d.status, Status::Ended { reason: EndReason::MaxDuration, .. })).count();
    assert_eq!((ended, out.iter().filter(|d| d.status == Status::Started).count()), (1, 1));
}

#[test]
fn an_action_says_how_sure_it_is_of_itself_alone() {
    // Ten sure scores, one low, then hardly sure ones: the second action has none of the first.
    let text = "format = 1\nname = \"one\"\nversion = \"1.0.0\"\nstride_s = 0.2\n[[labels]]\nname = \"sit\"\n[labels.decoder]\n\
                kind = \"hysteresis\"\non = 0.5\noff = 0.5\n";
    let mut decoder = Decoder::of_scores(&Decoding::parse(text).unwrap());
    let mut out = Vec::new();
    for (k, l) in [6.0; 10].into_iter().chain([-3.0]).chain([0.5; 4]).enumerate() {
        decoder.step_scores(at(k), &[l], &mut out);
    }
    let second = out.iter().rfind(|d| d.status == Status::Started).unwrap();
    assert!(second.action == 1 && second.confidence.peak < 0.7 && second.windows == 1, "{second:?}");
}

fn example() -> Manifest {
    Manifest::parse(&include_str!("../../testdata/model.toml").replace("publish = false\n", "")).unwrap()
}

/// Logits of the example: `falling` is likely, or nothing is.
fn row(falling: bool) -> [f32; 3] {
    if falling { [-2.0, 2.0, -4.0] } else { [3.0, -2.0, -2.0] }
}

#[test]
fn an_action_that_goes_on_stays_open_under_other_thresholds() {
    let manifest = example();
    let mut decoder = Decoder::new(&manifest, &Overrides::default()).unwrap();
    let mut out = Vec::new();
    (0..20).for_each(|k| decoder.step(at(k), &row((5..20).contains(&k)), &mut out));
    assert_eq!(out.iter().map(|d| d.status).collect::<Vec<_>>(), [Status::Started]);
    let wrong: Overrides = toml::from_str("falling.on = 0.1\nfalling.off = 0.9").unwrap();
    assert!(decoder.revise(&manifest, &wrong).is_err());
    // What is quiet now is still the action.
    let patient: Overrides = toml::from_str("falling.off = 0.000001\nfalling.h_off = 900.0\nlying.on = 0.9").unwrap();
    decoder.revise(&manifest, &patient).unwrap();
    (20..40).for_each(|k| decoder.step(at(k), &row(false), &mut out));
    assert!(out.iter().all(|d| !matches!(d.status, Status::Ended { .. })), "{out:?}");
    decoder.revise(&manifest, &Overrides::default()).unwrap();
    (40..60).for_each(|k| decoder.step(at(k), &row(false), &mut out));
    let ended = out.last().unwrap();
    assert!(matches!(ended.status, Status::Ended { reason: EndReason::Boundary, .. }), "{ended:?}");
    assert_eq!((ended.action, ended.start), (0, out[0].start), "one action, as it was told");
    // A shorter longest duration holds for what goes on, too.
    (60..80).for_each(|k| decoder.step(at(k), &row(true), &mut out));
    decoder.revise(&manifest, &toml::from_str("falling.max_duration_s = 1.0").unwrap()).unwrap();
    (80..82).for_each(|k| decoder.step(at(k), &row(true), &mut out));
    assert!(matches!(out.last().unwrap().status, Status::Ended { reason: EndReason::MaxDuration, .. }));
}

#[test]
fn a_schedule_comes_and_goes_with_a_revision() {
    let manifest = example();
    let night: Overrides =
        toml::from_str("[[lying.schedule]]\nfrom = \"22:00\"\nto = \"06:00\"\non = 0.99\noff = 0.5\nh_on = 5.0")
            .unwrap();
    let mut decoder = Decoder::new(&manifest, &night).unwrap();
    decoder.at_time("23:30".parse().ok());
    let lying = |decoder: &mut Decoder, from: usize| {
        let mut out = Vec::new();
        (from..from + 20).for_each(|k| decoder.step(at(k), &[-2.0, -4.0, 0.0], &mut out));
        out.len()
    };
    assert_eq!(lying(&mut decoder, 0), 0, "at night");
    decoder.revise(&manifest, &night).unwrap();
    assert_eq!(lying(&mut decoder, 20), 0, "it is still night");
    decoder.revise(&manifest, &Overrides::default()).unwrap();
    assert!(!decoder.is_scheduled());
    assert_eq!(lying(&mut decoder, 40), 1, "there is no night any more");
}

#[test]
fn groups_are_checked() {
    let error = |rest: &str| {
        let text = format!(
            "format = 1\nname = \"two\"\nversion = \"1.0.0\"\nstride_s = 0.2\n[[labels]]\nname = \"sit\"\n\
             [labels.decoder]\nkind = \"cusum\"\non = 0.5\noff = 0.5\n{rest}"
        );
        Decoding::parse(&text).unwrap_err().to_string()
    };
    assert!(error("[[exclusive]]\nlabels = [\"sit\"]").contains("exclusive[0].labels: must name at least 2"));
    assert!(error("[[exclusive]]\nlabels = [\"sit\", \"sits\"]").contains("did you mean `sit`?"));
    assert!(error("[[exclusive]]\nlabels = [\"sit\", \"sit\"]").contains("there twice"));
    assert!(
        error("[[exclusive]]\nlabels = [\"sit\", \"sit\"]\nmargin = -1.0").contains("margin: -1 is outside 0 to 20")
    );
}

proptest! {
    #[test]
    fn actions_of_a_group_never_overlap(
        settings in prop::sample::select(&["", "merge_gap_s = 1.0", "min_duration_s = 0.5\nlag_start_s = 0.3\nlag_end_s = 0.1"]),
        margin in 0f32..3.0,
        scores in prop::collection::vec((-6f32..6.0, -6f32..6.0), 1..300),
    ) {
        let group = decoding(settings, &format!("[[exclusive]]\nlabels = [\"sit\", \"stand\"]\nmargin = {margin:.1}\n"));
        let mut found = actions(&group, scores);
        found.sort_by_key(|&(_, start, end)| (start, end));
        for pair in found.windows(2) {
            prop_assert!(pair[0].2 <= pair[1].1, "{:?} overlaps {:?}", pair[0], pair[1]);
        }
    }

    /// To say the same again changes nothing, and what is revised before the first score is as if it had been so ever since.
    #[test]
    fn a_revision_that_changes_nothing_is_not_noticed(
        smooth in prop::sample::select(&["", "falling.smooth_s = 1.0\nlying.smooth_s = 0.4"]),
        kind in prop::sample::select(&["cusum", "hysteresis"]),
        likely in prop::collection::vec(-4f32..4.0, 1..200),
        at_steps in prop::collection::vec(0usize..200, 0..6),
    ) {
        let text = include_str!("../../testdata/model.toml").replace("\"cusum\"", &format!("\"{kind}\""));
        let manifest = Manifest::parse(&text).unwrap();
        let overrides: Overrides = toml::from_str(smooth).unwrap();
        let mut plain = Decoder::new(&manifest, &overrides).unwrap();
        let mut revised = Decoder::new(&manifest, &Overrides::default()).unwrap();
        revised.revise(&manifest, &overrides).unwrap();
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        for (k, l) in likely.into_iter().enumerate() {
            if at_steps.contains(&k) {
                revised.revise(&manifest, &overrides).unwrap();
            }
            plain.step(at(k), &[0.0, l, -l], &mut expected);
            revised.step(at(k), &[0.0, l, -l], &mut found);
        }
        prop_assert_eq!(expected, found);
    }
}
