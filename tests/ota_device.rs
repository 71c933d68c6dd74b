//! Updates on a device whose disk is full or damaged, or whose clock is wrong: it watches on, nothing bad is installed, nothing is locked out.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/mount.rs"]
mod mount;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mount::Mount;
use support::check::assert_whole;
use support::fleet::{MODEL, Publisher, QUICKER, WHITE, config, left_out, model, rests, state};
use support::{Broker, Daemon, Subscriber, example, kinewatch, wait_until};

/// In every state of an update the disk is filled to its last byte, and later there is space again.
#[test]
fn a_disk_that_fills_up_in_any_state_holds_the_update_up_and_costs_no_event() {
    let states = ["reserving", "downloading", "unpacking", "proving", "shadowing", "swapping", "probation", "settling"];
    let dir = tempfile::tempdir().unwrap();
    let publisher = Publisher::start(dir.path());
    publisher.add("1.1.0", None);
    publisher.set("1.1.0", &QUICKER);
    let updates = publisher.updates();
    std::thread::scope(|scope| {
        for at in states {
            scope.spawn(|| fill_up(at, &updates));
        }
    });
}

fn fill_up(at: &str, updates: &str) {
    let Some(disk) = Mount::new("64m") else { return };
    let (folder, filler) = (disk.0.path(), disk.0.path().join("filler"));
    let broker_dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(broker_dir.path(), "");
    let mut subscriber = broker.subscribe();
    let mut faulty = example("faulty");
    faulty.env("KINEWATCH_TEST_FILL", format!("update {at}:0")).env("KINEWATCH_TEST_FILLER", &filler);
    let mut daemon = Daemon::start_program(faulty, folder, &config(&broker, updates, &[("white", WHITE.to_owned())]));

    state(&mut subscriber, &format!("{at}: no space"), |m| m["error"]["code"] == "no_space");
    let kept = fs::read_dir(folder.join("state/models/parts")).unwrap().count();
    assert_eq!(kept, 0, "{at}: a bundle can be fetched again");
    let scored = || daemon.metric("kinewatch_windows_total").unwrap();
    let before = scored();
    wait_until(&format!("{at}: windows to be scored"), || scored() > before + 10.0);

    fs::remove_file(&filler).unwrap();
    // What needs the disk has failed, and says so at rest once that can be stored; what does not goes on.
    if ["reserving", "downloading", "unpacking"].contains(&at) {
        state(&mut subscriber, &format!("{at}: at rest"), |m| m["state"] == "idle" && m["error"]["code"] == "no_space");
    }
    // The pause after a failure is not waited for; where it goes on by itself there is nothing to be asked for.
    let _asked = model(folder, &["install", MODEL]);
    state(&mut subscriber, &format!("{at}: the release"), |m| rests(m, "1.1.0"));
    assert_eq!(left_out(&daemon), 0.0, "{at}");
    daemon.stop();
    subscriber.event(&format!("{at}: the farewell"), |t, e| t.ends_with("/status") && e["state"] == "stopped");
    assert_whole(subscriber.lines());
}

/// Killed on probation, and the disk is full at the next start: what has proven itself runs, and the release proves itself by running.
#[test]
fn a_disk_that_is_full_at_the_start_puts_the_probation_off() {
    let Some(disk) = Mount::new("64m") else { return };
    let (folder, filler) = (disk.0.path(), disk.0.path().join("filler"));
    let dir = tempfile::tempdir().unwrap();
    let (broker, publisher, mut subscriber) = published(dir.path());
    let text = config(&broker, &publisher.updates(), &[("white", WHITE.to_owned())]);
    let mut faulty = example("faulty");
    faulty.env("KINEWATCH_TEST_KILL", "update probation:0");
    let mut killed = Daemon::start_program(faulty, folder, &text);
    assert!(!killed.log.wait().success(), "it was not killed");
    begins(&mut subscriber, "1.0.0");
    // To its last byte: a file is written until nothing more fits.
    std::io::copy(&mut std::io::repeat(0), &mut fs::File::create(&filler).unwrap()).unwrap_err();

    let mut daemon = Daemon::start(folder, &text);
    wait_until("windows to be scored", || daemon.metric("kinewatch_windows_total") > Some(10.0));
    assert!(daemon.log.seen().iter().any(|line| line.contains("no release on trial is loaded")));
    wait_until("the fault in the list", || model(folder, &["list"]).1.contains("no_space"));
    fs::remove_file(&filler).unwrap();
    state(&mut subscriber, "the release", |m| rests(m, "1.1.0"));
    subscriber.event("the release to decide", |t, e| {
        t.ends_with("/wave") && e["data"]["status"] == "updated" && e["data"]["model"]["version"] == "1.1.0"
    });
    daemon.stop();
}

