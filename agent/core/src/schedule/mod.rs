//! What runs next and what is let go, when several cameras and models share one device: pure, no queue of frames, no clock.
//!
//! A *lane* is one (camera, model) pair with the requests that wait for it, in order; lanes come and go with their cameras,
//! and one that comes claims nothing for the time before. While the device keeps up, every
//! request runs, the oldest first, and lanes of one model share a batch. When it has been busy for [`PATIENCE`] without a
//! pause it does not keep up (a queue that never empties is the definition of overload, and needs no prediction); from
//! then until it rests, only the newest request of each lane is kept. So a request is never older than the wait for its
//! turn, however long the overload lasts. (First in first out, and last in first out once the queue has stood too long:
//! CoDel, Nichols and Jacobson 2012; adaptive LIFO, Maurer 2015.)
//!
//! Whose turn it is follows the device time used so far (start-time fair queueing, Goyal, Vin and Cheng 1996): first among
//! cameras, then among the models of the camera, so that a camera with many models or a dear one takes nothing from the
//! others. Shares are of measured time: nothing has to be known of a model before it has run.
//!
//! Owned by the inference thread. Never reorders a lane, hands a request out once, and allocates nothing once warm.

mod lane;
mod pace;

use std::time::Duration;

use lane::{LaneState, Share, Waiting};
pub use pace::{MINIMUM, Pace};

/// Busy for this long without a pause: the device does not keep up. Longer than any single call that is not a fault,
/// shorter than the delay that anybody would notice in an event.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Under overload, how long a batch may take as far as costs are known, and how far a camera may be ahead of its share for
/// the sake of a batch.
pub const SLICE: Duration = Duration::from_millis(100);

/// Most requests of a lane that may wait, whatever its rate: bounds the memory of a mistaken package.
const MOST: usize = 128;

/// Requests that may wait of a lane with one `every` so often: those of [`PATIENCE`], and one that comes during the call
/// that exceeds it.
#[must_use]
pub fn most_waiting(every: Duration) -> usize {
    let within = PATIENCE.as_nanos().div_ceil(every.as_nanos().max(1));
    usize::try_from(within).unwrap_or(MOST).min(MOST) + 1
}

/// A (camera, model) pair as the scheduler knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Index of the camera.
    pub camera: usize,
    /// Index of the model; a camera has each model at most once.
    pub model: usize,
    /// Usual time between two requests.
    pub every: Duration,
}

/// Whether the device keeps up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Every request runs.
    Kept,
    /// The newest request of each lane runs; the others are let go.
    Over,
}

/// A request with the lane that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket<R> {
    /// Index of the lane.
    pub lane: usize,
    /// As it was offered.
    pub request: R,
}

/// Requests that wait, and whose turn it is.
#[derive(Debug)]
pub struct Scheduler<R> {
    lanes: Vec<LaneState<R>>,
    cameras: Vec<Share>,
    models: Vec<Model>,
    /// Start tag of the newest turn: nobody who waits has used less.
    turn: u64,
    waiting: usize,
    busy_since: Option<Duration>,
    load: Load,
    /// Lanes of the call at hand.
    running: Vec<usize>,
    riders: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Model {
    batch: usize,
    /// Smoothed, of one request, ns; 0 until measured.
    cost: u64,
}

impl<R> Scheduler<R> {
    /// For these lanes; `batches` are the most requests that one call of each model takes.
    #[must_use]
    pub fn new(lanes: &[Lane], batches: &[usize]) -> Self {
        let mut scheduler = Self {
            lanes: Vec::with_capacity(lanes.len()),
            cameras: Vec::new(),
            models: Vec::with_capacity(batches.len()),
            turn: 0,
            waiting: 0,
            busy_since: None,
            load: Load::Kept,
            running: Vec::new(),
            riders: Vec::new(),
        };
        batches.iter().enumerate().for_each(|(model, &batch)| scheduler.set_model(model, batch));
        for &lane in lanes {
            scheduler.add(lane);
        }
        scheduler
    }

    /// A model is new, or another one has taken its index: one call takes at most `batch` requests, and what it costs is
    /// not known.
    pub fn set_model(&mut self, model: usize, batch: usize) {
        if self.models.len() <= model {
            self.models.resize(model + 1, Model { batch: 1, cost: 0 });
        }
        self.models[model] = Model { batch: batch.max(1), cost: 0 };
    }

