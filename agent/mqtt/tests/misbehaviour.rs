//! Brokers that misbehave: other versions, refusals, disorder, silence. Each ends in delivery, without a livelock.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::fake::{FORBIDDEN, Fake, Reply, Seen, connack_v4, connack_v5, puback, puback_v5, suback_v5};
use common::{Feeder, TOPIC, options};
use kinewatch_mqtt::{DisconnectReason, Options, Protocol, Version};

fn accept(seen: Seen) -> Reply {
    match seen {
        Seen::Connect { level: 5 } => connack_v5(0, None),
        Seen::Connect { .. } => connack_v4(0),
        Seen::Publish { packet, .. } => Reply::Bytes(puback(packet)),
        Seen::Subscribe { packet } => Reply::Bytes(suback_v5(packet, &[1, 1])),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn falls_back_to_the_older_version() {
    type Refusal = fn() -> Reply;
    // Where version 5 has not said so itself, it is tried once more when the older one is answered.
    let refusals: [(&str, Refusal, &[u8]); 4] = [
        ("in version 5's words", || connack_v5(0x84, None), &[5, 4, 4]),
        ("in version 3.1.1's words", || connack_v4(1), &[5, 4, 5, 4, 4]),
        ("unspecified", || connack_v5(0x80, None), &[5, 4, 5, 4, 4]),
        ("without a word", || Reply::Close, &[5, 4, 5, 4, 4]),
    ];
    for (name, refusal, tried) in refusals {
        let levels = Arc::new(Mutex::new(Vec::new()));
        let seen_levels = Arc::clone(&levels);
        let fake = Fake::start(move |seen| match seen {
            Seen::Connect { level } => {
                seen_levels.lock().unwrap().push(level);
                if level == 5 { refusal() } else { accept(seen) }
            }
            // Hang up once: the second connection must begin with the version that worked.
            Seen::Publish { count: 3, .. } => Reply::Close,
            publish => accept(publish),
        })
        .await;
        let mut feeder = Feeder::new(options(&fake.url(), "agent"), 1..=5);
        feeder.run(name, |f| f.unacked.is_empty()).await;
        assert_eq!(*levels.lock().unwrap(), tried, "{name}");
        assert_eq!(feeder.connections, [Version::V311; 2], "{name}");
    }
}

/// As a proxy does while the broker behind it is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_away_behind_a_proxy_is_spoken_to_in_version_5() {
    for away in 1..=2 {
        let mut connections = 0;
        let fake = Fake::start(move |seen| match seen {
            Seen::Connect { .. } if connections < away => {
                connections += 1;
                Reply::Close
            }
            other => accept(other),
        })
        .await;
        let mut feeder = Feeder::new(options(&fake.url(), "agent"), 1..=5);
        feeder.run("delivered", |f| f.unacked.is_empty()).await;
        assert_eq!(feeder.connections, [Version::V5], "away for {away} connections");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_version_is_kept() {
    let fake = Fake::start(|seen| match seen {
        Seen::Connect { level: 5 } => connack_v5(0x84, None),
        other => accept(other),
    })
    .await;
    let mut feeder = Feeder::new(Options { protocol: Protocol::V5, ..options(&fake.url(), "agent") }, 1..=1);
    feeder.run("refused twice", |f| f.reasons.len() == 2).await;
    assert!(feeder.reasons.iter().all(|r| *r == DisconnectReason::ProtocolRefused { version: Version::V5 }));
    let mut feeder = Feeder::new(Options { protocol: Protocol::V311, ..options(&fake.url(), "agent") }, 1..=1);
    feeder.run("delivered", |f| f.unacked.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_messages_are_reported_and_do_not_stop_the_others() {
    for code in [0x87, 0x95, 0x97, 0x99] {
        let fake = Fake::start(move |seen| match seen {
            Seen::Publish { packet, count: 2, .. } if code != 0x95 => Reply::Bytes(puback_v5(packet, code)),
            // 0x95 comes as a DISCONNECT.
            Seen::Publish { count: 2, .. } => Reply::Bytes(vec![0xe0, 2, code, 0]),
            other => accept(other),
        })
        .await;
        // One at a time, so that the second is the one to blame.
        let mut feeder = Feeder::new(Options { window: 1, ..options(&fake.url(), "agent") }, 1..=5);
        feeder.run("all but one", |f| f.unacked.is_empty()).await;
        assert_eq!(feeder.refused, [(2, code)]);
        assert_eq!(feeder.acked.iter().copied().collect::<Vec<_>>(), [1, 3, 4, 5]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_may_pass_is_tried_again() {
    for code in [0x80, 0x83, 0x91] {
        let fake = Fake::start(move |seen| match seen {
            Seen::Publish { packet, count: 2, .. } => Reply::Bytes(puback_v5(packet, code)),
            other => accept(other),
        })
        .await;
        let mut feeder = Feeder::new(Options { window: 1, ..options(&fake.url(), "agent") }, 1..=5);
        feeder.run("all", |f| f.unacked.is_empty()).await;
        assert_eq!((&feeder.deferred, &feeder.refused), (&vec![(2, code)], &vec![]));
        assert_eq!(feeder.acked.len(), 5);
        assert_eq!(feeder.reasons, [], "the connection is not to blame");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_in_trouble_is_given_time() {
    // One message, and then two at one go, are put off.
    let fake = Fake::start(|seen| match seen {
        Seen::Publish { packet, count: 1..=3, .. } => Reply::Bytes(puback_v5(packet, 0x80)),
        other => accept(other),
    })
    .await;
    let begin = std::time::Instant::now();
    let mut feeder = Feeder::new(Options { window: 4, ..options(&fake.url(), "agent") }, 1..=20);
    feeder.run("all", |f| f.unacked.is_empty()).await;
    assert!(begin.elapsed() >= Duration::from_secs(3), "1 s, then 2 s: {:?}", begin.elapsed());
    assert_eq!(feeder.deferred.len(), 3, "{:?}", feeder.deferred);
    assert_eq!((feeder.reasons.len(), feeder.refused.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn states_and_birth_that_were_put_off_come_again() {
    let published = Arc::new(Mutex::new(0));
    let seen_published = Arc::clone(&published);
    let fake = Fake::start(move |seen| match seen {
        Seen::Publish { packet, count: 1..=2, .. } => Reply::Bytes(puback_v5(packet, 0x83)),
        Seen::Publish { .. } => {
            *seen_published.lock().unwrap() += 1;
            accept(seen)
        }
        other => accept(other),
    })
    .await;
    let birth = Some(kinewatch_mqtt::Retained { topic: "status".into(), payload: "online".into() });
    let mut feeder = Feeder::new(Options { birth, window: 1, ..options(&fake.url(), "agent") }, 1..=1);
    feeder.client.retain("state", "1").unwrap();
    feeder.run("all", |f| f.unacked.is_empty()).await;
    assert_eq!(*published.lock().unwrap(), 3, "birth, state and message");
}

fn subscribing(url: &str) -> Options {
    let subscriptions = vec!["kinewatch/a/cmd/+".to_owned(), "kinewatch/_all/cmd/+".to_owned()];
    Options { subscriptions, ..options(url, "agent") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_subscription_is_reported_and_stops_nothing() {
    let fake = Fake::start(|seen| match seen {
        Seen::Subscribe { packet } => Reply::Bytes(suback_v5(packet, &[1, 0x87])),
        other => accept(other),
    })
    .await;
    let mut feeder = Feeder::new(subscribing(&fake.url()), 1..=5);
    feeder.run("all", |f| f.unacked.is_empty() && !f.subscribed.is_empty()).await;
    assert_eq!(feeder.subscribed, [["kinewatch/_all/cmd/+"]]);
    assert_eq!(feeder.reasons, []);
}

/// Some brokers end the connection of a client that asks for what it may not have, some do not answer it.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_bear_to_be_asked_gets_all_events() {
    for (name, answer) in [("hangs up", (|| Reply::Close) as fn() -> Reply), ("is silent", || Reply::Nothing)] {
        let asked = Arc::new(Mutex::new(0));
        let seen_asked = Arc::clone(&asked);
        let fake = Fake::start(move |seen| match seen {
            Seen::Subscribe { .. } => {
                *seen_asked.lock().unwrap() += 1;
                answer()
            }
            other => accept(other),
        })
        .await;
        let options = Options { window: 1, ack_timeout: Duration::from_secs(1), ..subscribing(&fake.url()) };
        let mut feeder = Feeder::new(options, 1..=200);
        feeder.run(name, |f| f.unacked.is_empty()).await;
        assert_eq!(*asked.lock().unwrap(), 3, "{name}: not asked for ever");
        assert_eq!((feeder.connections.len(), feeder.subscribed.len()), (4, 0), "{name}: {:?}", feeder.reasons);
    }
}

/// A keep-alive of 0 says that the broker wants no pings. The library would send them without a pause.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_keep_alive_is_not_flooded_with_pings() {
    let fake = Fake::start(|seen| match seen {
        Seen::Connect { .. } => Reply::Bytes(vec![0x20, 6, 0, 0, 3, 0x13, 0, 0]),
        other => accept(other),
    })
    .await;
    let mut feeder = Feeder::new(Options { window: 1, ..options(&fake.url(), "agent") }, 1..=500);
    feeder.run("all", |f| f.unacked.is_empty()).await;
    assert_eq!(feeder.reasons, []);
    let pings = fake.pings();
    assert!(pings <= 1, "{pings} pings within moments");
}

/// Once the window is open: acknowledges several at a time, the last first.
fn disorderly(receive_maximum: Option<u16>) -> impl FnMut(Seen) -> Reply + Send + 'static {
    let mut held = Vec::new();
    let most = receive_maximum.map_or(16, |m| usize::from(m / 2));
    move |seen| match seen {
        Seen::Connect { level: 5 } => {
            held.clear();
            connack_v5(0, receive_maximum)
        }
        Seen::Publish { packet, count, .. } => {
            assert!(!held.contains(&packet), "identifier {packet} used twice");
            held.push(packet);
            assert!(held.len() <= most, "{} in flight", held.len());
            if held.len() < most && count > 50 && count % 300 != 0 {
                return Reply::Nothing;
            }
            Reply::Bytes(std::mem::take(&mut held).into_iter().rev().flat_map(puback).collect())
        }
        other => accept(other),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_out_of_order_never_collide() {
    for receive_maximum in [None, Some(10)] {
        let fake = Fake::start(disorderly(receive_maximum)).await;
        let mut feeder = Feeder::new(Options { window: 16, ..options(&fake.url(), "agent") }, 1..=300);
        feeder.run("all acknowledged", |f| f.unacked.is_empty()).await;
        assert_eq!(feeder.reasons, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_never_comes_rebuilds_the_connection() {
    let fake = Fake::start(|seen| match seen {
        Seen::Publish { count: 1, .. } => Reply::Nothing,
        other => accept(other),
    })
    .await;
    let options = Options { window: 3, ack_timeout: Duration::from_secs(1), ..options(&fake.url(), "agent") };
    let mut feeder = Feeder::new(options, 1..=10);
    feeder.run("delivered on the second connection", |f| f.unacked.is_empty()).await;
    assert_eq!(feeder.reasons, [DisconnectReason::NoAck { seconds: 1 }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_acknowledgement_that_is_left_out_is_noticed() {
    let fake = Fake::start(|seen| match seen {
        Seen::Publish { count: 3, .. } => Reply::Nothing,
        other => accept(other),
    })
    .await;
    // A window so large that all the others come.
    let options = Options { window: 1000, ack_timeout: Duration::from_secs(1), ..options(&fake.url(), "agent") };
    let mut feeder = Feeder::new(options, 1..=500);
    feeder.run("all", |f| f.unacked.is_empty()).await;
    assert_eq!(feeder.reasons, [DisconnectReason::NoAck { seconds: 1 }]);
    assert_eq!(feeder.connections.len(), 2);
}

/// Never acknowledges anything: what can be done is to stay calm.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_never_acknowledges_is_not_stormed() {
    let fake = Fake::start(|seen| match seen {
        Seen::Publish { .. } => Reply::Nothing,
        other => accept(other),
    })
    .await;
    let options = Options { window: 4, ack_timeout: Duration::from_secs(1), ..options(&fake.url(), "agent") };
    let begin = std::time::Instant::now();
    let mut feeder = Feeder::new(options, 1..=20);
    feeder.run("five connections", |f| f.connections.len() == 5).await;
    // Five times 1 s, and waits that double: at least half of 0.5 s, 1 s, 2 s, 4 s.
    assert!(begin.elapsed() >= Duration::from_millis(7_700), "{:?}", begin.elapsed());
    assert_eq!((feeder.acked.len(), feeder.unacked.len()), (0, 20), "nothing is taken for delivered");
    assert!(feeder.reasons.iter().all(|r| *r == DisconnectReason::NoAck { seconds: 1 }), "{:?}", feeder.reasons);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_up_on_each_seventh_publish_gets_it_all() {
    let fake = Fake::start(|seen| match seen {
        Seen::Publish { count, .. } if count % 7 == 0 => Reply::Close,
        other => accept(other),
    })
    .await;
    let mut feeder = Feeder::new(Options { window: 4, ..options(&fake.url(), "agent") }, 1..=30);
    feeder.run("all acknowledged", |f| f.unacked.is_empty()).await;
    assert!((4..=8).contains(&feeder.reasons.len()), "each connection carries a few: {:?}", feeder.reasons);
    assert_eq!(feeder.refused, [], "no message is to blame");
    assert!(feeder.connections.iter().all(|v| *v == Version::V5), "the version is not doubted");
}

fn forbidden(seen: Seen, answer: impl Fn() -> Reply) -> Reply {
    if let Seen::Publish { forbidden: true, .. } = seen { answer() } else { accept(seen) }
}

/// Numbers 1 to `last`, some of them on a topic that the broker does not bear.
fn with_forbidden(options: Options, last: u64, sequences: &[u64]) -> Feeder {
    let mut feeder = Feeder::new(options, 1..=last);
    for sequence in sequences {
        feeder.unacked.insert(*sequence, format!("{TOPIC}/{FORBIDDEN}"));
    }
    feeder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_broker_answers_by_hanging_up_with_a_reason_stops_no_other() {
    for code in [0x87, 0x90, 0x99] {
        let fake = Fake::start(move |seen| forbidden(seen, || Reply::Last(vec![0xe0, 2, code, 0]))).await;
        // In the middle of a window, so that it is not known at first which it was.
        let mut feeder = with_forbidden(Options { window: 8, ..options(&fake.url(), "agent") }, 9, &[4, 7]);
        feeder.run("all others", |f| f.unacked.is_empty()).await;
        assert_eq!(feeder.refused, [(4, code), (7, code)]);
        assert_eq!(feeder.acked.iter().copied().collect::<Vec<_>>(), [1, 2, 3, 5, 6, 8, 9], "{code}");
        assert!(feeder.connections.len() <= 6, "{code}: {:?}", feeder.reasons);
    }
}

/// As brokers of MQTT 3.1.1 do, which cannot refuse a message.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_broker_answers_by_hanging_up_without_a_word_stops_no_other() {
    let scene = async |protocol| {
        let fake = Fake::start(|seen| forbidden(seen, || Reply::Close)).await;
        let hang_up_patience = Duration::from_secs(1);
        let options = Options { window: 1, protocol, hang_up_patience, ..options(&fake.url(), "agent") };
        let mut feeder = with_forbidden(options, 5, &[2, 4]);
        feeder.run("all others", |f| f.unacked.is_empty()).await;
        assert_eq!(feeder.refused, [(2, 0x80), (4, 0x80)]);
        assert_eq!(feeder.acked.iter().copied().collect::<Vec<_>>(), [1, 3, 5]);
        // Five times the first; the second of its topic at once.
        assert_eq!(feeder.reasons.len(), 6, "{:?}", feeder.reasons);
        let at = DisconnectReason::AtMessage { topic: format!("{TOPIC}/{FORBIDDEN}") };
        assert!(feeder.reasons[1..].iter().all(|reason| *reason == at), "no twin is suspected: {:?}", feeder.reasons);
    };
    tokio::join!(scene(Protocol::V5), scene(Protocol::V311));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_gets_through_at_the_fifth_time_is_not_refused() {
    let fake = Fake::start(|seen| match seen {
        Seen::Publish { count: 2..=5, .. } => Reply::Close,
        other => accept(other),
    })
    .await;
    let hang_up_patience = Duration::ZERO;
    let mut feeder = Feeder::new(Options { window: 1, hang_up_patience, ..options(&fake.url(), "agent") }, 1..=5);
    feeder.run("all", |f| f.unacked.is_empty()).await;
    assert_eq!((&feeder.refused, feeder.acked.len(), feeder.reasons.len()), (&vec![], 5, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_the_broker_answers_by_hanging_up_is_left_out() {
    let scene = async |answer: fn() -> Reply| {
        let fake = Fake::start(move |seen| forbidden(seen, answer)).await;
        let mut feeder = Feeder::new(Options { window: 1, ..options(&fake.url(), "agent") }, 1..=5);
        feeder.client.retain(format!("state/{FORBIDDEN}"), "1").unwrap();
        feeder.run("all", |f| f.unacked.is_empty()).await;
        assert_eq!((&feeder.refused, feeder.acked.len()), (&vec![], 5));
        assert!(feeder.connections.len() <= 3, "{:?}", feeder.reasons);
    };
    tokio::join!(scene(|| Reply::Last(vec![0xe0, 2, 0x87, 0])), scene(|| Reply::Close));
}

/// A quota, a plugin that throws out, a broken broker: each connection delivers one message, and none is a reason to hurry.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_ends_each_connection_is_not_stormed_whatever_it_says() {
    let calm = async |name: &str, last_words: fn() -> Vec<u8>| {
        let fake = Fake::start(move |seen| match seen {
            Seen::Publish { packet, count, .. } if count % 2 == 0 => {
                Reply::Last([&puback(packet)[..], &last_words()].concat())
            }
            other => accept(other),
        })
        .await;
        let begin = std::time::Instant::now();
        let mut feeder = Feeder::new(Options { window: 1, ..options(&fake.url(), "agent") }, 1..=100);
        feeder.run(name, |f| f.connections.len() == 7).await;
        // Three times half of 0.5 s at least, then of 1 s, 2 s, 4 s: acknowledgements do not make the waits short any more.
        assert!(begin.elapsed() >= Duration::from_millis(4_200), "{name}: {:?}", begin.elapsed());
        feeder.reasons
    };
    let (quota, state, closed) = tokio::join!(
        calm("over its quota", || vec![0xe0, 2, 0x97, 0]),
        calm("an answer to nothing", || puback(77)),
        calm("without a word", Vec::new),
    );
    assert!(quota.iter().all(|r| matches!(r, DisconnectReason::ByBroker { code: 0x97, .. })), "{quota:?}");
    assert!(state.iter().all(|r| matches!(r, DisconnectReason::State { .. })), "{state:?}");
    assert!(matches!(closed[2..], [DisconnectReason::Unstable { times: 3, .. }, ..]), "{closed:?}");
}

/// Only the broker's hanging up says that the retained state was too large: it is not sent a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_ends_the_connection_is_left_out_of_the_next() {
    let published = Arc::new(Mutex::new(0));
    let seen_published = Arc::clone(&published);
    let fake = Fake::start(move |seen| {
        if let Seen::Publish { count, .. } = seen {
            *seen_published.lock().unwrap() = count;
        }
        match seen {
            Seen::Publish { count: 1, .. } => Reply::Last(vec![0xe0, 2, 0x95, 0]),
            other => accept(other),
        }
    })
    .await;
    let mut feeder = Feeder::new(options(&fake.url(), "agent"), 1..=5);
    feeder.client.retain("state", "x".repeat(4_000)).unwrap();
    feeder.run("all", |f| f.unacked.is_empty()).await;
    assert_eq!((feeder.connections.len(), &feeder.refused), (2, &vec![]));
    assert_eq!(*published.lock().unwrap(), 6, "the state once, and five messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_broker_is_said() {
    let fake = Fake::start(|_| Reply::Last(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())).await;
    let mut feeder = Feeder::new(options(&fake.url(), "agent"), 1..=1);
    feeder.run("refused", |f| !f.reasons.is_empty()).await;
    assert!(matches!(feeder.reasons[0], DisconnectReason::NotMqtt { .. }), "{}", feeder.reasons[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_is_said_and_waited_out() {
    let fake = Fake::start(|seen| match seen {
        Seen::Publish { count: 1, .. } => Reply::Last(vec![0xe0, 2, 0x8e, 0]),
        other => accept(other),
    })
    .await;
    let mut feeder = Feeder::new(options(&fake.url(), "agent"), 1..=1);
    feeder.run("thrown out", |f| !f.reasons.is_empty()).await;
    assert_eq!(feeder.reasons, [DisconnectReason::TakenOver]);
    let soon = tokio::time::timeout(Duration::from_secs(5), feeder.run("back", |f| f.connections.len() > 1)).await;
    assert!(soon.is_err(), "no fight with the other client");
}
