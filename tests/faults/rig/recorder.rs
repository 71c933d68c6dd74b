//! A subscriber that hears everything, writes it down and judges it while it comes.
//!
//! Its subscription is made and acknowledged before the value exists, in a session that the broker keeps: nothing that is
//! published from then on can be missing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::wait_until;
use crate::support::check::{Checker, Closure, Verdict};

/// A running `mosquitto_sub` and all it heard.
pub(crate) struct Recorder {
    port: u16,
    path: PathBuf,
    heard: Arc<Mutex<Heard>>,
    process: Child,
    reader: Option<JoinHandle<()>>,
}

/// What was heard so far.
#[derive(Default)]
pub(crate) struct Heard {
    /// Judges the events.
    pub(crate) checker: Checker,
    /// The newest payload of every other topic.
    pub(crate) states: BTreeMap<String, Value>,
}

impl Recorder {
    /// Subscribes to everything at the broker on `port`; lines go to `heard.tsv` in `folder` too.
    pub(crate) fn start(port: u16, folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("heard.tsv");
        let heard = Arc::<Mutex<Heard>>::default();
        let (process, reader) = listen(port, &path, &heard)?;
        Ok(Self { port, path, heard, process, reader: Some(reader) })
    }

    /// Subscribes again at a broker that was restarted and has forgotten the session.
    pub(crate) fn subscribe_again(&mut self) -> anyhow::Result<()> {
        self.end();
        let (process, reader) = listen(self.port, &self.path, &self.heard)?;
        (self.process, self.reader) = (process, Some(reader));
        Ok(())
    }

    /// Looks at what was heard.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until what was heard satisfies `so`.
    pub(crate) fn wait(
        &self,
        what: &str,
        limit: Duration,
        mut so: impl FnMut(&Heard) -> bool,
    ) -> anyhow::Result<Duration> {
        wait_until(what, limit, || self.look(&mut so)).with_context(|| {
            let verdict = self.look(|h| h.checker.verdict(Closure::Open));
            format!("the subscriber had heard {verdict:?}")
        })
    }

    /// The judgement; an error when a promise was broken, or nothing was heard.
    pub(crate) fn verdict(&self, closure: Closure) -> anyhow::Result<Verdict> {
        let verdict = self.look(|h| h.checker.verdict(closure));
        ensure!(verdict.messages > 0, "nothing was heard");
        ensure!(verdict.faults == 0, "{} broken promises: {}", verdict.faults, verdict.examples.join("; "));
        Ok(verdict)
    }

    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end();
    }
}

fn subscription(port: u16) -> Command {
    let mut command = Command::new("mosquitto_sub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", "mqttv5", "-q", "1", "-t", "kinewatch/#"]);
    command.args(["-c", "-i", "recorder", "-k", "20"]).stdin(Stdio::null());
    command
}

fn listen(port: u16, path: &Path, heard: &Arc<Mutex<Heard>>) -> anyhow::Result<(Child, JoinHandle<()>)> {
    // Ends when the broker has acknowledged the subscription, which stays with the session.
    let status = subscription(port).arg("-E").status()?;
    ensure!(status.success(), "mosquitto_sub could not subscribe: {status}");
    let mut process = subscription(port).args(["-F", "%t\t%p"]).stdout(Stdio::piped()).spawn()?;
    let output = process.stdout.take().context("no output")?;
    let file = BufWriter::new(File::options().create(true).append(true).open(path)?);
    let heard = Arc::clone(heard);
    let reader = std::thread::spawn(move || write_down(output, file, &heard));
    Ok((process, reader))
}

fn write_down(output: ChildStdout, mut file: BufWriter<File>, heard: &Mutex<Heard>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let _ = writeln!(file, "{line}");
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.checker.line(&line);
        if let Some((topic, payload)) = line.split_once('\t').filter(|(topic, _)| !topic.contains("/evt/"))
            && let Ok(state) = serde_json::from_str(payload)
        {
            heard.states.insert(topic.to_owned(), state);
        }
    }
}
