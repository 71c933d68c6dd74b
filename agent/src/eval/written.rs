//! The evaluation as JSON, for machines: every figure with its interval, `null` where it is not defined.

use serde_json::{Map, Value, json};

use super::{DRAWS, Evaluation, Knob, LabelFigures, Point, TradeOff};

/// The version of the layout.
const FORMAT: u32 = 1;

/// Everything but the single detections. Figures are named in `agent/design/evaluation.md`.
#[must_use]
pub fn json(evaluation: &Evaluation, trade_offs: &[TradeOff]) -> Value {
    let Evaluation { package: (name, version), accel, videos, hours, groups, .. } = evaluation;
    let labels: Map<String, Value> = evaluation.labels.iter().map(|l| (l.label.clone(), block(l))).collect();
    let system = evaluation
        .system
        .map(|s| json!({ "windows": s.windows, "frame_to_decision_ms": { "median": s.median_ms, "p95": s.p95_ms } }));
    let curves: Map<String, Value> =
        trade_offs.iter().map(|t| (t.label.clone(), t.points.iter().map(point).collect())).collect();
    json!({
        "format": FORMAT,
        "package": { "name": name, "version": version, "accel": accel },
        "videos": videos,
        "hours": hours,
        "groups": groups,
        "bootstrap_draws": DRAWS,
        "labels": labels,
        "all": block(&evaluation.all),
        "system": system,
        "trade_offs": curves,
    })
}

fn block(label: &LabelFigures) -> Value {
    let mut block = Map::new();
    block.insert("truth".into(), label.truth.into());
    block.insert("detections".into(), label.detections.into());
    block.insert("found".into(), label.found.into());
    for (key, figure) in label.figures() {
        block.insert(key.name(), json!({ "value": figure.value, "interval": figure.interval }));
    }
    block.into()
}

fn point(point: &Point) -> Value {
    json!({
        "turned": match point.knob { Knob::Threshold => "threshold", Knob::Evidence => "evidence" },
        "setting": point.setting,
        "in_use": point.in_use,
        "miss_rate": point.miss_rate,
        "false_per_day": point.false_per_day,
        "f1@0.5": point.f1,
        "start_delay_s_median": point.start_delay_s,
    })
}
