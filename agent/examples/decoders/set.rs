//! Saved scores with known actions, and all labels of them taken for one. Reads files; never looks at video.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kinewatch::calibrate::{Quality, qualities};
use kinewatch::intervals::{Detection, TrueAction, TrueVideo, Truth, read_truth, slug};
use kinewatch::replay::Replayed;
use kinewatch_core::manifest::{Decoding, Label};

/// The one label of a set that is pooled.
pub(crate) const POOLED: &str = "all labels";

/// What the other decoders do with an end that is only that of the video. Ours keep it: a stream that breaks off says
/// nothing of what came after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CutEnds {
    /// The learnt lag is taken off, as of any end; it may then lie after the last score.
    Lagged,
    /// It stays at the last score.
    Kept,
}

/// Videos with scores and known actions, and the settings of a package.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub decoding: Decoding,
    pub replayed: Vec<Replayed>,
    /// Of those videos.
    pub truth: Truth,
    pub cut_ends: CutEnds,
}

impl Set {
    /// Videos that are not annotated, or have no scores, are left out.
    pub(crate) fn read(package: &Path, scores: &Path, truth: &Path, cut_ends: CutEnds) -> Result<Self, String> {
        let (decoding, digest) = kinewatch_ota::open_decoding(package).map_err(|e| e.to_string())?;
        let mut truth = read_truth(truth, None)?;
        let files = files(scores)?;
        truth = truth.only(|camera| files.contains_key(camera));
        if truth.videos.is_empty() {
            return Err(format!(
                "{}: has scores of no annotated video; name the folder of CSV files",
                scores.display()
            ));
        }
        let decode = |camera: &String| kinewatch::decode::decode(&files[camera], &decoding, &digest, camera);
        let replayed = truth.videos.keys().map(decode).collect::<Result<Vec<_>, _>>()?;
        for r in &replayed {
            if let Some(video) = truth.videos.get_mut(&r.camera).filter(|v| v.duration_s <= 0.0) {
                video.duration_s = r.duration.seconds();
            }
        }
        Ok(Self { decoding, replayed, truth, cut_ends })
    }

    /// Published labels and sequences that are annotated.
    pub(crate) fn judged(&self) -> Vec<String> {
        self.decoding.published().filter(|l| self.is_annotated(l)).map(str::to_owned).collect()
    }

    pub(crate) fn is_annotated(&self, label: &str) -> bool {
        self.truth.actions.iter().any(|a| a.label == label)
    }

    pub(crate) fn stride_s(&self) -> f64 {
        self.decoding.stride as f64 / 1e9
    }

    pub(crate) fn hours(&self) -> f64 {
        self.truth.videos.values().map(|v| v.duration_s / 3600.0).sum()
    }

    /// What detections are worth: of each judged label, and of all together if there are several.
    pub(crate) fn qualities(&self, found: &[Detection]) -> Vec<(String, Quality)> {
        let mut all = qualities(found, &self.truth, self.judged());
        if all.len() > 1 {
            all.extend(qualities(&Self::pooled_detections(found), &self.pooled_truth(), vec![POOLED.to_owned()]));
        }
        all
    }

    /// Each label of each video as a video of its own, in which the one label is called [`POOLED`]. The settings are those
    /// of the first label.
    pub(crate) fn pooled(&self) -> Self {
        let labels = self.judged();
        let decoding = self.decoding.clone();
        let mut pooled = Self { replayed: Vec::new(), truth: self.pooled_truth(), decoding, cut_ends: self.cut_ends };
        for (label, r) in labels.iter().flat_map(|l| self.replayed.iter().map(move |r| (l, r))) {
            let Some(column) = r.score_labels.iter().position(|l| l == label) else { continue };
            let scores = r.scores.iter().map(|(at, row)| (*at, vec![row[column]])).collect();
            let (camera, score_labels) = (pooled_name(&r.camera, label), vec![POOLED.to_owned()]);
            pooled.replayed.push(Replayed {
                camera,
                score_labels,
                scores,
                duration: r.duration,
                ..Replayed::default()
            });
        }
        let first = self.decoding.labels.iter().find(|l| labels.contains(&l.name));
        let decoder = first.and_then(|l| l.decoder);
        pooled.decoding.labels = vec![Label { name: POOLED.to_owned(), publish: true, decoder }];
        pooled.decoding.background = None;
        (pooled.decoding.sequences, pooled.decoding.exclusive) = (Vec::new(), Vec::new());
        pooled
    }

