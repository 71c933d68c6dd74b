//! Execution providers as configuration: what is registered with ONNX Runtime for a candidate. Pure but for
//! [`dispatches`], so that the settings of a GPU are tested on machines without one.

use ort::ep::{ArbitrarilyConfigurableExecutionProvider, CUDA, ExecutionProviderDispatch, TensorRT};

use crate::cache::Place;
use crate::options::{Precision, Provider};

/// Name and value of a provider's option, as ONNX Runtime reads them.
pub(crate) type ProviderOption = (&'static str, String);

/// Providers to register for a candidate, best first. TensorRT is followed by CUDA for the nodes that it refuses, where CUDA is
/// `allowed`; the CPU provider is always there and is never registered.
pub(crate) fn registered(provider: Provider, allowed: &[Provider]) -> &'static [Provider] {
    match provider {
        Provider::TensorRt if allowed.contains(&Provider::Cuda) => &[Provider::TensorRt, Provider::Cuda],
        Provider::TensorRt => &[Provider::TensorRt],
        Provider::Cuda => &[Provider::Cuda],
        Provider::Cpu => &[],
    }
}

/// Options of TensorRT. Engines take minutes to build, so they and the timings of their layers are kept ([`crate::EngineCache`]).
/// ONNX Runtime names an engine by the file and nodes of its graph: `rows` are told apart by the prefix alone.
pub(crate) fn tensorrt_options(
    model: &str,
    precision: Precision,
    rows: usize,
    place: Option<&Place>,
) -> Vec<ProviderOption> {
    let half = precision != Precision::Fp32;
    let mut options = vec![
        ("trt_fp16_enable", flag(half)),
        ("trt_int8_enable", flag(precision == Precision::Int8)),
        // One graph, one engine: islands of two or three nodes cost more in copies than they win.
        ("trt_min_subgraph_size", "5".to_owned()),
    ];
    if let Some(place) = place {
        options.extend([
            ("trt_engine_cache_enable", flag(true)),
            ("trt_engine_cache_path", place.engines.display().to_string()),
            ("trt_engine_cache_prefix", format!("{model}-{}-n{rows}", precision.name())),
            ("trt_timing_cache_enable", flag(true)),
            ("trt_timing_cache_path", place.timings.display().to_string()),
        ]);
    }
    options
}

/// Options of CUDA. TF32 rounds the inputs of convolutions to 10 bits, which is not what "fp32" promises.
pub(crate) fn cuda_options() -> Vec<ProviderOption> {
    vec![("use_tf32", flag(false)), ("cudnn_conv_algo_search", "HEURISTIC".to_owned())]
}

/// What is handed to the session builder; a provider that cannot be had is an error, never a silent fallback.
pub(crate) fn dispatches(
    model: &str,
    provider: Provider,
    allowed: &[Provider],
    precision: Precision,
    rows: usize,
    place: Option<&Place>,
) -> Vec<ExecutionProviderDispatch> {
    let build = |provider: &Provider| match provider {
        Provider::TensorRt => {
            let options = tensorrt_options(model, precision, rows, place);
            Some(with_options(TensorRT::default(), options).build().error_on_failure())
        }
        Provider::Cuda => Some(with_options(CUDA::default(), cuda_options()).build().error_on_failure()),
        Provider::Cpu => None,
    };
    registered(provider, allowed).iter().filter_map(build).collect()
}

fn with_options<E: ArbitrarilyConfigurableExecutionProvider>(provider: E, options: Vec<ProviderOption>) -> E {
    options.into_iter().fold(provider, |provider, (key, value)| provider.with_arbitrary_config(key, value))
}

fn flag(on: bool) -> String {
    if on { "1" } else { "0" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(options: &[ProviderOption]) -> String {
        options.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tensorrt_uses_the_precision_and_keeps_its_engines() {
        let place = Place { engines: "/engines/falls".into(), timings: "/engines/timings".into(), max_batch: 8 };
        let options = tensorrt_options("falls", Precision::Fp16, 1, Some(&place));
        assert_eq!(
            text(&options),
            "trt_fp16_enable=1 trt_int8_enable=0 trt_min_subgraph_size=5 trt_engine_cache_enable=1 \
             trt_engine_cache_path=/engines/falls trt_engine_cache_prefix=falls-fp16-n1 trt_timing_cache_enable=1 \
             trt_timing_cache_path=/engines/timings"
        );
        let batch = tensorrt_options("falls", Precision::Fp16, 8, Some(&place));
        let differ = options.iter().zip(&batch).filter(|(one, eight)| one != eight).map(|(_, eight)| eight.1.as_str());
        assert_eq!(differ.collect::<Vec<_>>(), ["falls-fp16-n8"], "the same nodes, another engine");
        let options = tensorrt_options("falls", Precision::Fp32, 1, None);
        assert_eq!(text(&options), "trt_fp16_enable=0 trt_int8_enable=0 trt_min_subgraph_size=5");
        let options = tensorrt_options("falls", Precision::Int8, 1, None);
        assert_eq!(text(&options), "trt_fp16_enable=1 trt_int8_enable=1 trt_min_subgraph_size=5");
    }

    #[test]
    fn cuda_computes_in_fp32() {
        assert_eq!(text(&cuda_options()), "use_tf32=0 cudnn_conv_algo_search=HEURISTIC");
    }

    #[test]
    fn tensorrt_falls_back_to_cuda_where_that_is_allowed_and_nothing_registers_the_cpu() {
        let names = |provider, allowed: &[Provider]| -> Vec<_> {
            let all = dispatches("m", provider, allowed, Precision::Fp32, 1, None);
            all.iter().map(ExecutionProviderDispatch::name).collect()
        };
        assert_eq!(names(Provider::TensorRt, &Provider::ALL), ["TensorrtExecutionProvider", "CUDAExecutionProvider"]);
        let without = [Provider::TensorRt, Provider::Cpu];
        assert_eq!(names(Provider::TensorRt, &without), ["TensorrtExecutionProvider"], "the list leaves CUDA out");
        assert_eq!(names(Provider::Cuda, &Provider::ALL), ["CUDAExecutionProvider"]);
        assert!(names(Provider::Cpu, &Provider::ALL).is_empty());
    }
}
