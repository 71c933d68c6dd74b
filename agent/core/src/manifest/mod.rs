//! The contract of a model package, `model.toml`: parsed and checked once, trusted afterwards.
//!
//! Reads no files: the caller hands in the text and bounds its size (1 MiB is plenty). Fields are public and read-only
//! by convention; nothing but [`Manifest::parse`] makes one.

mod actions;
mod alike;
mod error;
mod files;
mod params;
mod schedule;
mod score_model;
mod validate;
mod wire;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use alike::{labels_changed, same_frames};
pub use error::ManifestError;
pub use params::{DecoderKind, DecoderOverride, DecoderParams, Overrides};
pub use schedule::{Period, TimeOfDay};
pub use score_model::ScoreModel;

use crate::frame::FrameSpec;
use crate::region::Region;

/// The only `format` that this agent reads.
pub const FORMAT: i64 = 1;
/// Most labels of a model.
pub const MAX_LABELS: usize = 1000;
/// Most boxes of a model, and most zones of a camera.
pub const MAX_BOXES: usize = 64;

/// A validated model package contract.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// A valid [`crate::name::Name`].
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// Family of the network, for people.
    pub architecture: String,
    /// How the graphs are run.
    pub plan: Plan,
    /// One line.
    pub description: String,
    /// SPDX expression of the weights.
    pub license: String,
    /// Where the training data came from.
    pub provenance: Vec<String>,
    /// What it cannot be run without.
    pub requires: Option<Requires>,
    /// What the graph reads.
    pub input: Input,
    /// Which frames it reads, and when.
    pub sampling: Sampling,
    /// What the logits mean.
    pub output: Output,
    /// Names of graph inputs and outputs.
    pub tensors: Tensors,
    /// ONNX files.
    pub graphs: Graphs,
    /// One per logit, in order.
    pub labels: Vec<Label>,
    /// Actions made of labels in order.
    pub sequences: Vec<Sequence>,
    /// Labels of which one at most goes on at a time.
    pub exclusive: Vec<Exclusive>,
    /// Clips with known logits.
    pub golden: Golden,
    /// SHA-256 (lower-case hex) of every file but `model.toml`, by relative path.
    pub files: BTreeMap<String, String>,
}

/// What turns scores into actions: a part of every package, and all that a package of decoder settings has.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoding {
    /// Of the package.
    pub name: String,
    /// Of the package.
    pub version: String,
    /// Usual time between scores, ns.
    pub stride: i64,
    /// Index of the label that means "nothing"; never decoded.
    pub background: Option<usize>,
    /// Labels, in the order of the scores.
    pub labels: Vec<Label>,
    /// Actions made of labels in order.
    pub sequences: Vec<Sequence>,
    /// Labels of which one at most goes on at a time.
    pub exclusive: Vec<Exclusive>,
}

/// How the graphs are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plan {
    /// All frames of a window go through the graph together.
    Clip,
    /// Each frame goes through a backbone once; a head reads the features of a window.
    Cached,
    /// One frame and the states of the previous one.
    Online,
}

/// What a package cannot be run without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requires {
    /// The only back end that runs it.
    pub backend: RequiredBackend,
    /// Why, for people: one line.
    pub because: String,
}

/// A back end that a package may insist on. The other one is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequiredBackend {
    /// ONNX Runtime.
    Ort,
}

/// What the graph reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Frame size and how it is made.
    pub spec: FrameSpec,
    /// Axis order.
    pub layout: Layout,
    /// Channel order.
    pub colour: Colour,
    /// Element type.
    pub dtype: Dtype,
    /// Per channel in the order of `colour`, in byte units: `value = (byte - mean) / std`. Unused for `uint8`.
    pub mean: [f32; 3],
    /// Per channel, above zero.
    pub std: [f32; 3],
}

/// Axis order; clips have a time axis after the batch axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Channels, rows, columns.
    Nchw,
    /// Rows, columns, channels.
    Nhwc,
}

/// Channel order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}

/// Element type of the graph's image input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Normalised by the agent.
    Float32,
    /// Bytes; the graph normalises.
    Uint8,
}

/// Which frames the model reads, and when. Times in nanoseconds of media time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Sampled frames per second.
    pub rate_hz: f64,
    /// Segments of a window.
    pub segments: usize,
    /// Consecutive sampled frames of a segment.
    pub snippet: usize,
    /// Span of a window, ns.
    pub window: i64,
    /// Between windows, ns.
    pub stride: i64,
    /// A wanted time without a frame nearer than this spoils the window, ns.
    pub max_hole: i64,
}

/// What the logits mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Output {
    /// Which span a score speaks of.
    pub scores: ScoreKind,
    /// From logits to probabilities.
    pub activation: Activation,
    /// Logits are divided by it; above zero.
    pub temperature: f32,
    /// Index of the label that means "nothing"; never decoded.
    pub background: Option<usize>,
}

/// Which span a score speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScoreKind {
    /// The newest frame.
    Frame,
    /// The whole window.
    Clip,
}

/// From logits to probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// One label at a time.
    Softmax,
    /// Labels are independent.
    Sigmoid,
}

/// Names of graph inputs and outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensors {
    /// Image input of the model (cached: of the backbone).
    pub input: String,
    /// Output of the model (cached: of the head).
    pub logits: String,
    /// Output of the backbone; `Some` exactly for [`Plan::Cached`].
    pub feature: Option<String>,
    /// Input of the head; `Some` exactly for [`Plan::Cached`].
    pub features: Option<String>,
    /// Carried from frame to frame; only for [`Plan::Online`].
    pub states: Vec<State>,
    /// Regions that the model reads beside the frames; only for [`Plan::Clip`].
    pub boxes: Option<Boxes>,
}

