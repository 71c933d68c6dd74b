//! Loads ONNX Runtime into this process. Once: neither the library nor its environment can be changed afterwards.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;

use crate::error::{BackendError, LinkError, ProbeError};
use crate::guard::guarded;
use crate::library::{MINIMUM_MINOR, elf};

/// What became of the one attempt.
struct Loaded {
    path: PathBuf,
    outcome: Result<(Environment, String), ProbeError>,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// The process's environment and the library's version, loading `path` if nothing is loaded yet. A library that the
/// checks before loading refuse does not count: another may be tried.
///
/// # Errors
/// When the library cannot be used, or another one is in use.
pub(crate) fn environment(path: &Path) -> Result<(Environment, String), ProbeError> {
    let mut slot = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = slot.as_ref() {
        if loaded.path != path {
            return Err(ProbeError::AlreadyLoaded { path: path.into(), loaded: loaded.path.clone() });
        }
        return loaded.outcome.clone();
    }
    if !path.is_absolute() {
        return Err(ProbeError::Relative { path: path.into() });
    }
    elf::check(path)?;
    let version = version(path)?;
    let outcome = guarded(|| start(path))
        .map(|environment| (environment, version))
        .map_err(|error| ProbeError::Load { path: path.into(), detail: error.detail });
    *slot = Some(Loaded { path: path.into(), outcome: outcome.clone() });
    outcome
}

/// `ort` panics on some wrong libraries, and after a panic every further call panics: the caller guards this and keeps
/// the outcome.
fn start(path: &Path) -> Result<Environment, BackendError> {
    // Debug, because the reason that the dynamic linker gives is in no other form.
    let builder = ort::init_from(path).map_err(|error| BackendError::new(format!("{error:?}")))?;
    let environment = builder.with_name("kinewatch").with_telemetry(false).build().map_err(BackendError::new)?;
    environment.set_log_level(ort::logging::LogLevel::Error);
    Ok(environment)
}

/// The C entry point of the library; `GetApi` is left to `ort`.
#[repr(C)]
struct ApiBase {
    get_api: *const c_void,
    get_version_string: Option<unsafe extern "C" fn() -> *const c_char>,
}

/// Loads a shared library by path or name, with all that it needs, as the dynamic linker finds them: what is missing is
/// told by its name. `before` is loaded first, for its symbols. Only for the child process: initialisers run.
///
/// # Errors
/// In the linker's words.
pub fn link_library(library: &Path, before: Option<&Path>) -> Result<(), LinkError> {
    if let Some(before) = before {
        link(before, libc::RTLD_NOW | libc::RTLD_GLOBAL)?;
    }
    // Lazy: symbols of functions that are never called do not count.
    link(library, libc::RTLD_LAZY | libc::RTLD_LOCAL)
}

#[allow(unsafe_code)]
fn link(library: &Path, flags: i32) -> Result<(), LinkError> {
    let name = CString::new(library.as_os_str().as_encoded_bytes())
        .map_err(|error| LinkError { detail: error.to_string() })?;
    // SAFETY: `name` is a C string that outlives the call. Loading runs initialisers, which is why this is for a child
    // process alone; the library stays open until that ends.
    let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
    if handle.is_null() { Err(LinkError { detail: linker_error() }) } else { Ok(()) }
}

/// Opens the library and asks for its version. The library stays open, as `ort` is about to open it again.
#[allow(unsafe_code)]
fn version(path: &Path) -> Result<String, ProbeError> {
    let fail = |detail: String| ProbeError::Load { path: path.into(), detail };
    let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| fail(error.to_string()))?;
    // SAFETY: `name` is a C string that outlives the call. Loading runs the library's initialisers: that is the risk the
    // caller takes knowingly, after the child process took it first.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return Err(fail(linker_error()));
    }
    // SAFETY: `handle` is open, and the name is a C string.
    let symbol = unsafe { libc::dlsym(handle, c"OrtGetApiBase".as_ptr()) };
    if symbol.is_null() {
        return Err(fail("it does not export OrtGetApiBase: it is not ONNX Runtime".to_owned()));
    }
    // SAFETY: ONNX Runtime's C header declares `const OrtApiBase* OrtGetApiBase(void)`.
    let entry = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *const ApiBase>(symbol) };
    // SAFETY: it takes nothing and returns null or a pointer to a static table, whose first two fields are `ApiBase`.
    let base = unsafe { entry().as_ref() };
    let text = base
        .filter(|base| !base.get_api.is_null())
        .and_then(|base| base.get_version_string)
        // SAFETY: it takes nothing and returns null or a static C string.
        .and_then(|call| unsafe { call().as_ref() })
        // SAFETY: not null, and static by the C header.
        .map(|first| unsafe { CStr::from_ptr(first) }.to_string_lossy().into_owned());
    check_version(path, &text.ok_or_else(|| fail("OrtGetApiBase gives no version".to_owned()))?)
}

fn check_version(path: &Path, version: &str) -> Result<String, ProbeError> {
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(1)), Some(Ok(minor))) if minor >= MINIMUM_MINOR => Ok(version.to_owned()),
        _ => Err(ProbeError::TooOld { path: path.into(), version: version.to_owned(), minimum: MINIMUM_MINOR }),
    }
}

#[allow(unsafe_code)]
fn linker_error() -> String {
    // SAFETY: dlerror returns null or a C string that is valid until the next dl* call of this thread; it is copied here.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() { "no reason given".to_owned() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let error = link_library(Path::new("libkinewatch-none.so.10"), None).unwrap_err().to_string();
        assert!(error.starts_with("libkinewatch-none.so.10: cannot open shared object file"), "{error}");
        assert!(link_library(Path::new("libc.so.6"), Some(Path::new("libm.so.6"))).is_ok());
    }

    #[test]
    fn old_and_odd_versions_are_refused() {
        let path = Path::new("/lib/libonnxruntime.so");
        assert_eq!(check_version(path, "1.32.0").unwrap(), "1.32.0");
        let error = check_version(path, "1.16.3").unwrap_err().to_string();
        assert_eq!(
            error,
            "/lib/libonnxruntime.so: is ONNX Runtime 1.16.3, 1.17 or later is needed; install a newer one"
        );
        assert!(check_version(path, "garbage").is_err());
    }
}
