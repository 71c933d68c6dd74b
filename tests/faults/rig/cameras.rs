//! RTSP cameras under the bench's control: `rtsp-serve` of `agent/capture/examples`, told what to do over its standard input.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context as _, ensure};

use super::{PATIENCE, log_file};
use crate::support::{free_port, root};

/// A server of one or more cameras.
pub(crate) struct Server {
    /// Where it listens on loopback.
    pub(crate) port: u16,
    program: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    running: Option<Running>,
}

struct Running {
    process: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
}

/// The server's program, which lies beside the agent's.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let program = Path::new(env!("CARGO_BIN_EXE_kinewatch")).with_file_name("examples").join("rtsp-serve");
    ensure!(program.exists(), "{} is missing: build with --all-targets, as `make build` does", program.display());
    Ok(program)
}

impl Server {
    /// Serves `NAME=FILE` pairs on a free port, with further options before them.
    pub(crate) fn start(folder: &Path, arguments: &[String]) -> anyhow::Result<Self> {
        Self::start_copy(program()?, folder, arguments)
    }

    /// The same with another copy of the program.
    pub(crate) fn start_copy(program: PathBuf, folder: &Path, arguments: &[String]) -> anyhow::Result<Self> {
        let (folder, arguments) = (folder.to_owned(), arguments.to_vec());
        let mut server = Self { port: free_port(), program, folder, arguments, running: None };
        server.restart()?;
        Ok(server)
    }

    /// Starts it where none runs, on the same port.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let mut command = Command::new(&self.program);
        command.current_dir(root()).arg("--port").arg(self.port.to_string()).args(&self.arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log_file(&self.folder.join("rtsp-serve.log")));
        let mut process = command.spawn()?;
        let (orders, output) = (process.stdin.take().context("no input")?, process.stdout.take().context("no output")?);
        let (send, lines) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.take_while(|line| send.send(line.clone()).is_ok()).for_each(drop);
        });
        self.running = Some(Running { process, orders, lines });
        self.await_line("rtsp://")
    }

    /// Gives an order, such as `clock cam 3600`, and waits until it is done.
    pub(crate) fn order(&mut self, order: &str) -> anyhow::Result<()> {
        let running = self.running.as_mut().context("the server was killed")?;
        writeln!(running.orders, "{order}")?;
        self.await_line(&format!("done {order}"))
    }

    /// Ends it without a goodbye to its clients, but that of the kernel.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.process.kill();
            let _ = running.process.wait();
        }
    }

    /// Where a proxy finds it.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn await_line(&self, beginning: &str) -> anyhow::Result<()> {
        let running = self.running.as_ref().context("the server was killed")?;
        loop {
            let line = running.lines.recv_timeout(PATIENCE);
            let line = line.with_context(|| format!("rtsp-serve did not say `{beginning}`; see its log"))?;
            ensure!(!line.starts_with("refused"), "rtsp-serve: {line}");
            if line.starts_with(beginning) {
                return Ok(());
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
