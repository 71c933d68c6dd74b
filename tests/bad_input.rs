//! Bad input from outside: each kind gets one clear line, the right exit code, and nothing else breaks.
//!
//! Configuration mistakes have their own table beside the parser; here are media, models, libraries, ports and disks. With
//! `--nocapture` the messages are printed as a table.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::candidates::copy;
use support::{Broker, Daemon, RtspServer, free_port, kinewatch, root};

/// Exit code and standard error of a command.
fn outcome(command: &mut Command) -> (i32, String) {
    let out = command.current_dir(root()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    (out.status.code().unwrap_or(-1), text)
}

/// One line of standard error says so, in these words, and the exit code is right.
fn refused(what: &str, command: &mut Command, code: i32, words: &[&str]) {
    let (found, text) = outcome(command);
    println!("| {what} | {found} | {} |", text.trim().replace('\n', " ⏎ "));
    assert_eq!(found, code, "{what}: {text}");
    assert_eq!(text.trim().lines().count(), 1, "{what}: {text}");
    for word in words {
        assert!(text.contains(word), "{what}: no {word:?} in: {text}");
    }
}

fn replay(video: &Path, model: &str) -> Command {
    let mut command = kinewatch();
    command.arg("replay").arg(video).args(["--model", model, "--backend", "tract"]);
    command
}

const BRIGHT: &str = "tests/data/packages/tiny-bright";

#[test]
fn videos() {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new("sh").arg(root().join("tests/data/bad-media.sh")).arg(dir.path()).status().unwrap();
    assert!(made.success());
    let of = |name: &str| dir.path().join(name);
    refused("no such file", &mut replay(&of("none.mp4"), BRIGHT), 1, &["none.mp4", "No such file"]);
    refused("empty file", &mut replay(&of("empty.mp4"), BRIGHT), 1, &["empty.mp4"]);
    refused("not a video", &mut replay(&of("text.mp4"), BRIGHT), 1, &["text.mp4"]);
    refused("no video track", &mut replay(&of("no-video-track.mp4"), BRIGHT), 1, &["no-video-track.mp4", "video"]);
    let unusual =
        ["one-frame", "portrait", "4k", "odd-stride", "rotated", "variable-rate", "mpeg4"].map(|n| format!("{n}.mp4"));
    for good in unusual.into_iter().chain(["vp8.mkv".into()]) {
        let (code, text) = outcome(&mut replay(&of(&good), BRIGHT));
        println!("| {good} | {code} | {} |", text.trim());
        assert_eq!(code, 0, "{good}: {text}");
    }
    for broken in ["resolution-changes.ts", "codec-changes.ts", "truncated.mp4"] {
        // Played as far as it goes, or refused: never a panic, never a hang.
        let (code, text) = outcome(&mut replay(&of(broken), BRIGHT));
        println!("| {broken} | {code} | {} |", text.trim());
        assert!(code == 0 || (code == 1 && text.contains(broken)), "{broken}: {code} {text}");
    }
}

/// A copy of a package that a test may break.
fn copy_of(package: &str, to: &Path) -> PathBuf {
    copy(&root().join(package), &to.join("package"))
}

#[test]
fn packages() {
    let video = PathBuf::from("tests/data/shapes.mp4");
    let with = |package: &Path| replay(&video, package.to_str().unwrap());
    refused("missing package", &mut replay(&video, "nowhere"), 1, &["nowhere"]);

    let dir = tempfile::tempdir().unwrap();
    let package = copy_of(BRIGHT, dir.path());
    fs::remove_file(package.join("tiny.fp32.onnx")).unwrap();
    refused("missing graph", &mut with(&package), 1, &["tiny.fp32.onnx"]);

    let dir = tempfile::tempdir().unwrap();
    let package = copy_of(BRIGHT, dir.path());
    let graph = fs::read(package.join("tiny.fp32.onnx")).unwrap();
    fs::write(package.join("tiny.fp32.onnx"), &graph[..graph.len() / 2]).unwrap();
    refused("truncated graph", &mut with(&package), 1, &["tiny.fp32.onnx"]);

    let dir = tempfile::tempdir().unwrap();
    let package = copy_of(BRIGHT, dir.path());
    fs::write(package.join("labels.txt"), "background\nwave\nrun\n").unwrap();
    refused("labels that do not match", &mut with(&package), 1, &["labels.txt"]);

    let dir = tempfile::tempdir().unwrap();
    let package = copy_of(BRIGHT, dir.path());
    fs::write(package.join("model.toml"), "format = 1\nnam = \"x\"\n").unwrap();
    refused("unknown key in the manifest", &mut with(&package), 1, &["nam", "name"]);

    refused(
        "NaN output",
        &mut replay(&PathBuf::from("tests/data/bright.mp4"), "tests/data/packages/tiny-nan"),
        1,
        &["tiny-nan"],
    );
}

/// A package that needs ONNX Runtime is refused where that is not to be had, before its graph is opened.
#[test]
fn packages_that_need_onnx_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let package = copy_of(BRIGHT, dir.path());
    let manifest = package.join("model.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let requires = "[requires]\nbackend = \"ort\"\nbecause = \"tract has no operator RoiAlign\"\n[input]";
    fs::write(&manifest, text.replacen("[input]", requires, 1)).unwrap();
    let name = package.to_str().unwrap();
    let config = |backend: &str| {
        let text = DEVICE.replace("ROOT/tests/data/packages/tiny-bright", name).replace("\"tract\"", backend);
        config(dir.path(), &format!("{text}[web]\nlisten = \"off\"\n[[camera]]\nname = \"c\"\nsource = \"test:\"\n"))
    };
    for (backend, missing) in
        [("tract", "backend is \"tract\""), ("auto", "no usable library was found"), ("ort", "none.so: cannot be read")]
    {
        let path = config(&format!("\"{backend}\""));
        let words = [
            "needs ONNX Runtime (tract has no operator RoiAlign)",
            missing,
            "install ONNX Runtime",
            "kinewatch.toml:8:8",
        ];
        for command in ["check-config", "run"] {
            let mut command = kinewatch_without_ort(command);
            refused(backend, command.arg("--config").arg(&path), 78, &words);
        }
        if backend == "ort" {
            continue;
        }
        let words = &words[..3];
        let mut replay = kinewatch_without_ort("replay");
        refused(backend, replay.args(["tests/data/bright.mp4", "--model", name, "--backend", backend]), 1, words);
        for what in ["check", "bench"] {
            refused(backend, kinewatch_without_ort("model").args([what, name, "--backend", backend]), 1, words);
        }
    }
    let info = kinewatch().args(["model", "info", name]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&info.stdout).contains("needs         ONNX Runtime: tract has no operator RoiAlign")
    );
}

