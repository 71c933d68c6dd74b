//! `model.toml` as it is written: shape and types only; what the values mean is checked in `validate`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Activation, Colour, DecoderParams, Dtype, Layout, Plan, RequiredBackend, ScoreKind};
use crate::frame::{Filter, Resize, ScaleOrder};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Package {
    pub format: i64,
    pub name: String,
    pub version: String,
    pub architecture: String,
    pub plan: Plan,
    pub description: String,
    pub license: String,
    pub provenance: Vec<String>,
    pub requires: Option<Requires>,
    pub input: Input,
    pub sampling: Sampling,
    pub output: Output,
    pub tensors: Tensors,
    pub graphs: Graphs,
    pub labels: Vec<Label>,
    #[serde(default)]
    pub sequences: Vec<Sequence>,
    #[serde(default)]
    pub exclusive: Vec<Exclusive>,
    pub golden: Golden,
    pub files: BTreeMap<String, String>,
}

/// A package of decoder settings alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decoding {
    pub format: i64,
    pub name: String,
    pub version: String,
    pub stride_s: f64,
    pub background: Option<String>,
    pub labels: Vec<Label>,
    #[serde(default)]
    pub sequences: Vec<Sequence>,
    #[serde(default)]
    pub exclusive: Vec<Exclusive>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requires {
    pub backend: RequiredBackend,
    pub because: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    pub width: u32,
    pub height: u32,
    #[serde(with = "ResizeWire")]
    pub resize: Resize,
    #[serde(with = "FilterWire")]
    pub filter: Filter,
    #[serde(with = "OrderWire")]
    pub order: ScaleOrder,
    pub layout: Layout,
    pub colour: Colour,
    pub dtype: Dtype,
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

#[derive(Deserialize)]
#[serde(remote = "Resize", rename_all = "lowercase")]
enum ResizeWire {
    Stretch,
    Letterbox,
}

#[derive(Deserialize)]
#[serde(remote = "Filter", rename_all = "lowercase")]
enum FilterWire {
    Nearest,
    Bilinear,
}

#[derive(Deserialize)]
#[serde(remote = "ScaleOrder", rename_all = "kebab-case")]
enum OrderWire {
    ScaleConvert,
    ConvertScale,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sampling {
    pub rate_hz: f64,
    pub segments: usize,
    pub snippet: usize,
    pub window_s: f64,
    pub stride_s: f64,
    pub max_hole_s: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Output {
    pub scores: ScoreKind,
    pub activation: Activation,
    pub temperature: f64,
    pub background: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tensors {
    pub input: String,
    pub logits: String,
    pub feature: Option<String>,
    pub features: Option<String>,
    #[serde(default)]
    pub states: Vec<State>,
    pub boxes: Option<Boxes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Boxes {
    pub input: String,
    pub count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub input: String,
    pub output: String,
    pub shape: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Graphs {
    pub fp32: Graph,
    pub int8: Option<Graph>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Graph {
    pub model: String,
    pub head: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Label {
    pub name: String,
    #[serde(default = "yes")]
    pub publish: bool,
    pub decoder: Option<DecoderParams>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sequence {
    pub name: String,
    pub parts: Vec<String>,
    pub within_s: f64,
    /// It moves the begin; of a label it ends the action.
    pub max_duration_s: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exclusive {
    pub labels: Vec<String>,
    #[serde(default)]
    pub margin: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Golden {
    pub tolerance_fp32: f32,
    pub tolerance_int8: f32,
    pub clips: Vec<GoldenClip>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GoldenClip {
    pub frames: String,
    pub logits: String,
    #[serde(default)]
    pub boxes: Vec<[f32; 4]>,
}
