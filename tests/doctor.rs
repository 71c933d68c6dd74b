//! `kinewatch doctor` with real cameras, a real broker and real faults: what it says, and that it disturbs nobody.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Broker, Daemon, RtspServer, free_port, kinewatch, root};

const BRIGHT: &str = "tests/data/packages/tiny-bright";
/// Checks whose findings are the machine's own: left out of the snapshots.
const OF_THE_MACHINE: [&str; 7] = ["board", "clock", "disk", "service", "memory", "thermal", "power"];
const CHECKS: [&str; 18] = [
    "config",
    "permissions",
    "board",
    "gstreamer",
    "camera",
    "inference",
    "accelerator",
    "model",
    "broker",
    "updates",
    "clock",
    "disk",
    "database",
    "service",
    "web",
    "memory",
    "thermal",
    "power",
];

/// A folder with a configuration.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new(text: &str) -> Self {
        let scene = Self { dir: tempfile::tempdir().unwrap() };
        scene.configure(text);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, text: &str) {
        let head = format!(
            "[device]\nname = \"box\"\ngroup = \"test\"\nstate_dir = \"state\"\n[engine]\nbackend = \"tract\"\n\
             [web]\nlisten = \"127.0.0.1:{}\"\n",
            free_port()
        );
        fs::write(self.path("kinewatch.toml"), head + text).unwrap();
    }

    fn doctor(&self, more: &[&str]) -> Seen {
        let mut command = kinewatch();
        command.args(["doctor", "--config"]).arg(self.path("kinewatch.toml")).args(more);
        seen(&mut command)
    }
}

struct Seen {
    code: i32,
    out: String,
    err: String,
}

impl Seen {
    /// The lines of a check, verdict first.
    fn lines(&self, check: &str) -> Vec<&str> {
        let of = |line: &&str| line.split_whitespace().nth(1) == Some(check);
        self.out.lines().filter(of).collect()
    }

    /// The only line of a check.
    fn line(&self, check: &str) -> &str {
        let lines = self.lines(check);
        assert_eq!(lines.len(), 1, "{check}: {}", self.out);
        lines[0]
    }

    /// What does not depend on this machine, with figures and names taken out.
    fn normal(&self, dir: &Path) -> String {
        let lines = self.out.lines().filter(|line| {
            let check = line.split_whitespace().nth(1).unwrap_or_default();
            !OF_THE_MACHINE.contains(&check) && !line.is_empty()
        });
        let (repository, dir) = (root().display().to_string(), dir.display().to_string());
        let mut text: Vec<String> = lines
            .map(|line| line.replace(&dir, "DIR").replace(&repository, "REPOSITORY"))
            .map(|line| line.split_whitespace().map(normal_word).collect::<Vec<_>>().join(" "))
            .collect();
        text[0] = text[0].split(',').take(2).collect::<Vec<_>>().join(",");
        text.pop();
        text.join("\n")
    }
}

fn normal_word(word: &str) -> String {
    let mut word = word.to_owned();
    for host in ["127.0.0.1:", "localhost:"] {
        if let Some(at) = word.find(host) {
            let begin = at + host.len();
            let digits = word[begin..].chars().take_while(char::is_ascii_digit).count();
            word.replace_range(begin..begin + digits, "PORT");
        }
    }
    let figure = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_ascii_digit() || ".e-".contains(c));
    let bare = word.trim_matches(|c: char| "(),;".contains(c)).to_owned();
    if figure(&bare) { word.replace(&bare, "N") } else { word }
}

fn seen(command: &mut Command) -> Seen {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Seen { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
}

fn text(url: &str, model: &str, cameras: &str) -> String {
    format!("[mqtt]\nurl = \"{url}\"\n[[model]]\nname = \"m\"\npath = \"{}\"\n{cameras}", root().join(model).display())
}

fn camera(name: &str, source: &str, more: &str) -> String {
    format!("[[camera]]\nname = \"{name}\"\nsource = \"{source}\"\n{more}\n")
}

#[test]
fn all_is_well() {
    let server = RtspServer::start(&["c=tests/data/bright.mp4".into()]);
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut subscriber = broker.subscribe();
    let cameras = camera("front", &server.url("c"), "") + &camera("pattern", "test:", "");
    let scene = Scene::new(&text(&broker.url(), BRIGHT, &cameras));
    let seen = scene.doctor(&[]);
    assert_eq!(seen.code, 0, "{}{}", seen.out, seen.err);
    insta::assert_snapshot!("all_is_well", seen.normal(scene.dir.path()));
    let message = subscriber.event("the test message", |topic, _| topic == "kinewatch/v1/test/box/doctor");
    assert_eq!(message, serde_json::json!({ "doctor": true }));
    assert!(!scene.path("state").exists(), "looking makes nothing");

    let json = scene.doctor(&["--json"]);
    let report: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, &report["ok"], &report["usable"]), (0, &true.into(), &true.into()));
    let checks = report["checks"].as_array().unwrap();
    let names: Vec<&str> = checks.iter().map(|c| c["check"].as_str().unwrap()).collect();
    let (unknown, missing): (Vec<_>, Vec<_>) = (
        names.iter().filter(|n| !CHECKS.contains(n)).collect(),
        CHECKS.iter().filter(|n| !names.contains(n)).collect(),
    );
    assert!(unknown.is_empty() && missing.is_empty(), "{unknown:?} {missing:?}");
    let counted: u64 = report["counts"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(counted, checks.len() as u64);
    assert!(checks.iter().all(|c| !c["message"].as_str().unwrap().is_empty() && c["took_ms"].is_u64()));

    let offline = scene.doctor(&["--offline"]);
    assert!(offline.line("broker").starts_with("skip") && offline.lines("camera")[0].starts_with("skip"));
}

