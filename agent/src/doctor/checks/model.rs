//! Each model: opened as the daemon would open it, and held against its golden clips, in a child process that a broken
//! graph or library may kill.

use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::Value;

use super::duration;
use crate::config::plan::{EnginePlan, ModelPlan};
use crate::doctor::child::{self, ChildError, Output};
use crate::doctor::{About, Context, Finding};
use crate::inference;

/// How long one model may take; a TensorRT engine takes longer when it is built anew.
pub(super) const LIMIT: Duration = Duration::from_secs(90);

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let models = &context.config.parts.models;
    let Some(engine) = &context.config.parts.engine else {
        return vec![about.skip("the configuration cannot be read")];
    };
    if models.is_empty() {
        return vec![about.skip("none is configured")];
    }
    // What is wrong with a package that could not even be read is told with the configuration.
    models.iter().flatten().map(|model| one(context, engine, model)).collect()
}

fn one(context: &Context, engine: &EnginePlan, model: &ModelPlan) -> Finding {
    let about = About::one("model", &model.name);
    let (path, begin) = (model.path.display(), Instant::now());
    match child::run(command(context, engine, model), LIMIT) {
        Ok(output) if output.status.success() => opened(&output, model, begin.elapsed(), &about),
        Ok(output) => about.fail(format!("{path}: {}; `kinewatch model check {path}` tells more", complaint(&output))),
        Err(e @ ChildError::Late { .. }) => about.warn(format!(
            "{path}: {e}; is a TensorRT engine being built? `kinewatch model check {path}` waits for it"
        )),
        Err(e) => about.fail(format!("{path}: {e}")),
    }
}

/// With the options of the daemon.
fn command(context: &Context, engine: &EnginePlan, model: &ModelPlan) -> Command {
    let mut command = context.child();
    command.arg("model-probe").arg(&model.path);
    command.args(["--backend", &word(&engine.backend), "--precision", &word(&engine.precision)]);
    command.args(["--threads", &engine.threads.to_string(), "--max-batch", &engine.max_batch.to_string()]);
    let providers: Vec<&str> = engine.providers.iter().map(|p| inference::provider(*p).name()).collect();
    command.args(["--providers", &providers.join(",")]);
    if let Some(library) = &context.library().found {
        command.arg("--ort-library").arg(&library.path);
    }
    if let Some(required) = engine.require_provider {
        command.args(["--require-provider", inference::provider(required).name()]);
    }
    if let Some(dir) = context.state_dir() {
        command.arg("--cache-dir").arg(dir.join("engines"));
    }
    command
}

/// A choice as it is written on the command line.
fn word(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn opened(output: &Output, model: &ModelPlan, took: Duration, about: &About) -> Finding {
    let Ok(report) = serde_json::from_str::<Value>(output.stdout.trim()) else {
        return about
            .fail(format!("{}: the test process printed nothing of use; reinstall kinewatch", model.path.display()));
    };
    let text = |key: &str| report[key].as_str().unwrap_or("?").to_owned();
    let manifest = &model.manifest;
    let on = format!(
        "{} {}: {} on {}, {}",
        manifest.name,
        manifest.version,
        text("precision"),
        text("backend"),
        text("provider")
    );
    let number = |key: &str| report[key].as_f64().unwrap_or(f64::NAN);
    let golden = format!("golden clips within {:.0e} (allowed {:.0e})", number("max_diff"), number("tolerance"));
    let refused: Vec<&str> = report["refused"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let message = format!("{on}; {golden}, opened in {}", duration(took));
    if refused.is_empty() {
        about.ok(message)
    } else {
        about.warn(format!("{message}; not as preferred: {}", refused.join("; ")))
    }
}

/// The child's last words, or how it died.
fn complaint(output: &Output) -> String {
    let last = output.stderr.lines().rev().find(|line| !line.trim().is_empty());
    match (output.status.code(), last) {
        (Some(_), Some(line)) => line.trim_start_matches("kinewatch: ").to_owned(),
        _ => format!("opening it killed the test process ({})", output.status),
    }
}
