//! Why there is no connection: the library's errors sorted into short lines that say what to do.

use std::io;

use rumqttc::v5;
use rustls::{AlertDescription, CertificateError};

use crate::tls::TlsError;
use crate::{Endpoint, Version};

/// What to do about a topic at which the broker hangs up.
pub(crate) const ALLOW: &str =
    "allow this client to publish there in the broker's access rules, and look at the broker's log";

/// Why a connection ended or could not be made. `Display` is one line for the operator and never shows a password.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The host name has no address.
    #[error("{host}: no such host: check [mqtt] url and the name server")]
    Dns {
        /// Host of the URL.
        host: String,
    },
    /// Nothing listens there.
    #[error("{endpoint}: connection refused: is the broker running, and is this its port?")]
    Refused {
        /// The broker.
        endpoint: String,
    },
    /// The network does not reach it.
    #[error("{endpoint}: not reachable ({detail}): check the network")]
    Unreachable {
        /// The broker.
        endpoint: String,
        /// The operating system's words.
        detail: String,
    },
    /// No answer in time.
    #[error("{endpoint}: no answer within {seconds} s: check address, port and firewall")]
    Timeout {
        /// The broker.
        endpoint: String,
        /// How long we waited.
        seconds: u64,
    },
    /// User name or password wrong, or missing.
    #[error("the broker refuses user name or password: check the user and the password file in [mqtt]")]
    BadCredentials,
    /// This client may not connect, or may not do what it does.
    #[error("the broker does not authorise this client: check user, password and its access rules")]
    NotAuthorized,
    /// The client identifier is refused.
    #[error("the broker refuses the client identifier: choose another in [mqtt] client_id")]
    ClientId,
    /// The broker is overloaded or shutting down.
    #[error("the broker is not available now ({detail}); it will be tried again")]
    Unavailable {
        /// The broker's words.
        detail: String,
    },
    /// The broker does not speak this version of MQTT.
    #[error("the broker does not accept {version}: use protocol = \"auto\" or the other version")]
    ProtocolRefused {
        /// The version tried.
        version: Version,
    },
    /// Something answers that is not an MQTT broker, or not of this version.
    #[error("{endpoint}: no MQTT answer to {version} ({detail}): check the port, and whether it wants TLS (mqtts://)")]
    NotMqtt {
        /// The broker.
        endpoint: String,
        /// The version tried.
        version: Version,
        /// What came instead.
        detail: String,
    },
    /// The certificate is for another name.
    #[error("the broker's certificate is not for {host}: use a name that is in it, or issue one with this name")]
    TlsName {
        /// Host of the URL.
        host: String,
    },
    /// The certificate's authority is unknown.
    #[error("the broker's certificate is signed by an unknown authority: name its CA file in [mqtt]")]
    TlsUntrusted,
    /// The certificate is not valid now.
    #[error("the broker's certificate is expired or not yet valid: renew it, or set this device's clock")]
    TlsExpired,
    /// The broker wants another client certificate.
    #[error("the broker does not accept our client certificate ({detail}): check certificate and key in [mqtt]")]
    TlsClient {
        /// The alert.
        detail: String,
    },
    /// There is no TLS on that port.
    #[error("{endpoint}: answers, but not with TLS: use mqtt:// or the TLS port (often 8883)")]
    TlsAbsent {
        /// The broker.
        endpoint: String,
    },
    /// Another failure of TLS.
    #[error("TLS failed: {detail}")]
    Tls {
        /// rustls' words.
        detail: String,
    },
    /// Our own TLS files.
    #[error(transparent)]
    TlsFiles(#[from] TlsError),
    /// Another client came with our identifier (0x8E).
    #[error(
        "another client uses the same client identifier, and each throws the other out: give each device its own [device] name or [mqtt] client_id"
    )]
    TakenOver,
    /// The broker hung up and said why.
    #[error("the broker disconnected us: {detail}")]
    ByBroker {
        /// Reason code and text.
        detail: String,
        /// MQTT 5 reason code.
        code: u8,
    },
    /// The connection broke.
    #[error("the connection broke ({detail})")]
    Closed {
        /// What was seen.
        detail: String,
    },
    /// The connection breaks again and again, without a reason. mosquitto 2.0 does this to the older of two clients of one
    /// name, without saying 0x8E.
    #[error(
        "the connection broke {times} times within {minutes} minutes: either the network or the broker is not well, or another client uses the same client identifier; then give each device its own [device] name or [mqtt] client_id"
    )]
    Unstable {
        /// How many times lately.
        times: usize,
        /// What lately means.
        minutes: u64,
    },
    /// The broker hangs up at one message, again and again.
    #[error("the broker hangs up when it is sent a message on {topic}: {}", ALLOW)]
    AtMessage {
        /// Topic of the message.
        topic: String,
    },
    /// Pings are not answered.
    #[error("the broker does not answer pings: the network or the broker hangs")]
    KeepAlive,
    /// Acknowledgements do not come.
    #[error("no acknowledgement within {seconds} s: the connection is built anew")]
    NoAck {
        /// How long we waited.
        seconds: u64,
    },
    /// A message that the broker passed on is too large to be read. Only of brokers that cannot be told the limit (3.1.1).
    #[error(
        "somebody sent this device a message of {bytes} bytes, which is not read: look for it under its cmd topics"
    )]
    Oversize {
        /// Size of the packet.
        bytes: usize,
    },
    /// A broken rule of the protocol, by the broker or the library.
    #[error("the MQTT state is broken ({detail}): the connection is built anew")]
    State {
        /// The library's words.
        detail: String,
    },
}