    /// One lane more; gives its index, which may be that of one that was removed. A camera whose first lane it is begins
    /// like one that has been silent. Allocates.
    pub fn add(&mut self, lane: Lane) -> usize {
        if self.cameras.len() <= lane.camera {
            self.cameras.resize(lane.camera + 1, Share::default());
        }
        if self.models.len() <= lane.model {
            self.set_model(lane.model, 1);
        }
        if !self.lanes.iter().any(|l| l.held && l.lane.camera == lane.camera) {
            self.cameras[lane.camera] = Share::default();
        }
        let index = self.lanes.iter().position(|l| !l.held).unwrap_or(self.lanes.len());
        match self.lanes.get_mut(index) {
            Some(place) => *place = LaneState::new(lane),
            None => self.lanes.push(LaneState::new(lane)),
        }
        self.running.reserve(self.lanes.len());
        self.riders.reserve(self.lanes.len());
        index
    }

    /// The lane is over, and its index serves another. Appends what still waits to `dropped`. Not between
    /// [`Scheduler::next`] and [`Scheduler::done`].
    pub fn remove(&mut self, lane: usize, dropped: &mut Vec<Ticket<R>>) {
        self.drop_to(lane, 0, dropped);
        self.lanes[lane].held = false;
    }

    /// Takes a request of `lane`, later than all before. Gives back the one that had to make room for it.
    #[must_use]
    pub fn offer(&mut self, lane: usize, request: R, now: Duration) -> Option<R> {
        self.busy_since.get_or_insert(now);
        let state = &mut self.lanes[lane];
        let share = &mut self.cameras[state.lane.camera];
        if share.waiting == 0 {
            share.used = share.used.max(self.turn);
        }
        if state.queue.is_empty() {
            state.used = state.used.max(share.turn);
        }
        let most = if self.load == Load::Over { 1 } else { state.most };
        let gone = if state.queue.len() >= most { state.queue.pop_front() } else { None };
        if gone.is_none() {
            share.waiting += 1;
            self.waiting += 1;
        }
        // Who makes room for a newer one leaves it his place in the order of waiting.
        let since = gone.as_ref().filter(|_| self.load == Load::Over).map_or(now, |gone| gone.since);
        state.queue.push_back(Waiting { request, since });
        gone.map(|gone| gone.request)
    }

    /// The requests of the next call, all of one model and each of another camera; `picked` stays empty when nothing waits.
    /// What overload lets go is appended to `dropped`. To be followed by [`Scheduler::done`].
    pub fn next(&mut self, now: Duration, picked: &mut Vec<Ticket<R>>, dropped: &mut Vec<Ticket<R>>) {
        self.weigh(now, dropped);
        let Some(camera) = self.first_camera() else { return };
        self.turn = self.cameras[camera].used;
        let Some(leader) = self.first_lane(camera) else { return };
        self.cameras[camera].turn = self.lanes[leader].used;
        self.take(leader, picked);
        self.take_riders(leader, picked);
    }

    /// The same for one camera alone and out of turn: its stream has ended, and what waits belongs before the end. Under
    /// overload `picked` stays empty: an end does not jump the queue. To be followed by [`Scheduler::clear`] at last.
    pub fn next_of(&mut self, camera: usize, now: Duration, picked: &mut Vec<Ticket<R>>, dropped: &mut Vec<Ticket<R>>) {
        self.weigh(now, dropped);
        if self.load == Load::Kept
            && let Some(leader) = self.first_lane(camera)
        {
            self.take(leader, picked);
        }
    }

