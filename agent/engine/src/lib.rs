//! kinewatch-engine: runs the ONNX graphs of model packages, on tract or on ONNX Runtime, by the three plans of
//! DESIGN §4.
//!
//! [`Model::open`] does everything that can fail for good (load, check against the manifest, warm up, golden clips), so
//! that [`Model::infer`] only computes. Nothing here knows about cameras, windows or time beyond a frame's own stamp.
//! A model is opened on any thread and then owned by one, the inference thread.
//!
//! ```text
//! Model ─ Plan (clip | cached | online) ─ Runner ─ Session (tract | ort)
//!   └ Preprocessor: bytes → tensor        └ one plan for 1 row, one for max_batch (ort)
//! ```

#[cfg(test)]
mod allocations;
mod backend;
mod bench;
mod cache;
mod contract;
mod error;
mod golden;
mod guard;
mod library;
mod logits;
mod model;
mod open;
mod options;
mod plan;
mod preprocess;
mod report;
mod stream;

pub use bench::{BenchResult, Milliseconds, check, measure};
pub use cache::EngineCache;
pub use error::{BackendError, Disposition, InferError, LinkError, OpenError, ProbeError, is_of_memory};
pub use golden::check_golden;
pub use guard::install_hook as install_panic_guard;
pub use library::{
    LibraryInfo, LibrarySearch, MINIMUM_MINOR, ProbeCommand, find_library, link_in_child, link_library, probe_in_child,
    probe_library,
};
pub use logits::Logits;
pub use model::{Model, Request};
pub use open::check_requires;
pub use options::{
    Backend, BackendChoice, Build, Candidate, OpenOptions, Precision, PrecisionChoice, Provider, candidates,
};
pub use plan::Counters;
pub use preprocess::Preprocessor;
pub use report::{GoldenResult, OpenReport};
pub use stream::Stream;
