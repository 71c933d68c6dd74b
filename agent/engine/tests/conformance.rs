//! One suite for every back end, precision and plan: the tiny packages of `tests/data/packages` and the shipped ones.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Package, dense, distance, engines, everywhere, infer, ort, ort_library, tract};
use kinewatch_core::frame::Frame;
use kinewatch_core::manifest::{Plan, RequiredBackend, Requires};
use kinewatch_core::region::Region;
use kinewatch_engine::{
    Backend, InferError, Logits, Model, OpenOptions, Precision, PrecisionChoice, Provider, Request,
};

/// Rounding in another order: batches and back ends.
const ROUNDING: f32 = 1e-4;

#[test]
fn golden_clips_pass() {
    everywhere(|package, engine| {
        let model = package.open(&engine.options);
        let report = model.report();
        println!("{:18} {:10} golden {:.2e}", package.name(), engine.label, report.golden_max_diff());
        assert!(report.golden_max_diff() <= package.tolerance(engine.precision));
        assert_eq!(report.provider, Provider::Cpu);
        if report.backend == Backend::Ort {
            assert_eq!(report.nodes.keys().collect::<Vec<_>>(), [&Provider::Cpu], "counted by a profile");
        }
    });
}

#[test]
fn tract_equals_ort() {
    let Some(library) = ort_library() else { return };
    for package in Package::all() {
        for precision in [PrecisionChoice::Fp32, PrecisionChoice::Int8].into_iter().filter(|one| package.has(*one)) {
            let scores: Vec<_> = [tract(precision), ort(&library, precision)]
                .map(|options| {
                    let mut model = package.open(&options);
                    let stream = model.add_stream();
                    let count = model.frames_per_request() + 6;
                    dense(&mut model, stream, &package.frames(1, count))
                })
                .into();
            let difference = distance(&scores[0], &scores[1]);
            println!("{:18} {precision:?} {difference:.2e}", package.name());
            assert!(difference <= package.tolerance(precision), "{}: {difference}", package.name());
        }
    }
}

#[test]
fn online_frame_by_frame_equals_the_causal_clip() {
    let (online, clip) = (Package::tiny("tiny-online"), Package::tiny("tiny-clip-causal"));
    for engine in engines().into_iter().filter(|engine| engine.precision == PrecisionChoice::Fp32) {
        let (mut steps, mut windows) = (online.open(&engine.options), clip.open(&engine.options));
        let stream = windows.add_stream();
        for seed in 0..6 {
            let frames = clip.frames(seed, windows.frames_per_request());
            let fresh = steps.add_stream();
            let last = dense(&mut steps, fresh, &frames).pop().unwrap();
            steps.remove_stream(fresh);
            let window = infer(&mut windows, &[Request { stream, frames: &frames }]);
            let difference = distance(&[last], &window);
            assert!(difference <= 1e-4, "{}: {difference}", engine.label);
        }
    }
}

#[test]
fn cached_equals_uncached() {
    for engine in engines() {
        let package = Package::tiny("tiny-cached");
        let mut model = package.open(&engine.options);
        let frames = package.frames(2, 12);
        let stream = model.add_stream();
        let cached = dense(&mut model, stream, &frames);
        let mut uncached = Vec::new();
        for frames in frames.windows(model.frames_per_request()) {
            let fresh = model.add_stream();
            uncached.extend(infer(&mut model, &[Request { stream: fresh, frames }]));
            model.remove_stream(fresh);
        }
        assert_eq!(cached, uncached, "{}", engine.label);
    }
}