    /// Lets everything of a camera go, appending it to `dropped`.
    pub fn clear(&mut self, camera: usize, dropped: &mut Vec<Ticket<R>>) {
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].lane.camera == camera {
                self.drop_to(lane, 0, dropped);
            }
        }
    }

    /// The call of the requests last handed out took this long, whether or not it succeeded.
    pub fn done(&mut self, took: Duration) {
        let Some(&first) = self.running.first() else { return };
        let count = self.running.len() as u64;
        let each = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / count;
        for lane in self.running.drain(..) {
            let state = &mut self.lanes[lane];
            state.used = state.used.saturating_add(each);
            let share = &mut self.cameras[state.lane.camera];
            share.used = share.used.saturating_add(each);
        }
        let model = &mut self.models[self.lanes[first].lane.model];
        model.cost = if model.cost == 0 { each } else { model.cost - model.cost / 4 + each / 4 };
    }

    /// Nothing waits here nor on the way here: what was used so far is forgotten, and the device keeps up.
    pub fn rest(&mut self) {
        if self.waiting > 0 {
            return;
        }
        self.busy_since = None;
        self.load = Load::Kept;
        self.level();
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How long the lane that has waited longest has.
    #[must_use]
    pub fn longest_wait(&self, now: Duration) -> Duration {
        let since = self.lanes.iter().filter_map(|l| l.queue.front()).map(|w| w.since).min();
        since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// Whether the device keeps up.
    #[must_use]
    pub fn load(&self) -> Load {
        self.load
    }

    /// Device time that all lanes ask for, per time, as far as costs are known: above 1 something must go.
    #[must_use]
    pub fn demand(&self) -> f64 {
        let asks =
            |l: &LaneState<R>| self.models[l.lane.model].cost as f64 / 1e9 / l.lane.every.as_secs_f64().max(1e-9);
        self.lanes.iter().filter(|l| l.held).map(asks).sum()
    }

    /// To be told when the device stands idle although something waits, for company: that is a pause.
    pub fn pause(&mut self, now: Duration) {
        if self.load == Load::Kept {
            self.busy_since = Some(now);
        }
    }

    /// A queue that has stood for too long is cut to the newest.
    fn weigh(&mut self, now: Duration, dropped: &mut Vec<Ticket<R>>) {
        let busy = self.busy_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        if self.load == Load::Over || busy <= PATIENCE || self.waiting == 0 {
            return;
        }
        self.load = Load::Over;
        self.level();
        for lane in 0..self.lanes.len() {
            self.drop_to(lane, 1, dropped);
        }
    }

    /// Everyone begins anew with the same share.
    fn level(&mut self) {
        self.turn = 0;
        self.cameras.iter_mut().for_each(|share| (share.used, share.turn) = (0, 0));
        self.lanes.iter_mut().for_each(|lane| lane.used = 0);
    }

    fn drop_to(&mut self, lane: usize, keep: usize, dropped: &mut Vec<Ticket<R>>) {
        let state = &mut self.lanes[lane];
        while state.queue.len() > keep {
            let Some(gone) = state.queue.pop_front() else { return };
            self.waiting -= 1;
            self.cameras[state.lane.camera].waiting -= 1;
            dropped.push(Ticket { lane, request: gone.request });
        }
    }

    /// Of the cameras that wait, the one that has used least; of equals, the one that has waited longest.
    fn first_camera(&self) -> Option<usize> {
        let waits = self.lanes.iter().filter_map(|l| Some((l.lane.camera, l.queue.front()?.since)));
        waits.min_by_key(|&(camera, since)| (self.cameras[camera].used, since, camera)).map(|(camera, _)| camera)
    }

    fn first_lane(&self, camera: usize) -> Option<usize> {
        let waits = self.lanes.iter().enumerate().filter(|(_, l)| l.lane.camera == camera);
        let waits = waits.filter_map(|(lane, l)| Some((l.used, l.queue.front()?.since, lane)));
        waits.min().map(|(.., lane)| lane)
    }

    fn take(&mut self, lane: usize, picked: &mut Vec<Ticket<R>>) {
        let state = &mut self.lanes[lane];
        let Some(Waiting { request, .. }) = state.queue.pop_front() else { return };
        self.waiting -= 1;
        self.cameras[state.lane.camera].waiting -= 1;
        self.running.push(lane);
        picked.push(Ticket { lane, request });
    }

    /// Others that wait for the leader's model share its call, those who have used least first.
    fn take_riders(&mut self, leader: usize, picked: &mut Vec<Ticket<R>>) {
        let model = self.lanes[leader].lane.model;
        let seats = self.seats(model) - 1;
        let mut riders = std::mem::take(&mut self.riders);
        riders.extend((0..self.lanes.len()).filter(|&lane| lane != leader && self.may_ride(lane, model)));
        let order = |&lane: &usize| {
            let state = &self.lanes[lane];
            (self.cameras[state.lane.camera].used, state.queue.front().map(|w| w.since), lane)
        };
        riders.sort_unstable_by_key(order);
        riders.drain(..).take(seats).for_each(|lane| self.take(lane, picked));
        self.riders = riders;
    }

    /// Under overload a rider may not run away from the share of its camera, nor from its lane's within it.
    fn may_ride(&self, lane: usize, model: usize) -> bool {
        let state = &self.lanes[lane];
        let share = &self.cameras[state.lane.camera];
        let ahead = (share.used.saturating_sub(self.turn)).max(state.used.saturating_sub(share.turn));
        let fair = self.load == Load::Kept || ahead <= SLICE.as_nanos() as u64;
        state.lane.model == model && !state.queue.is_empty() && fair
    }

    /// Requests of a call: under overload no more than fit into a slice, so that the next turn comes soon.
    fn seats(&self, model: usize) -> usize {
        let Model { batch, cost } = self.models[model];
        if self.load == Load::Kept || cost == 0 {
            return batch;
        }
        let fit = SLICE.as_nanos() as u64 / cost;
        batch.min(usize::try_from(fit).unwrap_or(batch)).max(1)
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
