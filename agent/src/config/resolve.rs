//! From the file's words to a [`Plan`]: names, references, addresses, secrets, models, devices.
//!
//! Collects every problem instead of stopping at the first, each at the line of the value that causes it. Reads files and
//! looks at devices only with [`Probe::Machine`].

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use super::document::{Document, Problem, Seg, Severity, key};
use super::file::{Backend, Device, File, Log, Platform, Precision, Provider, Web};
use super::plan::{DevicePlan, EnginePlan, LogPlan, Parts};
use super::secret::{self, Secret};
use super::{Environment, Probe, broker, cameras, models, outbox, updates};

/// Collects problems and knows where paths start.
pub(super) struct Resolver<'r> {
    pub(super) document: &'r Document<'r>,
    pub(super) base: PathBuf,
    pub(super) environment: &'r Environment,
    pub(super) probe: Probe,
    pub(super) problems: Vec<Problem>,
}

/// As much of the plan as could be made, and every problem. Nothing of the machine is in it with [`Probe::FileOnly`].
pub(super) fn resolve(file: &File, mut r: Resolver<'_>) -> (Parts, Vec<Problem>) {
    let device = r.device(&file.device);
    let mqtt = broker::resolve(&mut r, &file.mqtt, device.as_ref());
    let outbox = outbox::resolve(&file.outbox);
    let web = r.web(&file.web);
    let log = r.log(&file.log);
    let engine = r.engine(&file.engine);
    let updates = updates::resolve(&mut r, &file.updates);
    let models = models::resolve(&mut r, &file.model, &engine);
    let cameras = cameras::resolve(&mut r, &file.camera, &models);
    // The broker inside speaks MQTT 5 on its port and 3.1.1 on the next.
    if let (Some(web), Some(broker)) = (web, mqtt.as_ref().and_then(|m| m.embedded))
        && (broker.port()..=broker.port().saturating_add(1)).contains(&web.port())
    {
        r.error(&key!["web", "listen"], format!("[web] listen: port {} is used by the embedded broker, which takes the port of [mqtt] url and the next; choose another", web.port()));
    }
    let (log, outbox, engine) = (Some(log), Some(outbox), Some(engine));
    (Parts { device, mqtt, outbox, web, log, engine, updates, models: models.plans, cameras }, r.problems)
}

