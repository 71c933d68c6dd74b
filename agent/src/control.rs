//! The control socket: the same commands as over MQTT, for who may open a socket in the state directory (root, and the
//! service's own user). `kinewatch model …` speaks to the daemon through it, so that it works without a broker.
//!
//! One request a connection, one line each way: the command's name, a blank, its JSON payload; then a `CommandReply`. A task
//! of the control runtime; bounded in size, time and number. A socket that cannot be made is said and done without.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kinewatch_core::command::{self, CommandReply};
use kinewatch_core::topic::Audience;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::commands::Parts;

/// Connections at once; more wait.
const CONNECTIONS: usize = 4;
/// How long a connection may take, beyond the command's own limit.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest request, bytes: a name, a blank, a payload.
const MAX_REQUEST: u64 = command::MAX_PAYLOAD as u64 + 128;

/// Where the socket of an agent with this state directory is.
#[must_use]
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("control")
}

/// Serves until its task is aborted.
pub async fn run(state_dir: PathBuf, parts: Arc<Parts>) {
    let path = path(&state_dir);
    let listener = match listen(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no control socket: `kinewatch model` cannot reach this agent");
            return;
        }
    };
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files, or the like.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let parts = Arc::clone(&parts);
        tokio::spawn(async move {
            let _late_or_gone = tokio::time::timeout(LIMIT, serve(stream, &parts)).await;
            drop(seat);
        });
    }
}

/// The lock of the store says that no other agent runs here, so a socket that lies there is a dead one's.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

async fn serve(mut stream: UnixStream, parts: &Parts) -> io::Result<()> {
    let mut line = String::new();
    let (reader, mut writer) = stream.split();
    BufReader::new(reader.take(MAX_REQUEST)).read_line(&mut line).await?;
    let (name, payload) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
    let (id, outcome) = match command::parse(name, payload.as_bytes()) {
        Ok(request) => (request.id, parts.execute(Audience::Device, request.command).await),
        Err(error) => (None, Err(error)),
    };
    let reply = CommandReply::new(name, &parts.shared.device, id, outcome);
    let mut answer = serde_json::to_vec(&reply)?;
    answer.push(b'\n');
    writer.write_all(&answer).await
}

/// Why a running agent was not asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// None runs with this state directory.
    #[error("no agent runs here ({}: {source}); start it with `systemctl start kinewatch`", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// Why it does not answer.
        source: io::Error,
    },
    /// The socket is not ours to open.
    #[error("{}: not permitted; run it with sudo, or as the service's user", path.display())]
    NotPermitted {
        /// The socket.
        path: PathBuf,
    },
    /// It answers, but with nothing that can be read.
    #[error("the agent's answer cannot be read: {0}")]
    Unreadable(String),
}

/// Asks the agent that runs with this state directory. Blocks until it has answered, for some seconds at most.
///
/// # Errors
/// There is none, or it does not answer.
pub fn ask(state_dir: &Path, name: &str, payload: &str) -> Result<CommandReply, AskError> {
    use std::io::{Read, Write};
    let path = path(state_dir);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::NotPermitted { path: path.clone() },
        _ => AskError::NotRunning { path: path.clone(), source },
    };
    let mut stream = std::os::unix::net::UnixStream::connect(&path).map_err(failed)?;
    let unreadable = |error: io::Error| AskError::Unreadable(error.to_string());
    stream.set_read_timeout(Some(LIMIT + LIMIT)).map_err(unreadable)?;
    stream.write_all(format!("{name} {payload}\n").as_bytes()).map_err(unreadable)?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer).map_err(unreadable)?;
    serde_json::from_str(&answer).map_err(|error| AskError::Unreadable(error.to_string()))
}
