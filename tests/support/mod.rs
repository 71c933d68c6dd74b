//! What the end-to-end tests share: a real mosquitto, a real RTSP server, the real binary, and a subscriber.
//!
//! Everything runs on loopback, on free ports, in a folder of the test's own, and ends with the value that started it. No
//! sleeps: a test waits for a line, a file or an exit, with one generous deadline.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

pub mod candidates;
pub mod check;
pub mod fleet;
mod ports;
pub mod proxy;
pub mod trees;

pub use ports::free_port;

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where commands are answered.
pub const RSP: &str = "kinewatch/v1/test/box/rsp/me";

/// How long anything may take before a test gives up.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// The repository's top folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The binary under test.
pub fn kinewatch() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinewatch"));
    command.env_remove("RUST_LOG").env_remove("JOURNAL_STREAM").stdin(Stdio::null());
    command
}

/// Status and body of a GET; `None` while nobody answers.
pub fn http_get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    // A process that is stopped accepts and says nothing.
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// A program of `examples` beside the binary under test.
pub fn example(name: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_kinewatch")).with_file_name("examples").join(name);
    assert!(program.exists(), "{} is missing: build with --all-targets", program.display());
    let mut command = Command::new(program);
    command.env_remove("RUST_LOG").env_remove("JOURNAL_STREAM").stdin(Stdio::null());
    command
}

