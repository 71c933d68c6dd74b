//! The judge itself: a stream that keeps every promise passes, and each broken promise is found.

use anyhow::ensure;
use serde_json::Value;

use crate::bench::{Context, Outcome};
use crate::support::check::{Checker, Closure, Verdict};

type Line = (String, Value);
/// What spoils a stream, how the judge says it, and whether every action must have ended.
type Spoiled = (&'static str, fn(&mut Vec<Line>), &'static str);

/// Two actions of three messages each, one message twice.
fn kept() -> Vec<Line> {
    let example = include_str!("../../config/schema/example-action-event.json");
    let mut lines = Vec::new();
    for k in 0..6_u32 {
        let mut event: Value = serde_json::from_str(example).unwrap();
        event["id"] = format!("01938f2e-7c1a-7b3e-9a51-{:012x}", k + 1).into();
        event["sequence"] = format!("{:020}", k + 7).into();
        let data = &mut event["data"];
        data["action_id"] = format!("01938f2e-6aa0-7c11-8e0b-{:012x}", k / 3 + 1).into();
        data["rev"] = (k % 3).into();
        data["status"] = ["started", "updated", "ended"][k as usize % 3].into();
        if k % 3 == 2 {
            (data["end"], data["end_reason"]) = (data["decided_at"].clone(), "boundary".into());
        }
        lines.push(("kinewatch/v1/replay/replay/evt/bright/wave".to_owned(), event));
    }
    let mut again = lines[5].clone();
    again.1["data"]["replayed"] = true.into();
    again.1["data"]["latency"]["queued_ms"] = 12_000.0.into();
    lines.push(again);
    lines
}

const SPOILED: [Spoiled; 17] = [
    ("an event is missing", |l| drop(l.remove(1)), "missing"),
    ("a message changes when it comes again", |l| l[6].1["data"]["rev"] = 1.into(), "another content"),
    ("a number is used twice", |l| l[1].1["sequence"] = l[0].1["sequence"].clone(), "used twice"),
    ("events change places", |l| l.swap(2, 3), "for the first time after"),
    ("an action skips a rev", |l| l[1].1["data"]["rev"] = 5.into(), "rev 2 where 1 was due"),
    ("an action has no start", |l| l[0].1["data"]["status"] = "updated".into(), "begins with Updated"),
    ("an action starts twice", |l| l[1].1["data"]["status"] = "started".into(), "starts twice"),
    (
        "an action goes on after its end",
        |l| (l[4].1["data"]["rev"], l[5].1["data"]["rev"]) = (2.into(), 1.into()),
        "follows its end",
    ),
    ("an action never ends", |l| l.truncate(5), "never ended"),
    ("an end lacks its reason", |l| l[2].1["data"]["end_reason"] = Value::Null, "end_reason"),
    ("an end has an unknown reason", |l| l[2].1["data"]["end_reason"] = "bored".into(), "end_reason"),
    ("an end before the begin", |l| l[2].1["data"]["end"]["pts_ns"] = 1.into(), "before it begins"),
    ("a begin in the future", |l| l[0].1["data"]["start"]["pts_ns"] = 9_000_000_000_i64.into(), "after decided_at"),
    ("a time that is not UTC", |l| l[0].1["time"] = "2026-01-01T00:00:00+01:00".into(), "UTC"),
    ("an id that is no UUIDv7", |l| l[0].1["id"] = "6b1e4d0a-1f7e-4c57-8a57-2f1d3c5b7e90".into(), "UUIDv7"),
    ("a topic of another camera", |l| l[0].0 = "kinewatch/v1/replay/replay/evt/other/wave".into(), "topic"),
    (
        "another label within an action",
        |l| {
            l[1].1["data"]["label"] = "jump".into();
            l[1].0 = l[1].0.replace("wave", "jump");
        },
        "label, camera or session changes",
    ),
];

fn judge(lines: &[Line], more: &[&str]) -> Verdict {
    let mut checker = Checker::default();
    lines.iter().for_each(|(topic, payload)| checker.line(&format!("{topic}\t{payload}")));
    more.iter().for_each(|line| checker.line(line));
    checker.verdict(Closure::Required)
}

/// Runs the scenario.
pub(crate) fn run(_: &Context) -> anyhow::Result<Outcome> {
    let good = judge(&kept(), &["kinewatch/v1/replay/replay/status\tnot even JSON"]);
    ensure!(good.faults == 0 && good.duplicates == 1 && (good.actions, good.ended) == (2, 2), "{good:?}");
    for (what, spoil, says) in SPOILED {
        let mut lines = kept();
        spoil(&mut lines);
        let verdict = judge(&lines, &[]);
        ensure!(verdict.examples.iter().any(|e| e.contains(says)), "{what}: not found in {:?}", verdict.examples);
    }
    let mut torn = kept();
    torn.remove(1);
    let stated = judge(&torn, &["kinewatch/v1/replay/replay/sys/gap\t{\"data\":{\"first\":8,\"last\":8}}"]);
    ensure!((stated.holes, stated.gaps_stated) == (0, 1), "a stated gap is no hole: {stated:?}");
    let mut unended = kept();
    unended.truncate(5);
    let stated = judge(&unended, &["kinewatch/v1/replay/replay/sys/gap\t{\"data\":{\"first\":12,\"last\":12}}"]);
    ensure!((stated.faults, stated.torn) == (0, 1), "an end that is stated as lost is missed by nobody: {stated:?}");
    Ok(Outcome::new(
        "a stream that keeps every promise, and each promise broken once",
        format!("the first passed, all {} others were found", SPOILED.len()),
    ))
}
