//! What comes with a model: manifest, labels, golden clips, the package as a folder.

use std::fs;

use kinewatch::layout::CameraPlan;
use kinewatch_core::decode::{Decoder, EndReason, Status};
use kinewatch_core::manifest::{Decoding, Manifest, Overrides};
use kinewatch_core::sampling::WindowPlan;
use kinewatch_core::time::Pts;

use super::{is_told, scratch, text};

const BRIGHT: &str = include_str!("../../data/packages/tiny-bright/model.toml");
const FRAMES: &[u8] = include_bytes!("../../data/packages/tiny-bright/golden/shapes.npy");
const LOGITS: &[u8] = include_bytes!("../../data/packages/tiny-bright/golden/shapes.logits.npy");
/// Logits that open and close actions, and some that are no number.
const WAVE: [f32; 6] = [-9.0, 9.0, f32::INFINITY, f32::NAN, 0.0, -1e30];

pub fn manifest(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match Manifest::parse(text) {
        Ok(manifest) => used(manifest),
        Err(e) => is_told(&e.to_string()),
    }
    match Decoding::parse(text) {
        Ok(decoding) => decoded(Decoder::of_scores(&decoding), decoding.labels.len()),
        Err(e) => is_told(&e.to_string()),
    }
}

/// What is accepted must bear being used.
fn used(manifest: Manifest) {
    let plan = WindowPlan::new(&manifest.sampling);
    let _ = (plan.frames(), plan.history_ns(), manifest.frames_per_window(), manifest.input_elements());
    let decoder = Decoder::new(&manifest, &Overrides::default()).unwrap();
    let labels = manifest.labels.len();
    decoded(decoder, labels);
    let camera = CameraPlan { name: "c".into(), models: vec![0], zones: Vec::new() };
    let _ = kinewatch::layout::branches(&camera, |_| Some(&manifest));
}

fn decoded(mut decoder: Decoder, labels: usize) {
    let mut out = Vec::new();
    for step in 0..24_usize {
        let row: Vec<f32> = (0..labels).map(|label| WAVE[(step / 4 + label) % WAVE.len()]).collect();
        decoder.step(Pts::from_seconds(step as f64 * 0.5), &row, &mut out);
    }
    decoder.gap(Pts::from_seconds(13.0), EndReason::StreamLost, &mut out);
    let ended = out.iter().filter(|d| matches!(d.status, Status::Ended { .. })).count();
    let started = out.iter().filter(|d| matches!(d.status, Status::Started)).count();
    assert!(ended >= started, "every action ends: {started} began, {ended} ended");
}

pub fn labels(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Err(e) = Manifest::parse(BRIGHT).unwrap().check_labels_txt(text) {
        is_told(&e.to_string());
    }
}

/// The first byte says which of the two files of a clip the rest is.
pub fn golden(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let manifest = Manifest::parse(BRIGHT).unwrap();
    let dir = scratch("golden-package");
    fs::create_dir_all(dir.join("golden")).unwrap();
    let (frames, logits) = if which % 2 == 0 { (rest, LOGITS) } else { (FRAMES, rest) };
    fs::write(dir.join("golden/shapes.npy"), frames).unwrap();
    fs::write(dir.join("golden/shapes.logits.npy"), logits).unwrap();
    if let Err(e) = kinewatch_engine::check_golden(&dir, &manifest) {
        is_told(&e.to_string());
    }
}

/// `model.toml` and `labels.txt`, with a NUL between them, among files that are there.
pub fn package(data: &[u8]) {
    let dir = scratch("package");
    fs::create_dir_all(dir.join("golden")).unwrap();
    let mut parts = data.splitn(2, |byte| *byte == 0);
    fs::write(dir.join("model.toml"), parts.next().unwrap_or_default()).unwrap();
    fs::write(dir.join("labels.txt"), parts.next().unwrap_or(b"background\nwave\n")).unwrap();
    fs::write(dir.join("golden/shapes.npy"), FRAMES).unwrap();
    match kinewatch_ota::open_verified(&dir) {
        Ok(package) => assert_eq!(package.digest.len(), 64),
        Err(e) => is_told(&e.to_string()),
    }
    if let Err(e) = kinewatch_ota::open_decoding(&dir) {
        is_told(&e.to_string());
    }
}
