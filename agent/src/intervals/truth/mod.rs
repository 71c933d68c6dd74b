//! Annotations: what was really to be seen, and when. The format is told by the content.
//!
//! ActivityNet's JSON (THUMOS uses the same), a CSV table, or MS-TCN's folder of texts with a label for each frame.

mod frames;
mod json;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use super::{TrueAction, read_bounded, slug};

/// What is known of an annotated video.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrueVideo {
    /// As the annotations name it: a path or a bare name.
    pub name: String,
    /// Length in seconds; 0 when the annotations do not say.
    pub duration_s: f64,
    /// Part of the set, such as `test`.
    pub subset: Option<String>,
    /// What it shares with others (scene, person), so that they are no independent evidence.
    pub group: Option<String>,
}

/// Annotations, with the videos that have none of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Truth {
    /// Every annotated action; those of a video in the order of the file.
    pub actions: Vec<TrueAction>,
    /// By camera id, every annotated video.
    pub videos: BTreeMap<String, TrueVideo>,
}

/// Frames a second of annotations that count frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameRate(pub f64);

impl Truth {
    /// The part about the videos whose camera id is `wanted`.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> Self {
        Self {
            actions: self.actions.iter().filter(|a| wanted(&a.camera)).cloned().collect(),
            videos: self
                .videos
                .iter()
                .filter(|(camera, _)| wanted(camera))
                .map(|(c, v)| (c.clone(), v.clone()))
                .collect(),
        }
    }

    /// Adds a video, and gives its camera id. Two videos of one file stem cannot be told apart.
    fn add_video(&mut self, video: TrueVideo) -> Result<String, String> {
        let camera = slug(&video.name);
        if let Some(other) = self.videos.get(&camera) {
            return Err(format!("{} and {} would both be camera {camera}; rename one", other.name, video.name));
        }
        self.videos.insert(camera.clone(), video);
        Ok(camera)
    }

    fn add_action(&mut self, camera: &str, label: String, (start_s, end_s): (f64, f64)) -> Result<(), String> {
        if !(start_s.is_finite() && end_s.is_finite() && start_s <= end_s) {
            return Err(format!("{camera}: {label} from {start_s} to {end_s} is no interval; write begin, then end"));
        }
        self.actions.push(TrueAction { camera: camera.to_owned(), label, start_s, end_s });
        Ok(())
    }
}

/// Reads annotations. `rate`: for those that count frames.
///
/// # Errors
/// In words with file and what to do.
pub fn read_truth(path: &Path, rate: Option<FrameRate>) -> Result<Truth, String> {
    let told = |e: String| format!("{}: {e}", path.display());
    if path.is_dir() {
        return frames::read(path, rate);
    }
    let text = read_bounded(path)?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with(['{', '[']) {
        return json::parse(text).map_err(told);
    }
    if table::is_header(text.lines().next().unwrap_or_default()) {
        return table::parse(text).map_err(told);
    }
    Err(told(format!(
        "not annotations: expected {}, a CSV table with the header {}, or a folder of texts with a label per frame",
        json::LAYOUT,
        table::HEADER
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_refused_with_what_is_expected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        for (text, message) in [
            ("hello\n", "expected {\"database\""),
            ("", "a CSV table with the header video,label,start_s,end_s"),
            ("[1]", "not annotations"),
            ("{\"videos\": []}", "missing field `database`"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read_truth(&path, None).unwrap_err();
            assert!(error.contains(message) && error.lines().count() == 1, "{text}: {error}");
        }
        assert!(read_truth(&dir.path().join("none.json"), None).unwrap_err().contains("none.json"));
    }
}
