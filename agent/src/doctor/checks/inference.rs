//! ONNX Runtime: found, usable, and built with which providers.

use std::time::Duration;

use kinewatch_engine::LibrarySearch;

use crate::config::file::Backend;
use crate::doctor::{About, Context, Finding};

/// Each candidate may take ten seconds, and there are a few.
pub(super) const LIMIT: Duration = Duration::from_secs(45);

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let Some(engine) = &context.config.parts.engine else {
        return vec![about.skip("what is asked of it is not known: the configuration cannot be read")];
    };
    if engine.backend == Backend::Tract {
        return vec![about.ok("tract, which is built in, as [engine] backend asks")];
    }
    vec![judge(context.library(), engine.backend, about)]
}

fn judge(search: &LibrarySearch, backend: Backend, about: &About) -> Finding {
    let Some(info) = &search.found else {
        let found = search.summary();
        return match backend {
            Backend::Ort => about.fail(format!("{found}; [engine] backend = \"ort\" needs it")),
            _ => about.warn(format!("{found}; models run on tract, several times slower: install ONNX Runtime, or set [engine] backend = \"tract\"")),
        };
    };
    let providers: Vec<&str> = info.providers.iter().map(|p| p.name()).collect();
    about.ok(format!("ONNX Runtime {} at {}, built for {}", info.version, info.path.display(), providers.join(", ")))
}

#[cfg(test)]
mod tests {
    use kinewatch_engine::{LibraryInfo, ProbeError, Provider};

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_missing_library_matters_as_much_as_it_was_asked_for() {
        let about = About::check("inference");
        let refused = vec![ProbeError::TooOld { path: "/x.so".into(), version: "1.9.0".into(), minimum: 17 }];
        let none = LibrarySearch { found: None, refused };
        assert_eq!(judge(&none, Backend::Ort, &about).verdict, Verdict::Fail);
        let warned = judge(&none, Backend::Auto, &about);
        assert!(warned.verdict == Verdict::Warn && warned.message.contains("is ONNX Runtime 1.9.0"), "{warned:?}");
        let providers = vec![Provider::Cuda, Provider::Cpu];
        let info = LibraryInfo { path: "/opt/libonnxruntime.so".into(), version: "1.23.0".into(), providers };
        let found = LibrarySearch { found: Some(info), refused: Vec::new() };
        assert_eq!(
            judge(&found, Backend::Auto, &about).message,
            "ONNX Runtime 1.23.0 at /opt/libonnxruntime.so, built for cuda, cpu"
        );
    }
}
