//! One connection in one of two versions: rumqttc's two client types behind the few operations that the driver needs.
//!
//! A link lives for one connection only. After the first error it is dropped with all its memory of messages in flight.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5::{LastWill as Will5, PubAckReason, PublishProperties, SubscribeReasonCode};
use rumqttc::{QoS, Transport, v5};

use crate::reason::Context;
use crate::{DisconnectReason, Endpoint, Options, Version, tls};

/// Attempts that take longer than this have failed (name, TCP, TLS and CONNACK together).
const CONNECT_TIMEOUT_S: u64 = 10;
/// Largest packet we accept; commands and tails are small.
const MAX_INCOMING: u32 = 1 << 20;
/// How long a broker keeps an event for a subscriber that is away.
const EVENT_EXPIRY_S: u32 = 7 * 86_400;
/// How long a reply is of interest.
const REPLY_EXPIRY_S: u32 = 300;

/// What the broker or the loop did.
#[derive(Debug)]
pub(crate) enum Happened {
    Connected {
        receive_maximum: Option<u16>,
        max_packet: Option<u32>,
        keep_alive: Option<Duration>,
    },
    /// The next submitted publish or subscription got this identifier.
    Sent {
        packet: u16,
    },
    Acked {
        packet: u16,
        code: u8,
    },
    Message(Message),
    Subscribed {
        packet: u16,
        refused: Vec<usize>,
    },
    Disconnecting,
    Other,
}

/// A message of a subscription.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retained: bool,
    pub(crate) response_topic: Option<String>,
    pub(crate) correlation: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Event,
    Retained,
    Reply { correlation: Option<Bytes> },
}

/// The sending half. Never blocks: the loop's queue is larger than the window.
pub(crate) enum Sender {
    V5(v5::AsyncClient),
    V311(rumqttc::AsyncClient),
}

/// The loop. `next` must not be dropped halfway, except to end the connection.
pub(crate) struct Poller {
    events: Loop,
    endpoint: Endpoint,
    version: Version,
    keep_alive: Duration,
    connected: bool,
}

enum Loop {
    V5(Box<v5::EventLoop>),
    V311(Box<rumqttc::EventLoop>),
}

/// The library accepts no less than 5 s.
fn keep_alive(options: &Options) -> Duration {
    options.keep_alive.max(Duration::from_secs(5))
}

/// The library has a time limit of its own for all of connecting.
pub(crate) const CONNECT_SILENCE: Duration = Duration::from_secs(CONNECT_TIMEOUT_S + 5);

/// The library pings once per keep-alive (the broker's, when it sets one), so a loop that is silent for longer is stuck:
/// its writes have no time limit of their own.
pub(crate) fn silence(options: &Options, brokers: Option<Duration>) -> Duration {
    brokers.filter(|k| !k.is_zero()).unwrap_or_else(|| keep_alive(options)).mul_f64(1.5) + Duration::from_secs(5)
}

/// Prepare a connection; nothing is sent before the first `next`. Reads the TLS files.
pub(crate) async fn open(options: &Options, version: Version) -> Result<(Sender, Poller), DisconnectReason> {
    let transport = transport(options).await?;
    let window = options.bounded_window();
    let identifiers = u16::try_from(2 * window).unwrap_or(u16::MAX);
    let (sender, events) = match version {
        Version::V5 => {
            let (client, events) = v5::AsyncClient::new(options_v5(options, transport, identifiers), window + 8);
            (Sender::V5(client), Loop::V5(Box::new(events)))
        }
        Version::V311 => {
            let (client, mut events) =
                rumqttc::AsyncClient::new(options_v4(options, transport, identifiers), window + 8);
            events.network_options.set_connection_timeout(CONNECT_TIMEOUT_S).set_tcp_nodelay(true);
            (Sender::V311(client), Loop::V311(Box::new(events)))
        }
    };
    let (endpoint, keep_alive) = (options.endpoint.clone(), keep_alive(options));
    Ok((sender, Poller { events, endpoint, version, keep_alive, connected: false }))
}

async fn transport(options: &Options) -> Result<Transport, DisconnectReason> {
    if !options.endpoint.is_tls() {
        return Ok(Transport::Tcp);
    }
    let files = options.tls.clone();
    let config = tokio::task::spawn_blocking(move || tls::client_config(&files)).await;
    let config = config.map_err(|e| DisconnectReason::Tls { detail: e.to_string() })??;
    Ok(Transport::tls_with_config(config.into()))
}

