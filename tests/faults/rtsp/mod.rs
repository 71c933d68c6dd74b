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
    /// What the fault does to the session.
    effect: Effect,
    /// And to the pictures.
    pictures: Pictures,
    /// Lets it happen.
    begin: fn(&mut Stage) -> anyhow::Result<()>,
    /// How long its cause lasts, seconds: in a long and in a quick run.
    lasts_s: (u32, u32),
    /// Takes the cause away.
    end: fn(&mut Stage) -> anyhow::Result<()>,
}

/// What a fault does to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It is over: the open action ends with `stream_lost`, what comes later is another session.
    Lost,
    /// It goes on, and the open action with it.
    GoesOn,
    /// The one or the other.
    Either,
}

/// What is told of the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pictures {
    /// Each action from its begin to its end, or up to where the stream broke off.
    Whole,
    /// The same, but one was changed for another within an action.
    Changed,
    /// Some are missing or wrong, so that boundaries may lie as far off as the nearest good one.
    Poor,
}

/// Runs the scenario of one fault.
pub(crate) fn run(fault: &Fault, context: &Context) -> anyhow::Result<Outcome> {
    let mut stage = Stage::start(&context.folder, [fault.clip, Clip::Plain], fault.transport)?;
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
        fault.effect == Effect::Either || lost == (fault.effect == Effect::Lost),
        "sessions {} → {}: {:?} was expected",
        before.sessions,
        after.sessions,
        fault.effect
    );
    if lost {
        stage.ensure_an_action_was_lost()?;
    }
    let judged = stage.finish(&before, fault.pictures)?;
    let length = if lasts.is_zero() { String::new() } else { format!(" for {} s", lasts.as_secs()) };
    let fate =
        if lost { "the open action ended with `stream_lost`" } else { "the session and its open action went on" };
    Ok(Outcome::new(
        format!("{}{length}", fault.tried),
        format!("frames again after {:.1} s; {fate}; {judged}", again.as_secs_f64()),
    ))
}
