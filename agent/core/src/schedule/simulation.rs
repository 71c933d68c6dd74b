//! Cameras, models and one device in simulated time, with every promise checked at every step.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

pub(super) const MS: u64 = 1_000_000;

/// What comes, and what it costs.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub lanes: Vec<Lane>,
    /// Of each model: cost of the first request of a call and of each further one, ns.
    pub costs: Vec<(u64, u64)>,
    pub batches: Vec<usize>,
    /// Time (ns) and what happens, in order.
    pub events: Vec<(u64, Event)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// By lane; nothing while its camera is away.
    Offer(usize),
    /// By camera.
    Gap(usize),
    /// By camera: its lanes are removed.
    Leave(usize),
    /// By camera: its lanes are added again, maybe with other indices.
    Join(usize),
}

/// A request that ran.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ran {
    pub lane: usize,
    pub offered: u64,
    pub started: u64,
    pub load: Load,
}

/// What came of it. Requests are numbered within their lane.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub ran: Vec<Ran>,
    pub dropped: Vec<(usize, u64)>,
    /// Offered by lane.
    pub offered: Vec<u64>,
    /// Device time by camera, ns.
    pub used: Vec<u64>,
    /// Longest time that a lane waited for its turn under overload, ns.
    pub longest_wait: u64,
    /// Longest call, ns.
    pub longest_call: u64,
    /// Largest swing of the difference in device time between two cameras that both waited all the while, ns.
    pub unfair: u64,
    pub end: u64,
}

impl World {
    pub(super) fn cameras(&self) -> usize {
        self.lanes.iter().map(|l| l.camera + 1).max().unwrap_or(0)
    }

    /// Models of the camera that has most.
    pub(super) fn models_of_one(&self) -> usize {
        let of = |camera| self.lanes.iter().filter(|l| l.camera == camera).count();
        (0..self.cameras()).map(of).max().unwrap_or(0)
    }

    /// The bound that the design states for the wait of a lane under overload.
    pub(super) fn wait_bound(&self, longest_call: u64) -> u64 {
        let both = SLICE.as_nanos() as u64 + longest_call;
        2 * (self.cameras() * self.models_of_one()) as u64 * both + longest_call
    }

    fn cost(&self, model: usize, requests: usize) -> u64 {
        self.costs[model].0 + self.costs[model].1 * (requests as u64 - 1)
    }
}

struct Run<'w> {
    world: &'w World,
    scheduler: Scheduler<(u64, u64)>,
    /// The scheduler's index of each lane, while its camera is there; and back.
    index: Vec<Option<usize>>,
    lane_of: Vec<usize>,
    /// Of each index of the scheduler: capacity of its queue when it was added.
    room: Vec<usize>,
    now: u64,
    next: usize,
    picked: Vec<Ticket<(u64, u64)>>,
    dropped: Vec<Ticket<(u64, u64)>>,
    out: Outcome,
    /// Of each lane: waits since; newest number taken out of the queue, either way; closed by a gap up to here.
    waits: Vec<Option<u64>>,
    gone: Vec<u64>,
    closed: Vec<u64>,
    over_since: Option<u64>,
    /// Of each pair of cameras: lowest and highest difference while both waited.
    pairs: Vec<Option<(i64, i64)>>,
}

/// Runs the device until all has come and nothing waits.
pub(super) fn simulate(world: &World) -> Result<Outcome, TestCaseError> {
    let (lanes, cameras) = (world.lanes.len(), world.cameras());
    let mut run = Run {
        world,
        scheduler: Scheduler::new(&world.lanes, &world.batches),
        index: (0..lanes).map(Some).collect(),
        lane_of: (0..lanes).collect(),
        room: Vec::new(),
        now: 0,
        next: 0,
        picked: Vec::new(),
        dropped: Vec::new(),
        out: Outcome { offered: vec![0; lanes], used: vec![0; cameras], ..Outcome::default() },
        waits: vec![None; lanes],
        gone: vec![0; lanes],
        closed: vec![0; lanes],
        over_since: None,
        pairs: vec![None; cameras * cameras],
    };
    run.room = run.scheduler.lanes.iter().map(|l| l.queue.capacity()).collect();
    while run.next < world.events.len() || run.scheduler.waiting() > 0 {
        run.take_in()?;
        run.step()?;
    }
    let room: Vec<_> = run.scheduler.lanes.iter().map(|l| l.queue.capacity()).collect();
    prop_assert_eq!(&run.room, &room, "queues grew");
    run.out.end = run.now;
    Ok(run.out)
}

