//! A stretch of a video as a drawing: scores with their thresholds, and below, for each label, what is true and what was
//! detected. Little marks tell when a begin or an end was decided.

use kinewatch_core::manifest::Decoding;
use kinewatch_core::time::Pts;
use maud::{Markup, PreEscaped, html};

use crate::intervals::{Detection, Pair, TrueAction};
use crate::scores::probability;

/// Units of the drawing; the page scales it.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 26.0;
const SCORES: f64 = 150.0;
const LANE: f64 = 40.0;
const FOOT: f64 = 26.0;
/// A curve has no more points than two for each of these columns.
const COLUMNS: usize = 250;
/// More curves than colours cannot be told apart.
const COLOURS: usize = 8;

/// What is to be drawn.
pub(super) struct Scene<'a> {
    /// From and to, seconds.
    pub window_s: (f64, f64),
    /// Of the video, with their numbers in the list.
    pub pairs: Vec<(Option<usize>, &'a Pair)>,
    /// Scores, if there are any.
    pub lines: Option<Lines<'a>>,
}

/// Score curves.
pub(super) struct Lines<'a> {
    pub labels: &'a [String],
    pub scores: &'a [(Pts, Vec<f32>)],
    pub decoding: &'a Decoding,
}

impl Scene<'_> {
    fn x(&self, at_s: f64) -> f64 {
        let (from, to) = self.window_s;
        LEFT + (at_s.clamp(from, to) - from) / (to - from).max(1e-9) * (WIDTH - LEFT - RIGHT)
    }

    fn shows(&self, (start_s, end_s): (f64, f64)) -> bool {
        end_s >= self.window_s.0 && start_s <= self.window_s.1
    }

    /// Labels that occur, in order.
    fn labels(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = self
            .pairs
            .iter()
            .filter(|(_, pair)| spans(pair).into_iter().any(|span| self.shows(span)))
            .map(|(_, pair)| label(pair))
            .collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }
}

/// The drawing.
pub(super) fn draw(scene: &Scene<'_>) -> Markup {
    let labels = scene.labels();
    let scores = if scene.lines.is_some() { SCORES } else { 0.0 };
    let lanes = TOP + scores + 14.0;
    let height = lanes + LANE * labels.len().max(1) as f64 + FOOT;
    let (from, to) = scene.window_s;
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height:.0}")) role="img" data-from=(format!("{from:.3}")) data-to=(format!("{to:.3}"))
            data-left=(LEFT) data-right=(WIDTH - RIGHT) {
            (axis(scene, height))
            @if let Some(lines) = &scene.lines { (curves(scene, lines)) }
            @for (n, label) in labels.iter().enumerate() { (lane(scene, label, lanes + LANE * n as f64)) }
            @if labels.is_empty() {
                text.faint x=(LEFT) y=(lanes + 20.0) { "nothing annotated, nothing detected" }
            }
            line.cursor x1="0" x2="0" y1=(TOP) y2=(height - FOOT) {}
            text.cursor x="0" y=(TOP - 10.0) {}
        }
    }
}

fn axis(scene: &Scene<'_>, height: f64) -> Markup {
    let (from, to) = scene.window_s;
    let step = tick_s(to - from);
    let first = (from / step).ceil() as i64;
    let last = (to / step).floor() as i64;
    html! {
        @for n in first..=last {
            @let at_s = n as f64 * step;
            @let x = format!("{:.1}", scene.x(at_s));
            line.grid x1=(x) x2=(x) y1=(TOP) y2=(height - FOOT) {}
            text.tick x=(x) y=(height - 9.0) { (at_s) @if n == last { " s" } }
        }
    }
}

/// A round number of seconds, for about ten ticks.
fn tick_s(span_s: f64) -> f64 {
    let steps = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];
    steps.into_iter().find(|step| span_s / step <= 14.0).unwrap_or_else(|| (span_s / 14.0).max(3600.0))
}

fn curves(scene: &Scene<'_>, lines: &Lines<'_>) -> Markup {
    let y = |p: f64| TOP + SCORES * (1.0 - p);
    let shown = lines.labels.len().min(COLOURS);
    html! {
        @for p in [0.0, 0.5, 1.0] {
            line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y(p)) y2=(y(p)) {}
            text.side x=(LEFT - 8.0) y=(y(p) + 4.0) { (p) }
        }
        @for (n, label) in lines.labels.iter().take(shown).enumerate() {
            @let colour = format!("c{n}");
            text.key.(colour) x=(LEFT + n as f64 * (WIDTH - LEFT - RIGHT) / shown as f64) y=(TOP - 10.0) { "— " (label) }
            @if let Some(on) = threshold(lines.decoding, label) {
                line.threshold.(colour) x1=(LEFT) x2=(WIDTH - RIGHT) y1=(format!("{:.1}", y(on))) y2=(format!("{:.1}", y(on))) {
                    title { (label) " on = " (on) }
                }
            }
            path.curve.(colour) d=(PreEscaped(path(scene, lines, n))) {}
        }
    }
}

