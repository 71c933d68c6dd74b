//! The evaluation as one HTML file: figures, trade-offs, and every case on its timeline, worst first.
//!
//! Needs nothing beside itself: style and script are inside, the script only shows and hides, and the page forbids itself the
//! network. Names and labels come from files and are escaped by the template. The same evaluation gives the same bytes.

mod cases;
mod plots;
mod timeline;

use kinewatch_core::manifest::Decoding;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::tables::{Figures, basis, latency, ranges, tables};
use super::{Evaluation, TradeOff};
use crate::intervals::Truth;
use crate::replay::Replayed;
use cases::{Case, Cases, Kind};
use timeline::{Lines, Scene};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");
/// Nothing may be fetched, whatever a name in the page says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// What the page is made of.
#[derive(Debug)]
pub struct Material<'a> {
    /// Figures and pairs.
    pub evaluation: &'a Evaluation,
    /// Curves of other settings.
    pub trade_offs: &'a [TradeOff],
    /// Of the videos judged.
    pub truth: &'a Truth,
    /// Scores.
    pub replayed: &'a [Replayed],
    /// Thresholds.
    pub decoding: &'a Decoding,
    /// What was said of the input.
    pub notes: &'a [String],
}

/// The page.
#[must_use]
pub fn page(material: &Material<'_>) -> String {
    let evaluation = material.evaluation;
    let cases = cases::worst_first(&evaluation.pairs, material.truth, material.replayed);
    let title = format!("{} {} evaluated", evaluation.package.0, evaluation.package.1);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p { (basis(evaluation)) "." }
                    @for note in material.notes { p.note { (note) } }
                }
                (figures(evaluation))
                (timelines(material, &cases))
                (trade_offs(material))
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

fn figures(evaluation: &Evaluation) -> Markup {
    html! {
        section {
            h2 { "Figures" }
            @for table in tables(evaluation) { div.scroll { (table_of(&table)) } }
            p.note { (ranges(evaluation)) " Found, errors, delays and coverage: at tIoU 0.3. " (latency(evaluation)) }
        }
    }
}

fn table_of(table: &Figures) -> Markup {
    html! {
        table {
            thead { tr { @for name in &table.header { th scope="col" { (name) } } } }
            tbody {
                @for row in &table.rows {
                    tr {
                        @for (n, text) in row.iter().enumerate() {
                            @if n == 0 { th scope="row" { (text.value) } }
                            @else { td { (text.value) @if let Some(range) = &text.range { small { (range) } } } }
                        }
                    }
                }
            }
        }
    }
}

fn trade_offs(material: &Material<'_>) -> Markup {
    let hours = material.evaluation.hours;
    html! {
        @if !material.trade_offs.is_empty() {
            section {
                h2 { "What other settings would give" }
                p.note {
                    "Each point is a setting, tried on the same scores: fainter, a lower one; the ring is the one in use. "
                    "Thresholds of all labels move together. One false alarm in this set is " (format!("{:.1}", 24.0 / hours.max(1e-9))) " a day."
                }
                @for (n, trade_off) in material.trade_offs.iter().enumerate() {
                    details open[n == 0] { summary { (trade_off.label) } (plots::trade_off(trade_off)) }
                }
            }
        }
    }
}

fn timelines(material: &Material<'_>, cases: &Cases) -> Markup {
    let labels = material.evaluation.labels.iter().map(|l| l.label.as_str());
    html! {
        section #cases {
            h2 { "Cases, worst first" }
            div.bar {
                label { "label " select #label { option value="" { "all" } @for l in labels { option { (l) } } } }
                label {
                    "what " select #kind {
                        option value="" { "all" }
                        @for kind in Kind::ALL { option value=(kind.word()) { (kind.word()) } }
                    }
                }
                button #previous type="button" { "← previous" }
                button #next type="button" { "next →" }
                output #place {}
            }
            p.note { "Outlined: annotated. Filled: detected. ▲: when its begin and its end were decided. Dashed: the threshold." }
            @if cases.left_out > 0 { p.note { (cases.left_out) " more cases are not in this page; metrics.json counts all." } }
            div.split {
                ol #list { @for (n, case) in cases.cases.iter().enumerate() { (listed(n, case)) } }
                div #panels { @for (n, _) in cases.panels.iter().enumerate() { (panel(material, cases, n)) } }
            }
        }
    }
}

fn listed(n: usize, case: &Case) -> Markup {
    html! {
        li data-case=(n) data-panel=(case.panel) data-label=(case.label) data-kind=(case.kind.word()) {
            button type="button" { b class=(case.kind.word()) { (case.kind.word()) } " " (case.text) small { (case.place) } }
        }
    }
}

fn panel(material: &Material<'_>, cases: &Cases, n: usize) -> Markup {
    let panel = &cases.panels[n];
    let replayed = material.replayed.iter().find(|r| r.camera == panel.camera);
    let scene = Scene {
        window_s: panel.window_s,
        pairs: cases.of_camera(&material.evaluation.pairs, &panel.camera),
        lines: replayed.map(|r| Lines { labels: &r.score_labels, scores: &r.scores, decoding: material.decoding }),
    };
    html! {
        figure data-panel=(n) {
            figcaption { (panel.name) @if panel.is_part { small { " (a part)" } } }
            (timeline::draw(&scene))
        }
    }
}
