//! What two plans differ in, and what each difference takes: nothing (thresholds, log level), a new pipeline of one camera,
//! a model opened, or a restart of the process. Pure: nothing is read, nothing is changed.
//!
//! Keys that take a restart are found by taking both plans apart whole: a key that is added to a plan does not compile
//! until it stands here.

use std::collections::BTreeMap;
use std::fmt;

use kinewatch_core::manifest::Overrides;
use kinewatch_store::StoreOptions;

use super::plan::{CameraPlan, DevicePlan, EnginePlan, LogPlan, ModelPlan, MqttPlan, OutboxPlan, Plan, UpdatesPlan};

/// What is different in the new plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Models, by name.
    pub models: Vec<ModelChange>,
    /// Cameras, by name.
    pub cameras: Vec<CameraChange>,
    /// The new log filter.
    pub log_level: Option<String>,
    /// Keys whose new value counts after a restart of the process, such as `[mqtt] url`.
    pub restart: Vec<&'static str>,
}

/// A model that is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelChange {
    /// Name in the configuration.
    pub name: String,
    /// How.
    pub what: ModelDifference,
}

/// How a model is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelDifference {
    /// To be opened.
    Added,
    /// To be closed.
    Removed,
    /// Another package under the same name, maybe with other thresholds: to be opened and exchanged.
    Package,
    /// The same package with other decoder settings of these labels.
    Thresholds(Vec<String>),
}

/// A camera that is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraChange {
    /// Name.
    pub name: String,
    /// How.
    pub what: CameraDifference,
}

/// How a camera is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraDifference {
    /// To be started.
    Added,
    /// To be stopped.
    Removed,
    /// In these; at least one.
    Changed(Vec<Aspect>),
}

/// What of a camera is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// Where its pictures come from.
    Source,
    /// User or password; never shown.
    Login,
    /// How RTSP media travel.
    Transport,
    /// `stall_timeout_s`.
    StallTimeout,
    /// `frozen_timeout_s`.
    FrozenTimeout,
    /// Which models watch it.
    Models,
    /// Where they look.
    Zones,
    /// `min_rate_hz`.
    MinRate,
    /// The package of one of them.
    Package,
}

impl Aspect {
    /// Whether it is about the models that watch alone, so that the stream may go on if they read the same frames.
    #[must_use]
    pub fn keeps_stream(self) -> bool {
        matches!(self, Self::Models | Self::Zones | Self::MinRate | Self::Package)
    }
}

impl Difference {
    /// All of a plan, where nothing runs yet.
    #[must_use]
    pub fn from_nothing(plan: &Plan) -> Self {
        let model = |m: &ModelPlan| ModelChange { name: m.name.clone(), what: ModelDifference::Added };
        let camera = |c: &CameraPlan| CameraChange { name: c.name.clone(), what: CameraDifference::Added };
        Self {
            models: plan.models.iter().map(model).collect(),
            cameras: plan.cameras.iter().map(camera).collect(),
            ..Self::default()
        }
    }

    /// What changes while the process runs, one line each.
    #[must_use]
    pub fn applied(&self) -> Vec<String> {
        let models = self.models.iter().map(ToString::to_string);
        let cameras = self.cameras.iter().map(ToString::to_string);
        let level = self.log_level.iter().map(|level| format!("log level: {level}"));
        models.chain(cameras).chain(level).collect()
    }
}

/// What is different in `new`. Names are compared, not the order in the file.
#[must_use]
pub fn diff(old: &Plan, new: &Plan) -> Difference {
    // All of a plan; cameras and models are compared one by one.
    let Plan { file: _, device, mqtt, outbox, web, log, engine, updates, models: _, cameras: _ } = old;
    let mut restart = Vec::new();
    device_keys(device, &new.device, &mut restart);
    mqtt_keys(mqtt, &new.mqtt, &mut restart);
    outbox_keys(outbox, &new.outbox, &mut restart);
    note(&mut restart, "[web] listen", *web == new.web);
    engine_keys(engine, &new.engine, &mut restart);
    updates_keys(updates.as_ref(), new.updates.as_ref(), &mut restart);
    let LogPlan { format, level } = log;
    note(&mut restart, "[log] format", *format == new.log.format);
    Difference {
        models: models(old, new),
        cameras: cameras(old, new),
        log_level: (*level != new.log.level).then(|| new.log.level.clone()),
        restart,
    }
}

/// The plan that runs once the difference is applied: `new`, but for what takes a restart.
#[must_use]
pub fn applied(old: &Plan, new: Plan) -> Plan {
    Plan {
        file: new.file,
        device: old.device.clone(),
        mqtt: old.mqtt.clone(),
        outbox: old.outbox.clone(),
        web: old.web,
        log: LogPlan { format: old.log.format, level: new.log.level },
        engine: old.engine.clone(),
        updates: old.updates.clone(),
        models: new.models,
        cameras: new.cameras,
    }
}