#[test]
fn a_batch_equals_its_parts() {
    everywhere(|package, engine| {
        let mut alone = package.open(&engine.options);
        let mut together = package.open(&OpenOptions { max_batch: 2, ..engine.options.clone() });
        let length = alone.frames_per_request();
        // Three cameras: a full batch and a part of one.
        let clips: Vec<Vec<Frame>> = (0..3).map(|camera| package.frames(10 + camera, length + 4)).collect();
        let streams: Vec<_> = clips.iter().map(|_| (alone.add_stream(), together.add_stream())).collect();
        for start in 0..=4 {
            let windows: Vec<&[Frame]> = clips.iter().map(|clip| &clip[start..start + length]).collect();
            let one_by_one: Vec<_> = windows
                .iter()
                .zip(&streams)
                .flat_map(|(frames, (stream, _))| infer(&mut alone, &[Request { stream: *stream, frames }]))
                .collect();
            let requests: Vec<_> =
                windows.iter().zip(&streams).map(|(frames, (_, stream))| Request { stream: *stream, frames }).collect();
            let difference = distance(&one_by_one, &infer(&mut together, &requests));
            let allowed =
                if engine.precision == PrecisionChoice::Int8 { package.tolerance(engine.precision) } else { ROUNDING };
            assert!(difference <= allowed, "{} {}: {difference}", package.name(), engine.label);
        }
        let (single, batched) = (alone.counters(), together.counters());
        assert_eq!(single.backbone_runs, batched.backbone_runs, "the same work");
        if together.report().batch > 1 {
            assert!(batched.batches < single.batches, "in fewer runs: {batched:?} {single:?}");
        }
    });
}

#[test]
fn a_graph_that_takes_one_row_is_run_row_by_row() {
    let whole = Package::tiny("tiny-online");
    let dir = tempfile::tempdir().unwrap();
    for file in ["tiny.fp32.onnx", "tiny.int8.onnx"] {
        // Axis 0: the symbol `N` becomes the number 1, written in as many bytes.
        let mut bytes = std::fs::read(whole.dir.join(file)).unwrap();
        for at in 0..bytes.len() - 2 {
            if bytes[at..].starts_with(b"\x12\x01N") {
                bytes[at..at + 3].copy_from_slice(b"\x08\x81\x00");
            }
        }
        std::fs::write(dir.path().join(file), bytes).unwrap();
    }
    for kept in ["golden", "labels.txt"] {
        std::os::unix::fs::symlink(whole.dir.join(kept), dir.path().join(kept)).unwrap();
    }
    let fixed = Package { dir: dir.path().to_owned(), manifest: whole.manifest.clone() };
    for engine in engines() {
        let options = OpenOptions { max_batch: 4, ..engine.options.clone() };
        let (mut one, mut many) = (fixed.open(&options), whole.open(&options));
        assert_eq!(one.report().batch, 1, "{}", engine.label);
        let frames = whole.frames(3, 6);
        let (a, b) = (one.add_stream(), many.add_stream());
        let difference = distance(&dense(&mut one, a, &frames), &dense(&mut many, b, &frames));
        assert!(difference <= ROUNDING, "{}: {difference}", engine.label);
    }
}

#[test]
fn one_stream_twice_in_a_call_is_answered_in_order() {
    for engine in engines() {
        for name in ["tiny-online", "tiny-cached"] {
            let package = Package::tiny(name);
            let mut model = package.open(&OpenOptions { max_batch: 4, ..engine.options.clone() });
            let frames = package.frames(3, 10);
            let (a, b) = (model.add_stream(), model.add_stream());
            let apart = dense(&mut model, a, &frames);
            let requests: Vec<_> =
                frames.windows(model.frames_per_request()).map(|frames| Request { stream: b, frames }).collect();
            assert_eq!(apart, infer(&mut model, &requests), "{name} {}", engine.label);
        }
    }
}

#[test]
fn after_a_gap_a_stream_is_as_fresh() {
    everywhere(|package, engine| {
        let mut model = package.open(&engine.options);
        let count = model.frames_per_request() + 3;
        let (before, after) = (package.frames(4, count), package.frames(5, count));
        let fresh = model.add_stream();
        let expected = dense(&mut model, fresh, &after);

        let stream = model.add_stream();
        dense(&mut model, stream, &before);
        model.reset(stream);
        assert_eq!(expected, dense(&mut model, stream, &after), "{} reset", package.name());

        model.remove_stream(stream);
        let reused = model.add_stream();
        assert_eq!(expected, dense(&mut model, reused, &after), "{} slot of a removed stream", package.name());

        let reconnected = package.frames_in(2, 5, count);
        assert_eq!(expected, dense(&mut model, reused, &reconnected), "{} new session", package.name());
    });
}