/// A clock that is wrong by as much as is asked for, from the start or all of a sudden; intervals stay right.
struct Clock(PathBuf);

impl Clock {
    fn at(folder: &Path, offset: &str) -> Self {
        let clock = Self(folder.join("clock"));
        clock.set(offset);
        clock
    }

    fn set(&self, offset: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, offset).unwrap();
        fs::rename(&new, &self.0).unwrap();
    }

    fn agent(&self) -> Command {
        let mut agent = kinewatch();
        let library = fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok);
        let library = library.map(|arch| arch.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
        agent.env("LD_PRELOAD", library.expect("libfaketime: `make test-deps` installs it"));
        agent.env("FAKETIME_TIMESTAMP_FILE", &self.0).env("FAKETIME_NO_CACHE", "1");
        agent.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        agent
    }
}

/// A broker with somebody who listens, and a repository that offers 1.1.0.
fn published(dir: &Path) -> (Broker, Publisher, Subscriber) {
    let broker = Broker::start(dir, "");
    let publisher = Publisher::start(dir);
    publisher.add("1.1.0", None);
    publisher.set("1.1.0", &QUICKER);
    let subscriber = broker.subscribe();
    (broker, publisher, subscriber)
}

fn begins(subscriber: &mut Subscriber, version: &str) {
    subscriber.event(&format!("an action by {version}"), |t, e| {
        t.ends_with("/evt/white/wave") && e["data"]["status"] != "ended" && e["data"]["model"]["version"] == version
    });
}

/// Ten years ahead everything has expired; ten years behind nothing has, and what was seen still counts.
#[test]
fn a_clock_that_is_ten_years_wrong_locks_nothing_out_and_lets_nothing_old_in() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, publisher, mut subscriber) = published(dir.path());
    let text = config(&broker, &publisher.updates(), &[("white", WHITE.to_owned())]);

    let clock = Clock::at(dir.path(), "+3650d");
    let mut daemon = Daemon::start_program(clock.agent(), dir.path(), &text);
    begins(&mut subscriber, "1.0.0");
    state(&mut subscriber, "everything has expired", |m| m["repository_error"]["code"] == "expired");
    // It is set while the agent runs.
    clock.set("+0");
    state(&mut subscriber, "the release under the right clock", |m| rests(m, "1.1.0"));

    // The release before is served again to a device that believes in no expiry.
    let old = dir.path().join("old");
    support::candidates::copy(&dir.path().join("repo"), &old);
    publisher.add("1.2.0", None);
    publisher.set("1.2.0", &QUICKER);
    state(&mut subscriber, "the next release", |m| rests(m, "1.2.0"));
    fs::rename(dir.path().join("repo"), dir.path().join("new")).unwrap();
    fs::rename(&old, dir.path().join("repo")).unwrap();
    clock.set("-3650d");
    state(&mut subscriber, "the past to be refused", |m| {
        m["repository_error"]["code"] == "timestamp_rollback" && rests(m, "1.2.0")
    });
    daemon.stop();

    // The same at a start in the past; then the right repository under the wrong clock.
    let mut daemon = Daemon::start_program(clock.agent(), dir.path(), &text);
    begins(&mut subscriber, "1.2.0");
    wait_until("the past to be refused again", || model(dir.path(), &["list"]).1.contains("timestamp_rollback"));
    fs::rename(dir.path().join("repo"), dir.path().join("older")).unwrap();
    fs::rename(dir.path().join("new"), dir.path().join("repo")).unwrap();
    publisher.add("1.3.0", None);
    publisher.set("1.3.0", &QUICKER);
    state(&mut subscriber, "what the publisher signed last", |m| rests(m, "1.3.0"));
    // In the middle of a trial the clock is set by twenty years.
    publisher.add("1.4.0", None);
    publisher.set("1.4.0", &QUICKER);
    state(&mut subscriber, "the probation", |m| m["state"] == "probation");
    clock.set("+3650d");
    state(&mut subscriber, "the probation to end", |m| rests(m, "1.4.0"));
    state(&mut subscriber, "everything has expired again", |m| m["repository_error"]["code"] == "expired");
    clock.set("+0");
    state(&mut subscriber, "all to be well", |m| m["repository_error"].is_null() && rests(m, "1.4.0"));
    assert_eq!(left_out(&daemon), 0.0);
    daemon.stop();
}

