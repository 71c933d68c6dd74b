//! A publisher and a device: a repository made with `kinewatch publish`, a real web server, the daemon that follows it.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::candidates::{copy, package, release, rewrite};
use super::{Broker, Daemon, Process, Stream, Subscriber, free_port, kinewatch, root};

/// Name of the model in all of it.
pub const MODEL: &str = "tiny-bright";

/// Always white: an action that goes on for as long as it is watched.
pub const WHITE: &str = "test:white?size=160x120&fps=25";

/// On which `tiny-nan` computes what is no number.
pub const BLACK: &str = "test:black?size=160x120&fps=25";

/// What a release has to prove, in seconds instead of hours.
pub const QUICK: [&str; 8] =
    ["--shadow-windows", "60", "--shadow-agreement", "0.9", "--probation-windows", "60", "--probation-s", "2"];

/// The same in one or two.
pub const QUICKER: [&str; 8] =
    ["--shadow-windows", "20", "--shadow-agreement", "0.9", "--probation-windows", "20", "--probation-s", "1"];

/// A repository behind a web server.
pub struct Publisher {
    folder: PathBuf,
    port: u16,
    server: Process,
}

impl Publisher {
    /// An empty repository, with its keys beside it.
    pub fn start(folder: &Path) -> Self {
        let folder = folder.to_owned();
        publish(&folder, &["init", "repo", "--keys", "keys"]);
        let (port, server) = serve(&folder.join("repo"), free_port());
        Self { folder, port, server }
    }

    /// Adds a release of the model with this graph.
    pub fn add(&self, version: &str, graph: Option<&Path>) {
        let package = release(&self.folder.join(format!("package-{version}")), MODEL, version, graph);
        self.add_package(&package);
    }

    pub fn add_package(&self, package: &Path) {
        publish(&self.folder, &["add", "repo", &package.display().to_string(), "--keys", "keys"]);
    }

    /// Lets the channel name a release. Proofs are short.
    pub fn set(&self, version: &str, more: &[&str]) {
        let always = ["channel", "set", "repo", "stable", "--model", MODEL, "--version", version, "--keys", "keys"];
        publish(&self.folder, &[&always[..], more].concat());
    }

    pub fn halt(&self) {
        publish(&self.folder, &["halt", "repo", "stable", "--model", MODEL, "--keys", "keys"]);
    }

    /// The web server goes.
    pub fn cut(&mut self) {
        self.server.kill();
    }

    /// Lines of a configuration that follows it.
    pub fn updates(&self) -> String {
        let root = self.folder.join("repo/metadata/1.root.json");
        format!(
            "[updates]\nurl = \"http://127.0.0.1:{}\"\nroot = \"{}\"\npoll_s = 1\nreserve_mb = 0\nclock = \"trusted\"\nswap = \"hot\"\n\n",
            self.port,
            root.display()
        )
    }
}

/// A release that computes what it should on its golden clips, and no number on black.
pub fn fails_on_black(into: &Path, version: &str) -> PathBuf {
    let bad = copy(&package("tiny-nan"), into);
    rewrite(&bad, |text| text.replacen("tiny-nan", MODEL, 1).replacen("1.0.0", version, 1));
    bad
}

/// The web server that every Python has.
pub fn serve(folder: &Path, port: u16) -> (u16, Process) {
    // A line for each request says nothing to a test.
    let script = "exec python3 -u -m http.server --bind 127.0.0.1 --directory \"$0\" \"$1\" 2>/dev/null";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(folder).arg(port.to_string());
    let mut server = Process::start(command, Stream::Stdout);
    server.wait_for("the web server", |line| line.contains("Serving HTTP"));
    (port, server)
}

/// `kinewatch publish …` in a folder.
pub fn publish(folder: &Path, args: &[&str]) {
    let output = kinewatch().current_dir(folder).arg("publish").args(args).output().unwrap();
    assert!(output.status.success(), "publish {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A configuration with the factory model and these cameras.
pub fn config(broker: &Broker, updates: &str, cameras: &[(&str, String)]) -> String {
    let mut text = format!(
        "[mqtt]\nurl = \"{}\"\n\n[engine]\nbackend = \"tract\"\n\n{updates}[[model]]\nname = \"{MODEL}\"\npath = \"{}\"\n",
        broker.url(),
        root().join("tests/data/packages/tiny-bright").display()
    );
    for (name, source) in cameras {
        text += &format!("\n[[camera]]\nname = \"{name}\"\nsource = \"{source}\"\n");
    }
    text
}

/// Windows that no camera has scored.
pub fn left_out(daemon: &Daemon) -> f64 {
    let metrics = daemon.get("/metrics").unwrap();
    let rows = metrics.lines().filter(|line| line.starts_with("kinewatch_windows_dropped_total"));
    rows.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// `kinewatch model …` against the daemon of this folder: exit code, standard output, standard error.
pub fn model(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output =
        kinewatch().arg("model").args(args).arg("--config").arg(folder.join("kinewatch.toml")).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The next state of the model that satisfies `wanted`.
pub fn state(subscriber: &mut Subscriber, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = subscriber.event(what, |topic, message| {
        topic.ends_with("/model/state") && message["models"].as_array().is_some_and(|m| m.iter().any(&wanted))
    });
    found["models"].as_array().unwrap().iter().find(|m| wanted(m)).unwrap().clone()
}

/// Whether nothing is under way and this version is installed.
pub fn rests(model: &Value, version: &str) -> bool {
    model["state"] == "idle" && model["installed"]["version"] == version
}
