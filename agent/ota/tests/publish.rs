//! A repository as a publisher makes it, read back through a real web server with tough's client: releases, channels,
//! halts, and every change of keys, lost ones included.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/shop.rs"]
mod shop;

use std::fs;
use std::path::{Path, PathBuf};

use kinewatch_core::rollout::{Channel, Gates};
use kinewatch_ota::bundle::{Bounds, unpack};
use kinewatch_ota::publish::{
    ChannelChange, Goes, KeyRing, Lifetimes, PublishError, Reach, Repository, Role, Rotated, parse_waves,
};
use shop::{Device, ONE, Server, Shop, TWO_OF_THREE, days, keys, now, release, tiny, version};
use tempfile::TempDir;

#[test]
fn a_release_reaches_a_device_through_a_web_server() {
    let shop = Shop::new(ONE);
    let device = Device::with(&shop.repo, 1);
    assert_eq!(device.read(&shop.server).unwrap(), []);
    let mut repository = shop.open();
    let (package, reach) = repository.add(&tiny(), &shop.ring(), now()).unwrap();
    assert_eq!(reach, Some(Reach::Published));
    let waves = parse_waves("1%:0h,100%:72h", now()).unwrap();
    let gates = Gates { latency_p99_ms: Some(33.0), ..Gates::default() };
    let change = ChannelChange { waves: waves.clone(), gates: Some(gates), ..ChannelChange::default() };
    let set = repository.set_channel("stable", "tiny-bright", &version("1.0.0"), change, &shop.ring(), now());
    let (channel, reach) = set.unwrap();
    assert_eq!((channel.epoch, reach), (1, Reach::Published));

    let read = device.read(&shop.server).unwrap();
    let names: Vec<&str> = read.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["channels/stable/tiny-bright.json", "models/tiny-bright/1.0.0/bundle.tar.zst"]);
    let got = Channel::parse(&read[0].1).unwrap();
    assert_eq!((got.waves, got.gates.latency_p99_ms, got.bundle.as_str()), (waves, Some(33.0), names[1]));
    assert!(got.requires.min_free_mb >= 1);
    let unpacked = unpack(read[1].1.as_slice(), &shop.home.path().join("new"), Bounds::default()).unwrap();
    assert_eq!(unpacked.digest, package.digest);
    assert!(!shop.repo.join(".work").exists());
    let left: Vec<_> = walk(&shop.repo).into_iter().filter(|p| p.extension().is_some_and(|e| e == "new")).collect();
    assert_eq!(left, [] as [PathBuf; 0]);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .unwrap()
        .flat_map(|e| {
            let path = e.unwrap().path();
            if path.is_dir() { walk(&path) } else { vec![path] }
        })
        .collect()
}

#[test]
fn epochs_rise_versions_may_fall_and_halts_keep_both() {
    let shop = Shop::new(ONE);
    let device = Device::with(&shop.repo, 1);
    let mut repository = shop.open();
    for package in [tiny(), release(shop.home.path(), "1.1.0", "wave"), release(shop.home.path(), "1.2.0", "fall")] {
        repository.add(&package, &shop.ring(), now()).unwrap();
    }
    let mut set = |to: &str, labels_changed| {
        let change = ChannelChange { labels_changed, ..ChannelChange::default() };
        repository.set_channel("stable", "tiny-bright", &version(to), change, &shop.ring(), now()).map(|(c, _)| c.epoch)
    };
    assert_eq!(set("1.1.0", false).unwrap(), 1);
    assert_eq!(set("1.0.0", false).unwrap(), 2, "back, and signed");
    let silent = set("1.2.0", false).unwrap_err().to_string();
    assert!(silent.starts_with("label 1 of 1.0.0 is \"wave\", of 1.2.0 \"fall\": "), "{silent}");
    assert_eq!(set("1.2.0", true).unwrap(), 3);
    let unknown = set("9.9.9", false).unwrap_err().to_string();
    assert!(unknown.contains("there: 1.0.0, 1.1.0, 1.2.0"), "{unknown}");
    assert_eq!(device.channel(&shop.server, "stable").epoch, 3);

    let mut halt = |halt| repository.halt("stable", "tiny-bright", halt, &shop.ring(), now()).unwrap();
    assert_eq!(halt(true).1, Some(Reach::Published));
    assert_eq!(halt(true).1, None);
    let halted = device.channel(&shop.server, "stable");
    assert_eq!((halted.halt, halted.epoch, halted.version), (true, 3, version("1.2.0")));
    halt(false);
    assert!(!device.channel(&shop.server, "stable").halt);
    assert!(repository.halt("beta", "tiny-bright", true, &shop.ring(), now()).is_err());
}

