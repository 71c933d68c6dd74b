//! `[outbox]`: bounds of the store, and how a backlog is sent.

use std::time::Duration;

use kinewatch_store::StoreOptions;

use super::file::{KeepUntil, Outbox};
use super::plan::OutboxPlan;
use crate::delivery::{self, FeedOptions, SendOrder};

const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn resolve(outbox: &Outbox) -> OutboxPlan {
    let bounds = StoreOptions {
        outbox_bytes: u64::from(outbox.max_mb) << 20,
        outbox_age: DAY * outbox.max_age_d,
        history_rows: outbox.history_rows.into(),
        history_age: DAY * outbox.history_age_d,
        keep_until: match outbox.keep_until {
            KeepUntil::Broker => kinewatch_store::KeepUntil::Broker,
            KeepUntil::Consumer => kinewatch_store::KeepUntil::Consumer,
        },
        ..StoreOptions::default()
    };
    OutboxPlan {
        store: delivery::store_options(bounds),
        order: if outbox.live_first { SendOrder::LiveFirst } else { SendOrder::Sequence },
        backlog_per_s: outbox.backlog_per_s,
    }
}

impl OutboxPlan {
    /// How the client is fed, with `window` messages in flight.
    #[must_use]
    pub fn feed(&self, window: usize) -> FeedOptions {
        FeedOptions { window, order: self.order, backlog_per_s: self.backlog_per_s }
    }
}
