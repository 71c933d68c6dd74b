//! Decoders against simulated score streams with known actions: floors for the quality of boundaries.
//!
//! One label; actions of log-normal length (median 3 s), scores of a trailing window every 0.25 s with correlated noise,
//! 60 short distractors and 20 dropouts an hour. Seeds are fixed, so the figures are too.

// Helpers of tests count as tests.
#![allow(clippy::unwrap_used)]

use kinewatch_core::decode::{Decision, Decoder, EndReason, Status};
use kinewatch_core::manifest::{Manifest, Overrides};
use kinewatch_core::time::Pts;

const HOUR_S: f64 = 3600.0;
const STRIDE_S: f64 = 0.25;
const CELL_S: f64 = 0.05;
const LEVEL: f64 = 2.5;

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }
}

struct Trace {
    actions: Vec<(f64, f64)>,
    scores: Vec<(Pts, f32)>,
}

fn simulate(seed: u64, window_s: f64, noise: f64) -> Trace {
    trace(seed, window_s, noise, HOUR_S, 60)
}

/// Without actions and distractors when there are to be none.
fn trace(seed: u64, window_s: f64, noise: f64, length_s: f64, per_hour: usize) -> Trace {
    let mut rng = Random(seed);
    let cells = (length_s / CELL_S) as usize;
    let mut latent = vec![-LEVEL; cells];
    let mut fill = |from: f64, to: f64, value: f64| {
        let cell = |t: f64| ((t / CELL_S) as usize).min(cells);
        latent[cell(from)..cell(to)].fill(value);
    };
    let mut actions = Vec::new();
    let mut now = if per_hour == 0 { f64::INFINITY } else { rng.exponential(20.0) };
    loop {
        let length = (3.0 * (0.6 * rng.normal()).exp()).clamp(1.0, 30.0);
        if now + length > length_s {
            break;
        }
        fill(now, now + length, LEVEL);
        actions.push((now, now + length));
        now += length + 3.0 + rng.exponential(25.0);
    }
    for (count, value) in [(per_hour, LEVEL), (per_hour / 3, -LEVEL)] {
        for _ in 0..count {
            let (at, length) = (rng.uniform() * (length_s - 1.0), 0.2 + 0.4 * rng.uniform());
            fill(at, at + length, value);
        }
    }
    let per = |seconds: f64| (seconds / CELL_S).round() as usize;
    let correlation = (1.0 - STRIDE_S / window_s).max(0.0);
    let mut error = 0.0;
    let scores = (1..=cells / per(STRIDE_S)).map(|k| {
        let end = k * per(STRIDE_S);
        let span = &latent[end.saturating_sub(per(window_s))..end];
        error = correlation * error + (1.0 - correlation * correlation).sqrt() * rng.normal();
        let score = span.iter().sum::<f64>() / span.len() as f64 + noise * error;
        (Pts::from_seconds(end as f64 * CELL_S), score as f32)
    });
    let scores = scores.collect();
    Trace { actions, scores }
}

fn decoder(label: &str) -> Decoder {
    let text = include_str!("../testdata/model.toml");
    let (head, rest) = text.split_once("[[labels]]\nname = \"falling\"").unwrap();
    let (_, tail) = rest.split_once("[golden]").unwrap();
    let head = head.replace("\"online\"", "\"clip\"").replace("softmax", "sigmoid").replace(
        "rate_hz = 5.0\nsegments = 1\nsnippet = 1\nwindow_s = 0.2\nstride_s = 0.2",
        "rate_hz = 4.0\nsegments = 1\nsnippet = 1\nwindow_s = 0.5\nstride_s = 0.25",
    );
    let (head, graphs) = head.split_once("[[tensors.states]]").unwrap();
    let (_, graphs) = graphs.split_once("[graphs.fp32]").unwrap();
    let text =
        format!("{head}[graphs.fp32]{graphs}[[labels]]\nname = \"act\"\n[labels.decoder]\n{label}\n[golden]{tail}");
    Decoder::new(&Manifest::parse(&text).unwrap(), &Overrides::default()).unwrap()
}

fn decode(decoder: &mut Decoder, trace: &Trace) -> Vec<Decision> {
    let mut out = Vec::new();
    for &(at, score) in &trace.scores {
        decoder.step(at, &[0.0, score], &mut out);
    }
    decoder.gap(trace.scores.last().unwrap().0, EndReason::Shutdown, &mut out);
    out
}

#[derive(Debug)]
struct Quality {
    f1: f64,
    false_per_hour: f64,
    start_error_s: f64,
    decided_after_s: f64,
}

/// Greedy matching at an overlap of one half, over several hours.
fn measure(label: &str, window_s: f64, noise: f64) -> Quality {
    let (mut truths, mut found, mut hits) = (0, 0, 0);
    let (mut errors, mut delays) = (Vec::new(), Vec::new());
    let hours = 4;
    for seed in 0..hours {
        let trace = simulate(100 + seed, window_s, noise);
        let out = decode(&mut decoder(label), &trace);
        let mut free = trace.actions.clone();
        truths += free.len();
        for d in &out {
            let Status::Ended { end, .. } = d.status else { continue };
            found += 1;
            let span = (d.start.seconds(), end.seconds());
            let overlap = |t: &(f64, f64)| (span.1.min(t.1) - span.0.max(t.0)) / (span.1.max(t.1) - span.0.min(t.0));
            let Some(i) = free.iter().position(|t| overlap(t) >= 0.5) else { continue };
            let truth = free.swap_remove(i);
            hits += 1;
            errors.push((span.0 - truth.0).abs());
            let started = out.iter().find(|s| s.action == d.action).unwrap();
            delays.push(started.decided_at.seconds() - truth.0);
        }
    }
    let quantile = |mut v: Vec<f64>, q: f64| {
        v.sort_by(f64::total_cmp);
        v[((v.len() - 1) as f64 * q) as usize]
    };
    Quality {
        f1: 2.0 * f64::from(hits) / (truths as f64 + f64::from(found)),
        false_per_hour: f64::from(found - hits) / hours as f64,
        start_error_s: quantile(errors, 0.5),
        decided_after_s: quantile(delays, 0.95),
    }
}

