//! A subscriber that reconnects, for `events tail`. It keeps nothing: what passes while it is away is not seen.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::backoff::Backoff;
use crate::choice::Choice;
use crate::link::{self, Happened, Message};
use crate::{DisconnectReason, Options, Version};

/// What a subscriber sees.
#[derive(Debug, Clone, PartialEq)]
pub enum Tail {
    /// Connected and subscribed (again).
    Subscribed {
        /// Version spoken.
        protocol: Version,
        /// Filters the broker does not allow.
        refused: Vec<String>,
    },
    /// A message.
    Message {
        /// Topic.
        topic: String,
        /// Payload.
        payload: Bytes,
        /// Whether it is a retained one from before.
        retained: bool,
    },
    /// Not connected; it will be tried again.
    Disconnected {
        /// Why, in one line.
        reason: DisconnectReason,
    },
}

/// Call `on` for all that happens under `filters` until it breaks. `on` runs between two reads of the connection, so a
/// slow one slows the broker down instead of filling memory; one slower than the keep-alive loses the connection.
/// Birth, will, `stopped` and window of the options are not used; the client identifier must not be the daemon's.
pub async fn subscribe(options: &Options, filters: &[String], mut on: impl FnMut(Tail) -> ControlFlow<()>) {
    let options = Options { will: None, birth: None, stopped: None, ..options.clone() };
    let mut choice = Choice::new(options.protocol);
    let mut backoff = Backoff::new();
    loop {
        let reason = match once(&options, &mut choice, &mut backoff, filters, &mut on).await {
            Ok(()) => return,
            Err(reason) => reason,
        };
        choice.failed(&reason);
        let wait = if reason == DisconnectReason::TakenOver { backoff.after_takeover() } else { backoff.wait(false) };
        if on(Tail::Disconnected { reason }).is_break() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

/// One connection. `Ok` when `on` broke.
async fn once(
    options: &Options,
    choice: &mut Choice,
    backoff: &mut Backoff,
    filters: &[String],
    on: &mut impl FnMut(Tail) -> ControlFlow<()>,
) -> Result<(), DisconnectReason> {
    let protocol = choice.version();
    let (sender, mut poller) = link::open(options, protocol).await?;
    let mut silence = link::CONNECT_SILENCE;
    loop {
        let happened =
            tokio::time::timeout(silence, poller.next()).await.map_err(|_| DisconnectReason::KeepAlive)??;
        let tail = match happened {
            Happened::Connected { keep_alive, .. } => {
                choice.worked();
                silence = link::silence(options, keep_alive);
                if !sender.subscribe(filters) {
                    return Err(DisconnectReason::State { detail: "the topic filters are not valid".to_owned() });
                }
                continue;
            }
            Happened::Subscribed { refused, .. } => {
                backoff.reset();
                let refused = refused.into_iter().filter_map(|i| filters.get(i).cloned()).collect();
                Tail::Subscribed { protocol, refused }
            }
            Happened::Message(Message { topic, payload, retained, .. }) => Tail::Message { topic, payload, retained },
            _ => continue,
        };
        if on(tail).is_break() {
            if sender.disconnect() {
                let goodbye = std::time::Duration::from_millis(500);
                let _ = tokio::time::timeout(goodbye, async { while poller.next().await.is_ok() {} }).await;
            }
            return Ok(());
        }
    }
}
