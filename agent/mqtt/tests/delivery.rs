//! Delivery through a real mosquitto: order, acknowledgements, a broker that dies, birth, will and farewell.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Feeder, Mosquitto, Subscriber, TOPIC, options, within};
use kinewatch_mqtt::{DisconnectReason, Options, Protocol, Retained, Tail, Version};

const STATUS: &str = "kinewatch/v1/home/box/status";

fn retained(payload: &str) -> Option<Retained> {
    Some(Retained { topic: STATUS.to_owned(), payload: Bytes::copy_from_slice(payload.as_bytes()) })
}

fn with_status(options: Options) -> Options {
    let (birth, will, stopped) = (retained("online 7"), retained("offline 7"), retained("stopped 7"));
    Options { birth, will, stopped, ..options }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_order_with_acknowledgements_in_both_versions() {
    let broker = Mosquitto::start().await;
    for (protocol, version) in [(Protocol::Auto, Version::V5), (Protocol::V311, Version::V311)] {
        let mut subscriber = Subscriber::start(&broker.url(), protocol, TOPIC).await;
        let mut feeder = Feeder::new(Options { protocol, ..options(&broker.url(), "agent") }, 1..=500);
        feeder.run("all acknowledged", |f| f.unacked.is_empty()).await;
        assert_eq!(feeder.connections, [version]);
        assert_eq!(feeder.reasons, []);
        assert_eq!(subscriber.numbers(1..=500).await, (1..=500).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_subscribers_it_is_acknowledged_too() {
    let broker = Mosquitto::start().await;
    let mut feeder = Feeder::new(options(&broker.url(), "agent"), 1..=50);
    feeder.run("PUBACK 16 counts", |f| f.unacked.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_midway_gets_everything_unacknowledged_again() {
    let mut broker = Mosquitto::start().await;
    let mut subscriber = Subscriber::start(&broker.url(), Protocol::Auto, TOPIC).await;
    let mut feeder = Feeder::new(options(&broker.url(), "agent"), 1..=2000);
    feeder.run("some acknowledged", |f| f.acked.len() >= 100).await;
    broker.kill();
    feeder.run("the loss is noticed", |f| !f.reasons.is_empty()).await;
    let acked = feeder.acked.len() as u64;
    assert!(acked < 2000, "killed midway");
    let mut heard: Vec<u64> = Vec::new();
    for tail in subscriber.heard_so_far() {
        if let Tail::Message { payload, .. } = tail {
            heard.push(std::str::from_utf8(&payload).unwrap().parse().unwrap());
        }
    }
    broker.restart();
    // What is sent before the subscriber is back it cannot hear: this test is about the sender.
    within("subscribed again", async { while !matches!(subscriber.next().await, Tail::Subscribed { .. }) {} }).await;
    let rest: Vec<u64> = feeder.unacked.keys().copied().collect();
    feeder.run("everything acknowledged", |f| f.unacked.is_empty()).await;
    assert_eq!(feeder.acked.len(), 2000);
    assert_eq!(subscriber.numbers(rest.clone()).await, rest, "all that was not acknowledged arrives, in order");
    assert!(feeder.connections.len() >= 2);
    assert_eq!(feeder.connections[0], *feeder.connections.last().unwrap(), "the version is kept over the restart");
    assert!(heard.windows(2).all(|w| w[0] < w[1]), "in order before");
}

#[tokio::test(flavor = "multi_thread")]
async fn birth_states_will() {
    let broker = Mosquitto::start().await;
    let mut watcher = Subscriber::start(&broker.url(), Protocol::Auto, "kinewatch/#").await;
    let feeder = Feeder::new(with_status(options(&broker.url(), "agent")), 1..=1);
    feeder.client.retain("kinewatch/v1/home/box/cam/room/state", "up").unwrap();
    assert_eq!(watcher.message().await, (STATUS.into(), "online 7".into(), false));
    assert_eq!(watcher.message().await.1, "up");
    // Abrupt end: the task is gone without a DISCONNECT.
    drop(feeder);
    assert_eq!(watcher.message().await, (STATUS.into(), "offline 7".into(), false));
    let mut late = Subscriber::start(&broker.url(), Protocol::V311, STATUS).await;
    assert_eq!(late.message().await, (STATUS.into(), "offline 7".into(), true), "the will is retained");
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_states_come_back_after_the_broker_forgot_them() {
    let mut broker = Mosquitto::start().await;
    let mut feeder = Feeder::new(with_status(options(&broker.url(), "agent")), 1..=1);
    feeder.client.retain("kinewatch/state/a", "1").unwrap();
    feeder.client.retain("kinewatch/state/a", "2").unwrap();
    feeder.run("delivered", |f| f.unacked.is_empty()).await;
    broker.kill();
    feeder.run("noticed", |f| !f.reasons.is_empty()).await;
    broker.restart();
    feeder.run("back", |f| f.connections.len() == 2).await;
    let mut late = Subscriber::start(&broker.url(), Protocol::Auto, "kinewatch/#").await;
    let mut heard = [late.message().await, late.message().await].map(|(topic, payload, _)| (topic, payload));
    heard.sort();
    assert_eq!(heard, [("kinewatch/state/a".into(), "2".into()), (STATUS.into(), "online 7".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_delivers_what_is_queued_and_says_goodbye() {
    let broker = Mosquitto::start().await;
    for protocol in [Protocol::V5, Protocol::V311] {
        let mut watcher = Subscriber::start(&broker.url(), Protocol::Auto, "kinewatch/#").await;
        let mut feeder = Feeder::new(Options { protocol, ..with_status(options(&broker.url(), "agent")) }, 1..=20);
        feeder.run("connected", |f| !f.connections.is_empty()).await;
        feeder.run("all handed over", |f| f.acked.len() + f.client.outgoing().max_capacity() >= 20).await;
        feeder.run("all acknowledged", |f| f.unacked.is_empty()).await;
        let stopped = within("stopped", feeder.client.stop(Duration::from_secs(20))).await;
        assert_eq!((stopped.unacked, stopped.farewell), (0, true));
        let mut last = String::new();
        while last != "stopped 7" {
            let (_, payload, _) = watcher.message().await;
            assert_ne!(payload, "offline 7", "no will after a goodbye");
            last = payload;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_without_a_connection_returns_at_once() {
    let mut feeder = Feeder::new(options("mqtt://127.0.0.1:1", "agent"), 1..=1);
    feeder.run("refused", |f| !f.reasons.is_empty()).await;
    assert!(matches!(feeder.reasons[0], DisconnectReason::Refused { .. }), "{}", feeder.reasons[0]);
    let stopped =
        tokio::time::timeout(Duration::from_secs(5), feeder.client.stop(Duration::from_secs(60))).await.unwrap();
    assert!(!stopped.farewell);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_twins_notice_each_other() {
    // mosquitto 2.0.11 closes the older twin's connection without a reason (2.1 says 0x8E), so it takes a few rounds.
    let broker = Mosquitto::start().await;
    let mut first = Feeder::new(options(&broker.url(), "same-id"), 1..=1);
    let mut second = Feeder::new(options(&broker.url(), "same-id"), 1..=1);
    let noticed = |f: &Feeder| {
        f.reasons.iter().any(|r| matches!(r, DisconnectReason::Unstable { .. } | DisconnectReason::TakenOver))
    };
    tokio::select! {
        () = first.run("the first notices", noticed) => {}
        () = second.run("the second notices", noticed) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_larger_than_the_broker_takes_stands_in_the_way_of_no_event() {
    let broker = Mosquitto::with("allow_anonymous true\nmax_packet_size 2000\n", |_| {}).await;
    let mut feeder = Feeder::new(options(&broker.url(), "agent"), 1..=5);
    feeder.client.retain("state/large", "x".repeat(4_000)).unwrap();
    feeder.client.retain("state/small", "x").unwrap();
    feeder.run("all acknowledged", |f| f.unacked.is_empty()).await;
    assert_eq!((&feeder.reasons, feeder.connections.len()), (&vec![], 1));
    let mut subscriber = Subscriber::start(&broker.url(), Protocol::Auto, "state/+").await;
    assert_eq!(subscriber.message().await, ("state/small".into(), "x".into(), true));
}