/// Everything at once: each fault has its own line, and no password is in any.
#[test]
fn every_fault_has_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let passwords = dir.path().join("passwords");
    fs::write(&passwords, "").unwrap();
    let made = Command::new("mosquitto_passwd").args(["-b"]).arg(&passwords).args(["joe", "right-one"]).status();
    assert!(made.unwrap().success());
    let broker = Broker::start(dir.path(), &format!("allow_anonymous false\npassword_file {}", passwords.display()));
    let login = ["--user", "joe", "--password", "right-one", "c=tests/data/bright.mp4"].map(str::to_owned);
    let server = RtspServer::start(&login);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = "credentials_file = \"login\"";
    let cameras = camera("locked", &server.url("c"), file)
        + &camera("open", &server.url("c"), "")
        + &camera("absent", &format!("{}x", server.url("c")), "credentials_file = \"right\"")
        + &camera("refused", &format!("rtsp://127.0.0.1:{}/x", free_port()), "")
        + &camera("silent", &format!("rtsp://{}/x", silent.local_addr().unwrap()), "")
        + &camera("nameless", "rtsp://no-such-host.invalid/x", "");
    let text = text(&broker.url(), "tests/data/packages/tiny-nan", &cameras)
        .replace("[[model]]", "username_file = \"user\"\npassword_file = \"password\"\n[[model]]");
    let scene = Scene::new(&text);
    for (name, text) in
        [("login", "joe:hunter2\n"), ("right", "joe:right-one\n"), ("user", "joe\n"), ("password", "hunter2\n")]
    {
        fs::write(scene.path(name), text).unwrap();
        fs::set_permissions(scene.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let config = fs::read_to_string(scene.path("kinewatch.toml")).unwrap();
    let listen = config.lines().find(|line| line.starts_with("listen")).unwrap();
    let listen_taken = format!("listen = \"{}\"", taken.local_addr().unwrap());
    fs::write(scene.path("kinewatch.toml"), config.replace(listen, &listen_taken)).unwrap();
    // Nobody answers there, as something that is no kinewatch would not.
    drop(std::thread::spawn(move || taken.incoming().for_each(drop)));
    let seen = scene.doctor(&[]);
    assert_eq!(seen.code, 1, "{}{}", seen.out, seen.err);
    assert!(!(seen.out.clone() + &seen.err).contains("hunter2"));
    insta::assert_snapshot!("every_fault", seen.normal(scene.dir.path()));
}

#[test]
fn a_plugin_that_is_missing_is_named_with_its_package() {
    let scene = Scene::new(&text("mqtt://127.0.0.1:9", BRIGHT, &camera("front", "rtsp://127.0.0.1:9/x", "")));
    let plugins =
        ["x86_64", "aarch64"].map(|machine| PathBuf::from(format!("/usr/lib/{machine}-linux-gnu/gstreamer-1.0")));
    let plugins = plugins.iter().find(|dir| dir.exists()).unwrap();
    let some = scene.path("plugins");
    fs::create_dir(&some).unwrap();
    for entry in fs::read_dir(plugins).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if !["libgstrtsp.so", "libgstrtpmanager.so", "libgstlibav.so", "libgstopenh264.so"].iter().any(|n| name == *n) {
            symlink(entry.path(), some.join(name)).unwrap();
        }
    }
    let mut command = kinewatch();
    command.args(["doctor", "--offline", "--config"]).arg(scene.path("kinewatch.toml"));
    command.env("GST_PLUGIN_SYSTEM_PATH_1_0", &some).env("GST_REGISTRY_1_0", scene.path("registry"));
    let seen = seen(&mut command);
    let line = seen.line("camera");
    assert!(
        seen.code == 1
            && line.starts_with("fail")
            && line.contains("rtspsrc, rtpbin; apt install gstreamer1.0-plugins-good"),
        "{}",
        seen.out
    );
    let codecs = seen.lines("gstreamer").join("\n");
    assert!(codecs.contains("H.264 cannot be decoded here; install gstreamer1.0-libav"), "{codecs}");
}

