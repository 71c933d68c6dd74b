//! Commands that come over MQTT, and their answers, as they are written on the wire.
//!
//! The topic names the command (`cmd/<name>`), the payload holds its parameters: a JSON object, or nothing. [`parse`] takes
//! whatever a stranger sends: it is pure, bounded, never panics, and knows no field beyond those listed here. Doing what a
//! command says is not its business. Within version 1 commands, parameters and codes are only ever added.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::name::is_name;

/// Largest payload of a command, bytes.
pub const MAX_PAYLOAD: usize = 16 << 10;
/// Longest `id` of a request, characters.
pub const MAX_ID: usize = 64;
/// Longest message of an error, characters: it may quote what was sent.
const MAX_MESSAGE: usize = 300;

/// What can be commanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandName {
    /// Say that you are there.
    Ping,
    /// Say how you are.
    Status,
    /// What was heard need not be kept any longer.
    Ack,
    /// Publish again from here on.
    Resend,
    /// Build a camera's stream anew.
    CameraRestart,
    /// Read the configuration again.
    Reload,
    /// Look at the repository of models now.
    ModelCheck,
    /// Install what the channel offers.
    ModelInstall,
    /// Go back to the model before.
    ModelRollback,
    /// Leave a model as it is.
    ModelPin,
    /// The opposite.
    ModelUnpin,
}

impl CommandName {
    /// Every one.
    pub const ALL: [Self; 11] = [
        Self::Ping,
        Self::Status,
        Self::Ack,
        Self::Resend,
        Self::CameraRestart,
        Self::Reload,
        Self::ModelCheck,
        Self::ModelInstall,
        Self::ModelRollback,
        Self::ModelPin,
        Self::ModelUnpin,
    ];

    /// As it stands in the topic.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Status => "status",
            Self::Ack => "ack",
            Self::Resend => "resend",
            Self::CameraRestart => "camera-restart",
            Self::Reload => "reload",
            Self::ModelCheck => "model-check",
            Self::ModelInstall => "model-install",
            Self::ModelRollback => "model-rollback",
            Self::ModelPin => "model-pin",
            Self::ModelUnpin => "model-unpin",
        }
    }

    /// Whether it may be told to all devices of a group: not when its parameters are about one of them.
    #[must_use]
    pub fn suits_all(self) -> bool {
        matches!(self, Self::Ping | Self::Status | Self::Reload | Self::ModelCheck)
    }

    fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text)
    }
}

/// A command with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// See [`CommandName::Ping`].
    Ping,
    /// See [`CommandName::Status`].
    Status,
    /// Events up to and with this `sequence` were taken over.
    Ack {
        /// Last of them.
        upto: u64,
    },
    /// Events from this `sequence` on are wanted again.
    Resend {
        /// First of them.
        from: u64,
    },
    /// See [`CommandName::CameraRestart`].
    CameraRestart {
        /// Its name in the configuration.
        camera: String,
    },
    /// See [`CommandName::Reload`].
    Reload,
    /// See [`CommandName::ModelCheck`].
    ModelCheck,
    /// See [`CommandName::ModelInstall`].
    ModelInstall {
        /// Its name in the configuration.
        model: String,
    },
    /// See [`CommandName::ModelRollback`].
    ModelRollback {
        /// Its name in the configuration.
        model: String,
    },
    /// See [`CommandName::ModelPin`].
    ModelPin {
        /// Its name in the configuration.
        model: String,
    },
    /// See [`CommandName::ModelUnpin`].
    ModelUnpin {
        /// Its name in the configuration.
        model: String,
    },
}

impl Command {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> CommandName {
        match self {
            Self::Ping => CommandName::Ping,
            Self::Status => CommandName::Status,
            Self::Ack { .. } => CommandName::Ack,
            Self::Resend { .. } => CommandName::Resend,
            Self::CameraRestart { .. } => CommandName::CameraRestart,
            Self::Reload => CommandName::Reload,
            Self::ModelCheck => CommandName::ModelCheck,
            Self::ModelInstall { .. } => CommandName::ModelInstall,
            Self::ModelRollback { .. } => CommandName::ModelRollback,
            Self::ModelPin { .. } => CommandName::ModelPin,
            Self::ModelUnpin { .. } => CommandName::ModelUnpin,
        }
    }
}

