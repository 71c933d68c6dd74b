//! What the client is told: where the broker is, who we are, what to say on arrival and departure.
//!
//! Parsed once; passwords are [`Secret`]s that cannot be printed, and a URL with one in it is refused.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kinewatch_core::beat::{self, Beat};

use crate::blame;
use crate::tls::{self, TlsError};

/// A broker's address: `mqtt://HOST[:1883]` or `mqtts://HOST[:8883]` (TLS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

/// A broker URL that cannot be used. The URL itself is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("the broker URL is not a URL ({0}): write mqtt://HOST:PORT or mqtts://HOST:PORT")]
    NotAUrl(String),
    /// A scheme other than `mqtt` or `mqtts`.
    #[error("the broker URL begins with {0}://: write mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS")]
    Scheme(String),
    /// User name or password in the URL.
    #[error(
        "the broker URL contains a user name or password: put them in files and name those in [mqtt], so that they never show up in logs"
    )]
    Credentials,
    /// No host.
    #[error("the broker URL has no host: write mqtt://HOST:PORT")]
    NoHost,
    /// Path, query or fragment.
    #[error("the broker URL has something after the port ({0}): MQTT addresses end there")]
    Trailing(String),
}

impl Endpoint {
    /// Parse a URL.
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        let parsed = url::Url::parse(url).map_err(|e| EndpointError::NotAUrl(e.to_string()))?;
        let tls = match parsed.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            other => return Err(EndpointError::Scheme(other.to_owned())),
        };
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(EndpointError::Credentials);
        }
        let host = parsed.host_str().filter(|h| !h.is_empty()).ok_or(EndpointError::NoHost)?.to_owned();
        let trailing = &parsed[url::Position::BeforePath..];
        if !matches!(trailing, "" | "/") {
            return Err(EndpointError::Trailing(trailing.to_owned()));
        }
        Ok(Self { host, port: parsed.port().unwrap_or(if tls { 8883 } else { 1883 }), tls })
    }

    /// Host name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.tls { "mqtts" } else { "mqtt" }, self.host, self.port)
    }
}

/// A password. It cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A password file that cannot be used. Never shows its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Reading failed.
    #[error("{path}: cannot be read ({source}): check the path and that the user kinewatch may read it")]
    Read {
        /// Password file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Too long or not text.
    #[error("{path}: is not a password file (more than 4096 bytes, or not UTF-8)")]
    NotAPassword {
        /// Password file.
        path: PathBuf,
    },
}

impl Secret {
    /// Keep a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Read a password file; one trailing line end is not part of it. Blocks on the disk.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        use std::io::Read;
        let read = |source| SecretError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        std::fs::File::open(path).map_err(read)?.take(4097).read_to_end(&mut bytes).map_err(read)?;
        let text = String::from_utf8(bytes).ok().filter(|t| t.len() <= 4096);
        let text = text.ok_or_else(|| SecretError::NotAPassword { path: path.to_owned() })?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(Self(text.strip_suffix('\r').unwrap_or(text).to_owned()))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Which MQTT version to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// MQTT 5, and 3.1.1 where a broker does not know 5. What worked is remembered.
    #[default]
    Auto,
    /// MQTT 5 only.
    V5,
    /// MQTT 3.1.1 only.
    V311,
}

/// The MQTT version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V311,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V5 => "MQTT 5",
            Self::V311 => "MQTT 3.1.1",
        })
    }
}

/// Files for TLS, read again at every connection so that renewed certificates need no restart. PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificate authorities that may sign the broker's certificate; the system's when absent.
    pub ca: Option<PathBuf>,
    /// Our certificate chain, for brokers that ask for one. Needs `key`.
    pub certificate: Option<PathBuf>,
    /// Private key of `certificate`.
    pub key: Option<PathBuf>,
}

impl Tls {
    /// Read the files and say what is wrong with them, for `check-config`. Blocks on the disk.
    pub fn check(&self) -> Result<(), TlsError> {
        tls::client_config(self).map(|_| ())
    }
}

/// A retained message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retained {
    /// Topic.
    pub topic: String,
    /// Payload; empty removes the retained message.
    pub payload: Bytes,
}

