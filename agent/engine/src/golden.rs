//! Golden clips: frames of the package and the logits that the exporter computed for them.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kinewatch_core::frame::{Frame, FrameBuf, FrameMeta};
use kinewatch_core::manifest::{GoldenClip as Listed, Manifest, Plan};
use kinewatch_core::region::Region;
use kinewatch_core::time::{Pts, SessionId};
use npyz::NpyFile;

use crate::error::{InferError, OpenError};
use crate::logits::Logits;
use crate::model::{Model, Request};
use crate::report::GoldenResult;

/// A clip in memory.
pub(crate) struct GoldenClip {
    name: String,
    logits_path: PathBuf,
    pub(crate) frames: Vec<Frame>,
    boxes: Vec<Region>,
    logits: Vec<f32>,
}

/// A difference that is too large.
pub(crate) struct Deviation {
    pub(crate) path: PathBuf,
    pub(crate) row: usize,
    pub(crate) label: usize,
    pub(crate) expected: f32,
    pub(crate) found: f32,
    pub(crate) tolerance: f32,
}

/// Longest header of an npy file, bytes; ours have 118.
const MAX_HEADER: u32 = 64 << 10;

/// Reads the golden clips of a package, and runs nothing: whether the files are what the manifest says.
///
/// # Errors
/// A file is missing, is no npy file, or has another shape.
pub fn check_golden(dir: &Path, manifest: &Manifest) -> Result<(), OpenError> {
    read(dir, manifest).map(drop)
}

/// Reads every clip of a package.
pub(crate) fn read(dir: &Path, manifest: &Manifest) -> Result<Vec<GoldenClip>, OpenError> {
    manifest.golden.clips.iter().map(|clip| read_clip(dir, manifest, clip)).collect()
}

fn read_clip(dir: &Path, manifest: &Manifest, clip: &Listed) -> Result<GoldenClip, OpenError> {
    let (frames_path, logits_path) = (dir.join(&clip.frames), dir.join(&clip.logits));
    let (shape, pixels) = npy::<u8>(&frames_path, "uint8")?;
    let spec = &manifest.input.spec;
    let wrong = |path: &Path, wanted: String, found: &[u64]| OpenError::GoldenFile {
        path: path.into(),
        detail: format!("must be {wanted}, is {found:?}"),
    };
    let (width, height) = (u64::from(spec.width), u64::from(spec.height));
    let window = match manifest.plan {
        Plan::Online => 1,
        Plan::Clip | Plan::Cached => manifest.frames_per_window(),
    };
    let count = pixels.len() / spec.bytes().max(1);
    let whole = shape.len() == 4 && shape[1..] == [height, width, 3] && count > 0 && count.is_multiple_of(window);
    if !whole {
        let wanted = format!("[F, {height}, {width}, 3] with F a multiple of {window}");
        return Err(wrong(&frames_path, wanted, &shape));
    }
    let (rows, classes) = (count / window, manifest.labels.len());
    let (shape, logits) = npy::<f32>(&logits_path, "float32")?;
    if shape != [rows as u64, classes as u64] {
        return Err(wrong(&logits_path, format!("[{rows}, {classes}]"), &shape));
    }
    let interval = 1.0 / manifest.sampling.rate_hz;
    let frames = pixels
        .chunks_exact(spec.bytes())
        .enumerate()
        .map(|(index, pixels)| {
            let pts = Pts::from_seconds(index as f64 * interval);
            let meta = FrameMeta { session: SessionId::default(), pts, arrival: None, wanted: 1 };
            Arc::new(FrameBuf::new(meta, pixels))
        })
        .collect();
    let name = clip_name(&frames_path, dir);
    Ok(GoldenClip { name, logits_path, frames, boxes: clip.boxes.clone(), logits })
}

fn clip_name(path: &Path, dir: &Path) -> String {
    path.strip_prefix(dir).unwrap_or(path).display().to_string()
}

