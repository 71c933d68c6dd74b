//! How late a decoder dates its edges, and how far they lie off.

use kinewatch_core::manifest::{DecoderParams, Decoding};

use super::{Material, objective};
use crate::intervals::{Detection, TrueAction, tiou};

/// Share of the true edges that lie within the stated uncertainty.
const COVERED: f64 = 0.9;
/// Overlap from which a detection is taken for a true action, before and after its lag is known.
const OVERLAPS: [f64; 2] = [0.1, 0.3];

/// The settings of `label` with the lags that they have on `material`: the median signed error of begin and end.
pub(super) fn with_lags(
    material: &Material,
    decoding: &Decoding,
    label: usize,
    params: DecoderParams,
) -> DecoderParams {
    let mut params = DecoderParams { lag_start_s: 0.0, lag_end_s: 0.0, ..params };
    let mut detections = alone(material, decoding, label, params);
    for overlap in OVERLAPS {
        let pairs = pairs(material, &detections, overlap);
        let late =
            |edge: fn((f64, f64)) -> f64| median(pairs.iter().map(|(d, t)| edge(d.span()) - edge(t.span())).collect());
        let (start_s, end_s) = (late(|span| span.0), late(|span| span.1));
        for d in &mut detections {
            d.start_s -= start_s;
            d.end_s = d.end_s.map(|end| (end - end_s).max(d.start_s));
        }
        params.lag_start_s += start_s;
        params.lag_end_s += end_s;
    }
    params.lag_start_s = rounded(params.lag_start_s.clamp(-60.0, 60.0));
    params.lag_end_s = rounded(params.lag_end_s.clamp(-60.0, 60.0));
    params
}

/// Sets the uncertainties of a label so that nine true edges in ten lie within what is stated; gives how many begins and
/// ends that is from. With few of them, the largest error counts.
pub(super) fn uncertainties(material: &Material, decoding: &mut Decoding, label: usize) -> [usize; 2] {
    let Some(params) = decoding.labels[label].decoder else { return [0, 0] };
    let bare = DecoderParams { uncertainty_start_ms: 0.0, uncertainty_end_ms: 0.0, ..params };
    let detections = alone(material, decoding, label, bare);
    let pairs = pairs(material, &detections, OVERLAPS[1]);
    let beyond = |error_s: f64, stated_ms: f64| (error_s.abs() * 1000.0 - stated_ms).max(0.0);
    let starts = pairs.iter().map(|(d, t)| beyond(d.start_s - t.start_s, d.start_uncertainty_ms)).collect();
    let ends = pairs.iter().map(|(d, t)| beyond(d.span().1 - t.end_s, d.end_uncertainty_ms.unwrap_or(0.0))).collect();
    // Without a true edge there is nothing to learn from: what the package says stays.
    let start = enough(starts).unwrap_or(params.uncertainty_start_ms);
    let end = enough(ends).unwrap_or(params.uncertainty_end_ms);
    let params = DecoderParams { uncertainty_start_ms: start.ceil(), uncertainty_end_ms: end.ceil(), ..params };
    decoding.labels[label].decoder = Some(params);
    [pairs.len(), pairs.len()]
}

/// The value that nine of ten new ones do not exceed, if they are like these (split conformal: Vovk et al. 2005).
fn enough(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (((values.len() + 1) as f64 * COVERED).ceil() as usize).min(values.len());
    values.get(rank.checked_sub(1)?).copied()
}

/// What one label's settings find, published or not.
fn alone(material: &Material, decoding: &Decoding, label: usize, params: DecoderParams) -> Vec<Detection> {
    let mut tried = decoding.clone();
    tried.sequences.clear();
    for (i, l) in tried.labels.iter_mut().enumerate() {
        (l.publish, l.decoder) = if i == label { (true, Some(params)) } else { (false, None) };
    }
    tried.exclusive.clear();
    objective::detections(&tried, &material.replayed)
}

fn pairs<'a>(material: &'a Material, found: &'a [Detection], overlap: f64) -> Vec<(&'a Detection, &'a TrueAction)> {
    let truth: Vec<&TrueAction> = material.truth.actions.iter().collect();
    let detections: Vec<&Detection> = found.iter().collect();
    let fit = |d: &Detection, t: &TrueAction| {
        let fits = tiou(d.span(), t.span());
        (fits >= overlap).then_some(fits)
    };
    let assigned = crate::intervals::assign(&detections, &truth, fit);
    found.iter().zip(assigned).filter_map(|(d, t)| Some((d, truth[t?.0]))).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n => f64::midpoint(values[(n - 1) / 2], values[n / 2]),
    }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
