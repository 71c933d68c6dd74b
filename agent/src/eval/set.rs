//! What is to be judged: which videos of the annotations, where they lie, which labels; and what is odd about it.
//!
//! Everything that can be wrong with the input is told here, before the work.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kinewatch_core::manifest::Decoding;
use walkdir::WalkDir;

use crate::intervals::{TrueAction, Truth, slug};

/// Segments may reach this far beyond the stated end of their video, seconds: half a frame at 10 Hz.
const BEYOND_S: f64 = 0.05;

/// The part of the annotations whose subset is one of `wanted`; all of it when none is wanted.
///
/// # Errors
/// No video is of that subset.
pub fn of_subsets(truth: Truth, wanted: &[String]) -> Result<Truth, String> {
    if wanted.is_empty() {
        return Ok(truth);
    }
    let has = |camera: &str| truth.videos[camera].subset.as_ref().is_some_and(|s| wanted.contains(s));
    let part = truth.only(has);
    if !part.videos.is_empty() {
        return Ok(part);
    }
    let mut known: Vec<&str> = truth.videos.values().filter_map(|v| v.subset.as_deref()).collect();
    known.sort_unstable();
    known.dedup();
    let known = if known.is_empty() { "no subsets at all; leave --subset out".into() } else { known.join(", ") };
    Err(format!("no video is of subset {}; the annotations have {known}", wanted.join(" or ")))
}

/// The labels to judge: those asked for, else those that the package reports and the annotations (`whole`, of every
/// subset) have. With annotations of nothing at all, everything the package reports.
///
/// # Errors
/// A label that neither knows, or none that both know.
pub fn labels(asked: &[String], decoding: &Decoding, whole: &Truth) -> Result<Labels, String> {
    let reported: Vec<String> = decoding.published().map(str::to_owned).collect();
    let mut annotated: Vec<String> = whole.actions.iter().map(|a| a.label.clone()).collect();
    annotated.sort_unstable();
    annotated.dedup();
    let (package, reports, has) = (&decoding.name, reported.join(", "), annotated.join(", "));
    if let Some(unknown) = asked.iter().find(|l| !reported.contains(l) && !annotated.contains(l)) {
        return Err(format!("--label {unknown}: {package} reports {reports}; the annotations have {has}"));
    }
    let judged: Vec<String> = match asked {
        [] if annotated.is_empty() => reported.clone(),
        [] => reported.iter().filter(|l| annotated.contains(l)).cloned().collect(),
        asked => asked.iter().enumerate().filter(|(n, l)| !asked[..*n].contains(l)).map(|(_, l)| l.clone()).collect(),
    };
    if judged.is_empty() {
        return Err(format!(
            "{package} reports {reports}, the annotations have {has}: no label in common; say with --label what to judge"
        ));
    }
    let rest = |of: Vec<String>| of.into_iter().filter(|l| !judged.contains(l)).collect();
    Ok(Labels { unannotated: rest(reported), unreported: rest(annotated), judged })
}

/// Labels by what is done with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels {
    /// Are judged.
    pub judged: Vec<String>,
    /// The package reports them, they are not judged: nobody has annotated them, or nobody asked.
    pub unannotated: Vec<String>,
    /// Annotated, not judged: the package does not report them, or nobody asked.
    pub unreported: Vec<String>,
}

