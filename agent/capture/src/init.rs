//! Starts GStreamer once for the process: bounds what its threads make the allocator keep, and takes its log over, so that
//! no password gets out that way.

use std::sync::OnceLock;

use gstreamer as gst;
use tracing::{debug, error, info, trace, warn};

use crate::error::InitError;
use crate::secret::redact;

/// Starts GStreamer; further calls do nothing. What `GST_DEBUG` asks for goes to `tracing` (target `gstreamer`),
/// redacted; nothing goes to stderr.
pub fn init() -> Result<(), InitError> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.get().is_some() {
        return Ok(());
    }
    limit_arenas();
    gst::init().map_err(InitError)?;
    DONE.get_or_init(take_log);
    Ok(())
}

/// glibc gives threads arenas of their own, eight for each processor, and keeps what was once used in each. Every connection
/// of a camera brings new threads, so that memory would grow with reconnects for days. Whoever has set `MALLOC_ARENA_MAX`
/// has decided already.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no crate sets it; the environment is read before any code of ours")]
fn limit_arenas() {
    const ARENAS: i32 = 2;
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        // SAFETY: takes two numbers, may be called at any time from any thread, and changes nothing that is allocated.
        let _refused = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn limit_arenas() {}

fn take_log() {
    gst::log::remove_default_log_function();
    // The handle only serves to remove the function again.
    let _handle = gst::log::add_log_function(|category, level, _file, _function, _line, object, message| {
        let text = redact(&message.get().unwrap_or_default());
        let element = object.map(|o| redact(&o.to_string())).unwrap_or_default();
        let category = category.name();
        match level {
            gst::DebugLevel::Error => error!(target: "gstreamer", category, element, "{text}"),
            gst::DebugLevel::Warning => warn!(target: "gstreamer", category, element, "{text}"),
            gst::DebugLevel::Fixme | gst::DebugLevel::Info => info!(target: "gstreamer", category, element, "{text}"),
            gst::DebugLevel::Debug => debug!(target: "gstreamer", category, element, "{text}"),
            _ => trace!(target: "gstreamer", category, element, "{text}"),
        }
    });
}
