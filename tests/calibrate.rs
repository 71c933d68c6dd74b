//! `kinewatch calibrate`: settings from annotated scores are better than wrong ones, and hold on scores not seen.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use support::{kinewatch, root};

/// Strides a second.
const HZ: f64 = 4.0;
const WRONG: &str = r#"# Settings for another net.
format = 1
name = "wrong"
version = "1.2.3"
stride_s = 0.25

[[labels]]
name = "action" # kept
[labels.decoder]
kind = "cusum"
on = 0.99
off = 0.97
h_on = 4.0
h_off = 0.2
uncertainty_start_ms = 10.0
uncertainty_end_ms = 10.0
"#;

fn run(command: &str, arguments: &[&str]) -> Output {
    kinewatch().arg(command).args(arguments).current_dir(root()).output().unwrap()
}

/// Videos of five minutes with an action every ten seconds or so: a folder of scores, and a table of what is true.
/// Scores look back over a second, with noise.
fn scores(folder: &Path, seed: u64, videos: usize) -> (String, String) {
    let mut state = seed;
    let mut uniform = move || {
        // SplitMix64 (Steele et al. 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut truth = String::from("video,label,start_s,end_s,duration_s\n");
    for video in 0..videos {
        let mut actions = Vec::new();
        let mut now = 4.0;
        while now < 290.0 {
            let length = 1.5 + 4.0 * uniform();
            actions.push((now, now + length));
            now += length + 3.0 + 8.0 * uniform();
        }
        let mut csv = String::from("time_s,action\n");
        for step in 1..(300.0 * HZ) as usize {
            let at = step as f64 / HZ;
            let filled: f64 = actions.iter().map(|(s, e)| (e.min(at) - s.max(at - 1.0)).max(0.0)).sum();
            let noise = 1.2 * (uniform() + uniform() + uniform() + uniform() - 2.0) * 3f64.sqrt();
            writeln!(csv, "{at:.2},{:.4}", -2.5 + 5.0 * filled + noise).unwrap();
        }
        std::fs::write(folder.join(format!("v{video}.csv")), csv).unwrap();
        for (start, end) in actions.iter().filter(|(_, end)| *end < 299.0) {
            writeln!(truth, "v{video}.mp4,action,{start:.3},{end:.3},300").unwrap();
        }
    }
    let table = folder.join("truth.table");
    std::fs::write(&table, truth).unwrap();
    (folder.to_str().unwrap().to_owned(), table.to_str().unwrap().to_owned())
}

/// Figures of `action`.
fn judged(model: &str, scores: &(String, String)) -> Value {
    let out = run("eval", &["--model", model, "--from-scores", &scores.0, "--truth", &scores.1, "--json", "-"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice::<Value>(&out.stdout).unwrap()["labels"]["action"].clone()
}

fn value(figures: &Value, key: &str) -> f64 {
    figures[key]["value"].as_f64().unwrap()
}

#[test]
fn settings_for_another_net_become_right_and_hold_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let (seen, fresh) = (scores(&folder("seen"), 1, 3), scores(&folder("fresh"), 2, 3));
    let package = folder("package");
    std::fs::write(package.join("model.toml"), WRONG).unwrap();
    std::fs::write(package.join("note.txt"), "goes along").unwrap();
    let (package, tuned) = (package.to_str().unwrap(), dir.path().join("tuned"));
    let tuned = tuned.to_str().unwrap();
    let arguments = ["--model", package, "--from-scores", &seen.0, "--truth", &seen.1, "--out", tuned];
    let out = run("calibrate", &arguments);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));

    let (before, after) = (judged(package, &fresh), judged(tuned, &fresh));
    assert!(value(&before, "f1@0.5") < 0.8 && value(&after, "f1@0.5") > 0.93, "{before} {after}");
    assert!(value(&after, "start_error_s_median") < 0.2 && value(&after, "end_error_s_median") < 0.2, "{after}");
    for edge in ["start", "end"] {
        let covered = value(&after, &format!("{edge}_covered"));
        assert!((0.82..=0.97).contains(&covered), "nine of ten {edge}s are to lie within what is stated: {covered}");
    }
    let written = std::fs::read_to_string(Path::new(tuned).join("model.toml")).unwrap();
    assert!(written.contains("# Settings for another net.") && written.contains("# kept"), "{written}");
    assert!(written.contains("version = \"1.2.3+calibrated\""), "{written}");
    assert!(Path::new(tuned).join("note.txt").exists());
    let report = std::fs::read_to_string(Path::new(tuned).join("CALIBRATION.md")).unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap().trim(), report.trim());
    for part in ["before", "after, seen", "after, left out", "hysteresis", "cusum", "hmm"] {
        assert!(report.contains(part), "{part}: {report}");
    }

    let again = dir.path().join("again");
    let mut arguments = arguments;
    arguments[7] = again.to_str().unwrap();
    assert!(run("calibrate", &arguments).status.success());
    assert_eq!(
        std::fs::read_to_string(again.join("model.toml")).unwrap(),
        written,
        "the same scores, the same settings"
    );
}

