//! Differences of plans: complete, minimal, and without secrets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use kinewatch_capture::Source;
use kinewatch_core::manifest::{DecoderOverride, Manifest, Overrides};
use kinewatch_core::region::Region;
use kinewatch_mqtt::Endpoint;
use proptest::prelude::*;

use super::*;
use crate::config::file::{Backend, LogFormat, Precision, Protocol, Transport};
use crate::config::secret::{Login, Secret};
use crate::delivery::SendOrder;

const MODELS: [&str; 3] = ["falls", "fights", "waves"];

static MANIFEST: LazyLock<Arc<Manifest>> =
    LazyLock::new(|| Arc::new(Manifest::parse(include_str!("../../core/testdata/model.toml")).unwrap()));

/// What a camera is drawn from: name, source, password, transport, stall timeout, models, zones.
type Drawn = (usize, usize, usize, bool, u64, Vec<usize>, usize);

fn model(name: &str, digest: &str, on: Option<f64>) -> ModelPlan {
    let changes = on.map(|on| ("falling".to_owned(), DecoderOverride { on: Some(on), ..DecoderOverride::default() }));
    ModelPlan {
        name: name.into(),
        path: PathBuf::from(name),
        factory: PathBuf::from(name),
        digest: digest.into(),
        manifest: Arc::clone(&MANIFEST),
        overrides: Overrides(changes.into_iter().collect()),
    }
}

fn camera((name, source, password, udp, stall, models, zones): &Drawn, known: usize) -> CameraPlan {
    let mut models: Vec<usize> = models.iter().map(|m| m % known).collect();
    models.sort_unstable();
    models.dedup();
    CameraPlan {
        name: format!("c{name}"),
        source: Source::parse(&format!("rtsp://192.0.2.{source}/1")).unwrap(),
        login: (*password > 0)
            .then(|| Login { user: "joe".into(), password: Secret::new(format!("hunter{password}")) }),
        transport: if *udp { Transport::Udp } else { Transport::Tcp },
        stall_timeout: Duration::from_secs(*stall),
        min_rate_hz: if *udp { 2.0 } else { 1.0 },
        frozen_timeout: None,
        models,
        zones: vec![Region::WHOLE; *zones],
    }
}

fn plan(models: Vec<ModelPlan>, cameras: Vec<CameraPlan>) -> Plan {
    Plan {
        file: "kinewatch.toml".into(),
        device: DevicePlan { name: "box".into(), group: "home".into(), state_dir: "state".into(), platform: None },
        mqtt: MqttPlan {
            endpoint: Endpoint::parse("mqtt://127.0.0.1").unwrap(),
            url: "mqtt://127.0.0.1".into(),
            embedded: None,
            client_id: "kinewatch-home-box".into(),
            protocol: Protocol::Auto,
            username: None,
            password: None,
            ca_file: None,
            identity: None,
            window: 32,
            keep_alive: Duration::from_secs(30),
            commands: true,
        },
        outbox: OutboxPlan { store: StoreOptions::default(), order: SendOrder::Sequence, backlog_per_s: 200 },
        web: None,
        log: LogPlan { format: LogFormat::Auto, level: "info".into() },
        engine: EnginePlan {
            backend: Backend::Tract,
            precision: Precision::Auto,
            ort_library: None,
            providers: vec![],
            require_provider: None,
            threads: 1,
            max_batch: 8,
        },
        updates: None,
        models,
        cameras,
    }
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let models = prop::collection::vec((0usize..3, 0usize..2, prop::option::of(0..2)), 1..4);
    let camera_of =
        (0usize..5, 1usize..3, 0usize..3, any::<bool>(), 5u64..7, prop::collection::vec(0usize..3, 1..3), 0usize..2);
    (models, prop::collection::vec(camera_of, 1..5), 0usize..2).prop_map(|(models, cameras, level)| {
        let models: BTreeMap<_, _> = models.into_iter().map(|(name, digest, on)| (name, (digest, on))).collect();
        let one = |(name, (digest, on)): (usize, (usize, Option<i32>))| {
            model(MODELS[name], ["a", "b"][digest], on.map(|on| [0.6, 0.7][on as usize]))
        };
        let models: Vec<_> = models.into_iter().map(one).collect();
        let cameras: BTreeMap<_, _> = cameras.into_iter().map(|drawn| (drawn.0, drawn)).collect();
        let cameras = cameras.values().map(|drawn| camera(drawn, models.len())).collect();
        let mut plan = plan(models, cameras);
        plan.log.level = ["info", "debug"][level].into();
        plan
    })
}