fn device_keys(old: &DevicePlan, new: &DevicePlan, restart: &mut Vec<&'static str>) {
    let DevicePlan { name, group, state_dir, platform } = old;
    note(restart, "[device] name", *name == new.name);
    note(restart, "[device] group", *group == new.group);
    note(restart, "[device] state_dir", *state_dir == new.state_dir);
    note(restart, "[device] platform", *platform == new.platform);
}

fn outbox_keys(old: &OutboxPlan, new: &OutboxPlan, restart: &mut Vec<&'static str>) {
    let OutboxPlan { store, order, backlog_per_s } = old;
    let StoreOptions { outbox_bytes, outbox_age, history_rows, history_age, keep_until, renumber: _ } = store;
    note(restart, "[outbox] max_mb", *outbox_bytes == new.store.outbox_bytes);
    note(restart, "[outbox] max_age_d", *outbox_age == new.store.outbox_age);
    note(restart, "[outbox] history_rows", *history_rows == new.store.history_rows);
    note(restart, "[outbox] history_age_d", *history_age == new.store.history_age);
    note(restart, "[outbox] keep_until", *keep_until == new.store.keep_until);
    note(restart, "[outbox] live_first", *order == new.order);
    note(restart, "[outbox] backlog_per_s", *backlog_per_s == new.backlog_per_s);
}

fn mqtt_keys(old: &MqttPlan, new: &MqttPlan, restart: &mut Vec<&'static str>) {
    let MqttPlan {
        endpoint,
        url,
        embedded,
        client_id,
        protocol,
        username,
        password,
        ca_file,
        identity,
        window,
        keep_alive,
        commands,
    } = old;
    note(restart, "[mqtt] url", *endpoint == new.endpoint && *url == new.url);
    note(restart, "[mqtt] embedded", *embedded == new.embedded);
    note(restart, "[mqtt] client_id", *client_id == new.client_id);
    note(restart, "[mqtt] protocol", *protocol == new.protocol);
    note(restart, "[mqtt] username_file", *username == new.username);
    note(restart, "[mqtt] password_file", *password == new.password);
    note(restart, "[mqtt] ca_file", *ca_file == new.ca_file);
    note(restart, "[mqtt] cert_file", *identity == new.identity);
    note(restart, "[mqtt] window", *window == new.window);
    note(restart, "[mqtt] keep_alive_s", *keep_alive == new.keep_alive);
    note(restart, "[mqtt] commands", *commands == new.commands);
}

fn engine_keys(old: &EnginePlan, new: &EnginePlan, restart: &mut Vec<&'static str>) {
    let EnginePlan { backend, precision, ort_library, providers, require_provider, threads, max_batch } = old;
    note(restart, "[engine] backend", *backend == new.backend);
    note(restart, "[engine] precision", *precision == new.precision);
    note(restart, "[engine] ort_library", *ort_library == new.ort_library);
    note(restart, "[engine] providers", *providers == new.providers);
    note(restart, "[engine] require_provider", *require_provider == new.require_provider);
    note(restart, "[engine] threads", *threads == new.threads);
    note(restart, "[engine] max_batch", *max_batch == new.max_batch);
}

fn updates_keys(old: Option<&UpdatesPlan>, new: Option<&UpdatesPlan>, restart: &mut Vec<&'static str>) {
    let (Some(old), Some(new)) = (old, new) else { return note(restart, "[updates] url", old == new) };
    let UpdatesPlan {
        mirrors,
        root,
        channel,
        policy,
        poll,
        window,
        rate_limit,
        proxy,
        reserve,
        clock,
        swap,
        proof_timeout,
    } = old;
    note(restart, "[updates] url", mirrors.first() == new.mirrors.first());
    note(restart, "[updates] mirrors", mirrors.get(1..) == new.mirrors.get(1..));
    note(restart, "[updates] root", *root == new.root);
    note(restart, "[updates] channel", *channel == new.channel);
    note(restart, "[updates] policy", *policy == new.policy);
    note(restart, "[updates] poll_s", *poll == new.poll);
    note(restart, "[updates] window", *window == new.window);
    note(restart, "[updates] rate_limit_kib_s", *rate_limit == new.rate_limit);
    note(restart, "[updates] proxy", *proxy == new.proxy);
    note(restart, "[updates] reserve_mb", *reserve == new.reserve);
    note(restart, "[updates] clock", *clock == new.clock);
    note(restart, "[updates] swap", *swap == new.swap);
    note(restart, "[updates] proof_timeout_s", *proof_timeout == new.proof_timeout);
}

fn note(restart: &mut Vec<&'static str>, key: &'static str, same: bool) {
    if !same {
        restart.push(key);
    }
}

