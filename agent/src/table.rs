//! The table of actions that `replay` and `events table` print: what was found, what was missed, what was false.

use std::collections::BTreeMap;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, LineStyle, Table};

use crate::intervals::{Detection, Pair, TrueAction};

/// One row per action, in order of camera and time; no truth known.
#[must_use]
pub fn detected(detections: &[Detection]) -> String {
    let mut table = new_table(&["camera", "label", "begin s", "end s", "decided after s", "confidence", "ended by"]);
    for d in detections {
        let ended_by = d.end_reason.clone().unwrap_or_else(|| "goes on".into());
        table.add_row(detected_cells(d).into_iter().chain([Cell::new(ended_by)]).collect::<Vec<_>>());
    }
    finish(&table, detections.is_empty(), "no action detected")
}

/// One row per detected or missed action, beside the truth, and a line of counts.
#[must_use]
pub fn judged(pairs: &[Pair]) -> String {
    let header = [
        "",
        "camera",
        "label",
        "begin s",
        "end s",
        "decided after s",
        "confidence",
        "true begin",
        "true end",
        "tIoU",
        "begin error",
        "end error",
    ];
    let mut table = new_table(&header);
    for pair in pairs {
        table.add_row(judged_cells(pair));
    }
    format!("{}\n{}", finish(&table, pairs.is_empty(), "no action detected, none annotated"), counts(pairs))
}

fn judged_cells(pair: &Pair) -> Vec<Cell> {
    let blank = |n: usize| (0..n).map(|_| Cell::new(""));
    match pair {
        Pair::Found(d, t, overlap) => {
            let end_error = d.end_s.map_or_else(String::new, |e| format!("{:+.2}", e - t.end_s));
            let judged = [format!("{overlap:.2}"), format!("{:+.2}", d.start_s - t.start_s), end_error];
            mark("found", d).into_iter().chain(true_cells(t)).chain(judged.map(number)).collect()
        }
        Pair::False(d) => mark("FALSE", d).into_iter().chain(blank(5)).collect(),
        Pair::Unjudged(d) => mark("", d).into_iter().chain(blank(5)).collect(),
        Pair::Missed(t) => [Cell::new("MISSED"), Cell::new(&t.camera), Cell::new(&t.label)]
            .into_iter()
            .chain(blank(4))
            .chain(true_cells(t))
            .chain(blank(3))
            .collect(),
    }
}

fn mark(word: &str, d: &Detection) -> Vec<Cell> {
    std::iter::once(Cell::new(word)).chain(detected_cells(d)).collect()
}

fn detected_cells(d: &Detection) -> Vec<Cell> {
    let end = d.end_s.map_or_else(|| "…".into(), |e| format!("{e:.2}"));
    let numbers = [format!("{:.2}", d.start_s), end, decided_after(d), format!("{:.2}", d.peak)];
    [Cell::new(&d.camera), Cell::new(&d.label)].into_iter().chain(numbers.map(number)).collect()
}

/// How long after the begin it was reported, and how long after the end that was.
fn decided_after(d: &Detection) -> String {
    let begin = d.decided_s - d.start_s;
    match (d.end_s, d.end_decided_s) {
        (Some(end), Some(decided)) => format!("{begin:.2} / {:.2}", decided - end),
        _ => format!("{begin:.2} /   … "),
    }
}

fn true_cells(t: &TrueAction) -> [Cell; 2] {
    [number(format!("{:.2}", t.start_s)), number(format!("{:.2}", t.end_s))]
}

fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// Found, missed and false actions per label, in words.
fn counts(pairs: &[Pair]) -> String {
    let mut labels: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for pair in pairs {
        let (label, column) = match pair {
            Pair::Found(d, ..) => (&d.label, 0),
            Pair::Missed(t) => (&t.label, 1),
            Pair::False(d) => (&d.label, 2),
            Pair::Unjudged(_) => continue,
        };
        labels.entry(label).or_default()[column] += 1;
    }
    let line = |(label, [found, missed, wrong]): (&str, [usize; 3])| {
        format!("{label}: {found} of {} found, {wrong} false", found + missed)
    };
    let lines: Vec<String> = labels.into_iter().map(line).collect();
    let unjudged = pairs.iter().filter(|p| matches!(p, Pair::Unjudged(_))).count();
    let rest =
        if unjudged > 0 { format!(" ({unjudged} in videos without annotations: not judged)") } else { String::new() };
    format!(
        "{}{rest}\n\"decided after\": begin reported / end reported, seconds after each happened; found: tIoU ≥ 0.3",
        lines.join("; ")
    )
}

/// A table with lines above, below and under its header, none between rows.
#[must_use]
pub fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header(header.iter().map(Cell::new).collect::<Vec<_>>());
    table
}

fn finish(table: &Table, empty: bool, nothing: &str) -> String {
    if empty { nothing.to_owned() } else { table.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection() -> Detection {
        Detection {
            camera: "room".into(),
            label: "fall".into(),
            start_s: 12.4,
            end_s: Some(13.6),
            decided_s: 13.0,
            end_decided_s: Some(14.1),
            peak: 0.94,
            end_reason: Some("boundary".into()),
            ..Detection::default()
        }
    }

    #[test]
    fn every_kind_of_row_is_told_honestly() {
        let t = TrueAction { camera: "room".into(), label: "fall".into(), start_s: 12.5, end_s: 13.5 };
        let open =
            Detection { end_s: None, end_decided_s: None, end_reason: None, camera: "street".into(), ..detection() };
        let pairs = [
            Pair::Found(detection(), t.clone(), 0.83),
            Pair::False(open.clone()),
            Pair::Missed(t),
            Pair::Unjudged(detection()),
        ];
        insta::assert_snapshot!("judged", judged(&pairs));
        insta::assert_snapshot!("detected", detected(&[detection(), open]));
    }

    #[test]
    fn nothing_is_said_plainly() {
        assert_eq!(detected(&[]), "no action detected");
    }
}
