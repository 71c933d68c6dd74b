//! The pure parts of kinewatch: no I/O, no clock, no threads, no async.

pub mod frame;
pub mod time;
