//! `kinewatch doctor`: looks at everything the daemon needs, one line each, and changes nothing.
//!
//! [`Context`] is made first (configuration, service, user); then every check runs on a thread of its own with a deadline
//! ([`schedule`]) and gives [`Finding`]s. Checks take the context alone: the machine's files lie below a [`Root`], so a
//! Jetson is tested with a tree of files. Nothing here may hang for ever, stop a running daemon, or show a password.

mod checks;
pub mod child;
pub mod finding;
pub mod identity;
pub mod report;
pub use crate::root;
pub mod schedule;
pub mod unit;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use kinewatch_capture::Elements;
use kinewatch_engine::LibrarySearch;

pub use self::finding::{About, Finding, Verdict};
use self::identity::Identity;
pub use self::report::Report;
use self::root::Root;
use self::unit::Unit;
use crate::config::{self, Environment, Probe};
use crate::inference;
use crate::progress::Progress;

/// Whether other machines may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Cameras and broker are asked.
    Online,
    /// Nobody is.
    Offline,
}

/// Everything that the checks look at.
#[derive(Debug)]
pub struct Context {
    /// The machine's files.
    pub root: Root,
    /// Whether cameras and broker are asked.
    pub network: Network,
    /// The configuration, and all that is wrong with it.
    pub config: config::Report,
    /// The service.
    pub unit: Unit,
    /// The daemon's process, while one runs over this state directory.
    pub daemon: Option<u32>,
    /// As whom the daemon runs, or would.
    pub identity: Identity,
    /// Elements that GStreamer has for decoding here, or why it does not start.
    pub gstreamer: Result<Elements, String>,
    /// This program, for checks that a child process makes.
    pub program: PathBuf,
    /// ONNX Runtime, once somebody has looked for it.
    library: OnceLock<LibrarySearch>,
}

impl Context {
    /// Reads the configuration and asks systemd. Blocks for seconds where ONNX Runtime or systemd is slow.
    #[must_use]
    pub fn of_machine(config: &Path, network: Network) -> Self {
        let root = Root::machine();
        let unit = Unit::ask(&root);
        let mut environment = Environment::of_process();
        if let Some(service) = unit.known().filter(|_| environment.credentials_directory.is_none()) {
            environment.credentials = service.credentials();
        }
        let mut config = config::check(config, &environment, Probe::Machine);
        // The service's own variable counts, not the one of whoever asks.
        if let (Some(engine), Some(library)) =
            (&mut config.parts.engine, unit.known().and_then(|u| u.variable("ORT_DYLIB_PATH")))
        {
            engine.ort_library.get_or_insert_with(|| library.into());
        }
        let state_dir = config.parts.device.as_ref().map(|d| d.state_dir.clone());
        let holder = state_dir.and_then(|dir| lock_holder(&root, &dir.join("sequence")));
        let daemon = holder.or_else(|| unit.known().and_then(unit::Properties::pid));
        let identity = identity(&root, &unit, daemon);
        let platform = config.parts.device.as_ref().and_then(|device| device.platform);
        let gstreamer = kinewatch_capture::init().map(|()| Elements::probe(platform)).map_err(|e| e.to_string());
        let program = std::env::current_exe().unwrap_or_else(|_| "kinewatch".into());
        Self { root, network, config, unit, daemon, identity, gstreamer, program, library: OnceLock::new() }
    }

    /// ONNX Runtime, as the configuration asks for it. Blocks whoever asks first for seconds, the others with it.
    #[must_use]
    pub fn library(&self) -> &LibrarySearch {
        let search = || self.config.parts.engine.as_ref().map(inference::search).unwrap_or_default();
        self.library.get_or_init(search)
    }

    /// This program with other arguments, as the user of the daemon: only what that user can do counts, and nothing may be
    /// left in its directories that it cannot write.
    #[must_use]
    pub fn child(&self) -> Command {
        let who = &self.identity;
        let setpriv = self.root.at("/usr/bin/setpriv");
        let root = Identity::ours(&self.root).is_root();
        let (Some(gid), true) = (who.gids.first(), root && !who.is_us && setpriv.exists()) else {
            return Command::new(&self.program);
        };
        let groups: Vec<String> = who.gids.iter().map(u32::to_string).collect();
        let mut command = Command::new(setpriv);
        command.arg(format!("--reuid={}", who.uid)).arg(format!("--regid={gid}"));
        command.arg(format!("--groups={}", groups.join(","))).arg("--inh-caps=-all").arg("--").arg(&self.program);
        command
    }

