//! What a scenario is, and how a list of them is run: those that mostly wait side by side, those that need the machine alone.
//!
//! A scenario that panics has failed, like one that returns an error; the others go on. Its folder is kept when it failed.

use std::any::Any;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// A named fault and the promise that must outlive it.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// What filters match.
    pub(crate) name: &'static str,
    /// Whether it bears company.
    pub(crate) load: Load,
    /// Does it.
    pub(crate) run: Run,
}

/// Does a scenario; an error is a broken promise.
pub(crate) type Run = fn(&Context) -> anyhow::Result<Outcome>;

/// What a scenario asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Little: several run at once.
    Waits,
    /// Its figures need the machine: runs alone.
    Works,
}

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// Each fault once, in minutes.
    Quick,
    /// The numbers that are promised.
    Long,
}

/// What a scenario may know.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Its own, empty.
    pub(crate) folder: PathBuf,
    /// How much to try.
    pub(crate) size: Size,
    /// How long the soak runs.
    pub(crate) soak: Duration,
    /// Of everything random; printed, so that a run can be repeated.
    pub(crate) seed: u64,
    /// Folders of scenarios that went well stay too.
    pub(crate) keep: bool,
}

/// What was done and what came of it, in words and figures.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The fault.
    pub(crate) tried: String,
    /// What happened.
    pub(crate) happened: String,
    /// False where this machine does not allow it; `happened` says why.
    pub(crate) was_tried: bool,
}

/// A scenario that was run.
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: &'static str,
    /// What came of it, or why it failed.
    pub(crate) result: Result<Outcome, String>,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Scenarios that mostly wait and run at once.
const SIDE_BY_SIDE: usize = 4;

impl Context {
    /// This many in a long run, that many in a quick one.
    pub(crate) fn count(&self, long: u32, quick: u32) -> u32 {
        if self.size == Size::Long { long } else { quick }
    }

    /// A source of chance of the scenario's own.
    pub(crate) fn chance(&self) -> fastrand::Rng {
        let mut hasher = DefaultHasher::new();
        (self.seed, self.folder.file_name()).hash(&mut hasher);
        fastrand::Rng::with_seed(hasher.finish())
    }
}

impl Outcome {
    /// Tried, and borne.
    pub(crate) fn new(tried: impl Into<String>, happened: impl Into<String>) -> Self {
        Self { tried: tried.into(), happened: happened.into(), was_tried: true }
    }

    /// Not possible here.
    pub(crate) fn not_tried(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { tried: what.into(), happened: why.into(), was_tried: false }
    }
}

/// Runs all of `scenarios` in folders below `context.folder`; rows come in their order.
pub(crate) fn run(scenarios: &[Scenario], context: &Context) -> Vec<Row> {
    let rows: Vec<_> = scenarios.iter().map(|_| Mutex::new(None)).collect();
    let of = |load| scenarios.iter().zip(&rows).filter(move |(s, _)| s.load == load);
    let waiting = Mutex::new(of(Load::Waits));
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    // The lock must not live through the scenario.
                    let next = waiting.lock().unwrap().next();
                    let Some((scenario, row)) = next else { break };
                    *row.lock().unwrap() = Some(run_one(scenario, context));
                }
            });
        }
    });
    for (scenario, row) in of(Load::Works) {
        *row.lock().unwrap() = Some(run_one(scenario, context));
    }
    rows.into_iter().filter_map(|row| row.into_inner().unwrap()).collect()
}

fn run_one(scenario: &Scenario, context: &Context) -> Row {
    let name = scenario.name;
    let folder = context.folder.join(name);
    let own = Context { folder: folder.clone(), ..context.clone() };
    std::fs::create_dir_all(&folder).unwrap();
    let began = Instant::now();
    let run = scenario.run;
    let result = match thread::Builder::new().name(name.into()).spawn(move || run(&own)).unwrap().join() {
        Ok(result) => result.map_err(|error| format!("{error:#}")),
        Err(panic) => Err(said(&*panic)),
    };
    let took = began.elapsed();
    match &result {
        Ok(outcome) if !outcome.was_tried => println!("skip  {name:<22}           {}", outcome.happened),
        Ok(outcome) => println!("ok    {name:<22} {:>6.1} s  {}", took.as_secs_f64(), outcome.happened),
        Err(reason) => {
            println!("FAIL  {name:<22} {:>6.1} s  {reason}\n      see {}", took.as_secs_f64(), folder.display())
        }
    }
    if result.is_ok() && !context.keep {
        let _ = std::fs::remove_dir_all(&folder);
    }
    Row { name, result, took }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panicked").to_owned()
}