#[test]
fn a_version_is_published_once() {
    let shop = Shop::new(ONE);
    let mut repository = shop.open();
    repository.add(&tiny(), &shop.ring(), now()).unwrap();
    assert_eq!(repository.add(&tiny(), &shop.ring(), now()).unwrap().1, None);
    let other = release(shop.home.path(), "1.0.0", "fall");
    let error = repository.add(&other, &shop.ring(), now()).unwrap_err().to_string();
    assert!(error.contains("give the package a new version"), "{error}");
    fs::write(other.join("labels.txt"), "altered").unwrap();
    assert!(matches!(repository.add(&other, &shop.ring(), now()), Err(PublishError::Pack(_))));
    assert!(!shop.repo.join(".work").exists());
    assert!(Repository::create(&shop.repo, &shop.keys, ONE, Lifetimes::default(), now()).is_err());
}

#[test]
fn who_has_only_some_keys_does_only_a_part() {
    let shop = Shop::new(ONE);
    let device = Device::with(&shop.repo, 1);
    let (root, targets) = (shop.take("root"), shop.take("targets"));
    // The machine that signs every day has neither of them.
    let mut repository = shop.open();
    let error = repository.add(&tiny(), &shop.ring(), now()).unwrap_err();
    assert!(matches!(error, PublishError::Keys { role: Role::Targets, have: 0, need: 1, .. }), "{error}");
    assert!(repository.refresh(&shop.ring(), now()).is_ok());
    // Who signs releases has no online keys.
    let mut repository = shop.open();
    let (_, reach) = repository.add(&tiny(), &keys(&[&targets]), now()).unwrap();
    assert_eq!(reach, Some(Reach::AwaitsOnlineKeys));
    let change = ChannelChange::default();
    repository.set_channel("stable", "tiny-bright", &version("1.0.0"), change, &keys(&[&targets]), now()).unwrap();
    assert_eq!(device.read(&shop.server).unwrap(), [], "not yet");
    let mut repository = shop.open();
    assert!(repository.status(&shop.ring()).unwrap().awaits_online_keys);
    repository.refresh(&shop.ring(), now()).unwrap();
    assert_eq!(device.read(&shop.server).unwrap().len(), 2);
    assert!(!repository.status(&shop.ring()).unwrap().awaits_online_keys);
    let away = repository.renew_root(&shop.ring(), now()).unwrap();
    assert!(matches!(away, Rotated::Pending { old: (0, 1), .. }), "{away:?}");
    assert!(matches!(repository.sign_root(&keys(&[&root]), now()).unwrap(), Rotated::Published { version: 2, .. }));
    assert_eq!(device.read(&shop.server).unwrap().len(), 2);
}

