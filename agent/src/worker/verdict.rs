//! What a child's last words and the way it ended say about the model. Pure.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use kinewatch_core::rollout::{Code, Fault, Gates};
use kinewatch_engine::is_of_memory;
use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGTERM};

use super::protocol::{Message, Proof, Step};

/// Whose limit holds for the memory of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// The release's: it promises to need no more.
    Gate,
    /// That of every child.
    Device,
}

/// The last that was heard.
#[derive(Debug, PartialEq)]
pub(super) enum Last {
    Nothing,
    Step(Step),
    Done(Proof),
    Failed(Fault),
}

impl Last {
    /// Takes a line of the child; others than messages come from libraries, and say nothing.
    pub(super) fn hear(&mut self, line: &str, on_step: &mut dyn FnMut(Step)) {
        match serde_json::from_str(line) {
            // What it has said last stands: it cannot go on after that.
            Ok(_) if matches!(self, Self::Done(_) | Self::Failed(_)) => {}
            Ok(Message::Step(step)) => {
                on_step(step);
                *self = Self::Step(step);
            }
            Ok(Message::Done(proof)) => *self = Self::Done(proof),
            Ok(Message::Failed(fault)) => *self = Self::Failed(Fault::new(fault.code, fault.detail)),
            Err(_) => tracing::debug!(line = line.trim_end(), "the model worker printed something else"),
        }
    }

    pub(super) fn step(&self) -> &'static str {
        match self {
            Self::Nothing => "start",
            Self::Step(step) => step.name(),
            Self::Done(_) | Self::Failed(_) => "end",
        }
    }
}

/// It ended without an answer, or not well after one. `memory`: whose limit of its memory was in force.
pub(super) fn without_answer(last: &Last, status: ExitStatus, stderr: &str, memory: Bound) -> Fault {
    let words = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let how = match (status.signal(), words) {
        (Some(signal), "") => format!("killed by {}", signal_name(signal)),
        (Some(signal), words) => format!("killed by {}: {words}", signal_name(signal)),
        (None, "") => format!("ended with {status}"),
        (None, words) => format!("ended with {status}: {words}"),
    };
    let detail = format!("{how}, in step {}", last.step());
    let code = match (status.signal(), last) {
        // When there is no memory the kernel kills who is first in line. Who oversteps a limit of ours is told otherwise.
        (Some(SIGKILL), _) => Code::NoMemory,
        (Some(SIGHUP | SIGINT | SIGTERM), _) => Code::Interrupted,
        // It has not even looked at the model.
        (_, Last::Nothing) if is_of_memory(stderr) && memory == Bound::Device => Code::NoMemory,
        _ if is_of_memory(stderr) => Code::WorkerMemory,
        (_, Last::Nothing) => Code::WorkerUnavailable,
        _ => Code::WorkerCrashed,
    };
    Fault::new(code, detail)
}

/// The proof, when it passes the gates.
pub(super) fn passed(proof: Proof, gates: &Gates) -> Result<Proof, Fault> {
    let p99 = proof.p99_ms;
    // A figure that is no number is within nothing.
    let within = |value: f64, most: f64| value <= most;
    if let Some(most) = gates.latency_p99_ms.filter(|most| !within(p99, *most)) {
        let detail = format!("a window takes up to {p99:.1} ms (p99), {most} ms are allowed");
        return Err(Fault::new(Code::TooSlowModel, detail));
    }
    if !within(proof.p50_ms, proof.stride_ms) {
        let (takes, has) = (proof.p50_ms, proof.stride_ms);
        let detail = format!("a window takes {takes:.1} ms, and one camera alone asks for one every {has:.1} ms");
        return Err(Fault::new(Code::TooSlowModel, detail));
    }
    if let Some(most) = gates.peak_memory_mb.filter(|most| proof.peak_memory_mb > *most) {
        let detail = format!("{} MiB at its peak, {most} MiB are allowed", proof.peak_memory_mb);
        return Err(Fault::new(Code::WorkerMemory, detail));
    }
    Ok(proof)
}

