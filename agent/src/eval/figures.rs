//! The figures of an evaluation: what they are called, and how they follow from outcomes.
//!
//! Definitions: `agent/design/evaluation.md`. Every figure is computed under weights of groups (how often each was drawn), so
//! that a figure and its bootstrap interval come from the same code; all weights 1 is the set itself.

use super::outcomes::{Block, Judged};

/// Temporal intersection over union at which detections are judged; the first is the one for errors and delays.
pub const TIOUS: [f64; 5] = [0.3, 0.4, 0.5, 0.6, 0.7];
/// Those at which F1 is told.
const F1_TIOUS: [f64; 3] = [0.3, 0.5, 0.7];
/// Largest distance of a detected begin from the true one, seconds.
pub const OFFSETS_S: [f64; 4] = [0.25, 0.5, 1.0, 2.0];

/// Begin or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Begin.
    Start,
    /// End.
    End,
}

/// Which value of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantile {
    /// Half are below.
    Median,
    /// Nine of ten are below.
    P90,
}

impl Quantile {
    /// 0 to 1.
    #[must_use]
    pub fn share(self) -> f64 {
        match self {
            Self::Median => 0.5,
            Self::P90 => 0.9,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Median => "median",
            Self::P90 => "p90",
        }
    }
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Key {
    /// Share of true actions found at tIoU 0.3.
    Recall,
    /// Detections that belong to nothing at tIoU 0.3, per hour of video.
    FalsePerHour,
    /// F1 at a tIoU.
    F1(f64),
    /// Average precision at a tIoU; over labels, their mean.
    Ap(f64),
    /// Mean of the average precisions.
    MeanAp,
    /// Average precision of begins within so many seconds; over labels, their mean.
    StartAp(f64),
    /// |detected - true|, seconds.
    Error(Edge, Quantile),
    /// Decided - true, seconds of stream time: the algorithmic latency.
    Delay(Edge, Quantile),
    /// Share of boundaries whose error is within the stated uncertainty.
    Covered(Edge),
}

impl Key {
    /// Every figure, in the order in which they are told.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Recall, Self::FalsePerHour];
        all.extend(F1_TIOUS.map(Self::F1));
        all.extend(TIOUS.map(Self::Ap));
        all.push(Self::MeanAp);
        all.extend(OFFSETS_S.map(Self::StartAp));
        for make in [Self::Error as fn(Edge, Quantile) -> Self, Self::Delay] {
            for edge in [Edge::Start, Edge::End] {
                all.extend([Quantile::Median, Quantile::P90].map(|q| make(edge, q)));
            }
        }
        all.extend([Edge::Start, Edge::End].map(Self::Covered));
        all
    }

    /// For machines.
    #[must_use]
    pub fn name(self) -> String {
        let edge = |edge| if edge == Edge::Start { "start" } else { "end" };
        match self {
            Self::Recall => "recall@0.3".into(),
            Self::FalsePerHour => "false_per_hour".into(),
            Self::F1(t) => format!("f1@{t}"),
            Self::Ap(t) => format!("ap@{t}"),
            Self::MeanAp => "ap@0.3-0.7".into(),
            Self::StartAp(offset_s) => format!("start_ap@{offset_s}s"),
            Self::Error(e, q) => format!("{}_error_s_{}", edge(e), q.name()),
            Self::Delay(e, q) => format!("{}_delay_s_{}", edge(e), q.name()),
            Self::Covered(e) => format!("{}_covered", edge(e)),
        }
    }
}

/// A figure with its interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figure {
    /// `None` where it is not defined: nothing to divide by, nothing found.
    pub value: Option<f64>,
    /// 95 % bootstrap interval; `None` with too few groups.
    pub interval: Option<(f64, f64)>,
}

/// Figures in the order of [`Key::all`].
pub(super) type Values = Vec<Option<f64>>;

