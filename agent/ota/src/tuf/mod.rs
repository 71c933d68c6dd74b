//! The TUF client: which metadata is trusted, and which files a repository may deliver.
//!
//! [`Client::refresh`] brings the trusted metadata up to date, [`Client::find`] looks a target up in it, and
//! [`Client::fetch`] delivers the target's bytes to a path, verified, however often the network fails in between.
//! The order of checks is that of the TUF specification 1.0 (<https://theupdateframework.github.io/specification/latest/>),
//! whose section numbers stand at the code. Keys, signatures and thresholds are `tough`'s; why the rest is not, is told in
//! `agent/design/tuf.md`.
//!
//! What it must never do: trust a byte before its signature or hash is verified, read more than a bound says, go below the
//! [`Floors`] that it is given, judge expiry by a clock that is not synchronised, or leave half a file under a name that
//! counts. It owns the folder given as [`Options::directory`] and nothing else.
//!
//! Asynchronous, for one task at a time; every future may be dropped at any point, what is on disk stays usable.

mod client;
mod delegation;
mod document;
mod download;
mod error;
mod floors;
mod http;
mod pace;
mod signature;
mod store;
mod target;
mod trusted;

pub use client::{Anchor, Client, Clock, Limits, Mirror, Options, Refreshed};
pub use document::Role;
pub use download::{Fetched, Progress};
pub use error::Refused;
pub use floors::Floors;
pub use http::Tls;
pub use pace::Pace;
pub use target::Target;
