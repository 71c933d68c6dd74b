//! Plan `cached`: a backbone a frame, a head a window. Each frame of a stream goes through the backbone once, however
//! much the windows overlap.

use crate::backend::row_of;
use crate::error::BackendError;
use crate::logits::Logits;
use crate::plan::features::{FeatureStore, Place};
use crate::plan::{Counters, Fault, Jobs, Plan, Runner, finite, first};
use crate::preprocess::Preprocessor;

/// A frame to be computed: frame `frame` of job `job` goes to place `place`.
#[derive(Clone, Copy)]
struct Missing {
    job: usize,
    frame: usize,
    slot: usize,
    place: usize,
}

/// Names for messages.
pub(crate) struct Names {
    pub(crate) feature: String,
    pub(crate) logits: String,
}

pub(crate) struct CachedPlan {
    backbone: Runner,
    head: Runner,
    store: FeatureStore,
    names: Names,
    frames: usize,
    waiting: Vec<usize>,
    /// Jobs at hand, at most one of a stream; whether each is still good; their places, `frames` a job.
    batch: Vec<usize>,
    good: Vec<bool>,
    places: Vec<usize>,
    missing: Vec<Missing>,
}

impl CachedPlan {
    /// `frames` of a window; `capacity` frames kept a stream, at least as many.
    pub(crate) fn new(backbone: Runner, head: Runner, names: Names, frames: usize, capacity: usize) -> Self {
        let feature = backbone.single().output_shape(0).iter().product();
        Self {
            backbone,
            head,
            store: FeatureStore::new(capacity.max(frames), feature),
            names,
            frames,
            waiting: Vec::new(),
            batch: Vec::new(),
            good: Vec::new(),
            places: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Takes one job of each stream that waits, and finds what it needs.
    fn choose(&mut self, jobs: &dyn Jobs) {
        self.batch.clear();
        self.places.clear();
        self.missing.clear();
        let batch = &mut self.batch;
        self.waiting.retain(|&job| {
            let slot = jobs.get(job).slot;
            let free = !batch.iter().any(|&other| jobs.get(other).slot == slot);
            if free {
                batch.push(job);
            }
            !free
        });
        self.good.clear();
        self.good.resize(self.batch.len(), true);
        for &index in &self.batch {
            let job = jobs.get(index);
            self.store.begin_window(job.slot);
            for (frame, buffer) in job.frames.iter().enumerate() {
                match self.store.place(job.slot, buffer.meta()) {
                    Place::Known(place) => self.places.push(place),
                    Place::New(place) => {
                        self.places.push(place);
                        self.missing.push(Missing { job: index, frame, slot: job.slot, place });
                    }
                }
            }
        }
    }

    /// Runs the backbone on the missing frames.
    fn fill(
        &mut self,
        jobs: &dyn Jobs,
        preprocessor: &Preprocessor,
        counters: &mut Counters,
        outcome: &mut Result<(), Fault>,
    ) -> Result<(), BackendError> {
        let mut done = 0;
        while done < self.missing.len() {
            let (rows, session) = self.backbone.next(self.missing.len() - done);
            let batch = session.batch();
            let chosen = &self.missing[done..done + rows];
            for (row, miss) in chosen.iter().enumerate() {
                let pixels = jobs.get(miss.job).frames[miss.frame].pixels();
                preprocessor.write(pixels, session.input(0).row(row, batch));
            }
            session.run()?;
            for (row, miss) in chosen.iter().enumerate() {
                let feature = row_of(session.output(0), row, batch);
                if finite(feature) {
                    self.store.feature_mut(miss.slot, miss.place).copy_from_slice(feature);
                    continue;
                }
                self.store.forget(miss.slot, miss.place);
                if let Some(at) = self.batch.iter().position(|&job| job == miss.job) {
                    self.good[at] = false;
                }
                first(outcome, Fault::NotFinite { job: miss.job, tensor: self.names.feature.clone() });
            }
            done += rows;
            counters.batches += 1;
            counters.backbone_runs += rows as u64;
        }
        Ok(())
    }

    /// Runs the head on the windows at hand.
    fn score(
        &mut self,
        jobs: &dyn Jobs,
        out: &mut Logits,
        counters: &mut Counters,
        outcome: &mut Result<(), Fault>,
    ) -> Result<(), BackendError> {
        let mut done = 0;
        while done < self.batch.len() {
            let (rows, session) = self.head.next(self.batch.len() - done);
            let batch = session.batch();
            for row in 0..rows {
                let slot = jobs.get(self.batch[done + row]).slot;
                let places = &self.places[(done + row) * self.frames..(done + row + 1) * self.frames];
                for (frame, &place) in places.iter().enumerate() {
                    let to = session.input(0).row(row, batch).row(frame, self.frames).floats();
                    to.copy_from_slice(self.store.feature(slot, place));
                }
            }
            session.run()?;
            for row in 0..rows {
                let job = self.batch[done + row];
                let logits = row_of(session.output(0), row, batch);
                if !finite(logits) {
                    first(outcome, Fault::NotFinite { job, tensor: self.names.logits.clone() });
                } else if self.good[done + row] {
                    out.set(job, logits);
                }
            }
            done += rows;
            counters.batches += 1;
            counters.head_runs += rows as u64;
        }
        Ok(())
    }
}

impl Plan for CachedPlan {
    fn grow(&mut self, slots: usize) {
        self.store.grow(slots);
    }

    fn reset(&mut self, slot: usize) {
        self.store.reset(slot);
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
            let run = match self.fill(jobs, preprocessor, counters, &mut outcome) {
                Ok(()) => self.score(jobs, out, counters, &mut outcome),
                Err(error) => Err(error),
            };
            if let Err(error) = run {
                // Some places were promised and never filled.
                for &job in &self.batch {
                    self.store.reset(jobs.get(job).slot);
                }
                return Err(error.into());
            }
        }
        outcome
    }
}
