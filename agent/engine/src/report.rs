//! What came of opening a model: which back end runs it, where, how exactly, and why.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::library::LibraryInfo;
use crate::options::{Backend, Candidate, Precision, Provider};

/// A golden clip's result.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldenResult {
    /// Path of the frames inside the package.
    pub clip: String,
    /// Rows of logits compared.
    pub rows: usize,
    /// Largest absolute difference of a logit.
    pub max_diff: f32,
    /// Largest one allowed.
    pub tolerance: f32,
}

/// How a model was opened.
#[derive(Clone, Debug)]
pub struct OpenReport {
    /// Package name.
    pub model: String,
    /// Back end in use.
    pub backend: Backend,
    /// Provider that computes most of the graph, by ONNX Runtime's own profile; [`Provider::Cpu`] for tract.
    pub provider: Provider,
    /// Nodes by provider, as ONNX Runtime names them; empty for tract.
    pub nodes: BTreeMap<String, usize>,
    /// Arithmetic in use.
    pub precision: Precision,
    /// ONNX files in use.
    pub files: Vec<PathBuf>,
    /// ONNX Runtime in use.
    pub library: Option<LibraryInfo>,
    /// Most requests in one run.
    pub batch: usize,
    /// Why this one.
    pub why: String,
    /// Better ways that were tried and refused, each with its reason.
    pub refused: Vec<String>,
    /// The better provider whose engine has to be built first ([`crate::Build::Later`]).
    pub postponed: Option<Provider>,
    /// Golden clips.
    pub golden: Vec<GoldenResult>,
    /// Loading, optimising and the first runs, milliseconds.
    pub load_ms: f64,
    /// Golden clips, milliseconds.
    pub golden_ms: f64,
}

impl OpenReport {
    /// Largest difference over all golden clips.
    #[must_use]
    pub fn golden_max_diff(&self) -> f32 {
        self.golden.iter().map(|result| result.max_diff).fold(0.0, f32::max)
    }

    /// One line for the log.
    #[must_use]
    pub fn summary(&self) -> String {
        let version = self.library.as_ref().map(|library| format!(" {}", library.version)).unwrap_or_default();
        format!(
            "model {} on {}{version} ({}, {}, batch {}): {}; golden clips within {:.2e}, opened in {:.0} ms",
            self.model,
            self.backend.name(),
            self.provider.name(),
            self.precision.name(),
            self.batch,
            self.why,
            self.golden_max_diff(),
            self.load_ms + self.golden_ms,
        )
    }
}

/// Provider that ran most nodes; the candidate's own when there is no profile.
pub(crate) fn provider_in_use(candidate: Candidate, nodes: &BTreeMap<String, usize>) -> Provider {
    let of = |provider: Provider| nodes.get(provider.runtime_name()).copied().unwrap_or(0);
    [Provider::TensorRt, Provider::Cuda, Provider::Cpu]
        .into_iter()
        .filter(|&provider| of(provider) > 0)
        // TensorRT fuses a whole graph into one node, so any node of its own counts for more than the others.
        .max_by_key(|&provider| if provider == Provider::TensorRt { usize::MAX } else { of(provider) })
        .unwrap_or(candidate.provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_the_provider_that_really_computes() {
        let candidate = Candidate { backend: Backend::Ort, provider: Provider::Cuda, precision: Precision::Fp32 };
        let nodes = |list: &[(Provider, usize)]| {
            list.iter().map(|(provider, count)| (provider.runtime_name().to_owned(), *count)).collect()
        };
        assert_eq!(provider_in_use(candidate, &nodes(&[(Provider::Cuda, 50), (Provider::Cpu, 2)])), Provider::Cuda);
        assert_eq!(provider_in_use(candidate, &nodes(&[(Provider::Cpu, 52)])), Provider::Cpu, "a silent fallback");
        assert_eq!(
            provider_in_use(candidate, &nodes(&[(Provider::TensorRt, 1), (Provider::Cuda, 3)])),
            Provider::TensorRt
        );
        assert_eq!(provider_in_use(candidate, &BTreeMap::new()), Provider::Cuda);
    }
}