impl Resolver<'_> {
    pub(super) fn error(&mut self, at: &[Seg], message: impl Into<String>) {
        self.tell(Severity::Error, at, message.into());
    }

    pub(super) fn warn(&mut self, at: &[Seg], message: impl Into<String>) {
        self.tell(Severity::Warning, at, message.into());
    }

    fn tell(&mut self, severity: Severity, at: &[Seg], message: String) {
        let at = Some(self.document.locate(at));
        self.problems.push(Problem { severity, at, message });
    }

    pub(super) fn looks_at_machine(&self) -> bool {
        self.probe != Probe::FileOnly
    }

    /// Paths are relative to the configuration file.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// True when `text` may stand in a topic.
    pub(super) fn name(&mut self, text: &str, at: &[Seg], of: &str) -> bool {
        let ok = kinewatch_core::name::is_name(text);
        if !ok {
            let suggestion: String = to_name(text);
            let advice = if suggestion.is_empty() {
                "for example \"front\"".to_owned()
            } else {
                format!("for example \"{suggestion}\"")
            };
            self.error(
                at,
                format!("{of}: name \"{text}\" is not allowed in topics; use 1 to 64 of a-z, 0-9, _ and -, {advice}"),
            );
        }
        ok
    }

    /// Reads a secret file, and warns when everybody can. `None` when it was told as a problem or not looked at.
    pub(super) fn secret(&mut self, reference: Option<&String>, at: &[Seg], of: &str) -> Option<(Secret, PathBuf)> {
        let reference = reference?;
        if self.probe != Probe::Machine {
            return None;
        }
        if secret::looks_like_login(reference, &self.base) {
            self.error(
                at,
                format!("{of}: names a file, and what stands there looks like user:password; put that into a file with mode 0600, and its name here"),
            );
            return None;
        }
        let of_service = reference.strip_prefix("credential:").and_then(|name| self.environment.credentials.get(name));
        let found = of_service
            .map_or_else(
                || secret::locate(reference, &self.base, self.environment.credentials_directory.as_deref()),
                |path| Ok(path.clone()),
            )
            .and_then(|path| secret::read(&path).map(|loaded| (loaded, path)));
        match found {
            Ok((loaded, path)) => {
                if let Some(exposed) = loaded.exposed {
                    self.warn(at, format!("{of}: {exposed}"));
                }
                Some((loaded.text, path))
            }
            Err(message) => {
                self.error(at, format!("{of}: {message}"));
                None
            }
        }
    }

    fn device(&mut self, device: &Device) -> Option<DevicePlan> {
        let name = match &device.name {
            Some(name) if name == kinewatch_core::topic::ALL => {
                self.error(
                    &key!["device", "name"],
                    "[device]: \"_all\" stands for every device of a group; choose another name",
                );
                None
            }
            Some(name) => self.name(name, &key!["device", "name"], "[device]").then(|| name.clone()),
            None => {
                let host = to_name(&self.environment.host_name);
                if host.is_empty() {
                    self.error(&key!["device"], "[device]: this machine has no host name; add name = \"…\"");
                }
                Some(host).filter(|h| !h.is_empty())
            }
        };
        let group_ok = self.name(&device.group, &key!["device", "group"], "[device]");
        let state_dir = super::state_dir_of(device, &self.base, self.environment);
        if self.looks_at_machine()
            && let Err(e) = writable(&state_dir)
        {
            let (shown, at) = (state_dir.display(), key!["device", "state_dir"]);
            use std::io::ErrorKind as Kind;
            match e.kind() {
                // This may pass while the daemon runs, which waits for it.
                Kind::StorageFull | Kind::QuotaExceeded | Kind::ReadOnlyFilesystem => self.warn(&at, format!("[device] state_dir: {shown} cannot be written now: {e}; until it can, events wait in memory and are not published")),
                _ => self.error(&at, format!("[device] state_dir: {shown} cannot be written: {e}; give it to the user that runs kinewatch, or name another")),
            }
        }
        let platform = platform(device.platform);
        Some(DevicePlan { name: name?, group: group_ok.then(|| device.group.clone())?, state_dir, platform })
    }

    fn web(&mut self, web: &Web) -> Option<SocketAddr> {
        let at = key!["web", "listen"];
        if web.listen == "off" {
            return None;
        }
        let address = web.listen.parse::<SocketAddr>().ok().or_else(|| {
            let (host, _) = web.listen.rsplit_once(':')?;
            (host == "localhost").then(|| web.listen.to_socket_addrs().ok()?.find(SocketAddr::is_ipv4))?
        });
        match address {
            Some(address) => {
                if !address.ip().is_loopback() {
                    self.warn(&at, format!("[web] listen: {address} can be reached from other machines and asks for no password; 127.0.0.1 is safer"));
                }
                Some(address)
            }
            None => {
                let text = kinewatch_capture::redact_address(&web.listen);
                self.error(&at, format!("[web] listen: \"{text}\" is not an address; write 127.0.0.1:8089, or off"));
                None
            }
        }
    }

    fn log(&mut self, log: &Log) -> LogPlan {
        if let Err(message) = crate::logging::check_level(&log.level) {
            self.error(&key!["log", "level"], format!("[log] level: {message}"));
        }
        LogPlan { format: log.format, level: log.level.clone() }
    }

    fn engine(&mut self, engine: &super::file::Engine) -> EnginePlan {
        let at = |k: &str| key!["engine", k];
        let library = engine.ort_library.as_ref().map(|p| self.path(p));
        if let Some(library) = library.as_ref().filter(|l| self.looks_at_machine() && !l.is_file()) {
            let shown = library.display();
            self.error(
                &at("ort_library"),
                format!("[engine] ort_library: {shown} is not a file; name libonnxruntime.so, or leave the key out"),
            );
        }
        if engine.providers.is_empty() {
            self.error(
                &at("providers"),
                "[engine] providers: the list is empty; write [\"cpu\"], or leave the key out",
            );
        }
        if let Some(required) = engine.require_provider.filter(|p| !engine.providers.contains(p)) {
            let word = format!("{required:?}").to_lowercase();
            self.error(
                &at("require_provider"),
                format!("[engine] require_provider: \"{word}\" is not among providers; add it there"),
            );
        }
        if let Some(reason) = no_fp16(engine) {
            self.error(
                &at("precision"),
                format!(
                    "[engine] precision: \"fp16\" is TensorRT's alone, and {reason}; write \"auto\" or \"fp32\", or change that"
                ),
            );
        }
        EnginePlan {
            backend: engine.backend,
            precision: engine.precision,
            ort_library: library,
            providers: engine.providers.clone(),
            require_provider: engine.require_provider,
            threads: engine.threads as usize,
            max_batch: engine.max_batch as usize,
        }
    }
}

