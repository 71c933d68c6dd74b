//! What systemd knows of the service: asked once, as `systemctl show` prints it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::child;
use super::root::Root;

/// The service that is looked at.
pub const NAME: &str = "kinewatch.service";
const LIMIT: Duration = Duration::from_secs(5);
const PROPERTIES: &str = "LoadState,ActiveState,SubState,Result,StatusText,UnitFileState,NRestarts,NeedDaemonReload,\
     ExecMainCode,ExecMainStatus,MainPID,ExecStart,WatchdogUSec,User,SupplementaryGroups,DynamicUser,LoadCredential,\
     Environment,MemoryMax,MemoryCurrent,ControlGroup,DevicePolicy,PrivateDevices,PrivateTmp,ProtectHome,ProtectSystem,\
     ReadWritePaths,StateDirectory";

/// The service, as far as there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Another init runs this machine, or this container.
    NoSystemd,
    /// systemd does not answer, in words.
    Unknown(String),
    /// systemd has no such service.
    Absent,
    /// It is there.
    Known(Properties),
}

/// Properties by name; those that may be told several times have all values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, Vec<String>>);

impl Unit {
    /// Asks systemd. Blocks for 5 seconds at most.
    #[must_use]
    pub fn ask(root: &Root) -> Self {
        if !root.has("/run/systemd/system") {
            return Self::NoSystemd;
        }
        let mut command = Command::new("systemctl");
        command.args(["show", NAME, "--no-pager"]).arg(format!("--property={PROPERTIES}"));
        match child::run(command, LIMIT) {
            Ok(output) if output.status.success() => Self::parse(&output.stdout),
            Ok(output) => Self::Unknown(output.stderr.trim().to_owned()),
            Err(e) => Self::Unknown(e.to_string()),
        }
    }

    /// From the output of `systemctl show`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            all.entry(name.to_owned()).or_default().push(value.to_owned());
        }
        let properties = Properties(all);
        match properties.text("LoadState") {
            "" => Self::Unknown("systemctl show printed nothing".into()),
            "not-found" => Self::Absent,
            _ => Self::Known(properties),
        }
    }

    /// Its properties, when it is there.
    #[must_use]
    pub fn known(&self) -> Option<&Properties> {
        match self {
            Self::Known(properties) => Some(properties),
            _ => None,
        }
    }
}

impl Properties {
    /// A property's value, empty when it has none.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(|values| values.first()).map_or("", String::as_str)
    }

    /// A property that is a number; `infinity` and the like are none.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    /// Words of a property that is a list.
    pub fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().flat_map(|value| value.split_whitespace())
    }

    /// The daemon's process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.text("MainPID").parse().ok().filter(|pid| *pid > 0)
    }

    /// Where `LoadCredential=` takes each credential from.
    #[must_use]
    pub fn credentials(&self) -> BTreeMap<String, PathBuf> {
        let pairs = self.words("LoadCredential").filter_map(|word| word.split_once(':'));
        pairs.filter(|(_, path)| path.starts_with('/')).map(|(name, path)| (name.to_owned(), path.into())).collect()
    }

    /// Which setting keeps the service from seeing a path.
    #[must_use]
    pub fn hides(&self, path: &Path) -> Option<&'static str> {
        let below = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
        match self.text("ProtectHome") {
            "yes" | "true" if below(&["/home", "/root", "/run/user"]) => return Some("ProtectHome=yes"),
            "tmpfs" if below(&["/home", "/root", "/run/user"]) => return Some("ProtectHome=tmpfs"),
            _ => {}
        }
        (self.text("PrivateTmp") == "yes" && below(&["/tmp", "/var/tmp"])).then_some("PrivateTmp=yes")
    }

    /// Whether the service sees a path as one that can be written.
    #[must_use]
    pub fn lets_write(&self, path: &Path) -> bool {
        let state = self.words("StateDirectory").map(|name| Path::new("/var/lib").join(name));
        let named = self.words("ReadWritePaths").map(|path| PathBuf::from(path.trim_start_matches(['-', '+'])));
        self.text("ProtectSystem") != "strict" || state.chain(named).any(|open| path.starts_with(open))
    }

    /// A variable of `Environment=`.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.words("Environment").filter_map(|word| word.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The configuration that `ExecStart=` names.
    #[must_use]
    pub fn config(&self) -> Option<PathBuf> {
        let mut words = self.words("ExecStart");
        words.find(|word| matches!(*word, "--config" | "-c"))?;
        words.next().map(PathBuf::from)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A healthy service, as systemd 252 prints it.
    pub(crate) const RUNNING: &str = "\
ExecMainCode=0
ExecMainStatus=0
ExecStart={ path=/usr/bin/kinewatch ; argv[]=/usr/bin/kinewatch run --config /etc/kinewatch/kinewatch.toml ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
MainPID=412
Result=success
NRestarts=0
WatchdogUSec=30s
StatusText=watching 2 cameras
ControlGroup=/system.slice/kinewatch.service
MemoryCurrent=[not set]
MemoryMax=infinity
Environment=ORT_DYLIB_PATH=/opt/ort/libonnxruntime.so TZ=UTC
LoadCredential=mqtt-user:/etc/kinewatch/credentials/mqtt-user
LoadCredential=mqtt-password:/etc/kinewatch/credentials/mqtt-password
User=kinewatch
SupplementaryGroups=video render
DynamicUser=no
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
NeedDaemonReload=no
PrivateTmp=yes
";

    #[test]
    fn what_a_unit_hides_is_known() {
        let unit = Unit::parse(&format!(
            "{RUNNING}ProtectHome=yes\nProtectSystem=strict\nReadWritePaths=-/data/x /srv\nStateDirectory=kinewatch\n"
        ));
        let known = unit.known().unwrap();
        let hidden = |path: &str| known.hides(Path::new(path));
        assert_eq!((hidden("/home/joe/m"), hidden("/tmp/a.mp4")), (Some("ProtectHome=yes"), Some("PrivateTmp=yes")));
        assert_eq!((hidden("/homes"), hidden("/opt/models")), (None, None));
        let writable = |path: &str| known.lets_write(Path::new(path));
        assert!(
            writable("/var/lib/kinewatch") && writable("/data/x/state") && writable("/srv") && !writable("/data/y")
        );
        let loose = Unit::parse("LoadState=loaded\nProtectSystem=full\nProtectHome=no\nPrivateTmp=no\n");
        assert!(loose.known().unwrap().lets_write(Path::new("/data/y")));
    }

    #[test]
    fn the_output_of_systemctl_is_read() {
        let unit = Unit::parse(RUNNING);
        let known = unit.known().unwrap();
        assert_eq!(known.pid(), Some(412));
        assert_eq!(known.config().unwrap(), PathBuf::from("/etc/kinewatch/kinewatch.toml"));
        assert_eq!(known.words("SupplementaryGroups").collect::<Vec<_>>(), ["video", "render"]);
        assert_eq!(known.credentials()["mqtt-password"], PathBuf::from("/etc/kinewatch/credentials/mqtt-password"));
        assert_eq!(known.variable("ORT_DYLIB_PATH"), Some("/opt/ort/libonnxruntime.so"));
        assert_eq!((known.number("MemoryMax"), known.number("NRestarts")), (None, Some(0)));
        assert_eq!(Unit::parse("LoadState=not-found\nActiveState=inactive\n"), Unit::Absent);
        assert!(matches!(Unit::parse(""), Unit::Unknown(_)));
    }
}
