//! The store that comes and goes: opened, watched, given up and opened again while everything else runs.
//!
//! Owned by the store thread (its first opening is done by whoever starts the agent). Says in [`Shared`] what state the
//! store is in, each change once in the log. Never loses a number: what it knew of the sequence when it gave a store up
//! is the floor of the next, and the session is one per process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kinewatch_core::event::{StoreCondition, StoreStatus, rfc3339};
use kinewatch_store::{Disposition, Floor, OpenAction, Stamp, Store, StoreError, StoreOptions};

use crate::clock;
use crate::health::Shared;

/// Between two attempts, at least; ten times as long as the last took when that is longer.
const RETRY: Duration = Duration::from_secs(1);
/// A store that has worked for so long was not damaged by what it holds.
const PROVEN_AFTER: Duration = Duration::from_secs(60);
/// Name of the database in the state directory.
const DATABASE: &str = "events.db";

/// The database of a state directory.
#[must_use]
pub fn database(state_dir: &Path) -> PathBuf {
    state_dir.join(DATABASE)
}

/// The store, or its absence.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    options: StoreOptions,
    shared: Arc<Shared>,
    store: Option<Store>,
    /// What was known of the numbers when a store was last given up.
    floor: Option<Floor>,
    session: u64,
    /// The session is on disk.
    counted: bool,
    /// Not before this is anything tried again.
    retry_at: Instant,
    /// A store failed as damaged at this time, though its opening had found it whole.
    suspect: Option<Instant>,
    /// Actions that a damaged database held open, until the next one has them.
    salvaged: Vec<OpenAction>,
    set_aside: Option<PathBuf>,
    condition: Option<StoreCondition>,
}

/// What there is to work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The store, as before.
    There,
    /// A store that was opened just now.
    Opened,
    /// Nothing, until the next attempt.
    Away,
}

impl Disk {
    /// Tries to open the store in `state_dir` once. A disk that is full, read-only or not there is no error here: that may
    /// pass while the agent runs.
    ///
    /// # Errors
    /// What only an operator can change: another agent owns the directory, or the database is of a newer version.
    pub fn open(state_dir: &Path, options: StoreOptions, shared: Arc<Shared>) -> Result<Self, StoreError> {
        let path = database(state_dir);
        // The start is counted on the disk; where that cannot be, time has to do.
        let session = u64::try_from(clock::wall_ns() / 1_000_000_000).unwrap_or(0);
        let mut disk = Self {
            path,
            options,
            shared,
            store: None,
            floor: None,
            session,
            counted: false,
            retry_at: Instant::now(),
            suspect: None,
            salvaged: Vec::new(),
            set_aside: None,
            condition: None,
        };
        if let Err(error) = disk.attempt() {
            if error.disposition() == Disposition::Fatal {
                return Err(error);
            }
            let after = Store::last_session(&disk.path).map_or(1, |last| last.saturating_add(1));
            disk.session = session.max(after);
            disk.failed(error);
        }
        Ok(disk)
    }

