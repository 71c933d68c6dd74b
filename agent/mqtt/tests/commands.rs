//! Messages to the client and its replies, through a real mosquitto: properties, every new connection, limits.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use common::{Feeder, Mosquitto, options, within};
use kinewatch_mqtt::{DisconnectReason, Incoming, Options, Protocol, Reply};
use tokio::sync::mpsc;

const CMD: &str = "kinewatch/v1/home/box/cmd/ping";
const RSP: &str = "kinewatch/v1/home/box/rsp/ping";

fn subscribing(broker: &Mosquitto, protocol: Protocol) -> Options {
    let subscriptions = vec!["kinewatch/v1/home/box/cmd/+".to_owned()];
    Options { subscriptions, protocol, max_incoming: 100, ..options(&broker.url(), "agent") }
}

/// One of mosquitto's clients, to its end.
async fn client(broker: &Mosquitto, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-q", "1"]).args(arguments).stdin(Stdio::null());
    let output = within(program, tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

async fn publish(broker: &Mosquitto, arguments: &[&str]) {
    client(broker, "mosquitto_pub", &[&["-t", CMD], arguments].concat()).await;
}

async fn next(incoming: &mut mpsc::Receiver<Incoming>) -> Incoming {
    within("a message", incoming.recv()).await.unwrap()
}

async fn subscribed(feeder: &mut Feeder, times: usize) {
    feeder.run("subscribed", |f| f.subscribed.len() == times).await;
    assert_eq!(feeder.subscribed, vec![Vec::<String>::new(); times]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_version_5_is_answered_where_it_asks_for_it() {
    let broker = Mosquitto::start().await;
    let mut feeder = Feeder::new(subscribing(&broker, Protocol::V5), 1..=1);
    let mut incoming = feeder.client.incoming().unwrap();
    assert!(feeder.client.incoming().is_none(), "once");
    subscribed(&mut feeder, 1).await;
    let replies = feeder.client.replies();
    let echo = tokio::spawn(async move {
        let request = next(&mut incoming).await;
        let topic = request.response_topic.clone().unwrap();
        replies.send(Reply { topic, payload: "pong".into(), correlation: request.correlation.clone() }).await.unwrap();
        request
    });
    let arguments = ["-t", CMD, "-e", RSP, "-m", "{}", "-D", "publish", "correlation-data", "17", "-F", "%D %C %R %p"];
    let output = client(&broker, "mosquitto_rr", &[&["-V", "5"], &arguments[..]].concat()).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "17 application/json  pong");
    let request = echo.await.unwrap();
    assert_eq!((request.topic.as_str(), request.payload, request.size), (CMD, Some(Bytes::from("{}")), 2));
    assert!(!request.retained && request.missed == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_is_subscribed_and_a_reply_waits_for_the_next() {
    let mut broker = Mosquitto::start().await;
    for protocol in [Protocol::V5, Protocol::V311] {
        let mut feeder = Feeder::new(subscribing(&broker, protocol), 1..=1);
        let mut incoming = feeder.client.incoming().unwrap();
        subscribed(&mut feeder, 1).await;
        publish(&broker, &["-m", "one"]).await;
        assert_eq!(next(&mut incoming).await.payload, Some("one".into()));
        broker.kill();
        feeder.run("noticed", |f| !f.reasons.is_empty()).await;
        let reply = Reply { topic: RSP.into(), payload: "late".into(), correlation: None };
        feeder.client.replies().try_send(reply).unwrap();
        broker.restart();
        let mut watcher = common::Subscriber::start(&broker.url(), Protocol::Auto, RSP).await;
        subscribed(&mut feeder, 2).await;
        publish(&broker, &["-m", "two"]).await;
        let two = next(&mut incoming).await;
        assert_eq!((two.payload, two.response_topic), (Some("two".into()), None));
        // It may have gone out before the watcher was back; then another one is seen.
        let again = Reply { topic: RSP.into(), payload: "again".into(), correlation: None };
        feeder.client.replies().try_send(again).unwrap();
        while watcher.message().await.1 != "again" {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_message_beyond_all_limits_costs_one_connection() {
    let broker = Mosquitto::start().await;
    let file = broker.dir.path().join("huge");
    std::fs::write(&file, vec![b'x'; 2 << 20]).unwrap();
    publish(&broker, &["-r", "-f", file.to_str().unwrap()]).await;
    let mut feeder = Feeder::new(subscribing(&broker, Protocol::V311), 1..=20);
    feeder
        .run("cut off, and everything sent without commands", |f| f.connections.len() == 2 && f.acked.len() == 20)
        .await;
    assert!(matches!(feeder.reasons[..], [DisconnectReason::Oversize { bytes: 2_000_000.. }]), "{:?}", feeder.reasons);
    // In version 5 the broker is told the limit, and keeps the message to itself.
    let mut feeder = Feeder::new(subscribing(&broker, Protocol::V5), 1..=20);
    subscribed(&mut feeder, 1).await;
    feeder.run("everything sent", |f| f.acked.len() == 20).await;
    assert_eq!(feeder.connections.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_retained_large_or_too_much_is_told() {
    let broker = Mosquitto::start().await;
    publish(&broker, &["-r", "-m", "old"]).await;
    let mut feeder = Feeder::new(subscribing(&broker, Protocol::Auto), 1..=1);
    let mut incoming = feeder.client.incoming().unwrap();
    let old = next(&mut incoming).await;
    assert!(old.retained && old.payload == Some("old".into()));
    subscribed(&mut feeder, 1).await;
    publish(&broker, &["-m", &"x".repeat(101)]).await;
    let large = next(&mut incoming).await;
    assert_eq!((large.payload, large.size, large.retained), (None, 101, false));
    // Forty while nobody takes them: 32 wait.
    let lines = (1..=40).map(|n| format!("{n}\n")).collect::<String>();
    let file = broker.dir.path().join("lines");
    std::fs::write(&file, lines).unwrap();
    let script = format!("mosquitto_pub -h 127.0.0.1 -p {} -q 1 -t {CMD} -l < {}", broker.port, file.display());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    // The first 32 wait; how far the client is with the others is its own affair, but none goes without being counted.
    let mut taken = 0;
    for n in 1..=32 {
        let message = next(&mut incoming).await;
        assert_eq!((message.payload, message.missed), (Some(n.to_string().into()), 0));
        taken += 1;
    }
    publish(&broker, &["-m", "last"]).await;
    loop {
        let message = next(&mut incoming).await;
        taken += 1 + message.missed;
        if message.payload == Some("last".into()) {
            break;
        }
    }
    assert_eq!(taken, 41);
}
