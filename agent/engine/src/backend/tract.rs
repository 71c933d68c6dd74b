//! tract: pure Rust, always there, one thread. The symbolic batch axis is bound to a number before optimising (a
//! symbolic plan is five times slower), and plans are made for one row only: larger batches are slower per row.
//!
//! tract panics on some graphs: callers wrap [`TractSession::open`] and the first run in [`crate::guard`].

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use kinewatch_core::manifest::Dtype;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::DimLike;
use tract_onnx::tract_core::plan::SimpleState;

use crate::backend::{LoadFailure, Session, TensorMut, check_batch, positions};
use crate::contract::{GraphSpec, TensorSpec, element_name};
use crate::error::BackendError;

type State = SimpleState<TypedFact, Box<dyn TypedOp>>;

/// Name of the batch axis in a package's graphs.
const BATCH_SYMBOL: &str = "N";

/// A graph on tract, batch of one.
pub(crate) struct TractSession {
    state: State,
    /// In the graph's order.
    inputs: Vec<Arc<Tensor>>,
    outputs: TVec<TValue>,
    input_places: Vec<usize>,
    output_places: Vec<usize>,
    output_shapes: Vec<Vec<usize>>,
}

impl TractSession {
    /// Loads, checks, optimises and runs once on zeros.
    pub(crate) fn open(path: &Path, spec: &GraphSpec) -> Result<Self, LoadFailure> {
        let model = tract_onnx::onnx().model_for_path(path).map_err(load)?;
        check_operators(&model)?;
        let model = model.into_typed().map_err(load)?;
        let input_places = check_inputs(&model, spec)?;
        let output_names = outlet_names(&model, model.output_outlets().map_err(load)?);
        let output_places = positions("output", spec.outputs.iter().map(|o| o.name.as_str()), &output_names)?;
        let symbol = model.symbols.sym(BATCH_SYMBOL);
        let model = model.set_symbols(&HashMap::from([(symbol, TDim::Val(1))])).map_err(load)?;
        let plan = model.into_optimized().and_then(IntoRunnable::into_runnable).map_err(load)?;
        let state = plan.spawn().map_err(load)?;
        let mut slots: Vec<Option<Arc<Tensor>>> = vec![None; spec.inputs.len()];
        for (tensor, &place) in spec.inputs.iter().zip(&input_places) {
            slots[place] = Some(Arc::new(zeros(tensor).map_err(load)?));
        }
        let inputs = slots.into_iter().flatten().collect();
        let mut session =
            Self { state, inputs, outputs: tvec![], input_places, output_places, output_shapes: Vec::new() };
        session.run().map_err(LoadFailure::WarmUp)?;
        session.output_shapes = session.check_outputs(spec)?;
        Ok(session)
    }

    fn check_outputs(&self, spec: &GraphSpec) -> Result<Vec<Vec<usize>>, LoadFailure> {
        let mut shapes = Vec::new();
        for (tensor, &place) in spec.outputs.iter().zip(&self.output_places) {
            let value = &self.outputs[place];
            let found = value.shape();
            let fits = value.datum_type() == f32::datum_type()
                && found.first() == Some(&1)
                && tensor.shape.as_deref().is_none_or(|shape| shape == &found[1..]);
            if !fits {
                return Err(mismatch("output", tensor, value.datum_type(), &format!("{found:?} for a batch of 1")));
            }
            shapes.push(found[1..].to_vec());
        }
        Ok(shapes)
    }
}

impl Session for TractSession {
    fn batch(&self) -> usize {
        1
    }

    #[allow(unsafe_code)]
    fn input(&mut self, index: usize) -> TensorMut<'_> {
        // An output that is an unchanged input shares its buffer; give it up, so that writing needs no copy.
        self.outputs.clear();
        let tensor = Arc::make_mut(&mut self.inputs[self.input_places[index]]);
        if tensor.datum_type() == u8::datum_type() {
            // SAFETY: the element type was just looked at, and `zeros` makes tensors in plain memory.
            TensorMut::U8(unsafe { tensor.as_slice_mut_unchecked::<u8>() })
        } else {
            // SAFETY: `zeros` makes tensors of bytes or of 32-bit floats only, in plain memory.
            TensorMut::F32(unsafe { tensor.as_slice_mut_unchecked::<f32>() })
        }
    }

    fn run(&mut self) -> Result<(), BackendError> {
        self.outputs.clear();
        let inputs = self.inputs.iter().map(|tensor| TValue::from_const(Arc::clone(tensor))).collect();
        self.outputs = self.state.run(inputs).map_err(backend)?;
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        let value = self.outputs.get(self.output_places[index]);
        value.and_then(|value| value.as_plain_ram()?.as_slice::<f32>().ok()).unwrap_or_default()
    }

    fn output_shape(&self, index: usize) -> &[usize] {
        &self.output_shapes[index]
    }
}

