//! What the caller decides when it opens a model, and what comes of it. Pure: no library is touched here.

use std::path::PathBuf;

use crate::cache::EngineCache;
use crate::error::OpenError;

/// Which back end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// ONNX Runtime when a library is given and the model passes on it, else tract.
    #[default]
    Auto,
    /// Pure Rust, always there.
    Tract,
    /// ONNX Runtime.
    Ort,
}

/// Which file of the package.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrecisionChoice {
    /// fp16 on TensorRT, int8 on ONNX Runtime's CPU provider, fp32 elsewhere.
    #[default]
    Auto,
    /// `[graphs.fp32]`.
    Fp32,
    /// `[graphs.fp32]`, computed in fp16: by TensorRT alone.
    Fp16,
    /// `[graphs.int8]`.
    Int8,
}

/// A back end in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// tract.
    Tract,
    /// ONNX Runtime.
    Ort,
}

impl Backend {
    /// As written in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tract => "tract",
            Self::Ort => "ort",
        }
    }
}

/// Arithmetic in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// The fp32 file, computed in fp32.
    Fp32,
    /// The fp32 file, computed in fp16 where TensorRT sees fit.
    Fp16,
    /// The int8 file.
    Int8,
}

impl Precision {
    /// As written in the configuration and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        }
    }
}

/// An execution provider of ONNX Runtime; the order is from best to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// NVIDIA TensorRT; CUDA takes the nodes it refuses, where CUDA is among the providers.
    TensorRt,
    /// NVIDIA CUDA.
    Cuda,
    /// The processor.
    Cpu,
}

impl Provider {
    /// Every provider, best first.
    pub const ALL: [Self; 3] = [Self::TensorRt, Self::Cuda, Self::Cpu];

    /// As written in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TensorRt => "tensorrt",
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        }
    }

    /// As ONNX Runtime writes it in a profile.
    #[must_use]
    pub fn runtime_name(self) -> &'static str {
        match self {
            Self::TensorRt => "TensorrtExecutionProvider",
            Self::Cuda => "CUDAExecutionProvider",
            Self::Cpu => "CPUExecutionProvider",
        }
    }
}

/// When an engine is built that is not kept from before: minutes on a small device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Build {
    /// While the model is opened.
    #[default]
    Now,
    /// Not here: ways on this provider are passed over where there are others, and the report says so.
    Later(Provider),
    /// Before: one that does not serve after all is not built again here.
    Before,
    /// Not here, whatever else there is: for whoever only looks.
    Never(Provider),
}

/// How to open a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Back end.
    pub backend: BackendChoice,
    /// File of the package.
    pub precision: PrecisionChoice,
    /// ONNX Runtime, as [`crate::find_library`] found it: an absolute path, probed in a child process.
    pub ort_library: Option<PathBuf>,
    /// Tried in this order; the first that runs the model is used.
    pub provider_order: Vec<Provider>,
    /// Anything else is an error.
    pub require_provider: Option<Provider>,
    /// This way alone, of all that the rest allows: for whoever compares them.
    pub only: Option<Candidate>,
    /// Threads of one model's computation (ONNX Runtime only; tract has one).
    pub threads: usize,
    /// Most requests in one run of the graph (ONNX Runtime only; tract is fed one at a time).
    pub max_batch: usize,
    /// Where TensorRT keeps its engines; without it they are built at every start.
    pub cache: Option<EngineCache>,
    /// When it builds them.
    pub build: Build,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            backend: BackendChoice::Auto,
            precision: PrecisionChoice::Auto,
            ort_library: None,
            provider_order: vec![Provider::TensorRt, Provider::Cuda, Provider::Cpu],
            require_provider: None,
            only: None,
            threads: 1,
            max_batch: 1,
            cache: None,
            build: Build::Now,
        }
    }
}

impl OpenOptions {
    /// The provider whose ways among `list` are put off, if any: another has to serve meanwhile, so none is where one
    /// provider is required or is all there is.
    #[must_use]
    pub fn put_off(&self, list: &[Candidate]) -> Option<Provider> {
        let provider = match self.build {
            Build::Now | Build::Before => return None,
            Build::Never(provider) => return Some(provider),
            Build::Later(provider) => provider,
        };
        let serves = |c: &Candidate| c.backend == Backend::Tract || c.provider != provider;
        (self.require_provider.is_none() && list.iter().any(serves)).then_some(provider)
    }

    /// The same, with engines kept under the digest of this package.
    #[must_use]
    pub fn of_package(&self, digest: &str) -> Self {
        Self { cache: self.cache.as_ref().map(|cache| cache.of_package(digest)), ..self.clone() }
    }
}

/// One way to run a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Back end.
    pub backend: Backend,
    /// Always [`Provider::Cpu`] for tract.
    pub provider: Provider,
    /// Arithmetic.
    pub precision: Precision,
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.backend.name(), self.provider.name(), self.precision.name())
    }
}