fn signal_name(signal: i32) -> String {
    match signal {
        4 => "SIGILL".into(),
        6 => "SIGABRT".into(),
        7 => "SIGBUS".into(),
        8 => "SIGFPE".into(),
        9 => "SIGKILL".into(),
        11 => "SIGSEGV".into(),
        15 => "SIGTERM".into(),
        other => format!("signal {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof() -> Proof {
        Proof { p50_ms: 5.0, p99_ms: 9.0, stride_ms: 200.0, peak_memory_mb: 90, ..Proof::default() }
    }

    #[test]
    fn gates_hold() {
        let gates = |latency_p99_ms, peak_memory_mb| Gates { latency_p99_ms, peak_memory_mb, ..Gates::default() };
        assert_eq!(passed(proof(), &gates(Some(9.0), Some(90))), Ok(proof()));
        let code = |proof, gates: &Gates| passed(proof, gates).unwrap_err().code;
        assert_eq!(code(proof(), &gates(Some(8.9), None)), Code::TooSlowModel);
        assert_eq!(code(proof(), &gates(None, Some(89))), Code::WorkerMemory);
        assert_eq!(code(Proof { p50_ms: 201.0, ..proof() }, &gates(None, None)), Code::TooSlowModel);
        assert_eq!(code(Proof { p50_ms: f64::NAN, ..proof() }, &gates(None, None)), Code::TooSlowModel);
        assert_eq!(code(Proof { p99_ms: f64::NAN, ..proof() }, &gates(Some(1e9), None)), Code::TooSlowModel);
    }

    #[test]
    fn an_end_without_an_answer_is_told_apart() {
        let of = |last: &Last, raw, stderr: &str, bound| without_answer(last, ExitStatus::from_raw(raw), stderr, bound);
        let code = |last: &Last, raw, stderr: &str| of(last, raw, stderr, Bound::Device).code;
        let open = Last::Step(Step::Open);
        assert_eq!(code(&open, 11, ""), Code::WorkerCrashed);
        assert_eq!(code(&open, 101 << 8, "thread 'main' panicked"), Code::WorkerCrashed);
        assert_eq!(code(&open, 0, ""), Code::WorkerCrashed);
        assert_eq!(code(&Last::Done(proof()), 11, ""), Code::WorkerCrashed, "its memory was not sound");
        let words = "memory allocation of 99 bytes failed";
        assert_eq!(code(&open, 6, words), Code::WorkerMemory, "its own limit: the kernel promises any amount");
        assert_eq!(code(&Last::Nothing, 6, words), Code::NoMemory, "it has not looked at the model");
        assert_eq!(of(&Last::Nothing, 6, words, Bound::Gate).code, Code::WorkerMemory, "a gate that nothing passes");
        for last in [&Last::Nothing, &open, &Last::Step(Step::Bench)] {
            assert_eq!(code(last, 9, ""), Code::NoMemory, "{last:?}: the kernel's killer");
            assert_eq!(code(last, 15, ""), Code::Interrupted, "{last:?}: somebody stops all that runs");
        }
        assert_eq!(code(&Last::Nothing, 1 << 8, "no such option"), Code::WorkerUnavailable);
        let fault = of(&open, 8, "a\nlast line\n\n", Bound::Device);
        assert_eq!(fault.detail, "killed by SIGFPE: last line, in step open");
    }

    #[test]
    fn words_after_the_last_one_change_nothing() {
        let mut last = Last::Nothing;
        let mut steps = Vec::new();
        let mut hear = |line: &str| last.hear(line, &mut |step| steps.push(step));
        hear("a library's banner");
        hear(r#"{"step":"open"}"#);
        hear(r#"{"failed":{"code":"not_finite","detail":"x"}}"#);
        hear(r#"{"done":{}}"#);
        hear(r#"{"step":"bench"}"#);
        assert_eq!(last, Last::Failed(Fault::new(Code::NotFinite, "x")));
        assert_eq!(steps, [Step::Open]);
    }
}
