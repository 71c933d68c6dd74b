//! How far another capture chain moves a model's logits: the same pictures, scaled and converted in other ways.
//!
//! A package is trained on pixels of one chain (decode in software, order and filter of its manifest). Hardware scalers
//! differ in order and filter, so every other order and filter is tried, and this machine's own elements where they are not
//! the software ones. Rows are compared one by one: the sampled times are the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kinewatch_capture::{Elements, Mode, Source, Speed};
use kinewatch_core::decode::Decision;
use kinewatch_core::frame::{Filter, FrameSpec, ScaleOrder};
use kinewatch_core::manifest::Manifest;
use kinewatch_core::time::Pts;

use crate::analytics::{Analytics, CameraPlan, LoadedModel, Origin, Sink, WindowDrop};
use crate::replay::play;

const PATTERN: &str = "ball";
const PATTERN_FPS: u32 = 30;
/// Seconds of the pattern beyond the model's window.
const PATTERN_S: f64 = 4.0;

/// One other chain against the package's.
#[derive(Clone, Debug, PartialEq)]
pub struct Shift {
    /// The chain in words.
    pub chain: String,
    /// Rows of logits compared.
    pub rows: usize,
    /// Mean of the absolute differences.
    pub mean: f32,
    /// Largest absolute difference.
    pub max: f32,
    /// Rows whose highest label is another.
    pub flips: usize,
}

/// Measures every other chain on `video`, or on a generated pattern, with an opened model; blocks for seconds.
///
/// # Errors
/// The video cannot be played, the model failed on it, or it gave no row to compare.
pub fn shifts(model: LoadedModel, video: Option<&Path>) -> anyhow::Result<Vec<Shift>> {
    kinewatch_capture::init()?;
    let source = source(video, &model.manifest);
    let packaged = model.manifest.input.spec;
    let (reference, mut model) = scores(model, packaged, &source, Elements::software())?;
    anyhow::ensure!(!reference.is_empty(), "{source}: too short for a window of the model; give a longer --video");
    let native = Elements::probe(None);
    let here = (native != Elements::software())
        .then(|| (format!("this machine's decoder and scaler ({:?})", native.platform), packaged, native));
    let others = others(packaged).into_iter().map(|(name, spec)| (name, spec, Elements::software()));
    let mut found = Vec::new();
    for (name, spec, elements) in here.into_iter().chain(others) {
        let (rows, back) = scores(model, spec, &source, elements)?;
        model = back;
        found.push(compare(name, &reference, &rows));
    }
    Ok(found)
}

/// What [`shifts`] looks at, in words.
#[must_use]
pub fn subject(video: Option<&Path>) -> String {
    video.map_or_else(|| "a generated moving ball".into(), |path| path.display().to_string())
}

fn source(video: Option<&Path>, manifest: &Manifest) -> Source {
    if let Some(path) = video {
        return Source::File { path: PathBuf::from(path), looped: false, speed: Speed::Max };
    }
    let seconds = manifest.sampling.window as f64 / 1e9 + PATTERN_S;
    Source::Test {
        pattern: PATTERN.into(),
        mode: Mode { size: Some((1280, 720)), fps: Some(PATTERN_FPS) },
        frames: Some((seconds * f64::from(PATTERN_FPS)) as u32),
        speed: Speed::Max,
    }
}

/// Every other order and filter.
fn others(packaged: FrameSpec) -> Vec<(String, FrameSpec)> {
    let orders = [(ScaleOrder::ScaleConvert, "scale, then convert"), (ScaleOrder::ConvertScale, "convert, then scale")];
    let filters = [(Filter::Bilinear, "bilinear"), (Filter::Nearest, "nearest")];
    let all = orders.into_iter().flat_map(|order| filters.map(|filter| (order, filter)));
    all.map(|((order, o), (filter, f))| (format!("{o}, {f}"), FrameSpec { order, filter, ..packaged }))
        .filter(|(_, spec)| *spec != packaged)
        .collect()
}

type Rows = Vec<(Pts, Vec<f32>)>;

/// The rows of `source` through one chain, and the model back.
fn scores(
    mut model: LoadedModel,
    spec: FrameSpec,
    source: &Source,
    elements: Elements,
) -> anyhow::Result<(Rows, LoadedModel)> {
    Arc::make_mut(&mut model.manifest).input.spec = spec;
    let plan = CameraPlan { name: "check".into(), models: vec![0], zones: Vec::new() };
    let mut analytics = Analytics::new(vec![model], std::slice::from_ref(&plan))?;
    let mut rows = Keep(Vec::new());
    play(&mut analytics, &plan, source.clone(), elements, &mut rows, &mut |_| {})?;
    let model = analytics.into_models().pop().context("the model is there")?;
    Ok((rows.0, model))
}

fn compare(chain: String, reference: &Rows, other: &Rows) -> Shift {
    let pairs: Vec<_> = reference.iter().zip(other).filter(|(a, b)| a.0 == b.0).collect();
    let differences: Vec<f32> =
        pairs.iter().flat_map(|(a, b)| a.1.iter().zip(&b.1).map(|(x, y)| (x - y).abs())).collect();
    Shift {
        chain,
        rows: pairs.len(),
        mean: differences.iter().sum::<f32>() / differences.len().max(1) as f32,
        max: differences.iter().copied().fold(0.0, f32::max),
        flips: pairs.iter().filter(|(a, b)| highest(&a.1) != highest(&b.1)).count(),
    }
}

/// The label with the highest logit; `None` is the background, against which logits are.
fn highest(row: &[f32]) -> Option<usize> {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
    (*best.1 > 0.0).then_some(best.0)
}

/// Keeps the scores and nothing else.
struct Keep(Rows);

impl Sink for Keep {
    fn decision(&mut self, _origin: Origin<'_>, _decision: &Decision) {}

    fn scores(&mut self, _origin: Origin<'_>, at: Pts, scores: &[f32], _labels: &[String]) {
        self.0.push((at, scores.to_vec()));
    }

    fn inferred(&mut self, _model: usize, _requests: usize, _took: Duration) {}

    fn windows_dropped(&mut self, _camera: usize, _watcher: usize, _why: WindowDrop, _count: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinewatch_core::frame::Resize;

    #[test]
    fn three_other_chains_and_never_the_packages_own() {
        let packaged = FrameSpec {
            width: 8,
            height: 8,
            resize: Resize::Stretch,
            filter: Filter::Bilinear,
            order: ScaleOrder::ConvertScale,
        };
        let names: Vec<_> = others(packaged).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            ["scale, then convert, bilinear", "scale, then convert, nearest", "convert, then scale, nearest"]
        );
    }

    #[test]
    fn rows_are_compared_at_equal_times() {
        let a = vec![(Pts(0), vec![1.0, -1.0]), (Pts(5), vec![-1.0, -2.0])];
        let b = vec![(Pts(0), vec![-1.0, 2.0]), (Pts(6), vec![9.0, 9.0])];
        let shift = compare("x".into(), &a, &b);
        assert_eq!((shift.rows, shift.mean, shift.max, shift.flips), (1, 2.5, 3.0, 1));
    }
}
