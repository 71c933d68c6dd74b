//! File systems of a scenario's own, mounted for as long as the value lives. `None` where that is not allowed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::ensure;

/// A mounted file system.
pub(crate) struct Mount {
    /// Where.
    pub(crate) path: PathBuf,
    image: Option<PathBuf>,
}

impl Mount {
    /// In memory, of `mib` MiB.
    pub(crate) fn tmpfs(path: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(path).ok()?;
        let size = format!("size={mib}m");
        let mounted = run("mount", &["-t", "tmpfs", "-o", &size, "kinewatch-faults", &text(path)]);
        mounted.then(|| Self { path: path.to_owned(), image: None })
    }

    /// ext4 in a file of `mib` MiB beside it, that becomes read-only on an error.
    pub(crate) fn ext4(path: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(path).ok()?;
        let image = path.with_extension("img");
        let made = run("truncate", &["-s", &format!("{mib}M"), &text(&image)])
            && run("mkfs.ext4", &["-q", "-F", &text(&image)]);
        let mount = Self { path: path.to_owned(), image: Some(image) };
        (made && mount.attach()).then_some(mount)
    }

    /// The kernel is made to find an error: it is read-only from now on, for those too who have files open.
    pub(crate) fn abort(&self) -> anyhow::Result<()> {
        ensure!(run("mount", &["-o", "remount,abort", &text(&self.path)]), "the file system could not be aborted");
        Ok(())
    }

    /// Takes it away from beneath whoever uses it, and mounts it anew.
    pub(crate) fn again(&mut self) -> anyhow::Result<()> {
        ensure!(run("umount", &["--lazy", &text(&self.path)]), "it could not be unmounted");
        // What still has files open keeps the old one alive, and its image; the new one is a copy, repaired.
        if let Some(image) = &self.image {
            let copy = image.with_extension("again.img");
            fs::copy(image, &copy)?;
            run("e2fsck", &["-fy", &text(&copy)]);
            self.image = Some(copy);
        }
        ensure!(self.attach(), "it could not be mounted again");
        Ok(())
    }

    /// Makes writes wait, or lets them go on.
    pub(crate) fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        let how = if frozen { "--freeze" } else { "--unfreeze" };
        ensure!(run("fsfreeze", &[how, &text(&self.path)]), "fsfreeze {how} failed");
        Ok(())
    }

    fn attach(&self) -> bool {
        let Some(image) = &self.image else { return false };
        run("mount", &["-o", "loop,errors=remount-ro", &text(image), &text(&self.path)])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Should it be frozen still, nobody could ever leave it.
        run("fsfreeze", &["--unfreeze", &text(&self.path)]);
        run("umount", &["--lazy", &text(&self.path)]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