const CUSUM: &str = "kind = \"cusum\"\non = 0.5\noff = 0.5\nh_on = 1.5\nh_off = 1.5\nmin_duration_s = 0.5\n\
                     merge_gap_s = 0.5\nlag_start_s = 0.3\nlag_end_s = 0.3";
const BOX: &str = "kind = \"hysteresis\"\non = 0.5\noff = 0.4\nsmooth_s = 1.5\nmin_duration_s = 0.5\nmerge_gap_s = 0.5\n\
                   lag_start_s = 1.75\nlag_end_s = 1.75";

#[test]
fn cusum_on_short_windows() {
    let q = measure(CUSUM, 0.5, 1.5);
    assert!(q.f1 >= 0.9 && q.false_per_hour <= 10.0 && q.start_error_s <= 0.25 && q.decided_after_s <= 2.5, "{q:?}");
}

#[test]
fn box_hysteresis_on_long_windows() {
    let q = measure(BOX, 2.0, 1.0);
    assert!(q.f1 >= 0.87 && q.false_per_hour <= 15.0 && q.start_error_s <= 0.3 && q.decided_after_s <= 3.5, "{q:?}");
}

const SHORT_MODEL: &str = "kind = \"hmm\"\non = 0.93\noff = 0.02\n[labels.decoder.hmm]\nwindow_s = 0.5\nlow = -2.5\n\
    high = 2.5\ndeviation = 1.5\ncorrelation = 0.5\nshortest_s = 1.0\npause_s = 1.5\nlength_s = 2.6\napart_s = 28.0\n\
    burst = 4.0\nburst_s = 0.4\nbursts_per_hour = 60.0\ndropouts_per_hour = 20.0";
const LONG_MODEL: &str = "kind = \"hmm\"\non = 0.95\noff = 0.02\n[labels.decoder.hmm]\nwindow_s = 2.0\nlow = -2.5\n\
    high = 2.5\ndeviation = 1.0\ncorrelation = 0.875\nshortest_s = 1.0\npause_s = 1.5\nlength_s = 2.6\napart_s = 28.0\n\
    burst = 1.0\nburst_s = 1.0\nbursts_per_hour = 60.0\ndropouts_per_hour = 20.0";

#[test]
fn a_model_of_the_window_finds_as_much_and_dates_it_better() {
    for (model, other, window_s, noise) in [(SHORT_MODEL, CUSUM, 0.5, 1.5), (LONG_MODEL, BOX, 2.0, 1.0)] {
        let (q, other) = (measure(model, window_s, noise), measure(other, window_s, noise));
        assert!(q.f1 >= other.f1 - 0.005 && q.false_per_hour < other.false_per_hour, "{q:?} {other:?}");
        assert!(q.start_error_s < 0.85 * other.start_error_s, "{q:?} {other:?}");
        assert!(q.decided_after_s < other.decided_after_s + 0.05, "{q:?} {other:?}");
    }
}

#[test]
fn ten_hours_of_background_are_silent() {
    // As for a house that wants no false alarm a week: more evidence than for the best F1.
    let cusum = CUSUM.replace("h_on = 1.5", "h_on = 3.0");
    let mean = BOX.replace("on = 0.5", "on = 0.85");
    let rare = |model: &str| model.replace("apart_s = 28.0", "apart_s = 3600.0");
    let (short, long) = (rare(SHORT_MODEL), rare(LONG_MODEL));
    let settings = [(&cusum, 0.5, 1.5), (&mean, 2.0, 1.0), (&short, 0.5, 1.5), (&long, 2.0, 1.0)];
    for (settings, window_s, noise) in settings {
        let out = decode(&mut decoder(settings), &trace(11, window_s, noise, 10.0 * HOUR_S, 0));
        assert!(out.is_empty(), "{} decisions of {settings}", out.len());
    }
}

#[test]
fn the_lag_is_what_matters_most() {
    let blind = BOX.replace("1.75", "0.0");
    assert!(measure(&blind, 2.0, 1.0).f1 < measure(BOX, 2.0, 1.0).f1 - 0.3);
}

#[test]
fn feeding_in_pieces_changes_nothing() {
    let trace = simulate(7, 0.5, 1.5);
    for settings in [CUSUM, BOX, SHORT_MODEL] {
        let whole = decode(&mut decoder(settings), &trace);
        let (mut d, mut pieces) = (decoder(settings), Vec::new());
        for chunk in trace.scores.chunks(17) {
            let mut out = Vec::new();
            chunk.iter().for_each(|&(at, score)| d.step(at, &[0.0, score], &mut out));
            pieces.append(&mut out);
        }
        d.gap(trace.scores.last().unwrap().0, EndReason::Shutdown, &mut pieces);
        assert_eq!(whole, pieces);
        assert_eq!(whole, decode(&mut decoder(settings).clone(), &trace), "a copy decides alike");
    }
}