/// The server of the repository is in other hands: each attempt is refused with its code, and what is watched is watched on.
#[test]
fn what_an_enemy_serves_is_refused_while_every_window_is_scored() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "");
    let publisher = Publisher::start(dir.path());
    let mut subscriber = broker.subscribe();
    let text = config(&broker, &publisher.updates(), &[("white", WHITE.to_owned())]);
    let mut daemon = Daemon::start(dir.path(), &text);
    let started = subscriber.event("an action", |t, e| t.ends_with("/wave") && e["data"]["status"] == "started");
    publisher.add("1.1.0", None);
    let repo = dir.path().join("repo");
    let file = |folder: &str, end: &str| {
        let mut files = walkdir::WalkDir::new(repo.join(folder)).into_iter().filter_map(Result::ok);
        files.find(|file| file.file_name().to_string_lossy().ends_with(end)).unwrap().into_path()
    };
    let bundle = file("targets", "bundle.tar.zst");
    let good = fs::read(&bundle).unwrap();
    let flipped = |bytes: &[u8]| bytes.iter().enumerate().map(|(at, b)| b ^ u8::from(at == 100)).collect::<Vec<u8>>();

    // The bundle is replaced before the channel names it.
    let bundles = [
        ("wrong_hash", flipped(&good)),
        ("wrong_length", good[..good.len() / 2].to_vec()),
        ("wrong_length", [&good[..], b"more"].concat()),
    ];
    fs::write(&bundle, &bundles[0].1).unwrap();
    publisher.set("1.1.0", &QUICKER);
    for (code, bytes) in &bundles {
        fs::write(&bundle, bytes).unwrap();
        state(&mut subscriber, &format!("a bundle with {code}"), |m| {
            m["state"] == "idle" && m["error"]["code"] == *code
        });
        fs::write(&bundle, &good[..0]).unwrap();
        let _again = model(dir.path(), &["install", MODEL]);
        state(&mut subscriber, "an empty bundle", |m| m["state"] == "idle" && m["error"]["code"] == "wrong_length");
        let _again = model(dir.path(), &["install", MODEL]);
    }
    // So is the metadata, and the channel.
    for (path, code) in [
        (repo.join("metadata/timestamp.json"), "below_threshold"),
        (repo.join("metadata/timestamp.json"), "metadata_too_large"),
        (file("targets/channels", "tiny-bright.json"), "wrong_hash"),
    ] {
        let honest = fs::read(&path).unwrap();
        let forged = match code {
            "below_threshold" => {
                String::from_utf8(honest.clone()).unwrap().replacen("\"version\": ", "\"version\": 9", 1).into_bytes()
            }
            "metadata_too_large" => [&honest[..], &vec![b' '; 4 << 20]].concat(),
            _ => flipped(&honest),
        };
        fs::write(&path, forged).unwrap();
        state(&mut subscriber, code, |m| m["repository_error"]["code"] == code);
        fs::write(&path, honest).unwrap();
        state(&mut subscriber, &format!("an honest server after {code}"), |m| m["repository_error"].is_null());
    }
    assert_eq!(left_out(&daemon), 0.0);
    fs::write(&bundle, &good).unwrap();
    let _asked = model(dir.path(), &["install", MODEL]);
    state(&mut subscriber, "the release", |m| rests(m, "1.1.0"));
    let goes_on = subscriber.event("the action to go on", |t, e| {
        t.ends_with("/wave") && e["data"]["status"] == "updated" && e["data"]["model"]["version"] == "1.1.0"
    });
    assert_eq!(goes_on["data"]["action_id"], started["data"]["action_id"]);
    assert_eq!(left_out(&daemon), 0.0);
    daemon.stop();
}

