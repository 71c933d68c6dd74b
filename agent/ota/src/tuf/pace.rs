//! How slow a transfer may be, how fast it is allowed to be, and how long to wait before the next try.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::Refused;
use super::http::{failed, shown};

/// Bounds on time. None of them bounds a transfer as a whole: a large model on a slow line takes as long as it takes, as
/// long as bytes keep coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Longest time to connect, TLS included.
    pub connect: Duration,
    /// Longest time for the head of an answer; and the time over which `minimum_bytes_per_s` is measured.
    pub window: Duration,
    /// Slower is cut off (slow-loris). Under a rate limit below twice this, half the limit counts.
    pub minimum_bytes_per_s: u64,
    /// Most bytes per second that are taken.
    pub rate_limit_bytes_per_s: Option<NonZeroU64>,
    /// Tries in a row that brought nothing new, before giving up.
    pub tries: u32,
    /// Pause before the second try; doubled each time.
    pub pause: Duration,
    /// Longest pause. A server that asks for a longer one (`Retry-After`) ends the attempt, and
    /// [`Refused::retry_after`] says when to come again.
    pub longest_pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            window: Duration::from_secs(30),
            minimum_bytes_per_s: 1024,
            rate_limit_bytes_per_s: None,
            tries: 5,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
        }
    }
}

impl Pace {
    /// How long to wait after `idle` tries that brought nothing, or `None` to give up.
    pub(super) fn pause_after(&self, idle: u32, refused: &Refused) -> Option<Duration> {
        if idle >= self.tries {
            return None;
        }
        match refused.retry_after() {
            Some(asked) if asked > self.longest_pause => None,
            Some(asked) => Some(asked),
            None => {
                let doubled = self.pause.saturating_mul(1 << idle.saturating_sub(1).min(16));
                Some(doubled.min(self.longest_pause))
            }
        }
    }

    fn minimum(&self) -> u64 {
        self.rate_limit_bytes_per_s.map_or(self.minimum_bytes_per_s, |l| self.minimum_bytes_per_s.min(l.get() / 2))
    }
}

/// Reads the body of one answer at a [`Pace`].
pub(super) struct Reader<'a> {
    pace: &'a Pace,
    response: reqwest::Response,
    began: Instant,
    bytes: u64,
    /// When the next byte is due under the rate limit.
    due: Instant,
}

impl<'a> Reader<'a> {
    pub(super) fn new(pace: &'a Pace, response: reqwest::Response) -> Self {
        Self { pace, response, began: Instant::now(), bytes: 0, due: Instant::now() }
    }

    /// The next bytes, or `None` at the end. Waits where the rate limit demands it.
    pub(super) async fn next(&mut self) -> Result<Option<bytes::Bytes>, Refused> {
        sleep_until(self.due).await;
        let chunk = loop {
            match timeout_at(self.began + self.pace.window, self.response.chunk()).await {
                Ok(chunk) => break chunk.map_err(|e| failed(self.response.url(), &e))?,
                Err(_) => self.measure()?,
            }
        };
        if let Some(bytes) = &chunk {
            self.bytes += bytes.len() as u64;
            self.throttle(bytes.len() as u64);
            if self.began.elapsed() >= self.pace.window {
                self.measure()?;
            }
        }
        Ok(chunk)
    }

    /// A window is over: was it fast enough?
    fn measure(&mut self) -> Result<(), Refused> {
        let (elapsed, minimum) = (self.began.elapsed(), self.pace.minimum());
        if self.bytes as f64 / elapsed.as_secs_f64() < minimum as f64 {
            let url = shown(self.response.url());
            return Err(Refused::TooSlow { url, bytes: self.bytes, seconds: elapsed.as_secs(), minimum });
        }
        (self.began, self.bytes) = (Instant::now(), 0);
        Ok(())
    }

    fn throttle(&mut self, bytes: u64) {
        if let Some(limit) = self.pace.rate_limit_bytes_per_s {
            let takes = Duration::from_secs_f64(bytes as f64 / limit.get() as f64);
            // Time in which nothing came is not saved up.
            self.due = self.due.max(Instant::now()) + takes;
        }
    }
}
