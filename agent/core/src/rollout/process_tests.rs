//! The agent's process ends while a release is on trial, or the release has nothing to watch: who is to blame, and what goes on.

use std::time::Duration;

use jiff::Timestamp;

use super::step::{Health, Input, Job, Policy};
use super::tests::{Device, offer};
use super::*;

/// The machine went down, and is up again.
fn reboots(device: &mut Device, boot: &str) {
    device.machine.settings.boot = Some(boot.to_owned());
    device.give(Input::Started);
}

/// Loaded for so many seconds, and no camera has had a window for it.
fn idle(seconds: u64) -> Input {
    let ran = Duration::from_secs(seconds);
    Input::Health(Health { ran, idle: ran, ..Health::default() })
}

fn on_trial(state: &str) -> Device {
    let mut device = Device::new(Policy::Auto);
    device.offered(offer(7, 1));
    device.until(state);
    device
}

#[test]
fn a_crash_with_the_candidate_loaded_costs_a_try_and_the_last_one_ends_it() {
    let mut device = Device::new(Policy::Auto);
    device.offered(offer(7, 1));
    device.until("probation");
    assert_eq!(device.tries(), Some(1));
    device.give(Input::Started);
    assert_eq!((device.record.state(), device.tries()), ("swapping", Some(0)), "the second load");
    device.ends_well();
    device.give(Input::Started);
    assert_eq!((device.record.state(), device.code()), ("rolling_back", Some(Code::TriesSpent)));
    assert_eq!(device.record.serving(), Slot::Factory, "the candidate is not touched");
    device.until("idle");
    assert!(device.record.quarantined("stable", 7).is_some());
}

#[test]
fn a_stop_in_good_order_costs_no_try() {
    let mut device = Device::new(Policy::Auto);
    device.offered(offer(7, 1));
    for state in ["proving", "shadowing", "probation"] {
        device.until(state);
        for boot in 0..10 {
            device.give(idle(60));
            device.give(Input::Stopped);
            reboots(&mut device, &format!("{}", boot / 2));
            device.until(state);
        }
    }
    device.until("idle");
    assert_eq!(device.runs().as_deref(), Some("1.1.0"));
}

#[test]
fn a_proof_that_is_cut_off_again_and_again_waits() {
    let mut device = Device::new(Policy::Auto);
    device.offered(offer(7, 1));
    device.until("proving");
    for _ in 0..MAX_PROOFS {
        assert_eq!(device.record.state(), "proving");
        device.give(Input::Started);
    }
    assert_eq!((device.record.state(), device.code()), ("settling", Some(Code::Interrupted)));
    assert_eq!(device.record.quarantine, [], "power cuts are no fault of the release");
}

#[test]
fn when_the_machine_goes_down_nobody_is_to_blame_and_what_it_happens_to_too_often_waits() {
    for state in ["shadowing", "swapping", "probation"] {
        let mut device = on_trial(state);
        for cut in 0..MAX_CUTS {
            reboots(&mut device, &format!("{cut}"));
            assert_eq!(device.tries(), Some(1), "{state}: the try of this load, and none before");
            device.until(state);
        }
        reboots(&mut device, "last");
        assert_eq!((device.code(), device.tries()), (Some(Code::Interrupted), Some(TRIES)), "{state}");
        assert_eq!(device.record.serving(), Slot::Factory, "{state}");
        device.until("idle");
        assert_eq!(device.record.quarantine, [], "{state}");
        assert!(device.record.attempts.as_ref().unwrap().not_before.is_some(), "{state}: tried again after a pause");
    }
}

