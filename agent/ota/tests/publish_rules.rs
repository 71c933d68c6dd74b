//! What a publisher is kept from: a release that one of two people signs, labels that change in silence, and gates that no
//! device can ask.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/shop.rs"]
mod shop;

use std::fs;
use std::path::Path;

use kinewatch_core::rollout::{Gates, Labels};
use kinewatch_ota::publish::{ChannelChange, Goes, PublishError, Quorum, Quorums, Reach, Role, Rotated};
use shop::{Device, ONE, Shop, days, keys, now, release, tiny, version};

/// One of their keys, with all the online ones, publishes nothing.
#[test]
fn where_two_must_sign_one_publishes_nothing() {
    let shop = Shop::new(Quorums { targets: Quorum { count: 2, threshold: 2 }, ..ONE });
    let device = Device::with(&shop.repo, 1);
    let second = shop.take("targets-2");
    let copy = shop.home.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(shop.keys.join("targets-1.key"), copy.join("targets-1.key")).unwrap();
    for (ring, what) in [(shop.ring(), "one"), (keys(&[&shop.keys, &copy]), "the same one twice")] {
        let error = shop.open().add(&tiny(), &ring, now()).unwrap_err();
        assert!(matches!(error, PublishError::Keys { role: Role::Targets, have: 1, need: 2, .. }), "{what}: {error}");
    }
    assert_eq!(device.read(&shop.server).unwrap(), []);
    // Who refreshes goes on without the other one, also when the list of files is old.
    shop.open().refresh(&shop.ring(), now() + days(50)).unwrap();

    shop.open().add(&tiny(), &keys(&[&shop.keys, &second]), now()).unwrap();
    assert_eq!(device.read(&shop.server).unwrap().len(), 1);
    let targets = |shop: &Shop| shop.open().status(&shop.ring()).unwrap().roles.remove(1);
    assert_eq!((targets(&shop).threshold, targets(&shop).keys.len()), (2, 2));
    // One is lost and replaced; two must sign still.
    let (_, rotated) = shop.open().rotate(Role::Targets, &Goes::Lost, &mut shop.ring(), now()).unwrap();
    assert_eq!(rotated, Rotated::Published { version: 2, reach: Reach::Published });
    assert_eq!((targets(&shop).threshold, targets(&shop).signed), (2, true));
    assert_eq!(device.read(&shop.server).unwrap().len(), 1);
    fs::remove_file(shop.keys.join("targets-1.key")).unwrap();
    let error = shop.open().add(&release(shop.home.path(), "1.1.0", "wave"), &shop.ring(), now()).unwrap_err();
    assert!(matches!(error, PublishError::Keys { have: 1, need: 2, .. }), "{error}");
}

#[test]
fn a_threshold_that_nobody_can_reach_is_refused() {
    use kinewatch_ota::publish::{Lifetimes, Repository};
    let home = tempfile::TempDir::new().unwrap();
    let (repo, dir) = (home.path().join("repo"), home.path().join("keys"));
    for (count, threshold) in [(0, 0), (2, 0), (2, 3), (17, 1)] {
        let quorums = Quorums { targets: Quorum { count, threshold }, ..ONE };
        let error = Repository::create(&repo, &dir, quorums, Lifetimes::default(), now()).unwrap_err();
        assert_eq!(error.to_string(), "targets needs 1 to 16 keys, and a threshold of 1 to as many");
    }
    assert!(!dir.exists() && !repo.exists());
}

fn edit(package: &Path, from: &str, to: &str) {
    let path = package.join("model.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// What consumers subscribe to is more than the names of what is scored; and what cannot be compared cannot agree.
#[test]
fn other_labels_are_declared_and_no_agreement_is_asked_of_what_cannot_be_compared() {
    let shop = Shop::new(ONE);
    let mut repository = shop.open();
    let silenced = release(shop.home.path(), "1.1.0", "wave");
    edit(&silenced, "name = \"wave\"\n", "name = \"wave\"\npublish = false\n");
    let sequence = "[[sequences]]\nname = \"greeting\"\nparts = [\"wave\", \"jump\"]\nwithin_s = 1.0\n\n[golden]\n";
    edit(&silenced, "[golden]\n", sequence);
    let wider = release(shop.home.path(), "1.2.0", "wave");
    edit(&wider, "width = 24", "width = 32");
    for package in [tiny(), silenced, wider] {
        repository.add(&package, &shop.ring(), now()).unwrap();
    }
    let mut set = |to: &str, labels_changed, gates: &Gates| {
        let change = ChannelChange { labels_changed, gates: Some(gates.clone()), ..ChannelChange::default() };
        let set = repository.set_channel("stable", "tiny-bright", &version(to), change, &shop.ring(), now());
        set.map(|(channel, _)| (channel.epoch, channel.labels)).map_err(|error| error.to_string())
    };
    let agree = Gates { shadow_windows: 20, shadow_agreement: Some(1.0), ..Gates::default() };
    assert_eq!(set("1.0.0", false, &agree), Ok((1, Labels::Same)));
    let on_none = Gates { shadow_windows: 0, ..agree.clone() };
    for (to, labels_changed, gates, expected) in [
        ("1.1.0", false, &agree, "1.0.0 publishes wave, jump; 1.1.0 publishes jump, greeting: devices refuse"),
        ("1.1.0", true, &agree, "its labels are others, so no device can compare the two"),
        ("1.2.0", false, &agree, "it reads other frames than 1.0.0, so no device can compare the two"),
        ("1.0.0", false, &on_none, "--shadow-agreement means nothing without --shadow-windows"),
    ] {
        let refused = set(to, labels_changed, gates).unwrap_err();
        assert!(refused.starts_with(expected), "{to}: {refused}");
    }
    assert_eq!(set("1.1.0", true, &Gates::default()), Ok((2, Labels::Changed)));
    let again = set("1.1.0", false, &Gates::default());
    assert_eq!(again, Ok((3, Labels::Changed)), "for other waves: a device that was away has the old labels still");
    assert_eq!(set("1.2.0", true, &Gates { shadow_windows: 20, ..Gates::default() }), Ok((4, Labels::Changed)));
    assert_eq!(set("1.2.0", true, &Gates::default()), Ok((5, Labels::Changed)));
}
