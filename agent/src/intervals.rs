//! Detected and true action intervals, and which belongs to which.
//!
//! Reads what was published (events) and what was annotated (truth); never looks inside the agent. The matching is that of
//! interval detection benchmarks (ActivityNet): greedy, in order of falling peak confidence, same label, highest temporal
//! intersection over union first.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// Largest event or annotation file that is read, bytes.
const MAX_BYTES: u64 = 256 << 20;
/// Least temporal intersection over union at which a detection counts as a true interval's.
pub const MATCH_TIOU: f64 = 0.3;

/// A detected action. Times are seconds of media time since the first frame of its session.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Camera, in replay the video's file stem.
    pub camera: String,
    /// Stream session: times of different sessions cannot be compared.
    pub session: u64,
    /// Label.
    pub label: String,
    /// Begin.
    pub start_s: f64,
    /// End; `None` while it goes on.
    pub end_s: Option<f64>,
    /// When the begin was decided.
    pub decided_s: f64,
    /// When the end was decided.
    pub end_decided_s: Option<f64>,
    /// Highest confidence, 0 to 1.
    pub peak: f64,
    /// Why it ended.
    pub end_reason: Option<String>,
}

/// An annotated action.
#[derive(Clone, Debug, PartialEq)]
pub struct TrueAction {
    /// Camera, the file stem of the annotated video.
    pub camera: String,
    /// Label.
    pub label: String,
    /// Begin, seconds since the first frame.
    pub start_s: f64,
    /// End, seconds since the first frame.
    pub end_s: f64,
}

/// Annotations, with the videos that have none of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Truth {
    /// Every annotated action.
    pub actions: Vec<TrueAction>,
    /// Camera → duration in seconds, for every annotated video.
    pub videos: BTreeMap<String, f64>,
}

impl Truth {
    /// The part about the videos whose camera id is `wanted`.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> Self {
        Self {
            actions: self.actions.iter().filter(|a| wanted(&a.camera)).cloned().collect(),
            videos: self.videos.iter().filter(|(camera, _)| wanted(camera)).map(|(c, d)| (c.clone(), *d)).collect(),
        }
    }
}

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

#[derive(Deserialize)]
struct EventLine {
    data: EventData,
}

#[derive(Deserialize)]
struct EventData {
    action_id: String,
    #[serde(default)]
    rev: u64,
    status: String,
    label: String,
    start: Boundary,
    end: Option<Boundary>,
    end_reason: Option<String>,
    decided_at: Boundary,
    confidence: Confidence,
    camera: CameraRef,
}

#[derive(Deserialize)]
struct Boundary {
    pts_ns: i64,
}

#[derive(Deserialize)]
struct Confidence {
    peak: f64,
}

#[derive(Deserialize)]
struct CameraRef {
    id: String,
    #[serde(default)]
    stream_epoch: u64,
}

/// Gathers events, in any order and with repeats, into one detection per action.
#[derive(Debug, Default)]
pub struct Collector {
    actions: BTreeMap<String, (u64, Detection)>,
}

impl Collector {
    /// Takes one line: `topic<TAB>payload`, or the payload alone. Messages that are not actions are left out.
    ///
    /// # Errors
    /// When an action's payload lacks what every one has.
    pub fn line(&mut self, line: &str) -> Result<(), serde_json::Error> {
        let payload = line.rsplit_once('\t').map_or(line, |(_, payload)| payload).trim();
        if payload.is_empty() {
            return Ok(());
        }
        let value: serde_json::Value = serde_json::from_str(payload)?;
        if value.pointer("/data/action_id").is_none() {
            return Ok(());
        }
        let event: EventLine = serde_json::from_value(value)?;
        self.take(event.data);
        Ok(())
    }