#[test]
fn every_key_is_replaced_and_old_devices_follow() {
    let shop = Shop::new(ONE);
    let old = Device::with(&shop.repo, 1);
    let mut repository = shop.open();
    repository.add(&tiny(), &shop.ring(), now()).unwrap();
    assert_eq!(old.read(&shop.server).unwrap().len(), 1);
    for (count, role) in [Role::Timestamp, Role::Snapshot, Role::Targets, Role::Root].into_iter().enumerate() {
        let mut ring = shop.ring();
        let (key, rotated) = repository.rotate(role, &Goes::Only, &mut ring, now()).unwrap();
        assert!(key.to_string_lossy().contains(&format!("/keys/{role}-")), "{key:?}");
        let version = count as u64 + 2;
        assert_eq!(rotated, Rotated::Published { version, reach: Reach::Published }, "{role}");
        fs::remove_file(shop.keys.join(format!("{role}-1.key"))).unwrap();
        assert_eq!(old.read(&shop.server).unwrap().len(), 1, "{role}");
        let status = shop.open().status(&shop.ring()).unwrap();
        assert!(status.roles.iter().all(|role| role.signed && role.keys.iter().all(|key| key.file.is_some())));
    }
    // And everything goes on with the new ones alone.
    let mut repository = shop.open();
    repository.add(&release(shop.home.path(), "1.1.0", "wave"), &shop.ring(), now()).unwrap();
    assert_eq!(old.read(&shop.server).unwrap().len(), 2);
    assert_eq!(Device::with(&shop.repo, 5).read(&shop.server).unwrap().len(), 2);
}

/// An online key that is lost needs no old key; one root key of three may be lost too; two may not.
#[test]
fn lost_keys_are_recovered_from() {
    let shop = Shop::new(TWO_OF_THREE);
    let device = Device::with(&shop.repo, 1);
    let mut repository = shop.open();
    repository.add(&tiny(), &shop.ring(), now()).unwrap();
    fs::remove_file(shop.keys.join("timestamp-1.key")).unwrap();
    assert!(repository.refresh(&shop.ring(), now()).is_err());
    repository.rotate(Role::Timestamp, &Goes::Only, &mut shop.ring(), now()).unwrap();
    assert!(repository.refresh(&shop.ring(), now()).is_ok());
    assert_eq!(device.read(&shop.server).unwrap().len(), 1);

    // Root keys lie in three places, and the third burns down.
    let (first, second, third) = (shop.take("root-1"), shop.take("root-2"), shop.take("root-3"));
    let id = |dir: &Path| {
        let status = repository.status(&keys(&[dir])).unwrap();
        status.roles[0].keys.iter().find(|key| key.file.is_some()).unwrap().id.clone()
    };
    let lost = id(&third);
    fs::remove_dir_all(&third).unwrap();
    assert!(repository.rotate(Role::Root, &Goes::Only, &mut keys(&[&first]), now()).is_err(), "which of three?");
    assert!(repository.rotate(Role::Root, &Goes::Lost, &mut keys(&[&first]), now()).is_err(), "two are not at hand");
    let mut holder = keys(&[&first, &shop.keys]);
    let (_, rotated) = repository.rotate(Role::Root, &Goes::Id(lost[..8].to_owned()), &mut holder, now()).unwrap();
    let Rotated::Pending { path, old: (1, 2), new: (2, 2) } = rotated else { panic!("{rotated:?}") };
    assert!(!path.starts_with(shop.repo.join("metadata")));
    assert_eq!(device.read(&shop.server).unwrap().len(), 1, "devices do not see it");
    assert!(repository.rotate(Role::Targets, &Goes::Only, &mut keys(&[&first]), now()).is_err(), "one at a time");
    assert!(shop.open().status(&KeyRing::default()).unwrap().pending_root);
    assert!(shop.open().sign_root(&shop.ring(), now()).is_err(), "no root key here");
    let mut elsewhere = shop.open();
    let rotated = elsewhere.sign_root(&keys(&[&second]), now()).unwrap();
    assert!(matches!(rotated, Rotated::Published { version: 3, reach: Reach::Published }), "{rotated:?}");
    assert_eq!(device.read(&shop.server).unwrap().len(), 1);

    // A thief of one key can make a root, and no device takes it.
    let mut thief = shop.open();
    let (_, rotated) = thief.rotate(Role::Targets, &Goes::Only, &mut keys(&[&second]), now()).unwrap();
    let Rotated::Pending { path, old: (1, 2), .. } = rotated else { panic!("{rotated:?}") };
    fs::copy(&path, shop.repo.join("metadata/4.root.json")).unwrap();
    assert!(device.read(&shop.server).is_err());
    fs::remove_file(shop.repo.join("metadata/4.root.json")).unwrap();
    assert!(thief.discard_pending().unwrap());
    assert_eq!(device.read(&shop.server).unwrap().len(), 1);
}

