//! What the store thread is told, and what it answers. Decisions come from the inference thread, everything else from tasks of
//! the control runtime, through a queue of its own: a disk that fails for long holds up decisions, and neither the broker's
//! answers nor a stop.

use kinewatch_core::event::ActionEvent;
use kinewatch_core::time::ClockStep;
use kinewatch_mqtt::Signal;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// An event that has no sequence number yet.
#[derive(Debug)]
pub struct NewEvent {
    /// Its topic.
    pub topic: String,
    /// Everything but `sequence` and `rev`, which the store allocates.
    pub event: ActionEvent,
}

/// What inference hands over, in its order. While the store is away and memory is full none is taken, so its sender waits.
#[derive(Debug)]
pub enum Decided {
    /// Store this, then publish it.
    Event(Box<NewEvent>),
    /// The system clock was set: events before this bear the old time.
    ClockStepped(ClockStep),
}

/// What else the store thread is told. Taken whatever the disk does, unless the thread itself hangs in it: whoever waits for an
/// answer does so with a deadline.
#[derive(Debug)]
pub enum Command {
    /// From the MQTT client.
    Signal(Signal),
    /// A consumer has everything up to and including this sequence number; with `[outbox] keep_until = "consumer"` it
    /// may leave the disk now.
    Consumed {
        /// The number.
        up_to: u64,
        /// Gone when whoever asked has stopped waiting.
        reply: oneshot::Sender<Result<ConsumerAck, String>>,
    },
    /// A consumer asks for every message that is still kept, from this sequence number on.
    Resend {
        /// The number.
        from: u64,
        /// Gone when whoever asked has stopped waiting.
        reply: oneshot::Sender<Result<Resending, String>>,
    },
    /// Answer when everything stored, and every loss, has been acknowledged, or nobody is there to acknowledge it.
    Drain(oneshot::Sender<()>),
    /// Store what is queued and end.
    Stop,
}

/// The thread's ends of the queues, each of [`super::QUEUE`].
#[derive(Debug)]
pub struct Queues {
    /// From inference.
    pub decided: mpsc::Receiver<Decided>,
    /// From everybody else.
    pub commands: mpsc::Receiver<Command>,
}

/// What a consumer's acknowledgement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ConsumerAck {
    /// As asked.
    pub up_to: u64,
    /// Messages that left the disk by it.
    pub released: u64,
    /// Messages that the broker has and that still wait for a consumer.
    pub kept: u64,
}

/// What will be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resending {
    /// As asked.
    pub from: u64,
    /// The lowest number of them; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// How many.
    pub messages: u64,
}
