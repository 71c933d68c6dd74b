//! What can go wrong when a model is opened, when it runs, and when an ONNX Runtime library is looked for.
//!
//! Every message names the file, what was expected, what was found, and what to do.

use std::fmt;
use std::path::PathBuf;

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The same call may succeed later.
    Retry,
    /// Go on without this model, back end or request.
    Degrade,
    /// The package or the configuration has to be changed.
    Fatal,
}

/// Something wrong inside a back end, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct BackendError {
    /// One line.
    pub detail: String,
}

impl BackendError {
    pub(crate) fn new(detail: impl fmt::Display) -> Self {
        Self { detail: one_line(&detail.to_string()) }
    }
}

/// Collapses a multi-line message; back ends write paragraphs.
pub(crate) fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.trim_end_matches('.').to_owned()
}

/// Whether a message is about memory that could not be had; each library says it in its own words, Rust's among them.
#[must_use]
pub fn is_of_memory(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [
        "bad_alloc",
        "bad allocation",
        "failed to allocate",
        "cannot allocate memory",
        "out of memory",
        "outofmemory",
        "alloc_failed",
        "memory allocation of",
        "memory exhausted",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// A model package could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file of the package cannot be read.
    #[error("{}: cannot be read: {source}; reinstall the model package", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The back end refuses the graph.
    #[error("{}: {backend} cannot load it as an ONNX model: {detail}; the file is damaged or uses an unsupported operator: reinstall or re-export it", path.display())]
    Load {
        /// The ONNX file.
        path: PathBuf,
        /// `tract` or `ort`.
        backend: &'static str,
        /// In the back end's words.
        detail: String,
    },
    /// The back end does not know operators of the graph.
    #[error("{}: {backend} has no operator {operators}; run it on ONNX Runtime (install it and name it with ort_library), or export the graph without it", path.display())]
    Operators {
        /// The ONNX file.
        path: PathBuf,
        /// `tract` or `ort`.
        backend: &'static str,
        /// Their names, in ONNX.
        operators: String,
    },
    /// The graph is not what `model.toml` says.
    #[error("{}: does not fit model.toml: {mismatch}; correct [input], [tensors] or [labels] in model.toml, or export the graph again", path.display())]
    Contract {
        /// The ONNX file.
        path: PathBuf,
        /// What was expected and what was found.
        mismatch: String,
    },
    /// The graph computes NaN or infinity.
    #[error("{}: on {backend} its output `{tensor}` is not finite for the golden clips; the weights are damaged: reinstall or re-export it", path.display())]
    NotFinite {
        /// The ONNX file.
        path: PathBuf,
        /// `tract` or `ort`.
        backend: &'static str,
        /// Name of the output.
        tensor: String,
    },
    /// An engine has to be built first, and not here.
    #[error(
        "model {model}: its engine for {provider} is not built yet; the daemon builds it when it starts, which may take minutes"
    )]
    NotBuilt {
        /// Package name.
        model: String,
        /// `tensorrt`.
        provider: &'static str,
    },
    /// The first run failed.
    #[error("{}: {backend} loads it but cannot run it: {detail}; re-export it without the operator named", path.display())]
    WarmUp {
        /// The ONNX file.
        path: PathBuf,
        /// `tract` or `ort`.
        backend: &'static str,
        /// In the back end's words.
        detail: String,
    },
    /// `labels.txt` and `[[labels]]` differ.
    #[error("{}: {mismatch}; it must list the [[labels]] of model.toml, one a line, in order", path.display())]
    Labels {
        /// `labels.txt`.
        path: PathBuf,
        /// What was expected and what was found.
        mismatch: String,
    },
    /// A golden file is not what it must be.
    #[error("{}: {detail}; package the model again", path.display())]
    GoldenFile {
        /// The npy file.
        path: PathBuf,
        /// What was expected and what was found.
        detail: String,
    },
    /// The logits are not those of the golden clip.
    #[error(
        "{}: {backend} ({precision}) computes other logits: row {row}, label {label}: expected {expected}, found {found}, \
         off by {difference}, tolerance {tolerance}; this back end must not run this model here: choose another backend or precision",
        path.display()
    )]
    Golden {
        /// The npy file of the expected logits.
        path: PathBuf,
        /// `tract` or `ort`.
        backend: &'static str,
        /// Arithmetic.
        precision: &'static str,
        /// Row of the logits.
        row: usize,
        /// Name of the label.
        label: String,
        /// Logit of the package.
        expected: f32,
        /// Logit computed.
        found: f32,
        /// Absolute.
        difference: f32,
        /// Of the package.
        tolerance: f32,
    },
    /// The package lacks the file asked for.
    #[error("model {model}: no [graphs.{precision}] in model.toml; use precision = \"auto\", or package that file")]
    NoGraph {
        /// Package name.
        model: String,
        /// Precision asked for.
        precision: &'static str,
    },
    /// The package insists on ONNX Runtime, and the options or this machine do not have it.
    #[error(
        "needs ONNX Runtime ({because}), but {missing}; install ONNX Runtime, name it with ort_library, and set backend to \
         \"auto\" or \"ort\""
    )]
    NeedsOrt {
        /// The package's reason.
        because: String,
        /// What stands in the way.
        missing: String,
    },
    /// ONNX Runtime is asked for and cannot be had.
    #[error("backend ort: {0}")]
    Library(#[from] ProbeError),
    /// The execution provider asked for cannot be had.
    #[error("{}: execution provider {provider} cannot run it: {detail}; install what it needs, or {otherwise}", path.display())]
    Provider {
        /// Name as in the configuration.
        provider: &'static str,
        /// The ONNX file.
        path: PathBuf,
        /// In ONNX Runtime's words.
        detail: String,
        /// What else may be done.
        otherwise: &'static str,
    },
    /// It runs, but not on the provider that is required.
    #[error(
        "{}: require_provider = \"{required}\", but {computes} computes it ({nodes}): export it with operators that \
         {required} takes, or set require_provider to \"{computes}\", or remove it", path.display()
    )]
    OtherProvider {
        /// The ONNX file.
        path: PathBuf,
        /// Name as in the configuration.
        required: &'static str,
        /// That of the provider with most nodes.
        computes: &'static str,
        /// Of each provider.
        nodes: String,
    },
    /// Options that contradict each other.
    #[error("{0}")]
    Options(String),
}