#[test]
fn a_candidate_with_nothing_to_do_did_not_kill_the_agent_and_one_that_is_loaded_or_scores_may_have() {
    let mut device = on_trial("probation");
    for _ in 0..MAX_CUTS {
        device.give(idle(60));
        device.give(Input::Started);
        assert_eq!((device.record.state(), device.tries()), ("swapping", Some(1)));
        device.ends_well();
    }
    device.give(idle(60));
    device.give(Input::Started);
    assert_eq!((device.record.state(), device.code()), ("rolling_back", Some(Code::Interrupted)), "but not for ever");
    assert_eq!(device.record.quarantine, []);

    let scores = Input::Health(Health { ran: Duration::from_secs(90), windows: 1, ..Health::default() });
    for cause in [idle(59), scores] {
        let mut device = on_trial("probation");
        device.give(idle(60));
        device.give(Input::Started);
        device.ends_well();
        device.give(cause.clone());
        device.give(Input::Started);
        assert_eq!((device.record.state(), device.tries()), ("swapping", Some(0)), "{cause:?}");
        device.ends_well();
        device.give(Input::Started);
        assert_eq!((device.record.state(), device.code()), ("rolling_back", Some(Code::TriesSpent)), "{cause:?}");
    }
}

#[test]
fn a_probation_without_windows_gives_way_to_a_newer_release() {
    let mut device = on_trial("probation");
    device.offered(offer(8, 2));
    device.give(idle(59));
    assert_eq!(device.record.state(), "probation", "cameras may be on their way");
    device.give(idle(60));
    assert_eq!((device.record.state(), &device.step.job), ("rolling_back", &Job::Load { slot: Slot::Factory }));
    assert_eq!((device.code(), &device.record.quarantine[..]), (None, &[][..]), "it has done nothing wrong");
    device.until("probation");
    assert_eq!(device.record.candidate().unwrap().release.epoch, 8);
    device.until("idle");
    assert_eq!(device.runs().as_deref(), Some("1.2.0"));
}

#[test]
fn a_probation_without_windows_goes_on_while_nothing_else_may_begin() {
    let mut device = on_trial("idle");
    device.offered(offer(8, 2));
    device.until("probation");
    device.give(idle(60));
    assert_eq!(device.record.state(), "probation", "nothing newer is known");
    device.offered(offer(9, 2));
    assert_eq!(device.record.state(), "probation", "the same bundle, published again");
    let waves = vec![Wave { seed_below: SEEDS, not_before: Timestamp::MAX }];
    let later = offer(10, 3);
    device.offered(Offer { channel: Channel { waves, ..later.channel }, ..later });
    assert_eq!(device.record.state(), "probation", "its wave has not come");
    device.offered(offer(11, 1));
    assert_eq!(device.record.state(), "rolling_back", "the publisher went back to what ran before");
    device.until("idle");
    assert_eq!((device.runs().as_deref(), &device.step.job), (Some("1.1.0"), &Job::None));
}

/// A channel that is published again, for other waves say, has a higher epoch and the same bundle.
#[test]
fn going_back_by_hand_holds_for_every_epoch_that_was_seen_and_a_new_one_is_a_new_chance() {
    for state in ["probation", "idle"] {
        let mut device = on_trial(state);
        device.offered(offer(8, 1));
        assert_eq!(device.record.state(), state);
        assert_eq!(device.give(Input::Rollback).refused, None);
        device.until("idle");
        device.offered(offer(8, 1));
        assert_eq!((device.runs(), &device.step.job), (None, &Job::None), "{state}: as somebody has decided");
        for epoch in [7, 8] {
            assert_eq!(device.record.quarantined("stable", epoch).unwrap().fault.code, Code::RolledBack);
        }
        device.offered(offer(9, 1));
        assert_eq!(device.record.state(), "reserving", "{state}: the publisher has decided anew");
    }
}

#[test]
fn that_the_state_was_lost_is_told_until_a_release_has_come_through() {
    let mut device = Device::new(Policy::Auto);
    device.record.fault = Some(Code::StateDamaged.into());
    device.offered(offer(7, 1));
    device.until("probation");
    assert_eq!(device.code(), Some(Code::StateDamaged));
    device.until("idle");
    assert_eq!((device.runs().as_deref(), device.code()), (Some("1.1.0"), None));
}
