//! The states behind kind `hmm`: when, within the window of a score, the action went on; and a burst on top or none.
//!
//! Time is cut into cells, one or more to a stride. A state is the run of the newest cells (on or off), as far back as a
//! window or a pause reaches: so it knows the share of the window that the action fills, and whether the newest run may end
//! yet (explicit durations: Rabiner 1989, section IV.D). Built once per decoder, shared by its copies; never changes.

use std::collections::BTreeMap;

use crate::manifest::ScoreModel;

/// Changes of state within the history of one state; more would make long windows dear.
const MOST_SWITCHES: usize = 2;
/// A deviation counts as at most this many standard deviations: no single score decides alone.
const MOST_DEVIATIONS: f64 = 6.0;

/// Of the chance that an action begins or ends in a stride: what matters less than this is left out.
const NEGLIGIBLE: f64 = 0.03;

/// Index of a state.
pub(super) type StateIndex = u16;

/// What one state says.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// Cells since the newest run of the action began, 1 for the newest cell; 0: none; `history + 1`: before the history.
    pub since_begin: u8,
    /// Cells since the newest cell without the action, 1 for the newest; 0: none.
    pub since_off: u8,
    /// Whether the action goes on in the newest cells, newest first: bit 0 is the newest.
    cells: u64,
    /// Mean score.
    level: f64,
    /// The state when time passes without a score and nothing changes.
    held: StateIndex,
    /// Its edges: from here, to there.
    edges: (u32, u32),
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    to: StateIndex,
    /// Index into `expected`.
    expected: u16,
    weight: f64,
}

/// States and the ways between them in one stride.
#[derive(Clone, Debug)]
pub(super) struct Lattice {
    states: Vec<State>,
    /// By the state they lead from.
    edges: Vec<Edge>,
    /// Values of `level(to) - correlation * level(from)`.
    expected: Vec<f64>,
    correlation: f64,
    deviation: f64,
    innovation: f64,
    low: f64,
    high: f64,
    /// A belief below this counts as none: most states are impossible most of the time.
    negligible: f64,
    /// Cells to a stride.
    pub cells: usize,
    /// Cells that a state looks back on.
    pub history: usize,
}

/// Scratch space of a pass over a [`Lattice`].
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    likelihood: Vec<f64>,
    next: Vec<f64>,
}

/// A score, as the lattice takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed {
    pub score: f64,
    /// The score a stride before; `None` after a hole.
    pub before: Option<f64>,
    /// Whole strides without a score before this one.
    pub missed: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Burst {
    None,
    Up,
    Down,
}

impl Lattice {
    /// `cells`: to a stride of `stride_s` seconds.
    pub(super) fn new(model: &ScoreModel, stride_s: f64, cells: usize) -> Self {
        let cell_s = stride_s / cells as f64;
        let count = |seconds: f64| (seconds / cell_s).round().max(1.0) as usize;
        let window = count(model.window_s);
        // A pause that is longer than the window is known in part, which is enough: no more is asked of it.
        let history = window.max(count(model.pause_s)).min(window.max(MAX_HISTORY));
        let shape = Shape {
            history,
            window,
            shortest: count(model.shortest_s).min(history),
            pause: count(model.pause_s).min(history),
            begin: (cell_s / model.apart_s).min(0.5),
            end: (cell_s / model.length_s).min(0.5),
        };
        let mut builder = Builder::new(model, stride_s, shape);
        builder.connect(cells);
        let Builder { states, edges, expected, .. } = builder;
        Self {
            negligible: NEGLIGIBLE * shape.begin.min(shape.end) * cells as f64,
            states,
            edges,
            expected,
            correlation: model.correlation,
            deviation: model.deviation,
            innovation: model.deviation * (1.0 - model.correlation * model.correlation).sqrt(),
            low: model.low - MOST_DEVIATIONS * model.deviation,
            high: model.high + MOST_DEVIATIONS * model.deviation,
            cells,
            history,
        }
    }

    /// Makes `scratch` large enough for this lattice.
    pub(super) fn reserve(&self, scratch: &mut Scratch) {
        scratch.likelihood.reserve(self.expected.len().max(self.states.len()));
        scratch.next.reserve(self.states.len());
    }

