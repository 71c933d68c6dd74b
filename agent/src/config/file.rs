//! The configuration file as it is written: one struct per TOML table, no meaning checked.
//!
//! These types are the only place that names a key: the JSON Schema, the check for unknown keys and the types of values
//! are derived from them. What the values mean is settled once, in [`super::plan`].

mod updates;

use std::collections::BTreeMap;
use std::path::PathBuf;

use kinewatch_core::manifest::Period;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::updates::{UpdateClock, UpdatePolicy, UpdateSwap, Updates};

/// Configuration of the kinewatch agent.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "kinewatch configuration")]
pub struct File {
    /// Who this device is and where it keeps its state.
    pub device: Device,
    /// Where events go.
    pub mqtt: Mqtt,
    /// How events wait on the disk.
    pub outbox: Outbox,
    /// Status, health and metrics over HTTP.
    pub web: Web,
    /// What is logged, and how.
    pub log: Log,
    /// How models are run.
    pub engine: Engine,
    /// Where newer packages come from. Without `url`: nowhere, and no request is made.
    pub updates: Updates,
    /// Model packages.
    pub model: Vec<Model>,
    /// Cameras.
    pub camera: Vec<Camera>,
}

/// Who this device is and where it keeps its state.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Device {
    /// Name in every topic and event. Default: the host name.
    #[schemars(regex(pattern = r"^[a-z0-9_-]{1,64}$"))]
    pub name: Option<String>,
    /// Group of devices, for example a site.
    #[schemars(regex(pattern = r"^[a-z0-9_-]{1,64}$"))]
    pub group: String,
    /// Directory of the outbox and of caches. Default: `$STATE_DIRECTORY`, which systemd sets, else `/var/lib/kinewatch`.
    pub state_dir: Option<PathBuf>,
    /// Which family of GStreamer elements decodes and scales. `auto` looks at the machine and says what it found.
    pub platform: Platform,
}

impl Default for Device {
    fn default() -> Self {
        Self { name: None, group: "default".into(), state_dir: None, platform: Platform::Auto }
    }
}

/// Which family of GStreamer elements decodes and scales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// What the machine has.
    #[default]
    Auto,
    /// The processor alone, whatever else there is.
    Software,
    /// VA-API (Intel, AMD).
    VaApi,
    /// NVDEC of a desktop GPU.
    NvCodec,
    /// Jetson, L4T r35.
    Jetpack5,
    /// Jetson, L4T r36.
    Jetpack6,
    /// Jetson, L4T r38 and later.
    Jetpack7,
}

/// Where events go.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mqtt {
    /// Broker: `mqtt://HOST[:1883]`, or `mqtts://HOST[:8883]` for TLS.
    pub url: String,
    /// Start a broker inside this process, on the loopback address and port of `url`. For trials: it keeps nothing over a restart.
    pub embedded: bool,
    /// Client identifier, unique at the broker. Default: `kinewatch-NAME-` and ten digits that are this machine's.
    pub client_id: Option<String>,
    /// Protocol version; `auto` tries 5 first.
    pub protocol: Protocol,
    /// File that holds the user name; `credential:NAME` reads `$CREDENTIALS_DIRECTORY/NAME`.
    pub username_file: Option<String>,
    /// File that holds the password; `credential:NAME` reads `$CREDENTIALS_DIRECTORY/NAME`.
    pub password_file: Option<String>,
    /// Certificate authorities that the broker's certificate is checked against (PEM). Default: the system's.
    pub ca_file: Option<String>,
    /// Client certificate chain (PEM), for mutual TLS.
    pub cert_file: Option<String>,
    /// Client private key (PEM), for mutual TLS; `credential:NAME` reads `$CREDENTIALS_DIRECTORY/NAME`.
    pub key_file: Option<String>,
    /// Events sent but not yet acknowledged, at most.
    #[schemars(range(min = 1, max = 1000))]
    pub window: u32,
    /// Seconds of silence after which the connection is probed.
    #[schemars(range(min = 5, max = 3600))]
    pub keep_alive_s: u32,
    /// Take commands from `kinewatch/v1/GROUP/NAME/cmd/…`. Whoever may publish there may give them: that is for the broker's
    /// access rules to say.
    pub commands: bool,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            url: "mqtt://127.0.0.1:1883".into(),
            embedded: false,
            client_id: None,
            protocol: Protocol::Auto,
            username_file: None,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            window: 32,
            keep_alive_s: 30,
            commands: true,
        }
    }
}