/// What is known of updates is lost: that is said wherever codes are until a release has come through, and what is installed runs.
#[test]
fn a_database_that_is_damaged_is_said_in_every_place() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, publisher, mut subscriber) = published(dir.path());
    let text = config(&broker, &publisher.updates(), &[("white", WHITE.to_owned())]);
    let mut daemon = Daemon::start(dir.path(), &text);
    state(&mut subscriber, "the release", |m| rests(m, "1.1.0"));
    daemon.stop();
    let models = dir.path().join("state/models");
    for name in ["updates.db-wal", "updates.db-shm"] {
        let _not_there = fs::remove_file(models.join(name));
    }
    fs::write(models.join("updates.db"), b"no database at all, ".repeat(500)).unwrap();

    let mut daemon = Daemon::start(dir.path(), &text);
    begins(&mut subscriber, "1.1.0");
    state(&mut subscriber, "the damage on MQTT", |m| {
        rests(m, "1.1.0") && m["error"]["code"] == "state_damaged" && !m["checked_at"].is_null()
    });
    assert!(daemon.log.seen().iter().any(|line| line.contains("state_damaged") && line.contains("update: ")));
    let row = format!("kinewatch_update_fault{{model=\"{MODEL}\",code=\"state_damaged\"}}");
    assert_eq!(daemon.metric(&row), Some(1.0));
    assert!(model(dir.path(), &["list"]).1.contains("state_damaged: "));
    let doctor =
        kinewatch().args(["doctor", "--offline", "--config"]).arg(dir.path().join("kinewatch.toml")).output().unwrap();
    let said = String::from_utf8(doctor.stdout).unwrap();
    assert!(said.contains("state_damaged: "), "{said}");

    publisher.add("1.2.0", None);
    publisher.set("1.2.0", &QUICKER);
    state(&mut subscriber, "the next release", |m| rests(m, "1.2.0") && m["error"].is_null());
    daemon.stop();
}

/// The kernel says that nobody keeps the clock: nothing is asked of the repository, and the device watches.
#[test]
fn under_a_clock_that_nobody_keeps_updates_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, publisher, mut subscriber) = published(dir.path());
    let updates = publisher.updates().replace("\"trusted\"", "\"synchronised\"");
    let mut daemon = Daemon::start(dir.path(), &config(&broker, &updates, &[("white", WHITE.to_owned())]));
    begins(&mut subscriber, "1.0.0");
    // What the device waits for may have been said before the action was: who comes now is told it again.
    let mut subscriber = broker.subscribe();
    if daemon.metric("kinewatch_clock_synced ") == Some(1.0) {
        println!("the clock of this machine is kept: the release is installed instead");
        state(&mut subscriber, "the release", |m| rests(m, "1.1.0"));
    } else {
        state(&mut subscriber, "a clock", |m| {
            m["waits_for"] == "clock_not_synchronised" && m["checked_at"].is_null() && rests(m, "1.0.0")
        });
    }
    daemon.stop();
}
