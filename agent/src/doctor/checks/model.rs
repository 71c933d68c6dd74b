//! Each model: opened as the daemon would open it, and held against its golden clips, in a child process that a broken
//! graph or library may kill.

use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use kinewatch_engine::Provider;
use serde_json::Value;

use super::duration;
use crate::config::plan::{EnginePlan, ModelPlan};
use crate::doctor::child::{self, Output};
use crate::doctor::{About, Context, Finding};
use crate::inference;

/// How long one model may take; engines are not built here.
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
        Ok(output) if output.status.success() => {
            let library = context.library().found.as_ref();
            let built = library.map(|info| info.providers.as_slice()).unwrap_or_default();
            opened(&output, model, built, begin.elapsed(), &about)
        }
        Ok(output) => about.fail(format!("{path}: {}; `kinewatch model check {path}` tells more", complaint(&output))),
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
        command.arg("--cache-dir").arg(inference::engines(dir));
    }
    command
}

/// A choice as it is written on the command line.
fn word(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// `built`: what ONNX Runtime was built for; that it refuses the rest is no news.
fn opened(output: &Output, model: &ModelPlan, built: &[Provider], took: Duration, about: &About) -> Finding {
    let Ok(report) = serde_json::from_str::<Value>(output.stdout.trim()) else {
        return about
            .fail(format!("{}: the test process printed nothing of use; reinstall kinewatch", model.path.display()));
    };
    if let Some(not_built) = report["not_built"].as_str() {
        return about.warn(not_built);
    }
    let text = |key: &str| report[key].as_str().unwrap_or("?").to_owned();
    let manifest = &model.manifest;
    let nodes = report["nodes"].as_str().map(|nodes| format!(" ({nodes})")).unwrap_or_default();
    let on = format!(
        "{} {}: {} on {}, {}{nodes}",
        manifest.name,
        manifest.version,
        text("precision"),
        text("backend"),
        text("provider")
    );
    let number = |key: &str| report[key].as_f64().unwrap_or(f64::NAN);
    let golden = format!("golden clips within {:.0e} (allowed {:.0e})", number("max_diff"), number("tolerance"));
    let refused = report["refused"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let news = |line: &&str| built.iter().any(|provider| line.starts_with(&format!("ort/{}/", provider.name())));
    let refused: Vec<&str> = refused.filter(news).collect();
    let message = format!("{on}; {golden}, opened in {}", duration(took));
    let preferred = (!refused.is_empty()).then(|| format!("not as preferred: {}", refused.join("; ")));
    let cautions: Vec<String> = report["warning"].as_str().map(str::to_owned).into_iter().chain(preferred).collect();
    if cautions.is_empty() { about.ok(message) } else { about.warn(format!("{message}; {}", cautions.join("; "))) }
}

/// The child's last words, or how it died.
fn complaint(output: &Output) -> String {
    let last = output.stderr.lines().rev().find(|line| !line.trim().is_empty());
    match (output.status.code(), last) {
        (Some(_), Some(line)) => line.trim_start_matches("kinewatch: ").to_owned(),
        _ => format!("opening it killed the test process ({})", output.status),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::sync::Arc;

    use kinewatch_core::manifest::{Manifest, Overrides};

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_provider_that_is_there_and_refuses_is_told() {
        let toml = include_str!("../../../../tests/data/packages/tiny-bright/model.toml");
        let model = ModelPlan {
            name: "m".into(),
            path: "/m".into(),
            factory: "/m".into(),
            digest: String::new(),
            manifest: Arc::new(Manifest::parse(toml).unwrap()),
            overrides: Overrides::default(),
        };
        let stdout = r#"{"backend":"ort","provider":"cpu","precision":"fp32","max_diff":4e-5,"tolerance":1e-4,
                         "refused":["ort/tensorrt/fp16: not built","ort/cuda/fp32: no driver"]}"#;
        let output =
            |stdout: &str| Output { status: ExitStatus::from_raw(0), stdout: stdout.into(), stderr: String::new() };
        let about = About::one("model", "m");
        let found = |built: &[Provider]| opened(&output(stdout), &model, built, Duration::from_secs(1), &about);
        assert_eq!(
            found(&[Provider::Cpu]).message,
            "tiny-bright 1.0.0: fp32 on ort, cpu; golden clips within 4e-5 (allowed 1e-4), opened in 1.0 s"
        );
        let unbuilt = output(r#"{"not_built":"model m: its engine for tensorrt is not built yet"}"#);
        let unbuilt = opened(&unbuilt, &model, &[], Duration::from_secs(1), &about);
        assert_eq!(unbuilt.verdict, Verdict::Warn);
        assert_eq!(unbuilt.message, "model m: its engine for tensorrt is not built yet");
        let refused = found(&[Provider::Cuda, Provider::Cpu]);
        assert_eq!(refused.verdict, Verdict::Warn);
        assert!(refused.message.ends_with("not as preferred: ort/cuda/fp32: no driver"), "{refused:?}");
        let shared = output(
            r#"{"backend":"ort","provider":"cpu","precision":"fp16","max_diff":4e-5,"tolerance":1e-4,"refused":[],
                "nodes":"tensorrt 7 nodes, cpu 193","warning":"the processor computes most of the graph"}"#,
        );
        let shared = opened(&shared, &model, &Provider::ALL, Duration::from_secs(1), &about);
        assert_eq!(shared.verdict, Verdict::Warn);
        assert_eq!(
            shared.message,
            "tiny-bright 1.0.0: fp16 on ort, cpu (tensorrt 7 nodes, cpu 193); golden clips within 4e-5 (allowed 1e-4), \
             opened in 1.0 s; the processor computes most of the graph"
        );
        assert_eq!(
            complaint(&Output { status: ExitStatus::from_raw(11), ..output("") }),
            "opening it killed the test process (signal: 11 (SIGSEGV))"
        );
    }
}
