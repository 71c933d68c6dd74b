//! The two faults of the MQTT library that the design of this crate goes around. Each is shown on the bare library first, so
//! that the test of ours proves something, and so that it is noticed when the library no longer has it.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::fake::{Fake, Reply, Seen, connack_v5, puback};
use common::{Feeder, options, within};
use kinewatch_mqtt::Options;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};

/// The library by itself, with `identifiers` packet identifiers, told to publish six messages and to keep its session.
async fn bare(fake: &Fake, identifiers: u16) -> EventLoop {
    let mut options = MqttOptions::new("bare", "127.0.0.1", fake.port);
    options.set_clean_start(false).set_outgoing_inflight_upper_limit(identifiers);
    let (client, events) = AsyncClient::new(options, 16);
    for n in 1..=6 {
        client.publish("t", QoS::AtLeastOnce, false, n.to_string()).await.unwrap();
    }
    // Without its client the loop would end.
    std::mem::forget(client);
    events
}

/// Polls until the connection ends.
async fn until_lost(events: &mut EventLoop) -> ConnectionError {
    within("the connection to end", async {
        loop {
            if let Err(error) = events.poll().await {
                return error;
            }
        }
    })
    .await
}

async fn reconnected(events: &mut EventLoop) {
    within("a new connection", async {
        while !matches!(events.poll().await, Ok(Event::Incoming(Packet::ConnAck(_)))) {}
    })
    .await;
}

/// What the broker has acknowledged: what it did not may not be gone.
type Acknowledged = Arc<Mutex<usize>>;

/// Acknowledges two messages, takes three more and dies; after that it takes everything, without a session.
fn forgetful(acknowledged: &Acknowledged) -> impl FnMut(Seen) -> Reply + Send + 'static + use<> {
    let acknowledged = Arc::clone(acknowledged);
    move |seen| match seen {
        Seen::Connect { .. } => connack_v5(0, None),
        Seen::Publish { count: 3 | 4, .. } => Reply::Nothing,
        Seen::Publish { count: 5, .. } => Reply::Close,
        Seen::Publish { packet, .. } => {
            *acknowledged.lock().unwrap() += 1;
            Reply::Bytes(puback(packet))
        }
        Seen::Subscribe { .. } => Reply::Nothing,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_flight_is_not_forgotten_with_the_session() {
    let acknowledged = Acknowledged::default();
    let fake = Fake::start(forgetful(&acknowledged)).await;
    let mut events = bare(&fake, 3).await;
    until_lost(&mut events).await;
    assert_eq!(events.pending.len(), 4, "three were not acknowledged, one was not sent, and the library knows it");
    reconnected(&mut events).await;
    assert!(events.pending.is_empty(), "and forgets it: these messages are lost");
    assert_eq!(*acknowledged.lock().unwrap(), 2);

    let acknowledged = Acknowledged::default();
    let fake = Fake::start(forgetful(&acknowledged)).await;
    let mut feeder = Feeder::new(Options { window: 3, ..options(&fake.url(), "ours") }, 1..=6);
    feeder.run("everything delivered", |f| f.unacked.is_empty()).await;
    assert_eq!(*acknowledged.lock().unwrap(), 6);
}

/// Acknowledges the second message and never the first, then dies; after that it takes everything, without a session.
fn out_of_order(acknowledged: &Acknowledged) -> impl FnMut(Seen) -> Reply + Send + 'static + use<> {
    let acknowledged = Arc::clone(acknowledged);
    let mut connections = 0;
    move |seen| match seen {
        Seen::Connect { .. } => {
            connections += 1;
            connack_v5(0, None)
        }
        Seen::Publish { count: 1, .. } => Reply::Nothing,
        Seen::Publish { packet, count: 2, .. } => {
            *acknowledged.lock().unwrap() += 1;
            Reply::Bytes(puback(packet))
        }
        Seen::Publish { packet, .. } if connections > 1 => {
            *acknowledged.lock().unwrap() += 1;
            Reply::Bytes(puback(packet))
        }
        Seen::Publish { .. } | Seen::Subscribe { .. } => Reply::Nothing,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identifiers_do_not_collide_and_nothing_waits_for_ever() {
    let acknowledged = Acknowledged::default();
    let fake = Fake::start(out_of_order(&acknowledged)).await;
    // The third message gets the identifier of the first, which is not acknowledged, and is put aside.
    let mut events = bare(&fake, 2).await;
    within("a collision", async {
        while events.state.collision.is_none() {
            events.poll().await.unwrap();
        }
    })
    .await;
    fake.hang_up();
    until_lost(&mut events).await;
    reconnected(&mut events).await;
    assert!(events.state.collision.is_some(), "it waits for an acknowledgement of a session that is gone");
    let more = tokio::time::timeout(Duration::from_secs(2), async {
        while !matches!(events.poll().await, Ok(Event::Outgoing(rumqttc::Outgoing::Publish(_)))) {}
    });
    assert!(more.await.is_err(), "and nothing is published any more");

    let acknowledged = Acknowledged::default();
    let fake = Fake::start(out_of_order(&acknowledged)).await;
    let options = Options { window: 2, ack_timeout: Duration::from_secs(1), ..options(&fake.url(), "ours") };
    let mut feeder = Feeder::new(options, 1..=6);
    feeder.run("everything delivered", |f| f.unacked.is_empty()).await;
    assert_eq!(*acknowledged.lock().unwrap(), 6);
    assert_eq!(feeder.connections.len(), 2, "{:?}", feeder.reasons);
}