impl OpenError {
    /// What to do.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Read { .. } | Self::NotBuilt { .. } => Disposition::Retry,
            Self::Library(_)
            | Self::NeedsOrt { .. }
            | Self::Operators { .. }
            | Self::Provider { .. }
            | Self::OtherProvider { .. }
            | Self::Golden { .. } => Disposition::Degrade,
            _ => Disposition::Fatal,
        }
    }
}

/// A request could not be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// Removed, or of another model.
    #[error("model {model}: request {request} names a stream that was removed")]
    UnknownStream {
        /// Package name.
        model: String,
        /// Index of the request.
        request: usize,
    },
    /// Not a whole window.
    #[error("model {model}: request {request} has {found} frames, a window has {expected}")]
    FrameCount {
        /// Package name.
        model: String,
        /// Index of the request.
        request: usize,
        /// Frames of a window.
        expected: usize,
        /// Frames given.
        found: usize,
    },
    /// Frames of another size.
    #[error("model {model}: request {request} has a frame of {found} bytes, the model reads {expected}")]
    FrameSize {
        /// Package name.
        model: String,
        /// Index of the request.
        request: usize,
        /// Bytes of the input.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// More boxes than the model's input holds.
    #[error("model {model}: {given} boxes were given to a stream, the model takes {takes}")]
    TooManyBoxes {
        /// Package name.
        model: String,
        /// Boxes of a row of the input; 0 when it has none.
        takes: usize,
        /// Boxes given.
        given: usize,
    },
    /// NaN or infinity came out. The stream's state is what it was; the rows of the other requests are valid.
    #[error(
        "model {model}: output `{tensor}` of request {request} has a value that is not finite; reset the stream, and if it stays, replace the model"
    )]
    NotFinite {
        /// Package name.
        model: String,
        /// Index of the request (the first, if several).
        request: usize,
        /// Name of the output.
        tensor: String,
    },
    /// The back end failed.
    #[error("model {model}: {backend}: {detail}")]
    Backend {
        /// Package name.
        model: String,
        /// `tract` or `ort`.
        backend: &'static str,
        /// In the back end's words.
        detail: String,
    },
}

impl InferError {
    /// What to do.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::NotFinite { .. } => Disposition::Degrade,
            Self::Backend { .. } => Disposition::Retry,
            _ => Disposition::Fatal,
        }
    }
}

/// The dynamic linker does not load a library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct LinkError {
    /// In its words, which name the file that is missing.
    pub detail: String,
}

/// No usable ONNX Runtime library there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Not there, or not readable.
    #[error("{}: cannot be read: {detail}; set [engine] ort_library to the absolute path of libonnxruntime.so", path.display())]
    Missing {
        /// The library.
        path: PathBuf,
        /// Of the system.
        detail: String,
    },
    /// Only absolute paths are taken: a relative one is looked up beside the executable.
    #[error("{}: is not an absolute path; write the whole path of libonnxruntime.so", path.display())]
    Relative {
        /// As given.
        path: PathBuf,
    },
    /// Not a shared library of this machine.
    #[error("{}: {detail}; install ONNX Runtime for {}", path.display(), std::env::consts::ARCH)]
    NotForHere {
        /// The library.
        path: PathBuf,
        /// What it is.
        detail: String,
    },
    /// The dynamic linker or the library itself refuses.
    #[error("{}: cannot be loaded: {detail}; reinstall ONNX Runtime", path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// In the linker's words.
        detail: String,
    },
    /// Too old.
    #[error("{}: is ONNX Runtime {version}, 1.{minimum} or later is needed; install a newer one", path.display())]
    TooOld {
        /// The library.
        path: PathBuf,
        /// Its version.
        version: String,
        /// Minor version needed.
        minimum: u32,
    },
    /// The child process died, was stuck, or wrote something else.
    #[error("{}: loading it in a test process failed: {detail}; reinstall ONNX Runtime", path.display())]
    Child {
        /// The library.
        path: PathBuf,
        /// Signal, exit status or time limit.
        detail: String,
    },
    /// The child process said why.
    #[error("{line}")]
    Refused {
        /// Its message, which names the file and what to do.
        line: String,
    },
    /// No library anywhere.
    #[error("no usable ONNX Runtime library: {detail}; install onnxruntime 1.17 or later, or set [engine] ort_library")]
    NoneFound {
        /// What was tried.
        detail: String,
    },
    /// A process can load one library only.
    #[error("{}: another ONNX Runtime ({}) is already loaded; restart to change it", path.display(), loaded.display())]
    AlreadyLoaded {
        /// Asked for.
        path: PathBuf,
        /// In use.
        loaded: PathBuf,
    },
}
