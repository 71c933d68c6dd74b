//! `kinewatch run`: the daemon. The configuration is checked whole before anything starts.

use super::{Failure, Outcome, RunArgs, told};
use crate::app::{self, Hooks, RunOptions};
use crate::config::file::LogFormat;
use crate::config::{self, Environment, Probe, Severity};
use crate::{logging, systemd};

pub(super) fn run(args: RunArgs, verbose: u8, log_format: Option<LogFormat>, hooks: Hooks) -> Outcome {
    let mut report = config::check(&args.config, &Environment::of_process(), Probe::Machine);
    let Some(plan) = report.plan.take().filter(|_| report.is_ok()) else {
        let problems = report.lines(Severity::Error);
        systemd::status(&format!("configuration refused: {}", problems.first().map_or("", String::as_str)));
        return Err(Failure::Config(problems));
    };
    let format = log_format.unwrap_or(plan.log.format);
    logging::init(&logging::Options { format, level: plan.log.level.clone(), verbose }).map_err(Failure::Usage)?;
    for warning in report.lines(Severity::Warning) {
        tracing::warn!("{warning}");
    }
    app::run(plan, &RunOptions { scores: args.scores, hooks }).map_err(|error| {
        systemd::status(&format!("failed: {}", told(&error)));
        Failure::Failed(error)
    })
}
