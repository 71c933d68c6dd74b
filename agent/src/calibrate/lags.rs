//! How late a decoder dates its edges, and how far they lie off.

use kinewatch_core::manifest::{DecoderParams, Decoding, Sequence};

use super::{Material, annotated, objective, rivals};
use crate::intervals::{Detection, TrueAction, tiou};

/// Share of the true edges that lie within the stated uncertainty.
const COVERED: f64 = 0.9;
/// Of a normal error, so many standard deviations either way hold nine of ten.
const Z_COVERED: f64 = 1.645;
const Z_LOWER_TENTH: f64 = 1.282;
/// From so many values on, they speak for themselves.
const MANY: usize = 50;
/// Most that a package may state.
const MOST_MS: f64 = 60_000.0;
/// A label with so many edges is judged by its own.
const OWN: usize = 10;
/// Overlap from which a detection is taken for a true action, before and after its lag is known.
const OVERLAPS: [f64; 2] = [0.1, 0.3];

/// The settings of `label` with the lags that they have on `material`: the median signed error of begin and end. Where no
/// edge is known, the lag stays.
pub(super) fn with_lags(
    material: &Material,
    decoding: &Decoding,
    label: usize,
    params: DecoderParams,
) -> DecoderParams {
    let Some(known) = known(material, decoding, label) else { return params };
    let bare = DecoderParams { lag_start_s: 0.0, lag_end_s: params.lag_end_s * kept(known), ..params };
    let mut params = bare;
    let mut detections = found(material, decoding, label, known, bare);
    for overlap in OVERLAPS {
        let pairs = pairs(material, &detections, overlap);
        let late =
            |edge: fn((f64, f64)) -> f64| median(pairs.iter().map(|(d, t)| edge(d.span()) - edge(t.span())).collect());
        let (start_s, end_s) = (late(|span| span.0), late(|span| span.1) * (1.0 - kept(known)));
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

/// Sets the uncertainties so that nine true edges in ten lie within what is stated. A label with few edges of its own is
/// given what holds for all labels together. Gives how many begins and ends there are in all.
pub(super) fn uncertainties(material: &Material, decoding: &mut Decoding) -> [usize; 2] {
    let off: Vec<[Vec<f64>; 2]> = (0..decoding.labels.len()).map(|label| off(material, decoding, label)).collect();
    let all = [0, 1].map(|edge| off.iter().flat_map(|label| label[edge].clone()).collect::<Vec<f64>>());
    for (label, own) in decoding.labels.iter_mut().zip(&off) {
        let Some(params) = &mut label.decoder else { continue };
        let stated = [0, 1].map(|edge| enough(if own[edge].len() >= OWN { &own[edge] } else { &all[edge] }));
        // Without a true edge there is nothing to learn from: what the package says stays.
        params.uncertainty_start_ms = stated[0].map_or(params.uncertainty_start_ms, |ms| ms.ceil().min(MOST_MS));
        params.uncertainty_end_ms = stated[1].map_or(params.uncertainty_end_ms, |ms| ms.ceil().min(MOST_MS));
    }
    all.map(|edges| edges.len())
}

/// How far the begins and ends of a label lie off, beyond what its decoder states by itself; milliseconds.
fn off(material: &Material, decoding: &Decoding, label: usize) -> [Vec<f64>; 2] {
    let (Some(params), Some(known)) = (decoding.labels[label].decoder, known(material, decoding, label)) else {
        return [Vec::new(), Vec::new()];
    };
    let bare = DecoderParams { uncertainty_start_ms: 0.0, uncertainty_end_ms: 0.0, ..params };
    let detections = found(material, decoding, label, known, bare);
    let pairs = pairs(material, &detections, OVERLAPS[1]);
    let beyond = |error_s: f64, stated_ms: f64| (error_s.abs() * 1000.0 - stated_ms).max(0.0);
    let starts = pairs.iter().map(|(d, t)| beyond(d.start_s - t.start_s, d.start_uncertainty_ms)).collect();
    let end = |(d, t): &(&Detection, &TrueAction)| beyond(d.span().1 - t.end_s, d.end_uncertainty_ms.unwrap_or(0.0));
    [starts, if known == Known::Action { pairs.iter().map(end).collect() } else { Vec::new() }]
}

/// What the annotations know of a label.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    /// Its begin and end.
    Action,
    /// Only its begin, which is that of a sequence (by index).
    Begin(usize),
}

fn known(material: &Material, decoding: &Decoding, label: usize) -> Option<Known> {
    if annotated(&material.truth, &decoding.labels[label].name) {
        return Some(Known::Action);
    }
    let begins = |s: &Sequence| s.parts.first() == Some(&label) && annotated(&material.truth, &s.name);
    decoding.sequences.iter().position(begins).map(Known::Begin)
}

/// 1 where the lag of the end is not learned.
fn kept(known: Known) -> f64 {
    if known == Known::Action { 0.0 } else { 1.0 }
}

/// The value that nine of ten new ones do not exceed, if they are like these (split conformal: Vovk et al. 2005). A few
/// values may happen to be small ones, so with few of them it is at least what nine of ten such samples would give
/// (tolerance bound of a normal error about zero).
fn enough(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let rank = (((n + 1.0) * COVERED).ceil() as usize).min(values.len());
    let conformal = values.get(rank.checked_sub(1)?).copied()?;
    if values.len() >= MANY {
        return Some(conformal);
    }
    let square = values.iter().map(|v| v * v).sum::<f64>() / n;
    // Lower tenth of chi-square with n degrees of freedom (Wilson and Hilferty 1931), as a share of n.
    let spread = 2.0 / (9.0 * n);
    let share = (1.0 - spread - Z_LOWER_TENTH * spread.sqrt()).max(0.05).powi(3);
    Some(conformal.max(Z_COVERED * (square / share).sqrt()))
}

/// What one label's settings find, published or not, or the sequence that it begins.
fn found(
    material: &Material,
    decoding: &Decoding,
    label: usize,
    known: Known,
    params: DecoderParams,
) -> Vec<Detection> {
    let mut tried = decoding.clone();
    let rivals = rivals(decoding, label);
    // A begin that the longest duration moved tells nothing of the label.
    let whole = |index: usize| Sequence { longest: None, ..decoding.sequences[index].clone() };
    tried.sequences = if let Known::Begin(index) = known { vec![whole(index)] } else { Vec::new() };
    let needed = |i| rivals.contains(&i) || tried.sequences.iter().any(|s| s.parts.contains(&i));
    for (i, l) in tried.labels.iter_mut().enumerate() {
        l.publish = i == label && known == Known::Action;
        l.decoder = if i == label { Some(params) } else { l.decoder.filter(|_| needed(i)) };
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_of_ten_lie_within_what_many_values_say() {
        let values: Vec<f64> = (1..=99).map(f64::from).collect();
        assert_eq!(enough(&values), Some(90.0));
        assert_eq!(enough(&[]), None);
    }

    #[test]
    fn few_values_are_not_trusted() {
        // Ten errors of 100 ms: a normal error that gives these may well be of 143 ms.
        let stated = enough(&[100.0; 10]).unwrap();
        assert!((stated - 1.645 * 143.0).abs() < 3.0, "{stated}");
        assert!(enough(&[100.0; 40]).unwrap() < stated);
        assert_eq!(enough(&[100.0; 50]), Some(100.0));
        assert_eq!(enough(&[10.0, 10.0, 900.0]).unwrap().max(900.0), enough(&[10.0, 10.0, 900.0]).unwrap());
    }
}