/// The ways allowed by `options`, best first. Measured (`research/dependencies.md`): int8 is twice as fast as fp32 on
/// ONNX Runtime's CPU provider, slower than fp32 on tract; TensorRT does best with fp16 of the fp32 file. CUDA, the CPU provider
/// and tract compute in the types that the file has, and no package has a file in fp16.
///
/// # Errors
/// Options that leave no way.
pub fn candidates(model: &str, has_int8: bool, options: &OpenOptions) -> Result<Vec<Candidate>, OpenError> {
    let int8 =
        options.only.map_or(options.precision == PrecisionChoice::Int8, |only| only.precision == Precision::Int8);
    if int8 && !has_int8 {
        return Err(OpenError::NoGraph { model: model.to_owned(), precision: "int8" });
    }
    if let Some(only) = options.only {
        return Ok(vec![only]);
    }
    let mut list = Vec::new();
    let ort_wanted = match options.backend {
        BackendChoice::Ort => true,
        BackendChoice::Auto => options.ort_library.is_some(),
        BackendChoice::Tract => false,
    };
    if ort_wanted {
        for &provider in &options.provider_order {
            if options.require_provider.is_none_or(|required| required == provider) {
                for &precision in ort_precisions(provider, options.precision, has_int8) {
                    list.push(Candidate { backend: Backend::Ort, provider, precision });
                }
            }
        }
    }
    let gpu_required = options.require_provider.is_some_and(|provider| provider != Provider::Cpu);
    if options.backend != BackendChoice::Ort && !gpu_required && options.precision != PrecisionChoice::Fp16 {
        let precision = if options.precision == PrecisionChoice::Int8 { Precision::Int8 } else { Precision::Fp32 };
        list.push(Candidate { backend: Backend::Tract, provider: Provider::Cpu, precision });
    }
    if list.is_empty() {
        let half = options.precision == PrecisionChoice::Fp16;
        return Err(OpenError::Options(if half { no_way_in_fp16(options) } else { no_way(options) }));
    }
    Ok(list)
}

fn no_way_in_fp16(options: &OpenOptions) -> String {
    let (reason, remedy) = match options.require_provider {
        _ if options.backend == BackendChoice::Tract => {
            ("backend is \"tract\"".to_owned(), "set backend to \"auto\" or \"ort\"")
        }
        Some(required) if required != Provider::TensorRt => (
            format!("require_provider = \"{}\" permits no other", required.name()),
            "set require_provider to \"tensorrt\"",
        ),
        _ if !options.provider_order.contains(&Provider::TensorRt) => {
            ("\"tensorrt\" is not among the providers".to_owned(), "add \"tensorrt\" to them")
        }
        _ => ("there is no ONNX Runtime".to_owned(), "set [engine] ort_library"),
    };
    format!(
        "precision = \"fp16\" is TensorRT's alone, and {reason}: {remedy}, or set precision to \"auto\" or \"fp32\""
    )
}

fn no_way(options: &OpenOptions) -> String {
    match options.require_provider {
        Some(required) if options.provider_order.contains(&required) => format!(
            "require_provider = \"{}\" needs ONNX Runtime: set [engine] ort_library, or remove require_provider",
            required.name()
        ),
        Some(required) => format!(
            "require_provider = \"{0}\" is not among the providers: add \"{0}\" to them, or remove require_provider",
            required.name()
        ),
        None => "the list of providers is empty: name at least \"cpu\"".to_owned(),
    }
}

