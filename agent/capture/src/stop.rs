//! What is wanted of a camera's thread: to end, or to build a new pipeline. Wakes it from bus and backoff.
//!
//! Set by whoever controls the camera, read by the thread `cam-<name>`. Never waits but in [`StopSignal::wait`].

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gstreamer as gst;

/// Tells the thread to end, or to build a new pipeline; wakes it from bus and backoff.
#[derive(Debug, Default)]
pub(crate) struct StopSignal {
    state: Mutex<StopState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct StopState {
    raised: bool,
    /// Another thread has taken this one's place.
    disowned: bool,
    rebuild: bool,
    bus: Option<gst::Bus>,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woke {
    /// The time was over.
    Time,
    /// A new pipeline was asked for.
    Rebuild,
    /// The thread shall end.
    Stop,
}

impl StopSignal {
    pub(crate) fn raise(&self) {
        self.change(|state| state.raised = true);
    }

    /// Raised, and whatever the thread says from now on is not the camera's.
    pub(crate) fn disown(&self) {
        self.change(|state| (state.raised, state.disowned) = (true, true));
    }

    pub(crate) fn rebuild(&self) {
        self.change(|state| state.rebuild = true);
    }

    pub(crate) fn is_disowned(&self) -> bool {
        self.lock().disowned
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.lock().raised
    }

    /// Whether a new pipeline was asked for since it was last looked.
    pub(crate) fn take_rebuild(&self) -> bool {
        std::mem::take(&mut self.lock().rebuild)
    }

    pub(crate) fn watch(&self, bus: Option<gst::Bus>) {
        self.lock().bus = bus;
    }

    /// Sleeps for `wait`, until raised, or until a new pipeline is asked for.
    pub(crate) fn wait(&self, wait: Duration) -> Woke {
        let going_on = |s: &mut StopState| !s.raised && !s.rebuild;
        let (mut state, _) =
            self.changed.wait_timeout_while(self.lock(), wait, going_on).unwrap_or_else(PoisonError::into_inner);
        match (state.raised, std::mem::take(&mut state.rebuild)) {
            (true, _) => Woke::Stop,
            (false, true) => Woke::Rebuild,
            (false, false) => Woke::Time,
        }
    }

    fn change(&self, change: impl FnOnce(&mut StopState)) {
        let mut state = self.lock();
        change(&mut state);
        if let Some(bus) = &state.bus {
            let wake = gst::Structure::new_empty("kinewatch-wake");
            let _ = bus.post(gst::message::Application::new(wake));
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, StopState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
