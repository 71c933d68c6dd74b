//! Every way a package can be broken, and the one line that is printed for it.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{ort, ort_library, repository, tract};
use kinewatch_core::manifest::Manifest;
use kinewatch_engine::{BackendChoice, Model, OpenOptions, PrecisionChoice, Provider};

/// A copy of a package to be broken.
struct Broken {
    dir: tempfile::TempDir,
    toml: String,
}

impl Broken {
    fn of(name: &str) -> Self {
        let from = repository().join("tests/data/packages").join(name);
        let dir = tempfile::tempdir().unwrap();
        copy(&from, dir.path());
        let toml = std::fs::read_to_string(from.join("model.toml")).unwrap();
        Self { dir, toml }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn edited(mut self, from: &str, to: &str) -> Self {
        assert!(self.toml.contains(from), "{from}");
        self.toml = self.toml.replace(from, to);
        self
    }

    /// The message, the same on every back end but for the back end's own words; without the directory.
    fn errors(&self) -> Vec<String> {
        let mut options = vec![tract(PrecisionChoice::Fp32)];
        options.extend(ort_library().map(|library| ort(&library, PrecisionChoice::Fp32)));
        options.iter().map(|options| self.error(options)).collect()
    }

    fn error(&self, options: &OpenOptions) -> String {
        let manifest = Manifest::parse(&self.toml).unwrap();
        let error = Model::open(self.dir.path(), &manifest, options).unwrap_err().to_string();
        println!("{error}");
        assert!(!error.contains('\n'), "one line: {error}");
        error.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn missing_model() {
    let package = Broken::of("tiny-clip");
    std::fs::remove_file(package.file("tiny.fp32.onnx")).unwrap();
    for error in package.errors() {
        assert_eq!(
            error,
            "tiny.fp32.onnx: cannot be read: No such file or directory (os error 2); reinstall the model package"
        );
    }
}

#[test]
fn not_onnx_truncated_and_empty() {
    for content in ["text", "truncated", "empty"] {
        let package = Broken::of("tiny-online");
        let file = package.file("tiny.fp32.onnx");
        let whole = std::fs::read(&file).unwrap();
        let bytes = match content {
            "text" => b"this is not a model\n".to_vec(),
            "truncated" => whole[..whole.len() / 2].to_vec(),
            _ => Vec::new(),
        };
        std::fs::write(&file, bytes).unwrap();
        for error in package.errors() {
            assert!(error.starts_with("tiny.fp32.onnx: "), "{content}: {error}");
            assert!(
                error.contains("cannot load it as an ONNX model") || error.contains("does not fit model.toml"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_graph_that_does_not_fit_its_manifest() {
    let cases = [
        ("input = \"clip\"", "input = \"video\"", "model.toml names the input `video`, the graph has `clip`"),
        ("logits = \"logits\"", "logits = \"scores\"", "model.toml names the output `scores`, the graph has `logits`"),
        (
            "segments = 4",
            "segments = 2",
            "the input `clip` must be uint8 [N, 2, 3, 16, 24], the graph has uint8 [N, 4, 3, 16, 24]",
        ),
        (
            "dtype = \"uint8\"",
            "dtype = \"float32\"",
            "the input `clip` must be float32 [N, 4, 3, 16, 24], the graph has uint8 [N, 4, 3, 16, 24]",
        ),
        (
            "layout = \"nchw\"",
            "layout = \"nhwc\"",
            "the input `clip` must be uint8 [N, 4, 16, 24, 3], the graph has uint8 [N, 4, 3, 16, 24]",
        ),
    ];
    for (from, to, mismatch) in cases {
        for error in Broken::of("tiny-clip").edited(from, to).errors() {
            assert_eq!(
                error,
                format!(
                    "tiny.fp32.onnx: does not fit model.toml: {mismatch}; correct [input], [tensors] or [labels] in model.toml, \
                     or export the graph again"
                )
            );
        }
    }
}

#[test]
fn states_that_do_not_fit() {
    let wrong_shape = Broken::of("tiny-online").edited("shape = [2, 4, 6]", "shape = [2, 6, 4]");
    for error in wrong_shape.errors() {
        assert!(
            error.contains("the input `state2` must be float32 [N, 2, 6, 4], the graph has float32 [N, 2, 4, 6]"),
            "{error}"
        );
    }
    let state = "[[tensors.states]]\ninput = \"state3\"\noutput = \"next3\"\nshape = [2, 4, 6]\n";
    for error in Broken::of("tiny-online").edited(state, "").errors() {
        assert!(error.contains("the graph has the input `state3`, model.toml names only `frame`, `state0`"), "{error}");
    }
}

#[test]
fn boxes_that_do_not_fit() {
    let table = "[tensors.boxes]\ninput = \"boxes\"\ncount = 2\n";
    let cases = [
        ("count = 2", "count = 3", "the input `boxes` must be float32 [N, 3, 4], the graph has float32 [N, 2, 4]"),
        (
            "input = \"boxes\"",
            "input = \"regions\"",
            "model.toml names the input `regions`, the graph has `clip`, `boxes`",
        ),
    ];
    for (from, to, mismatch) in cases {
        for error in Broken::of("tiny-boxes").edited(from, to).errors() {
            assert!(error.contains(mismatch), "{error}");
        }
    }
    let none = Broken::of("tiny-boxes")
        .edited(table, "")
        .edited("boxes = [[0.0, 0.25, 0.5, 0.75], [0.5, 0.1, 0.9, 1.0]]\n", "")
        .edited("boxes = [[0.6, 0.3, 0.8, 0.7]]\n", "");
    for error in none.errors() {
        assert!(error.contains("the graph has the input `boxes`, model.toml names only `clip`"), "{error}");
    }
    for error in
        Broken::of("tiny-clip").edited("logits = \"logits\"\n", &format!("logits = \"logits\"\n{table}")).errors()
    {
        assert!(error.contains("model.toml names the input `boxes`, the graph has `clip`"), "{error}");
    }
    let other = Broken::of("tiny-boxes").edited("[[0.6, 0.3, 0.8, 0.7]]", "[[0.6, 0.3, 0.8, 0.4]]");
    for error in other.errors() {
        assert!(error.starts_with("golden/one.logits.npy: ") && error.contains("computes other logits"), "{error}");
    }
}

#[test]
fn operators_that_tract_lacks_are_named() {
    let package = Broken::of("tiny-nan");
    let file = package.file("tiny.fp32.onnx");
    let mut bytes = std::fs::read(&file).unwrap();
    // The field op_type of the node `Log`.
    let at = bytes.windows(5).position(|w| w == b"\x22\x03Log").unwrap();
    bytes[at + 2..at + 5].copy_from_slice(b"Lag");
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(
        package.error(&tract(PrecisionChoice::Fp32)),
        "tiny.fp32.onnx: tract has no operator Lag; run it on ONNX Runtime (install it and name it with ort_library), or \
         export the graph without it"
    );
}

#[test]
fn labels_that_do_not_match() {
    let package = Broken::of("tiny-clip");
    std::fs::write(package.file("labels.txt"), "background\nwave\n").unwrap();
    let error = package.error(&tract(PrecisionChoice::Fp32));
    assert!(error.starts_with("labels.txt: "), "{error}");
    std::fs::write(package.file("labels.txt"), "background\njump\nwave\n").unwrap();
    let error = package.error(&tract(PrecisionChoice::Fp32));
    assert!(error.starts_with("labels.txt: ") && error.contains("jump"), "{error}");

    let package = Broken::of("tiny-clip").edited(
        "[[labels]]\nname = \"background\"",
        "[[labels]]\nname = \"more\"\npublish = false\n[[labels]]\nname = \"background\"",
    );
    std::fs::write(package.file("labels.txt"), "more\nbackground\nwave\njump\n").unwrap();
    for error in package.errors() {
        assert!(error.contains("the output `logits` must be float32 [N, 4], the graph has float32 "), "{error}");
    }
}

#[test]
fn logits_that_differ_from_the_golden_clip() {
    let package = Broken::of("tiny-clip");
    std::fs::copy(package.file("golden/more.logits.npy"), package.file("golden/shapes.logits.npy")).unwrap();
    for error in package.errors() {
        assert!(error.starts_with("golden/shapes.logits.npy: "), "{error}");
        assert!(error.contains("(fp32) computes other logits: row 0, label background: expected "), "{error}");
        assert!(error.contains("tolerance 0.0001"), "{error}");
    }
}

#[test]
fn golden_files_that_are_not_arrays() {
    let package = Broken::of("tiny-clip");
    std::fs::write(package.file("golden/shapes.npy"), "nothing").unwrap();
    let error = package.error(&tract(PrecisionChoice::Fp32));
    assert!(error.starts_with("golden/shapes.npy: is not an npy file: "), "{error}");
    std::fs::copy(package.file("golden/shapes.logits.npy"), package.file("golden/shapes.npy")).unwrap();
    let error = package.error(&tract(PrecisionChoice::Fp32));
    assert!(error.starts_with("golden/shapes.npy: must hold uint8 values: "), "{error}");
}

#[test]
fn outputs_that_are_not_numbers() {
    let package = Broken::of("tiny-nan");
    // The golden frames are bytes after a header; black ones make the graph compute log of a negative number.
    let file = package.file("golden/shapes.npy");
    let mut bytes = std::fs::read(&file).unwrap();
    let header = bytes.len() - 2 * 16 * 24 * 3;
    bytes[header..].fill(0);
    std::fs::write(&file, bytes).unwrap();
    for error in package.errors() {
        assert!(error.starts_with("tiny.fp32.onnx: "), "{error}");
        assert!(
            error.contains("its output `logits` is not finite for the golden clips; the weights are damaged"),
            "{error}"
        );
    }
}

#[test]
fn a_graph_that_makes_tract_panic_is_an_error() {
    let package = Broken::of("tiny-nan");
    let graph = repository().join("agent/engine/tests/data/negative-pad.onnx");
    std::fs::copy(graph, package.file("tiny.fp32.onnx")).unwrap();
    let error = package.error(&tract(PrecisionChoice::Fp32));
    assert!(error.starts_with("tiny.fp32.onnx: tract "), "{error}");
}

#[test]
fn options_that_cannot_be_met() {
    let package = Broken::of("tiny-nan");
    assert_eq!(
        package.error(&tract(PrecisionChoice::Int8)),
        "model tiny-nan: no [graphs.int8] in model.toml; use precision = \"auto\", or package that file"
    );
    let error = package.error(&OpenOptions { backend: BackendChoice::Ort, ..OpenOptions::default() });
    assert!(error.starts_with("backend ort: no usable ONNX Runtime library: none was given; install"), "{error}");
}

#[test]
fn fp16_is_asked_of_tensorrt_alone() {
    let Some(library) = ort_library() else { return };
    let options = OpenOptions { provider_order: Provider::ALL.to_vec(), ..ort(&library, PrecisionChoice::Fp16) };
    let error = Broken::of("tiny-clip").error(&options);
    let start = "tiny.fp32.onnx: execution provider tensorrt cannot run it: ";
    let end = "; install what it needs, or set precision to \"auto\" or \"fp32\": nothing else computes fp16";
    assert!(error.starts_with(start) && error.ends_with(end), "{error}");
}

#[test]
fn a_required_provider_is_never_replaced() {
    let Some(library) = ort_library() else { return };
    let package = Broken::of("tiny-clip");
    for provider in [Provider::Cuda, Provider::TensorRt] {
        let options = OpenOptions {
            provider_order: vec![Provider::TensorRt, Provider::Cuda, Provider::Cpu],
            require_provider: Some(provider),
            ..ort(&library, PrecisionChoice::Auto)
        };
        let error = package.error(&options);
        let start = format!("tiny.fp32.onnx: execution provider {} cannot run it: ", provider.name());
        let end = "; install what it needs, or remove require_provider, which permits no other";
        assert!(error.starts_with(&start) && error.ends_with(end), "{error}");
        if !library.with_file_name("libonnxruntime_providers_cuda.so").exists() {
            let name = if provider == Provider::Cuda { "CUDA" } else { "TensorRT" };
            assert_eq!(error, format!("{start}{name} execution provider is not enabled in this build{end}"));
        }
    }
}
