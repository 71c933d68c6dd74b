//! A small file system in memory, of a test's own.

use std::path::Path;
use std::process::Command;

/// Unmounted when it goes out of scope.
pub(crate) struct Mount(pub(crate) tempfile::TempDir);

#[allow(dead_code, reason = "each test uses a part of it")]
impl Mount {
    /// `size` as mount(8) has it. `None`, and said, where this process may not mount one.
    pub(crate) fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], dir.path());
        if !mounted {
            println!("skipped: this process may not mount a file system");
        }
        mounted.then_some(Self(dir))
    }

    /// `ro`, `rw` or another size.
    pub(crate) fn remount(&self, how: &str) {
        assert!(mount(&["-o", &format!("remount,{how}")], self.0.path()), "remount {how}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    Command::new("mount").args(arguments).arg(at).output().is_ok_and(|done| done.status.success())
}
