//! What `kinewatch publish` makes, this client reads, through every change of keys.
//!
//! The repositories are left in `target/tmp/published/`, with what is in them, for the reference implementation to be tried
//! on as well: `models/conformance/run.py CLIENT --published target/tmp/published`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use kinewatch_core::rollout::Code;
use kinewatch_ota::bundle::{Bounds, unpack};
use kinewatch_ota::publish::{ChannelChange, Goes, KeyRing, Lifetimes, Quorum, Quorums, Repository, Role};
use kinewatch_ota::tuf::{Anchor, Client, Clock, Floors, Limits, Mirror, Options, Pace, Refused, Tls};
use serde_json::{Value, json};

use crate::repository::sha256;
use crate::server::Server;

const BUNDLE: &str = "models/tiny-bright/1.0.0/bundle.tar.zst";

/// A publisher with a release and a channel; all keys in one folder.
struct Publisher {
    home: PathBuf,
    now: Timestamp,
    anchor: Vec<u8>,
}

impl Publisher {
    fn new(name: &str) -> Self {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("published").join(name);
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        let now = Timestamp::now();
        let (repository, keys) = (home.join("repository"), home.join("keys"));
        let quorums = Quorums { root: Quorum { count: 3, threshold: 2 }, ..Quorums::default() };
        let created = Repository::create(&repository, &keys, quorums, Lifetimes::default(), now).unwrap();
        let anchor = fs::read(created.anchor).unwrap();
        let publisher = Self { home, now, anchor };
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/packages/tiny-bright");
        publisher.change(|repository, keys, now| {
            repository.add(&package, keys, now).unwrap();
            let version = "1.0.0".parse().unwrap();
            repository.set_channel("stable", "tiny-bright", &version, ChannelChange::default(), keys, now).unwrap();
        });
        publisher
    }

    fn keys(&self) -> KeyRing {
        KeyRing::read(&[self.home.join("keys")]).unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Repository, &mut KeyRing, Timestamp) -> T) -> T {
        let mut repository = Repository::open(&self.home.join("repository")).unwrap();
        change(&mut repository, &mut self.keys(), self.now)
    }

    fn rotate(&self, role: Role) {
        let goes = match role {
            Role::Root => {
                let root: Value = serde_json::from_slice(&self.newest_root()).unwrap();
                Goes::Id(root["signed"]["roles"]["root"]["keyids"][0].as_str().unwrap()[..8].to_owned())
            }
            _ => Goes::Only,
        };
        self.change(|repository, keys, now| repository.rotate(role, &goes, keys, now).unwrap());
    }

    fn newest_root(&self) -> Vec<u8> {
        let root = |n| fs::read(self.home.join(format!("repository/metadata/{n}.root.json"))).ok();
        (1..).map_while(root).last().unwrap()
    }

    /// All files that a web server would serve.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let root = self.home.join("repository");
        let mut folders = vec![root.join("metadata"), root.join("targets")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, fs::read(path).unwrap());
                }
            }
        }
        files
    }

    /// What another client must find in it.
    fn note(&self, bundle: &[u8]) {
        fs::write(self.home.join("root.json"), &self.anchor).unwrap();
        let targets = json!({BUNDLE: sha256(bundle)});
        fs::write(self.home.join("targets.json"), serde_json::to_vec(&targets).unwrap()).unwrap();
    }
}

struct Device {
    folder: tempfile::TempDir,
    server: Server,
    anchor: Vec<u8>,
    floors: Floors,
    now: Timestamp,
}

impl Device {
    async fn of(publisher: &Publisher) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            server: Server::start(&publisher.files()).await,
            anchor: publisher.anchor.clone(),
            floors: Floors::default(),
            now: publisher.now,
        }
    }

    async fn refresh(&mut self) -> Result<Client, Refused> {
        let mut client = Client::open(Options {
            mirrors: vec![Mirror::below(&self.server.url)],
            anchor: Anchor::File(self.anchor.clone()),
            directory: self.folder.path().join("tuf"),
            parts: self.folder.path().join("parts"),
            limits: Limits::default(),
            pace: Pace::default(),
            tls: Tls::default(),
            proxy: None,
        })?;
        self.floors = client.refresh(Clock::Synchronised(self.now), &self.floors).await?.floors;
        Ok(client)
    }

    /// Fetches the bundle that the channel names.
    async fn update(&mut self) -> Vec<u8> {
        let mut client = self.refresh().await.unwrap();
        let channel = client.read_channel("stable", "tiny-bright").await.unwrap();
        assert_eq!(channel.bundle, BUNDLE);
        let target = client.find(&channel.bundle).await.unwrap();
        let into = self.folder.path().join("bundle");
        client.fetch(&target, &into, &mut |_| {}).await.unwrap();
        fs::read(into).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_fetched_and_is_the_package() {
    let publisher = tokio::task::spawn_blocking(|| Publisher::new("plain")).await.unwrap();
    let mut device = Device::of(&publisher).await;
    let bundle = device.update().await;
    publisher.note(&bundle);
    let into = device.folder.path().join("package");
    unpack(bundle.as_slice(), &into, Bounds::default()).unwrap();
    assert_eq!(kinewatch_ota::open_verified(into).unwrap().manifest.name, "tiny-bright");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_can_be_replaced_under_a_device() {
    let publisher = tokio::task::spawn_blocking(|| Publisher::new("rotated")).await.unwrap();
    let mut device = Device::of(&publisher).await;
    let bundle = device.update().await;
    publisher.note(&bundle);
    for role in [Role::Timestamp, Role::Snapshot, Role::Targets, Role::Root] {
        tokio::task::block_in_place(|| publisher.rotate(role));
        device.server.serve(&publisher.files());
        let root = device.floors.root;
        device.refresh().await.unwrap_or_else(|refused| panic!("{role:?}: {refused}"));
        assert_eq!(device.floors.root, root + 1, "{role:?}");
    }
    // A device that slept through all of it, and one that was shipped with the newest root.
    let mut slept = Device::of(&publisher).await;
    assert_eq!(slept.update().await, bundle);
    let mut new = Device::of(&publisher).await;
    new.anchor = publisher.newest_root();
    assert_eq!(new.update().await, bundle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_who_forgets_is_told_apart_from_an_attacker() {
    let publisher = tokio::task::spawn_blocking(|| Publisher::new("forgotten")).await.unwrap();
    let mut device = Device::of(&publisher).await;
    let bundle = device.update().await;
    publisher.note(&bundle);
    device.now += SignedDuration::from_hours(24 * 4);
    assert_eq!(device.refresh().await.unwrap_err().code(), Code::Expired);
    let later = device.now;
    tokio::task::block_in_place(|| publisher.change(|repository, keys, _| repository.refresh(keys, later).unwrap()));
    device.server.serve(&publisher.files());
    device.refresh().await.unwrap();
}
