//! A device that is too hot or short of power, as the running daemon sees it: another board's files are shown to it, and
//! change under it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::path::Path;

use kinewatch_engine::{ProbeCommand, link_in_child};
use support::{Broker, Daemon, example, root, trees};

const UNDER_VOLTAGE: &str = "/sys/class/hwmon/hwmon2/oc1_event_cnt";
const COOLING: &str = "/sys/class/thermal/cooling_device1/cur_state";

fn config(broker: &Broker) -> String {
    let (model, video) = (root().join("tests/data/packages/tiny-bright"), root().join("tests/data/bright.mp4"));
    format!(
        "[mqtt]\nurl = \"{}\"\n[engine]\nbackend = \"tract\"\n[[model]]\nname = \"m\"\npath = \"{}\"\n\
         [[camera]]\nname = \"door\"\nsource = \"file:{video}?loop=true\"\nmodels = [\"m\"]\n\
         [[camera]]\nname = \"bed\"\nsource = \"file:{video}?loop=true\"\nmodels = [\"m\"]\nmin_rate_hz = 10\n",
        broker.url(),
        model.display(),
        video = video.display()
    )
}

fn put(board: &Path, file: &str, text: &str) {
    let file = trees::at(board, file);
    // Read by the daemon at any moment: there is never half of it.
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

#[test]
fn a_weak_supply_and_heat_lower_the_rate_and_it_comes_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let board = trees::plant(&["orin-nano-jp62"]);
    let broker = Broker::start(dir.path(), "");
    let mut subscriber = broker.subscribe();
    let mut program = example("faulty");
    program.env("KINEWATCH_TEST_BOARD", board.path());
    let mut daemon = Daemon::start_program(program, dir.path(), &config(&broker));
    // From that look on counters are compared.
    daemon.log.wait_for("the board's name", |line| {
        line.contains("NVIDIA Jetson Orin Nano Developer Kit, L4T 36.4.3 (JetPack 6), power mode MAXN_SUPER (2)")
    });
    let up = subscriber.event("the camera", |topic, e| topic.ends_with("/cam/door/state") && e["online"] == true);
    assert!(up.get("derated").is_none(), "{up}");

    put(board.path(), UNDER_VOLTAGE, "5\n");
    let state = |topic: &str| topic.ends_with("/cam/door/state");
    let told = subscriber.event("the camera's state to say so", |topic, e| state(topic) && e.get("derated").is_some());
    assert_eq!(told["derated"], serde_json::json!({"causes": ["power"], "one_of": 2}), "{told}");
    assert_eq!(told["online"], true);
    let line = daemon.log.wait_for("the line about it", |line| line.contains("the device is strained"));
    assert!(line.contains("power: under-voltage") && line.contains("one window of 2 is scored"), "{line}");

    // The other cause, while the first is over.
    put(board.path(), COOLING, "2\n");
    let told = subscriber.event("the next step", |topic, e| state(topic) && e["derated"]["one_of"] == 4);
    assert_eq!(told["derated"]["causes"], serde_json::json!(["heat"]));
    let metric = |name: &str| daemon.metric(name);
    assert_eq!(metric("kinewatch_derating_one_of "), Some(4.0));
    assert_eq!(metric("kinewatch_board_slowed{device=\"cpufreq-cpu0\"}"), Some(1.0));
    assert_eq!(metric("kinewatch_board_temperature_celsius{zone=\"gpu-thermal\"}"), Some(53.1));
    assert_eq!(metric("kinewatch_board_supply_events_total{event=\"under_voltage\"}"), Some(5.0));
    let derated = "kinewatch_windows_dropped_total{camera=\"door\",model=\"m\",reason=\"derated\"}";
    assert!(metric(derated).is_some_and(|n| n > 0.0));
    assert_eq!(metric(&derated.replace("door", "bed")), Some(0.0), "it keeps its ten windows a second");
    // Nothing else suffers: actions begin and end as they should.
    let ended =
        subscriber.event("an action", |topic, e| topic.contains("/evt/door/") && e["data"]["status"] == "ended");
    assert!(["boundary", "stream_lost"].contains(&ended["data"]["end_reason"].as_str().unwrap()), "{ended}");

    let bed = |line: &String| line.contains("/cam/bed/state") && line.contains("derated");
    assert!(!subscriber.lines().iter().any(bed), "nor does its state say otherwise");

    put(board.path(), COOLING, "0\n");
    subscriber.event("a step back", |topic, e| state(topic) && e["derated"]["one_of"] == 2);
    subscriber.event("all of it back", |topic, e| state(topic) && e["online"] == true && e.get("derated").is_none());
    daemon.log.wait_for("the line about it", |line| line.contains("every window is scored again"));
    // Windows that waited at that moment may be left out still.
    subscriber.event("an action after it", |topic, e| topic.contains("/evt/door/") && e["data"]["status"] == "ended");
    let before = daemon.metric(derated).unwrap();
    subscriber.event("another action", |topic, e| topic.contains("/evt/door/") && e["data"]["status"] == "ended");
    assert_eq!(daemon.metric(derated), Some(before), "nothing is left out any more");
    daemon.stop();
}

