//! The handle of the client task, and what goes through it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::driver::{Driver, Ends};
use crate::states::{States, StatesFull};
use crate::stop::StopRequest;
use crate::{DisconnectReason, Options, Version};

/// A message for the broker: QoS 1, not retained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Of the [`Signal::Connected`] it was queued under; messages of another generation are thrown away.
    pub generation: u64,
    /// Comes back in [`Signal::Acked`] or [`Signal::Refused`].
    pub sequence: u64,
    /// Topic.
    pub topic: String,
    /// Payload, at most what the broker accepts.
    pub payload: Bytes,
}

/// What happened at the broker.
#[derive(Debug, Clone, PartialEq)]
pub enum Signal {
    /// A new connection. Nothing sent before counts: begin again with the oldest message not acknowledged.
    Connected {
        /// To be copied into every [`Outgoing`] from now on.
        generation: u64,
        /// The version spoken.
        protocol: Version,
    },
    /// The connection is gone, or could not be made. Its messages in flight are unknown.
    Disconnected {
        /// Why, in one line with what to do.
        reason: DisconnectReason,
    },
    /// The broker has the message.
    Acked {
        /// Of the message.
        sequence: u64,
    },
    /// The broker (or a rule of MQTT) refuses this very message; sending it again would not help.
    Refused {
        /// Of the message.
        sequence: u64,
        /// MQTT 5 reason code: 0x87 not authorised, 0x90 topic invalid, 0x95 too large, 0x97 quota, 0x99 payload format…
        code: u8,
    },
    /// The broker does not take the message now. It is no longer in flight: hand it over again. Whatever is handed over
    /// waits here until it is time to try again.
    Deferred {
        /// Of the message.
        sequence: u64,
        /// MQTT 5 reason code: 0x80 unspecified, 0x83 implementation specific, 0x91 identifier in use.
        code: u8,
    },
    /// The broker has answered to [`Options::subscriptions`].
    Subscribed {
        /// Filters that it does not allow.
        refused: Vec<String>,
    },
}

/// A message of [`Options::subscriptions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Topic.
    pub topic: String,
    /// Payload; `None` when it is larger than [`Options::max_incoming`].
    pub payload: Option<Bytes>,
    /// Bytes of the payload.
    pub size: usize,
    /// A retained message from before the subscription.
    pub retained: bool,
    /// Where an answer is wanted (MQTT 5).
    pub response_topic: Option<String>,
    /// To be sent back with the answer (MQTT 5).
    pub correlation: Option<Bytes>,
    /// Messages dropped since the one before, because nobody took them in time.
    pub missed: u64,
}

/// An answer to an [`Incoming`]: QoS 1, not retained, sent once. Unlike an [`Outgoing`] it is lost with a connection that
/// breaks before its acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Topic.
    pub topic: String,
    /// Payload, JSON.
    pub payload: Bytes,
    /// Of the request.
    pub correlation: Option<Bytes>,
}

/// Incoming messages and replies that wait, each.
const WAITING: usize = 32;

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stopped {
    /// Messages handed over and not acknowledged; they stay in the outbox.
    pub unacked: usize,
    /// Whether the farewell (`stopped` and DISCONNECT) reached the broker.
    pub farewell: bool,
}

/// The client task's handle. Dropped without [`Client::stop`], the connection breaks off and the broker publishes the
/// will.
#[derive(Debug)]
pub struct Client {
    outgoing: mpsc::Sender<Outgoing>,
    replies: mpsc::Sender<Reply>,
    incoming: Option<mpsc::Receiver<Incoming>>,
    states: Arc<States>,
    stop: mpsc::Sender<StopRequest>,
    task: JoinHandle<()>,
}

impl Client {
    /// Start the task on `handle`'s runtime (its I/O and time drivers must be enabled). Never blocks and never fails:
    /// what is wrong comes as [`Signal::Disconnected`]. Read the signals steadily; when they are full, nothing more is
    /// sent until there is room.
    pub fn spawn(options: Options, handle: &Handle) -> (Self, mpsc::Receiver<Signal>) {
        let window = options.bounded_window();
        let (outgoing, outgoing_receiver) = mpsc::channel(window);
        let (signal_sender, signals) = mpsc::channel(2 * window + 8);
        let (stop, stop_receiver) = mpsc::channel(1);
        let (replies, reply_receiver) = mpsc::channel(WAITING);
        let (incoming_sender, incoming) = mpsc::channel(WAITING);
        let states = Arc::new(States::default());
        let ends = Ends {
            outgoing: outgoing_receiver,
            replies: reply_receiver,
            incoming: incoming_sender,
            signals: signal_sender,
            states: Arc::clone(&states),
            stop: stop_receiver,
        };
        let task = handle.spawn(Driver::new(options, ends).run());
        (Self { outgoing, replies, incoming: Some(incoming), states, stop, task }, signals)
    }

    /// What comes of [`Options::subscriptions`]; to be taken once. At most 32 wait: what comes beyond is dropped and
    /// counted in [`Incoming::missed`].
    pub fn incoming(&mut self) -> Option<mpsc::Receiver<Incoming>> {
        self.incoming.take()
    }

    /// The bounded queue of replies. Use `try_send`: it is full when the connection is gone or slow.
    pub fn replies(&self) -> mpsc::Sender<Reply> {
        self.replies.clone()
    }

    /// The bounded queue to the broker. Use `try_send`, or wait in a `select` that also reads the signals: it is full
    /// while the window is.
    pub fn outgoing(&self) -> mpsc::Sender<Outgoing> {
        self.outgoing.clone()
    }

    /// Keep `payload` as the retained state of `topic`: sent now, and again on every connection. An empty payload
    /// removes it. Never blocks.
    pub fn retain(&self, topic: impl Into<String>, payload: impl Into<Bytes>) -> Result<(), StatesFull> {
        self.states.set(topic.into(), payload.into())
    }

    /// Send what is queued, wait for acknowledgements, publish `stopped`, disconnect: all within `deadline`. Returns at
    /// once when there is no connection.
    pub async fn stop(mut self, deadline: Duration) -> Stopped {
        let end = Instant::now() + deadline;
        let (reply, answer) = oneshot::channel();
        if self.stop.try_send(StopRequest { start: Instant::now(), deadline, reply }).is_err() {
            return Stopped::default();
        }
        let stopped = tokio::time::timeout_at(end, answer).await;
        let _ = tokio::time::timeout(Duration::from_millis(100), &mut self.task).await;
        stopped.ok().and_then(Result::ok).unwrap_or_default()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}
