//! As whom the daemon runs, and what that user may do with a file.
//!
//! Root may do everything, so a check that root makes says nothing of the service. Answers come from owner, group and mode
//! of a file and of every directory above it; access lists are looked at only for this process's own user.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, accessat};

use super::root::Root;

/// Where systemd keeps the directories of services with `DynamicUser=`, closed to all but root.
const PRIVATE: [&str; 2] = ["/var/lib/private", "/var/cache/private"];

/// A user with its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name, or the number where it has none.
    pub name: String,
    /// User.
    pub uid: u32,
    /// Its groups.
    pub gids: Vec<u32>,
    /// Whether this process runs as that user.
    pub is_us: bool,
}

/// What is wanted of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// To read it.
    Read,
    /// To read and write it (a device, a database).
    Write,
    /// To list, enter and change a directory.
    Directory,
}

/// Why a user may not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nothing is there.
    #[error("{path} does not exist")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// It is there, but.
    #[error("{user} may not {what} {path} (owner {owner}, group {group}, mode {mode:04o})")]
    Mode {
        /// Who.
        user: String,
        /// read, write, enter.
        what: &'static str,
        /// The file itself, or a directory above it.
        path: PathBuf,
        /// Name of its owner.
        owner: String,
        /// Name of its group.
        group: String,
        /// Permission bits.
        mode: u32,
    },
}

impl Identity {
    /// This process.
    #[must_use]
    pub fn ours(root: &Root) -> Self {
        let us = Self::of_status(root, "/proc/self/status");
        us.unwrap_or_else(|| Self { name: "?".into(), uid: u32::MAX, gids: Vec::new(), is_us: true })
    }

    /// A running process.
    #[must_use]
    pub fn of_process(root: &Root, pid: u32) -> Option<Self> {
        let ours = Self::ours(root);
        Self::of_status(root, &format!("/proc/{pid}/status")).map(|it| Self { is_us: it.uid == ours.uid, ..it })
    }

    fn of_status(root: &Root, path: &str) -> Option<Self> {
        let text = root.read(path)?;
        let numbers = |key: &str| -> Vec<u32> {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace().filter_map(|n| n.parse().ok()).collect()
        };
        // Real, effective, saved, file system: the last decides on files.
        let (uid, gid) = (*numbers("Uid:").last()?, *numbers("Gid:").last()?);
        let gids = std::iter::once(gid).chain(numbers("Groups:")).collect();
        Some(Self { name: user_name(root, uid), uid, gids, is_us: true })
    }

    /// A user of this machine, with the groups that a unit adds.
    #[must_use]
    pub fn of_user(root: &Root, name: &str, supplementary: &[String]) -> Option<Self> {
        let passwd = root.read("/etc/passwd")?;
        let mut entries = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let entry = entries.find(|fields| fields.len() > 3 && (fields[0] == name || fields[2] == name))?;
        let (uid, gid) = (entry[2].parse().ok()?, entry[3].parse().ok()?);
        let mut gids = vec![gid];
        for group in root.read("/etc/group")?.lines() {
            let fields: Vec<&str> = group.split(':').collect();
            let [group, _, gid, members] = fields.as_slice() else { continue };
            let belongs = members.split(',').any(|member| member == name) || supplementary.iter().any(|g| g == group);
            gids.extend(gid.parse::<u32>().ok().filter(|_| belongs));
        }
        let ours = Self::ours(root);
        Some(Self { name: name.to_owned(), uid, gids, is_us: uid == ours.uid })
    }

    /// Whether this user is root, who may do everything.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Names of its groups.
    #[must_use]
    pub fn groups(&self, root: &Root) -> Vec<String> {
        let mut names: Vec<String> = self.gids.iter().map(|gid| group_name(root, *gid)).collect();
        names.dedup();
        names
    }

    /// Whether this user may do what is wanted, and reach it at all.
    ///
    /// # Errors
    /// What is in the way, and whose it is.
    pub fn may(&self, root: &Root, path: &Path, want: Want) -> Result<(), Denied> {
        let missing = || Denied::Missing { path: path.to_owned() };
        let real = fs::canonicalize(path).map_err(|_| missing())?;
        if self.is_root() || self.is_us && granted(&real, want) {
            return Ok(());
        }
        // systemd lets a service of `DynamicUser=` in past the directories that hold all of them.
        let open = |folder: &&Path| !PRIVATE.iter().any(|private| **folder == root.at(private));
        for folder in real.ancestors().skip(1).take_while(open) {
            self.check(root, folder, 0o1, "enter")?;
        }
        match want {
            Want::Read => self.check(root, &real, 0o4, "read"),
            Want::Write => self.check(root, &real, 0o6, "read and write"),
            Want::Directory => self.check(root, &real, 0o7, "write into"),
        }
    }