#[test]
fn uncertainties_alone_leave_every_decision_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let seen = scores(dir.path(), 7, 2);
    let out = dir.path().join("out");
    let model = ["--model", "tests/data/simulated-short", "--from-scores", &seen.0, "--truth", &seen.1];
    let only = ["--only-uncertainty", "--out", out.to_str().unwrap()];
    assert!(run("calibrate", &[&model[..], &only[..]].concat()).status.success());
    let (before, after) = (judged("tests/data/simulated-short", &seen), judged(out.to_str().unwrap(), &seen));
    for key in ["f1@0.5", "start_error_s_median", "end_delay_s_median", "false_per_hour"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    assert!(
        value(&after, "start_covered") >= 0.88 && value(&after, "start_covered") >= value(&before, "start_covered")
    );
}

#[test]
fn a_budget_of_false_alarms_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let seen = scores(dir.path(), 5, 2);
    let tuned = |name: &str, budget: &str| {
        let out = dir.path().join(name);
        let model =
            ["--model", "tests/data/simulated-short", "--from-scores", &seen.0, "--truth", &seen.1, "--folds", "0"];
        let objective = ["--objective", "latency", "--false-per-day", budget, "--out", out.to_str().unwrap()];
        assert!(run("calibrate", &[&model[..], &objective[..]].concat()).status.success());
        judged(out.to_str().unwrap(), &seen)
    };
    let (strict, loose) = (tuned("strict", "0"), tuned("loose", "2000"));
    assert!(value(&strict, "false_per_hour") == 0.0, "{strict}");
    assert!(value(&loose, "start_delay_s_median") < value(&strict, "start_delay_s_median"), "{loose} {strict}");
    assert!(value(&loose, "false_per_hour") * 24.0 <= 2000.0, "{loose}");
}

#[test]
fn what_cannot_be_calibrated_gets_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let seen = scores(dir.path(), 3, 1);
    let none = dir.path().join("none.csv");
    std::fs::write(&none, "video,label,start_s,end_s,duration_s\nv0.mp4,,,,300\n").unwrap();
    let fails = |truth: &str, out: &str, code: i32, message: &str| {
        let model = "tests/data/simulated-short";
        let out = run("calibrate", &["--model", model, "--from-scores", &seen.0, "--truth", truth, "--out", out]);
        let told = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(code) && told.contains(message), "{:?} {told}", out.status);
        assert_eq!(told.lines().count(), 1, "{told}");
    };
    let fresh = dir.path().join("out");
    fails(&seen.1, "tests/data", 2, "tests/data: is not empty; name another directory");
    fails(none.to_str().unwrap(), fresh.to_str().unwrap(), 1, "no action to learn from");
    let inside = root().join("tests/data/simulated-short/out");
    fails(&seen.1, inside.to_str().unwrap(), 2, "lies within --model");
    assert!(fresh.read_dir().unwrap().next().is_none(), "nothing is written");
}
