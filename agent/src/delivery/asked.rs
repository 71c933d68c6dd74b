//! What consumers ask of the store: their acknowledgement, and messages again. On the store thread; nobody is left without an
//! answer.

use kinewatch_store::{KeepUntil, StoreError};
use tokio::sync::oneshot;

use super::{ConsumerAck, Delivery, Resending};

/// A question that waits for its answer.
#[derive(Debug)]
pub(super) enum Asked {
    Consumed(u64, oneshot::Sender<Result<ConsumerAck, String>>),
    Resend(u64, oneshot::Sender<Result<Resending, String>>),
}

const NOT_KEPT: &str =
    "messages are kept until the broker has them; set [outbox] keep_until = \"consumer\" to acknowledge them yourself";

impl Delivery {
    /// Serves what consumers have asked for.
    pub(super) fn answer(&mut self) -> Result<(), StoreError> {
        let mut waiting = std::mem::take(&mut self.asked).into_iter();
        while let Some(asked) = waiting.next() {
            if let Err(error) = self.serve(asked) {
                self.asked = waiting.collect();
                return Err(error);
            }
        }
        Ok(())
    }

    /// One question. Who asks is gone where an answer cannot be sent.
    fn serve(&mut self, asked: Asked) -> Result<(), StoreError> {
        let Some(store) = self.disk.store() else {
            self.asked.push(asked);
            return Ok(());
        };
        let fault = match (&asked, self.keep_until) {
            (_, KeepUntil::Broker) => Some(NOT_KEPT.to_owned()),
            (Asked::Consumed(number, _) | Asked::Resend(number, _), _) if *number > store.last_sequence() => {
                Some(format!("the newest sequence number is {}", store.last_sequence()))
            }
            _ => None,
        };
        match (asked, fault) {
            (Asked::Consumed(_, reply), Some(fault)) => reply.send(Err(fault)).unwrap_or_default(),
            (Asked::Resend(_, reply), Some(fault)) => reply.send(Err(fault)).unwrap_or_default(),
            (Asked::Consumed(up_to, reply), None) => {
                let done = store.consumed(up_to);
                let ack = done.as_ref().map(|d| ConsumerAck { up_to, released: d.released, kept: d.kept });
                reply.send(ack.map_err(ToString::to_string)).unwrap_or_default();
                done?;
            }
            (Asked::Resend(from, reply), None) => {
                let again = store.resend(from);
                if let Ok(again) = &again {
                    self.feeder.back_to(again.first.unwrap_or(u64::MAX));
                }
                let sending = again.as_ref().map(|a| Resending { from, first: a.first, messages: a.messages });
                reply.send(sending.map_err(ToString::to_string)).unwrap_or_default();
                again?;
            }
        }
        Ok(())
    }

    /// Whoever asks while there is no store learns why.
    pub(super) fn refuse(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let why = format!("the store is away: {}", self.shared.store.fault().unwrap_or_default());
        for asked in self.asked.drain(..) {
            let _gone = match asked {
                Asked::Consumed(_, reply) => reply.send(Err(why.clone())).is_err(),
                Asked::Resend(_, reply) => reply.send(Err(why.clone())).is_err(),
            };
        }
    }
}
