//! The configuration as the agent uses it: every name resolved, every file read, nothing left to check.
//!
//! Made by [`super::check`], at the start and at each reload ([`super::diff`]); never changed afterwards. Holds secrets, which
//! `Debug` does not show.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kinewatch_capture::Source;
use kinewatch_core::manifest::{Manifest, Overrides, TimeOfDay};
use kinewatch_core::region::Region;
use kinewatch_mqtt::Endpoint;
use kinewatch_store::StoreOptions;
use serde::{Deserialize, Serialize};

use super::file::{
    Backend, LogFormat, Precision, Protocol, Provider, Transport, UpdateClock, UpdatePolicy, UpdateSwap,
};
use super::secret::{Login, Secret};
use crate::delivery::SendOrder;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The configuration file.
    pub file: PathBuf,
    /// Who this device is.
    pub device: DevicePlan,
    /// Where events go.
    pub mqtt: MqttPlan,
    /// How events wait on the disk.
    pub outbox: OutboxPlan,
    /// Where status is served; `None` when it is off.
    pub web: Option<SocketAddr>,
    /// What is logged.
    pub log: LogPlan,
    /// How models are run.
    pub engine: EnginePlan,
    /// Where newer packages come from; `None`: nowhere.
    pub updates: Option<UpdatesPlan>,
    /// Models, at least one.
    pub models: Vec<ModelPlan>,
    /// Cameras; none on a device that waits for its first.
    pub cameras: Vec<CameraPlan>,
}

/// As much of a plan as could be made of a configuration: each part by itself, so that one mistake hides no other part.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Who this device is.
    pub device: Option<DevicePlan>,
    /// Where events go.
    pub mqtt: Option<MqttPlan>,
    /// How they wait for it.
    pub outbox: Option<OutboxPlan>,
    /// Where status is served; `None` when it is off.
    pub web: Option<SocketAddr>,
    /// What is logged.
    pub log: Option<LogPlan>,
    /// How models are run.
    pub engine: Option<EnginePlan>,
    /// Where newer packages come from.
    pub updates: Option<Option<UpdatesPlan>>,
    /// Models, in the order of the file.
    pub models: Vec<Option<ModelPlan>>,
    /// Cameras, in the order of the file.
    pub cameras: Vec<Option<CameraPlan>>,
}

impl Parts {
    /// The plan, when no part is missing.
    #[must_use]
    pub fn whole(self, file: &Path) -> Option<Plan> {
        Some(Plan {
            file: file.to_owned(),
            device: self.device?,
            mqtt: self.mqtt?,
            outbox: self.outbox?,
            web: self.web,
            log: self.log?,
            engine: self.engine?,
            updates: self.updates?,
            models: self.models.into_iter().collect::<Option<_>>()?,
            cameras: self.cameras.into_iter().collect::<Option<_>>()?,
        })
    }
}

/// Who this device is.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// Name, valid in topics.
    pub name: String,
    /// Group, valid in topics.
    pub group: String,
    /// Directory of the outbox and of caches; it can be written or made.
    pub state_dir: PathBuf,
    /// Family of GStreamer elements; `None`: as the machine has them.
    pub platform: Option<kinewatch_capture::Platform>,
}

/// Where events go.
#[derive(Clone, Debug)]
pub struct MqttPlan {
    /// The broker, parsed.
    pub endpoint: Endpoint,
    /// The broker, as written: without user and password.
    pub url: String,
    /// Where the broker inside this process listens, when there is one; always a loopback address. It takes the next
    /// port too.
    pub embedded: Option<SocketAddr>,
    /// Client identifier.
    pub client_id: String,
    /// Protocol version.
    pub protocol: Protocol,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Certificate authorities (PEM); the system's when `None`.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain and private key (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Events in flight, at most.
    pub window: usize,
    /// Silence after which the connection is probed.
    pub keep_alive: Duration,
    /// Whether commands are taken from the broker.
    pub commands: bool,
}

/// How events wait on the disk.
#[derive(Clone, Debug)]
pub struct OutboxPlan {
    /// Bounds of the store.
    pub store: StoreOptions,
    /// Which messages go first after an outage.
    pub order: SendOrder,
    /// Old messages a second at most.
    pub backlog_per_s: u32,
}

/// What is logged.
#[derive(Clone, Debug)]
pub struct LogPlan {
    /// Form.
    pub format: LogFormat,
    /// Filter, which is valid.
    pub level: String,
}

/// How models are run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnginePlan {
    /// Inference library.
    pub backend: Backend,
    /// Which graph.
    pub precision: Precision,
    /// ONNX Runtime library.
    pub ort_library: Option<PathBuf>,
    /// Providers in order of preference.
    pub providers: Vec<Provider>,
    /// Provider without which nothing starts.
    pub require_provider: Option<Provider>,
    /// Threads.
    pub threads: usize,
    /// Requests in a batch, at most.
    pub max_batch: usize,
}

/// Where newer packages come from, and when they may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdatesPlan {
    /// Addresses of the repository, in the order in which they are asked; at least one.
    pub mirrors: Vec<String>,
    /// Trust anchor.
    pub root: PathBuf,
    /// Channel.
    pub channel: String,
    /// Who decides.
    pub policy: UpdatePolicy,
    /// Between two looks at the repository.
    pub poll: Duration,
    /// Time of day within which models are downloaded and exchanged; any when `None`. The same twice is all day.
    pub window: Option<(TimeOfDay, TimeOfDay)>,
    /// Bytes a second of downloads, at most; 0: no limit.
    pub rate_limit: u64,
    /// HTTP proxy.
    pub proxy: Option<String>,
    /// Bytes of the disk that are left free for events.
    pub reserve: u64,
    /// By which clock expiry is judged.
    pub clock: UpdateClock,
    /// Whether memory holds two models.
    pub swap: UpdateSwap,
    /// For the proof of a release.
    pub proof_timeout: Duration,
}

/// A model.
#[derive(Clone, Debug)]
pub struct ModelPlan {
    /// Name in the configuration.
    pub name: String,
    /// Directory of the package that is loaded, verified.
    pub path: PathBuf,
    /// Directory of the package that the configuration names: the same, unless a release was installed over it.
    pub factory: PathBuf,
    /// SHA-256 of its manifest, hex: identifies the package.
    pub digest: String,
    /// Its contract.
    pub manifest: Arc<Manifest>,
    /// Decoder parameters that replace the package's.
    pub overrides: Overrides,
}

/// A camera.
#[derive(Clone, Debug)]
pub struct CameraPlan {
    /// Name, valid in topics.
    pub name: String,
    /// Where its pictures come from.
    pub source: Source,
    /// Login of an RTSP camera.
    pub login: Option<Login>,
    /// How RTSP media travel.
    pub transport: Transport,
    /// Time without a frame after which the stream is rebuilt.
    pub stall_timeout: Duration,
    /// Windows a second that each of its models keeps while the device is spared.
    pub min_rate_hz: f64,
    /// Time of one and the same picture after which it is; `None`: never.
    pub frozen_timeout: Option<Duration>,
    /// Indices into [`Plan::models`], each once, at least one.
    pub models: Vec<usize>,
    /// Where its models with boxes look; at most as many as each of them takes.
    pub zones: Vec<Region>,
}
