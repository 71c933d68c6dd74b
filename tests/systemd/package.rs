//! Steps of the package: made well, installed, upgraded, purged.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Bench;
use crate::service::{exposure, main_pid, page, property, property_with, seconds};
use crate::site::{CONFIG, DROP_INS, EXAMPLES, drop_in};

/// The promise of the unit, as systemd counts.
const EXPOSURE: f64 = 2.0;
/// What dpkg, apt and the system itself write; the package has no part in it.
const OF_THE_SYSTEM: [&str; 6] =
    ["/var/log/", "/var/lib/dpkg/", "/var/lib/apt/", "/var/cache/apt/", "/var/lib/systemd/", "/tmp/"];
/// Debian keeps the user of a purged service; these are copies that its tools made when they added it.
const OF_THE_USER: [&str; 6] =
    ["/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock", "/etc/subuid-"];

/// Begun beside the other steps: it takes as long as most of them.
pub(crate) fn begin_lintian(deb: &Path) -> Child {
    let mut command = Command::new("lintian");
    command.args(["--fail-on", "error", "--tag-display-limit", "0", "--allow-root"]).arg(deb);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lintian: run .ci/apt systemd")
}

pub(crate) fn lintian(b: &mut Bench) -> String {
    let output = b.lintian.take().expect("begun").wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    b.keep("lintian.txt", &said);
    format!("0 errors, {} warnings", said.lines().filter(|line| line.starts_with("W:")).count())
}

pub(crate) fn install(b: &mut Bench) -> String {
    fs::copy(&b.deb, b.container.path("/opt/kinewatch.deb")).unwrap();
    let c = &b.container;
    b.before = c.files();
    let begun = Instant::now();
    c.run(&["dpkg", "-i", "/opt/kinewatch.deb"]);
    let took = begun.elapsed();
    for (name, value) in [
        ("ActiveState", "active"),
        ("Type", "notify"),
        ("UnitFileState", "enabled"),
        ("NRestarts", "0"),
        ("User", "kinewatch"),
    ] {
        assert_eq!(property(c, name), value, "{name}");
    }
    let status = property_with(c, "StatusText", "waiting for a camera");
    let owner = c.run(&["ps", "-o", "user:20=,group:20=,supgrp:40=", "-p", &main_pid(c)]);
    assert_eq!(owner.split_whitespace().collect::<Vec<_>>(), ["kinewatch", "kinewatch", "video,kinewatch,render"]);
    assert!(page(c, "/readyz").contains("200 OK"), "{}", page(c, "/readyz"));
    let journal = c.run(&["journalctl", "--no-pager", "--unit=kinewatch"]);
    assert!(journal.contains("no [[camera]] yet"), "{journal}");
    c.run(&["systemd-analyze", "verify", "--man=no", "kinewatch.service"]);
    b.keep("installed.txt", &c.run(&["systemctl", "status", "--no-pager", "--full", "kinewatch"]));
    format!("active in {}: \"{status}\"", seconds(took))
}

