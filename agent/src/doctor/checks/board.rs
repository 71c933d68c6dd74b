//! Which board this is, and what a service on a Jetson needs beside a camera: groups that may open the GPU, and the daemon of
//! CSI cameras.

use kinewatch_capture::Source;

use crate::board;
use crate::doctor::root::Root;
use crate::doctor::{About, Context, Finding};

/// Whose device nodes the GPU, the decoders and the cameras are.
const GROUPS: [&str; 2] = ["video", "render"];
const ARGUS: &str = "nvargus-daemon";

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let root = &context.root;
    let Some(model) = board::model(root).or_else(|| board::is_jetson(root).then(|| "a Jetson".into())) else {
        return vec![about.skip("this machine does not tell which board it is")];
    };
    if !board::is_jetson(root) {
        return vec![about.ok(model)];
    }
    let mut found: Vec<Finding> = [groups(context, about), argus(context, about)].into_iter().flatten().collect();
    if found.is_empty() {
        found.push(about.ok(format!("{model}, {}", release(root))));
    }
    found
}

fn release(root: &Root) -> String {
    match (board::l4t(root), board::jetpack(root)) {
        (Some(l4t), Some(jetpack)) => format!("L4T {l4t} ({jetpack})"),
        _ => "its release of L4T is not known".into(),
    }
}

/// Groups that exist here and lack the daemon's user. `render` does not exist on every image.
fn groups(context: &Context, about: &About) -> Option<Finding> {
    let who = &context.identity;
    let table = context.root.read("/etc/group")?;
    let exists = |group: &str| table.lines().any(|line| line.split(':').next() == Some(group));
    let own = who.groups(&context.root);
    let lacks: Vec<&str> = GROUPS.into_iter().filter(|g| exists(g) && !own.iter().any(|o| o == g)).collect();
    if who.is_root() || lacks.is_empty() {
        return None;
    }
    let (name, groups) = (&who.name, lacks.join(","));
    Some(about.fail(format!(
        "{name} is not in {}, whose are the GPU, the decoders and the cameras of a Jetson; usermod -a -G {groups} {name}, \
         then restart kinewatch",
        lacks.join(" and ")
    )))
}

/// Only those who have a CSI camera need it.
fn argus(context: &Context, about: &About) -> Option<Finding> {
    let cameras = context.config.parts.cameras.iter().flatten();
    let csi: Vec<_> = cameras.filter(|c| matches!(c.source, Source::Csi { .. })).map(|c| c.name.as_str()).collect();
    let dead = !csi.is_empty() && argus_runs(&context.root) == Some(false);
    dead.then(|| {
        about.fail(format!(
            "{ARGUS} does not run, so {} cannot give pictures; systemctl restart {ARGUS}, and see journalctl -u {ARGUS}",
            csi.join(" and ")
        ))
    })
}

/// Whether the daemon of CSI cameras runs; `None` where processes of others are not shown.
pub(super) fn argus_runs(root: &Root) -> Option<bool> {
    let name = |pid: &String| root.read(format!("/proc/{pid}/comm"));
    root.read("/proc/1/comm")?;
    let processes = root.names("/proc", "").into_iter().filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()));
    Some(processes.into_iter().any(|pid| name(&pid).as_deref() == Some(ARGUS)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kinewatch_engine::{LibraryInfo, LibrarySearch, Provider};

    use super::*;
    use crate::board::trees;
    use crate::config::{self, Environment, Probe};
    use crate::doctor::checks::{accelerator, inference, jetson, memory};
    use crate::doctor::identity::Identity;
    use crate::doctor::tests::{context, told};

    const CONFIG: &str = "[device]\nname = \"box\"\nstate_dir = \"state\"\n[mqtt]\nurl = \"mqtt://127.0.0.1\"\n\
        [[model]]\nname = \"m\"\npath = \"/nowhere\"\n[[camera]]\nname = \"door\"\nsource = \"csi:0\"\nmodels = [\"m\"]\n";

    type Check = (&'static str, fn(&Context, &About) -> Vec<Finding>);

    /// What the checks of the board say of these trees, a line each.
    fn report(names: &[&str]) -> String {
        let dir = trees::plant(names);
        let root = Root::below(dir.path());
        let mut context = context(dir.path(), &[("/etc/kinewatch/kinewatch.toml", CONFIG)]);
        let config = root.at("/etc/kinewatch/kinewatch.toml");
        context.config = config::check(&config, &Environment::default(), Probe::FileOnly);
        assert_eq!(context.config.parts.cameras.iter().flatten().count(), 1, "{:?}", context.config);
        context.identity = Identity::of_user(&root, "kinewatch", &[]).unwrap();
        let found =
            root.names("/usr/lib/kinewatch/onnxruntime", "libonnxruntime.so.").pop().map(|library| LibraryInfo {
                path: "/usr/lib/kinewatch/onnxruntime/libonnxruntime.so".into(),
                version: library.trim_start_matches("libonnxruntime.so.").to_owned(),
                providers: Provider::ALL.to_vec(),
            });
        context.library.set(LibrarySearch { found, refused: Vec::new() }).unwrap();
        // The linker has nothing to say against what lies there.
        context.program = "/bin/true".into();
        let checks: [Check; 6] = [
            ("board", check),
            ("inference", inference::check),
            ("accelerator", accelerator::check),
            ("memory", memory::check),
            ("thermal", jetson::thermal),
            ("power", jetson::power),
        ];
        let of = |(name, check): Check| {
            told(&check(&context, &About::check(name))).into_iter().map(move |line| format!("{name}: {line}"))
        };
        checks.into_iter().flat_map(of).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn boards_in_health_and_in_trouble() {
        let healthy = "orin-nano-jp62";
        let mut all = format!("# {healthy}\n{}\n", report(&[healthy]));
        for trouble in ["no-video-group", "nvargus-dead", "no-cudnn", "no-onnxruntime", "throttled"] {
            let name = format!("{healthy}-{trouble}");
            all += &format!("\n# {name}\n{}\n", report(&[healthy, &name]));
        }
        all += &format!("\n# thor-jp7\n{}\n", report(&["thor-jp7"]));
        insta::assert_snapshot!("boards", all);
    }

    #[test]
    fn a_daemon_of_others_that_is_not_shown_is_not_called_dead() {
        let dir = trees::plant(&["orin-nano-jp62"]);
        let root = Root::below(dir.path());
        assert_eq!(argus_runs(&root), Some(true));
        fs::remove_dir_all(root.at("/proc/812")).unwrap();
        assert_eq!(argus_runs(&root), Some(false));
        fs::remove_dir_all(root.at("/proc/1")).unwrap();
        assert_eq!(argus_runs(&root), None);
    }

    #[test]
    fn another_board_is_named_and_no_board_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let about = About::check("board");
        let none = context(dir.path(), &[]);
        assert!(told(&check(&none, &about))[0].starts_with("skip"));
        let pi = context(dir.path(), &[("/proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")]);
        assert_eq!(told(&check(&pi, &about)), ["ok Raspberry Pi 5 Model B Rev 1.0"]);
    }
}
