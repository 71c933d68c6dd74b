//! Detected and true action intervals, and which belongs to which.
//!
//! Reads what was published (events) and what was annotated (truth); never looks inside the agent.

mod events;
mod matching;
mod truth;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use events::{Collector, read_events};
pub use matching::{MATCH_TIOU, Pair, assign, pair, tiou};
pub use truth::{FrameRate, TrueVideo, Truth, read_truth};

/// Largest event or annotation file that is read, bytes.
const MAX_BYTES: u64 = 256 << 20;

/// A detected action. Times are seconds of media time since the first frame of its session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detection {
    /// Camera, in replay the video's file stem.
    pub camera: String,
    /// Stream session: times of different sessions cannot be compared.
    pub session: u64,
    /// Label.
    pub label: String,
    /// Begin, as last told.
    pub start_s: f64,
    /// How near the true begin lies, milliseconds, as stated.
    pub start_uncertainty_ms: f64,
    /// End; `None` while it goes on.
    pub end_s: Option<f64>,
    /// How near the true end lies, milliseconds, as stated.
    pub end_uncertainty_ms: Option<f64>,
    /// When the begin was decided.
    pub decided_s: f64,
    /// When the end was decided.
    pub end_decided_s: Option<f64>,
    /// Highest confidence, 0 to 1.
    pub peak: f64,
    /// Why it ended.
    pub end_reason: Option<String>,
}

impl Detection {
    /// Begin and end; one that goes on is known up to where it was decided.
    #[must_use]
    pub fn span(&self) -> (f64, f64) {
        (self.start_s, self.end_s.unwrap_or(self.decided_s))
    }
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

impl TrueAction {
    /// Begin and end.
    #[must_use]
    pub fn span(&self) -> (f64, f64) {
        (self.start_s, self.end_s)
    }
}

/// The text of a file of a user's. Not by its stated size: pipes and devices state none.
pub(crate) fn read_bounded(path: &Path) -> Result<String, String> {
    let told = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(told)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!(
            "{} has more than the {} MB that are read at once; split it",
            path.display(),
            MAX_BYTES >> 20
        ));
    }
    String::from_utf8(bytes)
        .map_err(|e| format!("{}: not UTF-8 text after byte {}", path.display(), e.utf8_error().valid_up_to()))
}

/// The camera id of a video: its file stem, lower-case, with `-` for whatever is not `[a-z0-9_-]`.
#[must_use]
pub fn slug(video: &str) -> String {
    let stem = Path::new(video).file_stem().unwrap_or_default();
    kinewatch_core::name::slug(&stem.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_become_camera_ids() {
        assert_eq!(slug("falls/Fall 01-cam0.mp4"), "fall-01-cam0");
    }
}