/// MQTT protocol version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Protocol {
    /// MQTT 5, else 3.1.1.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// MQTT 5.
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
}

/// How events wait on the disk: for the broker, for a consumer, and afterwards to be looked at.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Outbox {
    /// Most that may wait, MiB of messages. What goes first when it is more: `updated` that nobody has seen. Each loss is stated
    /// on `sys/gap`.
    #[schemars(range(min = 1, max = 4096))]
    pub max_mb: u32,
    /// What has waited for more days is dropped, and stated on `sys/gap`.
    #[schemars(range(min = 1, max = 3650))]
    pub max_age_d: u32,
    /// When a message leaves the disk.
    pub keep_until: KeepUntil,
    /// After an outage, send what is fresh first and the backlog beside it, instead of all in order.
    pub live_first: bool,
    /// Messages older than 10 s that are sent a second, at most.
    #[schemars(range(min = 1, max = 10000))]
    pub backlog_per_s: u32,
    /// Events that have left the outbox and are kept for `kinewatch events history`, at most.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub history_rows: u32,
    /// Days that they are kept, at most.
    #[schemars(range(min = 1, max = 3650))]
    pub history_age_d: u32,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            max_mb: 64,
            max_age_d: 30,
            keep_until: KeepUntil::Broker,
            live_first: false,
            backlog_per_s: 500,
            history_rows: 10_000,
            history_age_d: 30,
        }
    }
}

/// When a message leaves the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeepUntil {
    /// When the broker has acknowledged it.
    #[default]
    Broker,
    /// When a consumer has, with the command `ack`; until then it can ask for it again with `resend`.
    Consumer,
}

/// Status, health and metrics over HTTP.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// Address and port, or `off`. There is no password: keep it on loopback or behind a proxy.
    pub listen: String,
}

impl Default for Web {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8089".into() }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Form of a line.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,kinewatch_mqtt=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".into() }
    }
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for the journal under systemd, else human.
    #[default]
    Auto,
    /// Coloured lines on standard error.
    Human,
    /// One JSON object a line on standard error.
    Json,
    /// The journal, each field of its own.
    Journald,
}

/// How models are run.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// Inference library. `auto` takes ONNX Runtime where a usable one is found, else tract, and says which and why.
    pub backend: Backend,
    /// Which graph of the package, and how it is computed. `auto`: fp16 on TensorRT, int8 on ONNX Runtime's CPU provider where the
    /// package has it, fp32 on CUDA and on tract.
    pub precision: Precision,
    /// `libonnxruntime.so` to load. Default: `ORT_DYLIB_PATH`, then the usual places.
    pub ort_library: Option<PathBuf>,
    /// Execution providers in order of preference. Default: TensorRT, CUDA, CPU.
    pub providers: Vec<Provider>,
    /// Refuse to start when this provider is not the one that really runs the model.
    pub require_provider: Option<Provider>,
    /// Threads of the inference library.
    #[schemars(range(min = 1, max = 64))]
    pub threads: u32,
    /// Requests of several cameras put into one batch, at most.
    #[schemars(range(min = 1, max = 64))]
    pub max_batch: u32,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            precision: Precision::Auto,
            ort_library: None,
            providers: vec![Provider::Tensorrt, Provider::Cuda, Provider::Cpu],
            require_provider: None,
            threads: 1,
            max_batch: 8,
        }
    }
}

/// Inference library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// ONNX Runtime where usable, else tract.
    #[default]
    Auto,
    /// Built in, needs nothing.
    Tract,
    /// ONNX Runtime, loaded at run time.
    Ort,
}

/// Which graph of the package, and how it is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// What suits the back end.
    #[default]
    Auto,
    /// 32-bit floats.
    Fp32,
    /// The file of fp32 in 16-bit floats, which TensorRT alone computes.
    Fp16,
    /// 8-bit integers.
    Int8,
}

/// Execution provider of ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// NVIDIA TensorRT.
    Tensorrt,
    /// NVIDIA CUDA.
    Cuda,
    /// The processor.
    Cpu,
}

/// A model package.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Name that cameras refer to. Default: the last part of `path`.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[a-z0-9_-]{1,64}$"))]
    pub name: Option<String>,
    /// Directory of the package; relative to this file.
    pub path: PathBuf,
    /// Decoder parameters of single labels, instead of the package's.
    #[serde(default)]
    pub labels: BTreeMap<String, Label>,
}

