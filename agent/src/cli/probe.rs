//! Hidden commands that run in child processes, which a broken library or graph may kill.

use kinewatch_core::manifest::Overrides;
use kinewatch_engine::OpenError;
use serde_json::json;

use super::{EngineProbeArgs, ModelProbeArgs, Outcome, print};
use crate::config::plan::EnginePlan;
use crate::inference;
use crate::models::{self, ModelError};

/// `engine-probe`.
pub(super) fn library(args: &EngineProbeArgs) -> Outcome {
    if args.link {
        return Ok(kinewatch_engine::link_library(&args.library, args.before.as_deref())?);
    }
    let info = kinewatch_engine::probe_library(&args.library)?;
    print(&info.to_line())
}

/// `model-probe`.
pub(super) fn model(args: &ModelProbeArgs) -> Outcome {
    // The first to go when memory runs short: the daemon may be running beside us.
    let _not_permitted = std::fs::write("/proc/self/oom_score_adj", "1000");
    let plan = EnginePlan {
        providers: args.providers.clone(),
        max_batch: args.max_batch as usize,
        ..EnginePlan::from(&args.engine)
    };
    let options = match &args.cache_dir {
        Some(engines) => inference::looking_options(&plan, engines.clone())?,
        None => inference::open_options(&plan, None)?,
    };
    let opened = match models::open("probe", &args.dir, Overrides::default(), &options) {
        Err(ModelError::Open { source, .. }) if matches!(*source, OpenError::NotBuilt { .. }) => {
            return print(&json!({ "not_built": source.to_string() }).to_string());
        }
        opened => opened?,
    };
    let report = opened.loaded.model.report();
    let value = json!({
        "backend": report.backend.name(), "provider": report.provider.name(), "precision": report.precision.name(),
        "nodes": report.placement(), "warning": report.caution(), "why": report.why, "refused": report.refused, "max_diff": report.golden_max_diff(),
        "tolerance": report.golden.first().map(|golden| golden.tolerance),
    });
    print(&value.to_string())
}
