//! The promises of the scheduler under random load, and the cases that a person would try first.

use std::time::Duration;

use proptest::prelude::*;

use super::simulation::{Event, MS, Outcome, World, simulate};
use super::*;

const SECONDS: u64 = 12;

/// A camera's models, with the phase of each (ms).
type Cameras = Vec<Vec<(usize, u64)>>;

/// Cameras that offer at the rates of their models, with jitter.
fn world(cameras: &Cameras, every_ms: &[u64], costs: Vec<(u64, u64)>, batches: Vec<usize>, jitter: &[u64]) -> World {
    let mut lanes = Vec::new();
    let mut events = Vec::new();
    for (camera, models) in cameras.iter().enumerate() {
        for &(model, phase) in models {
            let every = every_ms[model];
            for k in 0..SECONDS * 1000 / every {
                let late = jitter[(k as usize + lanes.len()) % jitter.len()] % every;
                events.push(((k * every + phase % every + late) * MS, Event::Offer(lanes.len())));
            }
            lanes.push(Lane { camera, model, every: Duration::from_millis(every) });
        }
    }
    events.sort_unstable();
    World { lanes, costs, batches, events }
}

/// One model at `cameras` cameras, a request takes `cost_ms`, every `every_ms`.
fn alike(cameras: usize, every_ms: u64, cost_ms: u64) -> World {
    let phases = (0..cameras).map(|c| vec![(0, 7 * c as u64)]).collect();
    world(&phases, &[every_ms], vec![(cost_ms * MS, cost_ms * MS)], vec![1], &[0])
}

fn ran_by_lane(outcome: &Outcome) -> Vec<usize> {
    let lanes = outcome.offered.len();
    (0..lanes).map(|lane| outcome.ran.iter().filter(|r| r.lane == lane).count()).collect()
}

#[test]
fn four_cameras_at_twice_the_load_are_served_alike_and_fresh() {
    // 4 x 50 ms every 100 ms: each gets every second window.
    let outcome = simulate(&alike(4, 100, 50)).unwrap();
    let ran = ran_by_lane(&outcome);
    assert!(ran.iter().all(|n| n.abs_diff(60) <= 6), "{ran:?} of 120");
    let over: Vec<_> = outcome.ran.iter().filter(|r| r.load == Load::Over).collect();
    let oldest = over.iter().map(|r| (r.started - r.offered) / MS).max().unwrap();
    assert!(oldest <= 150, "{oldest} ms old: the newest is at most a stride old, and the three before it take 150 ms");
    let steady: Vec<u64> = over.iter().filter(|r| r.lane == 0).skip(3).map(|r| r.started / MS).collect();
    let round = steady.windows(2).map(|w| w[1] - w[0]).max().unwrap();
    assert!(round <= 250, "a round of {round} ms");
}

#[test]
fn a_little_too_much_drops_a_little() {
    // 105 ms every 100 ms: one in 21 must go.
    let outcome = simulate(&alike(1, 100, 105)).unwrap();
    assert!((1..=16).contains(&outcome.dropped.len()), "{} of 120 dropped", outcome.dropped.len());
}

#[test]
fn many_models_and_dear_ones_take_nothing_from_other_cameras() {
    // Camera 0: three models of 60 ms; camera 1: one of 60 ms; camera 2: one of 200 ms; each every 100 ms.
    let cameras = vec![vec![(0, 0), (1, 0), (2, 0)], vec![(0, 3)], vec![(3, 5)]];
    let costs = [60, 60, 60, 200].map(|ms| (ms * MS, ms * MS)).to_vec();
    let outcome = simulate(&world(&cameras, &[100; 4], costs, vec![1; 4], &[0])).unwrap();
    let third = outcome.used.iter().sum::<u64>() / 3;
    assert!(outcome.used.iter().all(|used| used.abs_diff(third) < third / 5), "{:?}", outcome.used);
    let ran = ran_by_lane(&outcome);
    assert!(ran[0].abs_diff(ran[1]) <= 12 && ran[0].abs_diff(ran[2]) <= 12, "models of a camera share alike: {ran:?}");
}

#[test]
fn a_modest_camera_loses_nothing_beside_greedy_ones() {
    // 10 ms every 500 ms, between three cameras that want 150 ms every 100 ms each.
    let cameras = vec![vec![(0, 40)], vec![(1, 0)], vec![(1, 1)], vec![(1, 2)]];
    let costs = vec![(10 * MS, 10 * MS), (150 * MS, 150 * MS)];
    let outcome = simulate(&world(&cameras, &[500, 100], costs, vec![1, 1], &[0])).unwrap();
    let lost = outcome.dropped.iter().filter(|(lane, _)| *lane == 0).count();
    // The cut when overload is found may take one.
    assert!(lost <= 1, "{lost} of {}", outcome.offered[0]);
}