/// A command as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRequest {
    /// What to do.
    pub command: Command,
    /// Whatever the requester wants to see again in the answer.
    pub id: Option<String>,
}

/// Why a command was not done. Codes may be added; none is removed or gets another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// There is no such command.
    UnknownCommand,
    /// The payload is not a JSON object with this command's parameters.
    InvalidPayload,
    /// The payload is larger than a command may be.
    TooLarge,
    /// Response topic or correlation data of the request are not such that this device answers there.
    InvalidResponse,
    /// This command is for one device, not for a whole group.
    NotForAll,
    /// Too many commands: this one was dropped.
    RateLimited,
    /// There is no such camera.
    UnknownCamera,
    /// There is no such model.
    UnknownModel,
    /// Not now, or not with this configuration.
    Unavailable,
    /// No end within the time that a command may take; it may still come.
    Timeout,
    /// It was tried and failed.
    Failed,
}

/// Why a command was not done, with words for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what is wrong and what to do. Not for programs: the words change.
    pub message: String,
}

impl CommandError {
    /// With words of a bounded length.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: shortened(&message.into()) }
    }
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommandReply {
    /// Whether it was done.
    pub ok: bool,
    /// Name of the command.
    pub command: String,
    /// The device that answers.
    pub device: String,
    /// `id` of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What came of it, when `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// What is wrong, when not `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CommandError>,
}

impl CommandReply {
    /// Of a command that was done, or not.
    #[must_use]
    pub fn new(command: &str, device: &str, id: Option<String>, outcome: Result<Value, CommandError>) -> Self {
        let ok = outcome.is_ok();
        let (result, error) = match outcome {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        Self { ok, command: shortened(command), device: device.to_owned(), id, result, error }
    }
}

/// Parameters of every command: the payload of `cmd/<name>` is `properties.<name>` of this schema.
#[derive(JsonSchema)]
#[schemars(title = "kinewatch commands", rename_all = "kebab-case")]
#[allow(dead_code, reason = "it is there for its schema")]
struct Payloads {
    ping: Plain,
    status: Plain,
    ack: Ack,
    resend: Resend,
    camera_restart: CameraRestart,
    reload: Plain,
    model_check: Plain,
    model_install: OfModel,
    model_rollback: OfModel,
    model_pin: OfModel,
    model_unpin: OfModel,
}

/// A command without parameters. The payload may also be empty.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Plain {
    /// Comes back in the answer.
    #[schemars(length(max = 64))]
    id: Option<String>,
}

/// Events up to and with this `sequence` were taken over, and need not be kept for a consumer any more.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ack {
    /// Last `sequence` taken over.
    upto: Sequence,
    /// Comes back in the answer.
    #[serde(default)]
    #[schemars(length(max = 64))]
    id: Option<String>,
}

/// Events from this `sequence` on are published again, as far as they are still kept.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Resend {
    /// First `sequence` wanted.
    from: Sequence,
    /// Comes back in the answer.
    #[serde(default)]
    #[schemars(length(max = 64))]
    id: Option<String>,
}

/// A `sequence`: what an event has, or the number.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "not a sequence: its digits in quotes, as events have them, or a number")]
enum WrittenSequence {
    Number(u64),
    Digits(#[schemars(regex(pattern = r"^[0-9]{1,20}$"))] String),
}

#[derive(Deserialize, JsonSchema)]
#[serde(try_from = "WrittenSequence")]
#[schemars(with = "WrittenSequence", inline)]
struct Sequence(u64);

impl TryFrom<WrittenSequence> for Sequence {
    type Error = String;

    fn try_from(written: WrittenSequence) -> Result<Self, String> {
        match written {
            WrittenSequence::Number(number) => Ok(Self(number)),
            // A sign is no digit, though `parse` takes it.
            WrittenSequence::Digits(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().map(Self).map_err(|e| format!("sequence {:?}: {e}", shortened(&text)))
            }
            WrittenSequence::Digits(text) => Err(format!("sequence {:?}: not digits alone", shortened(&text))),
        }
    }
}

/// The stream of one camera is built anew.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CameraRestart {
    /// Its name in the configuration.
    #[schemars(regex(pattern = r"^[a-z0-9_-]{1,64}$"))]
    camera: String,
    /// Comes back in the answer.
    #[serde(default)]
    #[schemars(length(max = 64))]
    id: Option<String>,
}

