//! Lets go of the node of a camera that was unplugged.
//!
//! GStreamer (seen with 1.22) keeps one descriptor of a V4L2 device that went away while it streamed: its pool cannot give
//! the buffers back to nobody, and stays. While anybody holds it, the kernel gives the number to no other device, so that the
//! camera, plugged in again, becomes `/dev/video1`, and the configured `/dev/video0` never comes back. Never touches a device
//! that is there. Called on the thread `cam-<name>`, after the pipeline has ended.

use std::fs;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::source::Source;

/// The device of a V4L2 source as it is now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Behind names such as `/dev/v4l/by-id/…`.
    path: PathBuf,
    /// Its number for the kernel, which a descriptor of it tells even when the node is gone.
    device: u64,
}

impl Node {
    /// `None` for other sources, and where there is no device.
    pub(crate) fn of(source: &Source) -> Option<Self> {
        let Source::V4l2 { device, .. } = source else { return None };
        let path = fs::canonicalize(device).ok()?;
        let device = fs::metadata(&path).ok()?.rdev();
        Some(Self { path, device })
    }

    /// Gives back what this process still holds of it, if that device is gone; how many descriptors that were. Their
    /// numbers stay taken, by `/dev/null`: whoever closes one later closes nothing else.
    ///
    /// Only while no other thread may close one: its number would be somebody else's before it is replaced.
    pub(crate) fn let_go(&self) -> usize {
        let (Ok(open), Ok(null)) = (fs::read_dir("/proc/self/fd"), fs::File::open("/dev/null")) else { return 0 };
        open.filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|&held| self.is_behind(held) && has_hung_up(held))
            // Once more: looking took a while.
            .filter(|&held| self.is_behind(held) && replace(held, &null))
            .count()
    }

    fn is_behind(&self, held: RawFd) -> bool {
        let link = PathBuf::from(format!("/proc/self/fd/{held}"));
        let deleted = format!("{} (deleted)", self.path.display());
        fs::read_link(&link).is_ok_and(|target| target == self.path || target == Path::new(&deleted))
            && fs::metadata(&link).is_ok_and(|meta| meta.rdev() == self.device)
    }
}

#[expect(unsafe_code, reason = "a descriptor that is not ours is only known by its number")]
fn has_hung_up(held: RawFd) -> bool {
    let mut asked = libc::pollfd { fd: held, events: 0, revents: 0 };
    // SAFETY: one valid `pollfd`; a number that is no longer open is an answer, too.
    let answers = unsafe { libc::poll(&raw mut asked, 1, 0) };
    answers == 1 && asked.revents & libc::POLLHUP != 0
}

#[expect(unsafe_code, reason = "the standard library replaces no descriptor that another library opened")]
fn replace(held: RawFd, null: &fs::File) -> bool {
    // SAFETY: `held` is a device that answers nothing any more, of a pipeline that has ended; no Rust value owns it.
    unsafe { libc::dup3(null.as_raw_fd(), held, libc::O_CLOEXEC) == held }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A socket whose other end is closed hangs up as a device does that was pulled.
    #[test]
    fn only_what_has_hung_up_is_let_go() {
        let (held, other) = UnixStream::pair().unwrap();
        let link = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let path = fs::read_link(&link).unwrap();
        let node = |path: &Path, device| Node { path: path.to_owned(), device };
        assert_eq!(node(&path, 0).let_go(), 0, "its other end is there");
        drop(other);
        assert_eq!(node(Path::new("/dev/video98"), 0).let_go(), 0, "another device");
        assert_eq!(node(&path, 81 << 8).let_go(), 0, "something else that has its name");
        assert_eq!(node(&path, 0).let_go(), 1);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/dev/null"));
        assert_eq!(node(&path, 0).let_go(), 0, "once");
    }

    #[test]
    fn a_node_is_known_by_its_number_too() {
        let of = |device: &str| Node::of(&Source::parse(&format!("v4l2:{device}")).unwrap());
        let null = of("/dev/null").unwrap();
        assert_eq!((null.path.as_path(), null.device), (Path::new("/dev/null"), (1 << 8) | 3));
        assert_eq!((of("/dev/none"), Node::of(&Source::parse("test:").unwrap())), (None, None));
    }
}
