//! `kinewatch decode` over saved scores: what replay decided, what a simulated stream holds, and errors in one line.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use support::{kinewatch, root};

fn run(command: &str, arguments: &[&str]) -> Output {
    kinewatch().arg(command).args(arguments).current_dir(root()).output().unwrap()
}

/// Label, status and times of every event.
fn told(path: &Path) -> Vec<(String, String, i64, Option<i64>, i64)> {
    let event = |line: &str| {
        let data = &serde_json::from_str::<Value>(line).unwrap()["data"];
        let ns = |key: &str| data[key]["pts_ns"].as_i64();
        let word = |key: &str| data[key].as_str().unwrap().to_owned();
        (word("label"), word("status"), ns("start").unwrap(), ns("end"), ns("decided_at").unwrap())
    };
    std::fs::read_to_string(path).unwrap().lines().map(event).collect()
}

/// Scores of windows of `window_s`, every quarter of a second, of one action: from -3 to 3 as it fills the window.
fn scores(path: &Path, window_s: f64, (begin_s, end_s): (f64, f64)) {
    let mut text = String::from("time_s,action\n");
    for step in 1..=160 {
        let at = f64::from(step) * 0.25;
        let shown = (at.min(end_s) - (at - window_s).max(begin_s)).max(0.0) / window_s;
        text += &format!("{at:.2},{:.5}\n", 6.0 * shown - 3.0);
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn saved_scores_are_decided_as_in_replay() {
    let dir = tempfile::tempdir().unwrap();
    let [saved, replayed, decoded] = ["s.csv", "r.jsonl", "d.jsonl"].map(|name| dir.path().join(name));
    let [saved_name, replayed_name, decoded_name] = [&saved, &replayed, &decoded].map(|path| path.to_str().unwrap());
    let given = ["tests/data/room-1.mp4", "--model", "models/falls", "--scores", saved_name, "--events", replayed_name];
    let out = run("replay", &[&given[..], &["--backend", "tract"]].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let out = run("decode", &[saved_name, "--model", "models/falls", "--events", decoded_name]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let events = told(&decoded);
    assert!(events.iter().any(|event| event.0 == "fall"), "{events:?}");
    assert_eq!(events, told(&replayed));
}

#[test]
fn settings_alone_find_a_clean_action_within_a_stride() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("scores.csv");
    for (package, window_s) in [("simulated-short", 0.5), ("simulated-long", 2.0)] {
        scores(&saved, window_s, (10.1, 14.3));
        let model = format!("tests/data/{package}");
        let events = dir.path().join("events.jsonl");
        let out = run("decode", &[saved.to_str().unwrap(), "--model", &model, "--events", events.to_str().unwrap()]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(String::from_utf8_lossy(&out.stdout).contains("action"), "the table names the label");
        let told = told(&events);
        assert_eq!(told.iter().map(|event| event.1.as_str()).collect::<Vec<_>>(), ["started", "ended"]);
        let seconds = |ns: i64| ns as f64 / 1e9;
        assert!((seconds(told[1].2) - 10.1).abs() <= 0.25, "{package}: begins at {}", seconds(told[1].2));
        assert!((seconds(told[1].3.unwrap()) - 14.3).abs() <= 0.25, "{package}: ends at {:?}", told[1].3);
    }
}

#[test]
fn the_only_video_of_the_annotations_names_the_camera() {
    let dir = tempfile::tempdir().unwrap();
    let [saved, truth] = ["scores.csv", "truth.json"].map(|name| dir.path().join(name));
    scores(&saved, 0.5, (10.0, 14.0));
    let annotations = r#"{"database": {"hall.mp4": {"duration": 40, "annotations":
        [{"label": "action", "segment": [10.0, 14.0]}]}}}"#;
    std::fs::write(&truth, annotations).unwrap();
    let given = [saved.to_str().unwrap(), "--model", "tests/data/simulated-short", "--events", "-"];
    let camera = |more: &[&str]| {
        let out = run("decode", &[&given[..], more].concat());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let first = String::from_utf8(out.stdout).unwrap().lines().next().unwrap().to_owned();
        serde_json::from_str::<Value>(&first).unwrap()["data"]["camera"]["id"].as_str().unwrap().to_owned()
    };
    let truth = truth.to_str().unwrap();
    assert_eq!(camera(&[]), "scores");
    assert_eq!(camera(&["--truth", truth]), "hall");
    assert_eq!(camera(&["--camera", "Yard.2"]), "yard-2");
    let out = run("decode", &[&given[..], &["--truth", truth, "--camera", "yard"]].concat());
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("has no video yard"));
}

#[test]
fn what_cannot_be_decoded_gets_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("s.csv");
    scores(&saved, 0.5, (10.0, 14.0));
    let package = dir.path().join("package");
    std::fs::create_dir(&package).unwrap();
    let settings = std::fs::read_to_string(root().join("tests/data/simulated-short/model.toml")).unwrap();
    let fails = |settings: &str, message: &str| {
        std::fs::write(package.join("model.toml"), settings).unwrap();
        let out = run("decode", &[saved.to_str().unwrap(), "--model", package.to_str().unwrap()]);
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{text}");
        assert!(text.contains(message) && text.lines().count() == 1, "{text}");
    };
    fails(&settings.replace("name = \"action\"", "name = \"fall\""), "has no column fall, a label of simulated-short");
    fails(&settings.replace("on = 0.9426\noff", "on = 1.5\noff"), "on: 1.5 is outside");
    fails(&settings.replace("\"hmm\"", "\"guess\""), "unknown variant");
    fails(&settings.replace("stride_s = 0.25", "stride_s = 0.0"), "stride_s");
    fails(&settings.replace("stride_s = 0.25", "stride_s = 0.25\nstrides = 1"), "strides");
    fails(&settings.replace("stride_s", "background = \"nothing\"\nstride_s"), "background: `nothing` is not a label");
    for (rows, message) in [
        ("0.25,much\n", "s.csv:2: not a row of numbers"),
        ("0.25,NaN\n", "s.csv:2: not a row of numbers"),
        ("0.25,1.0\n0.25,1.0\n", "s.csv:3: not later than the row before"),
    ] {
        std::fs::write(&saved, format!("time_s,action\n{rows}")).unwrap();
        fails(&settings, message);
    }
}