fn ort_precisions(provider: Provider, choice: PrecisionChoice, has_int8: bool) -> &'static [Precision] {
    match (choice, provider) {
        (PrecisionChoice::Fp32, _) | (PrecisionChoice::Auto, Provider::Cuda) => &[Precision::Fp32],
        (PrecisionChoice::Int8, _) => &[Precision::Int8],
        (PrecisionChoice::Fp16, Provider::TensorRt) => &[Precision::Fp16],
        // The graph itself would have to be in fp16.
        (PrecisionChoice::Fp16, Provider::Cuda | Provider::Cpu) => &[],
        (PrecisionChoice::Auto, Provider::TensorRt) => &[Precision::Fp16, Precision::Fp32],
        (PrecisionChoice::Auto, Provider::Cpu) if has_int8 => &[Precision::Int8, Precision::Fp32],
        (PrecisionChoice::Auto, Provider::Cpu) => &[Precision::Fp32],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(options: &OpenOptions, has_int8: bool) -> Vec<String> {
        candidates("m", has_int8, options).unwrap().iter().map(ToString::to_string).collect()
    }

    fn with_library() -> OpenOptions {
        OpenOptions { ort_library: Some("/x/libonnxruntime.so".into()), ..OpenOptions::default() }
    }

    #[test]
    fn auto_prefers_ort_and_falls_back_in_order() {
        let all = [
            "ort/tensorrt/fp16",
            "ort/tensorrt/fp32",
            "ort/cuda/fp32",
            "ort/cpu/int8",
            "ort/cpu/fp32",
            "tract/cpu/fp32",
        ];
        assert_eq!(names(&with_library(), true), all);
        assert_eq!(
            names(&OpenOptions::default(), true),
            ["tract/cpu/fp32"],
            "no library: tract, and the file that suits it"
        );
    }

    #[test]
    fn a_required_provider_leaves_no_fallback() {
        let options = OpenOptions { require_provider: Some(Provider::Cuda), ..with_library() };
        assert_eq!(names(&options, true), ["ort/cuda/fp32"]);
        let options = OpenOptions { require_provider: Some(Provider::Cuda), ..OpenOptions::default() };
        let error = candidates("m", true, &options).unwrap_err().to_string();
        assert_eq!(
            error,
            "require_provider = \"cuda\" needs ONNX Runtime: set [engine] ort_library, or remove require_provider"
        );
        let options = OpenOptions {
            require_provider: Some(Provider::Cuda),
            provider_order: vec![Provider::Cpu],
            ..with_library()
        };
        assert!(candidates("m", true, &options).unwrap_err().to_string().contains("is not among the providers"));
    }

    #[test]
    fn a_build_is_put_off_only_where_another_way_serves_meanwhile() {
        let put_off = |options: &OpenOptions| options.put_off(&candidates("m", true, options).unwrap());
        let later = OpenOptions { build: Build::Later(Provider::TensorRt), ..with_library() };
        assert_eq!(put_off(&with_library()), None);
        assert_eq!(put_off(&later), Some(Provider::TensorRt));
        let required = OpenOptions { require_provider: Some(Provider::TensorRt), ..later.clone() };
        assert_eq!(put_off(&required), None, "nothing else may serve");
        let looks = OpenOptions { build: Build::Never(Provider::TensorRt), ..required };
        assert_eq!(put_off(&looks), Some(Provider::TensorRt), "who only looks does not wait for it");
        let only = [Provider::TensorRt];
        let alone = OpenOptions { provider_order: only.to_vec(), backend: BackendChoice::Ort, ..later.clone() };
        assert_eq!(put_off(&alone), None, "nothing else can");
        let tract = OpenOptions { provider_order: only.to_vec(), ..later };
        assert_eq!(put_off(&tract), Some(Provider::TensorRt));
    }

    #[test]
    fn fp16_is_tensorrts_alone() {
        let half = OpenOptions { precision: PrecisionChoice::Fp16, ..with_library() };
        assert_eq!(names(&half, true), ["ort/tensorrt/fp16"]);
        assert_eq!(names(&half, false), ["ort/tensorrt/fp16"], "it is made of the fp32 file");
        let told = |options: &OpenOptions| candidates("m", true, options).unwrap_err().to_string();
        let line = |reason: &str, remedy: &str| {
            format!(
                "precision = \"fp16\" is TensorRT's alone, and {reason}: {remedy}, or set precision to \"auto\" or \"fp32\""
            )
        };
        let tract = OpenOptions { backend: BackendChoice::Tract, ..half.clone() };
        assert_eq!(told(&tract), line("backend is \"tract\"", "set backend to \"auto\" or \"ort\""));
        let none = OpenOptions { ort_library: None, ..half.clone() };
        assert_eq!(told(&none), line("there is no ONNX Runtime", "set [engine] ort_library"));
        let left_out = OpenOptions { provider_order: vec![Provider::Cuda, Provider::Cpu], ..half.clone() };
        assert_eq!(told(&left_out), line("\"tensorrt\" is not among the providers", "add \"tensorrt\" to them"));
        let other = OpenOptions { require_provider: Some(Provider::Cuda), ..half };
        assert_eq!(
            told(&other),
            line("require_provider = \"cuda\" permits no other", "set require_provider to \"tensorrt\"")
        );
    }

    #[test]
    fn one_way_alone_is_what_it_is() {
        let way = Candidate { backend: Backend::Ort, provider: Provider::Cuda, precision: Precision::Fp32 };
        assert_eq!(names(&OpenOptions { only: Some(way), ..with_library() }, true), ["ort/cuda/fp32"]);
        let int8 = OpenOptions { only: Some(Candidate { precision: Precision::Int8, ..way }), ..with_library() };
        let error = candidates("m", false, &int8).unwrap_err().to_string();
        assert!(error.starts_with("model m: no [graphs.int8]"), "{error}");
    }

    #[test]
    fn explicit_choices_are_kept() {
        let options = OpenOptions {
            backend: BackendChoice::Ort,
            precision: PrecisionChoice::Fp32,
            provider_order: vec![Provider::Cpu],
            ..with_library()
        };
        assert_eq!(names(&options, true), ["ort/cpu/fp32"]);
        let options = OpenOptions { precision: PrecisionChoice::Int8, ..OpenOptions::default() };
        assert_eq!(names(&options, true), ["tract/cpu/int8"]);
        let error = candidates("m", false, &options).unwrap_err().to_string();
        assert_eq!(error, "model m: no [graphs.int8] in model.toml; use precision = \"auto\", or package that file");
    }
}
