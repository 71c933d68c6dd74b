//! The agent under test: the real binary, its log in a file, its metrics over HTTP, its death by any signal.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::{PATIENCE, log_file, wait_until};
use crate::procfs::{self, Usage};
use crate::support;

/// Everything to start an agent from, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    program: PathBuf,
    folder: PathBuf,
    /// Where it keeps its state.
    pub(crate) state: PathBuf,
    web: String,
    config: String,
    /// A command that ends by becoming the agent, such as one that changes what it sees of the machine.
    wrapper: Vec<String>,
}

/// A running agent.
pub(crate) struct Agent {
    process: Child,
    web: String,
    log: PathBuf,
}

impl Setup {
    /// An agent called `box` in the group `test`; `config` is the rest of its configuration. `KINEWATCH` in the environment
    /// names another binary than the one that was built with the bench.
    pub(crate) fn new(folder: &Path, config: impl Into<String>) -> Self {
        Self {
            program: std::env::var_os("KINEWATCH").unwrap_or(env!("CARGO_BIN_EXE_kinewatch").into()).into(),
            folder: folder.to_owned(),
            state: folder.join("state"),
            web: format!("127.0.0.1:{}", support::free_port()),
            config: config.into(),
            wrapper: Vec::new(),
        }
    }

    /// Runs a copy of the binary, so that a build meanwhile changes nothing.
    pub(crate) fn with_own_copy(mut self) -> anyhow::Result<Self> {
        let copy = self.folder.join("kinewatch");
        std::fs::copy(&self.program, &copy)?;
        self.program = copy;
        Ok(self)
    }

    /// Keeps its state elsewhere.
    pub(crate) fn with_state(mut self, state: PathBuf) -> Self {
        self.state = state;
        self
    }

    /// Starts it through another command, which gets the agent's command line as its arguments.
    pub(crate) fn through(mut self, wrapper: Vec<String>) -> Self {
        self.wrapper = wrapper;
        self
    }

    /// The same state with another configuration.
    pub(crate) fn reconfigured(&self, config: impl Into<String>) -> Self {
        Self { config: config.into(), ..self.clone() }
    }

    /// Starts `kinewatch run`.
    pub(crate) fn start(&self) -> anyhow::Result<Agent> {
        let path = self.folder.join("kinewatch.toml");
        let head = format!(
            "[device]\nname = \"box\"\ngroup = \"test\"\nstate_dir = \"{}\"\n\n[web]\nlisten = \"{}\"\n\n[log]\nformat = \"human\"\n\n",
            self.state.display(),
            self.web
        );
        std::fs::write(&path, head + &self.config)?;
        let mut words = self.wrapper.iter().map(std::ffi::OsString::from).chain([self.program.clone().into()]);
        let mut command = Command::new(words.next().context("no program")?);
        command.args(words).args(["run", "--config"]).arg(&path);
        command.env_remove("RUST_LOG").env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
        let log = self.folder.join("kinewatch.log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file(&log));
        Ok(Agent { process: command.spawn()?, web: self.web.clone(), log })
    }

    /// Starts it and waits until it watches.
    pub(crate) fn start_ready(&self) -> anyhow::Result<Agent> {
        let mut agent = self.start()?;
        let began = Instant::now();
        while agent.get("/readyz").is_none_or(|(status, _)| status != 200) {
            if let Some(status) = agent.process.try_wait()? {
                bail!("the agent ended with {status} before it was ready:\n{}", agent.last_words());
            }
            ensure!(began.elapsed() < PATIENCE, "the agent is not ready after {PATIENCE:?}:\n{}", agent.last_words());
            super::pause(Duration::from_millis(25));
        }
        Ok(agent)
    }
}

impl Agent {
    /// Process number.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Memory, descriptors and threads.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        procfs::usage(self.pid())
    }

    /// Status and body of a GET; `None` while nobody answers.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        support::http_get(&self.web, path)
    }

    /// Value of the metric whose line begins with `prefix` (name, and labels or a blank).
    pub(crate) fn metric(&self, prefix: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        value(&text, prefix)
    }

    /// Sum over all metrics whose line begins with `prefix`.
    pub(crate) fn total(&self, prefix: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        Some(text.lines().filter(|l| l.starts_with(prefix)).filter_map(number).sum())
    }

    /// A metric of a camera.
    pub(crate) fn of_camera(&self, metric: &str, camera: &str) -> Option<f64> {
        self.metric(&format!("kinewatch_{metric}{{camera=\"{camera}\"}}"))
    }

    /// Sends a signal by its name, as `kill` does.
    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status()?;
        ensure!(status.success(), "kill -s {name}: {status}");
        Ok(())
    }

    /// `kill -9`, and waits for the body.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// SIGTERM, and waits for it to end well.
    pub(crate) fn stop(&mut self) -> anyhow::Result<Duration> {
        self.signal("TERM")?;
        let began = Instant::now();
        let mut status = None;
        wait_until("the agent to stop", PATIENCE, || {
            status = self.process.try_wait().ok().flatten();
            status.is_some()
        })?;
        let status = status.context("it ended")?;
        ensure!(status.success(), "the agent stopped with {status}:\n{}", self.last_words());
        Ok(began.elapsed())
    }

    /// An error when it is gone: faults of others are no reason to end.
    pub(crate) fn must_live(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the agent ended with {status}:\n{}", self.last_words()),
        }
    }

    /// Whether its log, of all starts in this folder, has a line that contains `text`.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.lines().any(|line| line.contains(text)))
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

fn value(text: &str, prefix: &str) -> Option<f64> {
    number(text.lines().find(|line| line.starts_with(prefix))?)
}

fn number(line: &str) -> Option<f64> {
    line.rsplit(' ').next()?.parse().ok()
}