fn options_v5(options: &Options, transport: Transport, identifiers: u16) -> v5::MqttOptions {
    let mut to = v5::MqttOptions::new(&options.client_id, options.endpoint.host(), options.endpoint.port());
    to.set_transport(transport)
        .set_keep_alive(keep_alive(options))
        .set_clean_start(true)
        .set_connection_timeout(CONNECT_TIMEOUT_S)
        .set_max_packet_size(Some(MAX_INCOMING))
        .set_outgoing_inflight_upper_limit(identifiers);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    to.set_network_options(network);
    if let Some((user, password)) = &options.credentials {
        to.set_credentials(user, password.reveal());
    }
    if let Some(will) = &options.will {
        to.set_last_will(Will5::new(&will.topic, will.payload.to_vec(), QoS5::AtLeastOnce, true, None));
    }
    to
}

fn options_v4(options: &Options, transport: Transport, identifiers: u16) -> rumqttc::MqttOptions {
    let mut to = rumqttc::MqttOptions::new(&options.client_id, options.endpoint.host(), options.endpoint.port());
    to.set_transport(transport)
        .set_keep_alive(keep_alive(options))
        .set_clean_session(true)
        .set_max_packet_size(MAX_INCOMING as usize, 256 << 20)
        .set_inflight(identifiers);
    if let Some((user, password)) = &options.credentials {
        to.set_credentials(user, password.reveal());
    }
    if let Some(will) = &options.will {
        to.set_last_will(rumqttc::LastWill::new(&will.topic, will.payload.to_vec(), QoS::AtLeastOnce, true));
    }
    to
}

impl Sender {
    /// Queue a publish, QoS 1. False when the topic is not valid.
    pub(crate) fn publish(&self, topic: &str, payload: Bytes, kind: Kind) -> bool {
        let retain = kind == Kind::Retained;
        match self {
            Self::V5(client) => {
                let properties = properties(kind);
                client.try_publish_with_properties(topic, QoS5::AtLeastOnce, retain, payload, properties).is_ok()
            }
            Self::V311(client) => client.try_publish(topic, QoS::AtLeastOnce, retain, payload).is_ok(),
        }
    }

    pub(crate) fn subscribe(&self, filters: &[String]) -> bool {
        match self {
            Self::V5(client) => client
                .try_subscribe_many(
                    filters.iter().map(|f| rumqttc::v5::mqttbytes::v5::Filter::new(f.clone(), QoS5::AtLeastOnce)),
                )
                .is_ok(),
            Self::V311(client) => client
                .try_subscribe_many(filters.iter().map(|f| rumqttc::SubscribeFilter::new(f.clone(), QoS::AtLeastOnce)))
                .is_ok(),
        }
    }

    /// Queue a DISCONNECT behind what is queued.
    pub(crate) fn disconnect(&self) -> bool {
        match self {
            Self::V5(client) => client.try_disconnect().is_ok(),
            Self::V311(client) => client.try_disconnect().is_ok(),
        }
    }
}

fn properties(kind: Kind) -> PublishProperties {
    let (content_type, message_expiry_interval, correlation_data) = match kind {
        Kind::Event => ("application/cloudevents+json", Some(EVENT_EXPIRY_S), None),
        Kind::Retained => ("application/json", None, None),
        Kind::Reply { correlation } => ("application/json", Some(REPLY_EXPIRY_S), correlation),
    };
    let content_type = Some(content_type.to_owned());
    PublishProperties { content_type, message_expiry_interval, correlation_data, ..PublishProperties::default() }
}

impl Poller {
    pub(crate) async fn next(&mut self) -> Result<Happened, DisconnectReason> {
        let context = Context {
            endpoint: &self.endpoint,
            version: self.version,
            connected: self.connected,
            connect_timeout: CONNECT_TIMEOUT_S,
        };
        // Whatever comes proves that the broker is there. The library counts only PINGRESP, which on a slow line waits
        // behind everything else, and would give up a connection that delivers.
        let happened = match &mut self.events {
            Loop::V5(events) => {
                let event = events.poll().await.map_err(|e| context.v5(&e))?;
                events.state.await_pingresp &= !matches!(event, v5::Event::Incoming(_));
                from_v5(event)
            }
            Loop::V311(events) => {
                let event = events.poll().await.map_err(|e| context.v4(&e))?;
                events.state.await_pingresp &= !matches!(event, rumqttc::Event::Incoming(_));
                from_v4(event)
            }
        };
        if let Happened::Connected { keep_alive, .. } = &happened {
            self.connected = true;
            self.keep_pinging(*keep_alive);
        }
        Ok(happened)
    }

