//! Plan `clip`: a window of frames in, its logits out. Nothing is kept between windows.

use crate::backend::row_of;
use crate::logits::Logits;
use crate::plan::{Counters, Fault, Jobs, Plan, Runner, finite, first};
use crate::preprocess::Preprocessor;

pub(crate) struct ClipPlan {
    runner: Runner,
    logits: String,
}

impl ClipPlan {
    pub(crate) fn new(runner: Runner, logits: &str) -> Self {
        Self { runner, logits: logits.to_owned() }
    }
}

impl Plan for ClipPlan {
    fn grow(&mut self, _slots: usize) {}

    fn reset(&mut self, _slot: usize) {}

    fn infer(
        &mut self,
        jobs: &dyn Jobs,
        preprocessor: &Preprocessor,
        out: &mut Logits,
        counters: &mut Counters,
    ) -> Result<(), Fault> {
        let mut outcome = Ok(());
        let mut next = 0;
        while next < jobs.len() {
            let (rows, session) = self.runner.next(jobs.len() - next);
            let batch = session.batch();
            for row in 0..rows {
                let frames = jobs.get(next + row).frames;
                for (place, frame) in frames.iter().enumerate() {
                    let to = session.input(0).row(row, batch).row(place, frames.len());
                    preprocessor.write(frame.pixels(), to);
                }
                counters.backbone_runs += frames.len() as u64;
            }
            session.run()?;
            counters.batches += 1;
            counters.head_runs += rows as u64;
            for row in 0..rows {
                let logits = row_of(session.output(0), row, batch);
                if finite(logits) {
                    out.set(next + row, logits);
                } else {
                    first(&mut outcome, Fault::NotFinite { job: next + row, tensor: self.logits.clone() });
                }
            }
            next += rows;
        }
        outcome
    }
}