    pub(super) fn states(&self) -> &[State] {
        &self.states
    }

    /// Nothing has happened yet.
    pub(super) fn idle(&self) -> Vec<f64> {
        let mut belief = vec![0.0; self.states.len()];
        belief[0] = 1.0;
        belief
    }

    /// The action has gone on for as long as the history reaches.
    pub(super) fn busy(&self, belief: &mut [f64]) {
        let on = |s: &State| s.since_off == 0 && s.since_begin > 0;
        let count = self.states.iter().filter(|s| on(s)).count().max(1) as f64;
        belief.iter_mut().zip(&self.states).for_each(|(b, s)| *b = if on(s) { 1.0 / count } else { 0.0 });
    }

    /// One stride on: `belief[s]`, the probability of state `s` given all scores so far, is brought up to date.
    pub(super) fn forward(&self, belief: &mut Vec<f64>, seen: &Observed, scratch: &mut Scratch) {
        for _ in 0..(seen.missed as usize * self.cells).min(self.history) {
            self.hold(belief, scratch);
        }
        let mut likelihood = Likelihood::of(self, seen, &mut scratch.likelihood);
        scratch.next.clear();
        scratch.next.resize(self.states.len(), 0.0);
        for (state, &b) in self.states.iter().zip(belief.iter()).filter(|(_, b)| **b > self.negligible) {
            for edge in self.edges_of(state) {
                scratch.next[usize::from(edge.to)] += b * edge.weight * likelihood.along(edge);
            }
        }
        std::mem::swap(belief, &mut scratch.next);
        normalise(belief);
    }

    /// One stride back: `after[s]`, the likelihood of all later scores after state `s`, is brought to the stride before
    /// `seen`, whose likelihood it takes in. `before`: belief of that stride; where it is nothing, nothing is worked out.
    pub(super) fn backward(&self, after: &mut Vec<f64>, before: &[f64], seen: &Observed, scratch: &mut Scratch) {
        let mut likelihood = Likelihood::of(self, seen, &mut scratch.likelihood);
        scratch.next.clear();
        for (state, b) in self.states.iter().zip(before) {
            let wanted = *b > self.negligible || seen.missed > 0;
            let sum = |edge: &Edge| after[usize::from(edge.to)] * edge.weight * likelihood.along(edge);
            scratch.next.push(if wanted { self.edges_of(state).iter().map(sum).sum() } else { 0.0 });
        }
        for _ in 0..(seen.missed as usize * self.cells).min(self.history) {
            let held = |s: &State| scratch.next[usize::from(s.held)];
            after.iter_mut().zip(&self.states).for_each(|(a, s)| *a = held(s));
            std::mem::swap(after, &mut scratch.next);
        }
        std::mem::swap(after, &mut scratch.next);
        normalise(after);
    }

    /// Probability of the action in each of the newest `self.cells` cells, oldest first.
    pub(super) fn newest<'a>(&'a self, belief: &'a [f64], after: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        let whole: f64 = belief.iter().zip(after).map(|(b, a)| b * a).sum();
        (0..self.cells).rev().map(move |cell| {
            let on = |s: &State| s.cells >> cell & 1 == 1;
            let sum: f64 =
                self.states.iter().zip(belief.iter().zip(after)).filter(|(s, _)| on(s)).map(|(_, (b, a))| b * a).sum();
            if whole > 0.0 { sum / whole } else { 0.0 }
        })
    }

    fn hold(&self, belief: &mut Vec<f64>, scratch: &mut Scratch) {
        scratch.next.clear();
        scratch.next.resize(self.states.len(), 0.0);
        for (state, b) in self.states.iter().zip(belief.iter()) {
            scratch.next[usize::from(state.held)] += b;
        }
        std::mem::swap(belief, &mut scratch.next);
    }

    fn edges_of(&self, state: &State) -> &[Edge] {
        &self.edges[state.edges.0 as usize..state.edges.1 as usize]
    }
}