/// What a newcomer asks next.
pub(crate) fn doctor(b: &mut Bench) -> String {
    let output = b.container.attempt(&["kinewatch", "doctor"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    b.keep("doctor.txt", &said);
    assert_eq!(output.status.code(), Some(1), "no broker is a failure: {said}");
    let finding =
        |check: &str| said.lines().find(|line| line.split_whitespace().nth(1) == Some(check)).unwrap_or_default();
    assert!(finding("broker").starts_with("fail") && finding("broker").contains("refused"), "{said}");
    assert!(finding("config").starts_with("warn"), "{said}");
    assert!(finding("service").starts_with("ok") && finding("model").starts_with("ok"), "{said}");
    let count = |verdict: &str| said.lines().filter(|line| line.starts_with(verdict)).count();
    format!("{} ok, {} to look at, {} missing: \"{}\"", count("ok"), count("warn"), count("fail"), finding("broker"))
}

pub(crate) fn exposures(b: &mut Bench) -> String {
    let c = &b.container;
    let unit = exposure(c);
    assert!(unit <= EXPOSURE, "exposure {unit} of the unit");
    let limit = format!("--threshold={}", EXPOSURE * 10.0);
    b.keep(
        "security.txt",
        &c.run(&["systemd-analyze", "--no-pager", "security", "--offline=true", &limit, "kinewatch.service"]),
    );
    let mut told = format!("unit {unit}");
    for name in ["credentials", "csi-cameras", "csi-restart", "jetson", "on-failure", "rtsp-only"] {
        let file = format!("{name}.conf");
        drop_in(c, &file);
        c.run(&["cp", &format!("{EXAMPLES}/kinewatch-failure@.service"), "/etc/systemd/system/"]);
        c.run(&["systemd-analyze", "verify", "--man=no", "kinewatch.service", "kinewatch-failure@x.service"]);
        told += &format!(", {name} {}", exposure(c));
        c.run(&["rm", "-r", DROP_INS, "/etc/systemd/system/kinewatch-failure@.service"]);
    }
    c.run(&["systemctl", "daemon-reload"]);
    told
}

/// The next version is this one with another number: what counts is what dpkg and the scripts do.
pub(crate) fn upgrade(b: &mut Bench) -> String {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    let dpkg_deb =
        |arguments: &[&std::ffi::OsStr]| assert!(Command::new("dpkg-deb").args(arguments).status().unwrap().success());
    dpkg_deb(&["-R".as_ref(), b.deb.as_os_str(), tree.as_os_str()]);
    let control = fs::read_to_string(tree.join("DEBIAN/control")).unwrap();
    let of = |text: &str| text.lines().find_map(|line| line.strip_prefix("Version: ").map(str::to_owned)).unwrap();
    let (old, new) = (of(&control), format!("{}+next", of(&control)));
    let control = control.replace(&format!("Version: {old}"), &format!("Version: {new}"));
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    let c = &b.container;
    let inside = c.path("/opt/kinewatch-next.deb");
    dpkg_deb(&["-Znone".as_ref(), "-b".as_ref(), tree.as_os_str(), inside.as_os_str()]);

    let (edited, pid) = (c.run(&["cat", CONFIG]), main_pid(c));
    let begun = Instant::now();
    c.run(&["dpkg", "-i", "/opt/kinewatch-next.deb"]);
    let took = begun.elapsed();
    assert_eq!(c.run(&["dpkg-query", "-Wf", "${Version}", "kinewatch"]), new);
    assert_eq!(c.run(&["cat", CONFIG]), edited, "what the administrator wrote stays");
    assert_eq!(property(c, "ActiveState"), "active");
    assert_ne!(main_pid(c), pid, "the new version runs");
    b.site().event("front", "ended");
    format!("{old} to {new} in {}: restarted, configuration kept, events again", seconds(took))
}

pub(crate) fn purge(b: &mut Bench) -> String {
    b.site = None;
    let c = &b.container;
    c.run(&["systemctl", "start", "kinewatch"]);
    // What the administrator made is the administrator's.
    c.run(&["rm", "-r", DROP_INS, "/etc/systemd/system/kinewatch-failure@.service"]);
    let begun = Instant::now();
    c.run(&["apt-get", "purge", "--yes", "--quiet", "kinewatch"]);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!(property(c, "LoadState"), "not-found");
    let known = |file: &String| {
        b.before.binary_search(file).is_ok()
            || OF_THE_SYSTEM.iter().any(|folder| file.starts_with(folder))
            || OF_THE_USER.contains(&file.as_str())
    };
    let left: Vec<String> = c.files().into_iter().filter(|file| !known(file)).collect();
    assert_eq!(left, ["/opt/kinewatch-next.deb"], "files that were not there before");
    c.run(&["getent", "passwd", "kinewatch"]);
    format!("in {}; nothing left but the user and its groups, as Debian keeps them", seconds(took))
}
