//! Annotations in a CSV table: a row per action. A row without label names a video in which nothing happens.

use serde::Deserialize;

use super::{TrueVideo, Truth};
use crate::intervals::slug;

/// For messages.
pub(super) const HEADER: &str = "video,label,start_s,end_s[,subset,group,duration_s]";

#[derive(Deserialize)]
struct Row {
    video: String,
    label: Option<String>,
    start_s: Option<f64>,
    end_s: Option<f64>,
    subset: Option<String>,
    group: Option<String>,
    duration_s: Option<f64>,
}

/// Whether a table of annotations begins with this line.
pub(super) fn is_header(line: &str) -> bool {
    let named = |column: &str| line.split(',').any(|c| c.trim().trim_matches('"') == column);
    ["video", "label", "start_s", "end_s"].into_iter().all(named)
}

pub(super) fn parse(text: &str) -> Result<Truth, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let mut truth = Truth::default();
    for (n, row) in reader.deserialize::<Row>().enumerate() {
        // The CSV reader says the line itself.
        let row = row.map_err(|e| e.to_string())?;
        add(&mut truth, row).map_err(|e| format!("row {}: {e}", n + 1))?;
    }
    Ok(truth)
}

fn add(truth: &mut Truth, row: Row) -> Result<(), String> {
    let camera = slug(&row.video);
    if truth.videos.get(&camera).is_none_or(|known| known.name != row.video) {
        truth.add_video(TrueVideo { name: row.video, ..TrueVideo::default() })?;
    }
    if let Some(video) = truth.videos.get_mut(&camera) {
        video.subset = video.subset.take().or(row.subset);
        video.group = video.group.take().or(row.group);
        video.duration_s = video.duration_s.max(row.duration_s.unwrap_or(0.0));
    }
    match (row.label, row.start_s, row.end_s) {
        (None, None, None) => Ok(()),
        (Some(label), Some(start_s), Some(end_s)) => truth.add_action(&camera, label, (start_s, end_s)),
        _ => Err("give label, start_s and end_s, or none of them for a video in which nothing happens".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_actions_and_empty_ones_videos() {
        let text = "label, video,start_s,end_s,group\nfall,a.mp4,1.5,2.5,P1\nfall,a.mp4,4,5,\n,quiet.mp4,,,P2\n";
        assert!(is_header(text.lines().next().unwrap()));
        let truth = parse(text).unwrap();
        assert_eq!(truth.actions.iter().map(|a| a.span()).collect::<Vec<_>>(), [(1.5, 2.5), (4.0, 5.0)]);
        assert_eq!(truth.videos["a"].group.as_deref(), Some("P1"));
        assert_eq!((truth.videos.len(), truth.videos["quiet"].duration_s), (2, 0.0));
    }

    #[test]
    fn wrong_rows_are_told_with_their_place() {
        let row = |row: &str| parse(&format!("video,label,start_s,end_s\na.mp4,x,1,2\n{row}\n")).unwrap_err();
        assert!(row("a.mp4,x,soon,2").contains("line: 3"), "{}", row("a.mp4,x,soon,2"));
        assert!(row("a.mp4,x,1,").contains("row 2: give label, start_s and end_s"));
        assert!(row("a.mp4,x,2,1").contains("row 2: a: x from 2 to 1 is no interval"));
        assert!(row("b/a.mp4,x,1,2").contains("row 2: a.mp4 and b/a.mp4 would both be camera a"));
    }
}