/// Likelihoods of one score, each worked out when it is first asked for.
struct Likelihood<'a> {
    lattice: &'a Lattice,
    /// The score, less what of the deviation before it is still in it.
    rest: f64,
    deviation: f64,
    /// After a hole the deviation before is not known, so a score is held against its level alone.
    alone: bool,
    known: &'a mut [f64],
}

const UNKNOWN: f64 = -1.0;

impl<'a> Likelihood<'a> {
    fn of(lattice: &'a Lattice, seen: &Observed, known: &'a mut Vec<f64>) -> Self {
        let bounded = |score: f64| score.clamp(lattice.low, lattice.high);
        let left = seen.before.map_or(0.0, |before| lattice.correlation * bounded(before));
        known.clear();
        known.resize(lattice.expected.len().max(lattice.states.len()), UNKNOWN);
        let alone = seen.before.is_none();
        let deviation = if alone { lattice.deviation } else { lattice.innovation };
        Self { lattice, rest: bounded(seen.score) - left, deviation, alone, known }
    }

    fn along(&mut self, edge: &Edge) -> f64 {
        let place = usize::from(if self.alone { edge.to } else { edge.expected });
        if self.known[place] == UNKNOWN {
            let expected = if self.alone { self.lattice.states[place].level } else { self.lattice.expected[place] };
            let d = ((self.rest - expected) / self.deviation).clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS);
            self.known[place] = (-0.5 * d * d).exp();
        }
        self.known[place]
    }
}

/// Longest history beyond the window, cells: a pause need not be known whole.
const MAX_HISTORY: usize = 16;

fn normalise(belief: &mut [f64]) {
    let sum: f64 = belief.iter().sum();
    if sum > 0.0 && sum.is_finite() {
        belief.iter_mut().for_each(|b| *b /= sum);
    } else {
        belief.fill(0.0);
        belief[0] = 1.0;
    }
}

/// Lengths in cells, chances per cell.
#[derive(Clone, Copy, Debug)]
struct Shape {
    history: usize,
    window: usize,
    shortest: usize,
    pause: usize,
    begin: f64,
    end: f64,
}

impl Shape {
    /// The runs of a history, oldest first: (on, cells).
    fn runs(self, cells: u64) -> Vec<(bool, usize)> {
        let mut runs: Vec<(bool, usize)> = Vec::new();
        for cell in (0..self.history).rev() {
            let on = cells >> cell & 1 == 1;
            match runs.last_mut() {
                Some((same, length)) if *same == on => *length += 1,
                _ => runs.push((on, 1)),
            }
        }
        runs
    }

    fn least(self, on: bool) -> usize {
        if on { self.shortest } else { self.pause }
    }

    /// What the next cell may be, with its chance: a run ends only once it is long enough.
    fn next(self, cells: u64) -> impl Iterator<Item = (bool, f64)> {
        let runs = self.runs(cells);
        let (on, length) = runs.last().copied().unwrap_or_default();
        let left = runs.len() - usize::from(runs.first().is_some_and(|(_, oldest)| *oldest == 1));
        let may_end = length >= self.least(on) && left <= MOST_SWITCHES;
        let chance = if may_end { if on { self.end } else { self.begin } } else { 0.0 };
        [(on, 1.0 - chance), (!on, chance)].into_iter().filter(|(_, chance)| *chance > 0.0)
    }

    fn shifted(self, cells: u64, on: bool) -> u64 {
        (cells << 1 | u64::from(on)) & (u64::MAX >> (64 - self.history))
    }
}

struct Builder<'a> {
    model: &'a ScoreModel,
    stride_s: f64,
    shape: Shape,
    index: BTreeMap<(u64, Burst), StateIndex>,
    queue: Vec<(u64, Burst)>,
    states: Vec<State>,
    edges: Vec<Edge>,
    expected: Vec<f64>,
}

impl<'a> Builder<'a> {
    fn new(model: &'a ScoreModel, stride_s: f64, shape: Shape) -> Self {
        let (index, queue) = (BTreeMap::new(), Vec::new());
        let (states, edges, expected) = (Vec::new(), Vec::new(), Vec::new());
        let mut builder = Self { model, stride_s, shape, index, queue, states, edges, expected };
        builder.state(0, Burst::None);
        builder
    }

