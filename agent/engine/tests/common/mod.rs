//! Packages, pictures and engines for the engine's tests.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kinewatch_core::frame::{Frame, FrameBuf, FrameMeta};
use kinewatch_core::manifest::Manifest;
use kinewatch_core::time::{Pts, SessionId};
use kinewatch_engine::{BackendChoice, Logits, Model, OpenOptions, PrecisionChoice, Provider, Request, Stream};

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A package with its manifest.
pub struct Package {
    pub dir: PathBuf,
    pub manifest: Manifest,
}

impl Package {
    pub fn read(dir: PathBuf) -> Self {
        let path = dir.join("model.toml");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let manifest = Manifest::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { dir, manifest }
    }

    pub fn tiny(name: &str) -> Self {
        Self::read(repository().join("tests/data/packages").join(name))
    }

    /// The packaged model. `KINEWATCH_TEST_FALLS` points the tests at another build of it.
    pub fn falls() -> Self {
        let other = std::env::var_os("KINEWATCH_TEST_FALLS").map(PathBuf::from);
        Self::read(other.unwrap_or_else(|| repository().join("models/falls")))
    }

    /// Every plan, every architecture, and what is shipped.
    pub fn all() -> Vec<Self> {
        let mut found = Self::below("tests/data/packages");
        found.retain(|package| !["tiny-bright", "tiny-nan", "tiny-slow"].contains(&package.name()));
        found.extend(Self::shipped());
        found
    }

    /// Every package of `models`.
    pub fn shipped() -> Vec<Self> {
        Self::below("models")
    }

    fn below(folder: &str) -> Vec<Self> {
        let folder = repository().join(folder);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut found: Vec<Self> = entries
            .map(|entry| entry.unwrap_or_else(|e| panic!("{}: {e}", folder.display())).path())
            .filter(|path| path.join("model.toml").exists())
            .map(|path| if path.ends_with("falls") { Self::falls() } else { Self::read(path) })
            .collect();
        found.sort_by(|a, b| a.name().cmp(b.name()));
        found
    }

    pub fn has(&self, precision: PrecisionChoice) -> bool {
        precision != PrecisionChoice::Int8 || self.manifest.graphs.int8.is_some()
    }

    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    pub fn open(&self, options: &OpenOptions) -> Model {
        Model::open(&self.dir, &self.manifest, options).unwrap_or_else(|e| panic!("{} {options:?}: {e}", self.name()))
    }

    /// Pictures of the package's size that differ from each other; `interval` apart, session 1.
    pub fn frames(&self, seed: u32, count: usize) -> Vec<Frame> {
        self.frames_in(1, seed, count)
    }

    pub fn frames_in(&self, session: u32, seed: u32, count: usize) -> Vec<Frame> {
        let spec = &self.manifest.input.spec;
        let interval = self.manifest.sampling.frame_interval();
        (0..count)
            .map(|index| {
                let pts = Pts(interval * index as i64);
                let meta = FrameMeta { session: SessionId(session), pts, arrival: None, wanted: 1 };
                Arc::new(FrameBuf::new(meta, picture(spec.width as usize, spec.height as usize, seed, index)))
            })
            .collect()
    }

    /// Logits may differ by this much in the graph of this precision.
    pub fn tolerance(&self, precision: PrecisionChoice) -> f32 {
        match precision {
            PrecisionChoice::Int8 => self.manifest.golden.tolerance_int8,
            _ => self.manifest.golden.tolerance_fp32,
        }
    }
}