    /// What is judged, pooled. The share of a video's time that each label has is such that rates stay rates of the whole.
    fn pooled_truth(&self) -> Truth {
        let labels = self.judged();
        let mut pooled = Truth::default();
        for (label, (camera, video)) in labels.iter().flat_map(|l| self.truth.videos.iter().map(move |v| (l, v))) {
            let (name, duration_s) = (pooled_name(camera, label), video.duration_s / labels.len() as f64);
            let group = video.group.clone().or_else(|| Some(camera.clone()));
            pooled.videos.insert(name.clone(), TrueVideo { name, duration_s, group, ..video.clone() });
        }
        let judged = self.truth.actions.iter().filter(|a| labels.contains(&a.label));
        pooled.actions = judged.map(pooled_action).collect();
        pooled
    }

    /// Detections of this set as they are in the pooled one.
    pub(crate) fn pooled_detections(found: &[Detection]) -> Vec<Detection> {
        let pool = |d: &Detection| Detection {
            camera: pooled_name(&d.camera, &d.label),
            label: POOLED.to_owned(),
            ..d.clone()
        };
        found.iter().map(pool).collect()
    }
}

fn pooled_name(camera: &str, label: &str) -> String {
    format!("{camera}/{label}")
}

fn pooled_action(a: &TrueAction) -> TrueAction {
    TrueAction { camera: pooled_name(&a.camera, &a.label), label: POOLED.to_owned(), ..a.clone() }
}

/// Files of scores by camera id.
fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>, String> {
    let told = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(told)? {
        let path = entry.map_err(told)?.path();
        if path.extension().is_some_and(|e| e == "csv") {
            files.insert(slug(&path.to_string_lossy()), path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinewatch_core::time::Pts;

    #[test]
    fn pooled_labels_are_videos_of_their_own() {
        let label =
            |l: &str| format!("[[labels]]\nname = \"{l}\"\n[labels.decoder]\nkind = \"cusum\"\non = 0.5\noff = 0.5\n");
        let text = format!(
            "format = 1\nname = \"p\"\nversion = \"1.0.0\"\nstride_s = 0.2\n{}{}",
            label("kick"),
            label("push")
        );
        let mut truth = Truth::default();
        truth.videos.insert("a".into(), TrueVideo { duration_s: 8.0, ..Default::default() });
        for (label, start_s) in [("kick", 1.0), ("push", 4.0), ("wave", 6.0)] {
            truth.actions.push(TrueAction { camera: "a".into(), label: label.into(), start_s, end_s: start_s + 1.0 });
        }
        let scores = vec![(Pts::from_seconds(0.2), vec![1.0, -2.0])];
        let score_labels = vec!["kick".into(), "push".into()];
        let replayed = vec![Replayed { camera: "a".into(), score_labels, scores, ..Replayed::default() }];
        let pooled =
            Set { decoding: Decoding::parse(&text).unwrap(), replayed, truth, cut_ends: CutEnds::Lagged }.pooled();
        let scores: Vec<(&str, f32)> = pooled.replayed.iter().map(|r| (r.camera.as_str(), r.scores[0].1[0])).collect();
        assert_eq!(scores, [("a/kick", 1.0), ("a/push", -2.0)]);
        assert_eq!(pooled.truth.actions.len(), 2);
        assert!((pooled.hours() - 8.0 / 3600.0).abs() < 1e-9);
        assert_eq!(pooled.judged(), [POOLED]);
    }
}
