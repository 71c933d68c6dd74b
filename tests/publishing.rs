//! models/PUBLISHING.md, run as it stands: every command in order, and after each block what devices make of the repository,
//! through a real web server. One device has been there from the beginning, another comes new each time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kinewatch_core::rollout::Channel;
use kinewatch_ota::bundle::{Bounds, unpack};
use kinewatch_ota::tuf::{Anchor, Client, Clock, Floors, Limits, Mirror, Options, Pace, Tls};
use serde_json::Value;
use support::fleet::serve;
use support::{free_port, root};
use tempfile::TempDir;

/// Commands of the document, block by block.
fn blocks() -> Vec<String> {
    let text = fs::read_to_string(root().join("models/PUBLISHING.md")).unwrap();
    let blocks: Vec<String> =
        text.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect();
    assert!(blocks.len() > 10 && text.matches("```sh").count() == blocks.len(), "{}", blocks.len());
    blocks
}

/// A folder with the shipped models, and `kinewatch` on the path. `rsync` is replaced where there is none.
struct Desk {
    home: TempDir,
    path: String,
}

impl Desk {
    fn new() -> Self {
        let home = TempDir::new().unwrap();
        let bin = home.path().join("bin");
        fs::create_dir(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_kinewatch"), bin.join("kinewatch")).unwrap();
        symlink(root().join("models"), home.path().join("models")).unwrap();
        let there = std::env::var("PATH").unwrap();
        if !std::env::split_paths(&there).any(|dir| dir.join("rsync").exists()) {
            let copy = "#!/bin/sh\nfor last; do from=$to; to=$last; done\nmkdir -p \"$to\"\ncp -a \"$from\". \"$to\"\n";
            fs::write(bin.join("rsync"), copy).unwrap();
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(bin.join("rsync"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { path: format!("{}:{there}", bin.display()), home }
    }

    fn run(&self, script: &str) -> String {
        let output = Command::new("sh")
            .args(["-eu", "-c", script])
            .current_dir(self.home.path())
            .env("PATH", &self.path)
            .env_remove("RUST_LOG")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}\n\n{told}");
        println!("$ {}\n{}{told}", script.replace('\n', "\n$ "), String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.run("kinewatch publish status repo --json")).unwrap()
    }

    fn repo(&self) -> PathBuf {
        self.home.path().join("repo")
    }
}

/// What a device keeps: trusted metadata, and how far it has seen.
struct Device {
    folder: TempDir,
    floors: Floors,
}

impl Device {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), floors: Floors::default() }
    }

    /// Polls; then the channel, and its bundle as a package.
    fn poll(&mut self, anchor: &Path, url: &str) -> Option<Channel> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut client = Client::open(Options {
            mirrors: vec![Mirror::below(&url.parse().unwrap())],
            anchor: Anchor::File(fs::read(anchor).unwrap()),
            directory: self.folder.path().join("tuf"),
            parts: self.folder.path().join("parts"),
            limits: Limits::default(),
            pace: Pace::default(),
            tls: Tls::default(),
            proxy: None,
        })
        .unwrap();
        let clock = Clock::Synchronised(jiff::Timestamp::now());
        self.floors = runtime.block_on(client.refresh(clock, &self.floors)).unwrap().floors;
        let channel = runtime.block_on(client.read_channel("stable", "falls")).ok()?;
        let target = runtime.block_on(client.find(&channel.bundle)).unwrap();
        let bundle = self.folder.path().join("bundle.tar.zst");
        runtime.block_on(client.fetch(&target, &bundle, &mut |_| {})).unwrap();
        let unpacked = self.folder.path().join("unpacked");
        let package = unpack(fs::File::open(bundle).unwrap(), &unpacked, Bounds::default()).unwrap();
        assert_eq!(package.manifest.version, channel.version.to_string());
        fs::remove_dir_all(unpacked).unwrap();
        Some(channel)
    }
}

fn private_keys(dir: &Path) -> usize {
    let files = walkdir::WalkDir::new(dir).into_iter().map(|e| e.unwrap().into_path()).filter(|p| p.is_file());
    files.filter(|p| String::from_utf8_lossy(&fs::read(p).unwrap()).contains("PRIVATE KEY")).count()
}

