//! The libraries of CUDA and TensorRT that ONNX Runtime opens by name. On a Jetson those of JetPack are looked for by their
//! files first, which tells the package to install; then each is tried in a child process, and what is missing is named by
//! the dynamic linker. Only on a Jetson, or where a GPU is asked for or built in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kinewatch_capture::Platform;
use kinewatch_engine::Provider;

use super::inference::package;
use crate::board::{is_jetson, jetpack};
use crate::config::file::{self, Backend};
use crate::config::plan::EnginePlan;
use crate::doctor::root::Root;
use crate::doctor::{About, Context, Finding, child};
use crate::inference;

const LIMIT: Duration = Duration::from_secs(15);
/// What to do where the board does not tell which.
const FOR_GPUS: &str = "install an ONNX Runtime for GPUs";
/// Opened by TensorRT itself; a minimal flash lacks it, and so do releases for boards without a DLA.
const DLA: (&str, &str) =
    ("libnvdla_compiler.so", "apt install nvidia-l4t-dla-compiler, of the version of nvidia-l4t-core");
/// What JetPack 6 and 7 put where, by provider, and the package that brings it.
const JETPACK: [(Provider, &str, &str); 3] = [
    (Provider::TensorRt, "libnvinfer.so.10", "apt install nvidia-tensorrt"),
    (Provider::TensorRt, DLA.0, DLA.1),
    (Provider::Cuda, "libcudnn.so.9", "apt install nvidia-cudnn"),
];
/// Where such libraries lie; the linker may know more, so what lies elsewhere is tried all the same.
const FOLDERS: [&str; 6] = [
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu/nvidia",
    "/usr/lib/aarch64-linux-gnu/tegra",
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/aarch64-linux/lib",
    "/usr/local/lib",
];

/// A library to try.
struct Trial {
    provider: Provider,
    file: PathBuf,
    before: Option<PathBuf>,
    repair: &'static str,
}

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let jetson = is_jetson(&context.root);
    let package = package(&context.root);
    let package = package.as_deref();
    let Some(engine) = &context.config.parts.engine else {
        return vec![about.skip("the configuration cannot be read")];
    };
    let asked = engine.require_provider.filter(|p| *p != file::Provider::Cpu);
    if engine.backend == Backend::Tract {
        return vec![about.skip("tract runs on the processor")];
    }
    let wants_gpu = wanted(engine).next().is_some();
    let Some(info) = &context.library().found else { return vec![absent(asked, wants_gpu, package, about)] };
    let gpu: Vec<Provider> = wanted(engine).filter(|p| info.providers.contains(p)).collect();
    if let Some(asked) = asked.filter(|a| !gpu.contains(&inference::provider(*a))) {
        let name = inference::provider(asked).name();
        return vec![about.fail(format!(
            "[engine] require_provider = \"{name}\", and {} is built without it; {}",
            info.path.display(),
            package.unwrap_or(FOR_GPUS)
        ))];
    }
    if let Some(package) = package.filter(|_| gpu.is_empty() && wants_gpu) {
        return vec![about.warn(format!(
            "{} is built for the processor alone, so the GPU of this Jetson idles; {package}",
            info.path.display()
        ))];
    }
    if gpu.is_empty() {
        return vec![about.skip("no GPU is asked for, and ONNX Runtime is built without")];
    }
    let mut found: Vec<Finding> = missing(&context.root, &gpu)
        .map(|(provider, file, repair)| {
            let message = format!("{}: {file} is not installed; {repair}", provider.name());
            let required = asked.map(inference::provider);
            // What CUDA lacks, TensorRT lacks too.
            let needed = required.is_some_and(|required| required == provider || provider == Provider::Cuda);
            if needed { about.fail(message) } else { about.warn(message) }
        })
        .collect();
    if found.is_empty() {
        let trials = trials(&info.path, &gpu, jetson);
        found = trials.iter().filter_map(|t| attempt(context, t, asked.is_some(), about)).collect();
    }
    if found.is_empty() {
        let names: Vec<&str> = gpu.iter().map(|p| p.name()).collect();
        found.push(about.ok(format!(
            "the libraries of {} can be loaded; the model check tells what really runs",
            names.join(" and ")
        )));
    }
    found
}

/// What it means for the GPU that there is no library.
fn absent(asked: Option<file::Provider>, wants_gpu: bool, package: Option<&str>, about: &About) -> Finding {
    match (asked.map(inference::provider), package) {
        (Some(asked), _) => about.fail(format!(
            "[engine] require_provider = \"{}\", and there is no ONNX Runtime; {}",
            asked.name(),
            package.unwrap_or(FOR_GPUS)
        )),
        (None, Some(_)) if wants_gpu => {
            about.warn("there is no ONNX Runtime, so the GPU of this Jetson idles; see inference")
        }
        (None, _) => about.skip("there is no ONNX Runtime"),
    }
}

fn wanted(engine: &EnginePlan) -> impl Iterator<Item = Provider> {
    engine.providers.iter().map(|p| inference::provider(*p)).filter(|p| *p != Provider::Cpu)
}

