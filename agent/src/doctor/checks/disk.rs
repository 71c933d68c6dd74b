//! The disk under the state directory: what kind it is, what is free, and how long a write takes to be safe.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{duration, size};
use crate::doctor::root::Root;
use crate::doctor::{About, Context, Finding};

/// Below this much free space nothing can be promised, bytes.
const FAIL_BYTES: u64 = 16 << 20;
/// The outbox may grow to 64 MiB, its log beside it, and a new model or engine comes on top.
const WARN_BYTES: u64 = 256 << 20;
const FAIL_INODES: u64 = 16;
const WARN_INODES: u64 = 1000;
/// Every commit of an event waits for one sync.
const SLOW_SYNC: Duration = Duration::from_millis(250);

/// A mounted file system.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    kind: String,
    read_only: bool,
}

/// Free space and inodes; no inodes where the file system does not count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Free {
    bytes: u64,
    inodes: Option<u64>,
}

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let Some(dir) = context.state_dir() else { return vec![about.skip("[device] state_dir is not known")] };
    // A directory that is made at the first start lies where its nearest ancestor lies.
    let Some(there) = dir.ancestors().find(|d| d.is_dir()) else {
        return vec![about.fail(format!("{} is not there", dir.display()))];
    };
    let real = fs::canonicalize(there).unwrap_or_else(|_| there.to_owned());
    let mount = mount_of(&context.root, &real);
    let free = match rustix::fs::statvfs(&real) {
        Ok(stat) => Free {
            bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            inodes: (stat.f_files > 0).then_some(stat.f_favail),
        },
        Err(e) => return vec![about.fail(format!("{}: {e}; check the file system", real.display()))],
    };
    let mut found = judge(&real, mount.as_ref(), free, about);
    match sync_time(&real) {
        Ok(time) if time > SLOW_SYNC => found.push(about.warn(format!(
            "{}: a small write takes {} to be safe, and every event waits for one; is the card worn, or the disk busy?",
            real.display(),
            duration(time)
        ))),
        Ok(time) if found.is_empty() => {
            let kind = mount.map_or_else(String::new, |m| format!(" ({})", m.kind));
            found.push(about.ok(format!(
                "{}{kind}: {} free, a write is safe in {}",
                real.display(),
                size(free.bytes),
                duration(time)
            )));
        }
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::PermissionDenied && !context.identity.is_us => {
            found.push(about.skip(format!("{}: sudo kinewatch doctor may try to write", real.display())));
        }
        Err(e) => found
            .push(about.fail(format!("{}: a test file cannot be written: {e}; check disk and mount", real.display()))),
    }
    found
}

fn judge(dir: &Path, mount: Option<&Mount>, free: Free, about: &About) -> Vec<Finding> {
    let mut found = Vec::new();
    let shown = dir.display();
    if let Some(mount) = mount {
        let point = mount.point.display();
        let kind = mount.kind.as_str();
        match kind {
            _ if mount.read_only => found.push(about.fail(format!("{shown}: {point} is mounted read-only; did the kernel find errors (dmesg)? mount -o remount,rw {point}"))),
            "tmpfs" | "ramfs" => found.push(about.warn(format!("{shown} is in memory ({kind}): events that wait are lost with the power; set [device] state_dir to a disk"))),
            "overlay" => found.push(about.warn(format!("{shown} is a container's own layer ({kind}), which goes with the container; mount a volume there"))),
            "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "fuse.sshfs" | "ceph" | "glusterfs" => {
                found.push(about.warn(format!("{shown} is on the network ({kind}), where locks and syncs are not to be relied on; set [device] state_dir to a local disk")));
            }
            _ => {}
        }
    }
    let advice = "free some, or set [device] state_dir to another disk (with ReadWritePaths= for it in a drop-in)";
    match free.bytes {
        bytes if bytes < FAIL_BYTES => {
            found.push(about.fail(format!("{shown}: only {} are free; {advice}", size(bytes))))
        }
        bytes if bytes < WARN_BYTES => {
            found.push(about.warn(format!("{shown}: only {} are free; {advice}", size(bytes))))
        }
        _ => {}
    }
    match free.inodes {
        Some(n) if n < FAIL_INODES => {
            found.push(about.fail(format!("{shown}: only {n} more files can be made; remove some")))
        }
        Some(n) if n < WARN_INODES => {
            found.push(about.warn(format!("{shown}: only {n} more files can be made; remove some")))
        }
        _ => {}
    }
    found
}

