//! Annotations as MS-TCN has them: a folder with `NAME.txt` for each video, and in it a label on a line for each frame.

use std::path::{Path, PathBuf};

use super::{FrameRate, TrueVideo, Truth};
use crate::intervals::read_bounded;

/// What the sets of that form call "nothing": 50 Salads and GTEA, and Breakfast.
const NOTHING: [&str; 2] = ["background", "SIL"];

pub(super) fn read(folder: &Path, rate: Option<FrameRate>) -> Result<Truth, String> {
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", folder.display());
    let Some(FrameRate(fps)) = rate else {
        return Err(told(&"a folder of labels per frame; say with --truth-fps how many frames a second they are of"));
    };
    let mut texts: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| told(&e))? {
        let path = entry.map_err(|e| told(&e))?.path();
        if path.extension().is_some_and(|e| e == "txt") {
            texts.push(path);
        }
    }
    if texts.is_empty() {
        return Err(told(&"not annotations: no NAME.txt in this folder"));
    }
    texts.sort_unstable();
    let mut truth = Truth::default();
    for path in texts {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        add(&mut truth, name, &read_bounded(&path)?, fps).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(truth)
}

fn add(truth: &mut Truth, name: String, text: &str, fps: f64) -> Result<(), String> {
    let labels: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let seconds = |frames: usize| frames as f64 / fps;
    let video = TrueVideo { name, duration_s: seconds(labels.len()), ..TrueVideo::default() };
    let camera = truth.add_video(video)?;
    let mut begin = 0;
    for run in labels.chunk_by(|a, b| a == b) {
        let end = begin + run.len();
        if !NOTHING.contains(&run[0]) {
            truth.add_action(&camera, run[0].to_owned(), (seconds(begin), seconds(end)))?;
        }
        begin = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_frames_become_intervals() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Rgb-01-1.txt"), "background\ncut\ncut\npeel\nSIL\ncut\n").unwrap();
        std::fs::write(dir.path().join("readme.md"), "x").unwrap();
        let truth = read(dir.path(), Some(FrameRate(2.0))).unwrap();
        assert_eq!(truth.videos["rgb-01-1"].duration_s, 3.0);
        let told: Vec<_> = truth.actions.iter().map(|a| (a.label.as_str(), a.start_s, a.end_s)).collect();
        assert_eq!(told, [("cut", 0.5, 1.5), ("peel", 1.5, 2.0), ("cut", 2.5, 3.0)]);
        assert!(read(dir.path(), None).unwrap_err().contains("--truth-fps"));
        let empty = tempfile::tempdir().unwrap();
        assert!(read(empty.path(), Some(FrameRate(2.0))).unwrap_err().contains("no NAME.txt"));
    }
}
