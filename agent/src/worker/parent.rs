//! The parent's side: starts a child, bounds it, listens, and judges how it ended. Blocks; any thread may call it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use kinewatch_core::rollout::{Code, Fault, Gates};
use rustix::process::{Pid, Signal, kill_process_group};

use super::limits::{Limits, busy, memory};
use super::protocol::{Job, MAX_LINE, Proof, Step};
use super::verdict::{Bound, Last, passed, without_answer};

/// How often memory and the wish to stop are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Most that is kept of what a child writes to standard error, bytes.
const TAIL: usize = 4096;
/// Most lines that are taken from a child.
const MAX_LINES: usize = 10_000;
/// How long it may take to end after its last word; the driver of a GPU lets go of it here.
const FAREWELL: Duration = Duration::from_secs(30);

/// How a model is not proven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller wanted it to stop; nothing is said about the model.
    #[error("stopped")]
    Stopped,
    /// Why; its code tells whether the release is at fault.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// How a child is started.
#[derive(Clone, Debug)]
pub struct Worker {
    program: PathBuf,
    args: Vec<OsString>,
    busy_ms: Arc<AtomicU64>,
}

impl Worker {
    /// The running binary, even when an upgrade has replaced its file.
    #[must_use]
    pub fn of_this_binary() -> Self {
        Self::new("/proc/self/exe", ["model-worker"])
    }

    /// Another program that speaks the protocol.
    pub fn new(program: impl Into<PathBuf>, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { program: program.into(), args, busy_ms: Arc::default() }
    }

    /// Time of processors that its child has used so far, ms: one that hangs uses none.
    #[must_use]
    pub fn busy_ms(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.busy_ms)
    }

    /// Tries the model of `job` out in a child process, and holds what it shows against `gates` (`latency_p99_ms`,
    /// `peak_memory_mb`). A model that takes longer for a window than one camera leaves for it is refused in any case. Blocks
    /// until it has ended, at most for `limits.wall`; ends it within a tick (50 ms) when `stop` becomes true. `on_step` is
    /// called on this thread.
    ///
    /// # Errors
    /// The model is not proven: [`Fault`] has the reason, and its code says whether the release is at fault.
    pub fn prove(
        &self,
        job: &Job,
        limits: &Limits,
        gates: &Gates,
        stop: &AtomicBool,
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Proof, Refusal> {
        let allowed = gates.peak_memory_mb.map_or(u64::MAX, |mb| mb.saturating_mul(1 << 20));
        let bound = if allowed < limits.memory_bytes { Bound::Gate } else { Bound::Device };
        let limits = Limits { memory_bytes: limits.memory_bytes.min(allowed), ..*limits };
        let mut running = Running::start(self, job, &limits)?;
        let end = running.watch(&limits, stop, on_step)?;
        let tail = running.tail();
        match end {
            End { last: Last::Done(proof), status } if status.success() => Ok(passed(proof, gates)?),
            // The stop itself may have ended it.
            _ if stop.load(Ordering::Relaxed) => Err(Refusal::Stopped),
            End { last: Last::Failed(fault), .. } => Err(fault.into()),
            End { last, status } => Err(without_answer(&last, status, &tail, bound).into()),
        }
    }
}

/// How it came to an end by itself.
struct End {
    last: Last,
    status: ExitStatus,
}

/// A child; it is killed, with all that it has started, when this is dropped.
struct Running {
    child: Child,
    /// Waited for: its number may be another's from now on.
    gone: bool,
    lines: Receiver<String>,
    stderr: Receiver<String>,
    busy_ms: Arc<AtomicU64>,
    /// While it is open the child knows that somebody waits.
    _lifeline: ChildStdin,
}