/// ONNX Runtime of the environment, as other tests take it.
fn library() -> Option<std::path::PathBuf> {
    std::env::var_os("ORT_DYLIB_PATH").map(Into::into)
}

#[test]
fn whether_a_library_can_be_loaded_is_found_out_in_a_child() {
    let args = ["engine-probe", "--link"].map(str::to_owned).to_vec();
    let command = ProbeCommand { program: env!("CARGO_BIN_EXE_kinewatch").into(), args };
    let link = |name: &str| link_in_child(&command, Path::new(name)).map_err(|error| error.to_string());
    assert_eq!(link("libc.so.6"), Ok(()));
    let missing = link("libnvinfer.so.0").unwrap_err();
    assert!(missing.contains("libnvinfer.so.0: cannot open shared object file"), "{missing}");
}

#[test]
fn a_model_watches_while_its_engine_is_built_and_goes_over_to_it_without_ending_an_action() {
    let Some(library) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let mut subscriber = broker.subscribe();
    let mut program = example("faulty");
    // There is no TensorRT here: the processor's provider stands for it, and tract serves meanwhile.
    program.env("KINEWATCH_TEST_BUILD_CPU", "1");
    let engine = format!("[engine]\nort_library = \"{}\"\nproviders = [\"cpu\"]\n", library.display());
    let config = config(&broker).replace("[engine]\nbackend = \"tract\"\n", &engine);
    let mut daemon = Daemon::start_program(program, dir.path(), &config);
    let status = |daemon: &Daemon| serde_json::from_str::<serde_json::Value>(&daemon.get("/status").unwrap()).unwrap();
    let log = &mut daemon.log;
    log.wait_for("what serves meanwhile", |l| l.contains("model tiny-bright on tract") && l.contains("not built yet"));
    log.wait_for("the build", |l| l.contains("its engine is built in a process beside"));
    // The child is last in line, and loads a library first.
    let during = status(&daemon);
    assert_eq!(during["building_engine_of"], "m", "{during:#}");
    assert!(during["building_engine_for_s"].is_u64() && during["building_engine_busy_s"].is_u64(), "{during:#}");
    assert!(["start", "open", "bench"].contains(&during["building_engine_step"].as_str().unwrap()), "{during:#}");
    let log = &mut daemon.log;
    log.wait_for("its end", |l| l.contains("its engine is built") && l.contains("took_s"));
    log.wait_for("the model to be opened", |l| l.contains("model tiny-bright on ort") && l.contains("cpu"));
    log.wait_for("the model to take its place", |l| l.contains("the model has taken its place"));
    let event = subscriber.event("an event of it", |topic, e| {
        topic.contains("/evt/door/") && e["data"]["model"]["accel"].as_str().is_some_and(|a| a.starts_with("ort-cpu"))
    });
    assert_eq!(event["data"]["model"]["name"], "tiny-bright");
    let after = status(&daemon);
    assert_eq!(after["models"][0]["opened"]["backend"], "ort", "{after:#}");
    let fields = ["of", "for_s", "step", "busy_s"].map(|field| format!("building_engine_{field}"));
    assert!(fields.iter().all(|field| after[field].is_null()), "{after:#}");
    assert_eq!(daemon.metric("kinewatch_engine_build_elapsed_seconds{model=\"m\"}"), Some(0.0));
    let swapped = daemon.metric("kinewatch_windows_dropped_total{camera=\"door\",model=\"m\",reason=\"swap\"}");
    assert_eq!(swapped, Some(0.0), "no window was left out");
    daemon.stop();
    let ended = |line: &String| line.contains("model_swap");
    assert!(!subscriber.lines().iter().any(ended), "nothing ended by it");
}
