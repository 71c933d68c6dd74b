//! Passwords planted wherever one can be written, through failure and success, with every log at its most talkative: none may
//! come out, in any form that a reader could turn back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Broker, Process, RtspServer, Stream, free_port, kinewatch, root, wait_until};

/// With characters that URLs, JSON, shells and GStreamer's pipeline language would each write in another way.
const CAMERA: &str = "Kq7!cam\\era/pa%s:w@r\"d";
const WRONG_CAMERA: &str = "Wx3 ca&mera=pl?ant";
const BROKER: &str = "Bm9 bro/ker+pa%2Fss=w\"d";
const WRONG_BROKER: &str = "Vy4'broker#pl\\ant";
const IN_URL: &str = "Uj5-in-the-url";
const IN_QUERY: &str = "Qh6-in-the-query";
const ALL: [&str; 6] = [CAMERA, WRONG_CAMERA, BROKER, WRONG_BROKER, IN_URL, IN_QUERY];
const USER: &str = "joe";

/// Every form of a password that is looked for.
fn forms(password: &str) -> Vec<Vec<u8>> {
    let percent = |keep: &str, lower: bool| -> String {
        let encode = |byte: u8| match char::from(byte) {
            c if c.is_ascii_alphanumeric() || keep.contains(c) => c.to_string(),
            _ if lower => format!("%{byte:02x}"),
            _ => format!("%{byte:02X}"),
        };
        password.bytes().map(encode).collect()
    };
    let json = serde_json::to_string(password).unwrap();
    let debug = format!("{password:?}");
    let mut forms = vec![
        password.to_owned(),
        json[1..json.len() - 1].to_owned(),
        debug[1..debug.len() - 1].to_owned(),
        // Twice escaped: a JSON log line of a quoted text.
        serde_json::to_string(&debug).unwrap().trim_matches('"').replace("\\\"", "\""),
        percent("", false),
        percent("", true),
        percent("-_.~", false),
        percent("-_.!~*'()", false),
    ];
    // The user part of a Basic header ends on any of three places in a group of four.
    for text in [format!("{USER}:{password}"), password.to_owned()] {
        let whole = base64(text.as_bytes());
        forms.push(whole.trim_end_matches('=').to_owned());
    }
    forms.sort();
    forms.dedup();
    forms.into_iter().map(String::into_bytes).collect()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |group: u32, shift: u32| char::from(ALPHABET[(group >> shift & 63) as usize]);
    bytes
        .chunks(3)
        .map(|chunk| {
            let group = chunk.iter().fold(0, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
            let digits = [18, 12, 6, 0].map(|shift| digit(group, shift));
            digits[..=chunk.len()].iter().collect::<String>() + &"=".repeat(3 - chunk.len())
        })
        .collect()
}

/// What was looked at, and what was found there.
#[derive(Default)]
struct Search {
    places: Vec<(String, usize)>,
    found: Vec<String>,
}

impl Search {
    fn look(&mut self, place: &str, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        self.places.push((place.to_owned(), text.len()));
        for (password, form) in ALL.iter().flat_map(|p| forms(p).into_iter().map(move |f| (p, f))) {
            if let Some(at) = text.windows(form.len()).position(|window| window == form) {
                let around = &text[at.saturating_sub(200)..(at + form.len() + 40).min(text.len())];
                self.found.push(format!("{place}: `{password}` in: {}", String::from_utf8_lossy(around)));
            }
        }
    }

    fn files(&mut self, place: &str, dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if path.is_dir() {
                self.files(&format!("{place}/{name}"), &path);
            } else if path.is_file() {
                self.look(&format!("{place}/{name}"), fs::read(&path).unwrap());
            }
        }
    }

    fn command(&mut self, what: &str, command: &mut Command) -> i32 {
        let output = command.stdin(Stdio::null()).output().unwrap();
        self.look(&format!("{what}, standard output"), &output.stdout);
        self.look(&format!("{what}, standard error"), &output.stderr);
        output.status.code().unwrap_or(-1)
    }
}