impl Run<'_> {
    /// Everything that has happened by now.
    fn take_in(&mut self) -> Result<(), TestCaseError> {
        while let Some(&(_, event)) = self.world.events.get(self.next).filter(|e| e.0 <= self.now) {
            self.next += 1;
            match event {
                Event::Offer(lane) => self.offer(lane)?,
                Event::Gap(camera) => self.gap(camera)?,
                Event::Leave(camera) => self.leave(camera)?,
                Event::Join(camera) => self.join(camera),
            }
        }
        Ok(())
    }

    fn offer(&mut self, lane: usize) -> Result<(), TestCaseError> {
        let Some(index) = self.index[lane] else { return Ok(()) };
        self.out.offered[lane] += 1;
        self.waits[lane].get_or_insert(self.now);
        let request = (self.out.offered[lane], self.now);
        if let Some(gone) = self.scheduler.offer(index, request, Duration::from_nanos(self.now)) {
            self.note_drop(lane, gone.0)?;
        }
        Ok(())
    }

    fn gap(&mut self, camera: usize) -> Result<(), TestCaseError> {
        loop {
            self.scheduler.next_of(camera, Duration::from_nanos(self.now), &mut self.picked, &mut self.dropped);
            self.drain_dropped()?;
            if self.picked.is_empty() {
                break;
            }
            self.run_picked()?;
        }
        self.scheduler.clear(camera, &mut self.dropped);
        self.drain_dropped()?;
        for (lane, l) in self.world.lanes.iter().enumerate().filter(|(_, l)| l.camera == camera) {
            prop_assert_eq!(self.gone[lane], self.out.offered[lane], "camera {}: something outlived the gap", l.camera);
            self.closed[lane] = self.out.offered[lane];
            self.waits[lane] = None;
        }
        Ok(())
    }

    fn leave(&mut self, camera: usize) -> Result<(), TestCaseError> {
        for lane in self.lanes_of(camera) {
            let Some(index) = self.index[lane].take() else { continue };
            self.scheduler.remove(index, &mut self.dropped);
            self.drain_dropped()?;
            prop_assert_eq!(self.gone[lane], self.out.offered[lane], "lane {}: something stayed behind", lane);
            self.closed[lane] = self.out.offered[lane];
            self.waits[lane] = None;
        }
        let cameras = self.world.cameras();
        for other in 0..cameras {
            self.pairs[camera * cameras + other] = None;
            self.pairs[other * cameras + camera] = None;
        }
        Ok(())
    }

    fn join(&mut self, camera: usize) {
        for lane in self.lanes_of(camera) {
            if self.index[lane].is_some() {
                continue;
            }
            let index = self.scheduler.add(self.world.lanes[lane]);
            self.index[lane] = Some(index);
            let count = self.scheduler.lanes.len();
            self.lane_of.resize(count, 0);
            self.room.resize(count, 0);
            self.lane_of[index] = lane;
            self.room[index] = self.scheduler.lanes[index].queue.capacity();
        }
    }

    fn lanes_of(&self, camera: usize) -> Vec<usize> {
        (0..self.world.lanes.len()).filter(|&lane| self.world.lanes[lane].camera == camera).collect()
    }

    /// A call, or a jump to the next event.
    fn step(&mut self) -> Result<(), TestCaseError> {
        let waiting = self.scheduler.waiting();
        if waiting == 0 {
            self.scheduler.rest();
            prop_assert_eq!(self.scheduler.load(), Load::Kept);
            self.pairs.fill(None);
            self.now = self.world.events.get(self.next).map_or(self.now, |e| e.0);
            return Ok(());
        }
        if self.scheduler.load() == Load::Over {
            self.compare();
        }
        self.scheduler.next(Duration::from_nanos(self.now), &mut self.picked, &mut self.dropped);
        prop_assert!(!self.picked.is_empty(), "idle while {} wait", waiting);
        self.drain_dropped()?;
        if self.scheduler.load() == Load::Kept {
            let model = self.scheduler.lanes[self.picked[0].lane].lane.model;
            let of_model = self.picked.len()
                + self.scheduler.lanes.iter().filter(|l| l.lane.model == model && !l.queue.is_empty()).count();
            // A lane whose next request still waits behind the one in the call was counted twice.
            let more = self.picked.iter().filter(|t| !self.scheduler.lanes[t.lane].queue.is_empty()).count();
            prop_assert_eq!(
                self.picked.len(),
                (of_model - more).min(self.world.batches[model]),
                "the batch is not full"
            );
        }
        self.run_picked()
    }

    fn run_picked(&mut self) -> Result<(), TestCaseError> {
        let model = self.scheduler.lanes[self.picked[0].lane].lane.model;
        let took = self.world.cost(model, self.picked.len());
        let each = took / self.picked.len() as u64;
        self.out.longest_call = self.out.longest_call.max(took);
        let load = self.scheduler.load();
        for Ticket { lane: index, request: (number, offered) } in std::mem::take(&mut self.picked) {
            let lane = self.lane_of[index];
            prop_assert_eq!(self.world.lanes[lane].model, model, "two models in a call");
            prop_assert!(number > self.gone[lane], "lane {}: {} after {}", lane, number, self.gone[lane]);
            prop_assert!(number > self.closed[lane], "lane {}: {} runs after its gap", lane, number);
            self.gone[lane] = number;
            if load == Load::Over {
                prop_assert_eq!(number, self.out.offered[lane], "lane {}: not the newest", lane);
                let since = self.waits[lane].unwrap_or(self.now).max(*self.over_since.get_or_insert(self.now));
                self.out.longest_wait = self.out.longest_wait.max(self.now - since);
            }
            self.waits[lane] = (number < self.out.offered[lane]).then_some(self.now);
            self.over_since = self.over_since.filter(|_| load == Load::Over);
            self.out.used[self.world.lanes[lane].camera] += each;
            self.out.ran.push(Ran { lane, offered, started: self.now, load });
        }
        self.now += took;
        self.scheduler.done(Duration::from_nanos(took));
        Ok(())
    }

    fn drain_dropped(&mut self) -> Result<(), TestCaseError> {
        for Ticket { lane, request } in std::mem::take(&mut self.dropped) {
            self.note_drop(self.lane_of[lane], request.0)?;
        }
        Ok(())
    }

    fn note_drop(&mut self, lane: usize, number: u64) -> Result<(), TestCaseError> {
        prop_assert!(number > self.gone[lane], "lane {}: {} dropped after {}", lane, number, self.gone[lane]);
        self.gone[lane] = number;
        self.out.dropped.push((lane, number));
        Ok(())
    }

    /// Device time of cameras that both wait, against each other.
    fn compare(&mut self) {
        let cameras = self.world.cameras();
        let waits = |c: usize| self.scheduler.lanes.iter().any(|l| l.lane.camera == c && !l.queue.is_empty());
        let waits: Vec<bool> = (0..cameras).map(waits).collect();
        for (a, b) in (0..cameras).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let pair = &mut self.pairs[a * cameras + b];
            if !(waits[a] && waits[b]) {
                *pair = None;
                continue;
            }
            let difference = self.out.used[a] as i64 - self.out.used[b] as i64;
            let (low, high) = pair.map_or((difference, difference), |(l, h)| (l.min(difference), h.max(difference)));
            *pair = Some((low, high));
            self.out.unfair = self.out.unfair.max((high - low) as u64);
        }
    }
}
