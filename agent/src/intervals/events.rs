//! Published events back into detected actions.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::{Detection, read_bounded};

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
    #[serde(default)]
    uncertainty_ms: f64,
}

impl Boundary {
    fn seconds(&self) -> f64 {
        self.pts_ns as f64 / 1e9
    }
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
        let decided_s = data.decided_at.seconds();
        let ended = data.status == "ended";
        let end = data.end.as_ref().filter(|_| ended);
        let fresh = Detection {
            camera: data.camera.id,
            session: data.camera.stream_epoch,
            label: data.label,
            start_s: data.start.seconds(),
            start_uncertainty_ms: data.start.uncertainty_ms,
            end_s: end.map(Boundary::seconds),
            end_uncertainty_ms: end.map(|b| b.uncertainty_ms),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_in_any_order_and_repeated_give_one_detection() {
        let line = |rev: u64, status: &str, decided: i64, end: &str| {
            format!(
                r#"kinewatch/v1/g/d/evt/a/fall	{{"data":{{"action_id":"x","rev":{rev},"status":"{status}","label":"fall","start":{{"pts_ns":1000000000,"uncertainty_ms":200}},"end":{end},"decided_at":{{"pts_ns":{decided}}},"confidence":{{"peak":0.9}},"camera":{{"id":"a","stream_epoch":3}}}}}}"#
            )
        };
        let started = line(0, "started", 1_400_000_000, "null");
        let ended = line(1, "ended", 2_600_000_000, r#"{"pts_ns":2000000000,"uncertainty_ms":300.5}"#);
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
        assert_eq!((all[0].start_uncertainty_ms, all[0].end_uncertainty_ms), (200.0, Some(300.5)));
    }
}
