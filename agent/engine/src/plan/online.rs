//! Plan `online`: one frame and the stream's states in, logits and the next states out. Streams are gathered into a batch
//! and scattered back; two frames of one stream never share a batch.

use crate::backend::row_of;
use crate::logits::Logits;
use crate::plan::states::StateStore;
use crate::plan::{Counters, Fault, Jobs, Plan, Runner, finite, first};
use crate::preprocess::Preprocessor;

pub(crate) struct OnlinePlan {
    runner: Runner,
    states: StateStore,
    /// Names of the outputs: logits, then states.
    outputs: Vec<String>,
    /// Jobs not yet answered, in order; and those of the batch at hand.
    waiting: Vec<usize>,
    batch: Vec<usize>,
}

impl OnlinePlan {
    /// `sizes`: elements of each state. `outputs`: names of logits and states.
    pub(crate) fn new(runner: Runner, sizes: impl IntoIterator<Item = usize>, outputs: Vec<String>) -> Self {
        Self { runner, states: StateStore::new(sizes), outputs, waiting: Vec::new(), batch: Vec::new() }
    }

    /// Moves the next jobs, at most one of a stream, from `waiting` to `batch`.
    fn choose(&mut self, jobs: &dyn Jobs) {
        self.batch.clear();
        let most = self.runner.max_rows();
        let batch = &mut self.batch;
        self.waiting.retain(|&job| {
            let slot = jobs.get(job).slot;
            let free = batch.len() < most && !batch.iter().any(|&other| jobs.get(other).slot == slot);
            if free {
                batch.push(job);
            }
            !free
        });
    }

    /// Runs the first jobs of `batch` from `done` on; says how many.
    fn run(
        &mut self,
        done: usize,
        jobs: &dyn Jobs,
        preprocessor: &Preprocessor,
        out: &mut Logits,
    ) -> Result<(usize, Result<(), Fault>), Fault> {
        let (rows, session) = self.runner.next(self.batch.len() - done);
        let batch = session.batch();
        let chosen = &self.batch[done..done + rows];
        for (row, &index) in chosen.iter().enumerate() {
            let job = jobs.get(index);
            for frame in job.frames {
                self.states.enter(job.slot, frame.meta().session);
                preprocessor.write(frame.pixels(), session.input(0).row(row, batch));
            }
            for state in 0..self.states.count() {
                let to = session.input(1 + state).row(row, batch).floats();
                to.copy_from_slice(self.states.state(job.slot, state));
            }
        }
        session.run()?;
        let mut outcome = Ok(());
        for (row, &index) in chosen.iter().enumerate() {
            let output = |tensor: usize| row_of(session.output(tensor), row, batch);
            if let Some(bad) = (0..self.outputs.len()).find(|&tensor| !finite(output(tensor))) {
                first(&mut outcome, Fault::NotFinite { job: index, tensor: self.outputs[bad].clone() });
                continue;
            }
            out.set(index, output(0));
            let slot = jobs.get(index).slot;
            for state in 0..self.states.count() {
                self.states.state_mut(slot, state).copy_from_slice(output(1 + state));
            }
        }
        Ok((rows, outcome))
    }
}

impl Plan for OnlinePlan {
    fn grow(&mut self, slots: usize) {
        self.states.grow(slots);
    }

    fn reset(&mut self, slot: usize) {
        self.states.reset(slot);
    }

    fn infer(
        &mut self,
        jobs: &dyn Jobs,
        preprocessor: &Preprocessor,
        out: &mut Logits,
        counters: &mut Counters,
    ) -> Result<(), Fault> {
        let mut outcome = Ok(());
        self.waiting.clear();
        self.waiting.extend(0..jobs.len());
        while !self.waiting.is_empty() {
            self.choose(jobs);
            let mut done = 0;
            while done < self.batch.len() {
                let (rows, result) = self.run(done, jobs, preprocessor, out)?;
                done += rows;
                counters.batches += 1;
                counters.backbone_runs += rows as u64;
                counters.head_runs += rows as u64;
                if let Err(fault) = result {
                    first(&mut outcome, fault);
                }
            }
        }
        outcome
    }
}
