//! Turns a panic of a back end into an error: some graphs make tract panic while it loads or first runs them, and a wrong
//! ONNX Runtime makes `ort` panic while it starts.
//!
//! Must never be used where a panic would leave shared state half changed: the closure owns what it works on.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::error::{BackendError, one_line};

thread_local! {
    /// `Some` while this thread runs a guarded closure: the panic's text goes here, not to stderr.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `work`; a panic in it becomes an error in one line, and nothing is written to stderr.
///
/// # Errors
/// What `work` returned, or the panic's message.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
    install_hook();
    CAUGHT.with_borrow_mut(|slot| *slot = Some(String::new()));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    let place = CAUGHT.with_borrow_mut(Option::take).unwrap_or_default();
    outcome.unwrap_or_else(|payload| {
        Err(BackendError { detail: format!("it panicked: {}{place}", message(payload.as_ref())) })
    })
}

/// Sets the hook that keeps panics of guarded closures quiet, in front of the one that is set; further calls do nothing.
/// A process that sets a hook of its own calls this right after, so that no panic meets a moment without one.
pub fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            let quiet = CAUGHT.with_borrow_mut(|slot| {
                if let (Some(text), Some(at)) = (slot.as_mut(), info.location()) {
                    let file = at.file().rsplit('/').next().unwrap_or_default();
                    *text = format!(" ({file}:{})", at.line());
                }
                slot.is_some()
            });
            if !quiet {
                previous(info);
            }
        }));
    });
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    one_line(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_line_with_its_place() {
        let error = guarded::<()>(|| panic!("shape\n  does not fit {}", 3)).unwrap_err();
        assert!(error.detail.starts_with("it panicked: shape does not fit 3 (guard.rs:"), "{error}");
        assert_eq!(guarded(|| Ok(4)), Ok(4));
    }
}
