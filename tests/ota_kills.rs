//! Killed (-9) at every point of an update: afterwards a good model is loaded, and the release is installed in the end.
//!
//! `make kills` tries the numbers that are promised and writes `agent/design/kills.md`; `make test` tries each point once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use support::fleet::{BLACK, Publisher, QUICKER, WHITE, config, fails_on_black, rests};
use support::{Broker, Daemon, example, root};

/// Within which a good model has to be loaded after a kill.
const BACK: Duration = Duration::from_secs(30);
const ROLLING_BACK: &str = "rolling_back";
const AT_RANDOM: &str = "at random";

/// What is on offer.
#[derive(Clone, Copy, PartialEq)]
enum Offer {
    Good,
    /// It fails on live video, after it has taken over.
    Bad,
}

/// A release on offer, and the configuration of a device that follows it.
struct Fleet {
    offer: Offer,
    _publisher: Publisher,
    broker: Broker,
    text: String,
    _dir: tempfile::TempDir,
}

/// How one kill went.
struct Outcome {
    /// From the start after the kill to the first action.
    watches: Duration,
    /// Version that this action was decided by.
    by: String,
}

impl Fleet {
    fn with(offer: Offer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let publisher = Publisher::start(dir.path());
        match offer {
            Offer::Good => {
                publisher.add("1.1.0", None);
                publisher.set("1.1.0", &QUICKER);
            }
            Offer::Bad => {
                publisher.add_package(&fails_on_black(&dir.path().join("bad"), "1.1.0"));
                publisher.set("1.1.0", &["--shadow-windows", "0"]);
            }
        }
        let broker = Broker::start(dir.path(), "");
        let cameras = [("white", WHITE.to_owned()), ("black", BLACK.to_owned())];
        let text = config(&broker, &publisher.updates(), &cameras);
        Self { offer, _publisher: publisher, broker, text, _dir: dir }
    }

    /// Whether a device has done with the offer.
    fn is_over(&self, model: &Value) -> bool {
        match self.offer {
            Offer::Good => rests(model, "1.1.0"),
            Offer::Bad => rests(model, "1.0.0") && model["quarantine"][0]["version"] == "1.1.0",
        }
    }

    /// A new device is killed once; then it must watch by a good model, keep its floors, and install the release, or have it
    /// in quarantine.
    fn kill(&self, fault: &str) -> Outcome {
        let dir = tempfile::tempdir().unwrap();
        let mut faulty = example("faulty");
        faulty.env("KINEWATCH_TEST_KILL", fault);
        // Every start settles, too.
        if fault.starts_with("update settling done") {
            faulty.env("KINEWATCH_TEST_ONCE", "update settling");
        }
        let mut killed = Daemon::start_program(faulty, dir.path(), &self.text);
        assert!(!killed.log.wait().success(), "{fault}: it was not killed");
        let before = floors(dir.path());
        let mut subscriber = self.broker.subscribe();
        let begun = Instant::now();
        // Sessions are numbered by the second in which an agent starts.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut daemon = Daemon::start(dir.path(), &self.text);
        let first = subscriber.event(&format!("{fault}: an action"), |t, e| {
            t.ends_with("/evt/white/wave") && e["data"]["status"] == "started"
        });
        let watches = begun.elapsed();
        let by = first["data"]["model"]["version"].as_str().unwrap().to_owned();
        assert!(by == "1.0.0" || by == "1.1.0" && self.offer == Offer::Good, "{fault}: {first}");
        assert!(watches < BACK, "{fault}: {watches:?}");
        // What is retained by now, or comes; not what the one that was killed has left.
        let end = self.broker.subscribe().event(&format!("{fault}: the release"), |topic, state| {
            let model = &state["models"][0];
            topic.ends_with("/model/state")
                && state["session"].as_u64() >= Some(since)
                && model["state"] == "idle"
                && (self.is_over(model) || !model["error"].is_null())
        });
        assert!(self.is_over(&end["models"][0]), "{fault}: {end}");
        daemon.stop();
        let halves = std::fs::read_dir(dir.path().join("state/models/unpacking")).unwrap().count();
        assert_eq!(halves, 0, "{fault}: a half is left");
        let after = floors(dir.path());
        assert!(before.iter().zip(&after).all(|(before, after)| before <= after), "{fault}: {before:?}, {after:?}");
        Outcome { watches, by }
    }
}

