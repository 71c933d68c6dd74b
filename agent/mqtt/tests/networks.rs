//! Bad networks between the client and a real mosquitto: everything arrives, trouble is noticed within the keep-alive, and a
//! connection that is merely slow is left alone.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../../tests/support/proxy.rs"]
mod proxy;

use std::time::{Duration, Instant};

use common::{Feeder, Mosquitto, Subscriber, TOPIC, options};
use kinewatch_mqtt::{DisconnectReason, Options, Protocol};
use proxy::{Mode, Proxy};

/// The shortest that the library takes; times below are in proportion to it.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// As large as an event.
const EVENT: usize = 1500;

struct Scene {
    broker: Mosquitto,
    proxy: Proxy,
    subscriber: Subscriber,
    feeder: Feeder,
}

impl Scene {
    /// A client behind a proxy, and a subscriber that is not.
    async fn start(protocol: Protocol, messages: u64, change: impl FnOnce(&mut Options)) -> Self {
        let broker = Mosquitto::start().await;
        let proxy = Proxy::start(([127, 0, 0, 1], broker.port).into());
        let subscriber = Subscriber::start(&broker.url(), Protocol::Auto, TOPIC).await;
        let mut options =
            Options { protocol, keep_alive: KEEP_ALIVE, ..options(&format!("mqtt://{}", proxy.address), "agent") };
        change(&mut options);
        let mut feeder = Feeder::new(options, 1..=messages);
        feeder.padding = EVENT;
        Self { broker, proxy, subscriber, feeder }
    }

    /// All was acknowledged and heard, over so many TCP connections at most.
    async fn all_arrive(&mut self, messages: u64, connections: u64) {
        self.feeder.run("all acknowledged", |f| f.unacked.is_empty()).await;
        let heard = self.subscriber.numbers(1..=messages).await;
        assert_eq!(heard, (1..=messages).collect::<Vec<_>>(), "in order");
        let made = self.proxy.accepted();
        assert!(made <= connections, "{made} connections: {:?}", self.feeder.reasons);
    }
}

/// Half-way through everything stops without being closed, for new connections too.
async fn a_black_hole(protocol: Protocol) {
    let mut scene = Scene::start(protocol, 400, |_| {}).await;
    scene.feeder.run("under way", |f| f.acked.len() >= 100).await;
    scene.proxy.set(Mode::Hole);
    let begin = Instant::now();
    scene.feeder.run("noticed", |f| !f.reasons.is_empty()).await;
    let noticed = begin.elapsed();
    assert_eq!(scene.feeder.reasons, [DisconnectReason::KeepAlive]);
    assert!(noticed < 2 * KEEP_ALIVE + Duration::from_secs(2), "after {noticed:?}");
    scene.feeder.run("a second attempt that fails", |f| f.reasons.len() == 2).await;
    assert!(matches!(scene.feeder.reasons[1], DisconnectReason::Timeout { .. }), "{:?}", scene.feeder.reasons);
    scene.proxy.set(Mode::Forward);
    scene.all_arrive(400, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_after_the_connection_stands() {
    tokio::join!(a_black_hole(Protocol::V5), a_black_hole(Protocol::V311));
}

/// Writes have no time limit in the library: with so much to send that they block, it must be noticed as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_that_fills_every_buffer() {
    let mut scene = Scene::start(Protocol::V5, 300, |o| o.window = 1000).await;
    scene.feeder.padding = 50_000;
    scene.feeder.run("connected", |f| !f.connections.is_empty()).await;
    scene.proxy.set(Mode::Hole);
    let begin = Instant::now();
    scene.feeder.run("noticed", |f| !f.reasons.is_empty()).await;
    let noticed = begin.elapsed();
    assert_eq!(scene.feeder.reasons, [DisconnectReason::KeepAlive]);
    assert!(noticed < 3 * KEEP_ALIVE + Duration::from_secs(5), "after {noticed:?}");
    scene.proxy.set(Mode::Forward);
    scene.all_arrive(300, 4).await;
}

/// The broker's side is gone and nobody tells; a new connection works. With nothing to send only pings can notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection() {
    for idle in [true, false] {
        let mut scene = Scene::start(Protocol::Auto, 400, |_| {}).await;
        let enough = if idle { 400 } else { 100 };
        scene.feeder.run("under way", |f| f.acked.len() >= enough).await;
        scene.proxy.half_open();
        let begin = Instant::now();
        scene.feeder.run("back", |f| f.connections.len() == 2).await;
        let back = begin.elapsed();
        assert!(back < 2 * KEEP_ALIVE + Duration::from_secs(3), "after {back:?}");
        assert_eq!(scene.feeder.reasons, [DisconnectReason::KeepAlive]);
        scene.all_arrive(400, 2).await;
    }
}

/// What is in flight takes longer than keep-alive and acknowledgement timeout together. It is slow, and it moves: nothing is
/// wrong with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_line_is_slow_and_not_broken() {
    let both = [Protocol::V5, Protocol::V311].map(|protocol| async move {
        let mut scene = Scene::start(protocol, 60, |o| o.ack_timeout = Duration::from_secs(3)).await;
        scene.proxy.set(Mode::Throttle(4096));
        let begin = Instant::now();
        scene.all_arrive(60, 1).await;
        assert!(begin.elapsed() > Duration::from_secs(15), "it was throttled: {:?}", begin.elapsed());
        assert_eq!(scene.feeder.reasons, []);
    });
    let [v5, v311] = both;
    tokio::join!(v5, v311);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_with_four_seconds_there_and_back() {
    let mut scene = Scene::start(Protocol::Auto, 100, |_| {}).await;
    scene.proxy.set(Mode::Delay(Duration::from_secs(2)));
    scene.all_arrive(100, 1).await;
    assert_eq!(scene.feeder.reasons, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_in_the_middle_of_packets() {
    let mut scene = Scene::start(Protocol::Auto, 25, |_| {}).await;
    // In the middle of the sixth event. A client that began with all of its window would lose every acknowledgement.
    scene.proxy.set(Mode::ResetAfter(9000));
    scene.all_arrive(25, 10).await;
    assert!(scene.feeder.reasons.len() >= 4, "{:?}", scene.feeder.reasons);
    assert_eq!(scene.feeder.refused, [], "no message is to blame for the line");
    let broken =
        |r: &DisconnectReason| matches!(r, DisconnectReason::Closed { .. } | DisconnectReason::Unstable { .. });
    assert!(scene.feeder.reasons.iter().all(broken), "{:?}", scene.feeder.reasons);
}

/// No server for a while: every attempt is refused at once, which must not make more of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_not_stormed() {
    let mut scene = Scene::start(Protocol::Auto, 200, |_| {}).await;
    scene.feeder.run("under way", |f| f.acked.len() >= 50).await;
    scene.proxy.set(Mode::Refuse);
    scene.broker.kill();
    let begin = Instant::now();
    scene.feeder.run("five attempts", |f| f.reasons.len() >= 5).await;
    // Waits of at least half of 0.5 s, 1 s, 2 s, 4 s.
    assert!(begin.elapsed() >= Duration::from_millis(3_700), "{:?}", begin.elapsed());
    scene.broker.restart();
    scene.proxy.set(Mode::Forward);
    scene.feeder.run("all acknowledged", |f| f.unacked.is_empty()).await;
    assert_eq!(scene.feeder.acked.len(), 200);
    assert!(scene.proxy.accepted() <= 9, "{}", scene.proxy.accepted());
}
