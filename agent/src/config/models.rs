//! `[[model]]`: packages, verified, and what the configuration changes in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kinewatch_core::manifest::{DecoderOverride, Manifest, Overrides};
use kinewatch_engine::{OpenError, check_requires};

use super::document::key;
use super::file::{Label, Model};
use super::plan::{EnginePlan, ModelPlan};
use super::resolve::{Resolver, twice};
use crate::inference::{self, NoLibrary};

/// Models as far as they could be resolved.
pub(super) struct Models {
    /// Names in the order of the file; for references.
    pub(super) names: Vec<String>,
    /// In the same order; `None` where one is not usable.
    pub(super) plans: Vec<Option<ModelPlan>>,
}

pub(super) fn resolve(r: &mut Resolver<'_>, models: &[Model], engine: &EnginePlan) -> Models {
    if models.is_empty() {
        r.error(&key![], "no [[model]]: add one with path = \"/usr/share/kinewatch/models/falls\"");
    }
    let names: Vec<String> = models.iter().map(name_of).collect();
    for (i, (model, name)) in models.iter().zip(&names).enumerate() {
        let at = if model.name.is_some() { key!["model", i, "name"] } else { key!["model", i, "path"] };
        r.name(name, &at, "[[model]]");
    }
    twice(r, "model", names.iter().enumerate().map(|(i, n)| (i, n.as_str())));
    let plans = models.iter().zip(&names).enumerate().map(|(i, (m, name))| one(r, i, m, name, engine)).collect();
    Models { names, plans }
}

fn name_of(model: &Model) -> String {
    let from_path = || model.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    model.name.clone().unwrap_or_else(from_path)
}

fn one(r: &mut Resolver<'_>, i: usize, model: &Model, name: &str, engine: &EnginePlan) -> Option<ModelPlan> {
    let path = r.path(&model.path);
    if !r.looks_at_machine() {
        return None;
    }
    let (manifest, digest) = match kinewatch_ota::open_verified(&path) {
        Ok(package) => (package.manifest, package.digest),
        Err(e) => {
            r.error(&key!["model", i, "path"], format!("model \"{name}\": {e}"));
            return None;
        }
    };
    if let Err(e) = requires(&manifest, engine) {
        r.error(&key!["model", i, "path"], format!("model \"{name}\": {e}"));
    }
    let overrides = overrides(r, i, model, name, &manifest);
    let factory = path.clone();
    Some(ModelPlan { name: name.to_owned(), path, factory, digest, manifest: Arc::new(manifest), overrides })
}

/// Whether this machine has what the package cannot be run without. Looks for a library only when one is needed.
fn requires(manifest: &Manifest, engine: &EnginePlan) -> Result<(), OpenError> {
    let Some(requires) = &manifest.requires else { return Ok(()) };
    let options = inference::open_options(engine, None)
        .map_err(|NoLibrary { reason }| OpenError::NeedsOrt { because: requires.because.clone(), missing: reason })?;
    check_requires(manifest, &options)
}

/// Checks label by label, so that each mistake is told at its own table.
fn overrides(r: &mut Resolver<'_>, i: usize, model: &Model, name: &str, manifest: &Manifest) -> Overrides {
    let mut all = BTreeMap::new();
    for (label, changes) in &model.labels {
        let one = BTreeMap::from([(label.clone(), DecoderOverride::from(changes))]);
        match Overrides(one.clone()).check(manifest) {
            Ok(()) => all.extend(one),
            Err(e) => r.error(&key!["model", i, "labels", label.as_str()], format!("model \"{name}\": {e}")),
        }
    }
    Overrides(all)
}

impl From<&Label> for DecoderOverride {
    fn from(l: &Label) -> Self {
        Self {
            on: l.on,
            off: l.off,
            smooth_s: l.smooth_s,
            h_on: l.h_on,
            h_off: l.h_off,
            min_duration_s: l.min_duration_s,
            merge_gap_s: l.merge_gap_s,
            max_duration_s: l.max_duration_s,
            cooldown_s: l.cooldown_s,
            lag_start_s: l.lag_start_s,
            lag_end_s: l.lag_end_s,
            uncertainty_start_ms: l.uncertainty_start_ms,
            uncertainty_end_ms: l.uncertainty_end_ms,
            within_s: l.within_s,
            schedule: l.schedule.clone(),
        }
    }
}
