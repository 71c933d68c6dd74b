//! The JSON of `/status`: everything a person asks first when something seems wrong.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use kinewatch_capture::{CameraState, CameraStats};
use serde_json::{Map, Value, json};

use crate::health::{CameraView, ModelView, Shared, StoreView};
use crate::tally::TrialView;

pub(super) fn render(shared: &Shared) -> Value {
    let (d, now) = (&shared.delivery, Instant::now());
    let get = |n: &AtomicU64| n.load(Relaxed);
    let building = shared.building.load();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "group": shared.group,
        "device": shared.device,
        "uptime_s": shared.started.elapsed().as_secs(),
        "ready": shared.is_ready(),
        "not_ready_because": shared.unready(),
        "alive": shared.stuck(now).is_none(),
        "silence_s": shared.stages.iter().map(|b| (b.name().to_owned(), seconds(b.silence(now)))).collect::<Map<_, _>>(),
        "configuration": {
            "reloads": get(&shared.reloads.applied),
            "refused": get(&shared.reloads.refused),
            "last_reload": shared.reloads.last.load().as_deref(),
        },
        "cameras": shared.cameras.load().iter().map(|view| camera(view)).collect::<Vec<_>>(),
        "models": shared.models.load().iter().map(|view| model(view)).collect::<Vec<_>>(),
        "mqtt": {
            "broker": d.broker,
            "connected": d.connected.load(Relaxed),
            "protocol": d.protocol.load().as_deref(),
            "last_error": d.last_error.load().as_deref(),
            "connections": get(&d.connections),
            "acked": get(&d.acked),
            "refused": get(&d.refused),
            "deferred": get(&d.deferred),
            "commands": shared.commands.listening.load(Relaxed),
        },
        "outbox": {
            "messages": get(&d.outbox_messages),
            "bytes": get(&d.outbox_bytes),
            "oldest_age_s": d.outbox_oldest_boot_ns.age_s(),
            "parked": get(&d.outbox_parked),
            "kept": get(&d.outbox_kept),
            "dropped": get(&d.outbox_dropped),
            "damaged": get(&d.outbox_damaged),
        },
        "store": store(&shared.store),
        "building_engine_of": building.as_ref().map(|b| &b.model),
        "building_engine_for_s": building.as_ref().map(|b| b.elapsed(now).as_secs()),
        "building_engine_step": building.as_ref().map(|b| b.step_name()),
        "building_engine_busy_s": building.as_ref().map(|b| b.busy().as_secs()),
        "derated": shared.derated.load().as_deref(),
        "updates": *shared.updates.state.load_full(),
        "updates_progress": shared.updates.progress.load().values().collect::<Vec<_>>(),
        "trial": shared.trial.load().as_deref().map(trial),
    })
}

fn store(view: &StoreView) -> Value {
    let status = view.status.load();
    let mut value = json!({ "state": "starting" });
    if let Some(status) = status.as_deref() {
        value = json!(status);
    }
    value["waiting"] = view.waiting.load(Relaxed).into();
    value["errors"] =
        view.errors().map(|(kind, n)| (kind.to_owned(), n.into())).collect::<serde_json::Map<_, _>>().into();
    value
}

fn camera(view: &CameraView) -> Value {
    let stat = |pick: fn(&CameraStats) -> &AtomicU64| view.capture.get().map(|s| pick(s).load(Relaxed));
    let state = view.capture.get().map_or("starting", |s| match s.state() {
        CameraState::Connecting => "connecting",
        CameraState::Up => "up",
        CameraState::Down => "down",
        CameraState::Stopped => "stopped",
    });
    json!({
        "name": view.name,
        "source": view.source,
        "models": view.models,
        "state": state,
        "last_error": view.capture.get().and_then(|s| s.last_error()),
        "frames_decoded": stat(|s| &s.decoded),
        "frames_taken": stat(|s| &s.taken),
        "frames_behind": view.overflow.load(Relaxed),
        "reconnects": stat(|s| &s.reconnects),
        "freezes": stat(|s| &s.freezes),
        "decoder_fallbacks": stat(|s| &s.decoder_fallbacks),
        "threads_abandoned": stat(|s| &s.threads_abandoned),
        "windows": view.windows.load(Relaxed),
        "windows_dropped": {
            "hole": view.windows_dropped(|d| &d.hole),
            "failed": view.windows_dropped(|d| &d.failed),
            "overload": view.windows_dropped(|d| &d.overload),
            "swap": view.windows_dropped(|d| &d.swap),
            "derated": view.windows_dropped(|d| &d.derated),
        },
        "failing": view.models.iter().zip(&view.dropped).filter(|(_, d)| d.failing.load(Relaxed)).map(|(m, _)| m).collect::<Vec<_>>(),
        "active": **view.active.load(),
    })
}

fn trial(trial: &TrialView) -> Value {
    json!({
        "model": trial.model,
        "version": trial.version,
        "requests": trial.tally.requests(),
        "failed": trial.tally.failed.load(Relaxed),
        "not_finite": trial.tally.not_finite.load(Relaxed),
        "compared": trial.compared.load(Relaxed),
        "agreement": trial.agreement(),
        "p99_ms": trial.tally.latency.quantile_ms(0.99),
    })
}

fn seconds(duration: Duration) -> Value {
    json!(duration.as_millis() as f64 / 1e3)
}

fn model(view: &ModelView) -> Value {
    let (sum_s, count, _) = view.duration.read();
    json!({
        "name": view.name,
        "opened": view.info.load().as_deref(),
        "backbone_runs": view.backbone_runs.load(Relaxed),
        "head_runs": view.head_runs.load(Relaxed),
        "p99_ms_per_window": view.tally.latency.quantile_ms(0.99),
        "mean_inference_ms": (count > 0).then(|| sum_s * 1000.0 / count as f64),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::builds::Building;
    use crate::worker::Step;

    #[test]
    fn an_engine_that_is_built_is_shown_with_its_time_and_step() {
        let shared = Shared::new("g", "d", "b", vec![], vec!["falls".into()]);
        let fields = ["of", "for_s", "step", "busy_s"].map(|field| format!("building_engine_{field}"));
        let shown = |shared: &Shared| fields.clone().map(|field| render(shared)[field].clone());
        assert_eq!(shown(&shared), [const { Value::Null }; 4]);
        let (since, busy_ms) = (Instant::now(), Arc::new(AtomicU64::new(61_200)));
        let building = Building { model: "falls".into(), since, step: Some(Step::Open), busy_ms };
        shared.building.store(Some(Arc::new(building)));
        let [of, for_s, step, busy_s] = shown(&shared);
        assert_eq!((of, step, busy_s), (json!("falls"), json!("open"), json!(61)));
        assert!(for_s.as_u64().is_some_and(|s| s < 3600), "{for_s}");
    }
}
