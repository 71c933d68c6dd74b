//! The evaluation for a terminal.

use comfy_table::{Cell, CellAlignment, Table};

use super::Evaluation;
use super::tables::{Figures, Text, basis, latency, ranges, tables};
use crate::table::new_table;

/// What is printed: the tables of figures, and on what they were measured.
#[must_use]
pub fn summary(evaluation: &Evaluation) -> String {
    let mut text = String::new();
    for figures in tables(evaluation) {
        text += &format!("{}\n", drawn(&figures));
    }
    format!("{text}{}. {}\n{}", basis(evaluation), ranges(evaluation), latency(evaluation))
}

fn drawn(figures: &Figures) -> Table {
    let mut table = new_table(&figures.header.iter().map(String::as_str).collect::<Vec<_>>());
    for row in &figures.rows {
        let cell = |(n, text): (usize, &Text)| {
            let range = text.range.as_ref().map(|range| format!("\n{range}")).unwrap_or_default();
            let alignment = if n == 0 { CellAlignment::Left } else { CellAlignment::Right };
            Cell::new(format!("{}{range}", text.value)).set_alignment(alignment)
        };
        table.add_row(row.iter().enumerate().map(cell).collect::<Vec<_>>());
    }
    table
}
