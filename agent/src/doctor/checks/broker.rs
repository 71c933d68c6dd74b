//! The broker: connects with the daemon's login under another client identifier, publishes one message of no meaning, and
//! waits for its acknowledgement.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kinewatch_core::topic;
use kinewatch_mqtt::{Client, DisconnectReason, Options, Outgoing, Signal};
use tokio::sync::mpsc::Receiver;

use super::duration;
use crate::doctor::{About, Context, Finding, Network};

/// How long everything may take: two attempts where a broker knows only one version.
const LIMIT: Duration = Duration::from_secs(15);
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let parts = &context.config.parts;
    let (Some(mqtt), Some(device)) = (&parts.mqtt, &parts.device) else {
        return vec![about.skip("its address is not known: [mqtt] or [device] cannot be used")];
    };
    if mqtt.embedded.is_some() && context.daemon.is_none() {
        return vec![about.skip("it runs inside kinewatch, which does not run")];
    }
    if context.network == Network::Offline && mqtt.embedded.is_none() {
        return vec![about.skip("not asked (--offline)")];
    }
    let options = Options { client_id: format!("{}-doctor-{}", mqtt.client_id, std::process::id()), ..mqtt.options() };
    let topic = topic::doctor(&device.group, &device.name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let found = match runtime {
        Ok(runtime) => runtime.block_on(async {
            let limit = tokio::time::timeout(LIMIT, ask(options, &topic, about));
            let late = || {
                about.fail(format!(
                    "{}: no answer within {} s; check address, port and firewall",
                    mqtt.endpoint,
                    LIMIT.as_secs()
                ))
            };
            limit.await.unwrap_or_else(|_| late())
        }),
        Err(e) => about.fail(format!("no runtime ({e}); is the machine out of memory?")),
    };
    vec![found]
}

async fn ask(options: Options, topic: &str, about: &About) -> Finding {
    let endpoint = options.endpoint.to_string();
    let begin = Instant::now();
    let (client, mut signals) = Client::spawn(options, &tokio::runtime::Handle::current());
    let finding = match connected(&mut signals).await {
        Err(reason) => about.fail(told(&endpoint, &reason)),
        Ok((generation, protocol)) => {
            let in_time = duration(begin.elapsed());
            let sent = Instant::now();
            let payload = Bytes::from_static(b"{\"doctor\":true}");
            let message = Outgoing { generation, sequence: 1, topic: topic.to_owned(), payload };
            // Whether it could be queued shows in the answer.
            let _queued = client.outgoing().send(message).await;
            match answer(&mut signals).await {
                Ok(()) => about.ok(format!(
                    "{endpoint}: {protocol}, connected in {in_time}, a test message acknowledged in {}",
                    duration(sent.elapsed())
                )),
                Err(reason) => about.fail(format!("{endpoint}: connected, but {reason}")),
            }
        }
    };
    client.stop(GOODBYE).await;
    finding
}

/// Waits for a connection. A reason that may lie in the protocol's version gets a second chance with the other one.
async fn connected(signals: &mut Receiver<Signal>) -> Result<(u64, kinewatch_mqtt::Version), DisconnectReason> {
    let mut doubts = 0;
    loop {
        match signals.recv().await {
            Some(Signal::Connected { generation, protocol }) => return Ok((generation, protocol)),
            Some(Signal::Disconnected { reason }) => {
                let version =
                    matches!(reason, DisconnectReason::NotMqtt { .. } | DisconnectReason::ProtocolRefused { .. });
                doubts += 1;
                if !version || doubts > 1 {
                    return Err(reason);
                }
            }
            Some(_) => {}
            None => return Err(DisconnectReason::Closed { detail: "the client ended".into() }),
        }
    }
}

async fn answer(signals: &mut Receiver<Signal>) -> Result<(), String> {
    loop {
        match signals.recv().await {
            Some(Signal::Acked { .. }) => return Ok(()),
            Some(Signal::Refused { code, .. } | Signal::Deferred { code, .. }) => return Err(refused(code)),
            Some(Signal::Disconnected { reason }) => return Err(format!("publishing broke the connection: {reason}")),
            Some(Signal::Connected { .. } | Signal::Subscribed { .. }) => {}
            None => return Err("the client ended".into()),
        }
    }
}

fn refused(code: u8) -> String {
    let what = match code {
        0x87 => "this user may not publish there; allow kinewatch/v1/GROUP/DEVICE/# in the broker's access rules",
        0x97 => "a quota of the broker is exceeded; raise it",
        0x95 => "the message is too large for it; raise its limit of a packet's size",
        _ => "see the broker's log",
    };
    format!("the test message is refused (code 0x{code:02X}): {what}")
}

/// Some reasons name the broker themselves.
fn told(endpoint: &str, reason: &DisconnectReason) -> String {
    let text = reason.to_string();
    if text.contains(endpoint) { text } else { format!("{endpoint}: {text}") }
}
