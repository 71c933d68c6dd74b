//! Folders in which TensorRT keeps the engines and timings that it has built: one for each package, platform and precision.
//!
//! `<root>/<digest of the package, 16 digits>-<platform>-<precision>/`. An engine fits one GPU and one version of ONNX Runtime,
//! TensorRT and CUDA alone, so all of them are in the name: what was built for another is never even opened, and goes once there
//! is something in its place. A folder that does not serve is a miss: it is emptied, and the engine built once more, here or
//! later. Timings of layers fit every package and precision: they are in one folder for the platform,
//! `<root>/timings-<platform>/`, which outlives the engines, so that the next build is shorter. The process that opens a folder
//! holds a lock on a mark in it; a mark that nobody holds was left by a process that died over it, which may be the folder's
//! fault. Never touches what is not below its root.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::is_of_memory;
use crate::options::Precision;

/// Hex digits of the package's digest in a name; the depot of models counts on it.
const DIGITS: usize = 16;
/// Is there while a process opens the folder.
const MARK: &str = "opening";
/// Says that everything in the folder serves, and with how many rows at most.
const SERVES: &str = "serves";
/// Begins the name of a folder of timings; the depot of models counts on it.
const TIMINGS: &str = "timings-";
/// What an engine can be no reason for, beside memory: the cache is not blamed.
const INNOCENT: [&str; 8] = [
    "shared object",
    "load library",
    "no cuda-capable device",
    "driver version is insufficient",
    "not enabled in this build",
    // It opens, and computes too little of the graph.
    "computes no node of the graph",
    "is not among the providers",
    "require_provider = ",
];

/// Where engines of a package are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineCache {
    /// Of all packages.
    pub root: PathBuf,
    /// Versions of what builds engines, and the GPU: letters, digits, points and dashes.
    pub platform: String,
    /// SHA-256 of the package, hex; empty until it is known, and then nothing is kept.
    pub package: String,
}

impl EngineCache {
    /// The same for another package.
    #[must_use]
    pub fn of_package(&self, digest: &str) -> Self {
        Self { package: digest.to_owned(), ..self.clone() }
    }

    /// Where it is kept for a precision; `None` where the package is not known.
    pub(crate) fn place(&self, precision: Precision, max_batch: usize) -> Option<Place> {
        let digest = self.package.get(..DIGITS)?;
        Some(Place {
            engines: self.root.join(format!("{digest}-{}-{}", self.platform, precision.name())),
            timings: self.root.join(format!("{TIMINGS}{}", self.platform)),
            max_batch,
        })
    }
}

/// Where TensorRT keeps what it builds of one package in one precision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) engines: PathBuf,
    /// Shared by all on the platform.
    pub(crate) timings: PathBuf,
    /// Rows of the larger graph; another has another engine.
    pub(crate) max_batch: usize,
}

/// What is done about a folder that does not serve; it is emptied in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Filled once more.
    Rebuild,
    /// Left to a later try.
    Leave,
}

/// A folder that this process opens an engine from, or builds one into.
#[derive(Debug)]
pub(crate) struct Folder {
    place: Place,
    /// Locked. `None` where another process is about it: that one clears up.
    mark: Option<File>,
    /// Something was in it.
    filled: bool,
}

impl Folder {
    /// Makes it where it is missing, and empties it where a process died over it.
    pub(crate) fn enter(place: &Place) -> io::Result<Self> {
        let path = &place.engines;
        fs::create_dir_all(path)?;
        fs::create_dir_all(&place.timings)?;
        let (mark, died) = take_mark(&path.join(MARK))?;
        let mut folder = Self { place: place.clone(), mark, filled: false };
        if died {
            tracing::warn!(path = %path.display(), "a process died over these engines: they are built anew");
            folder.clear()?;
        }
        folder.filled = folder.contents()?.next().is_some();
        Ok(folder)
    }

    /// Empties it after a failure that may be its own, so that nothing is opened from it again. Gives whether there was
    /// something from before, and so reason to try once more.
    pub(crate) fn discard(&mut self, failure: &str) -> bool {
        let failure = failure.to_lowercase();
        if self.mark.is_none() || is_of_memory(&failure) || INNOCENT.iter().any(|words| failure.contains(words)) {
            return false;
        }
        if failure.contains("timing cache") {
            // What stays is complained of again, and removed then.
            let _ = fs::remove_dir_all(&self.place.timings).and_then(|()| fs::create_dir(&self.place.timings));
        }
        let emptied = self.clear().is_ok();
        std::mem::take(&mut self.filled) && emptied
    }