fn threshold(decoding: &Decoding, label: &str) -> Option<f64> {
    decoding.labels.iter().find(|l| l.name == label)?.decoder.map(|d| d.on)
}

/// The curve, with the lowest and highest score of each column: a peak of one score stays visible.
fn path(scene: &Scene<'_>, lines: &Lines<'_>, label: usize) -> String {
    let (from, to) = scene.window_s;
    let visible: Vec<(f64, f64)> = lines
        .scores
        .iter()
        .map(|(at, row)| (at.seconds(), row))
        .filter(|(at_s, _)| (from..=to).contains(at_s))
        .filter_map(|(at_s, row)| Some((at_s, f64::from(probability(*row.get(label)?)))))
        .collect();
    let mut path = String::new();
    for column in visible.chunks(visible.len().div_ceil(COLUMNS).max(1)) {
        let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (Some(low), Some(high)) = (column.iter().min_by(by), column.iter().max_by(by)) else { continue };
        let (first, second) = if low.0 <= high.0 { (low, high) } else { (high, low) };
        for (n, (at_s, p)) in [first, second].into_iter().enumerate() {
            if n == 1 && column.len() == 1 {
                continue;
            }
            let word = if path.is_empty() { 'M' } else { 'L' };
            path += &format!("{word}{:.1} {:.1}", scene.x(*at_s), TOP + SCORES * (1.0 - p));
        }
    }
    path
}

fn lane(scene: &Scene<'_>, name: &str, top: f64) -> Markup {
    html! {
        line.grid x1="0" x2=(WIDTH - RIGHT) y1=(top) y2=(top) {}
        text.side.name x=(LEFT - 8.0) y=(top + 24.0) { (name) }
        @for (number, pair) in scene.pairs.iter().filter(|(_, pair)| label(pair) == name) {
            @match pair {
                Pair::Found(d, t, overlap) => {
                    (true_bar(scene, t, *number, "found", top))
                    (detected_bar(scene, d, *number, "found", Some(*overlap), top))
                }
                Pair::False(d) | Pair::Unjudged(d) => (detected_bar(scene, d, *number, "false", None, top)),
                Pair::Missed(t) => (true_bar(scene, t, *number, "missed", top)),
            }
        }
    }
}

fn true_bar(scene: &Scene<'_>, t: &TrueAction, number: Option<usize>, kind: &str, top: f64) -> Markup {
    let title = format!("{} from {:.2} to {:.2} s: {kind}", t.label, t.start_s, t.end_s);
    bar(scene, t.span(), number, &format!("truth {kind}"), &title, top + 6.0)
}

fn detected_bar(
    scene: &Scene<'_>,
    d: &Detection,
    number: Option<usize>,
    kind: &str,
    overlap: Option<f64>,
    top: f64,
) -> Markup {
    let (start_s, end_s) = d.span();
    let fits = overlap.map_or_else(|| "false".to_owned(), |o| format!("tIoU {o:.2}"));
    let title = format!("{} detected from {start_s:.2} to {end_s:.2} s, confidence {:.2}: {fits}", d.label, d.peak);
    html! {
        (bar(scene, d.span(), number, &format!("detected {kind}"), &title, top + 20.0))
        (mark(scene, d.decided_s, "begin", top))
        @if let Some(at_s) = d.end_decided_s { (mark(scene, at_s, "end", top)) }
    }
}

fn bar(scene: &Scene<'_>, span: (f64, f64), number: Option<usize>, class: &str, title: &str, y: f64) -> Markup {
    let (x0, x1) = (scene.x(span.0), scene.x(span.1));
    html! {
        @if scene.shows(span) {
            rect class=(class) data-case=[number] x=(format!("{x0:.1}")) y=(y) width=(format!("{:.1}", (x1 - x0).max(2.0))) height="11" rx="2" {
                title { (title) }
            }
        }
    }
}

/// When something was decided.
fn mark(scene: &Scene<'_>, at_s: f64, what: &str, top: f64) -> Markup {
    let (x, y) = (scene.x(at_s), top + 32.0);
    html! {
        @if scene.shows((at_s, at_s)) {
            path.decided d=(format!("M{x:.1} {y}l4 6h-8z")) { title { (what) " decided at " (format!("{at_s:.2}")) " s" } }
        }
    }
}

fn label(pair: &Pair) -> &str {
    match pair {
        Pair::Found(d, ..) | Pair::False(d) | Pair::Unjudged(d) => &d.label,
        Pair::Missed(t) => &t.label,
    }
}

fn spans(pair: &Pair) -> Vec<(f64, f64)> {
    match pair {
        Pair::Found(d, t, _) => vec![d.span(), t.span()],
        Pair::False(d) | Pair::Unjudged(d) => vec![d.span()],
        Pair::Missed(t) => vec![t.span()],
    }
}
