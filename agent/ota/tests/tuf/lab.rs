//! A device, an honest repository with one channel and one bundle, and a server between them.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use kinewatch_core::rollout::{Code, Fault};
use kinewatch_ota::tuf::{Anchor, Client, Clock, Fetched, Floors, Limits, Mirror, Options, Pace, Tls};

use crate::repository::Repository;
use crate::server::Server;

pub(crate) const BUNDLE: &str = "models/falls/1.0.0/bundle.tar.zst";
pub(crate) const CHANNEL: &str = "channels/stable/falls.json";

pub(crate) struct Lab {
    pub(crate) repository: Repository,
    pub(crate) server: Server,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) floors: Floors,
    pub(crate) now: Timestamp,
    pub(crate) pace: Pace,
}

/// The bundle of that version: it does not repeat itself, so that a wrong range is found out.
pub(crate) fn bundle(version: u8, length: usize) -> Vec<u8> {
    let mut state = u32::from(version) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn channel(version: &str, epoch: u64) -> Vec<u8> {
    let channel = serde_json::json!({
        "schema": 1, "channel": "stable", "model": "falls", "version": version, "epoch": epoch, "bundle": BUNDLE,
    });
    serde_json::to_vec(&channel).unwrap()
}

/// In memory where that can be had: a device synchronises each file that it writes, and these write thousands.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

impl Lab {
    /// The device has seen version 2 of everything but the root, of which it has seen version 1.
    pub(crate) async fn new() -> Self {
        let mut lab = Self::fresh().await;
        lab.update().await.unwrap();
        std::fs::remove_file(lab.bundle()).unwrap();
        lab
    }

    /// The device has seen nothing yet.
    pub(crate) async fn fresh() -> Self {
        let mut repository = Repository::new();
        repository.add(CHANNEL, &channel("1.0.0", 1));
        repository.add(BUNDLE, &bundle(1, 200_000));
        repository.publish_all();
        let server = Server::start(&repository.files).await;
        let pace = Pace { pause: Duration::from_millis(5), longest_pause: Duration::from_secs(2), ..Pace::default() };
        Self {
            repository,
            server,
            folder: scratch(),
            floors: Floors::default(),
            now: "2029-01-01T00:00:00Z".parse().unwrap(),
            pace,
        }
    }

    pub(crate) fn serve(&self) {
        self.server.serve(&self.repository.files);
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    pub(crate) fn metadata(&self) -> PathBuf {
        self.folder.path().join("tuf")
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            mirrors: vec![Mirror::below(&self.server.url)],
            anchor: Anchor::File(self.repository.anchor()),
            directory: self.metadata(),
            parts: self.folder.path().join("parts"),
            limits: Limits::default(),
            pace: self.pace,
            tls: Tls::default(),
            proxy: None,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(self.options()).unwrap()
    }

    /// What a device does: refresh, read the channel, fetch its bundle. Each time in a new process, so to speak.
    pub(crate) async fn update(&mut self) -> Result<Fetched, Fault> {
        let mut client = Client::open(self.options())?;
        self.update_with(&mut client).await
    }

    pub(crate) async fn update_with(&mut self, client: &mut Client) -> Result<Fetched, Fault> {
        let refreshed = client.refresh(Clock::Synchronised(self.now), &self.floors).await?;
        self.floors = refreshed.floors;
        let channel = client.read_channel("stable", "falls").await?;
        let target = client.find(&channel.bundle).await?;
        Ok(client.fetch(&target, &self.bundle(), &mut |_| {}).await?)
    }

    pub(crate) async fn refused(&mut self) -> Fault {
        self.update().await.expect_err("refused")
    }

    pub(crate) async fn code(&mut self) -> Code {
        self.refused().await.code
    }

    pub(crate) fn fetched(&self) -> Option<Vec<u8>> {
        std::fs::read(self.bundle()).ok()
    }
}
