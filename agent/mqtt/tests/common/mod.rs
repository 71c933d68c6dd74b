//! What the tests share: a real mosquitto, a feeder with a list for an outbox, a subscriber, deadlines.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub(crate) mod fake;
#[path = "../../../../tests/support/ports.rs"]
mod ports;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use kinewatch_mqtt::{
    Client, DisconnectReason, Endpoint, Options, Outgoing, Protocol, Signal, Tail, Version, subscribe,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

pub(crate) use ports::free_port;

pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// One generous deadline for everything that is waited for.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

pub(crate) fn options(url: &str, id: &str) -> Options {
    Options::new(Endpoint::parse(url).unwrap(), id)
}

/// A mosquitto of our own on a free port; killed when dropped.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    config: PathBuf,
    child: Child,
    pub(crate) dir: tempfile::TempDir,
}

impl Mosquitto {
    pub(crate) async fn start() -> Self {
        Self::with("allow_anonymous true\n", |_| {}).await
    }

    /// `extra` is appended to the configuration, `{dir}` in it replaced; `prepare` writes files there first.
    pub(crate) async fn with(extra: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let port = free_port();
        let config = dir.path().join("mosquitto.conf");
        let extra = extra.replace("{dir}", &dir.path().to_string_lossy());
        // As root it would change to a user who cannot read our temporary directory.
        std::fs::write(&config, format!("listener {port} 127.0.0.1\nuser root\npersistence false\n{extra}")).unwrap();
        let child = spawn(&config);
        Self { port, config, child, dir }
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// SIGKILL: no goodbye to anybody, nothing kept.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.config);
    }
}

/// Starts mosquitto and returns when it says that it runs.
fn spawn(config: &Path) -> Child {
    let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"];
    let program = program.iter().find(|p| Path::new(p).exists()).copied().unwrap_or("mosquitto");
    let mut child = Command::new(program)
        .arg("-v")
        .arg("-c")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("these tests need mosquitto (apt-get install mosquitto)");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("running")), "mosquitto ended before it listened");
    // It must not block on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client and the list of what it has to deliver, in place of the store.
pub(crate) struct Feeder {
    pub(crate) client: Client,
    pub(crate) signals: mpsc::Receiver<Signal>,
    pub(crate) unacked: BTreeMap<u64, String>,
    pub(crate) acked: BTreeSet<u64>,
    pub(crate) refused: Vec<(u64, u8)>,
    pub(crate) deferred: Vec<(u64, u8)>,
    /// Filters refused, by answer to a subscription.
    pub(crate) subscribed: Vec<Vec<String>>,
    pub(crate) reasons: Vec<DisconnectReason>,
    pub(crate) connections: Vec<Version>,
    /// Blanks that make a message as large as a real one.
    pub(crate) padding: usize,
    generation: Option<u64>,
    next: u64,
    /// Put off by the broker: next in line.
    again: BTreeSet<u64>,
}

pub(crate) const TOPIC: &str = "kinewatch/v1/home/box/evt/room/fall";

impl Feeder {
    pub(crate) fn new(options: Options, messages: std::ops::RangeInclusive<u64>) -> Self {
        let (client, signals) = Client::spawn(options, &Handle::current());
        Self {
            client,
            signals,
            unacked: messages.map(|s| (s, TOPIC.to_owned())).collect(),
            acked: BTreeSet::new(),
            refused: Vec::new(),
            deferred: Vec::new(),
            subscribed: Vec::new(),
            reasons: Vec::new(),
            connections: Vec::new(),
            padding: 0,
            generation: None,
            next: 0,
            again: BTreeSet::new(),
        }
    }

    /// Feed and listen until `done`; the deadline is on all of it.
    pub(crate) async fn run(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        within(what, async {
            while !done(self) {
                self.step().await;
            }
        })
        .await;
    }

    async fn step(&mut self) {
        let sender = self.client.outgoing();
        let candidate = self.generation.and_then(|generation| {
            let again = self.again.first().and_then(|sequence| self.unacked.get_key_value(sequence));
            let (sequence, topic) = again.or_else(|| self.unacked.range(self.next..).next())?;
            let payload = Bytes::from(format!("{sequence}{}", " ".repeat(self.padding)));
            Some(Outgoing { generation, sequence: *sequence, topic: topic.clone(), payload })
        });
        tokio::select! {
            signal = self.signals.recv() => self.signal(signal.expect("the client lives")),
            permit = sender.reserve(), if candidate.is_some() => {
                let message = candidate.unwrap();
                self.again.remove(&message.sequence);
                self.next = self.next.max(message.sequence + 1);
                permit.unwrap().send(message);
            }
        }
    }

    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Connected { generation, protocol } => {
                (self.generation, self.next) = (Some(generation), 0);
                self.again.clear();
                self.connections.push(protocol);
            }
            Signal::Disconnected { reason } => {
                self.generation = None;
                self.reasons.push(reason);
            }
            Signal::Acked { sequence } => {
                assert!(self.unacked.remove(&sequence).is_some(), "{sequence} acknowledged twice or never sent");
                self.acked.insert(sequence);
            }
            Signal::Refused { sequence, code } => {
                self.unacked.remove(&sequence);
                self.refused.push((sequence, code));
            }
            Signal::Deferred { sequence, code } => {
                self.again.insert(sequence);
                self.deferred.push((sequence, code));
            }
            Signal::Subscribed { refused } => self.subscribed.push(refused),
        }
    }
}

/// Everything a subscriber hears, through the crate's own `subscribe`.
pub(crate) struct Subscriber {
    heard: mpsc::UnboundedReceiver<Tail>,
    task: tokio::task::JoinHandle<()>,
}

impl Subscriber {
    /// Returns when it is subscribed.
    pub(crate) async fn start(url: &str, protocol: Protocol, filter: &str) -> Self {
        let mut subscriber = Self::with(Options { protocol, ..options(url, "subscriber") }, filter);
        within("subscribed", async { while !matches!(subscriber.next().await, Tail::Subscribed { .. }) {} }).await;
        subscriber
    }

    pub(crate) fn with(options: Options, filter: &str) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let filter = filter.to_owned();
        let task = tokio::spawn(async move {
            let on = |tail| if sender.send(tail).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            subscribe(&options, &[filter], on).await;
        });
        Self { heard, task }
    }

    pub(crate) async fn next(&mut self) -> Tail {
        within("the subscriber hears", self.heard.recv()).await.expect("the subscriber lives")
    }

    pub(crate) async fn message(&mut self) -> (String, String, bool) {
        loop {
            if let Tail::Message { topic, payload, retained } = self.next().await {
                return (topic, String::from_utf8(payload.to_vec()).unwrap(), retained);
            }
        }
    }

    /// Numbers heard until all of `wanted` were; each only the first time.
    pub(crate) async fn numbers(&mut self, wanted: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut missing: BTreeSet<u64> = wanted.into_iter().collect();
        let mut order = Vec::new();
        while !missing.is_empty() {
            let number = self.message().await.1.trim().parse().unwrap();
            if missing.remove(&number) {
                order.push(number);
            }
        }
        order
    }

    pub(crate) fn heard_so_far(&mut self) -> Vec<Tail> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}
