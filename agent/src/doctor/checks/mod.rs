//! The checks, in the order of the report, and how long each may take.
//!
//! A check looks, and tells what it saw and what to do; it changes nothing but one file of a few bytes in the state
//! directory, which it removes again, and one message to the broker.

mod accelerator;
mod board;
mod broker;
mod camera;
mod clock;
mod config;
mod database;
mod disk;
mod gstreamer;
mod inference;
mod jetson;
mod memory;
mod model;
mod permissions;
mod service;
mod updates;
mod web;

use std::time::Duration;

use super::schedule::Check;
use super::{About, Context};

/// Reading files of this machine.
const LOCAL: Duration = Duration::from_secs(10);
/// A server that has to answer; a little more than the check itself waits.
const REMOTE: Duration = Duration::from_secs(20);
/// The whole database is read: a second per 200 MB, on slow flash ten.
const DATABASE: Duration = Duration::from_secs(60);

/// Every check that this context asks for.
pub(super) fn all(context: &Context) -> Vec<Check> {
    let simple = |name: &'static str, limit, work: fn(&Context, &About) -> Vec<super::Finding>| {
        let about = About::check(name);
        Check::new(about.clone(), name, limit, move |context| work(context, &about))
    };
    let mut checks = vec![
        simple("config", LOCAL, config::check),
        simple("permissions", LOCAL, permissions::check),
        simple("board", LOCAL, board::check),
        simple("gstreamer", LOCAL, gstreamer::check),
    ];
    for camera in context.config.parts.cameras.iter().flatten().cloned() {
        let about = About::one("camera", &camera.name);
        let waits_for = format!("camera {}", camera.name);
        checks.push(Check::new(about.clone(), waits_for, REMOTE, move |c| camera::check(c, &camera, &about)));
    }
    checks.push(simple("inference", inference::LIMIT, inference::check));
    checks.push(simple("accelerator", inference::LIMIT * 2, accelerator::check));
    // One after the other: each may need most of a small device's memory.
    let models = u32::try_from(context.config.parts.models.len()).unwrap_or(u32::MAX).max(1);
    let limit = inference::LIMIT + (model::LIMIT + Duration::from_secs(2)).saturating_mul(models);
    checks.push(simple("model", limit, model::check));
    checks.extend([
        simple("broker", REMOTE, broker::check),
        simple("updates", REMOTE * 2, updates::check),
        simple("clock", LOCAL, clock::check),
        simple("disk", LOCAL, disk::check),
        simple("database", DATABASE, database::check),
        simple("service", LOCAL, service::check),
        simple("web", LOCAL, web::check),
        simple("memory", LOCAL, memory::check),
        simple("thermal", LOCAL, jetson::thermal),
        simple("power", LOCAL, jetson::power),
    ]);
    checks
}

/// A time for people: `0.4 ms`, `120 ms`, `3.2 s`.
fn duration(time: Duration) -> String {
    match time.as_secs_f64() * 1e3 {
        ms if ms < 1.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}

/// A size for people, in powers of 1024.
fn size(bytes: u64) -> String {
    match bytes as f64 / 1024.0 / 1024.0 {
        mib if mib < 1.0 => format!("{:.0} KiB", mib * 1024.0),
        mib if mib < 1024.0 => format!("{mib:.0} MiB"),
        mib => format!("{:.1} GiB", mib / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [0.4, 119.6, 3200.0].map(|ms| duration(Duration::from_secs_f64(ms / 1e3))),
            ["0.4 ms", "120 ms", "3.2 s"]
        );
        assert_eq!([2 << 10, 300 << 20, 5 << 30].map(size), ["2 KiB", "300 MiB", "5.0 GiB"]);
    }
}
