//! How late a decoder dates its edges, learnt as `kinewatch calibrate` does: the median signed error.

use kinewatch::intervals::{Detection, TrueAction, Truth, assign, tiou};

/// Overlap from which a detection is taken for a true action, before and after its lag is known.
const OVERLAPS: [f64; 2] = [0.1, 0.3];

/// Lags of begin and end, seconds, of detections that have none taken off yet.
pub(crate) fn learnt(mut found: Vec<Detection>, truth: &Truth) -> [f64; 2] {
    let truth: Vec<&TrueAction> = truth.actions.iter().collect();
    let mut lags = [0.0; 2];
    for overlap in OVERLAPS {
        let refs: Vec<&Detection> = found.iter().collect();
        let assigned = assign(&refs, &truth, |d, t| {
            let fits = tiou(d.span(), t.span());
            (fits >= overlap).then_some(fits)
        });
        let pairs = || refs.iter().zip(&assigned).filter_map(|(d, t)| Some((d.span(), truth[(*t)?.0].span())));
        let late =
            [median(pairs().map(|(d, t)| d.0 - t.0).collect()), median(pairs().map(|(d, t)| d.1 - t.1).collect())];
        for d in &mut found {
            d.start_s -= late[0];
            d.end_s = d.end_s.map(|end| (end - late[1]).max(d.start_s));
        }
        lags = [lags[0] + late[0], lags[1] + late[1]];
    }
    lags
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n => f64::midpoint(values[(n - 1) / 2], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_what_most_detections_are_late_by() {
        let mut truth = Truth::default();
        let mut found = Vec::new();
        for (start_s, late_s) in [(10.0, 0.5), (30.0, 0.6), (50.0, 0.7), (70.0, 2.5)] {
            let (camera, label) = ("a".to_owned(), "x".to_owned());
            truth.actions.push(TrueAction { camera, label, start_s, end_s: start_s + 4.0 });
            let (camera, label) = ("a".to_owned(), "x".to_owned());
            let (start_s, end_s) = (start_s + late_s, Some(start_s + 4.2));
            found.push(Detection { camera, label, start_s, end_s, ..Detection::default() });
        }
        let [start, end] = learnt(found, &truth);
        assert!((start - 0.65).abs() < 1e-9 && (end - 0.2).abs() < 1e-9, "{start} {end}");
        assert_eq!(learnt(Vec::new(), &truth), [0.0, 0.0]);
    }
}
