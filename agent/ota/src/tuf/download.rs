//! One target to a path: resuming, over several mirrors, verified before it counts.
//!
//! Bytes are kept in a part file named by digest, so that a transfer goes on where it stopped: after a cut, after a restart
//! of the agent, on another mirror. A part file is not trusted: the digest is that of all bytes on the disk. Only a whole,
//! verified and synchronised file is moved to its place.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use reqwest::StatusCode;
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;
use tracing::debug;
use url::Url;

use super::document::Hasher;
use super::http::{Http, extent, shown};
use super::pace::Reader;
use super::{Refused, Target};
use crate::durable;

/// A try that brings this many bytes gives a transfer all its tries back.
const PROGRESS: u64 = 16 << 10;

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What a transfer took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes that came over the network.
    pub received: u64,
    /// Bytes that were on the disk already, from an earlier try.
    pub resumed: u64,
    /// Requests.
    pub requests: u32,
}

/// A transfer in one process run.
pub(super) struct Transfer<'a> {
    http: &'a Http,
    target: &'a Target,
    part: PartFile,
    fetched: Fetched,
    progress: &'a mut (dyn FnMut(Progress) + Send),
}

/// Whether the file at `path` is `target` already. Blocks on the disk.
pub(super) fn is_there(path: &Path, target: &Target) -> bool {
    let Ok(mut file) = fs::File::open(path) else { return false };
    let same_length = file.metadata().is_ok_and(|m| m.is_file() && m.len() == target.length);
    let mut hasher = target.hashes.hasher();
    same_length && read_into(&mut hasher, &mut file).is_ok() && target.hashes.difference(hasher).is_none()
}

impl<'a> Transfer<'a> {
    /// Opens (or creates) the part file `part` and takes the digest of what is in it.
    pub(super) async fn begin(
        http: &'a Http,
        target: &'a Target,
        part: PathBuf,
        progress: &'a mut (dyn FnMut(Progress) + Send),
    ) -> Result<Self, Refused> {
        let part = PartFile::open(part, target).await?;
        let fetched = Fetched { resumed: part.length, ..Fetched::default() };
        Ok(Self { http, target, part, fetched, progress })
    }

    /// Fetches what is missing from `urls`, in this order of preference, and moves the file to `into`.
    pub(super) async fn run(mut self, urls: &[Url], into: &Path) -> Result<Fetched, Refused> {
        let mut mirrors = Mirrors::new(urls.len());
        let mut idle = 0;
        loop {
            self.tell();
            let before = self.part.length;
            let Some(mirror) = mirrors.current() else { return Err(mirrors.refusal(self.target)) };
            let refused = match self.attempt(&urls[mirror], &mut mirrors, mirror).await {
                Ok(()) => return self.finish(into).await,
                Err(refused) => refused,
            };
            debug!(target = self.target.path(), bytes = self.part.length, %refused, "a try at a target ended early");
            if refused.is_local() {
                return Err(refused);
            }
            // A server that trickles never earns another try by it.
            let slow = matches!(refused, Refused::TooSlow { .. });
            idle = if !slow && self.part.length >= before + PROGRESS { 0 } else { idle + 1 };
            match self.http.pace().pause_after(idle.max(1), &refused).filter(|_| !refused.is_content()) {
                Some(pause) => {
                    mirrors.rotate();
                    // A mirror that has not been asked yet need not wait for another one's trouble.
                    if idle == 0 || idle as usize >= mirrors.len() {
                        sleep(pause).await;
                    }
                }
                None => {
                    mirrors.reject(mirror, refused);
                    idle = 0;
                }
            }
        }
    }

    /// One request, or none when all bytes are there: the file is whole and verified, or why not.
    async fn attempt(&mut self, url: &Url, mirrors: &mut Mirrors, mirror: usize) -> Result<(), Refused> {
        if self.part.length < self.target.length {
            mirrors.contributes(mirror);
            self.receive(url).await?;
        }
        let Some(found) = self.target.hashes.difference(self.part.hasher.clone()) else { return Ok(()) };
        self.part.clear(self.target).await?;
        if self.fetched.resumed > 0 || mirrors.mixed() {
            // Some of it came from elsewhere: that may have been the wrong part. Once more from the start, from one mirror.
            self.fetched.resumed = 0;
            mirrors.forget_contributions();
            mirrors.contributes(mirror);
            self.receive(url).await?;
            let Some(found) = self.target.hashes.difference(self.part.hasher.clone()) else { return Ok(()) };
            self.part.clear(self.target).await?;
            return Err(self.wrong_hash(url, found));
        }
        Err(self.wrong_hash(url, found))
    }