impl DisconnectReason {
    /// The broker said plainly that it does not know this version.
    pub(crate) fn refuses_protocol(&self) -> bool {
        matches!(self, Self::ProtocolRefused { .. })
    }

    /// A connection that stood was ended at once, whatever was said: many of those are to be met with patience.
    pub(crate) fn is_break(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::ByBroker { .. } | Self::State { .. } | Self::Oversize { .. })
    }

    /// It may be the version: worth trying the other one.
    pub(crate) fn may_be_protocol(&self) -> bool {
        matches!(self, Self::ProtocolRefused { .. } | Self::NotMqtt { .. })
    }
}

/// Where an error happened: what the sorting needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) version: Version,
    /// Whether CONNACK had come.
    pub(crate) connected: bool,
    pub(crate) connect_timeout: u64,
}

impl Context<'_> {
    pub(crate) fn v5(&self, error: &v5::ConnectionError) -> DisconnectReason {
        use v5::ConnectionError as E;
        match error {
            E::Io(e) | E::Tls(rumqttc::TlsError::Io(e)) => self.io(e),
            E::Tls(rumqttc::TlsError::TLS(e)) => self.tls(e),
            E::Tls(e) => DisconnectReason::Tls { detail: e.to_string() },
            E::Timeout(_) => self.timeout(),
            E::ConnectionRefused(code) => self.connack_v5(*code),
            E::MqttState(e) => self.state_v5(e),
            other => self.broken(other.to_string()),
        }
    }

    pub(crate) fn v4(&self, error: &rumqttc::ConnectionError) -> DisconnectReason {
        use rumqttc::{ConnectReturnCode as C, ConnectionError as E, StateError as S};
        match error {
            E::Io(e) | E::Tls(rumqttc::TlsError::Io(e)) | E::MqttState(S::Io(e)) => self.io(e),
            E::Tls(rumqttc::TlsError::TLS(e)) => self.tls(e),
            E::Tls(e) => DisconnectReason::Tls { detail: e.to_string() },
            E::NetworkTimeout | E::FlushTimeout => self.timeout(),
            E::ConnectionRefused(code) => match code {
                C::RefusedProtocolVersion => DisconnectReason::ProtocolRefused { version: self.version },
                C::BadUserNamePassword => DisconnectReason::BadCredentials,
                C::NotAuthorized => DisconnectReason::NotAuthorized,
                C::BadClientId => DisconnectReason::ClientId,
                other => DisconnectReason::Unavailable { detail: format!("{other:?}") },
            },
            E::MqttState(S::AwaitPingResp) => DisconnectReason::KeepAlive,
            E::MqttState(S::ConnectionAborted) => self.closed("closed by the broker".to_owned()),
            E::MqttState(S::Deserialization(rumqttc::mqttbytes::Error::Io(e))) => self.io(e),
            E::MqttState(S::Deserialization(rumqttc::mqttbytes::Error::PayloadSizeLimitExceeded(bytes)))
                if self.connected =>
            {
                DisconnectReason::Oversize { bytes: *bytes }
            }
            other => self.broken(other.to_string()),
        }
    }

    fn connack_v5(&self, code: v5::mqttbytes::v5::ConnectReturnCode) -> DisconnectReason {
        use v5::mqttbytes::v5::ConnectReturnCode as C;
        match code {
            C::RefusedProtocolVersion | C::UnsupportedProtocolVersion => {
                DisconnectReason::ProtocolRefused { version: self.version }
            }
            C::BadUserNamePassword => DisconnectReason::BadCredentials,
            C::NotAuthorized | C::Banned | C::BadAuthenticationMethod => DisconnectReason::NotAuthorized,
            C::BadClientId | C::ClientIdentifierNotValid => DisconnectReason::ClientId,
            // Brokers that know only 3.1.1 answer all kinds of things; trying the other version costs one attempt.
            C::UnspecifiedError | C::MalformedPacket | C::ProtocolError | C::ImplementationSpecificError => {
                self.not_mqtt(format!("{code:?}"))
            }
            other => DisconnectReason::Unavailable { detail: format!("{other:?}") },
        }
    }

    fn state_v5(&self, error: &v5::StateError) -> DisconnectReason {
        use v5::StateError as S;
        use v5::mqttbytes::v5::DisconnectReasonCode as D;
        match error {
            S::Io(e) | S::Deserialization(v5::mqttbytes::Error::Io(e)) => self.io(e),
            S::Deserialization(v5::mqttbytes::Error::PayloadSizeLimitExceeded { pkt_size, .. }) if self.connected => {
                DisconnectReason::Oversize { bytes: *pkt_size }
            }
            S::AwaitPingResp => DisconnectReason::KeepAlive,
            S::ConnectionAborted => self.closed("closed by the broker".to_owned()),
            S::ServerDisconnect { reason_code: D::SessionTakenOver, .. } => DisconnectReason::TakenOver,
            S::ServerDisconnect { reason_code, reason_string } => {
                let text = reason_string.as_deref().map(|t| format!(" ({t})")).unwrap_or_default();
                DisconnectReason::ByBroker { detail: format!("{reason_code:?}{text}"), code: *reason_code as u8 }
            }
            S::ConnFail { reason } => self.connack_v5(*reason),
            other => self.broken(other.to_string()),
        }
    }

    fn io(&self, error: &io::Error) -> DisconnectReason {
        use io::ErrorKind as K;
        let endpoint = self.endpoint.to_string();
        if let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            return self.tls(tls);
        }
        let detail = error.to_string();
        match error.kind() {
            K::ConnectionRefused => DisconnectReason::Refused { endpoint },
            K::TimedOut => self.timeout(),
            K::HostUnreachable | K::NetworkUnreachable | K::NetworkDown | K::AddrNotAvailable => {
                DisconnectReason::Unreachable { endpoint, detail }
            }
            _ if detail.contains("failed to lookup address") => {
                DisconnectReason::Dns { host: self.endpoint.host().to_owned() }
            }
            _ => self.closed(detail),
        }
    }

    fn tls(&self, error: &rustls::Error) -> DisconnectReason {
        use CertificateError as C;
        use rustls::Error as E;
        match error {
            E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
                DisconnectReason::TlsName { host: self.endpoint.host().to_owned() }
            }
            E::InvalidCertificate(C::UnknownIssuer) => DisconnectReason::TlsUntrusted,
            E::InvalidCertificate(
                C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
            ) => DisconnectReason::TlsExpired,
            E::InvalidMessage(_) if !self.connected => {
                DisconnectReason::TlsAbsent { endpoint: self.endpoint.to_string() }
            }
            E::AlertReceived(alert) if about_our_certificate(*alert) => {
                DisconnectReason::TlsClient { detail: format!("{alert:?}") }
            }
            other => DisconnectReason::Tls { detail: other.to_string() },
        }
    }

    fn timeout(&self) -> DisconnectReason {
        if self.connected {
            return DisconnectReason::KeepAlive;
        }
        DisconnectReason::Timeout { endpoint: self.endpoint.to_string(), seconds: self.connect_timeout }
    }

    fn closed(&self, detail: String) -> DisconnectReason {
        if self.connected { DisconnectReason::Closed { detail } } else { self.not_mqtt(detail) }
    }

    fn broken(&self, detail: String) -> DisconnectReason {
        if self.connected { DisconnectReason::State { detail } } else { self.not_mqtt(detail) }
    }

    fn not_mqtt(&self, detail: String) -> DisconnectReason {
        DisconnectReason::NotMqtt { endpoint: self.endpoint.to_string(), version: self.version, detail }
    }
}

fn about_our_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::CertificateRequired
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::HandshakeFailure
    )
}
