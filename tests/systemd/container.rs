//! A system with its own systemd, booted by systemd-nspawn over a file system that is not changed: everything written goes to
//! memory. Commands enter it with nsenter, so that no machine manager is needed on the host.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::{DEADLINE, Process, Stream};

/// A booted container; off when it goes out of scope.
pub(crate) struct Container {
    nspawn: Child,
    leader: u32,
}

impl Container {
    /// Boots `root` and waits until its start is complete. `binds` are folders of the host and where they appear, read-only.
    pub(crate) fn boot(root: &Path, binds: &[(PathBuf, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let console = fs::File::create(folder.path().join("console")).unwrap();
        let mut command = Command::new("systemd-nspawn");
        command.args(["--quiet", "--boot", "--volatile=overlay", "--private-network", "--machine=kinewatch"]);
        command.args(["--keep-unit", "--register=no", "--console=pipe", "--resolv-conf=off", "--notify-ready=yes"]);
        // So that nothing but the unit's own filter can refuse them; nspawn gives no right to set the clock.
        command.arg("--system-call-filter=adjtimex clock_adjtime");
        command.args(binds.iter().map(|(from, to)| format!("--bind-ro={}:{to}", from.display())));
        command.arg("--directory").arg(root).env("NOTIFY_SOCKET", folder.path().join("notify"));
        command.stdin(Stdio::null()).stdout(console.try_clone().unwrap()).stderr(console);
        let nspawn = command.spawn().expect("systemd-nspawn: run .ci/apt systemd");
        let mut container = Self { nspawn, leader: 0 };
        let mut message = [0; 4096];
        loop {
            let length = socket.recv(&mut message).unwrap_or_else(|e| {
                let said = fs::read_to_string(folder.path().join("console")).unwrap_or_default();
                panic!("the container did not start within {DEADLINE:?} ({e}):\n{said}")
            });
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            let said = |key: &str| text.lines().find_map(|line| line.strip_prefix(key).map(str::to_owned));
            if let Some(pid) = said("X_NSPAWN_LEADER_PID=") {
                container.leader = pid.parse().unwrap();
            }
            if said("READY=") == Some("1".into()) {
                return container;
            }
        }
    }

    /// A command inside, to be given arguments.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.enter(&["--all"], program)
    }

    fn enter(&self, namespaces: &[&str], program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.leader.to_string()])
            .args(namespaces)
            .args(["--", program])
            .stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LANG", "C.UTF-8");
        // Of our own GStreamer processes; the service has its own place.
        command.env("XDG_CACHE_HOME", "/tmp/cache");
        command
    }

    /// Runs a command line inside, however it ends.
    pub(crate) fn attempt(&self, line: &[&str]) -> Output {
        self.command(line[0]).args(&line[1..]).output().unwrap()
    }

    /// Runs a command line inside that has to succeed, and gives back what it printed.
    pub(crate) fn run(&self, line: &[&str]) -> String {
        let output = self.attempt(line);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            let journal = self.attempt(&["journalctl", "--no-pager", "--lines=40"]).stdout;
            let journal = String::from_utf8_lossy(&journal);
            panic!("{line:?}: {}\n{said}{errors}\nthe journal:\n{journal}", output.status);
        }
        said
    }

    /// Runs a script of the shell inside that has to succeed.
    pub(crate) fn shell(&self, script: &str) -> String {
        self.run(&["bash", "-euo", "pipefail", "-c", script])
    }

    /// Starts a command line inside that goes on; lines come from its standard output. Its process is not among those of
    /// the container: it ends with its value, and cannot hold up the container's end.
    pub(crate) fn start(&self, line: &[&str]) -> Process {
        let mut command = self.enter(&["--mount", "--uts", "--ipc", "--net", "--root", "--wd"], line[0]);
        command.args(&line[1..]);
        Process::start(command, Stream::Stdout)
    }

    /// A file inside, seen from outside.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        Path::new("/proc").join(self.leader.to_string()).join("root").join(inside.trim_start_matches('/'))
    }

    /// Writes a file inside, with its folder.
    pub(crate) fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Everything in the file system, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut files: Vec<String> = self.run(&["find", "/", "-xdev"]).lines().map(str::to_owned).collect();
        files.sort();
        files
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Once is an orderly stop, with the file systems put away; nspawn answers a kill by killing everything inside.
        let orderly = self.leader != 0 && self.command("systemctl").arg("poweroff").status().is_ok_and(|s| s.success());
        if !orderly {
            let _ = self.nspawn.kill();
        }
        let _ = self.nspawn.wait();
    }
}
