//! What the graphs of a package must look like, from its manifest. Pure.

use kinewatch_core::manifest::{Dtype, Layout, Manifest, Plan};

/// Name, element type and shape of a graph's input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorSpec {
    /// In the ONNX file.
    pub(crate) name: String,
    /// Without the batch axis; `None` when the graph decides (features of a backbone).
    pub(crate) shape: Option<Vec<usize>>,
    /// Dtype type.
    pub(crate) element: Dtype,
}

impl TensorSpec {
    fn new(name: &str, shape: impl Into<Vec<usize>>, element: Dtype) -> Self {
        Self { name: name.to_owned(), shape: Some(shape.into()), element }
    }

    /// `float32 [N, 3, 16, 24]`.
    pub(crate) fn describe(&self) -> String {
        match &self.shape {
            Some(shape) => format!("{} {}", element_name(self.element), shape_text(shape)),
            None => format!("{} [N, ...]", element_name(self.element)),
        }
    }
}

pub(crate) fn element_name(element: Dtype) -> &'static str {
    match element {
        Dtype::Float32 => "float32",
        Dtype::Uint8 => "uint8",
    }
}

/// `[N, 3, 16, 24]` for `[3, 16, 24]`.
pub(crate) fn shape_text(shape: &[usize]) -> String {
    let mut text = String::from("[N");
    for size in shape {
        text.push_str(&format!(", {size}"));
    }
    text.push(']');
    text
}

/// Inputs and outputs of one graph, in the order in which a plan numbers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GraphSpec {
    /// Frames (or features) first, then boxes or states.
    pub(crate) inputs: Vec<TensorSpec>,
    /// Logits (or the feature) first, then states.
    pub(crate) outputs: Vec<TensorSpec>,
}

/// The graph of `[graphs.*] model`.
pub(crate) fn main_graph(manifest: &Manifest) -> GraphSpec {
    let tensors = &manifest.tensors;
    let frame = frame_shape(manifest);
    let element = manifest.input.dtype;
    match manifest.plan {
        Plan::Clip => {
            let mut shape = vec![manifest.frames_per_window()];
            shape.extend(frame);
            let mut inputs = vec![TensorSpec::new(&tensors.input, shape, element)];
            if let Some(boxes) = &tensors.boxes {
                inputs.push(TensorSpec::new(&boxes.input, [boxes.count, 4], Dtype::Float32));
            }
            GraphSpec { inputs, outputs: vec![logits(manifest)] }
        }
        Plan::Cached => {
            let feature = tensors.feature.clone().unwrap_or_default();
            GraphSpec {
                inputs: vec![TensorSpec::new(&tensors.input, frame, element)],
                outputs: vec![TensorSpec { name: feature, shape: None, element: Dtype::Float32 }],
            }
        }
        Plan::Online => {
            let mut inputs = vec![TensorSpec::new(&tensors.input, frame, element)];
            let mut outputs = vec![logits(manifest)];
            for state in &tensors.states {
                inputs.push(TensorSpec::new(&state.input, state.shape.clone(), Dtype::Float32));
                outputs.push(TensorSpec::new(&state.output, state.shape.clone(), Dtype::Float32));
            }
            GraphSpec { inputs, outputs }
        }
    }
}

/// The graph of `[graphs.*] head`, for features of this shape.
pub(crate) fn head_graph(manifest: &Manifest, feature: &[usize]) -> GraphSpec {
    let mut shape = vec![manifest.frames_per_window()];
    shape.extend(feature);
    let name = manifest.tensors.features.clone().unwrap_or_default();
    GraphSpec { inputs: vec![TensorSpec::new(&name, shape, Dtype::Float32)], outputs: vec![logits(manifest)] }
}

fn logits(manifest: &Manifest) -> TensorSpec {
    TensorSpec::new(&manifest.tensors.logits, [manifest.labels.len()], Dtype::Float32)
}

fn frame_shape(manifest: &Manifest) -> [usize; 3] {
    let (width, height) = (manifest.input.spec.width as usize, manifest.input.spec.height as usize);
    match manifest.input.layout {
        Layout::Nchw => [3, height, width],
        Layout::Nhwc => [height, width, 3],
    }
}