#[test]
fn dates_move_on_and_what_has_expired_is_told() {
    let home = TempDir::new().unwrap();
    let (repo, dir) = (home.path().join("repo"), home.path().join("keys"));
    let lifetimes = Lifetimes { timestamp: 20, ..Lifetimes::default() };
    Repository::create(&repo, &dir, ONE, lifetimes, now() - days(30)).unwrap();
    let server = Server::start(&repo);
    let device = Device::with(&repo, 1);
    let error = device.read(&server).unwrap_err();
    assert!(matches!(*error, tough::error::Error::ExpiredMetadata { .. }), "{error}");
    let mut repository = Repository::open(&repo).unwrap();
    let expires = |repository: &Repository| -> Vec<i64> {
        let status = repository.status(&KeyRing::default()).unwrap();
        status
            .roles
            .iter()
            .map(|role| (role.expires.duration_since(now()).as_secs_f64() / 86_400.0).round() as i64)
            .collect()
    };
    assert_eq!(expires(&repository), [335, 60, -16, -10]);
    repository.refresh(&keys(&[&dir]), now()).unwrap();
    assert_eq!(expires(&repository), [335, 60, 14, 20], "as the root says, and targets not before half its time");
    assert_eq!(device.read(&server).unwrap(), []);
    repository.refresh(&keys(&[&dir]), now() + days(20)).unwrap();
    assert_eq!(expires(&repository), [335, 110, 34, 40]);
    repository.renew_root(&keys(&[&dir]), now()).unwrap();
    assert_eq!(expires(&repository)[0], 365);
}

/// The folder may lie where others can write; the keys do not.
#[test]
fn a_list_that_somebody_else_has_changed_is_not_signed() {
    let shop = Shop::new(ONE);
    shop.open().add(&release(shop.home.path(), "1.0.0", "wave"), &shop.ring(), now()).unwrap();
    let metadata = shop.repo.join("metadata");
    let newest = (1..).take_while(|n| metadata.join(format!("{n}.targets.json")).exists()).last().unwrap();
    let list = metadata.join(format!("{newest}.targets.json"));
    let forged = fs::read_to_string(&list).unwrap().replace("unpacked_bytes", "unpacked_Bytes");
    fs::write(&list, forged).unwrap();
    let other = release(shop.home.path(), "1.1.0", "wave");
    for result in
        [shop.open().add(&other, &shop.ring(), now()).map(drop), shop.open().refresh(&shop.ring(), now()).map(drop)]
    {
        let error = result.unwrap_err();
        assert!(matches!(&error, PublishError::Metadata { path, .. } if *path == list), "{error}");
    }
    assert!(!metadata.join(format!("{}.targets.json", newest + 1)).exists(), "nothing was signed");
}

#[test]
fn keys_stay_private() {
    use std::os::unix::fs::PermissionsExt;
    let shop = Shop::new(ONE);
    for path in walk(&shop.keys) {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        let text = fs::read_to_string(&path).unwrap();
        let secret = text.lines().nth(1).unwrap();
        assert!(!format!("{:?}", shop.ring()).contains(secret));
        for file in walk(&shop.repo) {
            assert!(!String::from_utf8_lossy(&fs::read(&file).unwrap()).contains(secret), "{}", file.display());
        }
    }
    let open = shop.keys.join("targets-1.key");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let error = KeyRing::read(std::slice::from_ref(&shop.keys)).unwrap_err().to_string();
    assert!(error.ends_with("others may read this private key: `chmod 600` it"), "{error}");
}
