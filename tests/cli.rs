//! The command line from outside: exit codes, what goes to which stream, and that every message helps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

fn kinewatch(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinewatch"));
    let output = command.env_remove("RUST_LOG").env_remove("JOURNAL_STREAM").args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn package(name: &str) -> String {
    format!("{}/../tests/data/packages/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn usage_errors_are_2_and_help_is_0() {
    for args in [&[][..], &["fly"], &["run", "--confg", "x"], &["replay", "--model", "x"], &["events", "tail"]] {
        let (code, out, err) = kinewatch(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.contains("Usage"), "{args:?}: {err}");
    }
    for args in [&["--help"][..], &["replay", "--help"], &["events", "table", "--help"]] {
        let (code, out, err) = kinewatch(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        assert!(out.contains("Examples:"), "{args:?}: {out}");
    }
}

#[test]
fn a_configuration_with_mistakes_is_78_and_all_of_them_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.toml");
    let name = path.to_str().unwrap();
    fs::write(&path, "[devise]\n[web]\nlistne = \"x\"\n").unwrap();
    for command in ["run", "check-config"] {
        let (code, out, err) = kinewatch(&[command, "--config", name]);
        assert_eq!((code, out.as_str()), (78, ""), "{command}: {err}");
        assert!(
            err.contains(&format!("{name}:1:2: unknown key `devise`")) && err.contains("did you mean `listen`"),
            "{err}"
        );
    }
    let (code, out, _) = kinewatch(&["check-config", "--json", "--config", name]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["ok"], &report["problems"][1]["line"]), (78, &false.into(), &3.into()));
    let (code, _, err) = kinewatch(&["run", "--config", "/nonexistent/k.toml"]);
    assert!(code == 78 && err.contains("no such file"), "{code} {err}");
}

#[test]
fn a_right_configuration_is_0() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.toml");
    let state = dir.path().join("state");
    let text = format!(
        "[device]\nstate_dir = {state:?}\n[[model]]\npath = {:?}\n[[camera]]\nname = \"front\"\nsource = \"test:\"\n",
        package("tiny-online")
    );
    fs::write(&path, text).unwrap();
    let (code, out, err) = kinewatch(&["check-config", "--config", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("camera   front: test:smpte, watched by tiny-online"), "{out}");
    assert!(!state.exists(), "checking leaves nothing behind");
}

#[test]
fn packages_are_described_and_checked() {
    let (code, out, err) = kinewatch(&["model", "info", &package("tiny-online"), "--json"]);
    let info: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &info["name"]), (0, &"tiny-online".into()), "{err}");
    let (code, out, err) = kinewatch(&["model", "check", &package("tiny-online"), "--backend", "tract"]);
    assert!(code == 0 && out.contains("tract cpu fp32") && out.contains(": ok"), "{code} {out} {err}");
    assert!(out.contains("convert, then scale, nearest: by 0."), "how far other scalers move the logits: {out}");
    let check = ["model", "check", &package("tiny-online"), "--backend", "tract", "--json", "--video", "/none.mp4"];
    let (code, _, err) = kinewatch(&check);
    assert!(code == 1 && err.contains("/none.mp4"), "{code} {err}");
    let (code, _, err) = kinewatch(&["model", "info", "/nonexistent"]);
    assert!(code == 1 && err.contains("no such model package"), "{err}");
    let (code, out, err) =
        kinewatch(&["model", "bench", &package("tiny-clip"), "--backend", "tract", "--seconds", "0.1"]);
    assert!(code == 0 && out.contains("ms per window"), "{out} {err}");
    for what in ["check", "bench"] {
        let (code, out, err) =
            kinewatch(&["model", what, &package("tiny-online"), "--backend", "tract", "--provider", "cuda"]);
        assert!(code == 1 && out.is_empty() && err.contains("nothing is left that runs on cuda"), "{out} {err}");
    }
}