/// What must never fall: the epoch, and the versions of root, timestamp, snapshot and targets. 0 where nothing was seen yet.
fn floors(folder: &Path) -> [i64; 5] {
    let Ok(db) = rusqlite::Connection::open(folder.join("state/models/updates.db")) else { return [0; 5] };
    let epoch = db.query_row("SELECT epoch FROM floor", [], |row| row.get::<_, i64>(0)).unwrap_or(0);
    let repository = db.query_row("SELECT floors FROM repository", [], |row| row.get::<_, String>(0));
    let versions: Value = repository.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
    let [root, timestamp, snapshot, targets] =
        ["root", "timestamp", "snapshot", "targets"].map(|role| versions[role].as_i64().unwrap_or(0));
    [epoch, root, timestamp, snapshot, targets]
}

/// After the commit of each state, and after what it asks for was done and before that is committed; and whenever it happens.
#[test]
fn killed_anywhere_a_good_model_is_back_and_the_release_is_installed_in_the_end() {
    let asked = std::env::var("KINEWATCH_OTA_ROUNDS").ok();
    let rounds: usize = asked.as_ref().map_or(1, |rounds| rounds.parse().unwrap());
    let good = ["reserving", "downloading", "unpacking", "proving", "shadowing", "swapping", "probation", "settling"];
    let states = good.iter().chain(&[ROLLING_BACK]);
    let mut places: Vec<String> = states.flat_map(|state| [(*state).to_owned(), format!("{state} done")]).collect();
    // Nothing is done in it: the model runs.
    places.retain(|place| place != "probation done");
    places.push(AT_RANDOM.to_owned());
    let count = |place: &String| if place == AT_RANDOM { rounds * 10 } else { rounds };
    let kills: Vec<&String> = places.iter().flat_map(|place| std::iter::repeat_n(place, count(place))).collect();

    // Each waits most of its time: several devices side by side, with a broker and a publisher each.
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..rounds.clamp(4, 10) {
            scope.spawn(|| {
                let (good, bad) = (Fleet::with(Offer::Good), Fleet::with(Offer::Bad));
                while let Some(place) = kills.get(next.fetch_add(1, Relaxed)) {
                    // From the start of the agent to the end of the update, and a little more.
                    let fault = match place.as_str() {
                        AT_RANDOM => format!("store:{:.3}", fastrand::f64() * 6.0),
                        _ => format!("update {place}:0"),
                    };
                    let fleet = if place.starts_with(ROLLING_BACK) { &bad } else { &good };
                    let outcome = fleet.kill(&fault);
                    outcomes.lock().unwrap().push((*place, outcome));
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    assert_eq!(outcomes.len(), kills.len());
    let rows: Vec<String> = places.iter().map(|place| row(place, &outcomes)).collect();
    let table = rows.concat();
    println!("{table}");

    let path = root().join("agent/design/kills.md");
    // Only a full run writes the table.
    if asked.is_some() && std::env::var_os("KINEWATCH_BLESS").is_some() {
        std::fs::write(&path, format!("{HEAD}{table}")).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let place = |row: &str| row.split(" | ").next().unwrap().to_owned();
    let (listed, tried): (Vec<String>, Vec<String>) = (
        committed.lines().skip(HEAD.lines().count()).map(place).collect(),
        rows.iter().map(|row| place(row)).collect(),
    );
    assert_eq!(listed, tried, "`make kills` writes {} anew", path.display());
}

const HEAD: &str = "# Killed in an update

Written by `make kills` (`tests/ota_kills.rs`): a device with a camera is killed (-9) after the commit of a state, or after what it asks
for was done (\"done\") and before that is committed, or at any time from 0 to 6 s after its start. In every case it then watched by a
good model within 30 s, no half of a release was left, no floor had fallen, and the release was installed in the end, or the bad one
(`rolling_back`) was in quarantine. Not tried: `ready`, in which a device only waits for its maintenance window.

| killed | times | watched again within, s | by the release before | by the new one |
|---|---|---|---|---|
";

fn row(place: &str, outcomes: &[(&String, Outcome)]) -> String {
    let here: Vec<&Outcome> = outcomes.iter().filter(|(at, _)| *at == place).map(|(_, outcome)| outcome).collect();
    let longest = here.iter().map(|outcome| outcome.watches).max().unwrap_or_default().as_secs_f64();
    let new = here.iter().filter(|outcome| outcome.by == "1.1.0").count();
    format!("| {place} | {} | {longest:.1} | {} | {new} |\n", here.len(), here.len() - new)
}
