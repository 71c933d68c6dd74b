//! The workflow of section 5: refresh the metadata from a mirror, look targets up, fetch them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kinewatch_core::rollout::{Channel, Code, Fault, MAX_CHANNEL};
use tracing::{info, warn};
use url::Url;

use super::delegation::{Visit, children};
use super::document::{Document, TargetsBody};
use super::download::{Transfer, blocking, is_there};
use super::http::Http;
use super::store::Store;
use super::target::check_path;
use super::trusted::{Rotation, Trusted};
use super::{Fetched, Floors, Pace, Progress, Refused, Role, Target, Tls};
use crate::read;

/// What a client needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Copies of the repository, in order of preference; at least one.
    pub mirrors: Vec<Mirror>,
    /// Where trust begins.
    pub anchor: Anchor,
    /// Holds the trusted metadata; created. Nobody else may write there, and one client at a time uses it.
    pub directory: PathBuf,
    /// Holds unfinished transfers; created. On the file system to which targets are fetched.
    pub parts: PathBuf,
    /// Bounds on metadata.
    pub limits: Limits,
    /// Bounds on time.
    pub pace: Pace,
    /// Certificate authorities.
    pub tls: Tls,
    /// HTTP proxy, instead of what the environment says (`HTTPS_PROXY`, `NO_PROXY`).
    pub proxy: Option<Url>,
}

/// One copy of the repository. Both addresses are those of folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Where `timestamp.json` lies.
    pub metadata: Url,
    /// Where the targets lie.
    pub targets: Url,
}

impl Mirror {
    /// The layout that `kinewatch publish` makes: `metadata/` and `targets/` below `base`.
    pub fn below(base: &Url) -> Self {
        let base = folder(base.clone());
        let below = |name: &str| base.join(name).unwrap_or_else(|_| base.clone());
        Self { metadata: below("metadata/"), targets: below("targets/") }
    }
}

/// Where trust begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// Root metadata that came to the device another way than over the network: the bytes of the file. A newer root that
    /// was reached from this very anchor counts instead; another anchor begins anew.
    File(Vec<u8>),
    /// The `root.json` in [`Options::directory`].
    Stored,
}

/// What is read at most of a document whose length is perhaps listed: whoever lists it may hold a stolen key.
fn bound(listed: Option<u64>, limit: u64) -> u64 {
    listed.map_or(limit, |length| length.min(limit))
}

/// Bounds on metadata, bytes unless stated otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Root metadata.
    pub root: u64,
    /// Timestamp metadata.
    pub timestamp: u64,
    /// Snapshot metadata, whatever length the timestamp lists.
    pub snapshot: u64,
    /// Targets metadata, whatever length the snapshot lists.
    pub targets: u64,
    /// Most roots that are followed in one refresh. The next one goes on.
    pub roots: u32,
    /// Most delegated roles that are searched for one target.
    pub delegations: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { root: 512 << 10, timestamp: 16 << 10, snapshot: 2 << 20, targets: 5 << 20, roots: 256, delegations: 32 }
    }
}

/// The time by which expiry is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Known to be right.
    Synchronised(Timestamp),
    /// Nobody knows. A device without a battery may be years off, either way: nothing is refreshed, and nothing refused.
    Unsynchronised,
}

/// What a refresh led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refreshed {
    /// The versions now trusted: to be kept, and given to the next refresh.
    pub floors: Floors,
    /// When the first of the trusted documents expires.
    pub expires: Timestamp,
    /// Which of [`Options::mirrors`] served it.
    pub mirror: usize,
}

/// A client of one repository.
#[derive(Debug)]
pub struct Client {
    options: Options,
    store: Store,
    http: Http,
    trusted: Trusted,
    /// SHA-256 of the trust anchor.
    anchor: String,
    /// The mirror that served last, and the time by which it was judged.
    refreshed: Option<(usize, Timestamp)>,
}

impl Client {
    /// Reads the trust anchor, the stored metadata and the certificate authorities. Makes no request. Blocks on the disk.
    pub fn open(mut options: Options) -> Result<Self, Refused> {
        for mirror in &mut options.mirrors {
            *mirror = Mirror { metadata: folder(mirror.metadata.clone()), targets: folder(mirror.targets.clone()) };
        }
        let store = Store::open(&options.directory)?;
        let (anchor, trusted) = begin(&options.anchor, &store)?;
        let http = Http::new(&options.tls, options.proxy.as_ref(), options.pace)?;
        Ok(Self { options, store, http, trusted, anchor, refreshed: None })
    }