/// What keeps TensorRT out, where fp16 asks for it.
fn no_fp16(engine: &super::file::Engine) -> Option<&'static str> {
    if engine.precision != Precision::Fp16 {
        return None;
    }
    if engine.backend == Backend::Tract {
        Some("backend is \"tract\"")
    } else if !engine.providers.contains(&Provider::Tensorrt) {
        Some("\"tensorrt\" is not among providers")
    } else if engine.require_provider.is_some_and(|required| required != Provider::Tensorrt) {
        Some("require_provider permits another provider alone")
    } else {
        None
    }
}

/// Tells of names that occur twice. `what` is the table.
pub(super) fn twice<'n>(r: &mut Resolver<'_>, what: &str, names: impl Iterator<Item = (usize, &'n str)>) {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, name) in names {
        if let Some(earlier) = first.get(name) {
            let line = r.document.locate(&key![what, *earlier, "name"]).line;
            r.error(
                &key![what, index, "name"],
                format!("[[{what}]]: name \"{name}\" is used twice, first in line {line}; rename one"),
            );
        } else {
            first.insert(name, index);
        }
    }
}

/// The nearest text that may stand in a topic.
fn platform(written: Platform) -> Option<kinewatch_capture::Platform> {
    use kinewatch_capture::Platform as Family;
    Some(match written {
        Platform::Auto => return None,
        Platform::Software => Family::Software,
        Platform::VaApi => Family::VaApi,
        Platform::NvCodec => Family::NvCodec,
        Platform::Jetpack5 => Family::Jetpack5,
        Platform::Jetpack6 => Family::Jetpack6,
        Platform::Jetpack7 => Family::Jetpack7,
    })
}

fn to_name(text: &str) -> String {
    kinewatch_core::name::slug(text).trim_matches('-').to_owned()
}

/// Checks that a directory can be written, or made. Leaves nothing behind.
fn writable(dir: &Path) -> std::io::Result<()> {
    let existing = dir.ancestors().find(|d| d.exists()).unwrap_or(Path::new("/"));
    if !existing.is_dir() {
        return Err(std::io::Error::other(format!("{} is not a directory", existing.display())));
    }
    let probe = existing.join(format!(".kinewatch-write-test-{}", std::process::id()));
    let written = std::fs::write(&probe, b"x");
    // On a full disk the file is there all the same.
    let removed = std::fs::remove_file(&probe);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_become_names() {
        assert_eq!(
            (to_name("Jetson.local"), to_name("…"), to_name("a b")),
            ("jetson-local".into(), String::new(), "a-b".into())
        );
    }
}
