//! Where a search begins for each kind of decoder, and what it may change.

use kinewatch_core::manifest::{DecoderKind, DecoderParams, ScoreModel};

use crate::eval::shifted;

/// Settings to begin from: those of the package if they are of the kind, and what suits most scores.
pub(super) fn starts(
    kind: DecoderKind,
    packaged: DecoderParams,
    model: Option<ScoreModel>,
    stride_s: f64,
) -> Vec<DecoderParams> {
    let own = (packaged.kind == kind).then_some(packaged);
    let plain = DecoderParams { kind, hmm: None, min_duration_s: 0.0, ..packaged };
    let at = |on: f64, off: f64| DecoderParams { on, off, ..plain };
    let others: Vec<DecoderParams> = match kind {
        DecoderKind::Cusum => {
            [0.3, 0.5, 0.7].map(|on| DecoderParams { h_on: 2.5 * stride_s, h_off: 2.5 * stride_s, ..at(on, on) }).into()
        }
        DecoderKind::Hysteresis => {
            let smooth = [0.0, 3.0, 6.0].map(|strides| strides * stride_s);
            smooth
                .iter()
                .flat_map(|&smooth_s| [0.3, 0.5, 0.7].map(|on| DecoderParams { smooth_s, ..at(on, 0.7 * on) }))
                .collect()
        }
        DecoderKind::Hmm => {
            let with = |model| DecoderParams { hmm: Some(model), merge_gap_s: 0.0, ..at(0.95, 0.02) };
            model.map(with).into_iter().collect()
        }
    };
    own.into_iter().chain(others).collect()
}

/// Settings one step away, `size` from 1 (coarse) to a quarter.
pub(super) fn neighbours(p: &DecoderParams, size: f64, stride_s: f64) -> Vec<DecoderParams> {
    let mut near = Vec::new();
    let both = [-size, size];
    near.extend(both.map(|by| {
        let on = shifted(p.on, by);
        DecoderParams { on, off: p.off.min(on), ..*p }
    }));
    near.extend(both.map(|by| DecoderParams { off: shifted(p.off, by).min(p.on), ..*p }));
    let times = both.map(f64::exp2);
    let added = both.map(|by| 2.0 * by * stride_s);
    if let Some(model) = p.hmm {
        near.extend(changed(&model, size, stride_s).into_iter().map(|model| DecoderParams { hmm: Some(model), ..*p }));
    } else {
        near.extend(added.map(|by| DecoderParams { min_duration_s: (p.min_duration_s + by).max(0.0), ..*p }));
    }
    match p.kind {
        DecoderKind::Cusum => {
            near.extend(times.map(|by| DecoderParams { h_on: p.h_on * by, ..*p }));
            near.extend(times.map(|by| DecoderParams { h_off: p.h_off * by, ..*p }));
            near.extend(both.map(|by| {
                let on = shifted(p.on, by);
                DecoderParams { on, off: on, ..*p }
            }));
        }
        DecoderKind::Hysteresis => {
            near.extend(added.map(|by| DecoderParams { smooth_s: (p.smooth_s + by).max(0.0), ..*p }));
        }
        DecoderKind::Hmm => {}
    }
    near.extend(added.map(|by| DecoderParams { merge_gap_s: (p.merge_gap_s + by).max(0.0), ..*p }));
    near.into_iter().filter(|near| near != p && near.max_duration_s > near.min_duration_s).map(tidy).collect()
}

/// Scores of real nets are not quite what the model says: a little more noise, or less, may decide better.
fn changed(m: &ScoreModel, size: f64, stride_s: f64) -> Vec<ScoreModel> {
    let times = [-0.3 * size, 0.3 * size].map(f64::exp2);
    let added = [-2.0 * size * stride_s, 2.0 * size * stride_s];
    let mut near = Vec::new();
    near.extend(times.map(|by| ScoreModel { deviation: m.deviation * by, ..*m }));
    near.extend(times.map(|by| ScoreModel { apart_s: m.apart_s * by * by, ..*m }));
    near.extend(
        [-0.2 * size, 0.2 * size].map(|by| ScoreModel { correlation: (m.correlation + by).clamp(0.0, 0.9), ..*m }),
    );
    near.extend(added.map(|by| ScoreModel { shortest_s: (m.shortest_s + by).max(seen(m.window_s, stride_s)), ..*m }));
    near.extend(added.map(|by| ScoreModel { pause_s: (m.pause_s + by).max(seen(m.window_s, stride_s)), ..*m }));
    near.extend(times.map(|by| ScoreModel { burst: m.burst * by, ..*m }));
    near
}

/// Actions and pauses much shorter than the window are hardly seen in its scores, and cost states.
pub(super) fn seen(window_s: f64, stride_s: f64) -> f64 {
    stride_s.max(window_s / 2.0)
}

/// No more digits than a person would write, and within what a package may say.
fn tidy(p: DecoderParams) -> DecoderParams {
    let to = |value: f64| (value * 1e4).round() / 1e4;
    let probability = |value: f64| to(value).clamp(1e-4, 1.0 - 1e-4);
    let tidy_model = |m: ScoreModel| ScoreModel {
        deviation: to(m.deviation).clamp(0.01, 20.0),
        apart_s: to(m.apart_s).clamp(1e-3, 1e6),
        correlation: to(m.correlation),
        shortest_s: to(m.shortest_s).min(60.0),
        pause_s: to(m.pause_s).min(60.0),
        burst: to(m.burst).min(20.0),
        ..m
    };
    DecoderParams {
        on: probability(p.on),
        off: probability(p.off),
        h_on: to(p.h_on).clamp(1e-4, 1000.0),
        h_off: to(p.h_off).clamp(1e-4, 1000.0),
        smooth_s: to(p.smooth_s).min(60.0),
        min_duration_s: to(p.min_duration_s),
        merge_gap_s: to(p.merge_gap_s).min(600.0),
        hmm: p.hmm.map(tidy_model),
        ..p
    }
}