#[test]
fn every_command_of_the_walk_through_does_what_it_says() {
    let desk = Desk::new();
    let anchor = desk.home.path().join("root.json");
    let mut old = Device::new();
    let (port, _server) = serve(desk.home.path(), free_port());
    let url = format!("http://127.0.0.1:{port}/");
    let mut states = Vec::new();
    for block in blocks() {
        desk.run(&block);
        let status = desk.status();
        let seen = old.poll(&anchor, &format!("{url}repo/"));
        assert_eq!(Device::new().poll(&anchor, &format!("{url}repo/")), seen, "after:\n{block}");
        for role in status["roles"].as_array().unwrap() {
            assert_eq!(role["signed"], true, "{role}\nafter:\n{block}");
        }
        assert_eq!(private_keys(&desk.repo()), 0, "after:\n{block}");
        if let Some(stable) = seen {
            let state = format!("{} {} {}", stable.epoch, stable.version, stable.halt);
            if states.last() != Some(&state) {
                states.push(state);
            }
        }
    }
    assert_eq!(Device::new().poll(&anchor, &format!("{url}web/")), old.poll(&anchor, &format!("{url}web/")));
    let expected =
        ["1 0.4.1 false", "2 0.5.0 false", "2 0.5.0 true", "3 0.4.1 false", "4 0.5.0 false", "5 0.4.1 false"];
    assert_eq!(states, expected);
    let status = desk.status();
    let releases: Vec<&str> =
        status["releases"].as_array().unwrap().iter().map(|r| r["version"].as_str().unwrap()).collect();
    assert_eq!(releases, ["0.4.1", "0.5.0"]);
    assert_eq!(status["roles"][0]["keys"].as_array().unwrap().len(), 3, "root is still two of three");
    assert_eq!(status["roles"][0]["threshold"], 2);
    assert_eq!((&status["pending_root"], &status["awaits_online_keys"]), (&Value::Bool(false), &Value::Bool(false)));
    assert_eq!(private_keys(&desk.home.path().join("web")), 0);
}

/// What is wrong is said in one line, with what to do, and nothing is changed.
#[test]
fn what_cannot_be_done_is_told() {
    let desk = Desk::new();
    desk.run("kinewatch publish init repo --keys keys");
    let refused = |arguments: &str, expected: &str, code: i32| {
        let before = desk.status();
        let output = Command::new(desk.home.path().join("bin/kinewatch"))
            .args(arguments.split(' '))
            .current_dir(desk.home.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {told}");
        assert!(told.contains(expected) && told.trim().lines().count() <= 5, "{arguments}: {told}");
        assert_eq!(desk.status(), before, "{arguments}");
    };
    refused("publish init repo --keys more", "there is a repository already", 1);
    refused("publish add nowhere models/falls --keys keys", "make one with `kinewatch publish init`", 1);
    refused("publish add repo models --keys keys", "model.toml", 1);
    refused("publish add repo models/falls --keys bin", "0 of 1 keys that must sign are in bin", 1);
    refused("publish channel set repo stable --model falls --version 9.9.9 --keys keys", "there: none", 1);
    refused("publish channel set repo stable --model falls --version nine --keys keys", "invalid value", 2);
    refused("publish halt repo stable --model falls --keys keys", "no channel stable for falls", 1);
    refused("publish rotate repo root --lost --keys keys", "of which 0 could be meant", 1);
    refused("publish sign repo --keys keys", "no root waits for signatures", 1);
    desk.run("kinewatch publish add repo models/falls --keys keys");
    refused(
        "publish channel set repo stable --model falls --version 0.4.1 --waves 10%:0h,5%:1h --keys keys",
        "each wave must admit more devices",
        1,
    );
    refused(
        "publish channel set repo stable --model falls --version 0.4.1 --waves often --keys keys",
        "write for example 1%:0h,10%:24h,100%:72h",
        2,
    );
}

/// Two that read the same state and both write would sign two files of one version, and the later one take a halt back.
#[test]
fn commands_on_one_repository_run_one_after_the_other() {
    let desk = Desk::new();
    desk.run("kinewatch publish init repo --keys keys");
    desk.run("kinewatch publish add repo models/falls --keys keys");
    desk.run("kinewatch publish channel set repo stable --model falls --version 0.4.1 --keys keys");
    let start = |arguments: &str| {
        let mut command = Command::new(desk.home.path().join("bin/kinewatch"));
        command.args(arguments.split(' ')).current_dir(desk.home.path());
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let version = |status: &Value| status["roles"][3]["version"].as_u64().unwrap();
    let before = version(&desk.status());
    let mut running: Vec<_> = (0..6).map(|_| start("publish refresh repo --keys keys")).collect();
    running.insert(3, start("publish halt repo stable --model falls --keys keys"));
    let ended = running.into_iter().map(|child| child.wait_with_output().unwrap());
    let failed: Vec<_> = ended.filter(|output| !output.status.success()).collect();
    assert_eq!(failed.len(), 0, "{failed:?}");
    let status = desk.status();
    assert_eq!(version(&status), before + 7, "each has built on the one before");
    assert_eq!(status["channels"][0]["halt"], true, "{status}");

    // Who waits says for what, changes nothing meanwhile, and goes on.
    let lock = fs::File::open(desk.repo().join(".lock")).unwrap();
    lock.lock().unwrap();
    let mut waiting = start("publish refresh repo --keys keys");
    let mut told = BufReader::new(waiting.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = told.next().unwrap();
    assert_eq!(line, "repo: another `kinewatch publish` is at work here: waiting for it");
    assert_eq!(version(&desk.status()), before + 7);
    lock.unlock().unwrap();
    assert!(told.any(|line| line.starts_with("timestamp ")));
    assert!(waiting.wait().unwrap().success());
    assert_eq!(version(&desk.status()), before + 8);
}
