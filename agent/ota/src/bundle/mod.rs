//! A bundle: a model package as one file, `tar` in `zstd`, the form in which packages travel.
//!
//! [`pack`] writes a verified package directory, always to the same bytes. [`unpack`] is the door for bytes that came over a
//! network: it is led by the package's own `model.toml`, which is the first file of a bundle. Only regular files that the
//! manifest lists are written, each once, within bounds that are checked before anything is written.
//!
//! Must never write outside the directory it is given, nor follow what an archive says of links, owners, modes or devices.
//! Blocking; owned by whoever calls it; no clock.

mod error;
mod pack;
mod unpack;

use kinewatch_core::manifest::{Manifest, labels_changed};
use kinewatch_core::rollout::{Code, Fault};

use crate::package::MANIFEST;

pub use error::{PackError, UnpackError, Unsafe};
pub use pack::{Packed, pack};
pub use unpack::{Bounds, manifest, unpack};

/// Memory that a decoder may need is 2 to this power, bytes (8 MiB): a frame that asks for more is refused unread.
const WINDOW_LOG: u32 = 23;

/// Whether a release that its channel calls one of the same labels keeps to that, beside the model that runs.
///
/// # Errors
/// `labels_changed`, with the first difference.
pub fn keeps_labels(before: &Manifest, after: &Manifest) -> Result<(), Fault> {
    labels_changed(before, after).map_or(Ok(()), |difference| Err(Fault::new(Code::LabelsChanged, difference)))
}