/// Regions of the picture: float32 `[N, count, 4]`, each x0, y0, x1, y1 as fractions of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boxes {
    /// Graph input.
    pub input: String,
    /// Boxes of a row, 1 to [`MAX_BOXES`].
    pub count: usize,
}

/// A tensor carried from frame to frame, zero at the start of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Graph input.
    pub input: String,
    /// Graph output that becomes the next input.
    pub output: String,
    /// Without the batch axis.
    pub shape: Vec<usize>,
}

/// ONNX files by precision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graphs {
    /// Always there.
    pub fp32: Graph,
    /// For ONNX Runtime.
    pub int8: Option<Graph>,
}

/// The files of one precision, relative to the package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// The model (cached: the backbone).
    pub model: String,
    /// `Some` exactly for [`Plan::Cached`].
    pub head: Option<String>,
}

/// The meaning of one logit.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// A valid [`crate::name::Name`].
    pub name: String,
    /// Whether its actions become events; never for the background.
    pub publish: bool,
    /// `None`: scored, never decoded.
    pub decoder: Option<DecoderParams>,
}

/// An action made of labels in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Published under this label.
    pub name: String,
    /// Indices of labels, at least two.
    pub parts: Vec<usize>,
    /// A part begins at most this long after the part before it ended, ns.
    pub within: i64,
    /// The whole begins at most this long before its last part does, ns; one that would be longer begins later.
    pub longest: Option<i64>,
}

/// Labels of which one at most goes on at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Exclusive {
    /// Indices of labels, at least two.
    pub labels: Vec<usize>,
    /// How much likelier another must be than the one that goes on to take its place, log-odds.
    pub margin: f64,
}

/// Clips with known logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    /// Largest absolute difference of a logit, fp32 graph on any back end.
    pub tolerance_fp32: f32,
    /// The same for the int8 graph.
    pub tolerance_int8: f32,
    /// At least one.
    pub clips: Vec<GoldenClip>,
}

/// One clip: paths relative to the package.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldenClip {
    /// uint8 `[F, H, W, 3]` RGB.
    pub frames: String,
    /// float32 `[S, C]`.
    pub logits: String,
    /// Of every window; at most as many as [`Boxes::count`], the rest are the whole picture.
    pub boxes: Vec<Region>,
}

impl Manifest {
    /// Parses and checks the text of a `model.toml`.
    ///
    /// # Errors
    /// Not TOML, an unknown or missing key, or a value that cannot be right; the first fault found is told.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let package = toml::from_str::<wire::Package>(text).map_err(|e| error::from_toml(text, &e))?;
        validate::package(package)
    }

    /// What turns the scores of this model into actions.
    #[must_use]
    pub fn decoding(&self) -> Decoding {
        Decoding {
            name: self.name.clone(),
            version: self.version.clone(),
            stride: self.sampling.stride,
            background: self.output.background,
            labels: self.labels.clone(),
            sequences: self.sequences.clone(),
            exclusive: self.exclusive.clone(),
        }
    }

    /// Labels that the actions of this model are published under.
    pub fn published(&self) -> impl Iterator<Item = &str> {
        published(&self.labels, &self.sequences)
    }

    /// Checks that `labels.txt` names the labels of the manifest, one a line, in the same order.
    ///
    /// # Errors
    /// Another count, or the first line that differs.
    pub fn check_labels_txt(&self, text: &str) -> Result<(), ManifestError> {
        validate::labels_txt(&self.labels, text)
    }

    /// Sampled frames in a window.
    #[must_use]
    pub fn frames_per_window(&self) -> usize {
        self.sampling.segments * self.sampling.snippet
    }

    /// Elements of one frame as the graph reads it: three channels.
    #[must_use]
    pub fn input_elements(&self) -> usize {
        self.input.spec.bytes()
    }
}

impl Decoding {
    /// Parses and checks the text of a `model.toml`: of a model's package, or of one with decoder settings alone, which
    /// has `format`, `name`, `version`, `stride_s`, perhaps `background`, `[[labels]]` and `[[sequences]]`.
    ///
    /// # Errors
    /// As [`Manifest::parse`].
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let alone = text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("stride_s"));
        if !alone {
            return Manifest::parse(text).map(|manifest| manifest.decoding());
        }
        let settings = toml::from_str::<wire::Decoding>(text).map_err(|e| error::from_toml(text, &e))?;
        actions::decoding(settings)
    }

    /// Labels that actions are published under.
    pub fn published(&self) -> impl Iterator<Item = &str> {
        published(&self.labels, &self.sequences)
    }
}

fn published<'a>(labels: &'a [Label], sequences: &'a [Sequence]) -> impl Iterator<Item = &'a str> {
    let labels = labels.iter().filter(|l| l.publish && l.decoder.is_some()).map(|l| l.name.as_str());
    labels.chain(sequences.iter().map(|s| s.name.as_str()))
}

impl Sampling {
    /// Time between sampled frames, ns.
    #[must_use]
    pub fn frame_interval(&self) -> i64 {
        crate::time::seconds_to_nanos(1.0 / self.rate_hz)
    }
}

#[cfg(test)]
mod tests;