    /// Brings the trusted metadata up to date: two requests when nothing is new. What was verified is on the disk when this
    /// returns, also when it fails half-way. A mirror that is stale, broken or hostile is passed over for the next one; if
    /// none will do, the weightiest refusal is returned.
    pub async fn refresh(&mut self, clock: Clock, floors: &Floors) -> Result<Refreshed, Refused> {
        let Clock::Synchronised(now) = clock else { return Err(Refused::Clock) };
        let mut refusal: Option<Refused> = None;
        for mirror in self.order() {
            let outcome = self.refresh_from(mirror, floors, now).await;
            let floors = self.keep_floors(floors).await?;
            match outcome {
                Ok(()) => {
                    self.refreshed = Some((mirror, now));
                    return Ok(Refreshed { floors, expires: self.trusted.expires(), mirror });
                }
                Err(refused) if refused.is_local() => return Err(refused),
                Err(refused) => {
                    warn!(mirror, code = %refused.code(), "metadata refused: {refused}");
                    if refusal.as_ref().is_none_or(|first| refused.is_content() && !first.is_content()) {
                        refusal = Some(refused);
                    }
                }
            }
        }
        Err(refusal.unwrap_or(Refused::Unreachable {
            url: String::new(),
            reason: "no mirror is configured".to_owned(),
            retry_after: None,
        }))
    }

    /// Looks `path` up in the trusted metadata of the last successful refresh, first in the top-level targets, then in
    /// delegated roles in the order of their delegation; these are fetched as the search reaches them.
    pub async fn find(&mut self, path: &str) -> Result<Target, Refused> {
        check_path(path)?;
        let missing = || Refused::NoTarget { path: path.to_owned() };
        let (mirror, now) = self.refreshed.ok_or_else(missing)?;
        let top = self.trusted.targets().ok_or_else(missing)?;
        if let Some(file) = top.body.targets.get(path) {
            return Target::new(path, file, &Role::Targets);
        }
        let mut next: Vec<Visit> = Vec::new();
        descend(&mut next, top, path);
        let mut visited = BTreeSet::new();
        while let Some(visit) = next.pop() {
            if !visited.insert(visit.role.clone()) {
                continue;
            }
            if visited.len() > self.options.limits.delegations {
                return Err(Refused::TooManyDelegations {
                    path: path.to_owned(),
                    limit: self.options.limits.delegations,
                });
            }
            let targets = self.delegated(&visit, mirror, now).await?;
            if let Some(file) = targets.body.targets.get(path) {
                return Target::new(path, file, &visit.role);
            }
            descend(&mut next, &targets, path);
        }
        Err(missing())
    }

    /// The channel file of `model`, verified and parsed. [`Client::find`] tells what it needs.
    pub async fn read_channel(&mut self, channel: &str, model: &str) -> Result<Channel, Fault> {
        let path = Channel::target(channel, model);
        let target = self.find(&path).await.map_err(|refused| match refused {
            Refused::NoTarget { .. } => Fault::new(Code::ChannelMissing, refused.to_string()),
            other => other.into(),
        })?;
        if target.length() > MAX_CHANNEL as u64 {
            let detail = format!("{path}: {} bytes, a channel file has at most {MAX_CHANNEL}", target.length());
            return Err(Fault::new(Code::ChannelInvalid, detail));
        }
        let bytes = self.read(&target).await?;
        Channel::parse(&bytes).map_err(|e| Fault::new(e.code(), format!("{path}: {e}")))
    }

