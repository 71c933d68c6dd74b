//! The durable side of kinewatch: outbox, event history, open actions and counters in one SQLite file, and what is known
//! of models over the air in another ([`updates`]).
//!
//! The promise: *an event once decided is on disk before it is sent, and leaves the outbox only on the broker's
//! acknowledgement.* [`Store::append`] allocates the sequence numbers and stores the rows in one transaction; only what
//! it returned may be published.
//!
//! # Why WAL with `synchronous=FULL`
//! In WAL mode `NORMAL` keeps the database consistent over a power cut but may lose the last commits: they are in the
//! page cache only. An event that a subscriber has already seen would then be missing here, its sequence number would
//! be given out a second time, and an action that a subscriber saw start would never be found open and never be ended.
//! So `append`, `next_session`, `park` and the first `offer` of a message commit with `FULL`: one `fsync` of the log per
//! commit, shared by all events of the batch. Losing an acknowledgement, in contrast, costs one duplicate that consumers
//! remove by `id`, so `acked` and what else may be done twice commits with `NORMAL` and spares the flash; the next `FULL`
//! commit syncs the same log and so also covers them, in order.
//!
//! # Beside the database
//! `sequence` is a small record file ([`record`]) with a ceiling that is always synced above every number ever given
//! out. When the database is damaged or gone, numbering goes on from there and the range that may be missing is stated
//! as a gap. The same file carries the lock: one writer per state directory. [`Reader`] looks in without it.
//!
//! # What this crate must never do
//! Publish, know MQTT or what is in a payload, read a clock, or drop a row without recording a [`Gap`]. It blocks (disk), so
//! exactly one thread owns a [`Store`]; there is no async here and nothing is shared.

mod append;
mod counts;
mod error;
mod inspect;
mod open;
mod open_action;
mod outbox;
mod quota;
mod reader;
mod record;
mod schema;
mod stamp;
mod state;
pub mod updates;

pub use append::{Appended, Draft, Handing, Status};
pub use error::{Disposition, StoreError};
pub use inspect::{Inspected, inspect};
pub use open::{Floor, KeepUntil, Opened, Store, StoreOptions};
pub use open_action::OpenAction;
pub use outbox::{Consumed, Gap, OutboxStats, Resend, Row};
pub use reader::{Filter, OutboxRow, Reader, Tally, Waiting};
pub use stamp::Stamp;
pub use state::HistoryRow;