/// The scene: a camera and a broker that want passwords, and a configuration that names files.
struct Scene {
    dir: tempfile::TempDir,
    broker: Broker,
    server: RtspServer,
    web: String,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let passwords = dir.path().join("broker-passwords");
        fs::write(&passwords, "").unwrap();
        let made = Command::new("mosquitto_passwd").arg("-b").arg(&passwords).args([USER, BROKER]).status().unwrap();
        assert!(made.success());
        let broker =
            Broker::start(dir.path(), &format!("allow_anonymous false\npassword_file {}", passwords.display()));
        let server = RtspServer::start(
            &["--loop", "--user", USER, "--password", CAMERA, "c=tests/data/bright.mp4"].map(str::to_owned),
        );
        Self { dir, broker, server, web: format!("127.0.0.1:{}", free_port()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn secret(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Passwords into their files, and a configuration beside them.
    fn configure(&self, camera: &str, broker: &str) -> PathBuf {
        self.secret("login", &format!("{USER}:{camera}\n"));
        self.secret("mqtt-user", &format!("{USER}\n"));
        self.secret("mqtt-password", &format!("{broker}\n"));
        let text = format!(
            "[device]\nname = \"box\"\ngroup = \"test\"\nstate_dir = \"state\"\n[web]\nlisten = \"{}\"\n\
             [engine]\nbackend = \"tract\"\n\
             [mqtt]\nurl = \"{}\"\nusername_file = \"mqtt-user\"\npassword_file = \"mqtt-password\"\n\
             [[model]]\nname = \"m\"\npath = \"{}\"\n\
             [[camera]]\nname = \"front\"\nsource = \"{}\"\ncredentials_file = \"login\"\nstall_timeout_s = 3\n\
             [[camera]]\nname = \"query\"\nsource = \"rtsp://127.0.0.1:{}/x?channel=1&password={IN_QUERY}\"\n",
            self.web,
            self.broker.url(),
            root().join("tests/data/packages/tiny-bright").display(),
            self.server.url("c"),
            free_port(),
        );
        let path = self.path("kinewatch.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// The daemon with every log at its most talkative.
    fn daemon(&self, config: &Path, format: &str) -> Process {
        let mut command = self.loud();
        command.args(["run", "-vv", "--log-format", format, "--config"]).arg(config);
        Process::start(command, Stream::Stderr)
    }

    fn loud(&self) -> Command {
        let mut command = kinewatch();
        command.env("RUST_LOG", "trace,h2=info").env("GST_DEBUG", "4,rtsp*:9,rtp*:5,GST_PIPELINE:9,GST_PARENTAGE:7");
        command.env("G_MESSAGES_DEBUG", "all").env("GST_DEBUG_DUMP_DOT_DIR", self.path("dots"));
        command.env("RUST_BACKTRACE", "1");
        command
    }

    fn get(&self, path: &str) -> Option<String> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.web).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn pages(&self, search: &mut Search, when: &str) {
        for page in ["/", "/metrics", "/healthz", "/readyz", "/status"] {
            search.look(&format!("{page}, {when}"), self.get(page).unwrap());
        }
    }

    fn commands(&self, search: &mut Search, config: &Path, when: &str) {
        let uses = |args: &[&str]| {
            let mut command = self.loud();
            command.args(args).arg("--config").arg(config);
            command
        };
        for args in [&["check-config"][..], &["check-config", "--json"], &["doctor", "-vv"], &["doctor", "--json"]] {
            search.command(&format!("{} {when}", args.join(" ")), &mut uses(args));
        }
        search.command(&format!("devices {when}"), self.loud().arg("devices"));
    }
}

/// What the system shows of a process to others.
fn process(search: &mut Search, log: &Process, when: &str) {
    for file in ["cmdline", "environ", "status", "comm"] {
        let text = fs::read(format!("/proc/{}/{file}", log.id())).unwrap();
        search.look(&format!("/proc/PID/{file} {when}"), text);
    }
}

#[test]
fn no_password_comes_out() {
    let scene = Scene::new();
    let mut search = Search::default();
    fs::create_dir(scene.path("dots")).unwrap();

    // Refused everywhere.
    let config = scene.configure(WRONG_CAMERA, WRONG_BROKER);
    let mut daemon = scene.daemon(&config, "human");
    daemon.wait_for("the camera's refusal", |l| l.contains("user or password refused"));
    daemon.wait_for("the broker's refusal", |l| {
        l.contains("the broker refuses user name or password") || l.contains("does not authorise")
    });
    wait_until("the web server", || scene.get("/status").is_some_and(|s| s.contains("refused")));
    scene.pages(&mut search, "refused");
    process(&mut search, &daemon, "refused");
    scene.commands(&mut search, &config, "refused");
    daemon.signal("TERM");
    daemon.wait();
    let log = daemon.seen().join("\n");
    assert!(log.contains("rtspconnection") || log.contains("rtspsrc"), "GStreamer's own log is in it");
    search.look("log, refused", log);

    // Let in everywhere; the other form of the log.
    let config = scene.configure(CAMERA, BROKER);
    let mut daemon = scene.daemon(&config, "json");
    wait_until("an event acknowledged", || scene.get("/status").is_some_and(|s| acked(&s) > 0));
    scene.pages(&mut search, "let in");
    process(&mut search, &daemon, "let in");
    scene.commands(&mut search, &config, "let in");
    let mut tail = scene.loud();
    tail.args(["events", "tail", "--json", "--count", "3", "--topic", "#", "--config"]).arg(&config);
    assert_eq!(search.command("events tail", &mut tail), 0);
    daemon.signal("TERM");
    daemon.wait();
    let log = daemon.seen().join("\n");
    assert!(log.contains("channel=1&password=***"), "the address is there, without its secret");
    search.look("log, let in", log);
    search.files("state", &scene.path("state"));
    search.files("dots", &scene.path("dots"));

    // Written where they do not belong.
    let misplaced = |key: &str, value: &str| {
        let text = fs::read_to_string(&config).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        let path = scene.path("misplaced.toml");
        fs::write(&path, text.replacen(line, &format!("{key} = \"{value}\""), 1)).unwrap();
        path
    };
    for (key, value) in [
        ("source", format!("rtsp://{USER}:{IN_URL}@127.0.0.1/c")),
        ("source", format!("rtps://{USER}:{IN_URL}@127.0.0.1/c")),
        ("url", format!("mqtt://{USER}:{IN_URL}@127.0.0.1")),
        ("url", format!("tcp://{USER}:{IN_URL}@127.0.0.1:x")),
        ("credentials_file", format!("{USER}:{IN_URL}")),
    ] {
        let path = misplaced(key, &value);
        for args in
            [&["check-config"][..], &["check-config", "--json"], &["run", "-vv"], &["doctor"], &["doctor", "--json"]]
        {
            let mut command = scene.loud();
            command.args(args).arg("--config").arg(&path);
            let code =
                search.command(&format!("{} with {key} = {}", args[0], value.split('/').next().unwrap()), &mut command);
            assert_eq!(code, 78, "{key} = {value}: {args:?}");
        }
    }
    let url = format!("mqtt://{USER}:{IN_URL}@127.0.0.1");
    assert_ne!(search.command("events tail --broker", scene.loud().args(["events", "tail", "--broker", &url])), 0);

    println!("| place | bytes |\n|---|---|");
    for (place, bytes) in &search.places {
        println!("| {place} | {bytes} |");
    }
    assert!(
        search.places.iter().all(|(place, bytes)| *bytes > 0 || place.contains("standard") || place.contains("state/"))
    );
    assert!(search.found.is_empty(), "passwords came out:\n{}", search.found.join("\n"));
}

/// Messages that the broker has acknowledged, from the status page.
fn acked(answer: &str) -> u64 {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let status: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    status["mqtt"]["acked"].as_u64().unwrap_or(0)
}

/// The search itself finds what is there, in every form.
#[test]
fn the_search_finds_every_form() {
    assert_eq!(base64(b"joe:pass"), "am9lOnBhc3M=");
    for text in [
        format!("a {CAMERA} b"),
        format!("{:?}", CAMERA),
        serde_json::json!({ "x": CAMERA }).to_string(),
        "pw=Kq7%21cam%5Cera%2Fpa%25s%3Aw%40r%22d".into(),
        format!("Authorization: Basic {}", base64(format!("{USER}:{CAMERA}").as_bytes())),
    ] {
        let mut search = Search::default();
        search.look("t", &text);
        assert!(!search.found.is_empty(), "{text}");
    }
    let mut search = Search::default();
    search.look("t", "nothing of the kind: *** and joe");
    assert_eq!(search.found, [""; 0]);
}
