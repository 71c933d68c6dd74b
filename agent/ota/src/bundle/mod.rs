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

use kinewatch_core::manifest::Manifest;

use crate::package::MANIFEST;

pub use error::{PackError, UnpackError, Unsafe};
pub use pack::{Packed, pack};
pub use unpack::{Bounds, manifest, unpack};

/// Memory that a decoder may need is 2 to this power, bytes (8 MiB): a frame that asks for more is refused unread.
const WINDOW_LOG: u32 = 23;

/// The first difference between the labels of two models, in one line; `None` when a consumer sees the same names in the same
/// order, so that a change of model is none of labels.
#[must_use]
pub fn labels_changed(before: &Manifest, after: &Manifest) -> Option<String> {
    let names = |m: &Manifest| -> Vec<String> { m.labels.iter().map(|label| label.name.clone()).collect() };
    let (old, new) = (names(before), names(after));
    if old.len() != new.len() {
        return Some(format!("{} has {} labels, {} has {}", before.version, old.len(), after.version, new.len()));
    }
    let at = old.iter().zip(&new).position(|(old, new)| old != new)?;
    Some(format!("label {at} of {} is {:?}, of {} {:?}", before.version, old[at], after.version, new[at]))
}
