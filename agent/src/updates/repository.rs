//! The repository as the updater asks it: what a channel offers, and a bundle.
//!
//! Polls share one client and take turns. A download has a client of its own, in a folder of its own, so that a poll does not
//! wait for it: a halt is heard while gigabytes are on their way.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kinewatch_core::rollout::step::Failure;
use kinewatch_core::rollout::{Code, Fault, Offer, Release};
use kinewatch_ota::tuf::{Anchor, Client, Clock, Floors, Limits, Mirror, Options, Pace, Progress, Refused, Tls};
use url::Url;

use crate::config::plan::UpdatesPlan;

/// Largest trust anchor that is read, bytes.
const MAX_ANCHOR: u64 = 512 << 10;

/// A client for polls, opened when it is first needed.
#[derive(Debug)]
pub(super) struct Repository {
    plan: UpdatesPlan,
    /// Folder of trusted metadata, and of parts.
    home: PathBuf,
    client: Option<Client>,
}

impl Repository {
    pub(super) fn new(plan: UpdatesPlan, home: PathBuf) -> Self {
        Self { plan, home, client: None }
    }

    /// What the channel offers for a model. `floors` are those that hold from then on, also where it fails.
    pub(super) async fn poll(&mut self, model: &str, floors: &mut Floors) -> Result<Offer, Failure> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => open(&self.plan, &self.home, "tuf")?,
        };
        let refreshed = client.refresh(Clock::Synchronised(Timestamp::now()), floors).await.map_err(failure)?;
        *floors = refreshed.floors;
        let channel = client.read_channel(&self.plan.channel, model).await?;
        let target = client.find(&channel.bundle).await.map_err(failure)?;
        let (sha256, length) = (target.digest().to_owned(), target.length());
        // Kept for the next time only where all went well: an anchor that was mended is read again.
        self.client = Some(client);
        Ok(Offer { channel, sha256, length })
    }
}

/// Fetches the bundle of a release to `into`, going on where a former attempt stopped.
pub(super) async fn fetch(
    plan: &UpdatesPlan,
    home: &Path,
    floors: &Floors,
    release: &Release,
    into: &Path,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<u64, Failure> {
    let mut client = open(plan, home, "tuf-download")?;
    client.refresh(Clock::Synchronised(Timestamp::now()), floors).await.map_err(failure)?;
    let target = client.find(&release.bundle).await.map_err(failure)?;
    if target.digest() != release.sha256 || target.length() != release.length {
        let detail = format!("{}: another bundle is signed now than when the channel was read", release.bundle);
        return Err(Fault::new(Code::WrongHash, detail).into());
    }
    let fetched = client.fetch(&target, into, progress).await.map_err(failure)?;
    tracing::info!(
        bundle = release.bundle,
        bytes = fetched.received,
        resumed = fetched.resumed,
        requests = fetched.requests,
        "the bundle is here"
    );
    Ok(fetched.received)
}

fn open(plan: &UpdatesPlan, home: &Path, folder: &str) -> Result<Client, Failure> {
    let anchor = read_anchor(&plan.root)?;
    let url = |text: &str| {
        text.parse::<Url>().map_err(|e| Fault::new(Code::Unreachable, format!("[updates]: {text} is no address: {e}")))
    };
    let mirrors = plan.mirrors.iter().map(|text| Ok(Mirror::below(&url(text)?))).collect::<Result<_, Fault>>()?;
    let proxy = plan.proxy.as_deref().map(url).transpose()?;
    let options = Options {
        mirrors,
        anchor: Anchor::File(anchor),
        directory: home.join(folder),
        parts: home.join("parts"),
        limits: Limits::default(),
        pace: Pace { rate_limit_bytes_per_s: NonZeroU64::new(plan.rate_limit), ..Pace::default() },
        tls: Tls::default(),
        proxy,
    };
    Client::open(options).map_err(failure)
}

/// The trust anchor's bytes.
///
/// # Errors
/// It cannot be read, or is larger than any root metadata.
pub(crate) fn read_anchor(path: &Path) -> Result<Vec<u8>, Fault> {
    use std::io::Read;
    let failed = |why: String| Fault::new(Code::AnchorInvalid, format!("{}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| failed(e.to_string()))?;
    let mut bytes = Vec::new();
    file.take(MAX_ANCHOR + 1).read_to_end(&mut bytes).map_err(|e| failed(e.to_string()))?;
    if bytes.len() as u64 > MAX_ANCHOR {
        return Err(failed(format!("more than {MAX_ANCHOR} bytes")));
    }
    Ok(bytes)
}

fn failure(refused: Refused) -> Failure {
    let retry_after = refused.retry_after();
    Failure { fault: refused.into(), retry_after }
}

/// Looks at the repository with metadata that is thrown away. Gives when the first of it expires.
pub(super) async fn look(plan: &UpdatesPlan) -> Result<Timestamp, Fault> {
    let home = std::env::temp_dir().join(format!("kinewatch-look-{}-{:08x}", std::process::id(), fastrand::u32(..)));
    std::fs::create_dir(&home).map_err(|e| Fault::new(Code::DiskError, format!("{}: {e}", home.display())))?;
    let looked = async {
        let mut client = open(plan, &home, "tuf").map_err(|failure| failure.fault)?;
        let refreshed = client.refresh(Clock::Synchronised(Timestamp::now()), &Floors::default()).await?;
        Ok(refreshed.expires)
    };
    let result = looked.await;
    // Nothing of worth is in it.
    let _left = std::fs::remove_dir_all(&home);
    result
}
