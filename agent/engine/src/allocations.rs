//! Counts the heap allocations of this crate's own code on the path from frames to logits. The sessions are real ones on
//! tract; only what happens inside `Session::run` is not counted, because it is the back end's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kinewatch_core::frame::{Frame, FrameBuf, FrameMeta};
use kinewatch_core::manifest::Manifest;
use kinewatch_core::time::{Pts, SessionId};

use crate::backend::tract::TractSession;
use crate::backend::{Session, TensorMut};
use crate::contract::{self, GraphSpec};
use crate::error::BackendError;
use crate::options::{Backend, Precision, Provider};
use crate::plan::cached::{CachedPlan, Names};
use crate::plan::clip::ClipPlan;
use crate::plan::online::OnlinePlan;
use crate::plan::{Padding, Plan, Runner};
use crate::{Logits, Model, OpenReport, Request};

thread_local! {
    /// `Some` while this thread counts.
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Counting;

fn note() {
    COUNT.set(COUNT.get().map(|count| count + 1));
}

// SAFETY: every call is handed on to the system's allocator unchanged; counting touches a `Cell` that needs no allocation.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted(work: impl FnOnce()) -> u64 {
    COUNT.set(Some(0));
    work();
    COUNT.take().unwrap_or_default()
}

/// A session whose runs are not counted.
struct Uncounted(TractSession);

impl Session for Uncounted {
    fn batch(&self) -> usize {
        self.0.batch()
    }
    fn input(&mut self, index: usize) -> TensorMut<'_> {
        self.0.input(index)
    }
    fn run(&mut self) -> Result<(), BackendError> {
        let count = COUNT.take();
        let outcome = self.0.run();
        COUNT.set(count);
        outcome
    }
    fn output(&self, index: usize) -> &[f32] {
        self.0.output(index)
    }
    fn output_shape(&self, index: usize) -> &[usize] {
        self.0.output_shape(index)
    }
}

fn package(name: &str) -> (PathBuf, Manifest) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/packages").join(name);
    let manifest = Manifest::parse(&std::fs::read_to_string(dir.join("model.toml")).unwrap()).unwrap();
    (dir, manifest)
}

fn runner(path: &Path, spec: &GraphSpec) -> Runner {
    let session = TractSession::open(path, spec).unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
    Runner::new(Box::new(Uncounted(session)), None, Padding::Never)
}

fn model(name: &str) -> (Model, Manifest) {
    let (dir, manifest) = package(name);
    let spec = contract::main_graph(&manifest);
    let main = runner(&dir.join(&manifest.graphs.fp32.model), &spec);
    let plan: Box<dyn Plan> = match name {
        "tiny-clip" => Box::new(ClipPlan::new(main, "logits", None)),
        "tiny-boxes" => Box::new(ClipPlan::new(main, "logits", manifest.tensors.boxes.as_ref().map(|b| b.count))),
        "tiny-online" => {
            let sizes: Vec<usize> = manifest.tensors.states.iter().map(|s| s.shape.iter().product()).collect();
            Box::new(OnlinePlan::new(main, sizes, spec.outputs.into_iter().map(|o| o.name).collect()))
        }
        _ => {
            let feature = main.single().output_shape(0).to_vec();
            let head = dir.join(manifest.graphs.fp32.head.as_deref().unwrap());
            let head = runner(&head, &contract::head_graph(&manifest, &feature));
            let names = Names { feature: "feature".into(), logits: "logits".into() };
            Box::new(CachedPlan::new(main, head, names, manifest.frames_per_window(), 8))
        }
    };
    let report = OpenReport {
        model: name.into(),
        backend: Backend::Tract,
        provider: Provider::Cpu,
        nodes: Default::default(),
        precision: Precision::Fp32,
        files: Vec::new(),
        library: None,
        batch: 1,
        why: String::new(),
        refused: Vec::new(),
        postponed: None,
        golden: Vec::new(),
        load_ms: 0.0,
        golden_ms: 0.0,
    };
    (Model::new(&manifest, plan, report), manifest)
}

#[test]
fn nothing_is_allocated_between_frames_and_logits() {
    for name in ["tiny-clip", "tiny-boxes", "tiny-online", "tiny-cached"] {
        let (mut model, manifest) = model(name);
        let frames: Vec<Frame> = (0..40)
            .map(|index| {
                let meta = FrameMeta { session: SessionId(1), pts: Pts(index * 100_000_000), arrival: None, wanted: 1 };
                Arc::new(FrameBuf::new(meta, vec![index as u8; manifest.input_elements()]))
            })
            .collect();
        let (a, b) = (model.add_stream(), model.add_stream());
        let mut logits = Logits::new();
        let mut pass = |frames: &[Frame]| {
            for frames in frames.windows(model.frames_per_request()) {
                model.infer(&[Request { stream: a, frames }, Request { stream: b, frames }], &mut logits).unwrap();
            }
        };
        pass(&frames[..10]);
        assert_eq!(counted(|| pass(&frames[10..])), 0, "{name}");
    }
    assert!(counted(|| drop(vec![1_u8])) > 0, "the counter counts");
}