    /// Delivers `target` to the file `into`, whose folder must exist, and says what that took. A file with the right
    /// digest that is there already is left alone. `progress` is called for each piece. A call that failed or was dropped
    /// goes on where it stopped when it is made again, also in another process.
    pub async fn fetch(
        &self,
        target: &Target,
        into: &Path,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Fetched, Refused> {
        let (there, wanted) = (into.to_owned(), target.clone());
        if blocking(move || Ok(is_there(&there, &wanted))).await? {
            progress(Progress { bytes: target.length(), total: target.length() });
            return Ok(Fetched::default());
        }
        let urls = self.urls(target)?;
        let part = self.options.parts.join(format!("{}.part", target.digest()));
        Transfer::begin(&self.http, target, part, progress).await?.run(&urls, into).await
    }

    /// The bytes of a small target.
    async fn read(&self, target: &Target) -> Result<Vec<u8>, Refused> {
        let mut refusal = Refused::NoTarget { path: target.path().to_owned() };
        for url in &self.urls(target)? {
            match self.http.whole(url, target.length()).await.and_then(|bytes| target.verify(url, bytes)) {
                Ok(bytes) => return Ok(bytes),
                Err(refused) => refusal = refused,
            }
        }
        Err(refusal)
    }

    /// Where `target` lies, the mirror that served last first.
    fn urls(&self, target: &Target) -> Result<Vec<Url>, Refused> {
        let consistent = self.trusted.consistent();
        self.order().map(|mirror| target.url(&self.options.mirrors[mirror].targets, consistent)).collect()
    }

    /// Mirrors, the one that served last first.
    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let (count, first) = (self.options.mirrors.len(), self.refreshed.map_or(0, |(mirror, _)| mirror));
        (0..count).map(move |i| (first + i) % count)
    }

    async fn refresh_from(&mut self, mirror: usize, floors: &Floors, now: Timestamp) -> Result<(), Refused> {
        self.follow_roots(mirror).await?;
        let floors = self.bound(floors);
        self.trusted.settle_root(&floors, now)?;
        self.recall().await?;
        self.refresh_timestamp(mirror, &floors, now).await?;
        self.refresh_snapshot(mirror, &floors, now).await?;
        self.refresh_targets(mirror, now).await
    }

    /// 5.3: from the trusted root to the newest one, one by one.
    async fn follow_roots(&mut self, mirror: usize) -> Result<(), Refused> {
        self.save(&Role::Root, self.trusted.root().bytes.clone()).await?;
        for _ in 0..self.options.limits.roots {
            let next = self.trusted.root().version() + 1;
            let url = self.metadata_url(mirror, &Role::Root, Some(next))?;
            let bytes = match self.http.whole(&url, self.options.limits.root).await {
                Err(Refused::NotFound { .. }) => return Ok(()),
                other => other?,
            };
            if self.trusted.next_root(&bytes)? == Rotation::Forget {
                // Before the root, so that a power cut in between cannot leave the old ones to count.
                self.forget(&[Role::Timestamp, Role::Snapshot]).await?;
            }
            self.save(&Role::Root, bytes).await?;
            info!(version = next, "a new root is trusted");
        }
        Ok(())
    }

    async fn refresh_timestamp(&mut self, mirror: usize, floors: &Floors, now: Timestamp) -> Result<(), Refused> {
        let url = self.metadata_url(mirror, &Role::Timestamp, None)?;
        let bytes = self.http.whole(&url, self.options.limits.timestamp).await.map_err(|refused| match refused {
            // Every repository has one: this is no repository.
            Refused::NotFound { url, status } => {
                Refused::Unreachable { url, reason: format!("HTTP {status}"), retry_after: None }
            }
            other => other,
        })?;
        if self.trusted.update_timestamp(&bytes, floors, now)? {
            self.save(&Role::Timestamp, bytes).await?;
        }
        self.trusted.settle_timestamp(floors, now)
    }

    async fn refresh_snapshot(&mut self, mirror: usize, floors: &Floors, now: Timestamp) -> Result<(), Refused> {
        if !self.trusted.snapshot_is_current()? {
            let listed = self.trusted.snapshot_listed()?;
            let (version, limit) = (listed.version, bound(listed.length, self.options.limits.snapshot));
            let url = self.metadata_url(mirror, &Role::Snapshot, self.trusted.consistent().then_some(version))?;
            let bytes = self.http.whole(&url, limit).await?;
            self.trusted.update_snapshot(&bytes, floors, now)?;
            self.save(&Role::Snapshot, bytes).await?;
        }
        self.trusted.settle_snapshot(floors, now)
    }

    async fn refresh_targets(&mut self, mirror: usize, now: Timestamp) -> Result<(), Refused> {
        if !self.trusted.targets_are_current()? {
            let bytes = self.receive_targets(mirror, &Role::Targets).await?;
            self.trusted.update_targets(&bytes, now)?;
            self.save(&Role::Targets, bytes).await?;
        }
        self.trusted.settle_targets(now)
    }

