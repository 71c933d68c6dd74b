//! Trying a model out in a process of its own: `kinewatch model-worker`, and the side that starts and judges it.
//!
//! A model that came over the air may crash the inference library, hang in it, or eat all memory. So the first to open one
//! is a child of the same binary, last in line for processor and memory, bounded in both, and killed when it oversteps or when
//! its parent is gone. Signals to stop do not end it: they go to every process of a service, and its parent alone knows whether
//! there is an answer to wait for. What it proves is what the daemon will do: the same options, the same choice of back end.
//!
//! ```text
//! Worker::prove (any thread, blocks)        kinewatch model-worker
//!   starts it, sets its limits
//!   Job, one line of JSON         ──stdin──▶  waits for it, then opens the model (engines are built here),
//!   keeps stdin open: the lifeline            runs its golden clips, measures windows
//!   Message, a line each         ◀──stdout──  step open, step bench, done (Proof) or failed (Fault)
//! ```
//!
//! Must never load a library or a graph in the parent, nor believe a child that did not end well.

mod child;
mod limits;
mod parent;
mod protocol;
mod verdict;

pub use child::run as run_child;
pub use limits::Limits;
pub use parent::{Refusal, Worker};
pub use protocol::{Job, Message, Proof, Step};
