//! Cameras on a Jetson's CSI port hang with `nvargus-daemon`: what to say, and how to ask for its restart.
//!
//! Restarting it takes root. This daemon has no such right and wants none: it makes an empty file where it was told to
//! ([`crate::CameraOptions::argus_request`]), and a unit of the administrator's that waits for the file does the rest
//! (`systemd/examples/kinewatch-argus.path`). Off unless that path is given. Called on the camera's thread.

use std::path::Path;
use std::{fs, io};

use tracing::{debug, info, warn};

use crate::error::CaptureError;

/// Fruitless pipelines in a row, before a restart is asked for: the first may be a cable.
const FRUITLESS: u32 = 2;

/// One camera's luck with Argus.
#[derive(Debug, Default)]
pub(crate) struct Argus {
    fruitless: u32,
    /// That the request cannot be made has been said.
    warned: bool,
}

impl Argus {
    /// A pipeline failed. Whether a restart was asked for.
    pub(crate) fn failed(
        &mut self,
        camera: &str,
        error: &CaptureError,
        had_frames: bool,
        request: Option<&Path>,
    ) -> bool {
        // One that ran and broke off may come back by itself; one that repeats its last picture has been seen not to.
        let wedged = !had_frames || matches!(error, CaptureError::Frozen { .. });
        self.fruitless = if wedged { self.fruitless + 1 } else { 0 };
        let Some(request) = request.filter(|_| self.fruitless >= FRUITLESS) else { return false };
        self.fruitless = 0;
        let path = request.display();
        // Never opens what is there: one request is as good as two, and a link or a pipe in its place is left alone.
        match fs::File::create_new(request) {
            Ok(_) => info!(camera, request = %path, "asks for a restart of nvargus-daemon"),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                debug!(camera, request = %path, "a restart of nvargus-daemon has been asked for");
            }
            Err(_) if std::mem::replace(&mut self.warned, true) => {}
            Err(error) => {
                warn!(camera, %error, "{path} cannot be made, so nvargus-daemon is not restarted; is RuntimeDirectory= set?");
            }
        }
        true
    }
}

/// What to do, put behind the error of a CSI camera that gives nothing.
pub(crate) const ADVICE: &str = "where the journal says `Failed to create CaptureSession`, nvargus-daemon still holds the \
     session of a client that died: systemctl restart nvargus-daemon (systemd/README.md has a unit that does it)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_asked_for_after_two_fruitless_pipelines() {
        let dir = tempfile::tempdir().unwrap();
        let request = dir.path().join("argus-restart");
        let silent = CaptureError::Silent { source_name: "csi:0".into(), seconds: 10.0 };
        let frozen = CaptureError::Frozen { source_name: "csi:0".into(), seconds: 10.0 };
        let mut argus = Argus::default();
        assert!(!argus.failed("door", &silent, false, Some(&request)));
        assert!(!argus.failed("door", &silent, true, Some(&request)), "it had frames");
        assert!(!argus.failed("door", &frozen, true, Some(&request)));
        assert!(!request.exists());
        assert!(argus.failed("door", &silent, false, Some(&request)));
        assert!(fs::read(&request).unwrap().is_empty(), "nothing is said in it");
        assert!(!argus.failed("door", &silent, false, Some(&request)), "not at once again");
        assert!(
            argus.failed("door", &silent, false, Some(&dir.path().join("none/x"))),
            "one that cannot be made is told"
        );
        assert!(!argus.failed("door", &silent, false, None) && !argus.failed("door", &silent, false, None));
    }

    /// Whoever owns the folder's other names may have put something in its place.
    #[test]
    fn what_lies_where_the_request_goes_is_neither_written_nor_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (request, diary) = (dir.path().join("argus-restart"), dir.path().join("diary"));
        let silent = CaptureError::Silent { source_name: "csi:0".into(), seconds: 10.0 };
        fs::write(&diary, "kept").unwrap();
        std::os::unix::fs::symlink(&diary, &request).unwrap();
        let mut argus = Argus::default();
        assert!(!argus.failed("door", &silent, false, Some(&request)));
        assert!(argus.failed("door", &silent, false, Some(&request)));
        assert_eq!(fs::read_to_string(diary).unwrap(), "kept");
    }
}
