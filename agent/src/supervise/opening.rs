//! Models are opened on a thread of their own, so that a stop need not wait for them, and systemd is told that it goes on.
//!
//! An engine build takes minutes and says nothing meanwhile. What can be seen of it is the processor time of the process:
//! while that grows, the start is extended and the beat of the stage is touched; when it stands still, neither is.

use std::time::{Duration, Instant};
use std::{fs, io, thread};

use kinewatch_core::beat::Beat;
use tokio::sync::oneshot;

use super::signals::StopSignals;
use crate::systemd;

/// How often the processor time is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What systemd is asked for each time.
const EXTENSION: Duration = Duration::from_secs(30);
/// Opening that takes longer than this for each model is not extended further, however busy it is.
const LONGEST_PER_MODEL: Duration = Duration::from_secs(30 * 60);
/// Processor time within a look that counts as work; the idle parts of the process need less.
const WORK: Duration = Duration::from_millis(50);

/// What became of it.
#[derive(Debug)]
pub enum Opened<T> {
    /// It returned.
    Done(T),
    /// A signal came first. The thread is left to itself.
    Interrupted(&'static str),
}

/// Runs `open` for `models` models on the thread `open` until it returns or a signal comes.
///
/// # Errors
/// The operating system gives no thread.
pub async fn interruptible<T: Send + 'static>(
    stop: &mut StopSignals,
    beat: &Beat,
    models: usize,
    open: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Opened<T>> {
    let (done, mut opened) = oneshot::channel();
    thread::Builder::new().name("open".into()).spawn(move || drop(done.send(open())))?;
    let mut work = Work::new(Instant::now(), models);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let outcome = loop {
        tokio::select! {
            biased;
            result = &mut opened => match result {
                Ok(value) => break Opened::Done(value),
                // It panicked, and the process is about to end.
                Err(_) => std::future::pending().await,
            },
            name = stop.recv() => break Opened::Interrupted(name),
            _ = looks.tick() => {
                let now = Instant::now();
                if work.goes_on(now, processor_time()) {
                    beat.touch(now);
                    systemd::extend(EXTENSION);
                }
            }
        }
    };
    beat.rest(Instant::now());
    Ok(outcome)
}

/// Whether opening goes on.
struct Work {
    until: Instant,
    used: Option<Duration>,
}

impl Work {
    fn new(begun: Instant, models: usize) -> Self {
        let models = u32::try_from(models).unwrap_or(u32::MAX).max(1);
        Self { until: begun + LONGEST_PER_MODEL * models, used: None }
    }

    /// `used`: processor time of the process so far; the first look always counts.
    fn goes_on(&mut self, now: Instant, used: Option<Duration>) -> bool {
        let before = std::mem::replace(&mut self.used, used);
        let worked = match (before, used) {
            (Some(before), Some(used)) => used.saturating_sub(before) >= WORK,
            // Where the system does not say, the limit alone decides.
            _ => true,
        };
        worked && now < self.until
    }
}

/// Of all threads of this process.
fn processor_time() -> Option<Duration> {
    // On Linux always 100 a second, whatever the kernel's own rate (`times(2)`, USER_HZ).
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name before the last bracket may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    Some(TICK * next()?.saturating_add(next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_while_the_processor_is_used_and_not_for_ever() {
        let begun = Instant::now();
        let mut work = Work::new(begun, 2);
        let mut look = |s, ms| work.goes_on(begun + Duration::from_secs(s), Some(Duration::from_millis(ms)));
        assert!(look(0, 700), "begins");
        assert!(look(5, 800) && !look(10, 810) && !look(15, 820), "works, then hangs");
        assert!(look(20, 5_000) && look(3_599, 90_000) && !look(3_600, 95_000), "half an hour for each of two models");
    }

    #[test]
    fn the_kernel_tells_the_processor_time() {
        let before = processor_time().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        let mut sum = 0_u64;
        while processor_time().unwrap() < before + WORK && Instant::now() < end {
            sum = (0..1_000_000_u64).fold(sum, |a, b| std::hint::black_box(a ^ b.wrapping_mul(31)));
        }
        assert!(processor_time().unwrap() >= before + WORK);
    }
}