/// Asks again and again until it is so, where there is no event to wait for.
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < end, "waited {DEADLINE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// A child process that is killed when it goes out of scope, with its output as lines.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    /// Starts `command`; lines come from its standard output, or from standard error.
    pub fn start(mut command: Command, lines_from: Stream) -> Self {
        match lines_from {
            Stream::Stdout => command.stdout(Stdio::piped()).stderr(Stdio::inherit()),
            Stream::Stderr => command.stderr(Stdio::piped()).stdout(Stdio::null()),
        };
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let pipe: Box<dyn Read + Send> = match lines_from {
            Stream::Stdout => Box::new(child.stdout.take().unwrap()),
            Stream::Stderr => Box::new(child.stderr.take().unwrap()),
        };
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// The next line that satisfies `wanted`; those before it are kept in [`Process::seen`].
    pub fn wait_for(&mut self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("waited {DEADLINE:?} for {what}; seen:\n{}", self.seen.join("\n"))
                }
                Err(RecvTimeoutError::Disconnected) => panic!("ended before {what}; seen:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Every line so far.
    pub fn seen(&mut self) -> &[String] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// Sends a signal by its name, as `kill` does.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -s {name}");
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        // The pipe closes when the process ends, so draining it is waiting.
        let end = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("did not end within {DEADLINE:?}:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Which output of a process a test reads.
#[derive(Clone, Copy)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A mosquitto on loopback.
pub struct Broker {
    /// Where it listens.
    pub port: u16,
    process: RefCell<Process>,
    config: PathBuf,
}

impl Broker {
    /// Starts one on a free port; `extra` are further lines of its configuration.
    pub fn start(folder: &Path, extra: &str) -> Self {
        Self::start_on(free_port(), folder, extra)
    }

    /// Starts one on a given port: after it was killed, on the same.
    pub fn start_on(port: u16, folder: &Path, extra: &str) -> Self {
        let config = folder.join(format!("mosquitto-{port}.conf"));
        let access = if extra.contains("allow_anonymous") { "" } else { "allow_anonymous true\n" };
        std::fs::write(&config, format!("listener {port} 127.0.0.1\n{access}{extra}\n")).unwrap();
        let mut command = Command::new(mosquitto());
        command.arg("-v").arg("-c").arg(&config);
        let mut process = Process::start(command, Stream::Stderr);
        process.wait_for("mosquitto to listen", |line| line.contains("running"));
        Self { port, process: RefCell::new(process), config }
    }

    /// The address for `[mqtt] url`.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Everything published, as `topic<TAB>payload` lines.
    pub fn subscribe(&self) -> Subscriber {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-V", "mqttv5", "-t", "kinewatch/#"]);
        command.args(["-F", "%t\t%p"]);
        let process = Process::start(command, Stream::Stdout);
        // What is published before the subscription stands would be missing.
        self.process.borrow_mut().wait_for("the subscription", |line| line.contains("Sending SUBACK"));
        Subscriber { process }
    }

    /// Publishes a command to `box`, or to `_all`.
    pub fn send(&self, to: &str, name: &str, arguments: &[&str]) {
        let topic = format!("kinewatch/v1/test/{to}/cmd/{name}");
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-t", &topic]).args(arguments);
        assert!(command.status().unwrap().success(), "{command:?}");
    }

    /// A request of MQTT 5 and its answer.
    pub fn ask(&self, name: &str, payload: &str) -> Value {
        let topic = format!("kinewatch/v1/test/box/cmd/{name}");
        let mut command = Command::new("mosquitto_rr");
        command.args(["-V", "5", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-W", "60"]);
        let output = command.args(["-t", &topic, "-e", RSP, "-m", payload]).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&answer["command"], &answer["device"]), (&Value::from(name), &Value::from("box")));
        answer
    }

    /// What it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.process.borrow_mut().seen().to_vec()
    }

    /// Waits for the first line of its log that satisfies `wanted`, of those not yet seen.
    pub fn wait_for(&self, what: &str, wanted: impl FnMut(&str) -> bool) {
        self.process.borrow_mut().wait_for(what, wanted);
    }

    /// Kills it, without a goodbye to its clients.
    pub fn kill(&mut self) {
        self.process.get_mut().kill();
    }
}

/// The broker's program; Debian keeps it out of users' paths.
pub fn mosquitto() -> &'static str {
    if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" }
}

/// A running `mosquitto_sub`.
pub struct Subscriber {
    process: Process,
}

impl Subscriber {
    /// The next event of this camera that satisfies `wanted`.
    pub fn event(&mut self, what: &str, mut wanted: impl FnMut(&str, &Value) -> bool) -> Value {
        let line = self.process.wait_for(what, |line| {
            let Some((topic, payload)) = line.split_once('\t') else { return false };
            serde_json::from_str::<Value>(payload).is_ok_and(|value| wanted(topic, &value))
        });
        serde_json::from_str(line.split_once('\t').unwrap().1).unwrap()
    }

    /// Waits until the retained message of a topic that ends so has been removed.
    pub fn removed(&mut self, topic: &str) {
        let removes =
            |line: &str| line.split_once('\t').is_some_and(|(t, payload)| t.ends_with(topic) && payload.is_empty());
        if !self.lines().iter().any(|line| removes(line)) {
            self.process.wait_for(&format!("{topic} to be removed"), removes);
        }
    }

    /// Every line so far.
    pub fn lines(&mut self) -> &[String] {
        self.process.seen()
    }
}

/// The RTSP server of `agent/capture/examples`, serving files from their beginning to each client.
pub struct RtspServer {
    process: Process,
    port: u16,
    arguments: Vec<String>,
}

impl RtspServer {
    /// Serves `name=path` pairs, with further options before them.
    pub fn start(arguments: &[String]) -> Self {
        Self::start_on(free_port(), arguments)
    }

    fn start_on(port: u16, arguments: &[String]) -> Self {
        let mut command = example("rtsp-serve");
        command.current_dir(root()).arg("--port").arg(port.to_string()).args(arguments);
        let mut process = Process::start(command, Stream::Stdout);
        process.wait_for("the RTSP server", |line| line.starts_with("rtsp://"));
        Self { process, port, arguments: arguments.to_vec() }
    }

    /// Where `name` is served.
    pub fn url(&self, name: &str) -> String {
        format!("rtsp://127.0.0.1:{}/{name}", self.port)
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        *self = Self::start_on(self.port, &self.arguments.clone());
    }
}

/// Writes a configuration to which device and web are added.
fn configure(folder: &Path, web: &str, config: &str) -> PathBuf {
    let (path, state) = (folder.join("kinewatch.toml"), folder.join("state"));
    let head = format!(
        "[device]\nname = \"box\"\ngroup = \"test\"\nstate_dir = \"{}\"\n\n[web]\nlisten = \"{web}\"\n\n",
        state.display()
    );
    std::fs::write(&path, head + config).unwrap();
    path
}

/// The daemon with a configuration of the test's.
pub struct Daemon {
    /// Its log, line by line.
    pub log: Process,
    /// Address of its web server.
    pub web: String,
}

impl Daemon {
    /// Writes the configuration (device and web are added) and starts `kinewatch run`.
    pub fn start(folder: &Path, config: &str) -> Self {
        Self::start_program(kinewatch(), folder, config)
    }

    /// The same with another program, or with an environment of its own.
    pub fn start_program(mut command: Command, folder: &Path, config: &str) -> Self {
        let web = format!("127.0.0.1:{}", free_port());
        let path = configure(folder, &web, config);
        command.args(["run", "--config"]).arg(&path);
        Self { log: Process::start(command, Stream::Stderr), web }
    }

    /// Asks it to end, which it must do well.
    pub fn stop(&mut self) {
        self.log.signal("TERM");
        let status = self.log.wait();
        assert!(status.success(), "{status}; seen:\n{}", self.log.seen().join("\n"));
    }

    /// Writes another configuration and sends SIGHUP; gives the path of the file.
    pub fn reload(&self, folder: &Path, config: &str) -> PathBuf {
        let path = configure(folder, &self.web, config);
        self.log.signal("HUP");
        path
    }

    /// Body of a GET on the daemon's web server; `None` while it does not answer.
    pub fn get(&self, path: &str) -> Option<String> {
        http_get(&self.web, path).map(|(_, body)| body)
    }

    /// Value of a metric whose line begins with `prefix` (name and labels).
    pub fn metric(&self, prefix: &str) -> Option<f64> {
        let text = self.get("/metrics")?;
        text.lines().find(|l| l.starts_with(prefix))?.rsplit(' ').next()?.parse().ok()
    }
}
