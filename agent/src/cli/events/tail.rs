//! `kinewatch events tail`: actions as they are published.

use std::ops::ControlFlow;

use kinewatch_mqtt::{Endpoint, Options, Tail, subscribe};
use serde_json::Value;

use super::super::{Failure, Outcome, Reader, TailArgs, print_to_reader};
use crate::config::{self, Environment, Probe, Severity};

pub(in crate::cli) fn run(args: TailArgs) -> Outcome {
    let options = options(&args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut seen = 0;
    let mut outcome = Ok(());
    let broker = options.endpoint.to_string();
    let filters = [args.topic.clone()];
    let follow = subscribe(&options, &filters, |tail| match tail {
        Tail::Subscribed { protocol, refused } if refused.is_empty() => {
            eprintln!("kinewatch: following {} at {broker} ({protocol})", filters[0]);
            ControlFlow::Continue(())
        }
        Tail::Subscribed { .. } => {
            outcome = Err(Failure::say(format!(
                "{broker}: the broker does not allow {}; check its access rules",
                filters[0]
            )));
            ControlFlow::Break(())
        }
        Tail::Message { topic, payload, .. } => {
            let payload = String::from_utf8_lossy(&payload);
            let line = if args.json { format!("{topic}\t{payload}") } else { pretty(&topic, &payload) };
            seen += 1;
            match print_to_reader(&line) {
                Ok(Reader::There) if args.count.is_none_or(|n| seen < n) => ControlFlow::Continue(()),
                Ok(_) => ControlFlow::Break(()),
                Err(failure) => {
                    outcome = Err(failure);
                    ControlFlow::Break(())
                }
            }
        }
        Tail::Disconnected { reason } => {
            eprintln!("kinewatch: {reason}");
            ControlFlow::Continue(())
        }
    });
    runtime.block_on(async {
        tokio::select! {
            () = follow => Ok(()),
            signal = tokio::signal::ctrl_c() => signal,
        }
    })?;
    outcome
}

fn options(args: &TailArgs) -> Result<Options, Failure> {
    // The daemon's own identifier would throw it off the broker.
    let client_id = format!("kinewatch-tail-{}", std::process::id());
    if let Some(url) = &args.broker {
        let endpoint = Endpoint::parse(url).map_err(|e| Failure::Usage(format!("--broker: {e}")))?;
        return Ok(Options::new(endpoint, client_id));
    }
    let path = args.config.clone().unwrap_or_else(|| config::DEFAULT_PATH.into());
    let report = config::check(&path, &Environment::of_process(), Probe::Machine);
    match report.plan {
        Some(plan) => Ok(Options { client_id, ..plan.mqtt.options() }),
        None => Err(Failure::Config(report.lines(Severity::Error))),
    }
}

/// One line for a person: when, where, what, how sure.
fn pretty(topic: &str, payload: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(payload) else { return format!("{topic}\t{payload}") };
    let data = &value["data"];
    let (Some(status), Some(label), Some(camera)) =
        (data["status"].as_str(), data["label"].as_str(), data["camera"]["id"].as_str())
    else {
        return format!("{topic}\t{payload}");
    };
    let clock = |boundary: &Value| boundary["time"].as_str().map_or_else(|| "?".into(), short_time);
    let mut line = format!(
        "{}  {camera:<12} {label:<16} {status:<8} begin {}",
        clock(&data["decided_at"]),
        clock(&data["start"]),
    );
    if status == "ended" {
        let length = pts(&data["end"])
            .zip(pts(&data["start"]))
            .map_or_else(String::new, |(e, s)| format!(" ({:.1} s)", (e - s) / 1e9));
        line += &format!("  end {}{length}", clock(&data["end"]));
    }
    line += &format!("  confidence {:.2}", data["confidence"]["peak"].as_f64().unwrap_or(f64::NAN));
    match data["end_reason"].as_str() {
        Some("boundary") | None => {}
        Some(reason) => line += &format!("  ({reason})"),
    }
    if data["replayed"] == true {
        line += "  delivered late";
    }
    line
}

fn pts(boundary: &Value) -> Option<f64> {
    boundary["pts_ns"].as_f64()
}

/// `2026-11-24T08:13:43.512Z` → `08:13:43.512Z`.
fn short_time(time: &str) -> String {
    time.split_once('T').map_or(time, |(_, clock)| clock).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_where_what_and_how_sure() {
        let event = r#"{"data":{"status":"ended","label":"fall","camera":{"id":"room"},"start":{"time":"2026-11-24T08:13:40.120Z","pts_ns":1000000000},"end":{"time":"2026-11-24T08:13:41.320Z","pts_ns":2200000000},"decided_at":{"time":"2026-11-24T08:13:41.900Z"},"confidence":{"peak":0.94},"end_reason":"stream_lost","replayed":true}}"#;
        insta::assert_snapshot!(pretty("t", event), @"08:13:41.900Z  room         fall             ended    begin 08:13:40.120Z  end 08:13:41.320Z (1.2 s)  confidence 0.94  (stream_lost)  delivered late");
        assert_eq!(pretty("t", "{}"), "t\t{}");
        assert_eq!(pretty("t", "no json"), "t\tno json");
    }
}
