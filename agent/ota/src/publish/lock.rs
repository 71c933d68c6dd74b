//! One publisher at a time: two that read the same state and both write would sign two different files of one version, and the
//! later one would take back what the other has done, a halt among it.
//!
//! An exclusive lock of the system on a file of the repository folder, from before the folder is read until after it has been
//! written. It goes with the process, however that ends. The file is empty and may be copied to a server.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::PublishError;

/// The file.
const NAME: &str = ".lock";
/// How often it is tried.
const AGAIN: Duration = Duration::from_millis(100);

/// Nobody else writes the repository while this lives.
#[derive(Debug)]
pub(super) struct Lock {
    /// Closing it lets go of the lock.
    _file: File,
}

impl Lock {
    /// Waits for whoever has it, for `patience` at most. `waits` is called once, where there is something to wait for.
    pub(super) fn acquire(dir: &Path, patience: Duration, waits: impl FnOnce()) -> Result<Self, PublishError> {
        let path = dir.join(NAME);
        let (begun, mut waits) = (Instant::now(), Some(waits));
        loop {
            let file = open(&path).map_err(PublishError::io(&path))?;
            match file.try_lock() {
                Ok(()) if is_there(&path, &file) => return Ok(Self { _file: file }),
                // A copy of the folder has put another file in its place meanwhile.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if let Some(waits) = waits.take() {
                        waits();
                    }
                }
                Err(TryLockError::Error(error)) => return Err(PublishError::io(path)(error)),
            }
            if begun.elapsed() >= patience {
                return Err(PublishError::Busy { path: dir.to_owned(), waited_s: patience.as_secs() });
            }
            std::thread::sleep(AGAIN);
        }
    }
}

/// Another publisher of the same folder may have made it: reading is enough for a lock.
fn open(path: &Path) -> io::Result<File> {
    match OpenOptions::new().write(true).create(true).truncate(false).open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
        opened => opened,
    }
}

/// Whether the file at `path` is the one that is open.
fn is_there(path: &Path, file: &File) -> bool {
    let same = |a: std::fs::Metadata, b: std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    path.metadata().ok().zip(file.metadata().ok()).is_some_and(|(there, open)| same(there, open))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_the_next_waits_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let mut waited = 0;
        let first = Lock::acquire(dir.path(), Duration::ZERO, || waited += 1).unwrap();
        let error = Lock::acquire(dir.path(), Duration::ZERO, || waited += 1).unwrap_err();
        assert!(matches!(&error, PublishError::Busy { waited_s: 0, .. }), "{error}");
        assert_eq!((waited, error.to_string().lines().count()), (1, 1));
        // What is put in its place is not what is held.
        std::fs::rename(dir.path().join(NAME), dir.path().join("old")).unwrap();
        let other = Lock::acquire(dir.path(), Duration::ZERO, || {}).unwrap();
        drop((first, other));
        Lock::acquire(dir.path(), Duration::ZERO, || {}).unwrap();
    }
}