    fn take(&mut self, data: EventData) {
        let seconds = |b: &Boundary| b.pts_ns as f64 / 1e9;
        let decided_s = seconds(&data.decided_at);
        let ended = data.status == "ended";
        let fresh = Detection {
            camera: data.camera.id,
            session: data.camera.stream_epoch,
            label: data.label,
            start_s: seconds(&data.start),
            end_s: data.end.as_ref().filter(|_| ended).map(seconds),
            decided_s,
            end_decided_s: ended.then_some(decided_s),
            peak: data.confidence.peak,
            end_reason: data.end_reason,
        };
        match self.actions.get_mut(&data.action_id) {
            Some((rev, old)) => {
                let first_decided = old.decided_s.min(fresh.decided_s);
                if data.rev >= *rev {
                    *rev = data.rev;
                    *old = fresh;
                }
                old.decided_s = first_decided;
            }
            None => {
                self.actions.insert(data.action_id, (data.rev, fresh));
            }
        }
    }

    /// The detections, by camera, session and begin.
    #[must_use]
    pub fn finish(self) -> Vec<Detection> {
        let mut all: Vec<Detection> = self.actions.into_values().map(|(_, d)| d).collect();
        all.sort_by(|a, b| (&a.camera, a.session).cmp(&(&b.camera, b.session)).then(a.start_s.total_cmp(&b.start_s)));
        all
    }
}

/// Reads a file of events.
///
/// # Errors
/// In words with file, line and what to do.
pub fn read_events(path: &Path) -> Result<Vec<Detection>, String> {
    let text = read_bounded(path)?;
    let mut collector = Collector::default();
    for (n, line) in text.lines().enumerate() {
        collector.line(line).map_err(|e| {
            format!(
                "{}:{}: not an event: {e}; the file should hold lines of topic<TAB>payload or of JSON",
                path.display(),
                n + 1
            )
        })?;
    }
    Ok(collector.finish())
}

#[derive(Deserialize)]
struct TruthFile {
    database: BTreeMap<String, TruthVideo>,
}

#[derive(Deserialize)]
struct TruthVideo {
    #[serde(default)]
    duration: f64,
    #[serde(default)]
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    label: String,
    segment: [f64; 2],
}

