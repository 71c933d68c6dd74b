//! What the two processes say to each other: lines of JSON. Additive: what is not known is ignored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kinewatch_core::rollout::Fault;
use serde::{Deserialize, Serialize};

use crate::config::plan::EnginePlan;

/// Longest line, bytes.
pub(super) const MAX_LINE: u64 = 64 << 10;

/// What is to be tried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Directory of a package, verified and not writable for others.
    pub package: PathBuf,
    /// How the daemon runs models.
    pub engine: EnginePlan,
    /// Where TensorRT keeps the engines of this release.
    pub cache_dir: Option<PathBuf>,
    /// Windows to measure.
    pub windows: u32,
    /// Measuring ends after this time, however few windows (ten at least), s.
    pub measure_s: f64,
}

impl Job {
    /// With windows and time that suit a device beside a running daemon: 500 windows, 30 s.
    #[must_use]
    pub fn new(package: PathBuf, engine: EnginePlan, cache_dir: Option<PathBuf>) -> Self {
        Self { package, engine, cache_dir, windows: 500, measure_s: 30.0 }
    }
}

/// What the child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Loads the model, builds engines, compares with the golden clips.
    Open,
    /// Measures.
    Bench,
}

impl Step {
    /// For reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Bench => "bench",
        }
    }
}

/// A line of the child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// It begins this.
    Step(Step),
    /// The model holds here.
    Done(Proof),
    /// It does not.
    Failed(Fault),
}

/// What a model has shown on this device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proof {
    /// `tract` or `ort`.
    pub backend: String,
    /// `tensorrt`, `cuda` or `cpu`.
    pub provider: String,
    /// `fp32`, `fp16` or `int8`.
    pub precision: String,
    /// Nodes of the graph by provider; none for tract.
    pub nodes: BTreeMap<String, usize>,
    /// Why this one.
    pub why: String,
    /// Better ways that were tried and refused, each with its reason.
    pub refused: Vec<String>,
    /// Largest difference of a logit on the golden clips.
    pub golden_max_diff: f32,
    /// Largest one allowed.
    pub golden_tolerance: f32,
    /// Opening, golden clips included, ms.
    pub open_ms: f64,
    /// Windows measured.
    pub windows: u64,
    /// A window, one at a time, without what the process was kept waiting for: half took less, ms.
    pub p50_ms: f64,
    /// All but one of a hundred took less, ms.
    pub p99_ms: f64,
    /// How often one camera asks for a window, ms.
    pub stride_ms: f64,
    /// Most memory of the process, MiB.
    pub peak_memory_mb: u64,
}
