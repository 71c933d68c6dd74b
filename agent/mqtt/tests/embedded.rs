//! The embedded broker: the same delivery, both versions, and what it does with a taken port.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "embedded-broker")]

mod common;

use common::{Feeder, Subscriber, TOPIC, options};
use kinewatch_mqtt::{Broker, BrokerError, Options, Protocol, Version};

#[tokio::test(flavor = "multi_thread")]
async fn delivers_in_both_versions() {
    let broker = tokio::task::spawn_blocking(|| Broker::start("127.0.0.1:0".parse().unwrap())).await.unwrap().unwrap();
    let taken = Broker::start(broker.v5()).unwrap_err();
    assert!(matches!(taken, BrokerError::Bind { .. }) && taken.to_string().contains("in use"), "{taken}");
    let ways = [(broker.v5(), Protocol::Auto, Version::V5), (broker.v311(), Protocol::V311, Version::V311)];
    let watcher_url = format!("mqtt://{}", broker.v5());
    for (address, protocol, version) in ways {
        let mut subscriber = Subscriber::start(&watcher_url, Protocol::Auto, TOPIC).await;
        let mut feeder = Feeder::new(Options { protocol, ..options(&format!("mqtt://{address}"), "agent") }, 1..=300);
        feeder.run("all acknowledged", |f| f.unacked.is_empty()).await;
        assert_eq!(feeder.connections, [version]);
        assert_eq!(subscriber.numbers(1..=300).await, (1..=300).collect::<Vec<_>>());
    }
}