    /// What is in it serves; what the same package had for other platforms in this precision goes, and so do their timings.
    pub(crate) fn keep(self) {
        // Without it the engines are built once more.
        let _ = fs::write(self.place.engines.join(SERVES), self.place.max_batch.to_string());
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (own, timings) = (name(&self.place.engines), name(&self.place.timings));
        let (digest, precision) = (own.get(..=DIGITS).unwrap_or(&own), own.rsplit('-').next().unwrap_or_default());
        let others = self.place.engines.parent().and_then(|root| fs::read_dir(root).ok()).into_iter().flatten();
        for other in others.filter_map(Result::ok) {
            let found = other.file_name().to_string_lossy().into_owned();
            let engines = found != own && found.starts_with(digest) && found.ends_with(&format!("-{precision}"));
            if engines || found != timings && found.starts_with(TIMINGS) {
                tracing::info!(path = %other.path().display(), "built for another platform: removed");
                // What stays takes space and is tried again with the next start.
                let _ = fs::remove_dir_all(other.path());
            }
        }
        // The mark goes with `self`.
    }

    fn contents(&self) -> io::Result<impl Iterator<Item = PathBuf> + use<>> {
        let entries = fs::read_dir(&self.place.engines)?.filter_map(Result::ok);
        Ok(entries.filter(|entry| entry.file_name() != MARK).map(|entry| entry.path()))
    }

