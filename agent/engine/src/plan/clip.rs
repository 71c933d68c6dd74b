//! Plan `clip`: a window of frames in, and the stream's boxes if the graph reads any; its logits out. Nothing else is kept
//! between windows.

use kinewatch_core::region::Region;

use crate::backend::row_of;
use crate::logits::Logits;
use crate::plan::boxes::BoxTable;
use crate::plan::{Counters, Fault, Job, Jobs, Plan, Runner, finite, first};
use crate::preprocess::Preprocessor;

pub(crate) struct ClipPlan {
    runner: Runner,
    logits: String,
    boxes: Option<BoxTable>,
}

impl ClipPlan {
    /// `boxes` of a stream, for a graph that reads them as its second input.
    pub(crate) fn new(runner: Runner, logits: &str, boxes: Option<usize>) -> Self {
        Self { runner, logits: logits.to_owned(), boxes: boxes.map(BoxTable::new) }
    }
}

impl Plan for ClipPlan {
    fn grow(&mut self, slots: usize) {
        self.boxes.iter_mut().for_each(|boxes| boxes.grow(slots));
    }

    fn reset(&mut self, _slot: usize) {}

    fn set_boxes(&mut self, slot: usize, boxes: &[Region]) {
        self.boxes.iter_mut().for_each(|table| table.set(slot, boxes));
    }

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
                let Job { slot, frames } = jobs.get(next + row);
                for (place, frame) in frames.iter().enumerate() {
                    let to = session.input(0).row(row, batch).row(place, frames.len());
                    preprocessor.write(frame.pixels(), to);
                }
                if let Some(boxes) = &self.boxes {
                    session.input(1).row(row, batch).floats().copy_from_slice(boxes.row(slot));
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