    /// The metadata of a delegated role: the stored one if it is the listed one, or else from the mirror.
    async fn delegated(&self, visit: &Visit, mirror: usize, now: Timestamp) -> Result<Document<TargetsBody>, Refused> {
        let (store, role) = (self.store.clone(), visit.role.clone());
        let stored = blocking(move || Ok(store.read(&role))).await?;
        // Verified by the keys of the delegator that leads here, not by those of whoever led here before.
        if let Some(targets) = stored.and_then(|bytes| self.trusted.delegated(visit, &bytes, now).ok()) {
            return Ok(targets);
        }
        let bytes = self.receive_targets(mirror, &visit.role).await?;
        let targets = self.trusted.delegated(visit, &bytes, now)?;
        self.save(&visit.role, bytes).await?;
        Ok(targets)
    }

    async fn receive_targets(&self, mirror: usize, role: &Role) -> Result<Vec<u8>, Refused> {
        let listed = self.trusted.listed(role)?;
        let (version, limit) = (listed.version, bound(listed.length, self.options.limits.targets));
        let url = self.metadata_url(mirror, role, self.trusted.consistent().then_some(version))?;
        self.http.whole(&url, limit).await
    }

    fn metadata_url(&self, mirror: usize, role: &Role, version: Option<u64>) -> Result<Url, Refused> {
        let name = role.versioned(version);
        let invalid = |e: url::ParseError| Refused::Invalid { role: role.clone(), reason: e.to_string() };
        self.options.mirrors[mirror].metadata.join(&name).map_err(invalid)
    }

    async fn recall(&mut self) -> Result<(), Refused> {
        let store = self.store.clone();
        let read = move || Ok([Role::Timestamp, Role::Snapshot, Role::Targets].map(|role| store.read(&role)));
        let [timestamp, snapshot, targets] = blocking(read).await?;
        self.trusted.recall(timestamp, snapshot, targets);
        Ok(())
    }

    async fn save(&self, role: &Role, bytes: Vec<u8>) -> Result<(), Refused> {
        let (store, role) = (self.store.clone(), role.clone());
        let write =
            move || if store.read(&role).as_ref() == Some(&bytes) { Ok(()) } else { store.write(&role, &bytes) };
        blocking(write).await
    }

    async fn forget(&self, roles: &[Role]) -> Result<(), Refused> {
        let (store, roles) = (self.store.clone(), roles.to_vec());
        blocking(move || roles.iter().try_for_each(|role| store.remove(role))).await
    }

    /// What of the caller's floors, and of those kept beside the metadata, binds under the present root.
    fn bound(&self, floors: &Floors) -> Floors {
        let keys = self.trusted.online_keys();
        floors.under(&self.anchor, &keys).max(&self.store.floors().under(&self.anchor, &keys))
    }

    async fn keep_floors(&self, floors: &Floors) -> Result<Floors, Refused> {
        let floors = self.trusted.floors(&self.bound(floors));
        let (store, kept) = (self.store.clone(), floors.clone());
        blocking(move || if store.floors() == kept { Ok(()) } else { store.write_floors(&kept) }).await?;
        Ok(floors)
    }
}

/// The root to begin with, and the digest of the anchor that it was reached from.
fn begin(anchor: &Anchor, store: &Store) -> Result<(String, Trusted), Refused> {
    let unusable = |refused: Refused| Refused::Anchor { reason: refused.to_string() };
    let stored = || store.read(&Role::Root).map(|bytes| Trusted::new(&bytes));
    match anchor {
        Anchor::Stored => {
            let missing = Refused::Anchor { reason: "no root.json is stored".to_owned() };
            Ok((String::new(), stored().ok_or(missing)?.map_err(unusable)?))
        }
        Anchor::File(bytes) => {
            let digest = read::digest(bytes);
            let given = Trusted::new(bytes).map_err(unusable)?;
            let reached = if store.floors().anchor == digest { stored().and_then(Result::ok) } else { None };
            let newer = reached.filter(|reached| reached.root().version() > given.root().version());
            Ok((digest, newer.unwrap_or(given)))
        }
    }
}

/// The roles to which `targets` delegates `path`, to be visited before those that wait already. A terminating delegation
/// strikes all others.
fn descend(next: &mut Vec<Visit>, targets: &Document<TargetsBody>, path: &str) {
    let Some(delegations) = &targets.body.delegations else { return };
    let (visits, terminating) = children(delegations, path);
    if terminating {
        next.clear();
    }
    next.extend(visits.into_iter().rev());
}

fn folder(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url
}
