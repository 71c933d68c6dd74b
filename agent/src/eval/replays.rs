//! Many videos through several opened models at once. What comes of a video does not depend on which model it met.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use kinewatch_core::event::sequence_text;

use crate::replay::{ReplayError, Replayed, Replayer};

/// A video to replay.
#[derive(Clone, Debug)]
pub struct Job {
    /// The file.
    pub path: PathBuf,
    /// Its length in seconds if known, else 0.
    pub duration_s: f64,
}

/// Replays every video, each on the first model that is free; gives what came of them in their order, events numbered
/// through. `progress` is told on this thread how many seconds of video are done. Blocks until all are.
pub fn replay_all(
    jobs: &[Job],
    replayers: Vec<Replayer>,
    mut progress: impl FnMut(f64),
) -> Vec<Result<Replayed, ReplayError>> {
    let next = AtomicUsize::new(0);
    let order = longest_first(jobs);
    let mut done: Vec<Option<Result<Replayed, ReplayError>>> = jobs.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        for mut replayer in replayers {
            let (tell, next, order) = (tell.clone(), &next, &order);
            scope.spawn(move || {
                while let Some(&job) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // The receiver goes on until every sender is gone.
                    let report = |at: kinewatch_core::time::Pts| drop(tell.send(Told::At(job, at.seconds())));
                    let result = replayer.run(&jobs[job].path, report);
                    drop(tell.send(Told::Done(job, Box::new(result))));
                }
            });
        }
        drop(tell);
        let mut seconds = vec![0.0; jobs.len()];
        for told in told {
            match told {
                Told::At(job, at_s) => seconds[job] = at_s,
                Told::Done(job, result) => {
                    seconds[job] = jobs[job].duration_s;
                    done[job] = Some(*result);
                }
            }
            progress(seconds.iter().sum());
        }
    });
    let mut results: Vec<_> = done.into_iter().flatten().collect();
    number_through(&mut results);
    results
}

enum Told {
    At(usize, f64),
    Done(usize, Box<Result<Replayed, ReplayError>>),
}

/// A long video that is begun last would keep one model busy alone.
fn longest_first(jobs: &[Job]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by(|&a, &b| jobs[b].duration_s.total_cmp(&jobs[a].duration_s));
    order
}

fn number_through(results: &mut [Result<Replayed, ReplayError>]) {
    let events = results.iter_mut().filter_map(|r| r.as_mut().ok()).flat_map(|r| &mut r.events);
    for (number, event) in (1..).zip(events) {
        event.sequence = sequence_text(number);
    }
}
