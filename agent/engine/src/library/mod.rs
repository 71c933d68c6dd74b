//! Finding, testing and loading ONNX Runtime's shared library.
//!
//! A damaged library can kill the process that loads it, so the order is: read its ELF header here, load it in a child
//! process, and only then load it here, once.

mod elf;
pub(crate) mod load;
mod probe;
mod search;

pub use load::link_library;
pub use probe::{LibraryInfo, ProbeCommand, link_in_child, probe_in_child, probe_library};
pub use search::{LibrarySearch, find_library};

/// Oldest usable minor version of ONNX Runtime 1.x: the C API level that `ort` is built for.
pub const MINIMUM_MINOR: u32 = ort::MINOR_VERSION;