#[test]
fn every_frame_goes_through_the_backbone_once() {
    for engine in engines() {
        for name in ["tiny-online", "tiny-cached"] {
            let package = Package::tiny(name);
            let mut model = package.open(&OpenOptions { max_batch: 2, ..engine.options.clone() });
            assert_eq!(model.counters().backbone_runs, 0, "golden clips do not count");
            let frames = package.frames(6, 40);
            let (a, b) = (model.add_stream(), model.add_stream());
            for window in frames.windows(model.frames_per_request()) {
                infer(&mut model, &[Request { stream: a, frames: window }, Request { stream: b, frames: window }]);
            }
            let counters = model.counters();
            assert_eq!(counters.backbone_runs, 2 * 40, "{name} {}: 1.00 runs a frame", engine.label);
            let windows = 2 * (40 - model.frames_per_request() as u64 + 1);
            assert_eq!(counters.head_runs, windows);
        }
    }
}

#[test]
fn what_is_not_a_number_harms_only_its_own_request() {
    let package = Package::tiny("tiny-nan");
    for engine in engines().into_iter().filter(|engine| engine.precision == PrecisionChoice::Fp32) {
        let mut model = package.open(&OpenOptions { max_batch: 2, ..engine.options });
        let (bright, dark) = (package.frames(7, 1), black(&package));
        let streams = [model.add_stream(), model.add_stream(), model.add_stream()];
        let mut logits = Logits::new();
        let requests = [
            Request { stream: streams[0], frames: &bright },
            Request { stream: streams[1], frames: &dark },
            Request { stream: streams[2], frames: &bright },
        ];
        let error = model.infer(&requests, &mut logits).unwrap_err();
        assert_eq!(
            error.to_string(),
            "model tiny-nan: output `logits` of request 1 has a value that is not finite; reset the stream, and if it stays, \
             replace the model"
        );
        assert_eq!([0, 1, 2].map(|row| logits.is_valid(row)), [true, false, true]);
        let rows = [0, 2].map(|row| vec![logits.row(row).to_vec()]);
        assert!(distance(&rows[0], &rows[1]) <= ROUNDING, "{rows:?}");
    }
}

fn black(package: &Package) -> Vec<Frame> {
    let frame = &package.frames(0, 1)[0];
    let pixels = vec![0; frame.pixels().len()];
    vec![std::sync::Arc::new(kinewatch_core::frame::FrameBuf::new(*frame.meta(), pixels))]
}

#[test]
fn a_stream_is_looked_at_inside_its_boxes() {
    let package = Package::tiny("tiny-boxes");
    for engine in engines() {
        let mut model = package.open(&OpenOptions { max_batch: 4, ..engine.options.clone() });
        let frames = package.frames(9, model.frames_per_request());
        let (left, right) = (region([0.0, 0.0, 0.5, 1.0]), region([0.5, 0.0, 1.0, 1.0]));
        let given = [vec![left, right], vec![right, left], vec![left], vec![left, Region::WHOLE], vec![]];
        let streams: Vec<_> = given
            .iter()
            .map(|boxes| {
                let stream = model.add_stream();
                model.set_boxes(stream, boxes).unwrap();
                stream
            })
            .collect();
        let requests: Vec<_> = streams.iter().map(|&stream| Request { stream, frames: &frames }).collect();
        let rows = infer(&mut model, &requests);
        let far = |a: usize, b: usize| distance(&rows[a..=a], &rows[b..=b]);
        let same = if engine.precision == PrecisionChoice::Int8 { 0.05 } else { ROUNDING };
        assert!(far(2, 3) <= same, "{}: what is not given is the whole picture: {rows:?}", engine.label);
        for (a, b) in [(0, 1), (0, 2), (1, 2), (0, 4), (1, 4), (2, 4)] {
            assert!(far(a, b) > 2.0 * same, "{}: {a} and {b} look at different places: {rows:?}", engine.label);
        }

        model.reset(streams[0]);
        assert!(distance(&infer(&mut model, &requests), &rows) <= same, "{}: a gap leaves the boxes", engine.label);
        model.remove_stream(streams[0]);
        let reused = [Request { stream: model.add_stream(), frames: &frames }];
        assert!(distance(&infer(&mut model, &reused), &rows[4..]) <= same, "{}: a new stream has none", engine.label);

        let error = model.set_boxes(streams[1], &[left, left, left]).unwrap_err();
        assert_eq!(error.to_string(), "model tiny-boxes: 3 boxes were given to a stream, the model takes 2");
        assert!(distance(&infer(&mut model, &requests[1..]), &rows[1..]) <= same, "{}", engine.label);
    }
    let mut model = Package::tiny("tiny-clip").open(&tract(PrecisionChoice::Fp32));
    let stream = model.add_stream();
    let error = model.set_boxes(stream, &[Region::WHOLE]).unwrap_err();
    assert_eq!(error.to_string(), "model tiny-clip: 1 boxes were given to a stream, the model takes 0");
}