    fn clear(&self) -> io::Result<()> {
        for entry in self.contents()? {
            if entry.is_dir() { fs::remove_dir_all(entry) } else { fs::remove_file(entry) }?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.mark.is_some() {
            // Left behind it costs a build; it cannot be kept by a folder that is gone.
            let _ = fs::remove_file(self.place.engines.join(MARK));
        }
        // Only a folder in which nothing was kept is empty.
        let _ = fs::remove_dir(&self.place.engines);
    }
}

/// The mark, locked, or `None` where another process has it; and whether one died that had it. It has a byte in it from the
/// moment it is held, so that one that another process is only about to lock is no sign of anything.
fn take_mark(path: &Path) -> io::Result<(Option<File>, bool)> {
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok((None, false)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let meta = file.metadata()?;
        // Otherwise whoever had it took it away, all well, since it was opened here: it keeps nobody out any more.
        if meta.nlink() > 0 {
            file.set_len(1)?;
            return Ok((Some(file), meta.len() > 0));
        }
    }
}

/// Whether what is kept there has served for so many rows, and nobody is about it or has died over it.
pub(crate) fn holds(place: &Place) -> bool {
    let rows = fs::read_to_string(place.engines.join(SERVES));
    !place.engines.join(MARK).exists() && rows.is_ok_and(|rows| rows == place.max_batch.to_string())
}

/// Opens through a folder. One that was filled and does not serve is emptied, and `broken` says whether it is filled once more.
/// Without a folder, or where it cannot be used, nothing is kept.
pub(crate) fn through<T, E: std::fmt::Display>(
    place: Option<&Place>,
    broken: Broken,
    mut open: impl FnMut(Option<&Place>) -> Result<T, E>,
) -> Result<T, E> {
    let Some(place) = place else { return open(None) };
    let path = place.engines.display();
    let mut folder = match Folder::enter(place) {
        Ok(folder) => folder,
        Err(error) => {
            tracing::warn!(%path, %error, "engines cannot be kept: they are built at every start");
            return open(None);
        }
    };
    let mut outcome = open(Some(place));
    if let Err(error) = &outcome
        && folder.discard(&error.to_string())
    {
        tracing::warn!(%path, %error, "the engines kept there do not serve: built anew");
        if broken == Broken::Rebuild {
            outcome = open(Some(place));
        }
    }
    match &outcome {
        Ok(_) => folder.keep(),
        // What has just been built does not serve either.
        Err(error) => {
            let _emptied = folder.discard(&error.to_string());
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "0123456789abcdef0123456789abcdef";

    fn cache(root: &Path, platform: &str) -> EngineCache {
        let package = DIGEST.to_owned();
        EngineCache { root: root.to_owned(), platform: platform.to_owned(), package }
    }

    fn place(root: &Path) -> Place {
        cache(root, "p").place(Precision::Fp16, 8).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// TensorRT: takes what is there when it is `good`, and builds it where there is nothing.
    fn tensorrt(place: Option<&Place>, built: &mut u32) -> Result<(), String> {
        let engine = place.unwrap().engines.join("falls.engine");
        match fs::read_to_string(&engine).as_deref() {
            Ok("good") => return Ok(()),
            Ok(_) => return Err("could not deserialize engine from cache".into()),
            Err(_) => *built += 1,
        }
        fs::write(engine, "good").map_err(|e| e.to_string())
    }

    #[test]
    fn everything_that_an_engine_fits_alone_is_in_its_name() {
        let cache = cache(Path::new("/var/lib/kinewatch/engines"), "ort1.23.0-trt10.3.0-cuda12.6-orin");
        let folder =
            |cache: &EngineCache, precision| cache.place(precision, 8).map(|place| place.engines.display().to_string());
        assert_eq!(
            folder(&cache, Precision::Fp16).unwrap(),
            "/var/lib/kinewatch/engines/0123456789abcdef-ort1.23.0-trt10.3.0-cuda12.6-orin-fp16"
        );
        assert_ne!(folder(&cache, Precision::Fp16), folder(&cache, Precision::Fp32));
        assert_ne!(folder(&cache, Precision::Fp16), folder(&cache.of_package(&"f".repeat(64)), Precision::Fp16));
        assert_eq!(folder(&cache.of_package(""), Precision::Fp16), None);
    }

    #[test]
    fn timings_are_shared_by_packages_and_precisions_of_a_platform_and_outlive_engines() {
        let dir = tempfile::tempdir().unwrap();
        let timings = |platform: &str, precision, package: &str| {
            cache(dir.path(), platform).of_package(package).place(precision, 8).unwrap().timings
        };
        let ours = timings("trt10.3", Precision::Fp16, DIGEST);
        assert_eq!(ours, dir.path().join("timings-trt10.3"));
        assert_eq!(ours, timings("trt10.3", Precision::Fp32, &"f".repeat(64)));
        assert_ne!(ours, timings("trt10.9", Precision::Fp16, DIGEST));

        let place = cache(dir.path(), "trt10.3").place(Precision::Fp16, 8).unwrap();
        let fill = || {
            fs::create_dir_all(&place.engines).unwrap();
            fs::create_dir_all(&place.timings).unwrap();
            fs::write(place.timings.join("sm87.timing"), "ms").unwrap();
            fs::write(place.engines.join("falls.engine"), "half").unwrap();
        };
        fill();
        fs::write(place.engines.join(MARK), "").unwrap();
        drop(Folder::enter(&place).unwrap());
        assert_eq!(names(&place.timings), ["sm87.timing"], "a build that was ended is shorter the next time");
        fill();
        assert!(Folder::enter(&place).unwrap().discard("TensorRT EP could not create timing cache"));
        assert_eq!(names(&place.timings), [""; 0], "they are what does not serve");
    }

    #[test]
    fn a_good_engine_is_built_once_and_a_broken_one_once_more() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let mut built = 0;
        let open = |built: &mut u32| through(Some(&place), Broken::Rebuild, |place| tensorrt(place, built));
        assert!(!holds(&place));
        open(&mut built).unwrap();
        open(&mut built).unwrap();
        assert!(built == 1 && holds(&place));
        assert!(!holds(&Place { max_batch: 4, ..place.clone() }), "another batch has another engine");
        let engine = place.engines.join("falls.engine");
        fs::write(&engine, "go").unwrap();
        open(&mut built).unwrap();
        assert_eq!((built, fs::read_to_string(engine).unwrap().as_str()), (2, "good"));
        assert_eq!(names(&place.engines), ["falls.engine", SERVES], "no mark stays");
    }

    #[test]
    fn a_broken_engine_is_not_built_where_builds_are_put_off() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let mut built = 0;
        through(Some(&place), Broken::Rebuild, |place| tensorrt(place, &mut built)).unwrap();
        fs::write(place.engines.join("falls.engine"), "go").unwrap();
        assert!(holds(&place), "it cannot be told before it is opened");
        let outcome = through(Some(&place), Broken::Leave, |place| tensorrt(place, &mut built));
        assert_eq!((outcome.unwrap_err().as_str(), built), ("could not deserialize engine from cache", 1));
        assert!(!holds(&place) && !place.engines.exists(), "the next start builds it");
    }

    #[test]
    fn a_failure_that_stays_is_told_after_one_more_try_and_an_empty_cache_is_not_tried_twice() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let folder = place.engines.clone();
        let mut tries = 0;
        let mut fails = |error: &str| {
            tries = 0;
            let outcome: Result<(), String> = through(Some(&place), Broken::Rebuild, |_| {
                tries += 1;
                Err(error.into())
            });
            (outcome.unwrap_err(), tries)
        };
        assert_eq!(fails("no kernel image"), ("no kernel image".into(), 1));
        assert!(!folder.exists(), "nothing was built, nothing is left");
        let fill = || {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("falls.engine"), "good").unwrap();
        };
        fill();
        assert_eq!(fails("no kernel image").1, 2);
        assert!(!folder.exists(), "nothing that does not serve is opened at the next start");
        fill();
        for innocent in [
            "libcudnn.so.9: cannot open shared object file",
            "Failed to allocate memory for requested buffer of size 268435456",
            "std::bad_alloc",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
            "TensorRT execution provider is not enabled in this build",
        ] {
            assert_eq!(fails(innocent), (innocent.into(), 1), "no fault of the engine");
            assert_eq!(names(&folder), ["falls.engine"]);
        }
    }

