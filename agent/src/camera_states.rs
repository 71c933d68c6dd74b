//! The retained states of cameras, of models, of the system clock and of the store on MQTT, and the counters that nobody else
//! carries to the status page.
//!
//! A task of the control runtime that looks at snapshots twice a second; it publishes a state when it has changed, and
//! removes that of a camera that is not configured any more.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use kinewatch_capture as capture;
use kinewatch_core::event::{CameraLink, CameraState, Decoding, Derated, ModelsState, Scoring};
use kinewatch_core::topic;
use kinewatch_mqtt::Client;

use crate::health::{CameraView, Shared};
use crate::retained::Retained;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Frame rates are taken over so many looks.
const RATE_LOOKS: u32 = 10;
/// A camera whose windows were left out is said to keep up again after so many looks without.
const CALM_LOOKS: u32 = 60;

/// Runs until its task is aborted.
pub async fn run(shared: Arc<Shared>, client: Arc<Client>, session: u64, state_dir: &Path) {
    let mut retained = Retained::open(state_dir);
    let mut cameras: Vec<Watched> = Vec::new();
    let (mut clock, mut store, mut models) = (None, None, None);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let record = shared.clock.load_full();
        if record != clock
            && let Some(record) = record
        {
            let topic = topic::clock(&shared.group, &shared.device);
            match client.retain(topic, serde_json::to_vec(&*record).unwrap_or_default()) {
                Ok(()) => clock = Some(record),
                Err(error) => tracing::error!(%error, "the record of the system clock is not published"),
            }
        }
        let status = shared.store.status.load_full();
        if status != store
            && let Some(status) = status
        {
            let topic = topic::store(&shared.group, &shared.device);
            match client.retain(topic, serde_json::to_vec(&*status).unwrap_or_default()) {
                Ok(()) => store = Some(status),
                Err(error) => tracing::error!(%error, "the state of the store is not published"),
            }
        }
        let state = shared.updates.state.load_full();
        // Without updates there is nothing to say.
        if !state.models.is_empty() && !models.as_deref().is_some_and(|told| says_the_same(told, &state)) {
            let topic = topic::model_state(&shared.group, &shared.device);
            match client.retain(topic, serde_json::to_vec(&*state).unwrap_or_default()) {
                Ok(()) => models = Some(state),
                Err(error) => tracing::error!(%error, "the state of models is not published"),
            }
        }
        if follow(&mut cameras, &shared.cameras.load()) {
            let topic = |w: &Watched| topic::camera_state(&shared.group, &shared.device, &w.view.name);
            for topic in retained.follow(&cameras.iter().map(topic).collect::<Vec<_>>()) {
                // An empty payload removes what the broker has retained.
                if let Err(error) = client.retain(&topic, Bytes::new()) {
                    tracing::error!(topic, %error, "the state of a camera that is gone stays with the broker");
                }
            }
        }
        for watched in &mut cameras {
            let state = watched.look(session, shared.derated.load().as_deref());
            if watched.published.as_ref() == Some(&state) {
                continue;
            }
            let topic = topic::camera_state(&shared.group, &shared.device, &watched.view.name);
            match client.retain(topic, serde_json::to_vec(&state).unwrap_or_default()) {
                Ok(()) => watched.published = Some(state),
                Err(error) => {
                    tracing::error!(camera = watched.view.name, %error, "the camera's state is not published");
                }
            }
        }
    }
}

/// Whether nothing has changed but when it was last looked.
fn says_the_same(told: &ModelsState, now: &ModelsState) -> bool {
    let mut now = now.clone();
    for (told, now) in told.models.iter().zip(&mut now.models) {
        now.checked_at.clone_from(&told.checked_at);
        now.checks = told.checks;
    }
    *told == now
}

/// Watches the cameras that are there now; whether they are others than before.
fn follow(watched: &mut Vec<Watched>, now: &[Arc<CameraView>]) -> bool {
    if watched.len() == now.len() && watched.iter().zip(now).all(|(w, view)| Arc::ptr_eq(&w.view, view)) {
        return false;
    }
    let mut before = std::mem::take(watched);
    for view in now {
        let known = before.iter().position(|w| Arc::ptr_eq(&w.view, view));
        watched.push(known.map_or_else(|| Watched::new(Arc::clone(view)), |at| before.swap_remove(at)));
    }
    true
}

