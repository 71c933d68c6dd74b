//! The database of events: whole, and what waits in it.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kinewatch_store::{Inspected, StoreError, inspect};

use super::size;
use crate::doctor::{About, Context, Finding};

/// An event that waits longer has a reason that somebody should know, while the daemon runs.
const LONG: Duration = Duration::from_secs(300);

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let Some(dir) = context.state_dir() else { return vec![about.skip("[device] state_dir is not known")] };
    let path = dir.join("events.db");
    let mut found = Vec::new();
    match path.try_exists() {
        Err(e) => return vec![about.skip(format!("{}: {e}; sudo kinewatch doctor may look", path.display()))],
        Ok(false) => found.push(about.ok(format!("{}: none yet; the first start makes it", path.display()))),
        Ok(true) => match inspect(&path) {
            Ok(inspected) => found.extend(judge(&path, inspected, context.daemon.is_some(), about)),
            Err(e @ StoreError::Corrupt { .. }) => {
                found.push(about.fail(format!("{e}; restart kinewatch, and test the disk")));
            }
            Err(e) => found.push(about.fail(e.to_string())),
        },
    }
    found.extend(set_aside(dir, about));
    found
}

fn judge(path: &Path, found: Inspected, runs: bool, about: &About) -> Vec<Finding> {
    let shown = path.display();
    let Inspected { waiting, bytes, parked, open_actions, .. } = found;
    let mut told = vec![match age(&found) {
        Some(age) if runs && age > LONG => about.warn(format!(
            "{shown}: {waiting} events ({}) wait for the broker, the oldest for {} min; see broker",
            size(bytes),
            age.as_secs() / 60
        )),
        _ => about.ok(format!("{shown}: whole; waiting for the broker: {waiting}, open actions: {open_actions}")),
    }];
    if parked > 0 {
        told.push(about.warn(format!(
            "{shown}: events that the broker refused for good: {parked}; see its access rules and limits"
        )));
    }
    told
}

fn age(found: &Inspected) -> Option<Duration> {
    let oldest = u64::try_from(found.oldest_unix_ns?).ok()?;
    SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_nanos(oldest)).ok()
}

/// Damaged files of the past.
fn set_aside(dir: &Path, about: &About) -> Option<Finding> {
    let entries = fs::read_dir(dir).ok()?.filter_map(Result::ok);
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let damaged =
        |name: &String| name.starts_with("events.db.corrupt-") && !name.ends_with("-wal") && !name.ends_with("-shm");
    let count = names.filter(damaged).count();
    let files = if count == 1 { "damaged database was" } else { "damaged databases were" };
    (count > 0).then(|| {
        about.warn(format!(
            "{count} {files} set aside in {}; test the disk, then remove events.db.corrupt-*",
            dir.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::told;

    #[test]
    fn what_waits_is_told_and_how_long() {
        let about = About::check("database");
        let path = Path::new("/var/lib/kinewatch/events.db");
        let old = Some(1_000_000_000);
        let inspected = |waiting, parked, oldest_unix_ns| Inspected {
            waiting,
            bytes: 4096,
            oldest_unix_ns,
            parked,
            open_actions: 1,
        };
        let lines = |found, runs| told(&judge(path, found, runs, &about));
        let quiet = "ok /var/lib/kinewatch/events.db: whole; waiting for the broker: 0, open actions: 1";
        assert_eq!(lines(inspected(0, 0, None), true), [quiet]);
        assert!(lines(inspected(5, 0, old), true)[0].starts_with("warn"));
        assert!(lines(inspected(5, 0, old), false)[0].starts_with("ok"), "nobody sends while it does not run");
        let parked = lines(inspected(1, 2, None), true);
        assert!(parked[0].contains("broker: 1") && parked[1].contains("refused for good: 2"), "{parked:?}");
    }

    #[test]
    fn damaged_files_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let about = About::check("database");
        assert_eq!(set_aside(dir.path(), &about), None);
        for name in ["events.db.corrupt-1", "events.db.corrupt-1-wal", "events.db.corrupt-2"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert!(set_aside(dir.path(), &about).unwrap().message.starts_with("2 damaged databases"));
    }
}
