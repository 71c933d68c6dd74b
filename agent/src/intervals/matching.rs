//! Which detection belongs to which true interval.
//!
//! As interval detection benchmarks do it (ActivityNet): greedy, in order of falling peak confidence, same camera and label,
//! the free true interval of highest temporal intersection over union.

use super::{Detection, TrueAction, Truth};

/// Least temporal intersection over union at which a detection counts as a true interval's.
pub const MATCH_TIOU: f64 = 0.3;

/// A detection with its true interval, or either of them alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Pair {
    /// Found: the detection, the truth, and their temporal intersection over union.
    Found(Detection, TrueAction, f64),
    /// Detected where nothing is annotated.
    False(Detection),
    /// Annotated, not detected.
    Missed(TrueAction),
    /// Detected in a video that has no annotations.
    Unjudged(Detection),
}

impl Pair {
    /// Camera, and the time it is sorted under.
    pub fn sort_key(&self) -> (&str, u64, f64) {
        match self {
            Self::Found(d, ..) | Self::False(d) | Self::Unjudged(d) => (&d.camera, d.session, d.start_s),
            Self::Missed(t) => (&t.camera, 0, t.start_s),
        }
    }
}

/// Temporal intersection over union of two intervals.
#[must_use]
pub fn tiou(a: (f64, f64), b: (f64, f64)) -> f64 {
    let intersection = (a.1.min(b.1) - a.0.max(b.0)).max(0.0);
    let union = a.1.max(b.1) - a.0.min(b.0);
    if union > 0.0 { intersection / union } else { 0.0 }
}

/// Gives each detection the true action that suits it best and is still free, in order of falling confidence.
///
/// `fit`: how well the two suit each other, `None` where they do not; the first of equals is taken. Gives, for each
/// detection, the index of its true action and the fit. A true action may be found once in each session of its camera: a
/// looped or reopened stream shows it again.
#[must_use]
pub fn assign(
    detections: &[&Detection],
    truth: &[&TrueAction],
    fit: impl Fn(&Detection, &TrueAction) -> Option<f64>,
) -> Vec<Option<(usize, f64)>> {
    let mut taken: Vec<Vec<u64>> = vec![Vec::new(); truth.len()];
    let mut order: Vec<usize> = (0..detections.len()).collect();
    order.sort_by(|&a, &b| detections[b].peak.total_cmp(&detections[a].peak));
    let mut found = vec![None; detections.len()];
    for n in order {
        let d = detections[n];
        let mut best: Option<(usize, f64)> = None;
        for (i, t) in truth.iter().enumerate() {
            if t.camera != d.camera || t.label != d.label || taken[i].contains(&d.session) {
                continue;
            }
            if let Some(fits) = fit(d, t)
                && best.is_none_or(|(_, most)| fits > most)
            {
                best = Some((i, fits));
            }
        }
        if let Some((i, _)) = best {
            taken[i].push(d.session);
        }
        found[n] = best;
    }
    found
}

/// Pairs detections with the truth. `labels`: those to judge, others of the truth are left out; `None` is every label.
#[must_use]
pub fn pair(detections: &[Detection], truth: &Truth, labels: Option<&[String]>) -> Vec<Pair> {
    let wanted = |label: &str| labels.is_none_or(|l| l.iter().any(|x| x == label));
    let true_actions: Vec<&TrueAction> = truth.actions.iter().filter(|t| wanted(&t.label)).collect();
    let (judged, unjudged): (Vec<&Detection>, Vec<&Detection>) =
        detections.iter().partition(|d| truth.videos.contains_key(&d.camera));
    let found = assign(&judged, &true_actions, |d, t| {
        let overlap = tiou(d.span(), t.span());
        (overlap >= MATCH_TIOU).then_some(overlap)
    });
    let mut pairs: Vec<Pair> = unjudged.into_iter().map(|d| Pair::Unjudged(d.clone())).collect();
    pairs.extend(judged.iter().zip(&found).map(|(d, found)| match found {
        Some((i, overlap)) => Pair::Found((*d).clone(), true_actions[*i].clone(), *overlap),
        None => Pair::False((*d).clone()),
    }));
    let missed = |(i, _): &(usize, &&TrueAction)| !found.iter().flatten().any(|(j, _)| j == i);
    pairs.extend(true_actions.iter().enumerate().filter(missed).map(|(_, t)| Pair::Missed((*t).clone())));
    pairs.sort_by(|a, b| {
        let ((ca, sa, ta), (cb, sb, tb)) = (a.sort_key(), b.sort_key());
        (ca, sa).cmp(&(cb, sb)).then(ta.total_cmp(&tb))
    });
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intervals::TrueVideo;

    fn detection(camera: &str, start_s: f64, end_s: f64, peak: f64) -> Detection {
        Detection {
            camera: camera.into(),
            label: "fall".into(),
            start_s,
            end_s: Some(end_s),
            decided_s: start_s + 0.4,
            end_decided_s: Some(end_s + 0.5),
            peak,
            end_reason: Some("boundary".into()),
            ..Detection::default()
        }
    }

    fn truth(camera: &str, spans: &[(f64, f64)]) -> Truth {
        let action = |&(start_s, end_s)| TrueAction { camera: camera.into(), label: "fall".into(), start_s, end_s };
        let video = TrueVideo { duration_s: 20.0, ..TrueVideo::default() };
        Truth { actions: spans.iter().map(action).collect(), videos: [(camera.to_owned(), video)].into() }
    }

    #[test]
    fn the_stronger_detection_takes_the_interval_and_the_other_is_false() {
        let detections = [detection("a", 1.0, 2.0, 0.6), detection("a", 1.1, 2.1, 0.9)];
        let pairs = pair(&detections, &truth("a", &[(1.0, 2.0), (8.0, 9.0)]), None);
        assert!(matches!(&pairs[0], Pair::False(d) if d.peak == 0.6));
        assert!(matches!(&pairs[1], Pair::Found(d, t, o) if d.peak == 0.9 && t.start_s == 1.0 && *o > 0.8));
        assert!(matches!(&pairs[2], Pair::Missed(t) if t.start_s == 8.0));
    }

    #[test]
    fn a_second_detection_takes_the_next_best_interval_and_equals_go_in_order() {
        let all = truth("a", &[(0.0, 4.0), (1.0, 5.0), (1.0, 5.0)]);
        let actions: Vec<_> = all.actions.iter().collect();
        let detections = [detection("a", 1.0, 5.0, 0.5), detection("a", 1.0, 5.0, 0.5), detection("a", 1.0, 5.0, 0.4)];
        let found = assign(&detections.iter().collect::<Vec<_>>(), &actions, |d, t| Some(tiou(d.span(), t.span())));
        assert_eq!(found, [Some((1, 1.0)), Some((2, 1.0)), Some((0, 0.6))]);
    }

    #[test]
    fn labels_nobody_publishes_are_not_missed_and_unknown_videos_are_not_judged() {
        let mut t = truth("a", &[(1.0, 2.0)]);
        t.actions[0].label = "lying".into();
        assert!(pair(&[], &t, Some(&["fall".into()])).is_empty());
        assert!(matches!(pair(&[detection("b", 0.0, 1.0, 0.5)], &t, None)[1], Pair::Unjudged(_)));
    }
}