/// Reads annotations in ActivityNet's layout: `{"database": {VIDEO: {"duration": s, "annotations": [{"label", "segment"}]}}}`.
///
/// # Errors
/// In words with file and what to do.
pub fn read_truth(path: &Path) -> Result<Truth, String> {
    let text = read_bounded(path)?;
    let file: TruthFile = serde_json::from_str(&text).map_err(|e| {
        format!(
            "{}: not annotations: {e}; expected {{\"database\": {{VIDEO: {{\"duration\": s, \"annotations\": […]}}}}}}",
            path.display()
        )
    })?;
    let mut truth = Truth::default();
    for (video, entry) in file.database {
        let camera = slug(&video);
        for a in entry.annotations {
            let [start_s, end_s] = a.segment;
            truth.actions.push(TrueAction { camera: camera.clone(), label: a.label, start_s, end_s });
        }
        truth.videos.insert(camera, entry.duration);
    }
    Ok(truth)
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?.len();
    if size > MAX_BYTES {
        return Err(format!(
            "{} has {} MB, more than the {} MB that are read at once; split it",
            path.display(),
            size >> 20,
            MAX_BYTES >> 20
        ));
    }
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// The camera id of a video: its file stem, lower-case, with `-` for whatever is not `[a-z0-9_-]`.
#[must_use]
pub fn slug(video: &str) -> String {
    let stem = Path::new(video).file_stem().unwrap_or_default();
    kinewatch_core::name::slug(&stem.to_string_lossy())
}

/// Temporal intersection over union of two intervals.
#[must_use]
pub fn tiou(a: (f64, f64), b: (f64, f64)) -> f64 {
    let intersection = (a.1.min(b.1) - a.0.max(b.0)).max(0.0);
    let union = a.1.max(b.1) - a.0.min(b.0);
    if union > 0.0 { intersection / union } else { 0.0 }
}

/// Pairs detections with the truth. `labels`: those to judge, others of the truth are left out; `None` is every label.
#[must_use]
pub fn pair(detections: &[Detection], truth: &Truth, labels: Option<&[String]>) -> Vec<Pair> {
    let judged = |label: &str| labels.is_none_or(|l| l.iter().any(|x| x == label));
    let true_actions: Vec<&TrueAction> = truth.actions.iter().filter(|t| judged(&t.label)).collect();
    // A true interval may be found once in each session of its camera: a looped or reopened stream shows it again.
    let mut taken: Vec<Vec<u64>> = vec![Vec::new(); true_actions.len()];
    let mut order: Vec<&Detection> = detections.iter().collect();
    order.sort_by(|a, b| b.peak.total_cmp(&a.peak));
    let mut pairs = Vec::new();
    for d in order {
        if !truth.videos.contains_key(&d.camera) {
            pairs.push(Pair::Unjudged(d.clone()));
            continue;
        }
        let span = (d.start_s, d.end_s.unwrap_or(d.decided_s));
        let best = true_actions
            .iter()
            .enumerate()
            .filter(|(i, t)| t.camera == d.camera && t.label == d.label && !taken[*i].contains(&d.session))
            .map(|(i, t)| (i, tiou(span, (t.start_s, t.end_s))))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        match best {
            Some((i, overlap)) if overlap >= MATCH_TIOU => {
                taken[i].push(d.session);
                pairs.push(Pair::Found(d.clone(), true_actions[i].clone(), overlap));
            }
            _ => pairs.push(Pair::False(d.clone())),
        }
    }
    pairs
        .extend(true_actions.iter().zip(&taken).filter(|(_, t)| t.is_empty()).map(|(t, _)| Pair::Missed((*t).clone())));
    pairs.sort_by(|a, b| {
        let ((ca, sa, ta), (cb, sb, tb)) = (a.sort_key(), b.sort_key());
        (ca, sa).cmp(&(cb, sb)).then(ta.total_cmp(&tb))
    });
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn detection(camera: &str, start_s: f64, end_s: f64, peak: f64) -> Detection {
        Detection {
            camera: camera.into(),
            session: 0,
            label: "fall".into(),
            start_s,
            end_s: Some(end_s),
            decided_s: start_s + 0.4,
            end_decided_s: Some(end_s + 0.5),
            peak,
            end_reason: Some("boundary".into()),
        }
    }

    fn truth(camera: &str, spans: &[(f64, f64)]) -> Truth {
        let action = |&(start_s, end_s)| TrueAction { camera: camera.into(), label: "fall".into(), start_s, end_s };
        Truth { actions: spans.iter().map(action).collect(), videos: [(camera.to_owned(), 20.0)].into() }
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
    fn labels_nobody_publishes_are_not_missed_and_unknown_videos_are_not_judged() {
        let mut t = truth("a", &[(1.0, 2.0)]);
        t.actions[0].label = "lying".into();
        assert!(pair(&[], &t, Some(&["fall".into()])).is_empty());
        assert!(matches!(pair(&[detection("b", 0.0, 1.0, 0.5)], &t, None)[1], Pair::Unjudged(_)));
    }

    #[test]
    fn events_in_any_order_and_repeated_give_one_detection() {
        let line = |rev: u64, status: &str, decided: i64, end: &str| {
            format!(
                r#"kinewatch/v1/g/d/evt/a/fall	{{"data":{{"action_id":"x","rev":{rev},"status":"{status}","label":"fall","start":{{"pts_ns":1000000000}},"end":{end},"decided_at":{{"pts_ns":{decided}}},"confidence":{{"peak":0.9}},"camera":{{"id":"a","stream_epoch":3}}}}}}"#
            )
        };
        let started = line(0, "started", 1_400_000_000, "null");
        let ended = line(1, "ended", 2_600_000_000, r#"{"pts_ns":2000000000}"#);
        let mut collector = Collector::default();
        for l in [&ended, &started, &ended, &String::new(), &r#"status	{"state":"online"}"#.to_owned()] {
            collector.line(l).unwrap();
        }
        let all = collector.finish();
        assert_eq!(all.len(), 1);
        assert_eq!(
            (all[0].end_s, all[0].decided_s, all[0].end_decided_s, all[0].session),
            (Some(2.0), 1.4, Some(2.6), 3)
        );
    }

    #[test]
    fn stems_become_camera_ids() {
        assert_eq!(slug("falls/Fall 01-cam0.mp4"), "fall-01-cam0");
    }
}
