//! One panel of the timeline: curves above, a row of detected and a row of true intervals per label below, a time axis.

use std::collections::BTreeMap;

use super::canvas::{Anchor, Canvas, Colour, Drawn, pale};
use super::{Bar, Curve, Panel, WIDTH, px};

const LEFT: i32 = px(170);
const RIGHT: i32 = px(WIDTH as i32 - 32);
const TITLE: i32 = px(46);
const PLOT: i32 = px(170);
const ROW: i32 = px(26);
const AXIS: i32 = px(52);
const TEXT: i32 = px(16);
const SMALL: i32 = px(14);

const INK: Colour = (38, 42, 48);
const GREY: Colour = (120, 126, 134);
const GRID: Colour = (228, 231, 235);

type Colours = BTreeMap<String, Colour>;

/// Height of a panel in pixels of the final picture.
pub(super) fn height(panel: &Panel) -> u32 {
    ((TITLE + plot_height(panel) + ROW * rows(panel).len() as i32 + AXIS) / px(1)) as u32
}

fn plot_height(panel: &Panel) -> i32 {
    if panel.curves.is_empty() { px(10) } else { PLOT }
}

/// Rows of intervals: label, and whether it is the detected or the true one.
fn rows(panel: &Panel) -> Vec<(String, bool)> {
    let mut labels: Vec<&str> =
        panel.detected.iter().chain(panel.truth.iter().flatten()).map(|b| b.label.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    let sides: &[bool] = if panel.truth.is_some() { &[true, false] } else { &[true] };
    if labels.is_empty() {
        return sides.iter().map(|detected| (String::new(), *detected)).collect();
    }
    labels.iter().flat_map(|l| sides.iter().map(|detected| ((*l).to_owned(), *detected))).collect()
}

/// Maps seconds to pixels.
#[derive(Clone, Copy)]
struct Axis {
    duration_s: f64,
}

impl Axis {
    fn x(self, seconds: f64) -> i32 {
        let share = if seconds.is_finite() { (seconds / self.duration_s).clamp(0.0, 1.0) } else { 0.0 };
        LEFT + (share * f64::from(RIGHT - LEFT)) as i32
    }

    /// Distance of ticks: round, and about twelve of them.
    fn step(self) -> f64 {
        const STEPS: [f64; 18] = [
            0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0,
            21_600.0,
        ];
        STEPS.into_iter().find(|s| self.duration_s / s <= 14.0).unwrap_or(self.duration_s / 10.0)
    }

    fn tick_text(self, seconds: f64) -> String {
        let whole = seconds.round() as i64;
        match self.step() {
            _ if self.duration_s > 3600.0 => format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60),
            _ if self.duration_s > 180.0 => format!("{}:{:02}", whole / 60, whole % 60),
            step if step < 1.0 => format!("{seconds:.1}"),
            _ => format!("{whole}"),
        }
    }
}

/// Draws a panel.
pub(super) fn paint(canvas: &Canvas<'_>, panel: &Panel, colours: &Colours) -> Drawn {
    let latest =
        panel.curves.iter().filter_map(|c| c.points.last()).map(|p| p.0).filter(|t| t.is_finite()).fold(0.0, f64::max);
    let axis = Axis { duration_s: if panel.duration_s > 0.0 { panel.duration_s } else { latest.max(1.0) } };
    let title_end = LEFT + canvas.text_width(&panel.title, px(20)) + px(26);
    canvas.text((LEFT, TITLE / 2), &panel.title, px(20), INK, Anchor::Left, true)?;
    canvas.text((title_end, TITLE / 2 + px(1)), &panel.note, TEXT, GREY, Anchor::Left, false)?;
    let (top, bottom) = (TITLE, TITLE + plot_height(panel));
    let rows = rows(panel);
    let floor = bottom + ROW * rows.len() as i32;
    grid(canvas, axis, top, floor)?;
    if !panel.curves.is_empty() {
        curves(canvas, axis, panel, colours, (top, bottom))?;
    }
    for (i, (label, detected)) in rows.iter().enumerate() {
        row(canvas, axis, panel, colours, bottom + ROW * i as i32, label, *detected)?;
    }
    for bar in &panel.detected {
        decisions(canvas, axis, bar, colour_of(colours, &bar.label), (top, floor))?;
    }
    canvas.outlined((LEFT, top), (RIGHT, floor), (176, 182, 190), 2)
}

