//! Trade-offs as drawings: miss rate against false alarms per day, and F1 against the delay of the begin.

use maud::{Markup, PreEscaped, html};

use crate::eval::sweep::{Knob, Point, TradeOff};
use crate::eval::tables::plain;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 46.0;
/// Where a logarithmic axis shows zero: left of everything else.
const ZERO: f64 = 34.0;

/// Both pictures of a label, and a table of what is in them.
pub(super) fn trade_off(trade_off: &TradeOff) -> Markup {
    html! {
        div.plots {
            (plot(&alarms(&trade_off.points)))
            (plot(&delays(&trade_off.points)))
        }
        details {
            summary { "settings and what they give" }
            div.scroll { (table(&trade_off.points)) }
        }
    }
}

struct Plot {
    title: &'static str,
    x: Axis,
    series: Vec<Series>,
}

/// Below the picture; beside it is always a share, 0 to 1.
struct Axis {
    title: &'static str,
    scale: Scale,
    from: f64,
    to: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Scale {
    Linear,
    Logarithmic,
}

struct Series {
    class: &'static str,
    name: &'static str,
    dots: Vec<Dot>,
}

struct Dot {
    x: f64,
    y: f64,
    in_use: bool,
    title: String,
}

fn alarms(points: &[Point]) -> Plot {
    let dots = dots(points, Knob::Threshold, |p| Some((p.false_per_day?, p.miss_rate?)));
    let some = || dots.iter().map(|d| d.x).filter(|&x| x > 0.0);
    let from = some().fold(f64::INFINITY, f64::min).log10().floor();
    let to = some().fold(0.0, f64::max).log10().ceil();
    let (from, to) = if from.is_finite() { (from, to.max(from + 1.0)) } else { (0.0, 1.0) };
    Plot {
        title: "miss rate",
        x: Axis { title: "false alarms per day", scale: Scale::Logarithmic, from, to },
        series: vec![Series { class: "c0", name: "threshold", dots }],
    }
}

fn delays(points: &[Point]) -> Plot {
    let of = |knob| dots(points, knob, |p| Some((p.start_delay_s?, p.f1?)));
    let series = vec![
        Series { class: "c0", name: "threshold", dots: of(Knob::Threshold) },
        Series { class: "c1", name: "evidence (h_on, smooth_s)", dots: of(Knob::Evidence) },
    ];
    let all = || series.iter().flat_map(|s| &s.dots).map(|d| d.x);
    let (from, to) = (all().fold(0.0, f64::min), all().fold(0.5, f64::max));
    let step = step(to - from);
    Plot {
        title: "F1@.5",
        x: Axis {
            title: "median delay of the begin, s",
            scale: Scale::Linear,
            from: (from / step).floor() * step,
            to: (to / step).ceil() * step,
        },
        series,
    }
}

fn dots(points: &[Point], knob: Knob, place: impl Fn(&Point) -> Option<(f64, f64)>) -> Vec<Dot> {
    let dot = |p: &Point| {
        let (x, y) = place(p)?;
        Some(Dot { x, y, in_use: p.in_use, title: told(p) })
    };
    points.iter().filter(|p| p.knob == knob).filter_map(dot).collect()
}

fn told(p: &Point) -> String {
    let [missed, alarms, f1, delay] = [p.miss_rate, p.false_per_day, p.f1, p.start_delay_s].map(plain);
    format!("{}: misses {missed}, {alarms} false a day, F1@.5 {f1}, delay {delay} s", p.setting)
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let (left, right) = (LEFT + if self.scale == Scale::Logarithmic { ZERO } else { 0.0 }, WIDTH - RIGHT);
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic if value <= 0.0 => return LEFT + 4.0,
            Scale::Logarithmic => value.log10(),
        };
        left + (value - self.from) / (self.to - self.from).max(1e-9) * (right - left)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Logarithmic => {
                let powers = (self.from as i32..=self.to as i32).map(|n| 10_f64.powi(n));
                std::iter::once(0.0).chain(powers).map(|v| (v, power(v))).collect()
            }
            Scale::Linear => {
                let step = step(self.to - self.from);
                let count = ((self.to - self.from) / step).round() as i32;
                (0..=count).map(|n| self.from + f64::from(n) * step).map(|v| (v, format!("{v:.2}"))).collect()
            }
        }
    }
}

fn power(value: f64) -> String {
    if value >= 1000.0 { format!("{}k", value / 1000.0) } else { value.to_string() }
}

/// A round step for about six ticks.
fn step(span: f64) -> f64 {
    let steps = [0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0];
    steps.into_iter().find(|step| span / step <= 7.0).unwrap_or(600.0)
}

fn y(share: f64) -> f64 {
    TOP + (1.0 - share) * (HEIGHT - TOP - BOTTOM)
}

fn plot(plot: &Plot) -> Markup {
    html! {
        svg.plot viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" {
            title { (plot.title) " against " (plot.x.title) }
            @for n in 0..=5 {
                @let share = f64::from(n) / 5.0;
                line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y(share)) y2=(y(share)) {}
                text.side x=(LEFT - 6.0) y=(y(share) + 4.0) { (share) }
            }
            @for (value, text) in plot.x.ticks() {
                @let x = format!("{:.1}", plot.x.place(value));
                line.grid x1=(x) x2=(x) y1=(TOP) y2=(HEIGHT - BOTTOM) {}
                text.tick x=(x) y=(HEIGHT - BOTTOM + 15.0) { (text) }
            }
            text.tick x=((LEFT + WIDTH - RIGHT) / 2.0) y=(HEIGHT - 8.0) { (plot.x.title) }
            text.tick transform=(format!("translate(14 {}) rotate(-90)", (TOP + HEIGHT - BOTTOM) / 2.0)) { (plot.title) }
            @for (n, series) in plot.series.iter().enumerate() {
                @if plot.series.len() > 1 {
                    text.key.(series.class) x=(LEFT + 90.0 * n as f64) y=(TOP - 10.0) { "— " (series.name) }
                }
                (line(&plot.x, series))
            }
            @if plot.series.iter().all(|s| s.dots.is_empty()) {
                text.faint x=(LEFT + 20.0) y=(HEIGHT / 2.0) { "not defined: nothing annotated, or nothing found" }
            }
        }
    }
}

fn line(axis: &Axis, series: &Series) -> Markup {
    let points: Vec<String> = series.dots.iter().map(|d| format!("{:.1},{:.1}", axis.place(d.x), y(d.y))).collect();
    html! {
        polyline.curve.(series.class) points=(PreEscaped(points.join(" "))) {}
        @for (n, dot) in series.dots.iter().enumerate() {
            @let strength = format!("{:.2}", 0.25 + 0.75 * (n + 1) as f64 / series.dots.len() as f64);
            @let (x, y) = (format!("{:.1}", axis.place(dot.x)), format!("{:.1}", y(dot.y)));
            circle.dot.(series.class) cx=(x) cy=(y) r="3.5" fill-opacity=(strength) { title { (dot.title) } }
            @if dot.in_use { circle.ring cx=(x) cy=(y) r="7" { title { "in use: " (dot.title) } } }
        }
    }
}

fn table(points: &[Point]) -> Markup {
    html! {
        table {
            thead { tr { @for name in ["setting", "miss rate", "false/day", "F1@.5", "delay s"] { th scope="col" { (name) } } } }
            tbody {
                @for p in points {
                    tr.used[p.in_use] {
                        th scope="row" { (p.setting) }
                        @for value in [p.miss_rate, p.false_per_day, p.f1, p.start_delay_s] { td { (plain(value)) } }
                    }
                }
            }
        }
    }
}