    /// Appends to the part file until it is as long as the target.
    async fn receive(&mut self, url: &Url) -> Result<(), Refused> {
        self.fetched.requests += 1;
        let response = self.http.open(url, self.part.length).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(self.wrong_length(url, extent(&response).and_then(|e| e.1).unwrap_or_default()));
        }
        let Some((start, total)) = extent(&response).filter(|(start, _)| *start <= self.part.length) else {
            let reason = "the server sends another range than it was asked for".to_owned();
            return Err(Refused::Unreachable { url: shown(url), reason, retry_after: None });
        };
        if let Some(found) = total.filter(|&total| total != self.target.length) {
            return Err(self.wrong_length(url, found));
        }
        // A server without ranges begins anew: what is there already is passed over.
        let mut skip = self.part.length - start;
        let mut reader = Reader::new(self.http.pace(), response);
        while let Some(chunk) = reader.next().await? {
            self.fetched.received += chunk.len() as u64;
            let passed = skip.min(chunk.len() as u64);
            skip -= passed;
            let new = &chunk[passed as usize..];
            if self.part.length + new.len() as u64 > self.target.length {
                return Err(self.wrong_length(url, self.part.length + new.len() as u64));
            }
            self.part.append(new).await?;
            self.tell();
        }
        if self.part.length < self.target.length {
            let reason = format!("cut off after {} of {} bytes", self.part.length, self.target.length);
            return Err(Refused::Unreachable { url: shown(url), reason, retry_after: None });
        }
        Ok(())
    }

    async fn finish(mut self, into: &Path) -> Result<Fetched, Refused> {
        self.tell();
        self.part.file.flush().await.map_err(|e| Refused::disk(&self.part.path, &e))?;
        self.part.file.sync_all().await.map_err(|e| Refused::disk(&self.part.path, &e))?;
        let (part, into) = (self.part.path, into.to_owned());
        blocking(move || durable::rename(&part, &into).map_err(|e| Refused::disk(&into, &e))).await?;
        Ok(self.fetched)
    }

    fn tell(&mut self) {
        (self.progress)(Progress { bytes: self.part.length, total: self.target.length });
    }

    fn wrong_length(&self, url: &Url, found: u64) -> Refused {
        Refused::WrongLength { url: shown(url), signed: self.target.length, found }
    }

    fn wrong_hash(&self, url: &Url, found: String) -> Refused {
        Refused::WrongHash { url: shown(url), signed: self.target.digest().to_owned(), found }
    }
}

/// Bytes on the disk that nobody vouches for yet, and their digest so far.
struct PartFile {
    path: PathBuf,
    file: tokio::fs::File,
    length: u64,
    hasher: Hasher,
}

impl PartFile {
    async fn open(path: PathBuf, target: &Target) -> Result<Self, Refused> {
        let (mut hasher, total) = (target.hashes.hasher(), target.length);
        let (path, file, length, hasher) = blocking(move || {
            let opened = (|| {
                fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
                let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
                if file.metadata()?.len() > total {
                    file.set_len(0)?;
                }
                let length = read_into(&mut hasher, &mut file)?;
                if let Err(full) = allocate(&file, total) {
                    if length == 0 {
                        fs::remove_file(&path)?;
                    }
                    return Err(full);
                }
                Ok((file, length))
            })();
            let (file, length) = opened.map_err(|e| Refused::disk(&path, &e))?;
            Ok((path, file, length, hasher))
        })
        .await?;
        Ok(Self { path, file: tokio::fs::File::from_std(file), length, hasher })
    }

    /// On an error nothing is known of what reached the disk; the next [`PartFile::open`] finds out.
    async fn append(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.file.write_all(bytes).await.map_err(|e| Refused::disk(&self.path, &e))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    async fn clear(&mut self, target: &Target) -> Result<(), Refused> {
        let path = std::mem::take(&mut self.path);
        self.file.flush().await.map_err(|e| Refused::disk(&path, &e))?;
        self.file.set_len(0).await.map_err(|e| Refused::disk(&path, &e))?;
        *self = Self::open(path, target).await?;
        Ok(())
    }
}

/// Claims the space before the network is asked for a byte. The length stays what has been written.
fn allocate(file: &fs::File, length: u64) -> std::io::Result<()> {
    let found = file.metadata()?;
    let written = found.len();
    if written >= length {
        return Ok(());
    }
    // What an earlier try has claimed is not free any more, and need not be.
    let had = (found.blocks() * 512).max(written);
    // Asked first: some file systems would fill the disk to its last block before they say that it is too small.
    let disk = fstatvfs(file)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < length.saturating_sub(had) {
        return Err(Errno::NOSPC.into());
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, length) {
        Ok(()) => Ok(()),
        // Not every file system can; then a full disk shows later.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(refused) => {
            file.set_len(written)?; // gives back what was claimed
            Err(refused.into())
        }
    }
}

/// Which mirrors may still be asked, and whose bytes are in the part file.
struct Mirrors {
    /// In the order in which they are asked.
    left: Vec<usize>,
    contributed: BTreeSet<usize>,
    refusal: Option<Refused>,
}

impl Mirrors {
    fn new(count: usize) -> Self {
        Self { left: (0..count).collect(), contributed: BTreeSet::new(), refusal: None }
    }

    fn len(&self) -> usize {
        self.left.len()
    }

    fn current(&self) -> Option<usize> {
        self.left.first().copied()
    }

    fn rotate(&mut self) {
        if !self.left.is_empty() {
            self.left.rotate_left(1);
        }
    }

    /// It has the file wrong, and is not asked again. The first reason is the one that is told.
    fn reject(&mut self, mirror: usize, refused: Refused) {
        self.left.retain(|&m| m != mirror);
        self.refusal.get_or_insert(refused);
    }

    fn refusal(self, target: &Target) -> Refused {
        self.refusal.unwrap_or_else(|| Refused::NoTarget { path: target.path().to_owned() })
    }

    fn contributes(&mut self, mirror: usize) {
        self.contributed.insert(mirror);
    }

    fn mixed(&self) -> bool {
        self.contributed.len() > 1
    }

    fn forget_contributions(&mut self) {
        self.contributed.clear();
    }
}

/// Reads a file to its end; how many bytes.
fn read_into(hasher: &mut Hasher, file: &mut fs::File) -> std::io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                length += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Runs `work` on a thread that may block on the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    let lost = |e: tokio::task::JoinError| Refused::Disk { path: PathBuf::new(), reason: e.to_string() };
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}