fn models(old: &Plan, new: &Plan) -> Vec<ModelChange> {
    let before: BTreeMap<&str, &ModelPlan> = old.models.iter().map(|m| (m.name.as_str(), m)).collect();
    let compared = new.models.iter().filter_map(|model| {
        let what = match before.get(model.name.as_str()) {
            None => ModelDifference::Added,
            Some(old) => model_difference(old, model)?,
        };
        Some(ModelChange { name: model.name.clone(), what })
    });
    let gone = old.models.iter().filter(|model| new.models.iter().all(|m| m.name != model.name));
    let removed = gone.map(|model| ModelChange { name: model.name.clone(), what: ModelDifference::Removed });
    compared.chain(removed).collect()
}

/// The path is none: the same package elsewhere is the same package.
fn model_difference(old: &ModelPlan, new: &ModelPlan) -> Option<ModelDifference> {
    let ModelPlan { name: _, path: _, factory: _, digest, manifest: _, overrides } = old;
    if *digest != new.digest {
        return Some(ModelDifference::Package);
    }
    let labels = overrides.0.keys().chain(new.overrides.0.keys());
    // A table without keys changes nothing.
    let of = |overrides: &Overrides, label: &str| overrides.0.get(label).cloned().unwrap_or_default();
    let mut changed: Vec<String> =
        labels.filter(|label| of(overrides, label) != of(&new.overrides, label)).cloned().collect();
    changed.sort_unstable();
    changed.dedup();
    (!changed.is_empty()).then_some(ModelDifference::Thresholds(changed))
}

fn cameras(old: &Plan, new: &Plan) -> Vec<CameraChange> {
    let before: BTreeMap<&str, &CameraPlan> = old.cameras.iter().map(|c| (c.name.as_str(), c)).collect();
    let compared = new.cameras.iter().filter_map(|camera| {
        let what = match before.get(camera.name.as_str()) {
            None => CameraDifference::Added,
            Some(was) => {
                let aspects = aspects((old, was), (new, camera));
                (!aspects.is_empty()).then_some(CameraDifference::Changed(aspects))?
            }
        };
        Some(CameraChange { name: camera.name.clone(), what })
    });
    let gone = old.cameras.iter().filter(|camera| new.cameras.iter().all(|c| c.name != camera.name));
    let removed = gone.map(|camera| CameraChange { name: camera.name.clone(), what: CameraDifference::Removed });
    compared.chain(removed).collect()
}

fn aspects((old_plan, old): (&Plan, &CameraPlan), (new_plan, new): (&Plan, &CameraPlan)) -> Vec<Aspect> {
    let CameraPlan { name: _, source, login, transport, stall_timeout, frozen_timeout, min_rate_hz, models, zones } =
        old;
    let (before, after) = (packages(old_plan, models), packages(new_plan, &new.models));
    let exchanged = before.iter().any(|(name, digest)| after.get(name).is_some_and(|other| other != digest));
    [
        (Aspect::Source, *source == new.source),
        (Aspect::Login, *login == new.login),
        (Aspect::Transport, *transport == new.transport),
        (Aspect::StallTimeout, *stall_timeout == new.stall_timeout),
        (Aspect::FrozenTimeout, *frozen_timeout == new.frozen_timeout),
        (Aspect::Models, before.keys().eq(after.keys())),
        (Aspect::Zones, *zones == new.zones),
        (Aspect::MinRate, (*min_rate_hz - new.min_rate_hz).abs() < f64::EPSILON),
        (Aspect::Package, !exchanged),
    ]
    .into_iter()
    .filter_map(|(aspect, same)| (!same).then_some(aspect))
    .collect()
}

/// Digests of models by their names, so that their order in the file is no difference.
fn packages<'p>(plan: &'p Plan, models: &[usize]) -> BTreeMap<&'p str, &'p str> {
    models.iter().map(|&m| (plan.models[m].name.as_str(), plan.models[m].digest.as_str())).collect()
}

impl fmt::Display for ModelChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "model {}: ", self.name)?;
        match &self.what {
            ModelDifference::Added => f.write_str("added"),
            ModelDifference::Removed => f.write_str("removed"),
            ModelDifference::Package => f.write_str("package changed"),
            ModelDifference::Thresholds(labels) => write!(f, "thresholds of {} changed", labels.join(", ")),
        }
    }
}

impl fmt::Display for CameraChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "camera {}: ", self.name)?;
        match &self.what {
            CameraDifference::Added => f.write_str("added"),
            CameraDifference::Removed => f.write_str("removed"),
            CameraDifference::Changed(aspects) => {
                let words: Vec<_> = aspects.iter().map(|aspect| aspect.word()).collect();
                write!(f, "{} changed", words.join(", "))
            }
        }
    }
}

impl Aspect {
    fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Login => "login",
            Self::Transport => "transport",
            Self::StallTimeout => "stall_timeout_s",
            Self::FrozenTimeout => "frozen_timeout_s",
            Self::Models => "models",
            Self::Zones => "zones",
            Self::MinRate => "min_rate_hz",
            Self::Package => "package of a model",
        }
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
