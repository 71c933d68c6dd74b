//! The table of what was tried and what happened: Markdown, so that it can be read on a terminal and pasted into a document.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{ContentArrangement, Table};

use crate::bench::Row;

/// All rows, and how many failed.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["scenario", "tried", "happened", "result", "s"]);
    for row in rows {
        let (tried, happened, result) = match &row.result {
            Ok(outcome) => {
                (outcome.tried.as_str(), outcome.happened.as_str(), if outcome.was_tried { "ok" } else { "not tried" })
            }
            Err(reason) => ("", reason.as_str(), "FAIL"),
        };
        let seconds = format!("{:.0}", row.took.as_secs_f64());
        table.add_row([row.name, tried, &one_line(happened), result, &seconds]);
    }
    let failed = rows.iter().filter(|row| row.result.is_err()).count();
    let skipped = rows.iter().filter(|row| row.result.as_ref().is_ok_and(|outcome| !outcome.was_tried)).count();
    format!("{table}\n\n{} scenarios, {failed} failed, {skipped} not tried\n", rows.len())
}

/// A cell of a Markdown table has no line breaks and no bars.
fn one_line(text: &str) -> String {
    let text: String = text.chars().take(600).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/")
}
