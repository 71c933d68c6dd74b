//! What came of opening a model: which back end runs it, where, how exactly, and why.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::library::LibraryInfo;
use crate::options::{Backend, Precision, Provider};

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
    /// Nodes by provider, of the graphs for one row; empty for tract. Those of TensorRT, which makes one engine of many, are what
    /// the others leave of the file's.
    pub nodes: BTreeMap<Provider, usize>,
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

    /// [`Self::nodes`] in words, where more than one provider computes.
    #[must_use]
    pub fn placement(&self) -> Option<String> {
        (self.nodes.len() > 1).then(|| placement(&self.nodes))
    }

    /// [`Self::nodes`] by the providers' names as in the configuration.
    #[must_use]
    pub fn named_nodes(&self) -> BTreeMap<String, usize> {
        self.nodes.iter().map(|(provider, count)| (provider.name().to_owned(), *count)).collect()
    }

    /// What to say where a GPU was to compute the graph, and the processor has most of it.
    #[must_use]
    pub fn caution(&self) -> Option<String> {
        mostly_on_cpu(&self.nodes).then(|| {
            format!(
                "the processor computes most of the graph ({}): `kinewatch model bench` tells whether the processor alone is \
                 faster; exported with operators that the GPU takes, it would run there",
                placement(&self.nodes)
            )
        })
    }

    /// One line for the log.
    #[must_use]
    pub fn summary(&self) -> String {
        let nodes = self.placement().map(|nodes| format!("; {nodes}")).unwrap_or_default();
        let version = self.library.as_ref().map(|library| format!(" {}", library.version)).unwrap_or_default();
        format!(
            "model {} on {}{version} ({}, {}, batch {}{nodes}): {}; golden clips within {:.2e}, opened in {:.0} ms",
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

/// Why a way is not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misplaced {
    /// The provider is registered, and others compute every node.
    Absent,
    /// Another than the required provider computes most nodes.
    Other(Provider),
    /// One that the list leaves out computes most nodes.
    Unlisted(Provider),
}

/// The provider that computes most nodes, where it is one that may: the `required` one, or else any of the `allowed` ones, as long
/// as the `wanted` one computes some. Without a profile it is taken for the wanted one.
pub(crate) fn provider_in_use(
    wanted: Provider,
    required: Option<Provider>,
    allowed: &[Provider],
    nodes: &BTreeMap<Provider, usize>,
) -> Result<Provider, Misplaced> {
    // Of equals the last, which is the better provider.
    let most = nodes.iter().rev().max_by_key(|(_, count)| **count).map(|(provider, _)| *provider);
    let found = most.unwrap_or(wanted);
    match required {
        Some(required) if required != found => Err(Misplaced::Other(found)),
        _ if most.is_some() && !nodes.contains_key(&wanted) => Err(Misplaced::Absent),
        _ if found != wanted && !allowed.contains(&found) => Err(Misplaced::Unlisted(found)),
        _ => Ok(found),
    }
}

/// Nodes by provider of one graph. `profile`: nodes that were run, by ONNX Runtime's names. TensorRT fuses its part of the graph
/// into a node or a few, so it is credited with what the others leave of the `graph`'s nodes.
pub(crate) fn nodes_by_provider(profile: &BTreeMap<String, usize>, graph: Option<usize>) -> BTreeMap<Provider, usize> {
    let of = |provider: Provider| profile.get(provider.runtime_name()).copied().unwrap_or(0);
    let left = graph.unwrap_or(0).saturating_sub(of(Provider::Cuda) + of(Provider::Cpu));
    let count = |provider: Provider| match (provider, of(provider)) {
        (Provider::TensorRt, engines @ 1..) => engines.max(left),
        (_, nodes) => nodes,
    };
    Provider::ALL.into_iter().map(|provider| (provider, count(provider))).filter(|(_, count)| *count > 0).collect()
}

/// Such as `tensorrt 187 nodes, cpu 13`.
pub(crate) fn placement(nodes: &BTreeMap<Provider, usize>) -> String {
    let mut parts: Vec<String> = nodes.iter().map(|(provider, count)| format!("{} {count}", provider.name())).collect();
    if let Some(first) = parts.first_mut() {
        first.push_str(if first.ends_with(" 1") { " node" } else { " nodes" });
    }
    parts.join(", ")
}

fn mostly_on_cpu(nodes: &BTreeMap<Provider, usize>) -> bool {
    let all: usize = nodes.values().sum();
    let cpu = nodes.get(&Provider::Cpu).copied().unwrap_or(0);
    cpu < all && cpu > all / 2
}

#[cfg(test)]
mod tests {
    use super::Provider::{Cpu, Cuda, TensorRt};
    use super::*;

    fn profile(list: &[(Provider, usize)]) -> BTreeMap<String, usize> {
        list.iter().map(|(provider, count)| (provider.runtime_name().to_owned(), *count)).collect()
    }

    fn nodes(list: &[(Provider, usize)]) -> BTreeMap<Provider, usize> {
        list.iter().copied().collect()
    }

    #[test]
    fn reports_the_provider_that_really_computes() {
        let found = |wanted, list: &[(Provider, usize)]| provider_in_use(wanted, None, &Provider::ALL, &nodes(list));
        assert_eq!(found(Cuda, &[(Cuda, 50), (Cpu, 2)]), Ok(Cuda));
        assert_eq!(found(Cuda, &[(Cpu, 52)]), Err(Misplaced::Absent), "a silent fallback");
        assert_eq!(found(TensorRt, &[(Cuda, 50), (Cpu, 2)]), Err(Misplaced::Absent), "CUDA with other options");
        assert_eq!(found(TensorRt, &[(TensorRt, 5), (Cpu, 195)]), Ok(Cpu), "with a caution");
        assert_eq!(found(TensorRt, &[(TensorRt, 3), (Cuda, 3)]), Ok(TensorRt));
        assert_eq!(found(Cuda, &[]), Ok(Cuda), "no profile");
        assert_eq!(found(Cpu, &[(Cpu, 3)]), Ok(Cpu));
        let gpu = |list: &[(Provider, usize)]| provider_in_use(Cuda, None, &[TensorRt, Cuda], &nodes(list));
        assert_eq!(gpu(&[(Cuda, 150), (Cpu, 50)]), Ok(Cuda));
        assert_eq!(gpu(&[(Cuda, 50), (Cpu, 150)]), Err(Misplaced::Unlisted(Cpu)), "the list leaves it out");
        assert_eq!(provider_in_use(Cpu, None, &[Cuda], &nodes(&[])), Ok(Cpu), "tract");
    }

    #[test]
    fn a_required_provider_has_to_compute_most() {
        let found = |required, list: &[(Provider, usize)]| {
            provider_in_use(required, Some(required), &Provider::ALL, &nodes(list))
        };
        assert_eq!(found(TensorRt, &[(TensorRt, 187), (Cuda, 13)]), Ok(TensorRt));
        assert_eq!(found(TensorRt, &[(Cuda, 50), (Cpu, 2)]), Err(Misplaced::Other(Cuda)), "CUDA is no TensorRT");
        assert_eq!(found(TensorRt, &[(TensorRt, 5), (Cuda, 195)]), Err(Misplaced::Other(Cuda)));
        assert_eq!(found(Cuda, &[(Cpu, 52)]), Err(Misplaced::Other(Cpu)));
        assert_eq!(found(Cpu, &[]), Ok(Cpu), "tract");
    }

    #[test]
    fn an_engine_counts_for_the_nodes_that_it_is_made_of() {
        let of = |list: &[(Provider, usize)], graph| nodes_by_provider(&profile(list), graph);
        assert_eq!(of(&[(TensorRt, 1), (Cpu, 13)], Some(200)), nodes(&[(TensorRt, 187), (Cpu, 13)]));
        assert_eq!(of(&[(TensorRt, 2)], None), nodes(&[(TensorRt, 2)]));
        assert_eq!(of(&[(TensorRt, 1), (Cpu, 250)], Some(200)), nodes(&[(TensorRt, 1), (Cpu, 250)]));
        assert_eq!(of(&[(Cuda, 50), (Cpu, 2)], Some(200)), nodes(&[(Cuda, 50), (Cpu, 2)]), "no engine, no credit");
    }

    #[test]
    fn where_the_processor_computes_most_of_what_a_gpu_should_is_told() {
        assert!(mostly_on_cpu(&nodes(&[(TensorRt, 7), (Cpu, 193)])));
        assert!(!mostly_on_cpu(&nodes(&[(TensorRt, 187), (Cpu, 13)])));
        assert!(!mostly_on_cpu(&nodes(&[(Cpu, 57)])), "nobody asked for a GPU");
        assert!(!mostly_on_cpu(&nodes(&[])));
        assert_eq!(placement(&nodes(&[(TensorRt, 187), (Cuda, 2), (Cpu, 13)])), "tensorrt 187 nodes, cuda 2, cpu 13");
        assert_eq!(placement(&nodes(&[(Cuda, 1), (Cpu, 2)])), "cuda 1 node, cpu 2");
    }
}
