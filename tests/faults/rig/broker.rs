//! A mosquitto that can be killed and started again on its port. It keeps nothing over a restart and queues without limit.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{PATIENCE, log_file, wait_until};
use crate::support::{free_port, mosquitto};

/// A broker on loopback.
pub(crate) struct Mosquitto {
    /// Where it listens.
    pub(crate) port: u16,
    folder: PathBuf,
    process: Option<Child>,
}

impl Mosquitto {
    /// Starts it on a free port.
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut broker = Self::absent(folder);
        broker.restart()?;
        Ok(broker)
    }

    /// A port on which none listens yet.
    pub(crate) fn absent(folder: &Path) -> Self {
        Self { port: free_port(), folder: folder.to_owned(), process: None }
    }

    /// Starts it where none runs.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let config = self.folder.join("mosquitto.conf");
        // Nothing of ours may be dropped by a queue of the broker's.
        let limits = "max_queued_messages 0\nmax_inflight_messages 0\npersistence false\n";
        std::fs::write(&config, format!("listener {} 127.0.0.1\nallow_anonymous true\n{limits}", self.port))?;
        let mut command = Command::new(mosquitto());
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        self.process = Some(command.stderr(log_file(&self.folder.join("mosquitto.log"))).spawn()?);
        let port = self.port;
        wait_until("mosquitto to listen", PATIENCE, || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(())
    }

    /// Ends it without a goodbye to its clients.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// The address for `[mqtt] url`.
    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}
