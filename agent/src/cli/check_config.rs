//! `kinewatch check-config`.

use serde_json::{Value, json};

use super::{CheckConfigArgs, Failure, Outcome, print};
use crate::config::file::File;
use crate::config::plan::Plan;
use crate::config::{self, Environment, Probe, Report, Severity};

pub(super) fn run(args: &CheckConfigArgs) -> Outcome {
    // The parsers of sources and the registry of decoders live in GStreamer's crate; neither needs it running.
    let probe = match () {
        () if args.file_only => Probe::FileOnly,
        () if args.without_secrets => Probe::WithoutSecrets,
        () => Probe::Machine,
    };
    let report = config::check(&args.config, &Environment::of_process(), probe);
    if args.json {
        print(&as_json(&report).to_string())?;
        return if report.is_ok() { Ok(()) } else { Err(Failure::Config(Vec::new())) };
    }
    for line in report.lines(Severity::Warning) {
        eprintln!("{line}");
    }
    if !report.is_ok() {
        return Err(Failure::Config(report.lines(Severity::Error)));
    }
    match &report.plan {
        Some(plan) => print(&summary(plan)),
        None => {
            let not_seen = if args.file_only { "models, devices, secrets and directories" } else { "secrets" };
            print(&format!("{}: the file is right; {not_seen} were not looked at", args.config.display()))
        }
    }
}

fn summary(plan: &Plan) -> String {
    let mut lines = vec![format!("{}: right", plan.file.display())];
    let d = &plan.device;
    lines.push(format!("device   {}/{}, state in {}", d.group, d.name, d.state_dir.display()));
    let embedded = if plan.mqtt.embedded.is_some() { ", broker inside this process" } else { "" };
    lines.push(format!("mqtt     {} as {}{embedded}", plan.mqtt.endpoint, plan.mqtt.client_id));
    lines.push(plan.web.map_or_else(|| "web      off".into(), |a| format!("web      http://{a}/status")));
    for m in &plan.models {
        let labels: Vec<&str> = m.manifest.labels.iter().filter(|l| l.publish).map(|l| l.name.as_str()).collect();
        lines.push(format!(
            "model    {}: {} {}, reports {}",
            m.name,
            m.manifest.name,
            m.manifest.version,
            reported(m, &labels)
        ));
    }
    for c in &plan.cameras {
        let models: Vec<&str> = c.models.iter().map(|m| plan.models[*m].name.as_str()).collect();
        let zones = match c.zones.len() {
            0 => String::new(),
            1 => ", 1 zone".into(),
            n => format!(", {n} zones"),
        };
        lines.push(format!("camera   {}: {}, watched by {}{zones}", c.name, c.source, models.join(", ")));
    }
    lines.join("\n")
}

fn reported(model: &crate::config::plan::ModelPlan, labels: &[&str]) -> String {
    let sequences = model.manifest.sequences.iter().map(|s| s.name.as_str());
    labels.iter().copied().chain(sequences).collect::<Vec<_>>().join(", ")
}

fn as_json(report: &Report) -> Value {
    let problem = |p: &config::Problem| {
        json!({
            "severity": if p.severity == Severity::Error { "error" } else { "warning" },
            "line": p.at.map(|a| a.line), "column": p.at.map(|a| a.column), "message": p.message,
        })
    };
    json!({
        "file": report.path, "ok": report.is_ok(),
        "problems": report.problems.iter().map(problem).collect::<Vec<_>>(),
        "config": report.file.as_ref().map(shown),
    })
}

/// The file as it was read, without what is secret or would be if it stood in its place.
fn shown(file: &File) -> Value {
    let mut value = serde_json::to_value(file).unwrap_or_default();
    hide(&mut value);
    value
}

fn hide(value: &mut Value) {
    match value {
        Value::String(text) => *text = kinewatch_capture::redact(text),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(fields) => {
            for (key, value) in fields {
                // A login that was written instead of a file's name.
                let login = |text: &str| text.contains(':') && !text.starts_with("credential:");
                if key.ends_with("_file") && value.as_str().is_some_and(login) {
                    *value = Value::Null;
                }
                hide(value);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_hides_what_is_secret() {
        let text = "[[model]]\npath = \"m\"\n[[camera]]\nname = \"a\"\nsource = \"rtsp://joe:hunter2@c/x?pw=hunter2\"\n\
                    credentials_file = \"joe:hunter2\"\n[mqtt]\nurl = \"mqtt://joe:hunter2@b\"\n\
                    password_file = \"credential:mqtt\"";
        let shown = shown(&toml::from_str(text).unwrap()).to_string();
        assert!(!shown.contains("hunter2") && shown.contains("credential:mqtt"), "{shown}");
        assert!(shown.contains("rtsp://***@c/x?pw=***"), "{shown}");
    }
}
