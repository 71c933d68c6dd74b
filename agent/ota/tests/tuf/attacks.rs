//! One broken repository an attack: each is refused with its code, nothing of it stays, and the device goes on as soon as it
//! is offered an honest repository again.
//!
//! The repositories are left as folders in `target/tmp/attacks/` for other clients to be tried on, and the table of results
//! is `agent/design/attacks.md` (`KINEWATCH_BLESS=1` writes it anew).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use kinewatch_core::rollout::{Code, Fault};
use kinewatch_ota::tuf::Clock;
use serde_json::{Value, json};

use crate::lab::{BUNDLE, CHANNEL, Lab, bundle, channel};
use crate::repository::{LATER, Repository, key_id, metadata_path, sha256, sign, target_path};
use crate::server::Manner;

/// What is done to a repository that the device has seen at version 2, honest at version 3.
type Break = fn(&mut Repository, &Repository);

struct Attack {
    name: &'static str,
    what: &'static str,
    code: Code,
    attack: Break,
    /// How long after the honest metadata.
    days: i64,
    manner: Option<(&'static str, Manner)>,
}

impl Attack {
    fn tries_patience(&self) -> bool {
        matches!(self.manner, Some((_, Manner::Slow { .. } | Manner::Silent)))
    }
}

const fn attack(name: &'static str, code: Code, what: &'static str, attack: Break) -> Attack {
    Attack { name, what, code, attack, days: 0, manner: None }
}

const fn served(name: &'static str, code: Code, what: &'static str, word: &'static str, manner: Manner) -> Attack {
    Attack { name, what, code, attack: |_, _| {}, days: 0, manner: Some((word, manner)) }
}

const ESCAPE: &str = "../../etc/cron.d/falls";

/// Slower than the slowest that is accepted.
const TRICKLE: Manner = Manner::Slow { piece: 1, pause: Duration::from_millis(20) };

fn attacks() -> Vec<Attack> {
    vec![
        attack("root-rollback", Code::RootRollback, "the next root is the present one over again", |r, _| {
            let old = r.anchor();
            r.offer("root", 2, &old);
        }),
        attack("root-skipped", Code::MetadataInvalid, "a root is left out", |r, _| {
            r.set("root", "version", 3);
            let root = r.sign("root");
            r.offer("root", 2, &root);
        }),
        attack("root-old-key", Code::BelowThreshold, "a root signed by the key that the last root replaced", |r, _| {
            r.keys("root", 1, &[20]);
            r.signers.insert("root".to_owned(), vec![0, 20]);
            r.publish(&["root"]);
            r.keys("root", 1, &[0]);
            r.publish(&["root"]);
        }),
        attack("root-foreign", Code::BelowThreshold, "a root of another repository", |r, _| {
            r.keys("root", 1, &[66]);
            r.publish(&["root"]);
        }),
        attack(
            "root-below-own-threshold",
            Code::BelowThreshold,
            "a root signed by the old keys, not by its own",
            |r, _| {
                r.keys("root", 1, &[20]);
                r.signers.insert("root".to_owned(), vec![0]);
                r.publish(&["root"]);
            },
        ),
        attack("timestamp-rollback", Code::TimestampRollback, "the timestamp of an earlier day", |r, _| {
            r.set("timestamp", "version", 1);
            let timestamp = r.sign("timestamp");
            r.offer("timestamp", 1, &timestamp);
        }),
        attack(
            "snapshot-rollback",
            Code::SnapshotRollback,
            "a newer timestamp that lists an older snapshot",
            |r, _| {
                r.set("snapshot", "version", 0);
                r.publish(&["snapshot", "timestamp"]);
            },
        ),
        attack("targets-rollback", Code::TargetsRollback, "a newer snapshot that lists older targets", |r, _| {
            r.set("targets", "version", 0);
            r.publish_all();
        }),
        attack(
            "delegation-dropped",
            Code::TargetsRollback,
            "a newer snapshot that hides a role of the older one",
            |r, _| {
                r.signed.get_mut("snapshot").unwrap()["meta"].as_object_mut().unwrap().remove("others.json");
                r.publish(&["snapshot", "timestamp"]);
            },
        ),
        attack(
            "fast-forward-without-recovery",
            Code::TimestampRollback,
            "versions start anew, but no key was taken away",
            |r, _| {
                r.set("timestamp", "version", 0);
                r.keys("timestamp", 1, &[3, 30]);
                r.signers.insert("timestamp".to_owned(), vec![3]);
                r.publish(&["root", "timestamp"]);
            },
        ),
        Attack {
            days: 400,
            ..attack("freeze", Code::Expired, "the metadata of an earlier day, for ever", |r, seen| *r = seen.clone())
        },
        expired("root"),
        expired("timestamp"),
        expired("snapshot"),
        expired("targets"),
        attack("mix-and-match", Code::MetadataInvalid, "targets of another day under the listed name", |r, seen| {
            let old = seen.files[&metadata_path("targets", 2)].clone();
            *r.file("targets", 3) = old;
        }),
        attack("mix-and-match-version", Code::MetadataInvalid, "the same where only versions are listed", |r, _| {
            r.set("targets", "version", 7);
            let targets = r.sign("targets");
            r.offer("targets", 4, &targets);
            r.signed.get_mut("snapshot").unwrap()["meta"]["targets.json"] = json!({"version": 4});
            r.publish(&["snapshot", "timestamp"]);
        }),
        attack("wrong-role", Code::MetadataInvalid, "a snapshot in the place of the timestamp", |r, _| {
            let snapshot = sign(&r.signed["snapshot"].clone(), &r.signers["timestamp"].clone());
            r.offer("timestamp", 3, &snapshot);
        }),
        attack(
            "no-metadata",
            Code::MetadataInvalid,
            "a captive portal's page in the place of the timestamp",
            |r, _| {
                r.offer("timestamp", 3, b"<html>Welcome to the hotel</html>");
            },
        ),
        unsigned("timestamp"),
        unsigned("snapshot"),
        unsigned("targets"),
        attack(
            "below-threshold",
            Code::BelowThreshold,
            "targets signed by one of the two keys that they need",
            |r, _| {
                r.keys("targets", 2, &[1, 40]);
                r.signers.insert("targets".to_owned(), vec![40]);
                r.publish(&["root", "targets", "snapshot", "timestamp"]);
            },
        ),
        attack(
            "duplicate-signatures",
            Code::BelowThreshold,
            "one key signs twice to reach a threshold of two",
            |r, _| {
                r.keys("targets", 2, &[1, 40]);
                r.signers.insert("targets".to_owned(), vec![40, 40]);
                r.publish(&["root", "targets", "snapshot", "timestamp"]);
            },
        ),
        attack(
            "duplicate-keys",
            Code::BelowThreshold,
            "one key under two names to reach a threshold of two",
            |r, _| {
                let root = r.signed.get_mut("root").unwrap();
                root["keys"]["00"] = root["keys"][key_id(1)].clone();
                root["roles"]["targets"] = json!({"keyids": [key_id(1), "00"], "threshold": 2});
                r.publish(&["root"]);
                let mut targets: Value = serde_json::from_slice(&r.sign("targets")).unwrap();
                let mut again = targets["signatures"][0].clone();
                again["keyid"] = "00".into();
                targets["signatures"].as_array_mut().unwrap().push(again);
                r.offer("targets", 3, &serde_json::to_vec(&targets).unwrap());
                r.publish(&["snapshot", "timestamp"]);
            },
        ),
        attack("changed-after-signing", Code::BelowThreshold, "a digit changed in signed metadata", |r, _| {
            let text = String::from_utf8(r.files["metadata/timestamp.json"].clone()).unwrap();
            r.files.insert("metadata/timestamp.json".to_owned(), text.replace("2030-01-01", "2039-01-01").into_bytes());
        }),
        attack("endless-root", Code::MetadataTooLarge, "a root of 600 KiB", |r, _| {
            r.offer("root", 2, &[b' '; 600 << 10]);
        }),
        served(
            "endless-timestamp",
            Code::MetadataTooLarge,
            "a timestamp that never ends",
            "timestamp.json",
            Manner::Endless,
        ),
        served(
            "endless-snapshot",
            Code::MetadataTooLarge,
            "a snapshot that never ends",
            "snapshot.json",
            Manner::Endless,
        ),
        served("endless-bundle", Code::WrongLength, "a bundle that never ends", "bundle.tar.zst", Manner::Endless),
        served("slow-loris-timestamp", Code::TooSlow, "a timestamp at 50 bytes a second", "timestamp.json", TRICKLE),
        served("slow-loris-bundle", Code::TooSlow, "a bundle at 50 bytes a second", "bundle.tar.zst", TRICKLE),
        served("silent", Code::Unreachable, "a connection on which nothing comes", "timestamp.json", Manner::Silent),
        served(
            "truncated",
            Code::WrongLength,
            "the first half of the bundle",
            "bundle.tar.zst",
            Manner::Truncated { to: 100_000 },
        ),
        attack("wrong-hash", Code::WrongHash, "one bit of the bundle changed", |r, _| {
            r.files.get_mut(&target_path(BUNDLE, &bundle(3, 200_000))).unwrap()[150_000] ^= 1;
        }),
        attack("wrong-length", Code::WrongLength, "bytes appended to the bundle", |r, _| {
            r.files.get_mut(&target_path(BUNDLE, &bundle(3, 200_000))).unwrap().extend_from_slice(b"more");
        }),
        attack("older-bundle", Code::WrongHash, "the signed bundle of an older release", |r, seen| {
            let old = seen.files[&target_path(BUNDLE, &bundle(1, 200_000))].clone();
            r.files.insert(target_path(BUNDLE, &bundle(3, 200_000)), old);
        }),
        attack("unsigned-channel", Code::WrongHash, "a channel file that nobody signed", |r, _| {
            let file = String::from_utf8(channel("1.2.0", 3)).unwrap().replace("1.2.0", "6.6.6");
            r.files.insert(target_path(CHANNEL, &channel("1.2.0", 3)), file.into_bytes());
        }),
        attack("channel-withdrawn", Code::ChannelMissing, "signed metadata without the channel", |r, _| {
            r.signed.get_mut("targets").unwrap()["targets"].as_object_mut().unwrap().remove(CHANNEL);
            r.publish_all();
        }),
        attack("path-traversal", Code::TargetUnsafe, "a signed target whose name leads out of its folder", |r, _| {
            r.add(ESCAPE, b"* * * * * root id");
            r.publish_all();
        }),
    ]
}

fn expired(role: &'static str) -> Attack {
    let (name, what, attack): (_, _, Break) = match role {
        "root" => ("expired-root", "a root that has expired", |r, _| expire(r, "root")),
        "timestamp" => ("expired-timestamp", "a timestamp that has expired", |r, _| expire(r, "timestamp")),
        "snapshot" => ("expired-snapshot", "a snapshot that has expired", |r, _| expire(r, "snapshot")),
        _ => ("expired-targets", "targets that have expired", |r, _| expire(r, "targets")),
    };
    Attack { name, what, code: Code::Expired, attack, days: 0, manner: None }
}

fn expire(repository: &mut Repository, role: &str) {
    repository.set(role, "expires", "2028-06-01T00:00:00Z");
    repository.publish(&["root", "targets", "snapshot", "timestamp"]);
}

fn unsigned(role: &'static str) -> Attack {
    let (name, what, attack): (_, _, Break) = match role {
        "timestamp" => ("foreign-timestamp", "a timestamp signed by a key of no role", |r, _| foreign(r, "timestamp")),
        "snapshot" => ("foreign-snapshot", "a snapshot signed by the timestamp's key", |r, _| foreign(r, "snapshot")),
        _ => ("foreign-targets", "targets signed by the timestamp's key", |r, _| foreign(r, "targets")),
    };
    Attack { name, what, code: Code::BelowThreshold, attack, days: 0, manner: None }
}

fn foreign(repository: &mut Repository, role: &str) {
    let own = repository.signers[role].clone();
    repository.signers.insert(role.to_owned(), vec![if role == "timestamp" { 66 } else { 3 }]);
    repository.publish_all();
    repository.signers.insert(role.to_owned(), own);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attack_is_refused_with_its_code() {
    let mut table = String::new();
    // Those that try the client's patience come last, when nothing else slows it down.
    let (hasty, patient): (Vec<_>, Vec<_>) = attacks().into_iter().partition(|a| !a.tries_patience());
    for attacks in [hasty, patient] {
        let trials: Vec<_> = attacks.into_iter().map(|a| tokio::spawn(async move { (refused(&a).await, a) })).collect();
        for trial in trials {
            let (detail, attack) = trial.await.unwrap();
            writeln!(table, "| {} | {} | `{}` | {detail} |", attack.name, attack.what, attack.code).unwrap();
        }
    }
    let document = format!(
        "# Attacks on the repository, and what the device says\n\n\
         Written by `agent/ota/tests/tuf/attacks.rs`, which tries each of them on the client: refused with this code, nothing\n\
         of it trusted or left on the disk, and the next honest offer taken.\n\n\
         | attack | what the server offers | refused with | detail |\n|---|---|---|---|\n{table}"
    );
    golden(&document);
}

/// The detail of the refusal, with what differs from run to run left out.
async fn refused(attack: &Attack) -> String {
    let mut lab = Lab::new().await;
    let seen = lab.repository.clone();
    let trusted = trusted(&lab);
    lab.repository.add(CHANNEL, &channel("1.2.0", 3));
    lab.repository.add(BUNDLE, &bundle(3, 200_000));
    lab.repository.publish_all();
    let honest = lab.repository.clone();

    (attack.attack)(&mut lab.repository, &seen);
    lab.repository.write(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("attacks").join(attack.name));
    lab.serve();
    if let Some((word, manner)) = &attack.manner {
        lab.server.manner(word, manner.clone());
    }
    let (then, pace) = (lab.now, lab.pace);
    if attack.tries_patience() {
        lab.pace.window = Duration::from_secs(3);
        lab.pace.tries = 2;
    }
    lab.now += jiff::Span::new().hours(24 * attack.days);
    let fault = if attack.code == Code::TargetUnsafe { escape(&mut lab).await } else { lab.refused().await };
    (lab.now, lab.pace) = (then, pace);
    assert_eq!(fault.code, attack.code, "{}: {fault}", attack.name);
    assert_eq!(lab.fetched(), None, "{}: no bundle", attack.name);
    for (role, version) in self::trusted(&lab) {
        assert!(version >= trusted[role], "{}: {role} went back to {version}", attack.name);
    }

    recovers(&mut lab, honest, attack.name).await;
    steady(&fault.detail.replace(lab.server.url.as_str(), ""))
}

/// Without digests, and without counts of bytes, which depend on how the network cuts them up.
fn steady(detail: &str) -> String {
    let digest = |part: &str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let words: Vec<_> = detail.split(' ').collect();
    let word = |(i, word): (usize, &&str)| match words.get(i + 1) {
        Some(next) if next.starts_with("bytes") && word.parse::<u64>().is_ok() => "N".to_owned(),
        _ => word
            .split_inclusive(['/', '.'])
            .map(|p| if digest(p.trim_end_matches('.')) { "….".into() } else { Cow::from(p) })
            .collect(),
    };
    words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
}

async fn escape(lab: &mut Lab) -> Fault {
    let mut client = lab.client();
    client.refresh(Clock::Synchronised(lab.now), &lab.floors).await.unwrap();
    client.find(ESCAPE).await.expect_err("unsafe").into()
}

/// The honest repository goes on from whatever root the device trusts now, with versions above all that were used.
async fn recovers(lab: &mut Lab, mut honest: Repository, name: &str) {
    let root = trusted(lab)["root"];
    if root > 1 {
        for version in 2..=root {
            let path = metadata_path("root", version);
            honest.files.insert(path.clone(), lab.repository.files[&path].clone());
        }
        honest.signed.insert("root".to_owned(), stored(lab, "root"));
        for (role, seeds) in honest.signers.clone() {
            honest.keys(&role, 1, &seeds);
        }
        honest.set("root", "expires", LATER);
        honest.signers.insert("root".to_owned(), vec![0, 20]);
        honest.publish(&["root"]);
    }
    for role in ["targets", "snapshot", "timestamp"] {
        let version = lab.repository.version(role).max(honest.version(role));
        honest.set(role, "version", version);
    }
    honest.publish_all();
    lab.repository = honest;
    lab.serve();
    lab.update().await.unwrap_or_else(|fault| panic!("{name}: locked out: {fault}"));
    assert_eq!(sha256(&lab.fetched().unwrap()), sha256(&bundle(3, 200_000)), "{name}");
}

fn golden(document: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("design/attacks.md");
    if std::env::var_os("KINEWATCH_BLESS").is_some() {
        std::fs::write(&path, document).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let stale: Vec<_> = document.lines().filter(|line| !committed.lines().any(|l| l == *line)).collect();
    assert!(committed == document, "{}: run with KINEWATCH_BLESS=1; not in it:\n{}", path.display(), stale.join("\n"));
}

#[tokio::test]
async fn a_repository_recovers_from_a_fast_forward_by_taking_a_key_away() {
    let mut lab = Lab::new().await;
    let honest = lab.repository.clone();
    for role in ["targets", "snapshot", "timestamp"] {
        lab.repository.set(role, "version", 1_u64 << 62);
    }
    lab.repository.publish_all();
    lab.serve();
    lab.update().await.unwrap();
    assert_eq!(lab.floors.timestamp, (1 << 62) + 1);

    lab.repository = honest;
    lab.repository.keys("timestamp", 1, &[50]);
    lab.repository.keys("snapshot", 1, &[51]);
    lab.repository.publish(&["root"]);
    lab.repository.publish_all();
    lab.serve();
    lab.update().await.unwrap();
    let trusted = trusted(&lab);
    assert_eq!([trusted["timestamp"], trusted["snapshot"], trusted["targets"]], [3, 3, 3]);
    assert_eq!(lab.floors.timestamp, 3);
}

/// The signed part of the stored metadata of `role`.
fn stored(lab: &Lab, role: &str) -> Value {
    let bytes = std::fs::read(lab.metadata().join(format!("{role}.json"))).unwrap();
    serde_json::from_slice::<Value>(&bytes).unwrap()["signed"].take()
}

/// The versions on the device's disk.
fn trusted(lab: &Lab) -> BTreeMap<&'static str, u64> {
    ["root", "timestamp", "snapshot", "targets"]
        .map(|role| (role, stored(lab, role)["version"].as_u64().unwrap()))
        .into()
}
