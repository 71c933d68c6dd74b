//! Annotations in ActivityNet's layout, which THUMOS uses too.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{TrueVideo, Truth};

/// For messages.
pub(super) const LAYOUT: &str =
    r#"{"database": {VIDEO: {"duration": s, "annotations": [{"label": …, "segment": [s, s]}]}}}"#;

#[derive(Deserialize)]
struct File {
    database: BTreeMap<String, Video>,
}

#[derive(Deserialize)]
struct Video {
    #[serde(default)]
    duration: Option<Number>,
    subset: Option<String>,
    group: Option<String>,
    #[serde(default)]
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    label: String,
    segment: [Number; 2],
}

/// Some copies of THUMOS have their times in quotes.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "Written")]
struct Number(f64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Plain(f64),
    Quoted(String),
}

impl TryFrom<Written> for Number {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Plain(number) => Ok(Self(number)),
            Written::Quoted(text) => text.trim().parse().map(Self).map_err(|_| format!("{text:?} is not a number")),
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Truth, String> {
    let file: File = serde_json::from_str(text).map_err(|e| format!("not annotations: {e}; expected {LAYOUT}"))?;
    let mut truth = Truth::default();
    for (name, video) in file.database {
        let duration_s = video.duration.map_or(0.0, |d| d.0);
        let camera = truth.add_video(TrueVideo { name, duration_s, subset: video.subset, group: video.group })?;
        for Annotation { label, segment: [start, end] } in video.annotations {
            truth.add_action(&camera, label, (start.0, end.0))?;
        }
    }
    Ok(truth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activitynet_and_thumos_are_read() {
        let text = r#"{"version": "x", "taxonomy": [], "database": {
            "falls/A 1.mp4": {"duration": 9.5, "subset": "test", "group": "P4", "resolution": "1x1",
                              "annotations": [{"label": "fall", "segment": [1, 2.5]}]},
            "video_validation_0000690": {"duration": "24.67", "annotations":
                [{"label": "CricketBowling", "label_id": 4, "segment": ["0.2", "1.1"], "segment(frames)": [6.0, 33.0]}]}}}"#;
        let truth = parse(text).unwrap();
        let first = &truth.videos["a-1"];
        assert_eq!(
            (first.duration_s, first.subset.as_deref(), first.group.as_deref()),
            (9.5, Some("test"), Some("P4"))
        );
        assert_eq!((truth.actions[0].camera.as_str(), truth.actions[0].span()), ("a-1", (1.0, 2.5)));
        assert_eq!((truth.actions[1].label.as_str(), truth.actions[1].span()), ("CricketBowling", (0.2, 1.1)));
        assert_eq!(truth.videos["video_validation_0000690"].duration_s, 24.67);
    }

    #[test]
    fn what_cannot_be_judged_is_told() {
        let one = |segment: &str| {
            format!(r#"{{"database": {{"a.mp4": {{"annotations": [{{"label": "x", "segment": {segment}}}]}}}}}}"#)
        };
        assert!(parse(&one("[3, 2]")).unwrap_err().contains("a: x from 3 to 2 is no interval"));
        assert!(parse(&one("[\"now\", 2]")).unwrap_err().contains("\"now\" is not a number"));
        assert!(parse(&one("[1]")).unwrap_err().contains("not annotations"));
        let two = r#"{"database": {"x/a.mp4": {}, "y/A.avi": {}}}"#;
        assert!(parse(two).unwrap_err().contains("x/a.mp4 and y/A.avi would both be camera a"));
        assert_eq!(parse(r#"{"database": {}}"#).unwrap(), Truth::default());
    }
}
