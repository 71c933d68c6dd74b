//! A child process with a time limit: whatever may hang or die does so there.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longest output that is kept, bytes; the rest is read and forgotten, so that the child does not wait.
const MAX_BYTES: u64 = 1 << 20;

/// What a child did.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A child did not end as children do.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It did not start.
    #[error("{program} cannot be started ({reason})")]
    Start {
        /// Program.
        program: String,
        /// The system's words.
        reason: std::io::Error,
    },
    /// It was killed at the time limit.
    #[error("{program} did not finish within {seconds} s")]
    Late {
        /// Program.
        program: String,
        /// The limit.
        seconds: u64,
    },
}

/// Runs a command to its end, or kills it at the limit.
///
/// # Errors
/// It cannot be started, or takes too long.
pub fn run(mut command: Command, limit: Duration) -> Result<Output, ChildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let end = Instant::now() + limit;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|reason| ChildError::Start { program: program.clone(), reason })?;
    let (stdout, stderr) = (drained(child.stdout.take()), drained(child.stderr.take()));
    let text = |pipe: Receiver<String>| pipe.recv_timeout(end.saturating_duration_since(Instant::now()));
    // The pipes close when the child ends, so waiting for them is waiting for it.
    let (Ok(stdout), Ok(stderr)) = (text(stdout), text(stderr)) else {
        kill(&mut child);
        return Err(ChildError::Late { program, seconds: limit.as_secs() });
    };
    let status = child.wait().map_err(|reason| ChildError::Start { program, reason })?;
    Ok(Output { status, stdout, stderr })
}

fn kill(child: &mut Child) {
    // Both fail only when it has just ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

fn drained(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (send, text) = sync_channel(1);
    let body = move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.by_ref().take(MAX_BYTES).read_to_end(&mut bytes);
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        let _nobody_waits = send.send(String::from_utf8_lossy(&bytes).into_owned());
    };
    // Without a thread the sender is dropped, and the child counts as late.
    let _ = thread::Builder::new().name("doctor-pipe".into()).spawn(body);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_come_back_and_hanging_ends() {
        let output = run(sh("echo a; echo b >&2; exit 3"), Duration::from_secs(60)).unwrap();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.status.code()), ("a\n", "b\n", Some(3)));
        let output = run(sh("head -c 3000000 /dev/zero"), Duration::from_secs(60)).unwrap();
        assert_eq!(output.stdout.len() as u64, MAX_BYTES);
        let error = run(sh("exec sleep 1000"), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, ChildError::Late { .. }), "{error}");
        assert!(run(Command::new("/nonexistent/program"), Duration::from_secs(1)).is_err());
    }
}