/// On a library for the processor alone: what was asked for and is not there is a failure, and nothing else of it is shown.
#[test]
fn ways_to_run_a_model_are_those_that_are_here_or_were_asked_for() {
    let Some(library) = std::env::var_os("ORT_DYLIB_PATH").and_then(|path| path.into_string().ok()) else { return };
    let check = |more: &[&str]| {
        let name = package("tiny-online");
        let arguments =
            [&["model", "check", name.as_str(), "--ort-library", library.as_str(), "--json"][..], more].concat();
        let (code, out, err) = kinewatch(&arguments);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out} {err}"));
        (code, report)
    };
    let (code, report) = check(&["--provider", "cpu"]);
    assert_eq!((code, &report["ok"]), (0, &true.into()), "{report:#}");
    let ways = report["ways"].as_array().unwrap();
    let names: Vec<_> = ways.iter().map(|w| format!("{} {}", w["backend"], w["precision"]).replace('"', "")).collect();
    assert_eq!(names, ["tract fp32", "ort fp32", "ort int8"]);
    assert!(ways[0]["nodes"].as_object().unwrap().is_empty(), "{report:#}");
    assert!(ways[1]["nodes"]["cpu"].as_u64().is_some_and(|nodes| nodes > 0), "{report:#}");

    let state = tempfile::tempdir().unwrap();
    let (code, report) = check(&["--provider", "tensorrt", "--state-dir", state.path().to_str().unwrap()]);
    assert_eq!((code, &report["ok"], report["ways"].as_array().unwrap().len()), (1, &false.into(), 1), "{report:#}");
    assert_eq!(report["ways"][0]["way"], "ort tensorrt fp32");
    assert!(report["ways"][0]["error"].as_str().unwrap().contains("execution provider tensorrt cannot run it"));
}

#[test]
fn events_become_a_table_and_a_picture() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let event = |rev: u32, status: &str, end: &str, decided: f64| {
        format!(
            "kinewatch/v1/g/d/evt/room/fall\t{{\"data\":{{\"action_id\":\"a\",\"rev\":{rev},\"status\":\"{status}\",\"label\":\"fall\",\"start\":{{\"pts_ns\":2000000000}},{end}\"decided_at\":{{\"pts_ns\":{}}},\"confidence\":{{\"peak\":0.9}},\"camera\":{{\"id\":\"room\"}}}}}}\n",
            (decided * 1e9) as i64
        )
    };
    let lines = event(0, "started", "", 2.4)
        + &event(1, "ended", "\"end\":{\"pts_ns\":3000000000},\"end_reason\":\"boundary\",", 3.6);
    let events = write("events.jsonl", &lines);
    let truth = write(
        "truth.json",
        r#"{"database":{"room.mp4":{"duration":9.0,"annotations":[{"label":"fall","segment":[2.1,3.1]},{"label":"fall","segment":[6,7]}]}}}"#,
    );
    let scores = write("scores.csv", "time_s,falling\n0.2,-3\n2.2,3\n4.2,-3\n");
    let picture = dir.path().join("t.png");
    let args = [
        "events",
        "table",
        "--events",
        &events,
        "--truth",
        &truth,
        "--scores",
        &scores,
        "--timeline",
        picture.to_str().unwrap(),
    ];
    let (code, out, err) = kinewatch(&args);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("MISSED") && out.contains("fall: 1 of 2 found, 0 false"), "{out}");
    assert!(fs::metadata(&picture).unwrap().len() > 5_000);
    let other = write("notes.txt", "hello\n");
    let (code, _, err) = kinewatch(&["events", "table", "--events", &other]);
    assert!(code == 1 && err.contains("not an event"), "{err}");
}

#[test]
fn frames_are_what_numpy_reads() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("f.npy");
    let video = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/shapes.mp4");
    let (code, _, err) = kinewatch(&[
        "frames",
        video.to_str().unwrap(),
        "--size",
        "32x24",
        "--rate",
        "5",
        "--out",
        out.to_str().unwrap(),
    ]);
    assert_eq!(code, 0, "{err}");
    let times = fs::read_to_string(dir.path().join("f.times.csv")).unwrap();
    let frames = times.lines().count() - 1;
    assert!(frames > 3 && times.starts_with("time_s,session\n0.0"), "{times}");
    assert_eq!(fs::metadata(&out).unwrap().len(), 128 + frames as u64 * 32 * 24 * 3);
    let (code, _, err) =
        kinewatch(&["frames", "/nonexistent.mp4", "--size", "32x24", "--rate", "5", "--out", out.to_str().unwrap()]);
    assert!(code == 1 && err.contains("/nonexistent.mp4"), "{code} {err}");
}

#[test]
fn versions_and_completions_are_data_on_standard_output() {
    let (code, out, _) = kinewatch(&["version", "--json"]);
    let version: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &version["version"]), (0, &env!("CARGO_PKG_VERSION").into()));
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = kinewatch(&["completions", shell]);
        assert!(code == 0 && out.contains("check-config"), "{shell}");
    }
    let (code, out, err) = kinewatch(&["engine-probe", "/nonexistent.so"]);
    assert!(code == 1 && out.is_empty() && err.contains("/nonexistent.so"), "{err}");
}
