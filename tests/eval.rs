//! `kinewatch eval` over real files: known figures, the same whatever the number of jobs, a report that stands alone, and bad
//! input told in a line.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use support::{kinewatch, root};

fn eval(arguments: &[&str]) -> Output {
    kinewatch().arg("eval").args(arguments).args(["--backend", "tract"]).current_dir(root()).output().unwrap()
}

fn ok(arguments: &[&str]) -> (Value, String) {
    let out = eval(&[arguments, &["--json", "-"]].concat());
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success(), "{told}");
    (serde_json::from_slice(&out.stdout).unwrap(), told)
}

fn fails(arguments: &[&str], code: i32, message: &str) {
    let out = eval(arguments);
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(code) && told.contains(message), "{:?} {told}", out.status);
    assert!(out.stdout.is_empty() && told.lines().count() == 1, "{told}");
}

fn written(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const BRIGHT: [&str; 4] = ["--model", "tests/data/packages/tiny-bright", "--videos", "tests/data"];
const WAVE: &str = "video,label,start_s,end_s,duration_s\nbright.mp4,wave,2,4,6\n";

#[test]
fn a_known_interval_is_judged_alike_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let table = written(dir.path(), "t.csv", WAVE);
    let json = written(
        dir.path(),
        "t.json",
        r#"{"database": {"bright": {"duration": 6, "annotations": [{"label": "wave", "segment": [2, "4.0"]}]}}}"#,
    );
    let frames = dir.path().join("frames");
    std::fs::create_dir(&frames).unwrap();
    written(&frames, "bright.txt", &["background\n", "wave\n", "background\n"].map(|l| l.repeat(20)).concat());
    let of = |truth: &str| ok(&[&BRIGHT[..], &["--truth", truth, "--truth-fps", "10"]].concat()).0;
    let first = of(&table);
    let wave = &first["labels"]["wave"];
    for key in ["recall@0.3", "f1@0.7", "ap@0.3-0.7", "start_ap@0.25s"] {
        assert_eq!(wave[key]["value"], 1.0, "{key}");
    }
    let number = |key: &str| wave[key]["value"].as_f64().unwrap();
    assert!(number("start_error_s_p90") <= 0.1 && number("end_error_s_p90") <= 0.1, "{wave}");
    assert!((0.0..1.0).contains(&number("start_delay_s_median")), "{wave}");
    assert_eq!(
        (&wave["truth"], &wave["detections"], &wave["f1@0.7"]["interval"]),
        (&1.into(), &1.into(), &Value::Null)
    );
    assert!(first["system"]["frame_to_decision_ms"]["p95"].as_f64().unwrap() > 0.0);
    for other in [of(&json), of(frames.to_str().unwrap())] {
        assert_eq!(other["labels"], first["labels"]);
    }
}

#[test]
fn jobs_change_nothing_and_saved_scores_give_the_same_figures() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two, again] = ["one", "two", "again"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    let given = ["--model", "models/falls", "--truth", "tests/data/room.json", "--subset", "test"];
    let of = |more: &[&str]| ok(&[&given[..], more].concat()).0;
    let first = of(&["--videos", "tests/data", "--jobs", "1", "--report", &one]);
    let second = of(&["--videos", "tests/data", "--jobs", "2", "--report", &two]);
    for key in ["labels", "all", "trade_offs", "hours"] {
        assert_eq!(first[key], second[key], "{key}");
    }
    let bytes = |folder: &str, name: &str| std::fs::read(Path::new(folder).join(name)).unwrap();
    for name in ["events.jsonl", "scores/room-1.csv", "scores/room-2.csv"] {
        assert_eq!(bytes(&one, name), bytes(&two, name), "{name}");
    }
    let saved = format!("{one}/scores");
    let third = of(&["--from-scores", &saved, "--report", &again]);
    assert_eq!((&third["labels"], &third["trade_offs"]), (&first["labels"], &first["trade_offs"]));
    assert_eq!(third["system"], Value::Null);
    assert_eq!(first["labels"]["fall"]["found"], 2, "both falls are found");
    // The setting in use, decoded again, is what was measured.
    let points = first["trade_offs"]["fall"].as_array().unwrap();
    let used: Vec<&Value> = points.iter().filter(|p| p["in_use"] == true).collect();
    assert_eq!(used.len(), 2);
    for point in used {
        assert_eq!(point["f1@0.5"], first["labels"]["fall"]["f1@0.5"]["value"]);
        assert_eq!(point["start_delay_s_median"], first["labels"]["fall"]["start_delay_s_median"]["value"]);
    }
}

