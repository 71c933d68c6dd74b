//! From score streams to action intervals.
//!
//! One [`Decoder`] per (camera, model) pair, a plain value inside the inference thread. It works on spans of media time:
//! scores that never came blur a boundary by at most the hole, and never make an action. Opened actions are always
//! closed.

mod carry;
mod cusum;
mod decision;
mod evidence;
mod hmm;
mod hysteresis;
mod lattice;
mod rivals;
mod scores;
mod sequence;
mod stream;
mod thresholds;
mod track;

pub use carry::{carries, spoken_for};
pub use decision::{Confidence, Decision, EndReason, Status};
pub use stream::Decoder;

#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod tests;
