//! Commands as they come from the broker: done, refused, answered, counted.

use kinewatch_core::command::CommandName;
use serde_json::json;

use super::*;
use crate::health::CameraView;

struct Office {
    desk: Desk,
    replies: mpsc::Receiver<Reply>,
    store: mpsc::Receiver<delivery::Command>,
    supervisor: std::sync::mpsc::Receiver<supervise::Request>,
    reloads: mpsc::Receiver<reload::Request>,
    now: Instant,
}

fn office() -> Office {
    let (delivery, store) = mpsc::channel(8);
    let (replies, sent) = mpsc::channel(64);
    let front = CameraView::new("front", "test:", vec![], vec![]);
    let shared = Arc::new(Shared::new("home", "box", "mqtt://broker", vec![front], vec![]));
    let (cameras, supervisor) = supervise::requests(Arc::clone(&shared));
    let (reload, reloads) = reload::requests();
    let (updates, _nobody) = crate::updates::requests();
    let parts = Arc::new(Parts { shared, session: 7, delivery, cameras, reload, updates });
    let desk = Desk::new(parts, replies, Duration::ZERO);
    Office { desk, replies: sent, store, supervisor, reloads, now: Instant::now() }
}

fn incoming(to: &str, name: &str, payload: &str) -> Incoming {
    Incoming {
        topic: format!("kinewatch/v1/home/{to}/cmd/{name}"),
        payload: Some(Bytes::copy_from_slice(payload.as_bytes())),
        size: payload.len(),
        retained: false,
        response_topic: None,
        correlation: None,
        missed: 0,
    }
}

fn asking(message: Incoming, topic: &str) -> Incoming {
    Incoming { response_topic: Some(topic.to_owned()), correlation: Some("c".into()), ..message }
}

impl Office {
    /// What is answered at once: topic, correlation data, and the answer.
    async fn take(&mut self, message: Incoming) -> Option<(String, Option<Bytes>, Value)> {
        self.desk.take(message, self.now).await;
        self.answer()
    }

    fn answer(&mut self) -> Option<(String, Option<Bytes>, Value)> {
        let reply = self.replies.try_recv().ok()?;
        Some((reply.topic, reply.correlation, serde_json::from_slice(&reply.payload).unwrap()))
    }

    /// The error code of the answer.
    async fn refusal(&mut self, message: Incoming) -> String {
        let (_, _, answer) = self.take(message).await.expect("an answer");
        assert_eq!(answer["ok"], false);
        answer["error"]["code"].as_str().unwrap().to_owned()
    }

    fn count(&self, name: &str) -> (u64, u64, u64) {
        let (_, n) = self.desk.counts().by_name().find(|(n, _)| *n == name).unwrap();
        (n.ok.load(Relaxed), n.refused.load(Relaxed), n.failed.load(Relaxed))
    }
}

