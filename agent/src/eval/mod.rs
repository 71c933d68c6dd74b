//! How good a package is on annotated videos: what it finds, how exactly, how late, and how sure that is.
//!
//! Judges detections as they were published. Never looks at pictures; the calling thread does the work, and blocks.

mod bootstrap;
mod figures;
mod groups;
mod outcomes;
mod replays;
pub mod report;
pub mod set;
mod summary;
mod sweep;
mod tables;
mod written;

use kinewatch_core::manifest::Decoding;

pub use bootstrap::{DRAWS, LEAST_GROUPS};
pub use figures::{Edge, Figure, Key, OFFSETS_S, Quantile, TIOUS};
pub use groups::read_groups;
pub use replays::{Job, replay_all};
pub use summary::summary;
pub use sweep::{Knob, Point, TradeOff, again, shifted};
pub use written::json;

use crate::intervals::{Collector, Detection, Pair, Truth, pair};
use crate::replay::Replayed;
use figures::quantile;
use outcomes::{Block, Judged};

/// What is judged, and against what.
#[derive(Debug)]
pub struct Input<'a> {
    /// The package's decoder settings.
    pub decoding: &'a Decoding,
    /// Back end, provider and precision, such as `ort-cpu-fp32`, or `scores`.
    pub accel: String,
    /// Of the videos in `replayed`.
    pub truth: &'a Truth,
    /// To judge.
    pub labels: &'a [String],
    /// In order of their camera ids.
    pub replayed: &'a [Replayed],
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Name and version of the package.
    pub package: (String, String),
    /// As in [`Input`].
    pub accel: String,
    /// Annotated videos.
    pub videos: usize,
    /// Their length together.
    pub hours: f64,
    /// Groups that they form.
    pub groups: usize,
    /// In the order of the labels.
    pub labels: Vec<LabelFigures>,
    /// Of all labels: average precisions are means over labels, the rest counts them together.
    pub all: LabelFigures,
    /// From frame to decision, as measured here; none over saved scores.
    pub system: Option<SystemLatency>,
    /// Every detection and true action, paired at tIoU 0.3.
    pub pairs: Vec<Pair>,
}

/// Figures of a label.
#[derive(Clone, Debug)]
pub struct LabelFigures {
    /// Its name; `all`.
    pub label: String,
    /// True actions.
    pub truth: usize,
    /// Detections.
    pub detections: usize,
    /// Detections that belong to a true action at tIoU 0.3.
    pub found: usize,
    /// In the order of [`Key::all`].
    figures: Vec<Figure>,
}

impl LabelFigures {
    fn new(label: &str, block: &Block, figures: Vec<Figure>) -> Self {
        Self {
            label: label.to_owned(),
            truth: block.truth.iter().map(|&n| n as usize).sum(),
            detections: block.detections.len(),
            found: block.detections.iter().filter(|d| d.hits[0]).count(),
            figures,
        }
    }

    /// One of them.
    #[must_use]
    pub fn figure(&self, key: Key) -> Figure {
        Key::all().iter().position(|k| *k == key).map_or_else(Figure::default, |n| self.figures[n])
    }

    /// All of them.
    pub fn figures(&self) -> impl Iterator<Item = (Key, Figure)> {
        Key::all().into_iter().zip(self.figures.iter().copied())
    }
}

/// Figures of each label, without intervals.
#[must_use]
pub fn figures_of(detections: &[Detection], truth: &Truth, labels: &[String]) -> Vec<LabelFigures> {
    let judged = Judged::new(detections, truth, labels);
    let (hours, weights) = (judged.hours.iter().sum(), vec![1; judged.groups()]);
    let bare = |value| Figure { value, interval: None };
    let figures = |(label, block): (&String, &Block)| {
        let values = figures::of_block(block, hours, &weights);
        LabelFigures::new(label, block, values.into_iter().map(bare).collect())
    };
    labels.iter().zip(&judged.labels).map(figures).collect()
}

/// How long a window took from its frame to its decision, on the machine that evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SystemLatency {
    /// Windows measured.
    pub windows: usize,
    /// Half took less, milliseconds.
    pub median_ms: f64,
    /// 95 of 100 took less, milliseconds.
    pub p95_ms: f64,
}

impl Evaluation {
    /// Judges what was replayed.
    ///
    /// # Errors
    /// An event that is none: a fault of the agent's own.
    pub fn new(input: &Input<'_>) -> Result<Self, serde_json::Error> {
        let detections = detections(input)?;
        let judged = Judged::new(&detections, input.truth, input.labels);
        let (figures, all) = bootstrap::figures(&judged);
        let named = |((label, block), figures): ((&String, _), _)| LabelFigures::new(label, block, figures);
        Ok(Self {
            package: (input.decoding.name.clone(), input.decoding.version.clone()),
            accel: input.accel.clone(),
            videos: input.truth.videos.len(),
            hours: judged.hours.iter().sum(),
            groups: judged.groups(),
            labels: input.labels.iter().zip(&judged.labels).zip(figures).map(named).collect(),
            all: LabelFigures::new("all", &judged.all, all),
            system: system(input.replayed),
            pairs: pair(&detections, input.truth, Some(input.labels)),
        })
    }
}

/// What other settings would give, for every label. Takes about a second for ten hours of scores.
#[must_use]
pub fn trade_offs(input: &Input<'_>) -> Vec<TradeOff> {
    sweep::trade_offs(input.decoding, input.replayed, input.truth, input.labels)
}

/// What was published under the labels to judge.
fn detections(input: &Input<'_>) -> Result<Vec<Detection>, serde_json::Error> {
    let mut collector = Collector::default();
    for event in input.replayed.iter().flat_map(|r| &r.events) {
        collector.line(&String::from_utf8_lossy(&event.to_json()))?;
    }
    let mut all: Vec<Detection> = collector.finish().into_iter().filter(|d| input.labels.contains(&d.label)).collect();
    // To its annotator a file is one stream, whatever breaks it has.
    all.iter_mut().for_each(|d| d.session = 0);
    Ok(all)
}

fn system(replayed: &[Replayed]) -> Option<SystemLatency> {
    let mut took: Vec<(f64, usize)> =
        replayed.iter().flat_map(|r| &r.took).map(|took| (took.as_secs_f64() * 1000.0, 0)).collect();
    took.sort_by(|a, b| a.0.total_cmp(&b.0));
    let of = |share| quantile(&took, &[1], share);
    Some(SystemLatency { windows: took.len(), median_ms: of(0.5)?, p95_ms: of(0.95)? })
}

#[cfg(test)]
mod tests;
