//! Progress on standard error for whatever takes longer than two seconds; nothing at all when it is not a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Nothing is drawn before this much time has passed.
const QUIET: Duration = Duration::from_secs(2);

/// A bar or a spinner that appears late, or never.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    began: Instant,
    message: String,
    shown: bool,
}

impl Progress {
    /// A bar over `total` steps. `unit` is shown after the numbers, such as "s".
    #[must_use]
    pub fn bar(message: &str, total: u64, unit: &str) -> Self {
        let template = format!("{{msg}} [{{bar:32}}] {{pos}}/{{len}} {unit} · {{eta}} left");
        Self::new(ProgressBar::hidden(), total, &template, message)
    }

    /// A spinner, where the end is not known.
    #[must_use]
    pub fn spinner(message: &str) -> Self {
        Self::new(ProgressBar::hidden(), 0, "{spinner} {msg} · {elapsed}", message)
    }

    fn new(bar: ProgressBar, total: u64, template: &str, message: &str) -> Self {
        bar.set_length(total);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        Self { bar, began: Instant::now(), message: message.to_owned(), shown: false }
    }

    /// Sets how far it is. Cheap: call it as often as convenient.
    pub fn set(&mut self, position: u64) {
        self.bar.set_position(position);
        self.tick();
    }

    /// Changes the text before the bar.
    pub fn message(&mut self, message: &str) {
        message.clone_into(&mut self.message);
        self.bar.set_message(self.message.clone());
        self.tick();
    }

    /// Shows the bar when it is time to.
    pub fn tick(&mut self) {
        if !self.shown && self.began.elapsed() >= QUIET && std::io::stderr().is_terminal() {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            self.bar.set_message(self.message.clone());
        }
        if self.shown {
            self.bar.tick();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Runs `work` under a spinner that another thread keeps turning; for work that cannot report.
pub fn spin<T>(message: &str, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let mut progress = Progress::spinner(message);
    let (done, wait) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while wait.recv_timeout(Duration::from_millis(100)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                progress.tick();
            }
        });
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_work_draws_nothing_and_returns() {
        let mut bar = Progress::bar("reading", 10, "s");
        bar.set(5);
        assert!(!bar.shown);
        assert_eq!(spin("loading", || 7), 7);
    }
}