    /// The state directory, when the configuration says enough to know it.
    #[must_use]
    pub fn state_dir(&self) -> Option<&Path> {
        self.config.parts.device.as_ref().map(|d| d.state_dir.as_path())
    }
}

/// Runs every check and gives the report. Blocks for as long as the slowest check may take.
#[must_use]
pub fn run(context: Context) -> Report {
    let context = Arc::new(context);
    let mut progress = Progress::spinner("looking");
    let findings = schedule::run(&context, checks::all(&context), &mut progress);
    drop(progress);
    Report::new(&context, findings)
}

/// The process that holds the lock of a state directory, from the kernel's list of locks: trying to lock could keep a daemon
/// from starting.
fn lock_holder(root: &Root, record: &Path) -> Option<u32> {
    let inode = std::fs::metadata(record).ok()?.ino().to_string();
    let locks = root.read("/proc/locks")?;
    let holder = locks.lines().find_map(|line| {
        // `1: FLOCK  ADVISORY  WRITE 412 08:01:131090 0 EOF`
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = words.as_slice() else { return None };
        (file.rsplit(':').next() == Some(inode.as_str())).then(|| pid.parse::<u32>().ok())?
    })?;
    // Inodes of other file systems may have the same number.
    let name = root.read(format!("/proc/{holder}/comm"))?;
    (name == "kinewatch").then_some(holder)
}

/// As whom the daemon runs: the running one, else the service's user, else whoever asks.
fn identity(root: &Root, unit: &Unit, daemon: Option<u32>) -> Identity {
    let of_service = || {
        let service = unit.known()?;
        let groups: Vec<String> = service.words("SupplementaryGroups").map(str::to_owned).collect();
        match service.text("User") {
            "" => None,
            user => Identity::of_user(root, user, &groups),
        }
    };
    daemon.and_then(|pid| Identity::of_process(root, pid)).or_else(of_service).unwrap_or_else(|| Identity::ours(root))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;

    /// A context over a tree of files, with a configuration that is there in name alone.
    pub(crate) fn context(dir: &Path, files: &[(&str, &str)]) -> Context {
        let root = Root::below(dir);
        for (path, text) in files {
            let path = root.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let config = config::check(Path::new("/nonexistent.toml"), &Environment::default(), Probe::FileOnly);
        let identity = Identity { name: "kinewatch".into(), uid: 990, gids: vec![980, 44], is_us: false };
        Context {
            root,
            network: Network::Offline,
            config,
            unit: Unit::NoSystemd,
            daemon: None,
            identity,
            gstreamer: Err("not asked".into()),
            program: "/nonexistent/kinewatch".into(),
            library: OnceLock::new(),
        }
    }

    /// `verdict message` of each finding.
    pub(crate) fn told(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(|f| format!("{} {}", f.verdict.name(), f.message)).collect()
    }

    #[test]
    fn who_holds_the_lock_is_read_not_tried() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("sequence");
        fs::write(&record, "").unwrap();
        let inode = fs::metadata(&record).unwrap().ino();
        let locks = format!(
            "1: POSIX  ADVISORY  WRITE 9 08:01:{inode} 0 EOF\n2: FLOCK  ADVISORY  WRITE 412 08:01:{inode} 0 EOF\n"
        );
        let context = context(dir.path(), &[("/proc/locks", &locks), ("/proc/412/comm", "kinewatch\n")]);
        assert_eq!(lock_holder(&context.root, &record), Some(412));
        fs::write(context.root.at("/proc/412/comm"), "something\n").unwrap();
        assert_eq!(lock_holder(&context.root, &record), None);
        assert_eq!(lock_holder(&context.root, &dir.path().join("none")), None);
    }
}