    /// Number of this start of the agent, larger than all before.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Whether the store is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.store.is_some()
    }

    /// The newest sequence number given out, as far as it is known.
    pub(super) fn last_sequence(&self) -> u64 {
        let known = self.floor.map_or(0, |floor| floor.next.saturating_sub(1));
        self.store.as_ref().map_or(known, Store::last_sequence)
    }

    pub(super) fn store(&mut self) -> Option<&mut Store> {
        self.store.as_mut()
    }

    /// When something is to be tried again; `None` while the store works.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        (self.condition != Some(StoreCondition::Ok)).then_some(self.retry_at)
    }

    /// Makes the next look try, whatever the time.
    pub(super) fn hurry(&mut self) {
        self.retry_at = Instant::now();
    }

    /// Looks after the store: whether it is in its place, and whether it is time to open it again.
    pub(super) fn look(&mut self) -> Look {
        if Instant::now() < self.retry_at {
            return Look::Away;
        }
        match &self.store {
            Some(store) if store.is_in_place() => return Look::There,
            Some(_) => {
                self.note(StoreError::Moved { path: self.path.clone() });
                if let Err(error) = self.rescue() {
                    // It stays open as the only copy: what it holds is not lost yet.
                    self.retry_at = Instant::now() + RETRY;
                    self.note(error);
                    return Look::Away;
                }
            }
            None => {}
        }
        match self.attempt() {
            Ok(()) => Look::Opened,
            Err(error) => {
                self.failed(error);
                Look::Away
            }
        }
    }

    /// A round of work has succeeded.
    pub(super) fn worked(&mut self) {
        if self.suspect.is_some_and(|since| since.elapsed() > PROVEN_AFTER) {
            self.suspect = None;
        }
        if self.condition != Some(StoreCondition::Ok) {
            if self.condition.is_some() {
                tracing::info!(path = %self.path.display(), "the store works again; what waited is stored");
            }
            self.say(StoreCondition::Ok, None);
        }
    }

    /// A round of work has failed: the store is tried again later, or given up and opened anew.
    pub(super) fn failed(&mut self, error: StoreError) {
        self.retry_at = self.retry_at.max(Instant::now() + RETRY);
        let damaged = matches!(error, StoreError::Corrupt { .. });
        let give_up = error.disposition() != Disposition::Retry;
        self.note(error);
        if !give_up {
            return;
        }
        let was_open = self.close();
        if damaged {
            self.doubt(was_open);
        }
    }

    /// Opening sets aside what it recognises as damaged. What it only stumbles over, and what work finds twice, would be found
    /// for ever.
    fn doubt(&mut self, was_open: bool) {
        let again = self.suspect.replace(Instant::now()).is_some();
        let gone = (again || !was_open) && self.condemn();
        // A disk on which each new database is damaged too has no need of haste.
        if was_open || (gone && !again) {
            self.retry_at = Instant::now();
        }
    }

    fn attempt(&mut self) -> Result<(), StoreError> {
        let began = Instant::now();
        let opened = self.open_store();
        self.retry_at = Instant::now() + if opened.is_ok() { Duration::ZERO } else { RETRY.max(10 * began.elapsed()) };
        let mut store = opened?;
        // First: what it could read of a damaged one is in memory alone.
        self.take_note_of(&store);
        if !self.counted {
            let session = store.next_session(self.session)?;
            // Nobody was told another number yet, or this one is on the wire and stays.
            if self.condition.is_none() {
                self.session = session;
            }
            self.counted = true;
        }
        // At once, or a crash would leave them without an end.
        store.adopt(&self.salvaged)?;
        self.salvaged.clear();
        self.store = Some(store);
        Ok(())
    }

    fn open_store(&self) -> Result<Store, StoreError> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(|e| StoreError::directory(directory, e))?;
        Store::open(&self.path, self.options.clone(), &self.stamp(), self.floor)
    }

    fn take_note_of(&mut self, store: &Store) {
        let opened = store.opened();
        self.salvaged.extend(opened.salvaged.iter().cloned());
        if let Some(aside) = &opened.set_aside {
            self.set_aside = Some(aside.clone());
            self.shared.store.note(&StoreError::Corrupt { path: self.path.clone(), reason: String::new() });
        }
        if let Some(lost) = &opened.lost {
            self.shared.delivery.note_dropped(lost);
        }
    }

    /// Whether there was one.
    fn close(&mut self) -> bool {
        let store = self.store.take();
        if let Some(store) = &store {
            self.floor = Some(store.floor());
        }
        store.is_some()
    }

    /// The directory was removed under an open store, which still holds everything: put a copy where it belongs. Where
    /// something else lies there now, that is opened as it is, and what is lost is stated.
    fn rescue(&mut self) -> Result<(), StoreError> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(|e| StoreError::directory(directory, e))?;
        if let Some(store) = self.store.as_ref().filter(|_| !self.path.exists()) {
            let beside = self.path.with_extension("db.copy");
            let _none = fs::remove_file(&beside);
            store.copy_to(&beside)?;
            fs::rename(&beside, &self.path).map_err(|e| StoreError::directory(&self.path, e))?;
            tracing::warn!(path = %self.path.display(), "the store was removed while it was open; it is put back whole");
        }
        self.close();
        Ok(())
    }

    /// Move a database aside that looks whole and is not. Whether that was possible.
    fn condemn(&mut self) -> bool {
        match Store::condemn(&self.path) {
            Ok((aside, salvaged)) => {
                tracing::error!(aside = %aside.display(), "the database fails though it looks whole: set aside, a new one is begun");
                self.set_aside = Some(aside);
                self.salvaged.extend(salvaged);
                true
            }
            Err(error) => {
                self.note(error);
                false
            }
        }
    }

    fn note(&mut self, error: StoreError) {
        self.shared.store.note(&error);
        let condition = condition(&error);
        if self.condition != Some(condition) {
            tracing::error!(%error, state = ?condition, "the store fails; events wait in memory, and it is tried again every second");
        }
        self.say(condition, Some(error.to_string()));
    }

    /// Tells everybody who looks, when it has changed.
    fn say(&mut self, condition: StoreCondition, error: Option<String>) {
        let set_aside = self.set_aside.as_ref().map(|path| path.display().to_string());
        let told = self.shared.store.status.load_full();
        if told.is_some_and(|told| told.state == condition && told.set_aside == set_aside && told.error == error) {
            return;
        }
        let since = rfc3339(clock::wall_ns());
        let since = match self.shared.store.status.load_full() {
            Some(told) if told.state == condition => told.since.clone(),
            _ => since,
        };
        let path = self.path.display().to_string();
        let status = StoreStatus { state: condition, since, path, error, set_aside, session: self.session };
        self.shared.store.status.store(Some(Arc::new(status)));
        self.condition = Some(condition);
    }

    pub(super) fn stamp(&self) -> Stamp {
        clock::stamp(self.shared.clock_synced.load(std::sync::atomic::Ordering::Relaxed))
    }
}

/// What an error means for whoever looks from outside.
#[must_use]
pub fn condition(error: &StoreError) -> StoreCondition {
    match error {
        StoreError::DiskFull { .. } => StoreCondition::Full,
        StoreError::ReadOnly { .. } => StoreCondition::ReadOnly,
        StoreError::Open { .. } | StoreError::Moved { .. } | StoreError::NoStore { .. } => StoreCondition::Missing,
        StoreError::Corrupt { .. } => StoreCondition::Damaged,
        StoreError::Busy { .. } | StoreError::InUse { .. } => StoreCondition::Busy,
        _ => StoreCondition::Failing,
    }
}
