//! Whether a camera's frames come, by the agent's own count.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::rig::{Agent, pause};

/// Sampled frames a second of a camera that is well.
pub(crate) const RATE_HZ: f64 = 10.0;
/// Frames come again when this part of the usual rate holds over [`WINDOW`].
const ENOUGH: f64 = 0.7;
const WINDOW: Duration = Duration::from_secs(1);

/// How long after `since` the first frame came of a second in which they came at their usual rate; an error after `limit`.
pub(crate) fn again(agent: &Agent, camera: &str, since: Instant, limit: Duration) -> anyhow::Result<Duration> {
    let mut counts = VecDeque::new();
    loop {
        let now = Instant::now();
        if let Some(frames) = agent.of_camera("frames_total", camera) {
            counts.push_back((now, frames));
            // The newest count that is a window old or older begins the window.
            while counts.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
                counts.pop_front();
            }
            let (begin, before) = counts[0];
            let seconds = (now - begin).as_secs_f64();
            if seconds >= WINDOW.as_secs_f64() && (frames - before) / seconds >= ENOUGH * RATE_HZ {
                let first = counts.iter().find(|(_, frames)| *frames > before).map_or(begin, |(at, _)| *at);
                return Ok(first.saturating_duration_since(since));
            }
        }
        if now.saturating_duration_since(since) > limit + WINDOW {
            let last = agent.get("/status").map(|(_, body)| body).unwrap_or_default();
            bail!("no frames of {camera} {limit:?} after the cause ended; status: {last}");
        }
        pause(Duration::from_millis(50));
    }
}
