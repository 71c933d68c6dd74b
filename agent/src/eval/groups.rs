//! Which videos share a scene, a person or a camera, where the annotations do not say it: they are drawn together.

use std::collections::BTreeMap;
use std::path::Path;

use crate::intervals::{Truth, read_bounded, slug};

/// Reads a CSV table with the columns `group` and `video` (or `path`), and gives the videos of `truth` that have no group
/// theirs; gives how many of them the table does not name. A video is known by the name that the annotations give it, else by
/// its file stem.
///
/// # Errors
/// In words, with file and what to do.
pub fn read_groups(path: &Path, truth: &mut Truth) -> Result<usize, String> {
    let told = |e: csv::Error| format!("{}: {e}", path.display());
    let text = read_bounded(path)?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(told)?.clone();
    let column = |names: &[&str]| header.iter().position(|h| names.contains(&h));
    let (Some(video), Some(group)) = (column(&["video", "path"]), column(&["group"])) else {
        return Err(format!("{}: no table of groups; its first line should name video and group", path.display()));
    };
    let (mut by_name, mut by_stem) = (BTreeMap::new(), BTreeMap::new());
    for record in reader.records() {
        let record = record.map_err(told)?;
        let (Some(video), Some(group)) = (record.get(video), record.get(group)) else { continue };
        by_name.insert(video.to_owned(), group.to_owned());
        by_stem.insert(slug(video), group.to_owned());
    }
    let mut unknown = 0;
    for (camera, video) in truth.videos.iter_mut().filter(|(_, v)| v.group.is_none()) {
        video.group = by_name.get(&video.name).or_else(|| by_stem.get(camera)).filter(|g| !g.is_empty()).cloned();
        unknown += usize::from(video.group.is_none());
    }
    Ok(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intervals::TrueVideo;

    #[test]
    fn groups_come_by_name_or_stem_and_stated_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clips.csv");
        std::fs::write(&path, "path,label,group\nset/a.mp4,x,P1\nother/a.mp4,x,P2\nset/B.mp4,x,P3\nc.mp4,x,P4\n")
            .unwrap();
        let video = |name: &str, group: Option<&str>| TrueVideo {
            name: name.into(),
            group: group.map(str::to_owned),
            ..TrueVideo::default()
        };
        let videos = [("a", "set/a.mp4", None), ("b", "b", None), ("c", "c.mp4", Some("own")), ("d", "d.mp4", None)];
        let videos = videos.map(|(camera, name, group)| (camera.to_owned(), video(name, group)));
        let mut truth = Truth { videos: videos.into(), actions: vec![] };
        assert_eq!(read_groups(&path, &mut truth), Ok(1));
        let groups: Vec<_> = truth.videos.values().map(|v| v.group.as_deref()).collect();
        assert_eq!(groups, [Some("P1"), Some("P3"), Some("own"), None]);
        std::fs::write(&path, "a,b\n").unwrap();
        assert!(read_groups(&path, &mut truth).unwrap_err().contains("should name video and group"));
    }
}