#[tokio::test]
async fn answers_go_where_they_are_wanted() {
    let mut office = office();
    let (topic, correlation, answer) = office.take(incoming("box", "ping", r#"{"id":"7"}"#)).await.unwrap();
    assert_eq!((topic.as_str(), correlation), ("kinewatch/v1/home/box/rsp/ping", None));
    let result = json!({"version": env!("CARGO_PKG_VERSION"), "session": 7, "uptime_s": 0});
    assert_eq!(answer, json!({"ok": true, "command": "ping", "device": "box", "id": "7", "result": result}));
    let console = "kinewatch/v1/home/console/rsp/1";
    let (topic, correlation, _) = office.take(asking(incoming("box", "status", ""), console)).await.unwrap();
    assert_eq!((topic.as_str(), correlation), (console, Some("c".into())));
    assert_eq!((office.count("ping"), office.count("status")), ((1, 0, 0), (1, 0, 0)));
}

#[tokio::test]
async fn nothing_is_published_where_it_could_be_taken_for_something_else() {
    let mut office = office();
    for abuse in ["kinewatch/v1/home/box/evt/front/fall", "kinewatch/v1/home/box/cmd/ping", "$SYS/x", "x/#"] {
        let (topic, correlation, answer) = office.take(asking(incoming("box", "ping", ""), abuse)).await.unwrap();
        assert_eq!((topic.as_str(), correlation), ("kinewatch/v1/home/box/rsp/ping", None));
        assert_eq!(answer["error"]["code"], "invalid_response", "{answer}");
    }
    let mut large = asking(incoming("box", "ping", ""), "kinewatch/v1/home/box/rsp/ping");
    large.correlation = Some(vec![0; MAX_CORRELATION + 1].into());
    assert_eq!(office.refusal(large).await, "invalid_response");
    assert_eq!(office.count("ping"), (0, 5, 0));
}

#[tokio::test]
async fn what_is_wrong_with_a_command_is_answered() {
    let mut office = office();
    assert_eq!(office.refusal(incoming("box", "reboot", "")).await, "unknown_command");
    assert_eq!(office.refusal(incoming("box", "ack", "{}")).await, "invalid_payload");
    let large = Incoming { payload: None, size: 20_000, ..incoming("box", "ping", "") };
    assert_eq!(office.refusal(large).await, "too_large");
    assert_eq!(office.refusal(incoming("box", "camera-restart", r#"{"camera":"a"}"#)).await, "unknown_camera");
    office.reloads.close();
    assert_eq!(office.refusal(incoming("box", "reload", "")).await, "unavailable");
    let strange = office.take(incoming("box", "Ping Ü", "")).await.unwrap().0;
    assert_eq!(strange, "kinewatch/v1/home/box/rsp/ping--");
    assert_eq!(
        (office.count("unknown"), office.count("ack"), office.count("reload")),
        ((0, 2, 0), (0, 1, 0), (0, 0, 1))
    );
    assert!(office.take(incoming("other", "ping", "")).await.is_none(), "not ours");
    office.desk.parts.shared.stopping.store(true, Relaxed);
    assert_eq!(office.refusal(incoming("box", "ping", "")).await, "unavailable");
}

#[tokio::test]
async fn the_parts_of_the_agent_are_asked() {
    let mut office = office();
    let (_, _, answer) = office.take(incoming("box", "camera-restart", r#"{"camera":"front"}"#)).await.unwrap();
    assert_eq!(answer["result"], json!({"camera": "front"}));
    assert_eq!(office.supervisor.try_recv(), Ok(supervise::Request::RestartCamera("front".into())));
    assert_eq!(office.refusal(incoming("box", "camera-restart", r#"{"camera":"back"}"#)).await, "unknown_camera");
    let mut requests = std::mem::replace(&mut office.reloads, mpsc::channel(1).1);
    let reply = |request| match request {
        Some(reload::Request::Read(Some(reply))) => reply,
        other => panic!("{other:?}"),
    };
    let reloads = tokio::spawn(async move {
        let outcome = |result, changes: &str, problems: &str| reload::Outcome {
            at: "2026-01-01T00:00:00Z".into(),
            result,
            changes: vec![changes.into()],
            after_restart: vec![],
            problems: vec![problems.into()],
        };
        let applied = outcome(reload::Verdict::Applied, "front", "");
        reply(requests.recv().await).send(Arc::new(applied)).unwrap();
        let refused = outcome(reload::Verdict::Refused, "", "line 3: no");
        reply(requests.recv().await).send(Arc::new(refused)).unwrap();
    });
    assert_eq!(office.take(incoming("box", "reload", "")).await.unwrap().2["result"]["changes"], json!(["front"]));
    assert_eq!(office.refusal(incoming("box", "reload", "")).await, "failed");
    reloads.await.unwrap();

    let mut store = std::mem::replace(&mut office.store, mpsc::channel(1).1);
    let answers = tokio::spawn(async move {
        let Some(delivery::Command::Consumed { up_to: 9, reply }) = store.recv().await else { panic!("an ack") };
        reply.send(Ok(delivery::ConsumerAck { up_to: 9, released: 3, kept: 1 })).unwrap();
        let Some(delivery::Command::Resend { from: 4, reply }) = store.recv().await else { panic!("a resend") };
        reply.send(Err("not kept".into())).unwrap();
    });
    let (_, _, answer) = office.take(incoming("box", "ack", r#"{"upto":9}"#)).await.unwrap();
    assert_eq!(answer["result"], json!({"up_to": 9, "released": 3, "kept": 1}));
    assert_eq!(office.refusal(incoming("box", "resend", r#"{"from":4}"#)).await, "unavailable");
    answers.await.unwrap();
    assert_eq!(office.refusal(incoming("box", "resend", r#"{"from":4}"#)).await, "unavailable", "the store has ended");
}

#[tokio::test]
async fn a_command_to_all_waits_its_moment_and_is_answered_only_where_asked() {
    let mut office = office();
    let console = "kinewatch/v1/home/console/rsp/1";
    assert!(office.take(incoming("_all", "ping", "")).await.is_none());
    assert!(office.take(asking(incoming("_all", "ping", ""), console)).await.is_none(), "not at once");
    assert!(office.take(asking(incoming("_all", "ack", r#"{"upto":1}"#), console)).await.is_none());
    assert!(office.take(asking(incoming("_all", "ping", ""), "elsewhere")).await.is_none(), "refused without a word");
    for expected in [None, Some(json!(null)), Some(json!("not_for_all"))] {
        let (_, job) = office.desk.spread.pop_front().unwrap();
        office.desk.serve(job).await;
        assert_eq!(office.answer().map(|(_, _, answer)| answer["error"]["code"].clone()), expected);
    }
    assert!(office.desk.spread.is_empty());
    for _ in 0..2 * SPREAD_QUEUE {
        office.take(incoming("_all", "status", "")).await;
    }
    assert_eq!(office.desk.spread.len(), SPREAD_QUEUE, "bounded");
    assert_eq!(office.desk.counts().too_many.load(Relaxed), SPREAD_QUEUE as u64);
}

#[tokio::test]
async fn too_many_are_dropped_and_few_are_told() {
    let mut office = office();
    let (mut done, mut told, mut silent) = (0, 0, 0);
    for _ in 0..100 {
        match office.take(incoming("box", "ping", "")).await {
            Some((_, _, answer)) if answer["ok"] == true => done += 1,
            Some((_, _, answer)) => {
                assert_eq!(answer["error"]["code"], "rate_limited");
                told += 1;
            }
            None => silent += 1,
        }
    }
    assert_eq!((done, told, silent), (20, 5, 75));
    office.now += Duration::from_secs(1);
    assert_eq!(office.take(incoming("box", "ping", "")).await.unwrap().2["ok"], true);
    let missed = Incoming { missed: 12, ..incoming("box", "ping", "") };
    office.take(missed).await;
    let counts = office.desk.counts();
    assert_eq!((counts.too_many.load(Relaxed), counts.unread.load(Relaxed)), (80, 12));
}

#[tokio::test]
async fn a_retained_command_is_not_done() {
    let mut office = office();
    for _ in 0..3 {
        let retained = Incoming { retained: true, ..incoming("box", "reload", "") };
        assert!(office.take(retained).await.is_none());
    }
    assert_eq!((office.desk.counts().retained.load(Relaxed), office.desk.mentioned.len()), (3, 1));
    for n in 0..100 {
        let retained = Incoming { retained: true, ..incoming("box", &n.to_string(), "") };
        office.take(retained).await;
    }
    assert_eq!(office.desk.mentioned.len(), MENTIONS, "a stranger fills neither log nor memory");
}

#[tokio::test]
async fn a_namesake_is_counted() {
    use kinewatch_core::event::DeviceStatus;
    let mut office = office();
    let ours = office.desk.parts.shared.instance.clone();
    for (instance, retained) in [(ours.as_str(), false), ("another", true), ("another", false)] {
        let status = DeviceStatus::birth(7, "1").of_instance(instance);
        let payload = Some(Bytes::from(serde_json::to_vec(&status).unwrap()));
        let topic = "kinewatch/v1/home/box/status".to_owned();
        assert!(office.take(Incoming { topic, payload, retained, ..incoming("box", "ping", "") }).await.is_none());
    }
    assert_eq!(office.desk.counts().namesakes.load(Relaxed), 1);
}

/// What a full queue of answers does not take is counted, and nobody waits for it.
#[tokio::test]
async fn answers_that_find_no_room_are_counted() {
    let mut office = office();
    let (replies, _kept) = mpsc::channel(1);
    office.desk.replies = replies;
    for _ in 0..3 {
        office.desk.take(incoming("box", "ping", ""), office.now).await;
    }
    assert_eq!(office.desk.counts().unanswered.load(Relaxed), 2);
    assert_eq!(office.count("ping").0, 3);
}

#[test]
fn every_command_has_counters() {
    let counts = Counts::default();
    let names: Vec<_> = counts.by_name().map(|(name, _)| name).collect();
    let known = CommandName::ALL.map(CommandName::as_str);
    assert_eq!(names[..known.len()], known);
    assert_eq!(names[known.len()..], ["unknown"]);
}