#[test]
fn a_configuration_that_cannot_be_used_is_78_and_hides_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let cameras = camera("gone", "file:/nowhere.mp4", "") + &camera("pattern", "test:", "");
    let scene = Scene::new(&text(&broker.url(), BRIGHT, &cameras));
    let seen = scene.doctor(&[]);
    assert_eq!(seen.code, 78, "{}", seen.out);
    assert!(seen.line("config").contains("/nowhere.mp4: no such file"), "{}", seen.out);
    let cameras = seen.lines("camera");
    assert!(cameras[0].starts_with("fail") && cameras[1].starts_with("ok"), "{}", seen.out);
    assert!(seen.line("broker").starts_with("ok"), "{}", seen.out);
    assert!(seen.line("model").starts_with("ok"), "{}", seen.out);

    let mut command = kinewatch();
    let nothing = self::seen(command.args(["doctor", "--config"]).arg(scene.path("none.toml")));
    assert!(nothing.code == 78 && nothing.line("config").contains("no such file"), "{}", nothing.out);
    assert!(nothing.lines("gstreamer")[0].starts_with("ok") && !nothing.line("clock").is_empty(), "{}", nothing.out);
}

/// The daemon's database is open, its camera plays, its client is connected: all of that goes on.
#[test]
fn a_running_daemon_is_not_disturbed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let server = RtspServer::start(&["--loop".into(), "c=tests/data/bright.mp4".into()]);
    let mut subscriber = broker.subscribe();
    let config = text(&broker.url(), BRIGHT, &camera("front", &server.url("c"), ""));
    let config = format!("[engine]\nbackend = \"tract\"\n{config}");
    let mut daemon = Daemon::start(dir.path(), &config);
    subscriber.event("an action", |topic, e| topic.contains("/evt/") && e["data"]["status"] == "ended");
    let mut command = kinewatch();
    let seen = seen(command.args(["doctor", "--config"]).arg(dir.path().join("kinewatch.toml")));
    assert_eq!(seen.code, 0, "{}{}", seen.out, seen.err);
    assert!(seen.line("web").contains("as box, 1 of 1 cameras up, connected to the broker"), "{}", seen.out);
    assert!(seen.line("database").contains("whole; "), "{}", seen.out);
    assert!(seen.line("memory").contains("kinewatch uses"), "the daemon is found by its lock: {}", seen.out);
    subscriber.event("another action", |topic, e| topic.contains("/evt/") && e["data"]["status"] == "ended");
    assert_eq!(daemon.metric("kinewatch_stream_reconnects_total{camera=\"front\"}"), Some(0.0));
    let status: Value = serde_json::from_str(&daemon.get("/status").unwrap()).unwrap();
    assert_eq!((&status["mqtt"]["connections"], &status["store"]["state"]), (&1.into(), &"ok".into()));
    let failed: u64 = status["store"]["errors"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(failed, 0, "{status}");
    daemon.stop();
    let mut command = kinewatch();
    let after = self::seen(command.args(["doctor", "--offline", "--config"]).arg(dir.path().join("kinewatch.toml")));
    assert!(after.line("web").contains("free") && after.line("database").contains("broker: 0,"), "{}", after.out);
    let leftovers =
        fs::read_dir(dir.path().join("state")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let leftovers: Vec<String> = leftovers.filter(|name| name.contains("doctor") || name.ends_with("-wal")).collect();
    assert_eq!(leftovers, [""; 0]);
}

/// A small file system that is full, where this test may mount one.
#[test]
fn a_full_disk_is_told() {
    let scene = Scene::new(&text("mqtt://127.0.0.1:9", BRIGHT, &camera("pattern", "test:", "")));
    let state = scene.path("state");
    fs::create_dir(&state).unwrap();
    let mount = |args: &[&str]| Command::new(args[0]).args(&args[1..]).arg(&state).stderr(Stdio::null()).status();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "kinewatch-test"]).is_ok_and(|status| status.success()) {
        println!("not looked at: this user may not mount a file system");
        return;
    }
    let filled = fs::write(state.join("filler"), vec![0; 65536]);
    let seen = scene.doctor(&["--offline"]);
    let unmounted = mount(&["umount"]).unwrap();
    assert!(unmounted.success() && filled.is_ok(), "{filled:?}");
    let lines = seen.lines("disk").join("\n");
    assert!(lines.contains("is in memory (tmpfs)"), "{lines}");
    assert!(lines.contains("fail disk") || lines.contains("fail  disk"), "{lines}");
    assert!(lines.contains("only 0 KiB are free") && lines.contains("cannot be written"), "{lines}");
    assert!(seen.code != 0, "{}", seen.out);
}
