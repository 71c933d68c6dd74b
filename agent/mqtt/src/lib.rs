//! MQTT delivery for kinewatch: a client that reconnects for ever and reports every acknowledgement.
//!
//! # The outbox is the truth, never the client library
//! rumqttc forgets messages in flight when the broker has no session, and has an open livelock when a packet identifier
//! collides (bytebeamio/rumqtt#1014, #1056). So nothing is left to its memory:
//!
//! - each connection is a new client and a new event loop, with a *clean start*. A broker-side session would only resend
//!   what we resend anyway, and would make packet identifiers outlive the loop that gave them out;
//! - each connection has a `generation`. The feeder starts again from the oldest row that is not acknowledged when it
//!   sees [`Signal::Connected`]; what it queued for an older generation is thrown away here;
//! - packet identifiers are mapped to sequence numbers in the order in which the loop says it sent them ([`flight`]);
//! - the *span* between the oldest message not acknowledged and the newest is at most half of the identifiers in use, so
//!   they cannot collide, in whatever order a broker acknowledges;
//! - on any error of the loop, and when an acknowledgement does not come, the connection is dropped and built anew.
//!
//! The honest promise is "acknowledged by the broker". `PUBACK` 0 (success) and 16 (no subscriber now) count as that. A
//! refusal that may pass (0x80, 0x83, 0x91) is [`Signal::Deferred`], one that concerns the message [`Signal::Refused`]. So is a
//! message that the broker answers by hanging up, once it is certain that it is the one ([`blame`]).
//!
//! # What is left out of MQTT 5, and why
//! - *Session expiry* is 0: see clean start, above. Commands that were sent while the device was away are gone, which is
//!   better than their being done hours later.
//! - *Will delay*: with a session that ends with its connection a broker sends the will at once, whatever the delay.
//! - *Topic aliases*: they belong to a connection, and every message may have to be sent again on another.
//! - *User properties*: everything that matters is in the payload, so that 3.1.1 loses nothing.
//!
//! # Threads and bounds
//! One tokio task per [`Client`]; nothing here blocks the caller. Queues: outgoing (the window), signals (twice the
//! window and a few), retained states (one per topic, at most [`MAX_STATES`]), incoming messages and replies (32 each).
//! While disconnected, outgoing messages are taken and thrown away, so a feeder never hangs on a dead broker; replies wait
//! for the next connection.

mod backoff;
mod blame;
#[cfg(feature = "embedded-broker")]
mod broker;
mod choice;
mod client;
mod deferral;
mod driver;
mod exchange;
mod flight;
mod link;
mod news;
mod options;
mod reason;
mod states;
mod stop;
mod subscribe;
mod subscriptions;
mod tls;

#[cfg(feature = "embedded-broker")]
pub use broker::{Broker, BrokerError};
pub use client::{Client, Incoming, Outgoing, Reply, Signal, Stopped};
pub use options::{Endpoint, EndpointError, Options, Protocol, Retained, Secret, SecretError, Tls, Version};
pub use reason::DisconnectReason;
pub use states::{MAX_STATES, StatesFull};
pub use subscribe::{Tail, subscribe};
pub use tls::TlsError;