    fn check(&self, root: &Root, path: &Path, bits: u32, what: &'static str) -> Result<(), Denied> {
        let meta = fs::metadata(path).map_err(|_| Denied::Missing { path: path.to_owned() })?;
        let mode = meta.mode() & 0o7777;
        // The first class that fits decides, as the kernel has it.
        let class = match () {
            () if meta.uid() == self.uid => mode >> 6,
            () if self.gids.contains(&meta.gid()) => mode >> 3,
            () => mode,
        };
        if class & bits == bits {
            return Ok(());
        }
        let (owner, group) = (user_name(root, meta.uid()), group_name(root, meta.gid()));
        Err(Denied::Mode { user: self.name.clone(), what, path: path.to_owned(), owner, group, mode })
    }
}

/// What the kernel says for this process.
fn granted(path: &Path, want: Want) -> bool {
    use rustix::fs::Access;
    let access = match want {
        Want::Read => Access::READ_OK,
        Want::Write => Access::READ_OK | Access::WRITE_OK,
        Want::Directory => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
    };
    accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

/// Name of a user, or its number.
#[must_use]
pub fn user_name(root: &Root, uid: u32) -> String {
    name_in(root, "/etc/passwd", uid)
}

fn group_name(root: &Root, gid: u32) -> String {
    name_in(root, "/etc/group", gid)
}

fn name_in(root: &Root, table: &str, id: u32) -> String {
    let text = root.read(table).unwrap_or_default();
    let entry = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = entry.into_iter().find(|fields| fields.get(2).is_some_and(|n| n.parse() == Ok(id)));
    found.map_or_else(|| id.to_string(), |fields| fields[0].to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::below(dir.path());
        fs::create_dir_all(root.at("/etc")).unwrap();
        fs::create_dir_all(root.at("/proc/7")).unwrap();
        fs::write(root.at("/etc/passwd"), "root:x:0:0::/root:/bin/sh\nkinewatch:x:990:980::/:/bin/false\n").unwrap();
        fs::write(root.at("/etc/group"), "root:x:0:\nvideo:x:44:kinewatch\nrender:x:109:\nkinewatch:x:980:\n").unwrap();
        let status = "Name:\tkinewatch\nUid:\t990\t990\t990\t990\nGid:\t980\t980\t980\t980\nGroups:\t44 980\n";
        fs::write(root.at("/proc/7/status"), status).unwrap();
        (dir, root)
    }

    #[test]
    fn a_user_is_found_with_its_groups() {
        let (_dir, root) = tree();
        let user = Identity::of_user(&root, "kinewatch", &["render".into()]).unwrap();
        assert_eq!((user.uid, user.groups(&root).join(" ")), (990, "kinewatch video render".into()));
        assert!(Identity::of_user(&root, "nobody", &[]).is_none());
        let running = Identity::of_process(&root, 7).unwrap();
        assert_eq!((running.name.as_str(), running.gids.as_slice()), ("kinewatch", &[980, 44, 980][..]));
    }

    #[test]
    fn modes_decide_and_the_obstacle_is_named() {
        let (dir, root) = tree();
        let me = fs::metadata(dir.path()).unwrap();
        let folder = dir.path().join("state");
        let file = folder.join("events.db");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        // The folder that holds the test's may be closed to others.
        set(dir.path(), 0o755);
        let other = Identity { name: "kinewatch".into(), uid: me.uid() + 1, gids: vec![me.gid() + 1], is_us: false };
        let member = Identity { gids: vec![me.gid()], ..other.clone() };
        set(&folder, 0o750);
        set(&file, 0o640);
        let text = other.may(&root, &file, Want::Read).unwrap_err().to_string();
        assert!(text.contains("kinewatch may not enter") && text.contains("mode 0750"), "{text}");
        assert_eq!(member.may(&root, &file, Want::Read), Ok(()));
        assert!(member.may(&root, &file, Want::Write).unwrap_err().to_string().contains("read and write"));
        assert!(member.may(&root, &folder, Want::Directory).unwrap_err().to_string().contains("write into"));
        assert!(matches!(other.may(&root, &dir.path().join("none"), Want::Read), Err(Denied::Missing { .. })));
        let all = Identity { uid: 0, ..other };
        assert_eq!(all.may(&root, &file, Want::Write), Ok(()));
    }
}
