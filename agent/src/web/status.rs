//! The JSON of `/status`: everything a person asks first when something seems wrong.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kinewatch_capture::{CameraState, CameraStats};
use serde_json::{Value, json};

use crate::health::{CameraView, ModelView, Shared, age_s};

pub(super) fn render(shared: &Shared) -> Value {
    let d = &shared.delivery;
    let get = |n: &AtomicU64| n.load(Relaxed);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "group": shared.group,
        "device": shared.device,
        "uptime_s": shared.started.elapsed().as_secs(),
        "ready": shared.is_ready(),
        "alive": shared.is_alive(super::ALIVE_LIMIT),
        "cameras": shared.cameras.iter().map(camera).collect::<Vec<_>>(),
        "models": shared.models.iter().map(model).collect::<Vec<_>>(),
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
            "oldest_age_s": age_s(d.outbox_oldest_unix_ns.load(Relaxed)),
            "parked": get(&d.outbox_parked),
            "dropped": get(&d.outbox_dropped),
            "store_errors": get(&d.store_errors),
        },
    })
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
        "windows": view.windows.load(Relaxed),
        "windows_dropped": {
            "hole": view.windows_dropped(|d| &d.hole),
            "failed": view.windows_dropped(|d| &d.failed),
            "overload": view.windows_dropped(|d| &d.overload),
        },
        "active": **view.active.load(),
    })
}

fn model(view: &ModelView) -> Value {
    let (sum_s, count, _) = view.duration.read();
    json!({
        "name": view.name,
        "opened": view.info.load().as_deref(),
        "backbone_runs": view.backbone_runs.load(Relaxed),
        "head_runs": view.head_runs.load(Relaxed),
        "mean_inference_ms": (count > 0).then(|| sum_s * 1000.0 / count as f64),
    })
}
