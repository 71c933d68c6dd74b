//! A package that is right in form, and holds nothing of use.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

const MODEL_TOML: &str = r#"
format = 1
name = "tiny"
version = "0.1.0"
architecture = "tsm-online"
plan = "online"
description = "for tests"
license = "CC0-1.0"
provenance = ["none"]
[input]
width = 8
height = 8
resize = "stretch"
filter = "bilinear"
order = "scale-convert"
layout = "nchw"
colour = "rgb"
dtype = "float32"
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
[sampling]
rate_hz = 5.0
segments = 1
snippet = 1
window_s = 0.2
stride_s = 0.2
max_hole_s = 0.5
[output]
scores = "frame"
activation = "softmax"
temperature = 1.0
background = "background"
[tensors]
input = "frame"
logits = "logits"
[[tensors.states]]
input = "state0"
output = "next0"
shape = [3, 4, 4]
[graphs.fp32]
model = "tiny.onnx"
[[labels]]
name = "background"
[[labels]]
name = "wave"
[labels.decoder]
kind = "cusum"
on = 0.6
off = 0.4
smooth_s = 0.0
h_on = 0.5
h_off = 0.5
min_duration_s = 0.3
merge_gap_s = 0.5
max_duration_s = 60.0
lag_start_s = 0.1
lag_end_s = 0.0
uncertainty_start_ms = 100.0
uncertainty_end_ms = 200.0
[golden]
tolerance_fp32 = 1e-3
tolerance_int8 = 0.5
[[golden.clips]]
frames = "golden/a.npy"
logits = "golden/a.logits.npy"
[files]
"#;

/// Its files, without the manifest.
pub const FILES: [(&str, &str); 4] = [
    ("tiny.onnx", "not really a graph"),
    ("labels.txt", "background\nwave\n"),
    ("golden/a.npy", "frames"),
    ("golden/a.logits.npy", "logits"),
];

pub fn package(dir: &Path) {
    release(dir, "0.1.0", FILES[0].1);
}

/// Another version with another graph; all else is the same.
pub fn release(dir: &Path, version: &str, graph: &str) {
    fs::create_dir_all(dir.join("golden")).unwrap();
    let mut toml = MODEL_TOML.replace("0.1.0", version);
    for (name, content) in FILES {
        let content = if name == "tiny.onnx" { graph } else { content };
        fs::write(dir.join(name), content).unwrap();
        toml.push_str(&format!("{name:?} = \"{}\"\n", sha256(content)));
    }
    fs::write(dir.join("model.toml"), toml).unwrap();
}

/// Hex.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