    #[test]
    fn what_a_process_died_over_is_built_anew_and_what_one_works_on_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let path = place.engines.clone();
        fs::create_dir_all(&path).unwrap();
        for file in ["falls.engine", MARK] {
            fs::write(path.join(file), "half").unwrap();
        }
        let first = Folder::enter(&place).unwrap();
        assert!(!first.filled && names(&path) == [MARK] && !holds(&place));
        fs::write(path.join("falls.engine"), "half").unwrap();
        let mut second = Folder::enter(&place).unwrap();
        assert!(second.filled && !second.discard("could not deserialize"), "another one is about it");
        drop(second);
        assert_eq!(names(&path), ["falls.engine", MARK]);
        first.keep();
        assert_eq!(names(&path), ["falls.engine", SERVES]);
        let mut third = Folder::enter(&place).unwrap();
        assert!(third.discard("it was there when we came") && !third.discard("it is what we have built"));
    }

    /// Each sees the marks of others come and go at any moment, and nobody dies.
    #[test]
    fn processes_that_come_and_go_at_once_do_not_take_each_other_for_dead() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        fs::create_dir_all(&place.engines).unwrap();
        fs::write(place.engines.join("falls.engine"), "good").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        Folder::enter(&place).unwrap().keep();
                    }
                });
            }
        });
        assert_eq!(names(&place.engines), ["falls.engine", SERVES]);
    }

    #[test]
    fn engines_of_the_platform_before_go_when_there_are_others() {
        let dir = tempfile::tempdir().unwrap();
        let open = |platform: &str, precision, package: &str| {
            let place = cache(dir.path(), platform).of_package(package).place(precision, 8);
            through(place.as_ref(), Broken::Rebuild, |place| tensorrt(place, &mut 0)).unwrap();
        };
        let other = "f".repeat(64);
        open("trt10.3", Precision::Fp16, DIGEST);
        open("trt10.3", Precision::Fp32, DIGEST);
        open("trt10.3", Precision::Fp16, &other);
        open("trt10.9", Precision::Fp16, DIGEST);
        assert_eq!(
            names(dir.path()),
            [
                "0123456789abcdef-trt10.3-fp32",
                "0123456789abcdef-trt10.9-fp16",
                "ffffffffffffffff-trt10.3-fp16",
                "timings-trt10.9"
            ]
        );
    }

    #[test]
    fn a_folder_that_cannot_be_made_costs_the_cache_and_not_the_model() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let place = place(&file.join("engines"));
        let outcome: Result<bool, String> = through(Some(&place), Broken::Rebuild, |place| Ok(place.is_none()));
        assert_eq!(outcome, Ok(true));
    }
}