#[test]
fn a_batch_under_overload_stays_within_a_slice() {
    // Eight cameras, batches of eight; a request takes 40 ms however many share a call: the processor, not a GPU.
    let mut world = alike(8, 100, 40);
    world.batches = vec![8];
    let mut scheduler = Scheduler::new(&world.lanes, &world.batches);
    let (mut picked, mut dropped) = (Vec::new(), Vec::new());
    for lane in 0..8 {
        assert_eq!(scheduler.offer(lane, (), Duration::ZERO), None);
    }
    scheduler.next(Duration::ZERO, &mut picked, &mut dropped);
    assert_eq!(picked.len(), 8, "all share a call while the device keeps up");
    scheduler.done(Duration::from_millis(320));
    assert!((scheduler.demand() - 3.2).abs() < 1e-6, "{}", scheduler.demand());
    for lane in 0..8 {
        assert_eq!(scheduler.offer(lane, (), Duration::from_millis(320)), None);
    }
    picked.clear();
    scheduler.next(Duration::from_millis(1001), &mut picked, &mut dropped);
    assert_eq!((picked.len(), scheduler.load(), dropped.len()), (2, Load::Over, 0));
    assert_eq!(scheduler.offer(7, (), Duration::from_millis(1001)), Some(()), "the newer takes the older's place");
}

/// A load of any kind. `scale`: the device time asked for, per time.
fn any_world(scale: impl Strategy<Value = f64>) -> impl Strategy<Value = World> {
    let models = prop::collection::vec((40u64..1000, 1u64..100, 0u64..=100, 1usize..9), 1..4);
    let phases = prop::collection::vec(prop::collection::vec(prop::option::weighted(0.7, 0u64..1000), 3), 1..6);
    let jitter = prop::collection::vec(0u64..60, 1..20);
    let gaps = prop::collection::vec((0u64..SECONDS * 1000, 0usize..6), 0..4);
    (models, phases, jitter, gaps, scale).prop_map(|(models, phases, jitter, gaps, scale)| {
        let of_camera = |phases: Vec<Option<u64>>| {
            let mut of: Vec<_> =
                phases.iter().take(models.len()).enumerate().filter_map(|(m, p)| Some((m, (*p)?))).collect();
            if of.is_empty() {
                of.push((0, 0));
            }
            of
        };
        let cameras: Cameras = phases.into_iter().map(of_camera).collect();
        let every: Vec<u64> = models.iter().map(|m| m.0).collect();
        // Costs in proportion, such that all lanes together ask for `scale`.
        let asked: f64 = cameras.iter().flatten().map(|&(m, _)| models[m].1 as f64 / every[m] as f64).sum();
        let costs = models.iter().map(|&(_, cost, further, _)| {
            let one = (cost as f64 / asked * scale * MS as f64) as u64 + 1;
            (one, one * further / 100)
        });
        let mut world = world(&cameras, &every, costs.collect(), models.iter().map(|m| m.3).collect(), &jitter);
        let last = world.cameras() - 1;
        world.events.extend(gaps.into_iter().map(|(at, camera)| (at * MS, Event::Gap(camera.min(last)))));
        world.events.sort_unstable();
        world
    })
}

/// The same, where cameras leave for a while, or for good.
fn any_moving_world(scale: impl Strategy<Value = f64>) -> impl Strategy<Value = World> {
    let moves = prop::collection::vec((0u64..SECONDS * 1000, 0usize..6, 0u64..4000), 0..12);
    (any_world(scale), moves).prop_map(|(mut world, moves)| {
        let last = world.cameras() - 1;
        for (at, camera, away) in moves {
            let camera = camera.min(last);
            world.events.push((at * MS, Event::Leave(camera)));
            world.events.push(((at + away) * MS, Event::Join(camera)));
        }
        world.events.sort_unstable();
        world
    })
}