/// Decoder parameters of one label; what is left out stays as the package has it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Label {
    /// Probability at which an action opens.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub on: Option<f64>,
    /// Probability at which it closes; at most `on`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub off: Option<f64>,
    /// Box filter over the logits, seconds (clip scores).
    #[schemars(range(min = 0.0, max = 60.0))]
    pub smooth_s: Option<f64>,
    /// Alarm level at which an action opens, logit-seconds (per-frame scores).
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub h_on: Option<f64>,
    /// Alarm level at which it closes, logit-seconds (per-frame scores).
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub h_off: Option<f64>,
    /// Shorter actions are not reported, seconds.
    #[schemars(range(min = 0.0, max = 3600.0))]
    pub min_duration_s: Option<f64>,
    /// Actions nearer than this are one, seconds; every end is decided this much later.
    #[schemars(range(min = 0.0, max = 600.0))]
    pub merge_gap_s: Option<f64>,
    /// A longer action is closed with `max_duration`, seconds.
    #[schemars(range(min = 0.1, max = 86400.0))]
    pub max_duration_s: Option<f64>,
    /// An action that begins this soon after the last one ended is not reported, seconds.
    #[schemars(range(min = 0.0, max = 86400.0))]
    pub cooldown_s: Option<f64>,
    /// Subtracted from the decoder's start, seconds.
    #[schemars(range(min = -60.0, max = 60.0))]
    pub lag_start_s: Option<f64>,
    /// Subtracted from the decoder's end, seconds.
    #[schemars(range(min = -60.0, max = 60.0))]
    pub lag_end_s: Option<f64>,
    /// Uncertainty of the start, milliseconds.
    #[schemars(range(min = 0.0, max = 60000.0))]
    pub uncertainty_start_ms: Option<f64>,
    /// Uncertainty of the end, milliseconds.
    #[schemars(range(min = 0.0, max = 60000.0))]
    pub uncertainty_end_ms: Option<f64>,
    /// Sequences only: the next part begins at most this long after the one before, seconds.
    #[schemars(range(min = 0.0, max = 600.0))]
    pub within_s: Option<f64>,
    /// Thresholds at certain times of the day, local time; the first that holds counts.
    #[schemars(length(max = 24))]
    pub schedule: Vec<Period>,
}

/// A camera.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Camera {
    /// Name in topics and events.
    #[schemars(regex(pattern = r"^[a-z0-9_-]{1,64}$"))]
    pub name: String,
    /// `rtsp://HOST/PATH`, `v4l2:/dev/videoN`, `csi:N`, `file:PATH[?loop=true&speed=max]` or `test:`.
    pub source: String,
    /// Models that watch it, by name. Default: all.
    #[serde(default)]
    pub models: Option<Vec<String>>,
    /// File with `user:password` on its first line; `credential:NAME` reads `$CREDENTIALS_DIRECTORY/NAME`.
    #[serde(default)]
    pub credentials_file: Option<String>,
    /// File that holds the user name, instead of `credentials_file`.
    #[serde(default)]
    pub username_file: Option<String>,
    /// File that holds the password, instead of `credentials_file`.
    #[serde(default)]
    pub password_file: Option<String>,
    /// Where models with boxes look: x0, y0, x1, y1 of each zone as fractions of the picture. Default: all of it.
    #[serde(default)]
    #[schemars(length(max = 64), inner(inner(range(min = 0.0, max = 1.0))))]
    pub zones: Vec<[f64; 4]>,
    /// Windows a second that each of its models still scores while the device is spared against heat, a weak supply or little
    /// memory; its package may ask for fewer, and a model that reads frame by frame needs more.
    #[serde(default = "default_min_rate")]
    #[schemars(range(min = 0.1, max = 30.0))]
    pub min_rate_hz: f64,
    /// How RTSP media travel.
    #[serde(default)]
    pub transport: Option<Transport>,
    /// Seconds without a frame after which the stream is rebuilt.
    #[serde(default = "default_stall")]
    #[schemars(range(min = 1.0, max = 3600.0))]
    pub stall_timeout_s: f64,
    /// Seconds after which a stream that repeats one picture, byte for byte, is rebuilt; 0: never. Default: 10 for `csi:`, never
    /// for others, whose encoders repeat the picture of a still scene.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 86_400.0))]
    pub frozen_timeout_s: Option<f64>,
}

fn default_min_rate() -> f64 {
    1.0
}

fn default_stall() -> f64 {
    5.0
}

/// How RTSP media travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Inside the RTSP connection: passes firewalls, loses nothing. The default.
    Tcp,
    /// Datagrams: lower delay, loses packets.
    Udp,
}