/// Nodes of the graph in a file that a back end has to compute, whatever it makes of them: not those that only name a value or
/// tell how it is quantised. `None` where it cannot be read.
pub(crate) fn computed_nodes(path: &Path) -> Option<usize> {
    const FREE: [&str; 4] = ["Constant", "Identity", "QuantizeLinear", "DequantizeLinear"];
    let graph = tract_onnx::onnx().proto_model_for_path(path).ok()?.graph?;
    Some(graph.node.iter().filter(|node| !FREE.contains(&node.op_type.as_str())).count())
}

/// tract reads an operator that it does not know as one by the name of `Unimplemented(…)`.
fn check_operators(model: &InferenceModel) -> Result<(), LoadFailure> {
    let unknown = |op: &str| Some(op.strip_prefix("Unimplemented(")?.strip_suffix(')')?.to_owned());
    let names: BTreeSet<String> = model.nodes().iter().filter_map(|node| unknown(&node.op.name())).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(LoadFailure::Operators(names.into_iter().collect::<Vec<_>>().join(", ")))
}

fn check_inputs(model: &TypedModel, spec: &GraphSpec) -> Result<Vec<usize>, LoadFailure> {
    let outlets = model.input_outlets().map_err(load)?;
    let places = positions("input", spec.inputs.iter().map(|i| i.name.as_str()), &outlet_names(model, outlets))?;
    for (tensor, &place) in spec.inputs.iter().zip(&places) {
        let fact = model.outlet_fact(outlets[place]).map_err(load)?;
        let dims: Vec<Option<usize>> = fact.shape.iter().map(|dim| dim.to_usize().ok()).collect();
        let wanted = tensor.shape.clone().unwrap_or_default();
        let type_fits = fact.datum_type == datum_type(tensor.element);
        let shape_fits = dims.len() == wanted.len() + 1 && dims[1..].iter().zip(&wanted).all(|(d, w)| *d == Some(*w));
        if !type_fits || !shape_fits {
            return Err(mismatch("input", tensor, fact.datum_type, &symbolic(&fact.shape)));
        }
        check_batch(tensor, dims[0], 1)?;
    }
    Ok(places)
}

fn mismatch(kind: &str, tensor: &TensorSpec, found: DatumType, shape: &str) -> LoadFailure {
    let found = match found {
        DatumType::F32 => element_name(Dtype::Float32).to_owned(),
        DatumType::U8 => element_name(Dtype::Uint8).to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    LoadFailure::Contract(format!(
        "the {kind} `{}` must be {}, the graph has {found} {shape}",
        tensor.name,
        tensor.describe()
    ))
}

fn symbolic(shape: &[TDim]) -> String {
    format!("[{}]", shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

fn outlet_names(model: &TypedModel, outlets: &[OutletId]) -> Vec<String> {
    let name = |outlet: &OutletId| model.outlet_label(*outlet).unwrap_or(&model.node(outlet.node).name).to_owned();
    outlets.iter().map(name).collect()
}

fn zeros(tensor: &TensorSpec) -> TractResult<Tensor> {
    let mut shape = vec![1];
    shape.extend(tensor.shape.as_deref().unwrap_or_default());
    Tensor::zero_dt(datum_type(tensor.element), &shape)
}

fn datum_type(element: Dtype) -> DatumType {
    match element {
        Dtype::Float32 => f32::datum_type(),
        Dtype::Uint8 => u8::datum_type(),
    }
}

fn load(error: impl Into<TractError>) -> LoadFailure {
    LoadFailure::Load(backend(error))
}

fn backend(error: impl Into<TractError>) -> BackendError {
    let error: TractError = error.into();
    // The chain ends with the reason; the steps before it name the node.
    BackendError::new(error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": "))
}