fn kinewatch_without_ort(command: &str) -> Command {
    let mut kinewatch = kinewatch();
    kinewatch.env("ORT_DYLIB_PATH", "/nonexistent/none.so").arg(command);
    kinewatch
}

#[test]
fn a_graph_with_an_operator_that_tract_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let package = copy_of("tests/data/packages/tiny-nan", dir.path());
    let (graph, manifest) = (package.join("tiny.fp32.onnx"), package.join("model.toml"));
    let whole = fs::read(&graph).unwrap();
    // The field op_type of the node `Log`.
    let at = whole.windows(5).position(|w| w == b"\x22\x03Log").unwrap();
    let mut bytes = whole.clone();
    bytes[at + 2..at + 5].copy_from_slice(b"Lag");
    fs::write(&graph, &bytes).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    let (old, new) = (sha256(&whole), sha256(&bytes));
    assert!(text.contains(&old));
    fs::write(&manifest, text.replace(&old, &new)).unwrap();
    let name = package.to_str().unwrap();
    let words = ["tiny.fp32.onnx: tract has no operator Lag; run it on ONNX Runtime"];
    refused("unknown operator", &mut replay(&PathBuf::from("tests/data/shapes.mp4"), name), 1, &words);
    let text = DEVICE.replace("ROOT/tests/data/packages/tiny-bright", name);
    let text = format!("{text}[web]\nlisten = \"off\"\n[[camera]]\nname = \"c\"\nsource = \"test:\"\n");
    // The broker, which is not there, has lines of its own.
    let (code, told) = outcome(&mut run(&config(dir.path(), &text)));
    assert_eq!((code, told.lines().filter(|line| line.contains(words[0])).count()), (1, 1), "{told}");
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn zones() {
    let boxes = "tests/data/packages/tiny-boxes";
    let with = |model: &str, zones: &[&str]| {
        let mut command = replay(&PathBuf::from("tests/data/shapes.mp4"), model);
        zones.iter().for_each(|zone| {
            command.args(["--zones", zone]);
        });
        command
    };
    let all = "0,0,1,1";
    refused("too many zones", &mut with(boxes, &[all, all, all]), 2, &["there are 3, model tiny-boxes takes 2"]);
    refused(
        "zones for nobody",
        &mut with(BRIGHT, &[all]),
        0,
        &["--zones is of no use, model tiny-bright takes no boxes"],
    );
    for (zone, words) in [
        ("0,0,1", "write four numbers"),
        ("0,0,1,1,", "write four numbers"),
        ("0,0,640,480", "x1 = 640 is outside 0 to 1"),
        ("0.5,0,0.1,1", "x0 = 0.5 is not below x1 = 0.1"),
    ] {
        let (code, text) = outcome(&mut with(boxes, &[zone]));
        assert!(code == 2 && text.contains(words), "{zone}: {code} {text}");
    }
}

