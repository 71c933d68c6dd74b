//! What the device remembers, and what it cannot be made to forget.

use kinewatch_core::rollout::Code;
use kinewatch_ota::tuf::{Anchor, Client, Clock, Floors, Options, Refused};

use crate::lab::Lab;
use crate::repository::Repository;

/// Serves version 3, lets the device see it, and serves version 2 again.
async fn rolled_back() -> Lab {
    let mut lab = Lab::new().await;
    let old = lab.repository.clone();
    lab.repository.publish_all();
    lab.serve();
    lab.update().await.unwrap();
    assert_eq!(lab.floors.timestamp, 3);
    lab.repository = old;
    lab.serve();
    lab
}

#[tokio::test]
async fn floors_given_by_the_caller_hold_when_all_metadata_is_lost() {
    let mut lab = rolled_back().await;
    std::fs::remove_dir_all(lab.metadata()).unwrap();
    assert_eq!(lab.code().await, Code::TimestampRollback);
    // They are kept beside the metadata from then on; without both, nothing is left to tell.
    lab.floors = Floors::default();
    assert_eq!(lab.code().await, Code::TimestampRollback);
    std::fs::remove_dir_all(lab.metadata()).unwrap();
    lab.update().await.unwrap();
}

#[tokio::test]
async fn floors_kept_beside_the_metadata_hold_when_files_are_torn() {
    for torn in ["timestamp.json", "snapshot.json", "targets.json"] {
        let mut lab = rolled_back().await;
        lab.floors = Floors::default();
        let path = lab.metadata().join(torn);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(lab.code().await, Code::TimestampRollback, "{torn}");
    }
}

#[tokio::test]
async fn metadata_holds_when_the_floors_are_torn() {
    let mut lab = rolled_back().await;
    lab.floors = Floors::default();
    std::fs::write(lab.metadata().join("floors"), "{\"anchor\":").unwrap();
    assert_eq!(lab.code().await, Code::TimestampRollback);
}

#[tokio::test]
async fn torn_metadata_is_fetched_again() {
    for torn in ["root.json", "timestamp.json", "snapshot.json", "targets.json", "floors"] {
        let mut lab = Lab::new().await;
        std::fs::write(lab.metadata().join(torn), "{").unwrap();
        lab.update().await.unwrap_or_else(|fault| panic!("{torn}: {fault}"));
    }
}

/// The device has followed the root to version 2, in which key 20 has replaced key 0.
async fn rotated() -> Lab {
    let mut lab = Lab::new().await;
    lab.repository.keys("root", 1, &[20]);
    lab.repository.signers.insert("root".to_owned(), vec![0, 20]);
    lab.repository.publish(&["root"]);
    lab.repository.publish_all();
    lab.serve();
    lab.update().await.unwrap();
    assert_eq!(lab.floors.root, 2);
    lab
}

#[tokio::test]
async fn the_newest_root_is_the_anchor_after_a_restart() {
    let mut lab = rotated().await;
    // Whoever found the old root key makes a root 2 of his own, with keys of his own.
    let mut theirs = Repository::new();
    for (role, seed) in [("targets", 61), ("snapshot", 62), ("timestamp", 63)] {
        theirs.keys(role, 1, &[seed]);
        theirs.set(role, "version", 10);
    }
    theirs.publish(&["root", "targets", "snapshot", "timestamp"]);
    lab.server.serve(&theirs.files);
    assert_eq!(lab.code().await, Code::BelowThreshold);
    assert!(!lab.server.with(|s| s.requests.contains(&"metadata/2.root.json".to_owned())));
}

#[tokio::test]
async fn a_lost_root_is_found_again_from_the_anchor_but_no_older_one_is_taken() {
    let mut lab = rotated().await;
    std::fs::remove_dir_all(lab.metadata()).unwrap();
    let honest = lab.repository.clone();
    lab.repository.files.remove("metadata/2.root.json");
    lab.serve();
    assert_eq!(lab.code().await, Code::RootRollback);
    lab.repository = honest;
    lab.serve();
    lab.update().await.unwrap();
}

#[tokio::test]
async fn another_anchor_begins_anew() {
    let mut lab = rotated().await;
    // All root keys are lost: a repository with new keys from version 1 on, and its root brought to the device by hand.
    let mut new = Repository::new();
    for (seed, role) in [(70, "root"), (71, "targets"), (72, "snapshot"), (73, "timestamp")] {
        new.keys(role, 1, &[seed]);
        new.set(role, "version", 0);
    }
    new.signed.get_mut("targets").unwrap()["targets"] = lab.repository.signed["targets"]["targets"].clone();
    new.publish(&["root", "targets", "snapshot", "timestamp"]);
    new.files.extend(
        lab.repository.files.iter().filter(|(p, _)| p.starts_with("targets/")).map(|(p, b)| (p.clone(), b.clone())),
    );
    lab.repository = new;
    lab.serve();
    lab.update().await.unwrap();
    assert_eq!((lab.floors.root, lab.floors.timestamp), (1, 1));
}

#[tokio::test]
async fn a_newer_root_of_the_same_repository_as_anchor_keeps_the_floors() {
    let mut lab = rotated().await;
    let old = lab.repository.clone();
    lab.repository.publish_all();
    lab.serve();
    lab.update().await.unwrap();
    let newer = lab.repository.files["metadata/2.root.json"].clone();
    lab.server.serve(&old.files);
    let mut client = Client::open(Options { anchor: Anchor::File(newer), ..lab.options() }).unwrap();
    assert_eq!(lab.update_with(&mut client).await.unwrap_err().code, Code::TimestampRollback);
}

#[tokio::test]
async fn an_unusable_anchor_is_told_without_a_request() {
    let lab = Lab::fresh().await;
    let spoilt = String::from_utf8(lab.repository.anchor()).unwrap().replace("2030", "2031").into_bytes();
    for anchor in [Anchor::File(b"{}".to_vec()), Anchor::File(spoilt), Anchor::Stored] {
        let refused = Client::open(Options { anchor, ..lab.options() }).unwrap_err();
        assert_eq!(refused.code(), Code::AnchorInvalid, "{refused}");
    }
}

#[tokio::test]
async fn without_a_right_clock_nothing_is_asked_and_nothing_refused() {
    let lab = Lab::new().await;
    lab.serve();
    let refused = lab.client().refresh(Clock::Unsynchronised, &lab.floors).await.unwrap_err();
    assert_eq!(refused, Refused::Clock);
    assert!(lab.server.with(|s| s.requests.is_empty()));
}

#[tokio::test]
async fn a_clock_that_was_ten_years_off_locks_nobody_out() {
    let mut lab = Lab::new().await;
    let right = lab.now;
    for years in [10, -10] {
        lab.now = right + jiff::Span::new().hours(years * 365 * 24);
        let outcome = lab.update().await;
        assert_eq!(outcome.is_err(), years > 0, "ahead, all has expired");
        lab.now = right;
        lab.update().await.unwrap();
    }
}

#[tokio::test]
async fn the_store_holds_what_was_received_and_nothing_else() {
    let lab = Lab::new().await;
    let mut names: Vec<_> =
        std::fs::read_dir(lab.metadata()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["floors", "root.json", "snapshot.json", "targets.json", "timestamp.json"]);
    let stored = std::fs::read(lab.metadata().join("timestamp.json")).unwrap();
    assert_eq!(stored, lab.repository.files["metadata/timestamp.json"]);
    assert!(std::fs::read_dir(lab.folder.path().join("parts")).unwrap().next().is_none(), "no part is left");
}
