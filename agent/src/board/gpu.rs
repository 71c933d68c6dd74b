//! What a TensorRT engine fits alone: versions of ONNX Runtime, TensorRT and CUDA, and the GPU. Told by files, so that no
//! library has to be loaded for it.

use crate::root::Root;

/// Where libraries of TensorRT lie.
const FOLDERS: [&str; 4] =
    ["/usr/lib/aarch64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/local/lib", "/usr/local/cuda/lib64"];

/// The platform as a part of a file name: `ort1.23.0-trt10.3.0-cuda12.6.11-orin.nano…-l4t36.4.3`. What is not told is left out:
/// TensorRT itself refuses an engine of another version, which is a miss.
#[must_use]
pub fn platform(root: &Root, ort_version: &str) -> String {
    let parts = [
        Some(format!("ort{ort_version}")),
        tensorrt(root).map(|version| format!("trt{version}")),
        cuda(root).map(|version| format!("cuda{version}")),
        gpu(root),
        super::l4t(root).map(|release| format!("l4t{release}")),
    ];
    parts.into_iter().flatten().map(|part| plain(&part)).collect::<Vec<_>>().join("-")
}

/// `libnvinfer.so.10.3.0` is 10.3.0; shorter names are links to it, and the newest is what is in use.
fn tensorrt(root: &Root) -> Option<String> {
    let version = |name: &String| {
        let parts = name.strip_prefix("libnvinfer.so.")?.split('.');
        parts.map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>()
    };
    let found = FOLDERS.iter().flat_map(|folder| root.names(folder, "libnvinfer.so."));
    let newest = found.filter_map(|name| version(&name)).max()?;
    Some(newest.iter().map(ToString::to_string).collect::<Vec<_>>().join("."))
}

fn cuda(root: &Root) -> Option<String> {
    let text = root.read("/usr/local/cuda/version.json")?;
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(json["cuda"]["version"].as_str()?.to_owned())
}

/// The board on a Jetson, the first GPU elsewhere.
fn gpu(root: &Root) -> Option<String> {
    const CARDS: &str = "/proc/driver/nvidia/gpus";
    super::model(root).filter(|_| super::is_jetson(root)).or_else(|| {
        let card = root.names(CARDS, "").into_iter().next()?;
        let text = root.read(format!("{CARDS}/{card}/information"))?;
        text.lines().find_map(|line| line.strip_prefix("Model:")).map(|model| model.trim().to_owned())
    })
}

/// Letters, digits and points, in lower case; at most 64.
fn plain(text: &str) -> String {
    let text: String = text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '.' }).collect();
    text.split('.').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".").chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::trees;

    #[test]
    fn the_platform_is_told_by_files() {
        let of = |tree: &str, ort: &str| platform(&Root::below(trees::plant(&[tree]).path()), ort);
        assert_eq!(
            of("orin-nano-jp62", "1.23.0"),
            "ort1.23.0-trt10.3.0-cuda12.6.11-nvidia.jetson.orin.nano.developer.kit-l4t36.4.3"
        );
        assert_eq!(
            of("thor-jp7", "1.24.0"),
            "ort1.24.0-trt10.13.3-cuda13.0.0-nvidia.jetson.agx.thor.developer.kit-l4t38.2.0"
        );
        let card = "=== /proc/driver/nvidia/gpus/0000:01:00.0/information\nModel: \t\t NVIDIA H200\nIRQ: 7\n";
        assert_eq!(platform(&Root::below(trees::plant_text(card).path()), "1.23.0+cu12"), "ort1.23.0.cu12-nvidia.h200");
        let two = "=== /usr/lib/x86_64-linux-gnu/libnvinfer.so.8.6.2\n=== /usr/local/lib/libnvinfer.so.10\n\
                   === /usr/local/lib/libnvinfer.so.10.3.0\n";
        assert_eq!(platform(&Root::below(trees::plant_text(two).path()), "1.23.0"), "ort1.23.0-trt10.3.0");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(platform(&Root::below(dir.path()), "1.23.0"), "ort1.23.0");
    }
}