#[test]
fn onnx_runtime_libraries() {
    let dir = tempfile::tempdir().unwrap();
    let with = |library: &Path| {
        let mut command = kinewatch();
        command
            .args(["replay", "tests/data/shapes.mp4", "--model", BRIGHT, "--backend", "ort", "--ort-library"])
            .arg(library);
        command
    };
    let missing = dir.path().join("libonnxruntime.so");
    refused("library missing", &mut with(&missing), 1, &["libonnxruntime.so"]);
    fs::write(&missing, "not a library").unwrap();
    refused("library not a library", &mut with(&missing), 1, &["libonnxruntime.so"]);
    let libc =
        fs::read("/lib/x86_64-linux-gnu/libc.so.6").or_else(|_| fs::read("/lib/aarch64-linux-gnu/libc.so.6")).unwrap();
    fs::write(&missing, &libc).unwrap();
    refused("library of something else", &mut with(&missing), 1, &["libonnxruntime.so"]);
    fs::write(&missing, &libc[..libc.len() / 3]).unwrap();
    refused("library cut short", &mut with(&missing), 1, &["libonnxruntime.so"]);
    let mut other = libc.clone();
    // The machine field of the ELF header: SPARC.
    other[18] = 2;
    fs::write(&missing, &other).unwrap();
    refused("library of another architecture", &mut with(&missing), 1, &["libonnxruntime.so"]);
}

fn config(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("kinewatch.toml");
    fs::write(
        &path,
        text.replace("ROOT", root().to_str().unwrap()).replace("STATE", folder.join("state").to_str().unwrap()),
    )
    .unwrap();
    path
}

fn run(path: &Path) -> Command {
    let mut command = kinewatch();
    command.args(["run", "--config"]).arg(path);
    command
}

const DEVICE: &str = "[device]\nname = \"box\"\nstate_dir = \"STATE\"\n[engine]\nbackend = \"tract\"\n[[model]]\nname = \"m\"\npath = \"ROOT/tests/data/packages/tiny-bright\"\n";

#[test]
fn surroundings() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let text = format!("{DEVICE}[web]\nlisten = \"{listen}\"\n[[camera]]\nname = \"c\"\nsource = \"test:\"\n");
    refused("web port in use", &mut run(&config(dir.path(), &text)), 1, &[&listen.port().to_string(), "web"]);

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state"), "a file").unwrap();
    let text = format!("{DEVICE}[web]\nlisten = \"off\"\n[[camera]]\nname = \"c\"\nsource = \"test:\"\n");
    refused("state directory is a file", &mut run(&config(dir.path(), &text)), 78, &["state_dir"]);

    let dir = tempfile::tempdir().unwrap();
    refused("no configuration", &mut run(&dir.path().join("none.toml")), 78, &["none.toml"]);
}

/// The daemon runs on, says so in the log and in `/status`, and never shows the password.
#[test]
fn cameras_that_do_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let server = RtspServer::start(&[
        "--user".into(),
        "joe".into(),
        "--password".into(),
        "hunter2".into(),
        "c=tests/data/bright.mp4".into(),
    ]);
    let login = dir.path().join("login");
    fs::write(&login, "joe:wrong-secret\n").unwrap();
    // A port that listens and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "[mqtt]\nurl = \"{}\"\n[engine]\nbackend = \"tract\"\n[[model]]\nname = \"m\"\npath = \"{}\"\n\
         [[camera]]\nname = \"refused\"\nsource = \"rtsp://127.0.0.1:{}/x\"\n\
         [[camera]]\nname = \"locked\"\nsource = \"{}\"\ncredentials_file = \"{}\"\n\
         [[camera]]\nname = \"silent\"\nsource = \"rtsp://{}/x\"\nstall_timeout_s = 2\n\
         [[camera]]\nname = \"nameless\"\nsource = \"rtsp://no-such-host.invalid/x\"\n",
        broker.url(),
        root().join(BRIGHT).display(),
        free_port(),
        server.url("c"),
        login.display(),
        silent.local_addr().unwrap()
    );
    let mut daemon = Daemon::start(dir.path(), &text);
    let mut silent_ones = vec!["refused", "locked", "silent", "nameless"];
    while !silent_ones.is_empty() {
        let line = daemon.log.wait_for("a complaint about each camera", |l| l.contains("no frames camera="));
        silent_ones.retain(|camera| {
            let said = line.contains(&format!("camera=\"{camera}\""));
            if said {
                println!("| RTSP {camera} | runs on | {line} |");
            }
            !said
        });
    }
    let status = daemon.get("/status").unwrap();
    let metrics = daemon.get("/metrics").unwrap();
    daemon.stop();
    let log = daemon.log.seen().join("\n");
    for text in [&status, &metrics, &log] {
        assert!(!text.contains("wrong-secret") && !text.contains("hunter2"), "a password shows in: {text}");
    }
}
