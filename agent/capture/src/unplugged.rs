//! Lets go of the node of a camera that was unplugged.
//!
//! GStreamer (seen with 1.22) keeps one descriptor of a V4L2 device that went away while it streamed: its pool cannot give
//! the buffers back to nobody, and stays. While anybody holds it, the kernel gives the number to no other device, so that the
//! camera, plugged in again, becomes `/dev/video1`, and the configured `/dev/video0` never comes back. Never touches a device
//! that is there. Called on the thread `cam-<name>`, after the pipeline has ended.

use std::fs;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use crate::source::Source;

/// Where the device of a V4L2 source is now, behind names such as `/dev/v4l/by-id/…`.
pub(crate) fn node(source: &Source) -> Option<PathBuf> {
    let Source::V4l2 { device, .. } = source else { return None };
    fs::canonicalize(device).ok()
}

/// Gives back what this process still holds of `node`, if that device is gone; how many descriptors that were. Their
/// numbers stay taken, by `/dev/null`: whoever closes one later closes nothing else.
pub(crate) fn let_go(node: &Path) -> usize {
    let (Ok(open), Ok(null)) = (fs::read_dir("/proc/self/fd"), fs::File::open("/dev/null")) else { return 0 };
    let deleted = PathBuf::from(format!("{} (deleted)", node.display()));
    let of_node = |path: PathBuf| fs::read_link(path).is_ok_and(|target| target == node || target == deleted);
    open.filter_map(Result::ok)
        .filter(|entry| of_node(entry.path()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&held| has_hung_up(held) && replace(held, &null))
        .count()
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
        let node = fs::read_link(&link).unwrap();
        assert_eq!(let_go(&node), 0, "its other end is there");
        drop(other);
        assert_eq!(let_go(Path::new("/dev/video98")), 0, "another device");
        assert_eq!(let_go(&node), 1);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/dev/null"));
        assert_eq!(let_go(&node), 0, "once");
    }
}