fn npy<T: npyz::Deserialize>(path: &Path, wanted: &str) -> Result<(Vec<u64>, Vec<T>), OpenError> {
    let read = |source| OpenError::Read { path: path.into(), source };
    let bad = |detail: String| OpenError::GoldenFile { path: path.into(), detail };
    let mut file = File::open(path).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    if let Some(odd) = what_is_odd(&mut file).map_err(read)? {
        return Err(bad(format!("is not an npy file: {odd}")));
    }
    let npy = NpyFile::new(BufReader::new(file)).map_err(|error| bad(format!("is not an npy file: {error}")))?;
    let shape = npy.shape().to_vec();
    if npy.order() != npyz::Order::C {
        return Err(bad("must be in C order".to_owned()));
    }
    let bytes = shape.iter().try_fold(size_of::<T>() as u64, |bytes, side| bytes.checked_mul(*side));
    if bytes.is_none_or(|bytes| bytes > length) {
        return Err(bad(format!("is cut short: {shape:?} in {length} bytes")));
    }
    let values = npy.into_vec::<T>().map_err(|error| bad(format!("must hold {wanted} values: {error}")))?;
    Ok((shape, values))
}

/// Length of the header as the file has it (numpy/lib/format.py): two bytes in version 1, four in later ones. The library
/// takes as much memory as is stated there. Leaves the file at its beginning.
fn header_length(file: &mut File) -> io::Result<u32> {
    let mut begin = Vec::with_capacity(12);
    file.by_ref().take(12).read_to_end(&mut begin)?;
    file.rewind()?;
    Ok(match begin.as_slice() {
        [_, _, _, _, _, _, 2..=u8::MAX, _, a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]),
        [_, _, _, _, _, _, _, _, a, b, ..] => u16::from_le_bytes([*a, *b]).into(),
        _ => 0,
    })
}

/// What the library must not see in a header: its length, for which it takes memory; brackets within brackets, over which it
/// takes time without bounds; and sides that cannot be multiplied, which it does unchecked. Leaves the file at its beginning.
fn what_is_odd(file: &mut File) -> io::Result<Option<&'static str>> {
    let length = header_length(file)?;
    if length > MAX_HEADER {
        return Ok(Some("its header is too long"));
    }
    let mut begin = Vec::new();
    file.by_ref().take(u64::from(length) + 12).read_to_end(&mut begin)?;
    file.rewind()?;
    let text = String::from_utf8_lossy(&begin);
    // Ours have one of each.
    if text.matches(['{', '[', '(']).count() > 8 {
        return Ok(Some("its header has too many brackets"));
    }
    let shape = text.split_once("'shape'").and_then(|(_, rest)| rest.split_once(')')).map_or("", |(shape, _)| shape);
    let mut sides = shape.split(|c: char| !c.is_ascii_digit()).filter_map(|side| side.parse::<u64>().ok());
    Ok(sides.try_fold(1_u64, u64::checked_mul).is_none().then_some("its shape is beyond all bounds"))
}

/// Runs every clip. The first logit that is further off than `tolerance`, if any, comes with the results.
pub(crate) fn run(
    model: &mut Model,
    clips: &[GoldenClip],
    tolerance: f32,
) -> Result<(Vec<GoldenResult>, Option<Deviation>), InferError> {
    let mut results = Vec::new();
    let mut worst = None;
    for clip in clips {
        let rows = logits_of(model, clip)?;
        let mut max_diff = 0.0_f32;
        for (index, (&found, &expected)) in rows.iter().zip(&clip.logits).enumerate() {
            let difference = (found - expected).abs();
            if difference > tolerance && worst.is_none() {
                let (row, label) = (index / model.classes(), index % model.classes());
                worst = Some(Deviation { path: clip.logits_path.clone(), row, label, expected, found, tolerance });
            }
            max_diff = max_diff.max(difference);
        }
        let rows = rows.len() / model.classes().max(1);
        results.push(GoldenResult { clip: clip.name.clone(), rows, max_diff, tolerance });
    }
    Ok((results, worst))
}

/// Logits of a clip from its beginning: one row a frame (plan `online`) or a window without overlap.
fn logits_of(model: &mut Model, clip: &GoldenClip) -> Result<Vec<f32>, InferError> {
    let stream = model.add_stream();
    let requests: Vec<Request<'_>> =
        clip.frames.chunks_exact(model.frames_per_request()).map(|frames| Request { stream, frames }).collect();
    let mut logits = Logits::new();
    let outcome = model.set_boxes(stream, &clip.boxes).and_then(|()| model.infer(&requests, &mut logits));
    model.remove_stream(stream);
    outcome?;
    Ok((0..logits.len()).flat_map(|row| logits.row(row).to_vec()).collect())
}