/// A bright square that moves over a slope, with some noise.
fn picture(width: usize, height: usize, seed: u32, index: usize) -> Vec<u8> {
    let mut noise = seed.wrapping_mul(2_654_435_761).wrapping_add(index as u32 + 1);
    let left = (seed as usize * 7 + index * width / 9) % width;
    let top = (seed as usize * 5 + index * height / 13) % height;
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let inside = x.abs_diff(left) < width / 4 && y.abs_diff(top) < height / 4;
            for channel in 0..3 {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let ground = (x * 90 / width + y * 60 / height + channel * 20) as u32;
                let value = ground + (noise >> 28) + if inside { 100 - 30 * channel as u32 } else { 0 };
                pixels.push(value.min(255) as u8);
            }
        }
    }
    pixels
}

/// ONNX Runtime for the tests. Missing, it fails the test: half of what is promised would go untested.
pub fn ort_library() -> Option<PathBuf> {
    if std::env::var_os("KINEWATCH_TEST_ORT").is_some_and(|value| value == "0") {
        return None;
    }
    let named = ["KINEWATCH_ORT", "ORT_DYLIB_PATH"].into_iter().filter_map(std::env::var_os).find(|v| !v.is_empty());
    let library = named.map(PathBuf::from).or_else(in_virtual_environment);
    let help = "run `make test-deps`, or set ORT_DYLIB_PATH, or set KINEWATCH_TEST_ORT=0 to test tract alone";
    Some(library.unwrap_or_else(|| panic!("no ONNX Runtime library for the tests: {help}")))
}

fn in_virtual_environment() -> Option<PathBuf> {
    let lib = repository().join(".venv/lib");
    let pythons = std::fs::read_dir(lib).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    pythons
        .filter_map(|python| std::fs::read_dir(python.join("site-packages/onnxruntime/capi")).ok())
        .flat_map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()))
        .find(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("libonnxruntime.so")))
}

/// A back end with a precision.
#[derive(Clone)]
pub struct Engine {
    pub label: &'static str,
    pub precision: PrecisionChoice,
    pub options: OpenOptions,
}

pub fn tract(precision: PrecisionChoice) -> OpenOptions {
    OpenOptions { backend: BackendChoice::Tract, precision, ..OpenOptions::default() }
}

pub fn ort(library: &Path, precision: PrecisionChoice) -> OpenOptions {
    OpenOptions {
        backend: BackendChoice::Ort,
        precision,
        ort_library: Some(library.to_path_buf()),
        provider_order: vec![Provider::Cpu],
        ..OpenOptions::default()
    }
}

/// Every engine that there is here.
pub fn engines() -> Vec<Engine> {
    use PrecisionChoice::{Fp32, Int8};
    let mut engines = vec![
        Engine { label: "tract fp32", precision: Fp32, options: tract(Fp32) },
        Engine { label: "tract int8", precision: Int8, options: tract(Int8) },
    ];
    if let Some(library) = ort_library() {
        engines.push(Engine { label: "ort fp32", precision: Fp32, options: ort(&library, Fp32) });
        engines.push(Engine { label: "ort int8", precision: Int8, options: ort(&library, Int8) });
    }
    engines
}

/// Calls `test` for every package on every engine for which it has a graph.
pub fn everywhere(mut test: impl FnMut(&Package, &Engine)) {
    for package in Package::all() {
        for engine in engines().into_iter().filter(|engine| package.has(engine.precision)) {
            test(&package, &engine);
        }
    }
}

/// Logits of requests in one call.
pub fn infer(model: &mut Model, requests: &[Request<'_>]) -> Vec<Vec<f32>> {
    let mut logits = Logits::new();
    model.infer(requests, &mut logits).unwrap();
    (0..logits.len()).map(|row| logits.row(row).to_vec()).collect()
}

/// Logits of every window (plan `online`: frame) of a clip, each window one frame after the one before, one call each.
pub fn dense(model: &mut Model, stream: Stream, frames: &[Frame]) -> Vec<Vec<f32>> {
    let length = model.frames_per_request();
    frames.windows(length).flat_map(|frames| infer(model, &[Request { stream, frames }])).collect()
}

/// Largest difference of two sets of rows.
pub fn distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().flatten().zip(b.iter().flatten()).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}
