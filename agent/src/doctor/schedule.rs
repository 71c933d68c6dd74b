//! Runs checks side by side, each on a thread of its own until its deadline. A check that hangs is left behind: the process
//! ends soon, and says so of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{About, Context, Finding};
use crate::progress::Progress;

/// Begin of the names of their threads, whose panics become findings.
pub(crate) const THREADS: &str = "doctor-";
/// How often the progress line is redrawn.
const TICK: Duration = Duration::from_millis(100);

/// What a check does.
type Work = Box<dyn FnOnce(&Context) -> Vec<Finding> + Send>;

/// A check that is to be made.
pub struct Check {
    about: About,
    waits_for: String,
    limit: Duration,
    work: Work,
}

impl Check {
    /// `waits_for`: for the progress line, such as `camera front`.
    pub fn new(
        about: About,
        waits_for: impl Into<String>,
        limit: Duration,
        work: impl FnOnce(&Context) -> Vec<Finding> + Send + 'static,
    ) -> Self {
        Self { about, waits_for: waits_for.into(), limit, work: Box::new(work) }
    }
}

/// A finding, and how long its check took.
#[derive(Clone, Debug)]
pub struct Timed {
    /// What was found.
    pub finding: Finding,
    /// Wall time of the whole check.
    pub took: Duration,
}

struct Waiting {
    about: About,
    waits_for: String,
    limit: Duration,
    findings: Option<Vec<Timed>>,
}

/// Makes all checks; findings come in the order of the checks.
pub fn run(context: &Arc<Context>, checks: Vec<Check>, progress: &mut Progress) -> Vec<Timed> {
    let begin = Instant::now();
    let (send, done) = channel();
    let mut waiting = Vec::with_capacity(checks.len());
    for (index, check) in checks.into_iter().enumerate() {
        let Check { about, waits_for, limit, work } = check;
        let (send, context, own) = (send.clone(), Arc::clone(context), about.clone());
        let body = move || {
            let findings = catch_unwind(AssertUnwindSafe(|| work(&context)))
                .unwrap_or_else(|_| vec![own.fail("the check itself failed; please report what is printed above")]);
            let _late = send.send((index, findings, begin.elapsed()));
        };
        let spawned = thread::Builder::new().name(format!("{THREADS}{index}")).spawn(body);
        let findings = spawned.err().map(|e| {
            let finding = about.fail(format!("the check got no thread ({e}); is the machine out of memory?"));
            vec![Timed { finding, took: Duration::ZERO }]
        });
        waiting.push(Waiting { about, waits_for, limit, findings });
    }
    while let Some(end) = next_deadline(&mut waiting, begin.elapsed()) {
        progress.message(&message(&waiting));
        match done.recv_timeout((end - begin.elapsed().min(end)).min(TICK)) {
            Ok((index, findings, took)) => {
                let timed = findings.into_iter().map(|finding| Timed { finding, took });
                // One that was given up stays so.
                waiting[index].findings.get_or_insert_with(|| timed.collect());
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
    waiting.into_iter().filter_map(|w| w.findings).flatten().collect()
}

/// Gives up what is late. The next deadline, while any check is waited for.
fn next_deadline(waiting: &mut [Waiting], now: Duration) -> Option<Duration> {
    for late in waiting.iter_mut().filter(|w| w.findings.is_none() && now >= w.limit) {
        let message = format!(
            "no answer within {} s; something this check asks hangs: a device, a file system or a server",
            late.limit.as_secs()
        );
        late.findings = Some(vec![Timed { finding: late.about.fail(message), took: late.limit }]);
    }
    waiting.iter().filter(|w| w.findings.is_none()).map(|w| w.limit).min()
}

fn message(waiting: &[Waiting]) -> String {
    let mut open = waiting.iter().filter(|w| w.findings.is_none()).map(|w| w.waits_for.as_str());
    let shown: Vec<&str> = open.by_ref().take(3).collect();
    let more = open.count();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("looking at {}{rest}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;
    use crate::doctor::tests::{context, told};

    #[test]
    fn checks_run_side_by_side_and_none_holds_up_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let context = Arc::new(context(dir.path(), &[]));
        let (keep, never): (_, Receiver<()>) = channel();
        let (pass, passed) = channel();
        let long = Duration::from_secs(60);
        let about = |name| About::check(name);
        let checks = vec![
            Check::new(about("a"), "a", long, move |_| {
                // Ends only if the next check runs at the same time.
                passed.recv().unwrap();
                vec![About::check("a").ok("one"), About::check("a").warn("two")]
            }),
            Check::new(about("b"), "b", long, move |_| {
                pass.send(()).unwrap();
                vec![About::check("b").ok("three")]
            }),
            Check::new(about("c"), "c", Duration::from_millis(1), move |_| {
                let _ = never.recv();
                Vec::new()
            }),
            Check::new(about("d"), "d", long, |_| panic!("broken")),
        ];
        let found = run(&context, checks, &mut Progress::spinner("t"));
        drop(keep);
        let findings: Vec<Finding> = found.into_iter().map(|t| t.finding).collect();
        let told = told(&findings);
        assert_eq!(&told[..3], ["ok one", "warn two", "ok three"]);
        assert!(told[3].starts_with("fail no answer within") && told[4].starts_with("fail the check itself failed"));
    }
}