/// What is odd about the annotations, a line for each kind. It is judged as it stands.
#[must_use]
pub fn oddities(truth: &Truth) -> Vec<String> {
    let mut by: BTreeMap<(&str, &str), Vec<&TrueAction>> = BTreeMap::new();
    for action in &truth.actions {
        by.entry((&action.camera, &action.label)).or_default().push(action);
    }
    let mut overlapping = Vec::new();
    for actions in by.values_mut() {
        actions.sort_by(|a, b| a.start_s.total_cmp(&b.start_s));
        overlapping.extend(actions.windows(2).filter(|w| w[1].start_s < w[0].end_s).map(|w| w[1]));
    }
    let duration = |camera: &str| truth.videos.get(camera).map_or(0.0, |v| v.duration_s);
    let beyond = |t: &&TrueAction| duration(&t.camera) > 0.0 && t.end_s > duration(&t.camera) + BEYOND_S;
    let beyond: Vec<&TrueAction> = truth.actions.iter().filter(beyond).collect();
    [
        told(&overlapping, "overlap another of the same label", "each is judged on its own"),
        told(&beyond, "reach beyond the end of their video", "they are judged as annotated"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn told(actions: &[&TrueAction], what: &str, so: &str) -> Option<String> {
    let first = actions.first()?;
    let TrueAction { camera, label, start_s, end_s } = first;
    let count = actions.len();
    Some(format!("{count} of the annotated actions {what} ({label} in {camera}, {start_s:.2}-{end_s:.2} s): {so}"))
}

/// Finds the videos of the annotations in `folder`: by the path that they state, else by their name anywhere below.
///
/// # Errors
/// The folder cannot be read, or two files have the name of one video.
pub fn locate(folder: &Path, truth: &Truth) -> Result<Located, String> {
    let mut located = Located::default();
    let mut below: Option<BTreeMap<String, Vec<PathBuf>>> = None;
    for (camera, video) in &truth.videos {
        let stated = folder.join(&video.name);
        if stated.is_file() {
            located.found.insert(camera.clone(), stated);
            continue;
        }
        let below = match &mut below {
            Some(below) => below,
            none => none.insert(by_name(folder)?),
        };
        match below.get(camera).map(Vec::as_slice) {
            None => located.missing.push(video.name.clone()),
            Some([one]) => {
                located.found.insert(camera.clone(), one.clone());
            }
            Some([one, other, ..]) => {
                let (one, other) = (one.display(), other.display());
                return Err(format!("{one} and {other} could both be {}; move one away", video.name));
            }
            Some([]) => {}
        }
    }
    Ok(located)
}

/// Finds the annotated videos among saved scores, by camera id.
#[must_use]
pub fn with_scores(truth: &Truth, files: &BTreeMap<String, PathBuf>) -> Located {
    let mut located = Located::default();
    for (camera, video) in &truth.videos {
        match files.get(camera) {
            Some(path) => drop(located.found.insert(camera.clone(), path.clone())),
            None => located.missing.push(video.name.clone()),
        }
    }
    located
}

/// Where the videos are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Located {
    /// By camera id.
    pub found: BTreeMap<String, PathBuf>,
    /// As the annotations name them.
    pub missing: Vec<String>,
}

/// How many are missing, and the first of them.
#[must_use]
pub fn told_missing(missing: &[String], of: usize, place: &Path) -> String {
    let first = missing.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if missing.len() > 3 { ", …" } else { "" };
    format!("{} of {of} annotated videos are not in {}: {first}{more}", missing.len(), place.display())
}

/// Every file below `folder` that may be a video, by camera id.
fn by_name(folder: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>, String> {
    const OTHERS: [&str; 8] = ["json", "csv", "txt", "md", "png", "jpg", "npy", "srt"];
    let mut all: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|e| format!("{}: {e}", folder.display()))?;
        let other = |e: &std::ffi::OsStr| OTHERS.iter().any(|o| e.eq_ignore_ascii_case(o));
        if entry.file_type().is_file() && !entry.path().extension().is_none_or(other) {
            all.entry(slug(&entry.file_name().to_string_lossy())).or_default().push(entry.into_path());
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intervals::TrueVideo;

    fn truth(actions: &[(&str, &str, f64, f64)]) -> Truth {
        let mut truth = Truth::default();
        for &(camera, label, start_s, end_s) in actions {
            let video = TrueVideo {
                name: format!("{camera}.mp4"),
                duration_s: 10.0,
                subset: Some("test".into()),
                ..TrueVideo::default()
            };
            truth.videos.insert(camera.into(), video);
            truth.actions.push(TrueAction { camera: camera.into(), label: label.into(), start_s, end_s });
        }
        truth
    }

    fn decoding(labels: &[&str]) -> Decoding {
        let label =
            |l: &&str| format!("[[labels]]\nname = \"{l}\"\n[labels.decoder]\nkind = \"cusum\"\non = 0.5\noff = 0.5\n");
        let labels: String = labels.iter().map(label).collect();
        Decoding::parse(&format!("format = 1\nname = \"p\"\nversion = \"1.0.0\"\nstride_s = 0.2\n{labels}")).unwrap()
    }

    #[test]
    fn labels_are_those_that_both_know_unless_asked() {
        let t = truth(&[("a", "fall", 1.0, 2.0), ("a", "sit", 3.0, 4.0)]);
        let both = labels(&[], &decoding(&["fall", "lying"]), &t).unwrap();
        assert_eq!(
            (both.judged, both.unannotated, both.unreported),
            (vec!["fall".to_owned()], vec!["lying".to_owned()], vec!["sit".to_owned()])
        );
        assert_eq!(labels(&["sit".into()], &decoding(&["fall"]), &t).unwrap().judged, ["sit"]);
        assert_eq!(labels(&[], &decoding(&["fall"]), &Truth::default()).unwrap().judged, ["fall"]);
        assert!(labels(&["run".into()], &decoding(&["fall"]), &t).unwrap_err().contains("--label run"));
        assert!(labels(&[], &decoding(&["lying"]), &t).unwrap_err().contains("no label in common"));
    }

    #[test]
    fn odd_annotations_are_told_in_a_line_each() {
        let t = truth(&[
            ("a", "fall", 1.0, 3.0),
            ("a", "fall", 2.0, 12.0),
            ("a", "sit", 2.5, 4.0),
            ("b", "fall", 3.0, 9.0),
        ]);
        let lines = oddities(&t);
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0]
                .starts_with("1 of the annotated actions overlap another of the same label (fall in a, 2.00-12.00 s)")
        );
        assert!(lines[1].contains("beyond the end") && lines[1].contains("judged as annotated"));
        assert!(oddities(&Truth::default()).is_empty());
    }

    #[test]
    fn subsets_are_chosen_by_name() {
        let t = truth(&[("a", "fall", 1.0, 2.0)]);
        assert_eq!(of_subsets(t.clone(), &["test".into()]).unwrap(), t);
        assert!(of_subsets(t.clone(), &["val".into()]).unwrap_err().contains("subset val; the annotations have test"));
        assert_eq!(of_subsets(t.clone(), &[]).unwrap(), t);
    }

    #[test]
    fn videos_are_found_by_path_or_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let (a, b) = (put("a.mp4"), put("deep/er/B.avi"));
        put("b.csv");
        let t = truth(&[("a", "x", 1.0, 2.0), ("b", "x", 1.0, 2.0), ("c", "x", 1.0, 2.0)]);
        let located = locate(dir.path(), &t).unwrap();
        assert_eq!(located.found.into_iter().collect::<Vec<_>>(), [("a".into(), a), ("b".into(), b)]);
        assert_eq!(told_missing(&located.missing, 3, Path::new("v")), "1 of 3 annotated videos are not in v: c.mp4");
        put("b.mkv");
        assert!(locate(dir.path(), &t).unwrap_err().contains("could both be b.mp4"));
    }
}
