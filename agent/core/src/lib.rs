//! The pure parts of kinewatch: no I/O, no clock, no threads, no async.

pub mod batch;
pub mod beat;
pub mod command;
pub mod decode;
pub mod derate;
pub mod event;
pub mod frame;
pub mod manifest;
pub mod name;
pub mod region;
pub mod ring;
pub mod rollout;
pub mod sampling;
pub mod schedule;
pub mod time;
pub mod topic;
