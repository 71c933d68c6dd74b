//! Panels of the timeline from detections, truth and scores: what `replay` and `events table` have in common.

use std::collections::BTreeMap;

use crate::intervals::{Detection, Pair, TrueAction, Truth};
use crate::timeline::{Bar, Curve, Panel};

/// What is known of one video beside its detections.
#[derive(Clone, Debug, Default)]
pub struct Video {
    /// Camera.
    pub camera: String,
    /// Length in seconds; 0 when unknown.
    pub duration_s: f64,
    /// Score curves.
    pub curves: Vec<Curve>,
}

/// A panel per video, in the order given; cameras that only occur in detections or truth come after them.
/// `labels`: those of the truth to show; all when `None`.
#[must_use]
pub fn panels(
    videos: Vec<Video>,
    detections: &[Detection],
    truth: Option<&Truth>,
    labels: Option<&[String]>,
    pairs: &[Pair],
) -> Vec<Panel> {
    let mut videos = videos;
    let others = detections
        .iter()
        .map(|d| &d.camera)
        .chain(truth.iter().filter(|_| videos.is_empty()).flat_map(|t| t.videos.keys()));
    let mut unseen: Vec<String> = others.filter(|c| !videos.iter().any(|v| v.camera == **c)).cloned().collect();
    unseen.sort_unstable();
    unseen.dedup();
    videos.extend(unseen.into_iter().map(|camera| Video { camera, ..Video::default() }));
    videos.into_iter().map(|v| panel(v, detections, truth, labels, pairs)).collect()
}

fn panel(
    video: Video,
    detections: &[Detection],
    truth: Option<&Truth>,
    labels: Option<&[String]>,
    pairs: &[Pair],
) -> Panel {
    let detected: Vec<Bar> = detections.iter().filter(|d| d.camera == video.camera).map(detected_bar).collect();
    let known = truth.filter(|t| t.videos.contains_key(&video.camera));
    let shown = |t: &&TrueAction| t.camera == video.camera && labels.is_none_or(|l| l.contains(&t.label));
    let truth_bars: Option<Vec<Bar>> = known.map(|t| t.actions.iter().filter(shown).map(true_bar).collect());
    let annotated = known.and_then(|t| t.videos.get(&video.camera)).map_or(0.0, |v| v.duration_s);
    let last = detected
        .iter()
        .chain(truth_bars.iter().flatten())
        .map(|b| b.end_decided_s.unwrap_or(b.end_s).max(b.end_s))
        .fold(0.0, f64::max);
    let scored = video.curves.iter().filter_map(|c| c.points.last()).map(|p| p.0).fold(0.0, f64::max);
    let duration_s = if video.duration_s > 0.0 { video.duration_s } else { annotated.max(last).max(scored) };
    Panel {
        note: note(&video.camera, pairs, known.is_some()),
        title: video.camera,
        duration_s,
        curves: video.curves,
        detected,
        truth: truth_bars,
    }
}

fn detected_bar(d: &Detection) -> Bar {
    let end_s = d.end_s.unwrap_or(d.decided_s.max(d.start_s));
    Bar {
        label: d.label.clone(),
        start_s: d.start_s,
        end_s,
        decided_s: Some(d.decided_s),
        end_decided_s: d.end_decided_s,
    }
}

fn true_bar(t: &TrueAction) -> Bar {
    Bar { label: t.label.clone(), start_s: t.start_s, end_s: t.end_s, decided_s: None, end_decided_s: None }
}

fn note(camera: &str, pairs: &[Pair], judged: bool) -> String {
    if !judged {
        return String::new();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for pair in pairs.iter().filter(|p| p.sort_key().0 == camera) {
        let word = match pair {
            Pair::Found(..) => "found",
            Pair::Missed(_) => "missed",
            Pair::False(_) => "false",
            Pair::Unjudged(_) => continue,
        };
        *counts.entry(word).or_default() += 1;
    }
    if counts.is_empty() {
        return "nothing happens, nothing detected".into();
    }
    ["found", "missed", "false"]
        .iter()
        .filter_map(|w| counts.get(w).map(|n| format!("{n} {w}")))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intervals::TrueVideo;

    #[test]
    fn a_video_without_anything_still_has_its_panel() {
        let known = TrueVideo { duration_s: 12.0, ..TrueVideo::default() };
        let truth = Truth { actions: vec![], videos: [("street".to_owned(), known)].into() };
        let videos = vec![Video { camera: "street".into(), ..Video::default() }];
        let panels = panels(videos, &[], Some(&truth), None, &[]);
        assert_eq!(panels.len(), 1);
        assert_eq!((panels[0].duration_s, panels[0].truth.as_deref()), (12.0, Some(&[][..])));
        assert!(panels[0].note.contains("nothing detected"));
    }
}
