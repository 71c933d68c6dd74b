//! Models over the air, the pure half: what a channel offers, and what a device does about it.
//!
//! A [`Channel`] file says what shall run; a [`Record`] says how far a device has come with it; [`Machine::step`] goes from one
//! record to the next and says what to do. [`step`] describes how it is driven.
//!
//! No I/O, no clock, no threads: times are handed in, and what is to be done is handed out. The trust in a channel file is
//! not made here: whoever reads it has checked its signature (TUF, `agent/ota`). Why it is built so: `agent/design/ota.md`.

mod channel;
mod code;
#[cfg(test)]
mod gate_tests;
mod machine;
#[cfg(test)]
mod process_tests;
#[cfg(test)]
mod property_tests;
mod record;
mod seed;
pub mod step;
#[cfg(test)]
mod tests;
mod trial;
mod verdict;

pub use channel::{Admission, Channel, ChannelError, Gates, Labels, MAX_CHANNEL, MAX_WAVES, Requires, SCHEMA, Wave};
pub use code::{Code, Disposition, Fault, MAX_DETAIL};
pub use machine::Machine;
pub use record::{
    Attempts, Candidate, Exposure, MAX_CUTS, MAX_PROOFS, Measured, Offer, Phase, Polls, Quarantined, RECORD_SCHEMA,
    Record, Release, Slot, Stage, TRIES,
};
pub use seed::{SEEDS, backoff, first_pause, poll_pause, seed};
pub use verdict::Verdict;

/// File names and JSON Schemas of what a publisher writes.
#[must_use]
pub fn schemas() -> Vec<(&'static str, schemars::Schema)> {
    // What an agent reads: fields with a default may be left out.
    let reading = schemars::generate::SchemaSettings::draft2020_12().for_deserialize();
    vec![("channel-1.json", reading.into_generator().into_root_schema_for::<Channel>())]
}