    fn level(&self, cells: u64, burst: Burst) -> f64 {
        let filled = (cells & (u64::MAX >> (64 - self.shape.window))).count_ones();
        let share = f64::from(filled) / self.shape.window as f64;
        let base = self.model.low + share * (self.model.high - self.model.low);
        match burst {
            Burst::None => base,
            Burst::Up => base + self.model.burst,
            Burst::Down => base - self.model.burst,
        }
    }

    /// The index of a state, which is made if it is new.
    fn state(&mut self, cells: u64, burst: Burst) -> StateIndex {
        if let Some(&index) = self.index.get(&(cells, burst)) {
            return index;
        }
        // At most two switches in at most 32 cells, times three: far below 65,536.
        let index = self.states.len() as StateIndex;
        self.index.insert((cells, burst), index);
        self.queue.push((cells, burst));
        let history = self.shape.history;
        let is_on = |cell: usize| cells >> cell & 1 == 1;
        let since_off = (0..history).find(|&c| !is_on(c)).map_or(0, |c| c + 1);
        let since_begin = (0..history)
            .find(|&c| is_on(c))
            .map_or(0, |newest| (newest..history).find(|&c| !is_on(c)).map_or(history + 1, |off| off));
        let (since_begin, since_off) = (since_begin as u8, since_off as u8);
        let level = self.level(cells, burst);
        self.states.push(State { since_begin, since_off, cells, level, held: index, edges: (0, 0) });
        index
    }

    /// Makes every state that can be reached, and the edges of a stride.
    fn connect(&mut self, cells_per_stride: usize) {
        let mut place = BTreeMap::new();
        while let Some((cells, burst)) = self.queue.pop() {
            let from = self.state(cells, burst);
            let newest = cells & 1 == 1;
            let held = self.state(self.shape.shifted(cells, newest), burst);
            self.states[usize::from(from)].held = held;
            let first = self.edges.len() as u32;
            for (later, chance) in self.after_stride(cells, cells_per_stride) {
                for (next, burst_chance) in self.bursts(burst) {
                    let to = self.state(later, next);
                    let mean = self.states[usize::from(to)].level
                        - self.model.correlation * self.states[usize::from(from)].level;
                    let expected = *place.entry((mean * 1e6).round() as i64).or_insert_with(|| {
                        self.expected.push(mean);
                        (self.expected.len() - 1) as u16
                    });
                    self.edges.push(Edge { to, expected, weight: chance * burst_chance });
                }
            }
            self.states[usize::from(from)].edges = (first, self.edges.len() as u32);
        }
    }

    fn after_stride(&self, cells: u64, cells_per_stride: usize) -> BTreeMap<u64, f64> {
        let mut now = BTreeMap::from([(cells, 1.0)]);
        for _ in 0..cells_per_stride {
            let mut later = BTreeMap::new();
            for (cells, chance) in now {
                for (on, step) in self.shape.next(cells) {
                    *later.entry(self.shape.shifted(cells, on)).or_insert(0.0) += chance * step;
                }
            }
            now = later;
        }
        now
    }

    /// What follows a burst, or none, in a stride.
    fn bursts(&self, now: Burst) -> Vec<(Burst, f64)> {
        let per_stride = |per_hour: f64| per_hour * self.stride_s / 3600.0;
        let (up, down) = (per_stride(self.model.bursts_per_hour), per_stride(self.model.dropouts_per_hour));
        if self.model.burst == 0.0 || up + down == 0.0 {
            return vec![(Burst::None, 1.0)];
        }
        match now {
            Burst::None => vec![(Burst::None, 1.0 - up - down), (Burst::Up, up), (Burst::Down, down)],
            burst => {
                let over = (self.stride_s / self.model.burst_s).min(1.0);
                vec![(burst, 1.0 - over), (Burst::None, over)]
            }
        }
        .into_iter()
        .filter(|(_, chance)| *chance > 0.0)
        .collect()
    }
}