impl Running {
    fn start(worker: &Worker, job: &Job, limits: &Limits) -> Result<Self, Fault> {
        let failed = |what: &str, e: std::io::Error| Fault::new(Code::WorkerUnavailable, format!("{what}: {e}"));
        let mut child = Command::new(&worker.program)
            .args(&worker.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Of its own, so that its children end with it.
            .process_group(0)
            .spawn()
            .map_err(|e| failed(&worker.program.display().to_string(), e))?;
        let (sender, lines) = sync_channel(16);
        let (tail, stderr) = sync_channel(1);
        let (stdin, stdout, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let id = child.id();
        let (Some(mut stdin), Some(stdout), Some(errors)) = (stdin, stdout, errors) else {
            kill(id);
            return Err(Fault::new(Code::WorkerUnavailable, "it has no pipes"));
        };
        let spawn =
            |name: &str, work: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.into()).spawn(work).map(drop);
        let ready = limits
            .impose(id)
            .and_then(|()| spawn("worker-out", Box::new(move || listen(stdout, &sender))))
            .and_then(|()| spawn("worker-err", Box::new(move || drop(tail.send(last_words(errors))))))
            .and_then(|()| {
                let mut line = serde_json::to_vec(job).map_err(std::io::Error::other)?;
                line.push(b'\n');
                stdin.write_all(&line)
            });
        let running = Self { child, gone: false, lines, stderr, busy_ms: worker.busy_ms(), _lifeline: stdin };
        // A child that died at once is told by its status, not by the pipe.
        ready.or_else(|e| if e.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(e) }).map_err(|e| {
            // `running` is dropped here, and the child with it.
            failed("its limits cannot be set, or it cannot be told its job", e)
        })?;
        Ok(running)
    }

    fn watch(&mut self, limits: &Limits, stop: &AtomicBool, on_step: &mut dyn FnMut(Step)) -> Result<End, Refusal> {
        let deadline = Instant::now() + limits.wall;
        let mut last = Last::Nothing;
        loop {
            match self.lines.recv_timeout(TICK) {
                Ok(line) => last.hear(&line, on_step),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.within(limits, deadline, stop, &last)?;
        }
        // It closed its output, so it is about to end.
        let farewell = deadline.max(Instant::now() + FAREWELL);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    kill(self.child.id());
                    self.gone = true;
                    return Ok(End { last, status });
                }
                Ok(None) => thread::sleep(TICK),
                Err(e) => return Err(Fault::new(Code::WorkerUnavailable, format!("waiting for it: {e}")).into()),
            }
            self.within(limits, farewell, stop, &last)?;
        }
    }

    fn within(&self, limits: &Limits, deadline: Instant, stop: &AtomicBool, last: &Last) -> Result<(), Refusal> {
        if stop.load(Ordering::Relaxed) {
            return Err(Refusal::Stopped);
        }
        if Instant::now() >= deadline {
            let detail = format!("not done within {} s, in step {}", limits.wall.as_secs(), last.step());
            return Err(Fault::new(Code::WorkerTimeout, detail).into());
        }
        if let Some(busy) = busy(self.child.id()) {
            self.busy_ms.store(u64::try_from(busy.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        match memory(self.child.id()) {
            Some(bytes) if bytes > limits.memory_bytes => {
                let (has, may) = (bytes >> 20, limits.memory_bytes >> 20);
                let detail = format!("{has} MiB in step {}, {may} MiB are allowed", last.step());
                Err(Fault::new(Code::WorkerMemory, detail).into())
            }
            _ => Ok(()),
        }
    }

    /// What it wrote to standard error, in the end.
    fn tail(&self) -> String {
        // It has ended; a grandchild that holds the pipe is not waited for.
        self.stderr.recv_timeout(Duration::from_secs(1)).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.gone {
            kill(self.child.id());
            // It has been killed, so this neither blocks for long nor fails.
            let _ = self.child.wait();
        }
    }
}

/// The child and what it has started.
fn kill(id: u32) {
    if let Some(group) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // Fails when there is nobody left in it.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Lines until the end; what libraries print among them is passed on too, and ignored there.
fn listen(pipe: impl Read, lines: &SyncSender<String>) {
    let mut pipe = BufReader::new(pipe);
    for _ in 0..MAX_LINES {
        let mut line = Vec::new();
        match pipe.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
    }
    // Whoever writes more is not listened to, and must not wait for it.
    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
}

fn last_words(mut pipe: impl Read) -> String {
    let (mut tail, mut buffer) = (Vec::new(), [0; TAIL]);
    while let Ok(n) = pipe.read(&mut buffer) {
        if n == 0 {
            break;
        }
        tail.extend_from_slice(&buffer[..n]);
        tail.drain(..tail.len().saturating_sub(TAIL));
    }
    String::from_utf8_lossy(&tail).into_owned()
}