/// A command about one model.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OfModel {
    /// Its name in the configuration.
    #[schemars(regex(pattern = r"^[a-z0-9_-]{1,64}$"))]
    model: String,
    /// Comes back in the answer.
    #[serde(default)]
    #[schemars(length(max = 64))]
    id: Option<String>,
}

/// Reads a command. `name` is the last level of its topic.
///
/// # Errors
/// [`ErrorCode::UnknownCommand`], [`ErrorCode::TooLarge`] or [`ErrorCode::InvalidPayload`], with words that may be sent back.
pub fn parse(name: &str, payload: &[u8]) -> Result<CommandRequest, CommandError> {
    let Some(name) = CommandName::of(name) else {
        let known = CommandName::ALL.map(CommandName::as_str).join(", ");
        let message = format!("there is no command {:?}; there are: {known}", shortened(name));
        return Err(CommandError::new(ErrorCode::UnknownCommand, message));
    };
    if payload.len() > MAX_PAYLOAD {
        let message = format!("{} bytes: the payload of a command has at most {MAX_PAYLOAD}", payload.len());
        return Err(CommandError::new(ErrorCode::TooLarge, message));
    }
    let (command, id) = match name {
        CommandName::Ping => (Command::Ping, plain(payload)?),
        CommandName::Status => (Command::Status, plain(payload)?),
        CommandName::Reload => (Command::Reload, plain(payload)?),
        CommandName::ModelCheck => (Command::ModelCheck, plain(payload)?),
        CommandName::ModelInstall => of_model(payload, |model| Command::ModelInstall { model })?,
        CommandName::ModelRollback => of_model(payload, |model| Command::ModelRollback { model })?,
        CommandName::ModelPin => of_model(payload, |model| Command::ModelPin { model })?,
        CommandName::ModelUnpin => of_model(payload, |model| Command::ModelUnpin { model })?,
        CommandName::Ack => {
            let Ack { upto, id } = parameters(payload)?;
            (Command::Ack { upto: upto.0 }, id)
        }
        CommandName::Resend => {
            let Resend { from, id } = parameters(payload)?;
            (Command::Resend { from: from.0 }, id)
        }
        CommandName::CameraRestart => {
            let CameraRestart { camera, id } = parameters(payload)?;
            if !is_name(&camera) {
                return Err(CommandError::new(ErrorCode::UnknownCamera, format!("no camera is called {camera:?}")));
            }
            (Command::CameraRestart { camera }, id)
        }
    };
    if id.as_ref().is_some_and(|id| id.chars().count() > MAX_ID) {
        let message = format!("id: at most {MAX_ID} characters come back in an answer");
        return Err(CommandError::new(ErrorCode::InvalidPayload, message));
    }
    Ok(CommandRequest { command, id })
}

fn plain(payload: &[u8]) -> Result<Option<String>, CommandError> {
    if payload.is_empty() { Ok(None) } else { parameters::<Plain>(payload).map(|plain| plain.id) }
}

fn of_model(
    payload: &[u8],
    command: impl FnOnce(String) -> Command,
) -> Result<(Command, Option<String>), CommandError> {
    let OfModel { model, id } = parameters(payload)?;
    if !is_name(&model) {
        return Err(CommandError::new(ErrorCode::UnknownModel, format!("no model is called {model:?}")));
    }
    Ok((command(model), id))
}

fn parameters<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CommandError> {
    // serde would take a list for a struct as well.
    let message = if payload.trim_ascii_start().first() == Some(&b'{') {
        match serde_json::from_slice(payload) {
            Ok(parameters) => return Ok(parameters),
            Err(error) => error.to_string(),
        }
    } else {
        "it does not begin with {".to_owned()
    };
    Err(CommandError::new(
        ErrorCode::InvalidPayload,
        format!("the payload is not this command's JSON object: {message}"),
    ))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// File names and JSON Schemas (2020-12) of commands and answers.
pub(crate) fn schemas() -> [(&'static str, schemars::Schema); 2] {
    let settings = schemars::generate::SchemaSettings::draft2020_12();
    let mut payloads = settings.clone().for_deserialize().into_generator().into_root_schema_for::<Payloads>();
    // A document of schemas, not the schema of a document: no command has to be there.
    payloads.remove("required");
    let replies = settings.for_serialize().into_generator().into_root_schema_for::<CommandReply>();
    [("commands-1.json", payloads), ("command-reply-1.json", replies)]
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
