//! ONNX Runtime: found, usable, and built with which providers.

use std::time::Duration;

use kinewatch_capture::Platform;
use kinewatch_engine::LibrarySearch;

use crate::board::jetpack;
use crate::config::file::Backend;
use crate::doctor::root::Root;
use crate::doctor::{About, Context, Finding};

/// Each candidate may take ten seconds, and there are a few.
pub(super) const LIMIT: Duration = Duration::from_secs(45);
/// Makes a package of a wheel; below the documentation of the package, beside the examples.
const SCRIPT: &str = "examples/ort-deb.sh";

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let Some(engine) = &context.config.parts.engine else {
        return vec![about.skip("what is asked of it is not known: the configuration cannot be read")];
    };
    if engine.backend == Backend::Tract {
        return vec![about.ok("tract, which is built in, as [engine] backend asks")];
    }
    vec![judge(context.library(), engine.backend, package(&context.root).as_deref(), about)]
}

/// How to get an ONNX Runtime that uses the GPU of this Jetson, for the end of a message; `None` elsewhere.
pub(super) fn package(root: &Root) -> Option<String> {
    const DOC: &str = "/usr/share/doc/kinewatch";
    let (jetpack, release) = match jetpack(root)? {
        jetpack @ Platform::Jetpack6 => (jetpack, "jp6"),
        jetpack @ Platform::Jetpack7 => (jetpack, "jp7"),
        other => return Some(format!("no ONNX Runtime for the GPU is known for {other}; JetPack 6 or 7 has one")),
    };
    Some(format!(
        "get a wheel of onnxruntime_gpu for {jetpack}, then {DOC}/{SCRIPT} {release} WHEEL && \
         apt install ./kinewatch-onnxruntime-{release}_*.deb, as step 4 of {DOC}/README.md tells"
    ))
}

fn judge(search: &LibrarySearch, backend: Backend, package: Option<&str>, about: &About) -> Finding {
    let Some(info) = &search.found else {
        let found = search.summary();
        return match (backend, package) {
            (Backend::Ort, None) => about.fail(format!("{found}; [engine] backend = \"ort\" needs it")),
            (Backend::Ort, Some(package)) => about.fail(format!("{found}, and [engine] backend = \"ort\" needs it; {package}")),
            (_, None) => about.warn(format!("{found}; models run on tract, several times slower: install ONNX Runtime, or set [engine] backend = \"tract\"")),
            (_, Some(package)) => about.warn(format!("{found}, so models run on the processor, by tract; {package}")),
        };
    };
    let providers: Vec<&str> = info.providers.iter().map(|p| p.name()).collect();
    about.ok(format!("ONNX Runtime {} at {}, built for {}", info.version, info.path.display(), providers.join(", ")))
}

#[cfg(test)]
mod tests {
    use kinewatch_engine::{LibraryInfo, ProbeError, Provider};

    use super::*;
    use crate::board::trees;
    use crate::doctor::Verdict;

    #[test]
    fn a_missing_library_matters_as_much_as_it_was_asked_for() {
        let about = About::check("inference");
        let refused = vec![ProbeError::TooOld { path: "/x.so".into(), version: "1.9.0".into(), minimum: 17 }];
        let none = LibrarySearch { found: None, refused };
        assert_eq!(judge(&none, Backend::Ort, None, &about).verdict, Verdict::Fail);
        let on_jetson = judge(&none, Backend::Ort, Some("take this"), &about);
        assert!(on_jetson.verdict == Verdict::Fail && on_jetson.message.ends_with("; take this"), "{on_jetson:?}");
        let warned = judge(&none, Backend::Auto, None, &about);
        assert!(warned.verdict == Verdict::Warn && warned.message.contains("is ONNX Runtime 1.9.0"), "{warned:?}");
        let providers = vec![Provider::Cuda, Provider::Cpu];
        let info = LibraryInfo { path: "/opt/libonnxruntime.so".into(), version: "1.23.0".into(), providers };
        let found = LibrarySearch { found: Some(info), refused: Vec::new() };
        assert_eq!(
            judge(&found, Backend::Auto, Some("not asked"), &about).message,
            "ONNX Runtime 1.23.0 at /opt/libonnxruntime.so, built for cuda, cpu"
        );
    }

    #[test]
    fn a_jetson_is_told_the_package_of_its_jetpack() {
        let of = |dir: tempfile::TempDir| package(&Root::below(dir.path()));
        let orin = of(trees::plant(&["orin-nano-jp62"])).unwrap();
        assert!(orin.contains("for JetPack 6, then") && orin.contains("ort-deb.sh jp6 WHEEL"), "{orin}");
        let thor = of(trees::plant(&["thor-jp7"])).unwrap();
        assert!(thor.contains("ort-deb.sh jp7 WHEEL && apt install ./kinewatch-onnxruntime-jp7_*.deb"), "{thor}");
        let xavier = of(trees::plant_text("=== /etc/nv_tegra_release\n# R35 (release), REVISION: 4.1,\n")).unwrap();
        assert!(xavier.contains("JetPack 5") && !xavier.contains("ort-deb.sh"), "{xavier}");
        assert_eq!(of(trees::plant(&[])), None);
    }

    /// What messages name is what the package has.
    #[test]
    fn the_script_and_its_steps_are_packaged() {
        let manifest = include_str!("../../../Cargo.toml");
        let (folder, file) = SCRIPT.split_once('/').unwrap();
        for asset in [
            format!("[\"../cross/{file}\", \"usr/share/doc/kinewatch/{folder}/\", \"755\"]"),
            "[\"../cross/README.md\", \"usr/share/doc/kinewatch/\", \"644\"]".to_owned(),
        ] {
            assert!(manifest.contains(&asset), "{asset}");
        }
    }
}