/// A plan in words, without the order of tables and without indices.
fn words(plan: &Plan) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let model = |m: &ModelPlan| (m.name.clone(), format!("{} {:?}", m.digest, m.overrides));
    let camera = |c: &CameraPlan| {
        let models: Vec<_> = c.models.iter().map(|&m| (&plan.models[m].name, &plan.models[m].digest)).collect();
        let login = c.login.as_ref().map(|l| l.password.expose());
        let text = format!(
            "{} {login:?} {:?} {:?} {models:?} {:?} {}",
            c.source, c.transport, c.stall_timeout, c.zones, c.min_rate_hz
        );
        (c.name.clone(), text)
    };
    (plan.models.iter().map(model).collect(), plan.cameras.iter().map(camera).collect())
}

/// Does to the old plan's words what the difference says, and nothing else.
fn follow(old: &Plan, difference: &Difference, new: &Plan) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let ((mut models, mut cameras), (new_models, new_cameras)) = (words(old), words(new));
    for change in &difference.models {
        match change.what {
            ModelDifference::Removed => models.remove(&change.name),
            _ => models.insert(change.name.clone(), new_models[&change.name].clone()),
        };
    }
    for change in &difference.cameras {
        match change.what {
            CameraDifference::Removed => cameras.remove(&change.name),
            _ => cameras.insert(change.name.clone(), new_cameras[&change.name].clone()),
        };
    }
    (models, cameras)
}

proptest! {
    #[test]
    fn what_differs_applied_to_the_old_gives_the_new_and_no_more_than_that(old in any_plan(), new in any_plan()) {
        let difference = diff(&old, &new);
        prop_assert_eq!(follow(&old, &difference, &new), words(&new));
        let same = words(&old) == words(&new) && old.log.level == new.log.level;
        prop_assert_eq!(difference == Difference::default(), same);
        let (before, after) = (words(&old), words(&new));
        for change in &difference.cameras {
            prop_assert!(before.1.get(&change.name) != after.1.get(&change.name), "{} is the same", change);
        }
        for change in &difference.models {
            prop_assert!(before.0.get(&change.name) != after.0.get(&change.name), "{} is the same", change);
        }
        // Who is watched by an exchanged package changes with it.
        for change in difference.models.iter().filter(|c| c.what == ModelDifference::Package) {
            for camera in &new.cameras {
                let watched = |plan: &Plan, c: &CameraPlan| c.models.iter().any(|&m| plan.models[m].name == change.name);
                let was = old.cameras.iter().find(|c| c.name == camera.name);
                if watched(&new, camera) && was.is_some_and(|was| watched(&old, was)) {
                    prop_assert!(difference.cameras.iter().any(|c| c.name == camera.name), "{}", camera.name);
                }
            }
        }
        let said = format!("{difference:?} {:?}", difference.applied());
        prop_assert!(!said.contains("hunter"));
        let words_of_new = words(&new);
        let level = new.log.level.clone();
        let running = applied(&old, new);
        prop_assert_eq!((words(&running), &running.log.level), (words_of_new, &level));
        prop_assert_eq!(diff(&running, &running), Difference::default());
    }
}

#[test]
fn the_order_of_tables_and_an_empty_table_are_no_difference() {
    let drawn = |name| (name, 1, 0, false, 5, vec![0, 1], 0);
    let models = || vec![model("falls", "a", None), model("fights", "a", None)];
    let old = plan(models(), vec![camera(&drawn(1), 2), camera(&drawn(2), 2)]);
    let mut new = plan(models(), vec![camera(&drawn(2), 2), camera(&drawn(1), 2)]);
    new.models.reverse();
    new.models[0].overrides.0.insert("falling".into(), DecoderOverride::default());
    new.models[0].path = "elsewhere".into();
    assert_eq!(diff(&old, &new), Difference::default());
}

#[test]
fn what_takes_a_restart_is_named_and_the_rest_is_applied() {
    let drawn = |source, password| (1, source, password, false, 5, vec![0], 0);
    let old = plan(vec![model("falls", "a", None)], vec![camera(&drawn(1, 1), 1)]);
    let mut new = plan(vec![model("falls", "a", Some(0.7))], vec![camera(&drawn(2, 2), 1)]);
    new.device.group = "work".into();
    new.mqtt.password = Some(Secret::new("hunter9".into()));
    (new.mqtt.window, new.engine.threads, new.log.format) = (16, 2, LogFormat::Json);
    new.web = Some("127.0.0.1:8089".parse().unwrap());
    let difference = diff(&old, &new);
    let keys =
        ["[device] group", "[mqtt] password_file", "[mqtt] window", "[web] listen", "[engine] threads", "[log] format"];
    assert_eq!(difference.restart, keys);
    let said = difference.applied();
    assert_eq!(said, ["model falls: thresholds of falling changed", "camera c1: source, login changed"]);
    let running = applied(&old, new);
    assert_eq!((running.mqtt.window, running.cameras[0].source.to_string().as_str()), (32, "rtsp://192.0.2.2/1"));
    assert_eq!(diff(&old, &running).restart, [""; 0], "what takes a restart has not changed yet");
}
