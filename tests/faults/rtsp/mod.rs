//! What can become of a camera on a network, one fault at a time: 14 kinds, each hitting a stream in the middle of an action.
//!
//! Each has a stage of its own: an agent with its usual configuration that watches two cameras, the patient behind a proxy and
//! a neighbour. Promised: the patient's frames come again within [`AGAIN`] of the end of the cause; the agent is not
//! restarted; the neighbour notices nothing; the action that was open ends (`stream_lost`) or goes on with its time line; no
//! action is invented.

mod faults;
mod frames;
mod names;
mod reconnects;
mod stage;

pub(crate) use faults::*;
pub(crate) use names::run as names;
pub(crate) use reconnects::run as reconnects;

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::bench::{Context, Outcome};
use crate::media::Clip;
use crate::rig::pause;
use stage::Stage;

/// Frames come again within this of the end of the cause.
const AGAIN: Duration = Duration::from_secs(10);
/// Until a whole action was seen after that: the clip has one every 6 s.
const ACTION: Duration = Duration::from_secs(30);

/// One kind of fault.
pub(crate) struct Fault {
    /// For the table.
    tried: &'static str,
    /// `tcp` or `udp`.
    transport: &'static str,
    /// What the patient shows.
    clip: Clip,
    /// What the fault does to the stream.
    effect: Effect,
    /// Lets it happen.
    begin: fn(&mut Stage) -> anyhow::Result<()>,
    /// How long its cause lasts, seconds: in a long and in a quick run.
    lasts_s: (u32, u32),
    /// Takes the cause away.
    end: fn(&mut Stage) -> anyhow::Result<()>,
}

/// What a fault does to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The session is over: the open action ends with `stream_lost`, what comes later is another session.
    Lost,
    /// The time line goes on, and the open action with it.
    GoesOn,
    /// It goes on, but the pictures change in the middle of the action, which is therefore shorter.
    CutShort,
    /// It breaks off, but not in an action.
    Breaks,
    /// It goes on or not; pictures are missing or wrong, so boundaries may be as far off as the nearest good one.
    Blurs,
}

/// Runs the scenario of one fault.
pub(crate) fn run(fault: &Fault, context: &Context) -> anyhow::Result<Outcome> {
    let mut stage = Stage::start(&context.folder, fault.clip, fault.transport)?;
    stage.await_open_action()?;
    let before = stage.look()?;
    (fault.begin)(&mut stage)?;
    let lasts = Duration::from_secs(context.count(fault.lasts_s.0, fault.lasts_s.1).into());
    pause(lasts);
    stage.agent.must_live()?;
    (fault.end)(&mut stage)?;
    let ended = Instant::now();
    let again = stage.frames_again(ended, AGAIN)?;
    stage.await_whole_action(ACTION)?;
    let after = stage.look()?;
    let lost = after.sessions > before.sessions;
    ensure!(
        fault.effect == Effect::Blurs || lost == (fault.effect == Effect::Lost),
        "sessions {} → {}: {:?} was expected",
        before.sessions,
        after.sessions,
        fault.effect
    );
    let judged = stage.finish(&before, fault.effect)?;
    let length = if lasts.is_zero() { String::new() } else { format!(" for {} s", lasts.as_secs()) };
    let fate = match fault.effect {
        Effect::GoesOn => "its time line and open action went on",
        _ if lost => "its open action ended with `stream_lost`",
        _ => "its time line went on",
    };
    Ok(Outcome::new(
        format!("{}{length}", fault.tried),
        format!("frames again after {:.1} s; {fate}; {judged}", again.as_secs_f64()),
    ))
}
