//! ONNX Runtime, loaded at run time. One session is one graph with fixed shapes on one execution provider.
//!
//! Input values are made once and written in place. Outputs are copied into buffers made once; what ONNX Runtime and
//! `ort` allocate inside a run is theirs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kinewatch_core::manifest::Dtype;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::SessionInputValue;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, Outlet, Tensor, TensorElementType, ValueType};

use crate::backend::{LoadFailure, Session, TensorMut, check_batch, positions, profile, provider};
use crate::cache::Place;
use crate::contract::{GraphSpec, TensorSpec, element_name};
use crate::error::BackendError;
use crate::options::{Precision, Provider};

/// How a session is made.
pub(crate) struct OrtSetup<'a> {
    pub(crate) environment: &'a Environment,
    /// For the names of cached engines.
    pub(crate) model: &'a str,
    pub(crate) provider: Provider,
    /// What the caller's list permits beside it.
    pub(crate) allowed: &'a [Provider],
    pub(crate) precision: Precision,
    /// A node on the CPU is an error.
    pub(crate) required: bool,
    pub(crate) threads: usize,
    pub(crate) batch: usize,
    /// Where TensorRT keeps what it builds.
    pub(crate) place: Option<&'a Place>,
}

/// A graph on ONNX Runtime.
pub(crate) struct OrtSession {
    session: ort::session::Session,
    /// In the graph's order.
    inputs: Vec<SessionInputValue<'static>>,
    /// In the order of the spec, as are the next two.
    outputs: Vec<Vec<f32>>,
    output_shapes: Vec<Vec<usize>>,
    output_places: Vec<usize>,
    input_places: Vec<usize>,
    batch: usize,
}

impl OrtSession {
    /// Loads, checks and runs once on zeros, with a profile of that run: the nodes that each provider computed.
    pub(crate) fn open(
        path: &Path,
        spec: &GraphSpec,
        setup: &OrtSetup<'_>,
    ) -> Result<(Self, BTreeMap<String, usize>), LoadFailure> {
        let mut opened = Self {
            session: commit(path, setup)?,
            inputs: Vec::new(),
            outputs: vec![Vec::new(); spec.outputs.len()],
            output_shapes: Vec::new(),
            output_places: Vec::new(),
            input_places: Vec::new(),
            batch: setup.batch,
        };
        let outcome = opened.check_and_warm(spec);
        // Also after a failure: the profile is a file that somebody has to delete.
        let nodes = opened.session.end_profiling().map(|name| profile::take(&PathBuf::from(name)));
        outcome?;
        Ok((opened, nodes.map_err(load)?))
    }

    fn check_and_warm(&mut self, spec: &GraphSpec) -> Result<(), LoadFailure> {
        self.input_places = check(self.session.inputs(), &spec.inputs, "input", self.batch)?;
        for (tensor, &place) in spec.inputs.iter().zip(&self.input_places) {
            check_batch(tensor, self.session.inputs().get(place).and_then(batch_axis), self.batch)?;
        }
        self.output_places = check(self.session.outputs(), &spec.outputs, "output", self.batch)?;
        let mut slots: Vec<Option<SessionInputValue<'static>>> = spec.inputs.iter().map(|_| None).collect();
        for (tensor, &place) in spec.inputs.iter().zip(&self.input_places) {
            slots[place] = Some(zeros(tensor, self.batch).map_err(load)?.into());
        }
        self.inputs = slots.into_iter().flatten().collect();
        self.size_outputs(spec)?;
        self.run().map_err(LoadFailure::WarmUp)
    }

    /// The first run: real output shapes, which also checks those that the graph leaves open.
    fn size_outputs(&mut self, spec: &GraphSpec) -> Result<(), LoadFailure> {
        let results = self.session.run(self.inputs.as_slice()).map_err(|e| LoadFailure::WarmUp(backend(&e)))?;
        for ((tensor, &place), buffer) in spec.outputs.iter().zip(&self.output_places).zip(&mut self.outputs) {
            let (shape, values) =
                results[place].try_extract_tensor::<f32>().map_err(|e| LoadFailure::WarmUp(backend(&e)))?;
            let shape: Vec<usize> = shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
            let fits = shape.first() == Some(&self.batch)
                && tensor.shape.as_deref().is_none_or(|wanted| wanted == &shape[1..]);
            if !fits {
                let found = format!("{shape:?} for a batch of {}", self.batch);
                return Err(mismatch("output", tensor, TensorElementType::Float32, &found));
            }
            buffer.resize(values.len(), 0.0);
            self.output_shapes.push(shape[1..].to_vec());
        }
        Ok(())
    }
}

impl Session for OrtSession {
    fn batch(&self) -> usize {
        self.batch
    }

    fn input(&mut self, index: usize) -> TensorMut<'_> {
        let value: Option<&mut DynValue> = match &mut self.inputs[self.input_places[index]] {
            SessionInputValue::Owned(value) => Some(value),
            _ => None,
        };
        let Some(value) = value else { return TensorMut::F32(&mut []) };
        if *value.data_type() == TensorElementType::Uint8 {
            TensorMut::U8(value.try_extract_tensor_mut::<u8>().map(|(_, data)| data).unwrap_or_default())
        } else {
            TensorMut::F32(value.try_extract_tensor_mut::<f32>().map(|(_, data)| data).unwrap_or_default())
        }
    }

    fn run(&mut self) -> Result<(), BackendError> {
        let results = self.session.run(self.inputs.as_slice()).map_err(|e| backend(&e))?;
        for (&place, buffer) in self.output_places.iter().zip(&mut self.outputs) {
            let (_, values) = results[place].try_extract_tensor::<f32>().map_err(|e| backend(&e))?;
            if values.len() != buffer.len() {
                return Err(BackendError::new("an output changed its size between two runs"));
            }
            buffer.copy_from_slice(values);
        }
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        &self.outputs[index]
    }

    fn output_shape(&self, index: usize) -> &[usize] {
        &self.output_shapes[index]
    }
}