/// How to reach the broker and how to behave there.
#[derive(Debug, Clone)]
pub struct Options {
    /// The broker.
    pub endpoint: Endpoint,
    /// Unique at the broker: two clients of one name throw each other out.
    pub client_id: String,
    /// MQTT version.
    pub protocol: Protocol,
    /// User name and password.
    pub credentials: Option<(String, Secret)>,
    /// Files for `mqtts://`.
    pub tls: Tls,
    /// Published by the broker when we vanish. Carries the session counter, like the birth.
    pub will: Option<Retained>,
    /// Published on every connection, before anything else.
    pub birth: Option<Retained>,
    /// Published by [`crate::Client::stop`].
    pub stopped: Option<Retained>,
    /// Filters of which messages are wanted in [`crate::Client::incoming`]. Asked for on every connection; a broker that
    /// refuses them does not stop delivery.
    pub subscriptions: Vec<String>,
    /// Larger payloads of `subscriptions` are reported without their content, bytes.
    pub max_incoming: usize,
    /// Messages in flight, 1 to 1000; a broker's receive maximum may halve it further.
    pub window: usize,
    /// Ping interval; at least 5 s.
    pub keep_alive: Duration,
    /// No acknowledgement for this long, while one is owed, means that the connection is broken.
    pub ack_timeout: Duration,
    /// A broker that hangs up without a word at the same message for this long, and several times in a row, refuses it.
    pub hang_up_patience: Duration,
    /// Sign of life of the client task, given every second whether or not there is a connection.
    pub beat: Arc<Beat>,
}

impl Options {
    /// Options with the usual values: window 32, keep-alive 30 s, acknowledgement within 30 s, two minutes for a broker
    /// that hangs up, no credentials, no subscriptions.
    pub fn new(endpoint: Endpoint, client_id: impl Into<String>) -> Self {
        Self {
            endpoint,
            client_id: client_id.into(),
            protocol: Protocol::Auto,
            credentials: None,
            tls: Tls::default(),
            will: None,
            birth: None,
            stopped: None,
            subscriptions: Vec::new(),
            max_incoming: 16 << 10,
            window: 32,
            keep_alive: Duration::from_secs(30),
            ack_timeout: Duration::from_secs(30),
            hang_up_patience: blame::PATIENCE,
            beat: Arc::new(Beat::new("publisher", beat::LIMIT, Instant::now())),
        }
    }

    pub(crate) fn bounded_window(&self) -> usize {
        self.window.clamp(1, 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let parse = |u| Endpoint::parse(u).map(|e| e.to_string());
        assert_eq!(parse("mqtt://broker"), Ok("mqtt://broker:1883".into()));
        assert_eq!(parse("mqtts://broker.lan/"), Ok("mqtts://broker.lan:8883".into()));
        assert_eq!(parse("mqtt://[::1]:1884"), Ok("mqtt://[::1]:1884".into()));
        assert_eq!(parse("mqtt://joe:hunter2@broker"), Err(EndpointError::Credentials));
        assert!(!parse("mqtt://joe:hunter2@broker").unwrap_err().to_string().contains("hunter2"));
        assert_eq!(parse("http://broker"), Err(EndpointError::Scheme("http".into())));
        assert_eq!(parse("mqtt://"), Err(EndpointError::NoHost));
        assert!(matches!(parse("broker:x"), Err(EndpointError::Scheme(_))));
        assert!(matches!(parse("mqtt://broker/a?b"), Err(EndpointError::Trailing(_))));
        assert!(matches!(parse("mqtt://broker:99999"), Err(EndpointError::NotAUrl(_))));
    }

    #[test]
    fn secrets_do_not_print() {
        let mut options = Options::new(Endpoint::parse("mqtt://b").unwrap(), "id");
        options.credentials = Some(("joe".into(), Secret::new("hunter2")));
        assert!(!format!("{options:?} {}", Secret::new("hunter2")).contains("hunter2"));
    }

    #[test]
    fn password_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "pass word\r\n").unwrap();
        assert_eq!(Secret::from_file(&path).unwrap().reveal(), "pass word");
        std::fs::write(&path, vec![b'x'; 5000]).unwrap();
        assert!(matches!(Secret::from_file(&path), Err(SecretError::NotAPassword { .. })));
        assert!(matches!(Secret::from_file(&dir.path().join("none")), Err(SecretError::Read { .. })));
    }
}
