//! The `sequence` record file: what must survive the loss of the database, and the lock of the state directory.
//!
//! One line of fixed width, twice: `ceiling next oldest session`, each 20 digits. Two copies that differ are no record:
//! a bit that flips must not move the numbers. `ceiling` and `session` are synced before any number below the new ceiling
//! is given out (once per [`BLOCK`] numbers). `next` and `oldest` are written without a sync after each commit: a hint that
//! only narrows the gap that is stated after a loss. `oldest` is the first number of which the broker has acknowledged
//! neither the message nor the statement that it is lost. Written in place, in one write within one sector, so it needs no
//! free space and no second file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::StoreError;

/// Sequence numbers reserved by one sync of the record.
pub(crate) const BLOCK: u64 = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Numbers {
    /// No number at or above this was ever given out.
    pub(crate) ceiling: u64,
    /// Next number, as last seen.
    pub(crate) next: u64,
    /// As in [`crate::Floor`], as last seen.
    pub(crate) oldest: u64,
    /// Newest start of the agent.
    pub(crate) session: u64,
}

#[derive(Debug)]
pub(crate) struct Record {
    path: PathBuf,
    file: File,
    numbers: Numbers,
}

impl Record {
    /// Open or create the record, take the lock, and find out whether it can be written. `None` in the second place:
    /// there was no readable record.
    pub(crate) fn open(path: &Path) -> Result<(Self, Option<Numbers>), StoreError> {
        let failed = |e| StoreError::io(path, "opening the sequence record", e);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        lock(&file, path)?;
        let known = read(&mut file);
        let mut record = Self { path: path.to_owned(), file, numbers: known.unwrap_or_default() };
        // A disk that is full or read-only is found here, before the database is read from end to end.
        record.write_synced(record.numbers)?;
        if known.is_none() {
            sync_directory(path);
        }
        Ok((record, known))
    }

    /// What the record says, without the lock and without a change. `None`: there is no readable record.
    pub(crate) fn peek(path: &Path) -> Option<Numbers> {
        read(&mut File::open(path).ok()?)
    }

    pub(crate) fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// Write all numbers and sync them.
    pub(crate) fn write_synced(&mut self, numbers: Numbers) -> Result<(), StoreError> {
        self.write(numbers)?;
        self.file.sync_all().map_err(|e| StoreError::io(&self.path, "syncing the sequence record", e))
    }

    /// Make sure that `next` numbers may be given out: raises the ceiling by blocks, synced, when needed.
    pub(crate) fn reserve(&mut self, next: u64) -> Result<(), StoreError> {
        if next <= self.numbers.ceiling {
            return Ok(());
        }
        let ceiling = next.div_ceil(BLOCK).saturating_add(1).saturating_mul(BLOCK);
        self.write_synced(Numbers { ceiling, ..self.numbers })
    }

    /// Note where we are, without a sync; failure is harmless and ignored.
    pub(crate) fn note(&mut self, next: u64, oldest: u64) {
        let numbers = Numbers { next, oldest, ..self.numbers };
        if numbers != self.numbers {
            let _ = self.write(numbers);
        }
    }

    fn write(&mut self, numbers: Numbers) -> Result<(), StoreError> {
        let Numbers { ceiling, next, oldest, session } = numbers;
        let line = format!("{ceiling:020} {next:020} {oldest:020} {session:020}\n");
        let failed = |e| StoreError::io(&self.path, "writing the sequence record", e);
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.file.write_all(line.repeat(2).as_bytes()).map_err(failed)?;
        self.numbers = numbers;
        Ok(())
    }
}

/// Make the entry of a new file in its directory durable. A file system that cannot is one where it need not.
pub(crate) fn sync_directory(of: &Path) {
    if let Some(Ok(directory)) = of.parent().map(File::open) {
        let _ = directory.sync_all();
    }
}

/// A lock outlives its owner for a moment where another thread was just then starting a program, which holds all that is open
/// until it has begun. So it is waited for.
pub(crate) fn lock(file: &File, path: &Path) -> Result<(), StoreError> {
    const LOOK_EVERY: Duration = Duration::from_millis(10);
    let give_up = Instant::now() + Duration::from_secs(1);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => std::thread::sleep(LOOK_EVERY),
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.to_owned() }),
            // Some network file systems have no locks; one writer is then the operator's business.
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "state directory cannot be locked");
                return Ok(());
            }
        }
    }
}

/// Unreadable bytes are as good as no record: the database is the first source, this the second.
fn read(file: &mut File) -> Option<Numbers> {
    let mut text = String::new();
    file.take(512).read_to_string(&mut text).ok()?;
    parse(&text)
}

fn parse(text: &str) -> Option<Numbers> {
    let mut lines = text.lines();
    let line = lines.next()?;
    // Before there were two, there was one.
    if lines.next().is_some_and(|second| second != line) {
        return None;
    }
    let mut fields = line.split(' ').map(|f| f.parse::<u64>().ok());
    let mut field = || fields.next().flatten();
    let numbers = Numbers { ceiling: field()?, next: field()?, oldest: field()?, session: field()? };
    (numbers.ceiling <= i64::MAX as u64 && numbers.next <= numbers.ceiling).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_numbers_and_refuses_a_second_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sequence");
        let (mut record, known) = Record::open(&path).unwrap();
        assert_eq!(known, None);
        record.reserve(1).unwrap();
        record.note(5, 2);
        assert!(matches!(Record::open(&path), Err(StoreError::InUse { .. })));
        drop(record);
        let numbers = Numbers { ceiling: 2 * BLOCK, next: 5, oldest: 2, session: 0 };
        assert_eq!(Record::peek(&path), Some(numbers));
        let (_, known) = Record::open(&path).unwrap();
        assert_eq!(known, Some(numbers));
    }

    #[test]
    fn garbage_is_no_record() {
        for text in ["", "x", "1 2", "00000000000000000001 00000000000000000009 0 0\n", "99999999999999999999999 0 0 0"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert!(parse("2 1 1 1\n").is_some(), "as version 1 wrote it");
        assert_eq!(parse("2 1 1 1\n2 1 1 0\n"), None, "one copy is damaged, and nobody knows which");
    }
}