fn commit(path: &Path, setup: &OrtSetup<'_>) -> Result<ort::session::Session, LoadFailure> {
    let prefix = profile::prefix();
    let session = commit_profiled(path, setup, &prefix);
    if session.is_err() {
        profile::discard(&prefix);
    }
    session
}

fn commit_profiled(path: &Path, setup: &OrtSetup<'_>, prefix: &Path) -> Result<ort::session::Session, LoadFailure> {
    let builder = configure(setup, prefix).map_err(|e| load(&e))?;
    let OrtSetup { model, provider, allowed, precision, batch, place, .. } = *setup;
    let providers = provider::dispatches(model, provider, allowed, precision, batch, place);
    let gpu = !providers.is_empty();
    let unavailable = |e: &dyn std::fmt::Display| LoadFailure::Provider(BackendError::new(e));
    let mut builder = builder.with_execution_providers(providers).map_err(|e| unavailable(&e))?;
    if gpu && setup.required {
        builder = builder.with_disable_cpu_fallback().map_err(|e| unavailable(&e))?;
    }
    builder.commit_from_file(path).map_err(|e| if gpu { unavailable(&e) } else { load(&e) })
}

fn configure(setup: &OrtSetup<'_>, prefix: &Path) -> ort::Result<SessionBuilder> {
    let builder = ort::session::Session::builder(setup.environment)?
        .with_log_level(LogLevel::Error)?
        .with_intra_threads(setup.threads.max(1))?
        .with_inter_threads(1)?
        // A watching device is idle most of the time; spinning threads would burn that time.
        .with_intra_op_spinning(false)?
        .with_dimension_override("N", i64::try_from(setup.batch).unwrap_or(1))?
        .with_profiling(prefix)?;
    Ok(builder)
}

/// Places of the tensors in the graph, once their names, element types and known sizes fit.
fn check(outlets: &[Outlet], tensors: &[TensorSpec], kind: &str, batch: usize) -> Result<Vec<usize>, LoadFailure> {
    let names: Vec<String> = outlets.iter().map(|outlet| outlet.name().to_owned()).collect();
    let places = positions(kind, tensors.iter().map(|tensor| tensor.name.as_str()), &names)?;
    for (tensor, &place) in tensors.iter().zip(&places) {
        let ValueType::Tensor { ty, shape, .. } = outlets[place].dtype() else {
            return Err(LoadFailure::Contract(format!("the {kind} `{}` is not a tensor", tensor.name)));
        };
        let ty = *ty;
        let fits = |wanted: &Vec<usize>| {
            shape.len() == wanted.len() + 1
                && shape[1..].iter().zip(wanted).all(|(&found, &size)| found < 0 || usize::try_from(found) == Ok(size))
        };
        if ty != element_type(tensor.element) || !tensor.shape.as_ref().is_none_or(fits) {
            let sizes: Vec<String> = shape[1..].iter().map(ToString::to_string).collect();
            let first = match shape.first() {
                Some(&found) if usize::try_from(found) != Ok(batch) => found.to_string(),
                _ => "N".to_owned(),
            };
            let found = [vec![first], sizes].concat().join(", ");
            return Err(mismatch(kind, tensor, ty, &format!("[{found}]")));
        }
    }
    Ok(places)
}

fn batch_axis(outlet: &Outlet) -> Option<usize> {
    match outlet.dtype() {
        ValueType::Tensor { shape, .. } => shape.first().and_then(|&size| usize::try_from(size).ok()),
        _ => None,
    }
}

fn mismatch(kind: &str, tensor: &TensorSpec, found: TensorElementType, shape: &str) -> LoadFailure {
    let found = match found {
        TensorElementType::Float32 => element_name(Dtype::Float32).to_owned(),
        TensorElementType::Uint8 => element_name(Dtype::Uint8).to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    LoadFailure::Contract(format!(
        "the {kind} `{}` must be {}, the graph has {found} {shape}",
        tensor.name,
        tensor.describe()
    ))
}

fn zeros(tensor: &TensorSpec, batch: usize) -> ort::Result<DynValue> {
    let mut shape = vec![batch];
    shape.extend(tensor.shape.as_deref().unwrap_or_default());
    let elements = shape.iter().product();
    Ok(match tensor.element {
        Dtype::Float32 => Tensor::from_array((shape, vec![0_f32; elements]))?.into_dyn(),
        Dtype::Uint8 => Tensor::from_array((shape, vec![0_u8; elements]))?.into_dyn(),
    })
}

fn element_type(element: Dtype) -> TensorElementType {
    match element {
        Dtype::Float32 => TensorElementType::Float32,
        Dtype::Uint8 => TensorElementType::Uint8,
    }
}

fn load(error: impl std::fmt::Display) -> LoadFailure {
    LoadFailure::Load(BackendError::new(error))
}

fn backend(error: &ort::Error) -> BackendError {
    BackendError::new(error)
}
