//! What holds a trial up, or cannot: the maintenance window, and an agreement that nobody can measure.

use std::time::Duration;

use super::step::{Done, Job, Policy, Window};
use super::tests::{Device, offer};
use super::*;

#[test]
fn a_release_is_fetched_and_takes_over_only_in_the_window() {
    let mut device = Device::new(Policy::Auto);
    let opens = device.now.time.checked_add(Duration::from_secs(600)).unwrap();
    device.now.window = Window::Closed { opens };
    device.offered(offer(7, 1));
    device.until("downloading");
    assert_eq!((&device.step.job, device.step.wake <= opens), (&Job::None, true), "nothing is fetched yet");
    device.now.window = Window::Open;
    device.later(600);
    let download = Job::Download { release: offer(7, 1).release() };
    assert_eq!(device.step.job, download);
    // It does not get through: the rest is fetched in the next window, which begins where this one has left off.
    let soon = device.now.time.checked_add(Duration::from_secs(30)).unwrap();
    assert!(device.step.wake <= soon, "what is under way ends with the window, not an hour later");
    let opens = device.now.time.checked_add(Duration::from_secs(86_400)).unwrap();
    device.now.window = Window::Closed { opens };
    device.later(30);
    assert_eq!((device.record.state(), &device.step.job, device.code()), ("downloading", &Job::None, None));
    device.now.window = Window::Open;
    device.later(86_400);
    assert_eq!(device.step.job, download);
    // And what is through as the window closes is through.
    let opens = device.now.time.checked_add(Duration::from_secs(600)).unwrap();
    device.now.window = Window::Closed { opens };
    device.ends_well();
    assert_eq!(device.record.state(), "unpacking");
    device.until("ready");
    assert_eq!((&device.step.job, device.step.wake <= opens), (&Job::None, true));
    device.now.window = Window::Open;
    device.later(600);
    assert_eq!(device.record.state(), "swapping");
}

/// A gate that cannot be asked does not pass in silence: it is in the state, and in the history for good.
#[test]
fn an_agreement_that_nobody_can_measure_is_told() {
    let skipped = || Done::ShadowSkipped { why: "it reads other frames".into() };
    let mut device = Device::new(Policy::Auto);
    device.offered(offer(7, 1));
    device.until("shadowing");
    device.now.window = Window::Closed { opens: device.now.time.checked_add(Duration::from_secs(600)).unwrap() };
    let note = device.ends(Ok(skipped())).note.clone().unwrap();
    assert_eq!((note.from.as_str(), note.to.as_str()), ("shadowing", "ready"));
    assert_eq!(note.fault.unwrap().to_string(), "not_compared: it reads other frames");
    assert_eq!((device.code(), device.tries()), (Some(Code::NotCompared), Some(TRIES)));
    device.now.window = Window::Open;
    device.later(600);
    device.until("idle");
    assert_eq!((device.runs().as_deref(), device.code()), (Some("1.1.0"), None), "its probation decides");

    let ungated = Gates { shadow_agreement: None, ..offer(8, 2).channel.gates };
    device.offered(Offer { channel: Channel { gates: ungated, ..offer(8, 2).channel }, ..offer(8, 2) });
    device.until("shadowing");
    assert_eq!(device.ends(Ok(skipped())).record.fault, None, "nobody asked");
}