fn grid(canvas: &Canvas<'_>, axis: Axis, top: i32, floor: i32) -> Drawn {
    let step = axis.step();
    for k in 0..=(axis.duration_s / step + 1e-6) as i64 {
        let t = k as f64 * step;
        let x = axis.x(t);
        canvas.line(vec![(x, top), (x, floor)], GRID, 2)?;
        canvas.line(vec![(x, floor), (x, floor + px(5))], GREY, 2)?;
        canvas.text((x, floor + px(17)), &axis.tick_text(t), SMALL, INK, Anchor::Centre, false)?;
    }
    let unit = if axis.duration_s > 180.0 { "time from the first frame" } else { "seconds from the first frame" };
    canvas.text((RIGHT, floor + px(36)), unit, SMALL, GREY, Anchor::Right, false)
}

fn curves(canvas: &Canvas<'_>, axis: Axis, panel: &Panel, colours: &Colours, (top, bottom): (i32, i32)) -> Drawn {
    let (inner_top, inner_bottom) = (top + px(16), bottom - px(6));
    let y = |p: f32| inner_bottom - (p.clamp(0.0, 1.0) * (inner_bottom - inner_top) as f32) as i32;
    for (p, text) in [(0.0, "0"), (0.5, "0.5"), (1.0, "1")] {
        canvas.line(vec![(LEFT, y(p)), (RIGHT, y(p))], GRID, 2)?;
        canvas.text((LEFT - px(10), y(p)), text, SMALL, INK, Anchor::Right, false)?;
    }
    canvas.text((LEFT - px(44), y(0.5)), "probability", SMALL, GREY, Anchor::Right, false)?;
    for curve in &panel.curves {
        let colour = colour_of(colours, &curve.label);
        if let Some(on) = curve.on {
            canvas.dashes((LEFT, y(on as f32)), (RIGHT, y(on as f32)), pale(colour, 0.75), (px(7), px(5)))?;
        }
    }
    for curve in &panel.curves {
        let colour = colour_of(colours, &curve.label);
        for line in lines(curve, axis, y) {
            canvas.line(line, colour, 4)?;
        }
    }
    canvas.line(vec![(LEFT, bottom), (RIGHT, bottom)], (176, 182, 190), 2)
}

/// The curve as pixel lines: broken at holes, with the lowest and highest of the samples that share a column.
fn lines(curve: &Curve, axis: Axis, y: impl Fn(f32) -> i32) -> Vec<Vec<(i32, i32)>> {
    let points: Vec<(f64, f32)> =
        curve.points.iter().copied().filter(|(t, p)| t.is_finite() && p.is_finite()).collect();
    let mut steps: Vec<f64> = points.windows(2).map(|w| w[1].0 - w[0].0).collect();
    steps.sort_by(f64::total_cmp);
    let hole = steps.get(steps.len() / 2).map_or(f64::MAX, |m| (m * 5.0).max(0.5));
    let mut all = Vec::new();
    let mut line: Vec<(i32, i32)> = Vec::new();
    let mut last: Option<f64> = None;
    for (t, p) in points {
        if last.is_some_and(|l| t - l > hole || t < l) {
            all.push(std::mem::take(&mut line));
        }
        last = Some(t);
        let at = (axis.x(t), y(p));
        // Three points in a column say all that can be seen of it: where it is entered, and its extent.
        let in_column = line.iter().rev().take(3).filter(|q| q.0 == at.0).count();
        if in_column < 3 {
            line.push(at);
        } else {
            let n = line.len();
            line[n - 2].1 = line[n - 2].1.min(at.1);
            line[n - 1].1 = line[n - 1].1.max(at.1);
        }
    }
    all.push(line);
    all.retain(|l| l.len() > 1);
    all
}

