//! A repository behind a web server, and a device that reads it with tough's client.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kinewatch_core::rollout::Channel;
use kinewatch_ota::publish::{KeyRing, Lifetimes, Quorum, Quorums, Repository};
use semver::Version;
use tempfile::TempDir;
use tough::{
    DefaultTransport, ExpirationEnforcement, IntoVec, RepositoryLoader, TargetName, Transport, TransportError,
};
use url::Url;

use crate::common::sha256;

pub fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/packages/tiny-bright")
}

/// `tiny-bright` as another version, with other labels where wanted.
pub fn release(home: &Path, version: &str, label: &str) -> PathBuf {
    let dir = home.join(format!("package-{version}-{label}"));
    fs::create_dir_all(dir.join("golden")).unwrap();
    let package = kinewatch_ota::open_verified(tiny()).unwrap();
    let mut toml = fs::read_to_string(tiny().join("model.toml")).unwrap();
    toml = toml.replacen("version = \"1.0.0\"", &format!("version = \"{version}\""), 1);
    toml = toml.replacen("name = \"wave\"", &format!("name = \"{label}\""), 1);
    for (name, listed) in package.manifest.files {
        let mut bytes = fs::read(tiny().join(&name)).unwrap();
        if name == "labels.txt" {
            bytes = String::from_utf8(bytes).unwrap().replace("wave", label).into();
            toml = toml.replace(&listed, &sha256(&bytes));
        }
        fs::write(dir.join(name), bytes).unwrap();
    }
    fs::write(dir.join("model.toml"), toml).unwrap();
    dir
}

/// A web server that knows nothing but files.
pub struct Server {
    child: Child,
    url: Url,
}

impl Server {
    pub fn start(folder: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split("port ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
        Self { child, url: format!("http://127.0.0.1:{port}/").parse().unwrap() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// tough asks for `DIGEST.path/name`, where the specification (6.2) says `path/DIGEST.name`.
#[derive(Debug, Clone)]
pub struct AsSpecified;

#[async_trait]
impl Transport for AsSpecified {
    async fn fetch(&self, url: Url) -> Result<tough::TransportStream, TransportError> {
        let target = url.path().strip_prefix("/targets/").and_then(|path| path.split_once('.'));
        let wanted = match target {
            Some((digest, name)) => {
                let (folder, file) = name.rsplit_once('/').unwrap();
                url.join(&format!("/targets/{folder}/{digest}.{file}")).unwrap()
            }
            None => url,
        };
        DefaultTransport::new().fetch(wanted).await
    }
}

pub struct Device {
    anchor: Vec<u8>,
    datastore: TempDir,
}

impl Device {
    pub fn with(repo: &Path, root: u32) -> Self {
        let anchor = fs::read(repo.join(format!("metadata/{root}.root.json"))).unwrap();
        Self { anchor, datastore: TempDir::new().unwrap() }
    }

    /// What it would read now: every target, by name.
    pub fn read(&self, server: &Server) -> Result<Vec<(String, Vec<u8>)>, Box<tough::error::Error>> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let base = |name: &str| server.url.join(name).unwrap();
            let repository = RepositoryLoader::new(&self.anchor, base("metadata/"), base("targets/"))
                .transport(AsSpecified)
                .datastore(self.datastore.path())
                .expiration_enforcement(ExpirationEnforcement::Safe)
                .load()
                .await
                .map_err(Box::new)?;
            let mut names: Vec<TargetName> = repository.targets().signed.targets.keys().cloned().collect();
            names.sort();
            let mut read = Vec::new();
            for name in names {
                let bytes = repository
                    .read_target(&name)
                    .await
                    .map_err(Box::new)?
                    .unwrap()
                    .into_vec()
                    .await
                    .map_err(Box::new)?;
                read.push((name.raw().to_owned(), bytes));
            }
            Ok(read)
        })
    }

    pub fn channel(&self, server: &Server, channel: &str) -> Channel {
        let name = Channel::target(channel, "tiny-bright");
        let read = self.read(server).unwrap();
        Channel::parse(&read.iter().find(|(n, _)| *n == name).expect("the channel").1).unwrap()
    }
}

pub fn now() -> Timestamp {
    Timestamp::now()
}

pub fn days(n: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * n)
}

pub fn keys(dirs: &[&Path]) -> KeyRing {
    KeyRing::read(&dirs.iter().map(|dir| dir.to_path_buf()).collect::<Vec<_>>()).unwrap()
}

/// A repository, its keys, and its web server.
pub struct Shop {
    pub home: TempDir,
    pub repo: PathBuf,
    pub keys: PathBuf,
    pub server: Server,
}

impl Shop {
    pub fn new(quorums: Quorums) -> Self {
        let home = TempDir::new().unwrap();
        let (repo, keys) = (home.path().join("repo"), home.path().join("keys"));
        let created = Repository::create(&repo, &keys, quorums, Lifetimes::default(), now()).unwrap();
        assert_eq!(created.keys.len() as u32, quorums.root.count + quorums.targets.count + 2);
        assert_eq!(created.anchor, repo.join("metadata/1.root.json"));
        let server = Server::start(&repo);
        Self { home, repo, keys, server }
    }

    pub fn open(&self) -> Repository {
        Repository::open(&self.repo).unwrap()
    }

    pub fn ring(&self) -> KeyRing {
        keys(&[&self.keys])
    }

    /// Moves keys of that beginning to a folder of their own.
    pub fn take(&self, prefix: &str) -> PathBuf {
        let away = self.home.path().join(format!("away-{prefix}"));
        fs::create_dir_all(&away).unwrap();
        for entry in fs::read_dir(&self.keys).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name.starts_with(prefix) {
                fs::rename(&path, away.join(name)).unwrap();
            }
        }
        away
    }
}

pub const ONE: Quorums = Quorums { root: Quorum::ONE, targets: Quorum::ONE };
pub const TWO_OF_THREE: Quorums = Quorums { root: Quorum { count: 3, threshold: 2 }, ..ONE };

pub fn version(text: &str) -> Version {
    text.parse().unwrap()
}
