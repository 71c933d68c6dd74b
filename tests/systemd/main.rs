//! The package under a real systemd: installed, watched, hurt, upgraded, purged. `make test-systemd` runs it, as root.
//!
//! One container, one step after another; each step says what it saw, and the first that fails ends the run. What `systemctl
//! status` and the journal looked like is left in the folder that KINEWATCH_SEEN names.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod container;
mod package;
mod service;
mod site;
mod watched;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Instant;

use container::Container;
use site::Site;
use support::root;

/// What every step works on.
pub(crate) struct Bench {
    /// Before the container it lives in: values are put away in this order.
    site: Option<Site>,
    container: Container,
    /// The package, on the host.
    deb: PathBuf,
    /// Where transcripts go, on the host.
    seen: PathBuf,
    /// Files before the package came.
    before: Vec<String>,
    /// At work from the start.
    lintian: Option<Child>,
    rows: Vec<(&'static str, String, f64)>,
}

impl Bench {
    fn step(&mut self, what: &'static str, work: fn(&mut Self) -> String) {
        eprintln!("{what} …");
        let begun = Instant::now();
        let saw = work(self);
        self.rows.push((what, saw, begun.elapsed().as_secs_f64()));
    }

    /// The servers and their subscriber.
    pub(crate) fn site(&mut self) -> &mut Site {
        self.site.as_mut().expect("an earlier step started them")
    }

    /// Keeps what a person would see, for documents.
    pub(crate) fn keep(&self, name: &str, text: &str) {
        std::fs::write(self.seen.join(name), text).unwrap();
    }

    /// What was kept.
    pub(crate) fn seen(&self, name: &str) -> String {
        std::fs::read_to_string(self.seen.join(name)).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        println!("\n| tried | what happened | s |\n|---|---|---|");
        for (what, saw, took) in &self.rows {
            println!("| {what} | {saw} | {took:.1} |");
        }
    }
}

fn named(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .unwrap_or_else(|| panic!("{variable} is not set: run make test-systemd"))
}

fn main() {
    let (deb, seen) = (named("KINEWATCH_DEB"), named("KINEWATCH_SEEN"));
    std::fs::create_dir_all(&seen).unwrap();
    let examples = Path::new(env!("CARGO_BIN_EXE_kinewatch")).with_file_name("examples");
    let binds = [
        (root().join("tests/data"), site::DATA),
        (root().join("tests/systemd/hold.pl"), "/opt/kinewatch-hold.pl"),
        (examples, "/opt/kinewatch-examples"),
    ];
    let lintian = Some(package::begin_lintian(&deb));
    let begun = Instant::now();
    let container = Container::boot(&named("KINEWATCH_CONTAINER"), &binds);
    let mut bench = Bench { site: None, container, deb, seen, before: Vec::new(), lintian, rows: Vec::new() };
    let version = bench.container.run(&["systemctl", "--version"]);
    let version = version.lines().next().unwrap_or_default().to_owned();
    bench.rows.push(("boot", version, begun.elapsed().as_secs_f64()));

    bench.step("dpkg -i on a machine with nothing configured", package::install);
    bench.step("kinewatch doctor, as root", package::doctor);
    bench.step("exposure by systemd-analyze security, unit and drop-ins", package::exposures);
    bench.step("cameras and broker by name, passwords by LoadCredential", watched::configure);
    bench.step("passwords are readable by the service alone, and told nowhere", watched::secrets);
    bench.step("the kernel's clock may be read under the system call filter", watched::clock);
    bench.step("systemctl reload", watched::reload);
    bench.step("SIGSTOP of the process", watched::stopped);
    bench.step("the inference thread is held", watched::held);
    bench.step("SIGKILL of the process", watched::killed);
    bench.step("drop-in rtsp-only.conf", watched::rtsp_only);
    bench.step("drop-in csi-cameras.conf", watched::csi);
    bench.step("dpkg -i of the next version, configuration edited", package::upgrade);
    bench.step("a configuration that cannot be used, with on-failure.conf", watched::misconfigured);
    bench.step("systemctl stop", watched::stop);
    bench.step("apt-get purge", package::purge);
    bench.step("lintian", package::lintian);
}
