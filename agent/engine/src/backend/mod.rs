//! The two back ends behind one trait: a graph loaded for one batch size, with its input buffers.
//!
//! A session is checked when it is made: its inputs and outputs are those of a `GraphSpec`. It belongs to one thread at a
//! time.

pub(crate) mod ort;
pub(crate) mod profile;
pub(crate) mod provider;
pub(crate) mod tract;

use crate::contract::TensorSpec;
use crate::error::BackendError;

/// A graph with fixed shapes, ready to run.
pub(crate) trait Session: Send {
    /// Rows of axis 0.
    fn batch(&self) -> usize;

    /// Buffer of the input at `index` of the `GraphSpec`, `batch` rows. Kept between runs.
    fn input(&mut self, index: usize) -> TensorMut<'_>;

    /// Runs the graph on the inputs as they are.
    fn run(&mut self) -> Result<(), BackendError>;

    /// Values of the output at `index` of the `GraphSpec` from the last successful run, `batch` rows.
    fn output(&self, index: usize) -> &[f32];

    /// Shape of that output without the batch axis. Known after the first run.
    fn output_shape(&self, index: usize) -> &[usize];
}

/// An input buffer.
pub(crate) enum TensorMut<'a> {
    /// 32-bit floats.
    F32(&'a mut [f32]),
    /// Bytes.
    U8(&'a mut [u8]),
}

impl<'a> TensorMut<'a> {
    /// Row `row` of `rows` equal ones.
    pub(crate) fn row(self, row: usize, rows: usize) -> TensorMut<'a> {
        match self {
            Self::F32(all) => TensorMut::F32(part(all, row, rows)),
            Self::U8(all) => TensorMut::U8(part(all, row, rows)),
        }
    }

    /// The floats; empty for bytes, which a checked state or feature input never is.
    pub(crate) fn floats(self) -> &'a mut [f32] {
        match self {
            Self::F32(all) => all,
            Self::U8(_) => &mut [],
        }
    }
}

fn part<T>(all: &mut [T], row: usize, rows: usize) -> &mut [T] {
    let size = all.len() / rows.max(1);
    &mut all[row * size..(row + 1) * size]
}

/// Row `row` of `rows` equal ones.
pub(crate) fn row_of(all: &[f32], row: usize, rows: usize) -> &[f32] {
    let size = all.len() / rows.max(1);
    &all[row * size..(row + 1) * size]
}

/// Why a session could not be made.
#[derive(Debug)]
pub(crate) enum LoadFailure {
    /// The back end refuses the file.
    Load(BackendError),
    /// It does not know these operators, separated by commas.
    Operators(String),
    /// The graph is not the one described.
    Contract(String),
    /// It loads, but the first run fails.
    WarmUp(BackendError),
    /// The execution provider cannot be had.
    Provider(BackendError),
}

/// Position in the graph of each name, after checking that the graph has these names and no others.
pub(crate) fn positions<'a>(
    kind: &str,
    wanted: impl Iterator<Item = &'a str>,
    found: &[String],
) -> Result<Vec<usize>, LoadFailure> {
    let wanted: Vec<&str> = wanted.collect();
    let mut places = Vec::with_capacity(wanted.len());
    for name in &wanted {
        let place = found.iter().position(|other| other == name).ok_or_else(|| {
            LoadFailure::Contract(format!("model.toml names the {kind} `{name}`, the graph has {}", listed(found)))
        })?;
        places.push(place);
    }
    match found.iter().find(|name| !wanted.contains(&name.as_str())) {
        Some(extra) => Err(LoadFailure::Contract(format!(
            "the graph has the {kind} `{extra}`, model.toml names only {}",
            listed(&wanted)
        ))),
        None => Ok(places),
    }
}

fn listed<S: AsRef<str>>(names: &[S]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Batch size that the graph allows an input: `N` stands for any, a number for itself.
pub(crate) fn check_batch(input: &TensorSpec, axis: Option<usize>, batch: usize) -> Result<(), LoadFailure> {
    match axis {
        Some(fixed) if fixed != batch => Err(LoadFailure::Contract(format!(
            "axis 0 of `{}` must be the symbol N or {batch}, the graph has {fixed}",
            input.name
        ))),
        _ => Ok(()),
    }
}
