//! What is seen of the store, the outbox and the broker.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use kinewatch_core::event::{StoreCondition, StoreStatus};
use kinewatch_store::{Gap, StoreError};

/// Outbox and broker.
#[derive(Debug, Default)]
pub struct DeliveryView {
    /// Broker, without user or password.
    pub broker: String,
    /// A connection stands.
    pub connected: AtomicBool,
    /// Protocol of the connection.
    pub protocol: ArcSwapOption<String>,
    /// Why there is no connection.
    pub last_error: ArcSwapOption<String>,
    /// Connections made.
    pub connections: AtomicU64,
    /// Events acknowledged by the broker.
    pub acked: AtomicU64,
    /// Events that the broker refused for good.
    pub refused: AtomicU64,
    /// Times that the broker put an event off.
    pub deferred: AtomicU64,
    /// Events in the outbox that wait for the broker.
    pub outbox_messages: AtomicU64,
    /// Bytes of the outbox.
    pub outbox_bytes: AtomicU64,
    /// When the oldest that waits was stored, on the clock of [`crate::clock::boot_ns`]; `i64::MAX` when none does.
    pub outbox_oldest_boot_ns: OldestBootNs,
    /// Events put aside because the broker refuses them.
    pub outbox_parked: AtomicU64,
    /// Events that the broker has and that wait for a consumer.
    pub outbox_kept: AtomicU64,
    /// Events dropped to keep within the quota, each stated in a `sys/gap`.
    pub outbox_dropped: AtomicU64,
    /// Events that a damaged or lost database may have taken with it, each stated in a `sys/gap`.
    pub outbox_damaged: AtomicU64,
    /// Decisions lost because the store could not take them.
    pub decisions_lost: AtomicU64,
}

impl DeliveryView {
    /// Counts a range that will never be delivered.
    pub fn note_dropped(&self, gap: &Gap) {
        let count =
            if gap.reason == "quota" || gap.reason == "age" { &self.outbox_dropped } else { &self.outbox_damaged };
        count.fetch_add(gap.last.saturating_sub(gap.first) + 1, Relaxed);
    }
}

/// A time since boot, nanoseconds; `i64::MAX` for none.
#[derive(Debug)]
pub struct OldestBootNs(AtomicI64);

impl Default for OldestBootNs {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MAX))
    }
}

impl OldestBootNs {
    /// Sets it.
    pub fn set(&self, boot_ns: Option<i64>) {
        self.0.store(boot_ns.unwrap_or(i64::MAX), Relaxed);
    }

    /// How long ago that was, seconds; `None` for none.
    #[must_use]
    pub fn age_s(&self) -> Option<f64> {
        let then = Some(self.0.load(Relaxed)).filter(|ns| *ns != i64::MAX)?;
        Some(crate::clock::boot_ns().saturating_sub(then).max(0) as f64 / 1e9)
    }
}

/// Whether events can be stored.
#[derive(Debug, Default)]
pub struct StoreView {
    /// As it is told on MQTT too; `None` until the store was first tried.
    pub status: ArcSwapOption<StoreStatus>,
    /// Events in memory that wait to be stored.
    pub waiting: AtomicU64,
    /// Memory holds as many as it may: inference waits, and nothing is watched.
    pub memory_full: AtomicBool,
    /// Attempts to open, read or write that failed, by [`StoreView::KINDS`].
    errors: [AtomicU64; StoreView::KINDS.len()],
}

impl StoreView {
    /// What goes wrong, with the words of metrics.
    pub const KINDS: [(StoreCondition, &'static str); 6] = [
        (StoreCondition::Full, "full"),
        (StoreCondition::ReadOnly, "read_only"),
        (StoreCondition::Missing, "missing"),
        (StoreCondition::Damaged, "damaged"),
        (StoreCondition::Busy, "busy"),
        (StoreCondition::Failing, "failing"),
    ];

    /// Counts a failure.
    pub fn note(&self, error: &StoreError) {
        let condition = crate::delivery::condition(error);
        if let Some(index) = Self::KINDS.iter().position(|(kind, _)| *kind == condition) {
            self.errors[index].fetch_add(1, Relaxed);
        }
    }

    /// Failures by kind.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::KINDS.iter().zip(&self.errors).map(|((_, name), n)| (*name, n.load(Relaxed)))
    }

    /// What is wrong, in one line; `None` while events can be stored, or the store was not tried yet.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.status.load().as_ref().and_then(|status| status.error.clone())
    }

    /// Whether events can be stored now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.status.load().as_ref().is_some_and(|status| status.state == StoreCondition::Ok)
    }
}
