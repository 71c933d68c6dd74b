//! The broker as the daemon knows it: what the client is told, the broker inside this process, and what the client says.
//!
//! [`forward_signals`] is a task of the control runtime; nothing here blocks it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use kinewatch_core::event::DeviceStatus;
use kinewatch_core::topic;
use kinewatch_mqtt::{Options, Retained, Signal};
use tokio::sync::mpsc;

use crate::config::plan::Plan;
use crate::delivery::Command;
use crate::health::Shared;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Starts the broker inside this process, where the configuration asks for it.
///
/// # Errors
/// Its port is taken.
#[cfg(feature = "embedded-broker")]
pub fn start_embedded(plan: &Plan) -> anyhow::Result<()> {
    if let Some(listen) = plan.mqtt.embedded {
        // It has no stop: it ends with the process.
        kinewatch_mqtt::Broker::start(listen)?;
    }
    Ok(())
}

/// Nothing to start in this build.
///
/// # Errors
/// None.
#[cfg(not(feature = "embedded-broker"))]
#[expect(clippy::unnecessary_wraps, reason = "the other form can fail")]
pub fn start_embedded(_plan: &Plan) -> anyhow::Result<()> {
    // The check of the configuration has refused `embedded` in this build.
    Ok(())
}

/// What the client takes, with birth, will and farewell of this start of the agent.
#[must_use]
pub fn options(plan: &Plan, shared: &Shared, session: u64) -> Options {
    let topic = topic::status(&plan.device.group, &plan.device.name);
    let retained = |status: DeviceStatus| {
        Some(Retained { topic: topic.clone(), payload: serde_json::to_vec(&status).unwrap_or_default().into() })
    };
    let mut options = plan.mqtt.options();
    options.beat = Arc::clone(&shared.stages.publisher);
    options.will = retained(DeviceStatus::will(session, VERSION));
    options.birth = retained(DeviceStatus::birth(session, VERSION).of_instance(&shared.instance));
    options.stopped = retained(DeviceStatus::stopped(session, VERSION));
    if plan.mqtt.commands {
        options.subscriptions = topic::commands(&plan.device.group, &plan.device.name).into();
        options.subscriptions.push(topic.clone());
        options.max_incoming = kinewatch_core::command::MAX_PAYLOAD;
    }
    options
}

/// Notes what the client says for status and metrics, and hands it to the store thread.
pub async fn forward_signals(
    mut signals: mpsc::Receiver<Signal>,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
) {
    let view = &shared.delivery;
    while let Some(signal) = signals.recv().await {
        match &signal {
            Signal::Connected { protocol, .. } => {
                view.connected.store(true, Relaxed);
                view.connections.fetch_add(1, Relaxed);
                view.protocol.store(Some(Arc::new(protocol.to_string())));
                view.last_error.store(None);
            }
            Signal::Disconnected { reason } => {
                view.connected.store(false, Relaxed);
                view.last_error.store(Some(Arc::new(reason.to_string())));
                shared.commands.listening.store(false, Relaxed);
            }
            Signal::Subscribed { refused } => {
                let [own, _] = topic::commands(&shared.group, &shared.device);
                shared.commands.listening.store(!refused.contains(&own), Relaxed);
            }
            Signal::Acked { .. } | Signal::Refused { .. } | Signal::Deferred { .. } => {}
        }
        if commands.send(Command::Signal(signal)).await.is_err() {
            return;
        }
    }
}