/// Files of JetPack that these providers need and that are in none of the usual places.
fn missing<'a>(root: &'a Root, gpu: &'a [Provider]) -> impl Iterator<Item = (Provider, &'static str, &'static str)> {
    // TensorRT needs what CUDA needs.
    let needed = |provider: Provider| gpu.contains(&provider) || provider == Provider::Cuda && !gpu.is_empty();
    let ours = matches!(jetpack(root), Some(Platform::Jetpack6 | Platform::Jetpack7));
    let missing = move |file: &str| !FOLDERS.iter().any(|folder| root.has(format!("{folder}/{file}")));
    JETPACK.into_iter().filter(move |(provider, file, _)| ours && needed(*provider) && missing(file))
}

/// Providers lie beside the library and need symbols of a shared one.
fn trials(library: &Path, gpu: &[Provider], jetson: bool) -> Vec<Trial> {
    let beside = |name: &str| library.with_file_name(name);
    let mut trials: Vec<Trial> = gpu
        .iter()
        .map(|&provider| {
            let (name, repair) = match provider {
                Provider::TensorRt => (
                    "libonnxruntime_providers_tensorrt.so",
                    "install TensorRT and cuDNN of the versions that this ONNX Runtime was built for",
                ),
                Provider::Cuda | Provider::Cpu => (
                    "libonnxruntime_providers_cuda.so",
                    "install CUDA and cuDNN of the versions that this ONNX Runtime was built for",
                ),
            };
            Trial { provider, file: beside(name), before: Some(beside("libonnxruntime_providers_shared.so")), repair }
        })
        .collect();
    if jetson && gpu.contains(&Provider::TensorRt) {
        trials.push(Trial { provider: Provider::TensorRt, file: DLA.0.into(), before: None, repair: DLA.1 });
    }
    trials
}

/// What is wrong, if anything is.
fn attempt(context: &Context, trial: &Trial, required: bool, about: &About) -> Option<Finding> {
    let mut command = context.child();
    command.args(["engine-probe", "--link"]);
    if let Some(before) = &trial.before {
        command.arg("--before").arg(before);
    }
    command.arg(&trial.file);
    let reason = match child::run(command, LIMIT) {
        Ok(output) if output.status.success() => return None,
        Ok(output) => output
            .stderr
            .lines()
            .last()
            .map_or_else(|| output.status.to_string(), |l| l.trim_start_matches("kinewatch: ").to_owned()),
        Err(e) => e.to_string(),
    };
    let message = format!("{}: {reason}; {}", trial.provider.name(), trial.repair);
    Some(if required { about.fail(message) } else { about.warn(message) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::trees;
    use crate::doctor::tests::told;

    #[test]
    fn files_of_jetpack_that_are_missing_are_named_with_their_package() {
        let names = |trees: &[&str], gpu: &[Provider]| -> Vec<&str> {
            let dir = trees::plant(trees);
            let root = Root::below(dir.path());
            missing(&root, gpu).map(|(_, file, _)| file).collect()
        };
        let all = [Provider::TensorRt, Provider::Cuda];
        assert_eq!(names(&["orin-nano-jp62"], &all), [""; 0]);
        let bare = ["orin-nano-jp62", "orin-nano-jp62-no-cudnn"];
        assert_eq!(names(&bare, &all), ["libnvdla_compiler.so", "libcudnn.so.9"]);
        assert_eq!(names(&bare, &[Provider::Cuda]), ["libcudnn.so.9"]);
        assert_eq!(names(&bare, &[]), [""; 0]);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(missing(&Root::below(dir.path()), &all).count(), 0, "not a Jetson: the linker knows");
    }

    #[test]
    fn a_missing_library_matters_where_there_is_a_gpu_for_it() {
        let line = |asked, wants_gpu, package| {
            told(&[absent(asked, wants_gpu, package, &About::check("accelerator"))]).remove(0)
        };
        assert_eq!(
            line(None, true, Some("take this")),
            "warn there is no ONNX Runtime, so the GPU of this Jetson idles; see inference"
        );
        assert_eq!(line(None, false, Some("take this")), "skip there is no ONNX Runtime", "the processor is asked for");
        assert_eq!(line(None, true, None), "skip there is no ONNX Runtime", "not a Jetson");
        let required = "fail [engine] require_provider = \"cuda\", and there is no ONNX Runtime;";
        let cuda = Some(file::Provider::Cuda);
        assert_eq!(line(cuda, true, Some("take this")), format!("{required} take this"));
        assert_eq!(line(cuda, true, None), format!("{required} {FOR_GPUS}"));
    }

    #[test]
    fn what_is_tried_follows_the_providers_and_the_board() {
        let names = |gpu: &[Provider], jetson| -> Vec<String> {
            let trials = trials(Path::new("/opt/ort/libonnxruntime.so"), gpu, jetson);
            trials.iter().map(|t| t.file.display().to_string()).collect()
        };
        assert_eq!(
            names(&[Provider::TensorRt, Provider::Cuda], true),
            [
                "/opt/ort/libonnxruntime_providers_tensorrt.so",
                "/opt/ort/libonnxruntime_providers_cuda.so",
                "libnvdla_compiler.so"
            ]
        );
        assert_eq!(names(&[Provider::Cuda], true), ["/opt/ort/libonnxruntime_providers_cuda.so"]);
    }
}
