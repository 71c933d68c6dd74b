//! Models over the air, in the running agent: what may be asked of the updater.

pub mod moment;
mod view;

use kinewatch_core::command::CommandError;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

pub use self::view::UpdatesView;
pub(crate) use self::view::code_of;

/// Requests that may wait.
const QUEUE: usize = 8;

/// How a request is answered.
pub type Answer = oneshot::Sender<Result<Value, CommandError>>;

/// What is asked for, by whoever may give commands.
#[derive(Debug)]
pub enum Request {
    /// Look at the repository now.
    Check(Answer),
    /// Install what the channel offers.
    Install(String, Answer),
    /// Go back to the model before.
    Rollback(String, Answer),
    /// Leave a model as it is.
    Pin(String, Answer),
    /// The opposite.
    Unpin(String, Answer),
}

/// Where that is asked for; bounded.
pub type Requests = mpsc::Sender<Request>;

/// The queue of requests.
#[must_use]
pub fn requests() -> (Requests, mpsc::Receiver<Request>) {
    mpsc::channel(QUEUE)
}