fn region(corners: [f32; 4]) -> Region {
    Region::new(corners).unwrap()
}

#[test]
fn a_package_that_needs_onnx_runtime_is_opened_on_nothing_else() {
    let mut package = Package::tiny("tiny-clip");
    let because = "tract has no operator RoiAlign".to_owned();
    package.manifest.requires = Some(Requires { backend: RequiredBackend::Ort, because });
    // Refused before any file is looked at.
    let nowhere = Package { dir: "/nonexistent".into(), manifest: package.manifest.clone() };
    let told = |options: &OpenOptions| Model::open(&nowhere.dir, &nowhere.manifest, options).unwrap_err().to_string();
    let line = |missing| {
        format!(
            "needs ONNX Runtime (tract has no operator RoiAlign), but {missing}; install ONNX Runtime, name it with \
             ort_library, and set backend to \"auto\" or \"ort\""
        )
    };
    assert_eq!(told(&tract(PrecisionChoice::Fp32)), line("backend is \"tract\""));
    assert_eq!(told(&OpenOptions::default()), line("no usable library was found"));

    let Some(library) = ort_library() else { return };
    let auto = OpenOptions { ort_library: Some(library), ..OpenOptions::default() };
    assert_eq!(package.open(&auto).report().backend, Backend::Ort);
    // A graph that ONNX Runtime refuses is not tried on tract.
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(package.dir.join("labels.txt"), dir.path().join("labels.txt")).unwrap();
    for file in ["tiny.fp32.onnx", "tiny.int8.onnx"] {
        std::fs::write(dir.path().join(file), "not a graph").unwrap();
    }
    let error = Model::open(dir.path(), &package.manifest, &auto).unwrap_err().to_string();
    assert!(error.contains("ort cannot load it"), "{error}");
}

#[test]
fn wrong_requests_are_refused() {
    let package = Package::tiny("tiny-clip");
    let mut model = package.open(&tract(PrecisionChoice::Fp32));
    let stream = model.add_stream();
    let mut logits = Logits::new();
    let frames = package.frames(8, 4);
    let short = model.infer(&[Request { stream, frames: &frames[..3] }], &mut logits).unwrap_err();
    assert_eq!(short.to_string(), "model tiny-clip: request 0 has 3 frames, a window has 4");
    let falls = Package::falls().frames(0, 4);
    assert!(matches!(
        model.infer(&[Request { stream, frames: &falls }], &mut logits),
        Err(InferError::FrameSize { expected: 1152, .. })
    ));
    model.remove_stream(stream);
    let gone = model.infer(&[Request { stream, frames: &frames }], &mut logits).unwrap_err();
    assert!(matches!(gone, InferError::UnknownStream { request: 0, .. }), "{gone}");
}

#[test]
fn auto_takes_what_is_fastest_and_says_why() {
    let package = Package::tiny("tiny-online");
    let model = package.open(&OpenOptions::default());
    let report = model.report();
    assert_eq!((report.backend, report.precision), (Backend::Tract, Precision::Fp32));
    assert_eq!(report.why, "no ONNX Runtime library was found; tract is fastest with the fp32 file");

    let Some(library) = ort_library() else { return };
    let model = package.open(&OpenOptions { ort_library: Some(library.clone()), ..OpenOptions::default() });
    let report = model.report();
    println!("{}\n{:#?}", report.summary(), report.refused);
    assert_eq!((report.backend, report.precision, report.provider), (Backend::Ort, Precision::Int8, Provider::Cpu));
    assert!(report.refused.iter().any(|reason| reason.starts_with("ort/cuda/fp32")), "{:?}", report.refused);
    assert!(report.library.as_ref().is_some_and(|found| found.path == library && found.version.starts_with("1.")));
}

#[test]
fn models_travel_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Model>();
    assert_eq!(Package::tiny("tiny-online").manifest.plan, Plan::Online);
}