/// Writes a page and waits until it is on the disk. Removes it again.
fn sync_time(dir: &Path) -> std::io::Result<Duration> {
    let path = dir.join(format!(".kinewatch-doctor-{}", std::process::id()));
    let begin = Instant::now();
    let written = OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.sync_all()
    });
    let took = begin.elapsed();
    let removed = fs::remove_file(&path);
    written.and(removed).map(|()| took)
}

/// The file system that holds a path: the last of the longest mount points above it.
fn mount_of(root: &Root, path: &Path) -> Option<Mount> {
    let table = root.read("/proc/self/mountinfo")?;
    let mounts = table.lines().filter_map(mount).filter(|m| path.starts_with(&m.point));
    mounts.max_by_key(|m| m.point.as_os_str().len())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue` (proc(5)).
fn mount(line: &str) -> Option<Mount> {
    let (own, system) = line.split_once(" - ")?;
    let own: Vec<&str> = own.split(' ').collect();
    let system: Vec<&str> = system.split(' ').collect();
    let read_only = |options: &str| options.split(',').any(|o| o == "ro");
    Some(Mount {
        point: unescaped(own.get(4)?).into(),
        kind: (*system.first()?).to_owned(),
        read_only: read_only(own.get(5)?) || system.get(2).is_some_and(|o| read_only(o)),
    })
}

/// Blanks and the like are octal there.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::{context, told};

    #[test]
    fn the_file_system_is_the_nearest_above() {
        let dir = tempfile::tempdir().unwrap();
        let table = "25 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
                     30 25 0:26 / /var/lib/my\\040state rw - tmpfs tmpfs rw,size=1m\n\
                     31 25 0:27 / /mnt ro,relatime - ext4 /dev/sdb1 rw\n";
        let context = context(dir.path(), &[("/proc/self/mountinfo", table)]);
        let of = |path| mount_of(&context.root, Path::new(path)).unwrap();
        assert_eq!(of("/var/lib/kinewatch").kind, "ext4");
        assert_eq!(of("/var/lib/my state/x").kind, "tmpfs");
        assert!(of("/mnt/x").read_only && !of("/mntx").read_only);
    }

    #[test]
    fn what_is_scarce_or_does_not_last_is_told() {
        let about = About::check("disk");
        let mount = |kind: &str, read_only| Mount { point: "/s".into(), kind: kind.into(), read_only };
        let lines = |kind, read_only, bytes, inodes| {
            told(&judge(Path::new("/s"), Some(&mount(kind, read_only)), Free { bytes, inodes }, &about))
        };
        assert_eq!(lines("ext4", false, 5 << 30, Some(100_000)), [""; 0]);
        assert!(lines("ext4", true, 5 << 30, None)[0].starts_with("fail /s: /s is mounted read-only"));
        assert!(lines("tmpfs", false, 5 << 30, None)[0].starts_with("warn /s is in memory"));
        assert!(lines("nfs4", false, 5 << 30, None)[0].starts_with("warn /s is on the network"));
        let scarce = lines("ext4", false, 3 << 20, Some(500));
        assert!(
            scarce[0].starts_with("fail /s: only 3 MiB") && scarce[1].starts_with("warn /s: only 500 more"),
            "{scarce:?}"
        );
    }

    #[test]
    fn the_write_test_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        sync_time(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