fn row(
    canvas: &Canvas<'_>,
    axis: Axis,
    panel: &Panel,
    colours: &Colours,
    top: i32,
    label: &str,
    detected: bool,
) -> Drawn {
    let colour = colour_of(colours, label);
    let (name, bars): (&str, &[Bar]) =
        if detected { ("detected", &panel.detected) } else { ("true", panel.truth.as_deref().unwrap_or(&[])) };
    let text = if label.is_empty() { name.to_owned() } else { format!("{} {name}", shorten(label)) };
    canvas.text((LEFT - px(10), top + ROW / 2), &text, SMALL, INK, Anchor::Right, false)?;
    canvas.line(vec![(LEFT, top + ROW), (RIGHT, top + ROW)], GRID, 2)?;
    for bar in bars.iter().filter(|b| b.label == label) {
        let (a, b) = (axis.x(bar.start_s), axis.x(bar.end_s));
        interval(canvas, (a, b.max(a + px(3))), top, colour, detected)?;
    }
    Ok(())
}

fn interval(canvas: &Canvas<'_>, (a, b): (i32, i32), top: i32, colour: Colour, detected: bool) -> Drawn {
    let (from, to) = ((a, top + px(6)), (b, top + ROW - px(6)));
    if detected {
        return canvas.filled(from, to, colour);
    }
    canvas.filled(from, to, pale(colour, 0.28))?;
    canvas.outlined(from, to, colour, 3)
}

/// A filled triangle and a line where the begin was reported, a hollow triangle where the end was.
fn decisions(canvas: &Canvas<'_>, axis: Axis, bar: &Bar, colour: Colour, (top, floor): (i32, i32)) -> Drawn {
    for (at, full) in [(bar.end_decided_s, false), (bar.decided_s, true)] {
        let Some(at) = at.filter(|t| *t <= axis.duration_s * 1.001) else { continue };
        let x = axis.x(at);
        canvas.dashes((x, top), (x, floor), pale(colour, 0.6), (px(2), px(4)))?;
        canvas.triangle((x, top + px(11)), px(6), colour, full)?;
    }
    Ok(())
}

/// The legend above all panels.
pub(super) fn legend(canvas: &Canvas<'_>, panels: &[Panel], colours: &Colours) -> Drawn {
    let y = px(38);
    let mut x = LEFT;
    let entry = |text: &str, x: i32| -> Result<i32, String> {
        canvas.text((x + px(42), y), text, TEXT, INK, Anchor::Left, false)?;
        Ok(x + px(42) + canvas.text_width(text, TEXT) + px(30))
    };
    let mut seen = Vec::new();
    for curve in panels.iter().flat_map(|p| &p.curves) {
        if seen.contains(&&curve.label) || x > RIGHT - px(760) {
            continue;
        }
        seen.push(&curve.label);
        canvas.line(vec![(x, y), (x + px(32), y)], colour_of(colours, &curve.label), 5)?;
        x = entry(&shorten(&curve.label), x)?;
    }
    if panels.iter().any(|p| p.curves.iter().any(|c| c.on.is_some())) {
        canvas.dashes((x, y), (x + px(32), y), GREY, (px(7), px(5)))?;
        x = entry("threshold", x)?;
    }
    interval(canvas, (x, x + px(32)), y - ROW / 2, GREY, true)?;
    x = entry("detected", x)?;
    if panels.iter().any(|p| p.truth.is_some()) {
        interval(canvas, (x, x + px(32)), y - ROW / 2, GREY, false)?;
        x = entry("true", x)?;
    }
    canvas.triangle((x + px(22), y + px(5)), px(6), GREY, true)?;
    x = entry("begin reported", x)?;
    canvas.triangle((x + px(22), y + px(5)), px(6), GREY, false)?;
    entry("end reported", x).map(drop)
}

fn colour_of(colours: &Colours, label: &str) -> Colour {
    colours.get(label).copied().unwrap_or(GREY)
}

fn shorten(label: &str) -> String {
    if label.chars().count() <= 14 { label.to_owned() } else { label.chars().take(13).chain(['…']).collect() }
}