    /// A broker that sets a keep-alive of 0 wants none; the library would then ping without a pause.
    fn keep_pinging(&mut self, brokers: Option<Duration>) {
        if let (Loop::V5(events), Some(Duration::ZERO)) = (&mut self.events, brokers) {
            events.options.set_keep_alive(self.keep_alive);
        }
    }

    /// Acknowledgements that came in the same read as the end of the connection and were not yet handed out.
    pub(crate) fn leftovers(&mut self) -> Vec<Happened> {
        match &mut self.events {
            Loop::V5(events) => events.state.events.drain(..).map(from_v5).collect(),
            Loop::V311(events) => events.state.events.drain(..).map(from_v4).collect(),
        }
    }
}

fn from_v5(event: v5::Event) -> Happened {
    use rumqttc::v5::mqttbytes::v5::Packet as P;
    match event {
        v5::Event::Incoming(P::ConnAck(ack)) => {
            let properties = ack.properties.as_ref();
            Happened::Connected {
                receive_maximum: properties.and_then(|p| p.receive_max),
                max_packet: properties.and_then(|p| p.max_packet_size),
                keep_alive: properties.and_then(|p| p.server_keep_alive).map(|s| Duration::from_secs(s.into())),
            }
        }
        v5::Event::Incoming(P::PubAck(ack)) => Happened::Acked { packet: ack.pkid, code: ack_code(ack.reason) },
        v5::Event::Incoming(P::Publish(p)) => {
            let properties = p.properties.unwrap_or_default();
            Happened::Message(Message {
                topic: String::from_utf8_lossy(&p.topic).into_owned(),
                payload: p.payload,
                retained: p.retain,
                response_topic: properties.response_topic,
                correlation: properties.correlation_data,
            })
        }
        v5::Event::Incoming(P::SubAck(ack)) => {
            let refused = |c: &SubscribeReasonCode| !matches!(c, SubscribeReasonCode::Success(_));
            Happened::Subscribed { packet: ack.pkid, refused: positions(&ack.return_codes, refused) }
        }
        v5::Event::Outgoing(rumqttc::Outgoing::Publish(packet) | rumqttc::Outgoing::Subscribe(packet)) => {
            Happened::Sent { packet }
        }
        v5::Event::Outgoing(rumqttc::Outgoing::Disconnect) => Happened::Disconnecting,
        _ => Happened::Other,
    }
}

fn from_v4(event: rumqttc::Event) -> Happened {
    use rumqttc::Packet as P;
    match event {
        rumqttc::Event::Incoming(P::ConnAck(_)) => {
            Happened::Connected { receive_maximum: None, max_packet: None, keep_alive: None }
        }
        rumqttc::Event::Incoming(P::PubAck(ack)) => Happened::Acked { packet: ack.pkid, code: 0 },
        rumqttc::Event::Incoming(P::Publish(p)) => Happened::Message(Message {
            topic: p.topic,
            payload: p.payload,
            retained: p.retain,
            response_topic: None,
            correlation: None,
        }),
        rumqttc::Event::Incoming(P::SubAck(ack)) => {
            let refused = |c: &rumqttc::SubscribeReasonCode| matches!(c, rumqttc::SubscribeReasonCode::Failure);
            Happened::Subscribed { packet: ack.pkid, refused: positions(&ack.return_codes, refused) }
        }
        rumqttc::Event::Outgoing(rumqttc::Outgoing::Publish(packet) | rumqttc::Outgoing::Subscribe(packet)) => {
            Happened::Sent { packet }
        }
        rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect) => Happened::Disconnecting,
        _ => Happened::Other,
    }
}

fn positions<T>(codes: &[T], refused: impl Fn(&T) -> bool) -> Vec<usize> {
    codes.iter().enumerate().filter(|(_, c)| refused(c)).map(|(i, _)| i).collect()
}

fn ack_code(reason: PubAckReason) -> u8 {
    match reason {
        PubAckReason::Success => 0,
        PubAckReason::NoMatchingSubscribers => 0x10,
        PubAckReason::UnspecifiedError => 0x80,
        PubAckReason::ImplementationSpecificError => 0x83,
        PubAckReason::NotAuthorized => 0x87,
        PubAckReason::TopicNameInvalid => 0x90,
        PubAckReason::PacketIdentifierInUse => 0x91,
        PubAckReason::QuotaExceeded => 0x97,
        PubAckReason::PayloadFormatInvalid => 0x99,
    }
}