struct Watched {
    view: Arc<CameraView>,
    published: Option<CameraState>,
    looks: u32,
    taken: u64,
    fps: f64,
    left_out: u64,
    /// Looks until the camera counts as keeping up.
    thinned: u32,
}

impl Watched {
    fn new(view: Arc<CameraView>) -> Self {
        Self { view, published: None, looks: 0, taken: 0, fps: 0.0, left_out: 0, thinned: 0 }
    }

    fn look(&mut self, session: u64, derated: Option<&Derated>) -> CameraState {
        let view = &self.view;
        let stats = view.capture.get();
        let link = match stats.map(|s| s.state()) {
            Some(capture::CameraState::Up) => CameraLink::Up,
            Some(capture::CameraState::Connecting) | None => CameraLink::Connecting,
            Some(capture::CameraState::Down | capture::CameraState::Stopped) => CameraLink::Down,
        };
        if self.looks == 0 {
            let taken = stats.map_or(0, |s| s.taken.load(Relaxed));
            let seconds = LOOK_EVERY.as_secs_f64() * f64::from(RATE_LOOKS);
            let fps = taken.saturating_sub(self.taken) as f64 / seconds;
            self.taken = taken;
            // A camera's rate is never quite steady: only a change that means something is worth a message.
            if (fps - self.fps).abs() > 0.2 * self.fps.max(1.0) {
                self.fps = (fps * 10.0).round() / 10.0;
            }
        }
        self.looks = (self.looks + 1) % RATE_LOOKS;
        let left_out = view.windows_dropped(|d| &d.overload);
        self.thinned = if left_out > self.left_out { CALM_LOOKS } else { self.thinned.saturating_sub(1) };
        self.left_out = left_out;
        let mut active: Vec<String> = view.active.load().iter().map(|a| a.label.clone()).collect();
        active.sort_unstable();
        active.dedup();
        CameraState {
            state: link,
            online: link == CameraLink::Up,
            fps: if link == CameraLink::Up { self.fps } else { 0.0 },
            decoding: if stats.is_some_and(|s| s.on_processor.load(Relaxed)) {
                Decoding::Fallback
            } else {
                Decoding::Usual
            },
            scoring: if self.thinned > 0 { Scoring::Newest } else { Scoring::All },
            derated: view.derated(derated),
            active,
            stream_epoch: stats.map_or(0, |s| u32::try_from(s.sessions.load(Relaxed)).unwrap_or(u32::MAX)),
            session,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_that_the_processor_has_taken_over_says_so() {
        let view = Arc::new(CameraView::new("a", "test:", vec![], vec![]));
        let stats = Arc::new(capture::CameraStats::default());
        view.capture.set(Arc::clone(&stats)).unwrap();
        let mut watched = Watched::new(view);
        assert_eq!(watched.look(1, None).decoding, Decoding::Usual);
        stats.on_processor.store(true, Relaxed);
        assert_eq!(watched.look(1, None).decoding, Decoding::Fallback);
    }

    #[test]
    fn a_camera_that_stays_is_remembered_and_one_that_is_new_is_watched() {
        let view = |name: &str| Arc::new(CameraView::new(name, "test:", vec![], vec![]));
        let (a, b) = (view("a"), view("b"));
        let mut watched = Vec::new();
        assert!(follow(&mut watched, &[Arc::clone(&a), Arc::clone(&b)]));
        watched[1].taken = 7;
        let again = view("a");
        assert!(follow(&mut watched, &[Arc::clone(&b), Arc::clone(&again)]), "another camera of the same name");
        assert_eq!((watched[0].taken, watched[1].taken, watched.len()), (7, 0, 2), "who stays is remembered");
        assert!(!follow(&mut watched, &[Arc::clone(&b), again]));
        assert!(follow(&mut watched, &[b]));
        assert_eq!(watched.len(), 1);
    }
}