/// A camera that comes owes nothing for the one that had its index before.
#[test]
fn a_camera_in_another_s_place_pays_none_of_its_debts() {
    let lane = |camera| Lane { camera, model: 0, every: Duration::from_millis(100) };
    let mut scheduler = Scheduler::new(&[lane(0), lane(1)], &[1]);
    let (mut picked, mut dropped) = (Vec::new(), Vec::new());
    let mut run = |scheduler: &mut Scheduler<()>, now: u64, took: u64| {
        scheduler.next(Duration::from_millis(now), &mut picked, &mut dropped);
        scheduler.done(Duration::from_millis(took));
        picked.drain(..).map(|ticket| ticket.lane).collect::<Vec<_>>()
    };
    let offer = |scheduler: &mut Scheduler<()>, lane: usize, now: u64| {
        assert_eq!(scheduler.offer(lane, (), Duration::from_millis(now)), None);
    };
    offer(&mut scheduler, 0, 0);
    offer(&mut scheduler, 1, 0);
    assert_eq!(run(&mut scheduler, 1_500, 10_000), [0], "overload begins, and ten seconds go to the first camera");
    assert_eq!(run(&mut scheduler, 11_500, 20), [1]);
    scheduler.remove(0, &mut Vec::new());
    assert_eq!(scheduler.add(lane(0)), 0, "the place is used again");
    offer(&mut scheduler, 1, 11_520);
    offer(&mut scheduler, 0, 11_520);
    assert_eq!(run(&mut scheduler, 11_520, 20), [0]);
}

/// Who stays shares the time of a camera that is away, and no more.
#[test]
fn a_camera_that_leaves_gives_its_time_to_the_others_until_it_is_back() {
    let mut world = alike(3, 100, 100);
    let gone = (3_000 * MS, Event::Leave(0));
    let back = (4_000 * MS, Event::Join(0));
    world.events.extend([gone, back]);
    world.events.sort_unstable();
    let outcome = simulate(&world).unwrap();
    let runs = |lane, from: u64, to: u64| {
        let within = (from * 1000 * MS)..(to * 1000 * MS);
        outcome.ran.iter().filter(|r| r.lane == lane && within.contains(&r.started)).count()
    };
    assert_eq!(runs(0, 3, 4), 0);
    let while_away = [1, 2].map(|lane| runs(lane, 3, 4));
    assert!(while_away.iter().all(|n| n.abs_diff(5) <= 1), "the two share its time: {while_away:?}");
    let after = [0, 1, 2].map(|lane| runs(lane, 4, 12));
    assert!(after.iter().all(|n| n.abs_diff(80 / 3) <= 2), "all three alike again: {after:?}");
}

proptest! {
    #[test]
    fn every_request_runs_or_is_dropped_once_in_order_and_under_overload_soon(world in any_moving_world(0.1f64..8.0)) {
        // Order, gaps, newest first, full batches, no idling and bounded queues are checked at every step.
        let outcome = simulate(&world)?;
        for (lane, offered) in outcome.offered.iter().enumerate() {
            let ran = outcome.ran.iter().filter(|r| r.lane == lane).count();
            let dropped = outcome.dropped.iter().filter(|d| d.0 == lane).count();
            prop_assert_eq!((ran + dropped) as u64, *offered, "lane {}", lane);
        }
        let bound = world.wait_bound(outcome.longest_call);
        prop_assert!(outcome.longest_wait <= bound, "waited {} ms, bound {} ms", outcome.longest_wait / MS, bound / MS);
        for ran in &outcome.ran {
            let bound = if ran.load == Load::Over { bound } else { PATIENCE.as_nanos() as u64 + outcome.longest_call };
            prop_assert!(ran.started - ran.offered <= bound, "{:?} is {} ms old", ran, (ran.started - ran.offered) / MS);
        }
    }

    #[test]
    fn cameras_that_wait_get_the_same_share(world in any_moving_world(1.5f64..8.0)) {
        let outcome = simulate(&world)?;
        let bound = 2 * (SLICE.as_nanos() as u64 + outcome.longest_call);
        prop_assert!(outcome.unfair <= bound, "{} ms apart, bound {} ms", outcome.unfair / MS, bound / MS);
    }

    #[test]
    fn without_overload_nothing_is_dropped(mut world in any_world(0.05f64..0.5)) {
        // At most two requests of a lane come together, and work is cleared at half speed: busy for four times all of them,
        // and one more that was at hand.
        let all: u64 = world.lanes.iter().map(|l| world.costs[l.model].0).sum();
        let too_long = (5 * all).div_ceil(PATIENCE.as_nanos() as u64).max(1);
        world.costs.iter_mut().for_each(|(one, further)| (*one, *further) = (*one / too_long + 1, *further / too_long));
        let outcome = simulate(&world)?;
        prop_assert_eq!(outcome.dropped.len(), 0);
        prop_assert!(outcome.ran.iter().all(|r| r.load == Load::Kept));
    }
}