/// The figures of one label, or of all labels thrown together: there average precision is not defined.
pub(super) fn of_block(block: &Block, hours: f64, weights: &[u32]) -> Values {
    let weigh = |group: usize| f64::from(weights[group]);
    let truth = sum(block.truth.iter().zip(weights).map(|(&n, &w)| f64::from(n) * f64::from(w)));
    let detections = sum(block.detections.iter().map(|d| weigh(d.group)));
    let hits = |at: usize| sum(block.detections.iter().filter(|d| d.hits[at]).map(|d| weigh(d.group)));
    let tiou_index = |t: f64| TIOUS.iter().position(|&x| x == t).unwrap_or(0);
    let ratio = |a: f64, b: f64| (b > 0.0).then(|| a / b);
    let ap = |hit: &dyn Fn(usize) -> bool| average_precision(block, hit, truth, weights);
    let aps = || (0..TIOUS.len()).map(|at| ap(&|n| block.detections[n].hits[at]));
    let value = |key: Key| match key {
        Key::Recall => ratio(hits(0), truth),
        Key::FalsePerHour => ratio(detections - hits(0), hours),
        Key::F1(t) => ratio(2.0 * hits(tiou_index(t)), truth + detections),
        Key::Ap(t) => ap(&|n| block.detections[n].hits[tiou_index(t)]),
        Key::MeanAp => mean(aps()),
        Key::StartAp(offset) => {
            let at = OFFSETS_S.iter().position(|&x| x == offset).unwrap_or(0);
            ap(&|n| block.detections[n].start_hits[at])
        }
        Key::Error(edge, q) => quantile(&block.errors[edge as usize], weights, q.share()),
        Key::Delay(edge, q) => quantile(&block.delays[edge as usize], weights, q.share()),
        Key::Covered(edge) => covered(block, edge, weights),
    };
    Key::all().into_iter().map(value).collect()
}

/// The figures of every label, and of all: the average precisions are then means over labels, the rest counts them together.
pub(super) fn of_set(set: &Judged, weights: &[u32]) -> (Vec<Values>, Values) {
    let hours = set.hours.iter().zip(weights).map(|(h, &w)| h * f64::from(w)).sum();
    let labels: Vec<Values> = set.labels.iter().map(|block| of_block(block, hours, weights)).collect();
    let mut all = of_block(&set.all, hours, weights);
    for (n, key) in Key::all().into_iter().enumerate() {
        if matches!(key, Key::Ap(_) | Key::MeanAp | Key::StartAp(_)) {
            all[n] = mean_of_defined(labels.iter().map(|values| values[n]));
        }
    }
    (labels, all)
}

/// Area under the interpolated precision-recall curve over detections in order of falling confidence.
fn average_precision(block: &Block, hit: &dyn Fn(usize) -> bool, truth: f64, weights: &[u32]) -> Option<f64> {
    if truth <= 0.0 {
        return None;
    }
    let (mut seen, mut hits) = (0.0, 0.0);
    let mut points = Vec::new();
    for (n, detection) in block.detections.iter().enumerate() {
        // A group that was drawn twice has each of its detections twice.
        for _ in 0..weights[detection.group] {
            seen += 1.0;
            hits += f64::from(u8::from(hit(n)));
            points.push((hits / truth, hits / seen));
        }
    }
    let (mut area, mut best) = (0.0, 0.0_f64);
    for n in (0..points.len()).rev() {
        let (recall, precision) = points[n];
        best = best.max(precision);
        let before = if n == 0 { 0.0 } else { points[n - 1].0 };
        if recall > before {
            area += (recall - before) * best;
        }
    }
    Some(area)
}

/// Between the values around it, as most libraries have it. `sorted`: (value, group), ascending.
pub(super) fn quantile(sorted: &[(f64, usize)], weights: &[u32], share: f64) -> Option<f64> {
    let count: u64 = sorted.iter().map(|&(_, group)| u64::from(weights[group])).sum();
    let at = share * count.checked_sub(1)? as f64;
    let (low, part) = (at.floor() as u64, at.fract());
    let mut seen = 0;
    let mut below = None;
    for &(value, group) in sorted {
        seen += u64::from(weights[group]);
        if below.is_none() && seen > low {
            below = Some(value);
        }
        if let Some(below) = below
            && (seen > low + 1 || part == 0.0)
        {
            return Some(below + (value - below) * part);
        }
    }
    below
}

fn covered(block: &Block, edge: Edge, weights: &[u32]) -> Option<f64> {
    let (mut inside, mut known) = (0.0, 0.0);
    for detection in &block.detections {
        if let Some(covered) = detection.covered[edge as usize] {
            let weight = f64::from(weights[detection.group]);
            known += weight;
            inside += if covered { weight } else { 0.0 };
        }
    }
    (known > 0.0).then(|| inside / known)
}

/// The sum of no floats is -0, which would be printed so.
fn sum(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value)
}

/// `None` if one of them is.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let all: Option<Vec<f64>> = values.collect();
    mean_of_defined(all?.into_iter().map(Some))
}

fn mean_of_defined(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let defined: Vec<f64> = values.flatten().collect();
    (!defined.is_empty()).then(|| defined.iter().sum::<f64>() / defined.len() as f64)
}
