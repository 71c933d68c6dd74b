//! Whether the daemon's user may read and write what it has to, and whether others may not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kinewatch_capture::Source;

use crate::config;
use crate::config::file::File;
use crate::doctor::identity::{Denied, Want, user_name};
use crate::doctor::{About, Context, Finding};

/// Entries of the state directory that are looked at, at most.
const MAX_ENTRIES: usize = 1000;

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let mut found = Vec::new();
    let config = &context.config.path;
    if config.exists() {
        found.extend(denied(
            about,
            context.identity.may(&context.root, config, Want::Read),
            "chmod o+r, or give it to that user",
        ));
        found.extend(changed_by_others(about, config));
    }
    for path in secrets(context) {
        // What systemd hands over is read by root; a plain file by the daemon itself.
        found.extend(denied(
            about,
            context.identity.may(&context.root, &path, Want::Read),
            "give it to that user, mode 0600",
        ));
        found.extend(changed_by_others(about, &path));
    }
    if let Some(dir) = context.state_dir().filter(|dir| dir.exists()) {
        found.extend(state_dir(context, about, dir));
    }
    found.extend(hidden(context, about));
    if found.is_empty() {
        let who = &context.identity;
        let groups = who.groups(&context.root).join(", ");
        found.push(match who.is_root() {
            true => about.ok("root may read and write everything; a service needs a user of its own"),
            false => about.ok(format!("{} (groups {groups}) may read and write what it has to", who.name)),
        });
    }
    found
}

fn state_dir(context: &Context, about: &About, dir: &Path) -> Vec<Finding> {
    let who = &context.identity;
    let mut found = Vec::new();
    let repair = format!("chown -R {} {}", who.name, dir.display());
    if let Err(e) = who.may(&context.root, dir, Want::Directory) {
        return vec![about.fail(format!("{e}; {repair}"))];
    }
    let mode = fs::metadata(dir).map_or(0, |meta| meta.permissions().mode() & 0o7777);
    if mode & 0o007 != 0 {
        let shown = dir.display();
        found.push(about.warn(format!(
            "{shown} is open to everybody (mode {mode:04o}), and it tells what people did; chmod o-rwx {shown}"
        )));
    }
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries.filter_map(Result::ok).take(MAX_ENTRIES),
        Err(e) => return vec![about.skip(format!("{}: {e}; sudo kinewatch doctor may look", dir.display()))],
    };
    let foreign = entries.filter(|entry| entry.path().is_file()).find_map(|entry| {
        let path = entry.path();
        who.may(&context.root, &path, Want::Write).err().map(|_| path)
    });
    if let Some(path) = foreign {
        let owner = fs::metadata(&path).map_or_else(|_| "?".into(), |meta| user_name(&context.root, meta.uid()));
        let (path, name) = (path.display(), &who.name);
        found.push(about.fail(format!(
            "{path} belongs to {owner}, {name} may not write it; was kinewatch run by hand as {owner}? {repair}"
        )));
    }
    found
}

/// What the service does not see as others do, since systemd confines it.
fn hidden(context: &Context, about: &About) -> Vec<Finding> {
    let Some(unit) = context.unit.known().filter(|unit| unit.config().as_ref() == Some(&context.config.path)) else {
        return Vec::new();
    };
    let parts = &context.config.parts;
    let videos = parts.cameras.iter().flatten().filter_map(|camera| match &camera.source {
        Source::File { path, .. } => Some(path.as_path()),
        _ => None,
    });
    let models = parts.models.iter().flatten().map(|model| model.path.as_path());
    let not_seen =
        context.state_dir().into_iter().chain(models).chain(videos).filter_map(|path| {
            let setting = unit.hides(path)?;
            let (shown, off) = (path.display(), setting.split('=').next().unwrap_or_default());
            Some(about.fail(format!(
                "the service does not see {shown} ({setting}); move it, or write {off}=no into a drop-in"
            )))
        });
    let not_written = context.state_dir().filter(|dir| !unit.lets_write(dir)).map(|dir| {
        let shown = dir.display();
        about.fail(format!(
            "the service may not write into {shown} (ProtectSystem=strict); write ReadWritePaths={shown} into a drop-in"
        ))
    });
    not_seen.chain(not_written).collect()
}

fn denied(about: &About, result: Result<(), Denied>, repair: &str) -> Option<Finding> {
    result.err().map(|e| about.fail(format!("{e}; {repair}")))
}

fn changed_by_others(about: &About, path: &Path) -> Option<Finding> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    let shown = path.display();
    (mode & 0o002 != 0)
        .then(|| about.warn(format!("{shown} may be changed by everybody (mode {mode:04o}); chmod o-w {shown}")))
}

/// Secret files that the daemon reads itself: those of the configuration that are no credentials.
fn secrets(context: &Context) -> Vec<PathBuf> {
    let Some(file) = &context.config.file else { return Vec::new() };
    let base = config::base_of(&context.config.path);
    let named = references(file).filter(|name| !name.starts_with("credential:"));
    named.map(|name| base.join(name)).filter(|path| path.exists()).collect()
}

fn references(file: &File) -> impl Iterator<Item = &String> {
    let mqtt = [&file.mqtt.username_file, &file.mqtt.password_file, &file.mqtt.key_file];
    let cameras = file.camera.iter().flat_map(|c| [&c.credentials_file, &c.username_file, &c.password_file]);
    mqtt.into_iter().chain(cameras).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::{context, told};

    #[test]
    fn a_state_directory_of_another_user_is_told_with_the_command() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        fs::write(state.join("events.db"), "").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set(&state, 0o755);
        let context = context(dir.path(), &[("/etc/passwd", "kinewatch:x:990:980::/:/bin/false\n")]);
        let about = About::check("permissions");
        let line = &told(&state_dir(&context, &about, &state))[0];
        assert!(line.starts_with("fail kinewatch may not write into") && line.contains("chown -R kinewatch"), "{line}");
        set(&state, 0o777);
        set(&state.join("events.db"), 0o644);
        let lines = told(&state_dir(&context, &about, &state));
        assert!(lines[0].starts_with("warn") && lines[0].contains("open to everybody (mode 0777)"), "{lines:?}");
        assert!(lines[1].starts_with("fail") && lines[1].contains("events.db belongs to"), "{lines:?}");
    }
}
