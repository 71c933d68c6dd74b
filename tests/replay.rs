//! `kinewatch replay` over real files: the same bytes twice, events that keep the promises, a table and a picture.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use support::{kinewatch, root};

fn replay(arguments: &[&str]) -> Output {
    kinewatch().arg("replay").args(arguments).args(["--backend", "tract"]).current_dir(root()).output().unwrap()
}

fn events(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn the_same_video_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str| {
        let path = dir.path().join(name);
        let out = replay(&["tests/data/room-1.mp4", "--model", "models/falls", "--events", path.to_str().unwrap()]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        std::fs::read(path).unwrap()
    };
    let first = run("a.jsonl");
    assert!(!first.is_empty(), "the clip with a fall gives events");
    assert_eq!(first, run("b.jsonl"));
}

#[test]
fn a_known_interval_is_found_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (path, scores, picture) = (dir.path().join("e.jsonl"), dir.path().join("s.csv"), dir.path().join("t.png"));
    let out = replay(&[
        "tests/data/bright.mp4",
        "--model",
        "tests/data/packages/tiny-bright",
        "--events",
        path.to_str().unwrap(),
        "--scores",
        scores.to_str().unwrap(),
        "--timeline",
        picture.to_str().unwrap(),
    ]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains("wave"), "the table names the label");
    let events = events(&path);
    let statuses: Vec<_> = events.iter().map(|e| e["data"]["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["started", "ended"]);
    let at = |key: &str| events[1]["data"][key]["pts_ns"].as_f64().unwrap() / 1e9;
    assert!((at("start") - 2.0).abs() <= 0.1, "begins at {}", at("start"));
    assert!((at("end") - 4.0).abs() <= 0.1, "ends at {}", at("end"));
    assert_eq!(events[1]["data"]["end_reason"], "boundary");
    let header = std::fs::read_to_string(&scores).unwrap();
    assert!(header.starts_with("time_s,wave,jump\n") && header.lines().count() == 61, "ten scores a second for 6 s");
    assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn events_fit_their_committed_schema() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e.jsonl");
    let out = replay(&[
        "tests/data/room-1.mp4",
        "tests/data/room-2.mp4",
        "--model",
        "models/falls",
        "--events",
        path.to_str().unwrap(),
    ]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let schema = std::fs::read_to_string(root().join("config/schema/action-event-1.json")).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let events = events(&path);
    assert!(!events.is_empty());
    for event in &events {
        if let Err(fault) = validator.validate(event) {
            panic!("{fault}\n{event:#}");
        }
    }
    let sequences: Vec<u64> = events.iter().map(|e| e["sequence"].as_str().unwrap().parse().unwrap()).collect();
    assert!(sequences.windows(2).all(|w| w[1] == w[0] + 1), "{sequences:?}");
    // Every action that started has ended, and nothing follows its end.
    let ended = |e: &&Value| e["data"]["status"] == "ended";
    let actions: std::collections::BTreeSet<_> = events.iter().map(|e| e["data"]["action_id"].to_string()).collect();
    assert_eq!(events.iter().filter(ended).count(), actions.len());
}

#[test]
fn a_model_with_boxes_looks_into_the_zones() {
    let dir = tempfile::tempdir().unwrap();
    let scores = |zones: &[&str]| {
        let path = dir.path().join("s.csv");
        let model = "tests/data/packages/tiny-boxes";
        let mut arguments = vec!["tests/data/shapes.mp4", "--model", model, "--scores", path.to_str().unwrap()];
        zones.iter().for_each(|zone| arguments.extend(["--zones", zone]));
        let out = replay(&arguments);
        assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
        std::fs::read_to_string(path).unwrap()
    };
    let (all, left) = (scores(&[]), scores(&["0,0,0.5,1"]));
    assert_ne!(all, left);
    assert_eq!(all, scores(&["0,0,1,1"]));
    assert_eq!(left, scores(&["0,0,0.5,1", "0,0,1,1"]));
    assert_ne!(left, scores(&["0,0,1,1", "0,0,0.5,1"]), "in the order given");
}

#[test]
fn every_inference_plan_replays() {
    for package in ["tiny-clip", "tiny-boxes", "tiny-clip-causal", "tiny-cached", "tiny-online"] {
        let dir = tempfile::tempdir().unwrap();
        let scores = dir.path().join("s.csv");
        let model = format!("tests/data/packages/{package}");
        let out = replay(&["tests/data/shapes.mp4", "--model", &model, "--scores", scores.to_str().unwrap()]);
        assert!(out.status.success(), "{package}: {}", String::from_utf8_lossy(&out.stderr));
        let rows = std::fs::read_to_string(&scores).unwrap().lines().count() - 1;
        // 2 s at 10 Hz: a score per frame, or per stride once the first window is full.
        assert!((4..=20).contains(&rows), "{package}: {rows} rows of scores");
    }
}

#[test]
fn every_architecture_replays() {
    let dir = tempfile::tempdir().unwrap();
    let packages = std::fs::read_dir(root().join("tests/data/packages")).unwrap();
    let names = packages.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let architectures: Vec<_> = names.filter(|name| !name.starts_with("tiny-")).collect();
    assert!(architectures.len() >= 16, "{architectures:?}");
    for package in architectures {
        let scores = dir.path().join(format!("{package}.csv"));
        let model = format!("tests/data/packages/{package}");
        let out = replay(&["tests/data/room-1.mp4", "--model", &model, "--scores", scores.to_str().unwrap()]);
        assert!(out.status.success(), "{package}: {}", String::from_utf8_lossy(&out.stderr));
        let text = std::fs::read_to_string(&scores).unwrap();
        let rows: Vec<&str> = text.lines().skip(1).collect();
        assert!(rows.len() >= 10, "{package}: {} rows of scores for 18 s", rows.len());
        assert!(!text.contains("NaN"), "{package}: {text}");
        let different = rows.iter().map(|row| row.split_once(',').unwrap().1).collect::<std::collections::HashSet<_>>();
        assert!(different.len() > 2, "{package}: the scores do not follow the picture");
    }
}