#[test]
fn the_report_stands_alone_and_escapes_what_files_are_called() {
    let dir = tempfile::tempdir().unwrap();
    let nasty = "a<b onload=x>&'.mp4";
    std::fs::copy(root().join("tests/data/bright.mp4"), dir.path().join(nasty)).unwrap();
    std::fs::copy(root().join("tests/data/shapes.mp4"), dir.path().join("shapes.mp4")).unwrap();
    let rows = format!("video,label,start_s,end_s,duration_s\n{nasty},wave,2,4,6\nshapes.mp4,,,,2\n");
    let truth = written(dir.path(), "t.csv", &rows);
    let report = dir.path().join("report");
    let videos = dir.path().to_str().unwrap();
    let given = ["--model", BRIGHT[1], "--videos", videos, "--truth", &truth, "--report", report.to_str().unwrap()];
    let (figures, _) = ok(&given);
    assert_eq!(figures["videos"], 2);
    let page = std::fs::read_to_string(report.join("index.html")).unwrap();
    assert!(page.contains("a&lt;b onload=x&gt;&amp;") && !page.contains("<b onload"));
    for outside in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("default-src 'none'") && page.matches("<figure").count() == 2);
    let kept: Value = serde_json::from_slice(&std::fs::read(report.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(kept, figures);
}

#[test]
fn odd_annotations_have_a_defined_result() {
    let dir = tempfile::tempdir().unwrap();
    let with = |name: &str, rows: &str| {
        let truth = written(dir.path(), name, &format!("video,label,start_s,end_s,duration_s\n{rows}"));
        ok(&[&BRIGHT[..], &["--truth", &truth]].concat())
    };
    let (figures, told) = with("two.csv", "bright.mp4,wave,2,4,6\nbright.mp4,wave,3,9,6\n");
    assert!(told.contains("overlap another of the same label") && told.contains("reach beyond the end"), "{told}");
    assert_eq!((&figures["labels"]["wave"]["truth"], &figures["labels"]["wave"]["found"]), (&2.into(), &1.into()));
    let (figures, told) = with("none.csv", "bright.mp4,,,,6\n");
    let wave = &figures["labels"]["wave"];
    assert_eq!(
        (&wave["detections"], &wave["ap@0.5"]["value"], &wave["f1@0.5"]["value"]),
        (&1.into(), &Value::Null, &0.0.into())
    );
    assert!((wave["false_per_hour"]["value"].as_f64().unwrap() - 600.0).abs() < 1e-6 && told.is_empty(), "{told}");
    let (figures, _) = with("short.csv", "shapes.mp4,wave,0.5,1,\n");
    assert!(figures["hours"].as_f64().unwrap() > 0.0, "the length is measured where it is not stated");
}

#[test]
fn a_video_without_any_detection_is_missed_and_not_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String = (1..=40).map(|n| format!("{:.2},-3\n", f64::from(n) * 0.25)).collect();
    written(dir.path(), "any.hall.csv", &format!("time_s,action\n{rows}"));
    let truth = tempfile::tempdir().unwrap();
    let truth = written(truth.path(), "t.csv", "video,label,start_s,end_s\nhall.mp4,action,2,4\n");
    let given =
        ["--model", "tests/data/simulated-short", "--truth", &truth, "--from-scores", dir.path().to_str().unwrap()];
    let (figures, told) = ok(&given);
    let action = &figures["labels"]["action"];
    assert_eq!((&action["detections"], &action["recall@0.3"]["value"]), (&0.into(), &0.0.into()));
    assert_eq!((&action["ap@0.5"]["value"], &action["start_error_s_median"]["value"]), (&0.0.into(), &Value::Null));
    assert!(told.is_empty() && (figures["hours"].as_f64().unwrap() - 10.0 / 3600.0).abs() < 1e-9, "{told}");
    let out = eval(&given);
    assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).contains("– / –"), "a dash where nothing is");
}

#[test]
fn what_cannot_be_judged_gets_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let rows = format!("{WAVE}gone-1.mp4,wave,1,2,\ngone-2.mp4,wave,1,2,\n");
    let gone = written(dir.path(), "gone.csv", &rows);
    let given = |truth: &str, more: &[&str]| {
        let mut all: Vec<String> =
            BRIGHT.iter().chain(&["--truth", truth]).chain(more).map(|s| (*s).to_owned()).collect();
        all.shrink_to_fit();
        all
    };
    let told = |truth: &str, more: &[&str], code: i32, message: &str| {
        fails(&given(truth, more).iter().map(String::as_str).collect::<Vec<_>>(), code, message);
    };
    told(&gone, &[], 1, "2 of 3 annotated videos are not in tests/data: gone-1.mp4, gone-2.mp4; --skip-missing");
    let (figures, left_out) = ok(&[&BRIGHT[..], &["--truth", &gone, "--skip-missing"]].concat());
    assert!(figures["videos"] == 1 && left_out.contains("left out"), "{left_out}");
    let truth = written(dir.path(), "t.csv", WAVE);
    told(&truth, &["--subset", "val"], 2, "no video is of subset val");
    told(&truth, &["--label", "jmup"], 2, "--label jmup: tiny-bright reports");
    told(&written(dir.path(), "notes.txt", "hello\n"), &[], 1, "not annotations");
    told(dir.path().to_str().unwrap(), &[], 1, "--truth-fps");
    told("/nonexistent.json", &[], 1, "/nonexistent.json");
    let other = written(dir.path(), "o.csv", "video,label,start_s,end_s\nbright.mp4,sit,1,2\n");
    told(&other, &[], 2, "no label in common");
    told(&written(dir.path(), "e.json", r#"{"database": {}}"#), &[], 1, "names no video");
    let broken = tempfile::tempdir().unwrap();
    written(broken.path(), "x.mp4", "hello\n");
    let table = written(broken.path(), "x.csv", "video,label,start_s,end_s\nx.mp4,wave,1,2\n");
    let unplayable = ["--model", BRIGHT[1], "--videos", broken.path().to_str().unwrap(), "--truth", &table];
    let out = eval(&unplayable);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(1) && out.stdout.is_empty() && said.contains("x.mp4"), "{said}");
    let no_scores = ["--model", BRIGHT[1], "--truth", &truth, "--from-scores", dir.path().to_str().unwrap()];
    fails(&no_scores, 1, "1 of 1 annotated videos are not in");
}
