//! The comparison in words: a Markdown table for each judged label, and its place in a document.

use std::path::Path;

use kinewatch::calibrate::Quality;
use kinewatch::intervals::TrueAction;

use super::families::Sees;
use super::set::{POOLED, Set};

/// A decoder and what it gave.
pub(crate) struct Row {
    pub name: String,
    pub sees: Sees,
    /// Whether a user has it: what `kinewatch calibrate` chooses, and the package as it is.
    pub used: bool,
    /// On the tuning set; `None` for settings that were not tuned here.
    pub seen: Option<Vec<(String, Quality)>>,
    /// On the test set, by judged label.
    pub found: Vec<(String, Quality)>,
    pub ns: Option<f64>,
}

const HEADER: &str =
    "| decoder | F1@.3 / .5 / .7 | false/h | start error s | start told after s, median / p90 | F1@.5 tuning | ns |
|---|---|---|---|---|---|---|
";

/// Tables, each with what the best online decoder lacks of the best offline one.
pub(crate) fn text(rows: &[Row], tuning: &Set, test: &Set) -> String {
    let mut text = String::new();
    let labels = test.judged();
    let all = (labels.len() > 1).then(|| POOLED.to_owned());
    for (n, label) in labels.iter().chain(&all).enumerate() {
        let of = |a: &&TrueAction| if label == POOLED { labels.contains(&a.label) } else { a.label == *label };
        let [learnt, judged] = [tuning, test].map(|set| set.truth.actions.iter().filter(of).count());
        let [learnt_h, judged_h] = [tuning, test].map(|set| hours(set.hours()));
        text += &format!(
            "{}: tuned on {learnt} actions in {learnt_h}, measured on {judged} in {judged_h}.\n\n{HEADER}",
            if label == POOLED { "All labels together".to_owned() } else { format!("`{label}`") }
        );
        for row in rows {
            text += &line(row, n);
        }
        text += &gap(rows, n);
    }
    text
}

fn line(row: &Row, n: usize) -> String {
    let Some((_, q)) = row.found.get(n) else { return String::new() };
    let told = if row.sees == Sees::All { "–".into() } else { q.delay_s.map(|d| number(d, 2)).join(" / ") };
    let f1 = q.f1.map(|f1| number(f1, 3)).join(" / ");
    let seen = row.seen.as_ref().and_then(|seen| seen.get(n)).and_then(|(_, q)| q.f1[1]);
    let (wrong, error) = (number(q.false_per_hour, 1), number(q.error_s[0], 2));
    format!(
        "| {} | {f1} | {wrong} | {error} | {told} | {} | {} |\n",
        title(row),
        number(seen, 3),
        number(row.ns.map(two_digits), 0)
    )
}

fn title(row: &Row) -> String {
    if row.sees == Sees::All { format!("offline: {}", row.name) } else { row.name.clone() }
}

/// What those in use lack of the best offline one. It is the best on the test set, which flatters it.
fn gap(rows: &[Row], n: usize) -> String {
    let f1 = |row: &Row| row.found.get(n).and_then(|(_, q)| q.f1[1]).unwrap_or(0.0);
    let offline = rows.iter().filter(|r| r.sees == Sees::All).max_by(|a, b| f1(a).total_cmp(&f1(b)));
    let Some(offline) = offline else { return String::new() };
    let less = |row: &Row| format!("{} {:+.3}", row.name, f1(row) - f1(offline));
    let less: Vec<String> = rows.iter().filter(|r| r.used).map(less).collect();
    format!("\nF1@.5 less that of the best offline one, {}: {}.\n\n", offline.name, less.join("; "))
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".into(), |v| format!("{v:.digits$}"))
}

fn two_digits(value: f64) -> f64 {
    let unit = 10f64.powf(value.max(1e-3).log10().floor() - 1.0);
    (value / unit).round() * unit
}

fn hours(hours: f64) -> String {
    if hours < 0.5 { format!("{:.1} minutes", hours * 60.0) } else { format!("{hours:.1} hours") }
}

/// Puts `text` between the marks of `section`.
pub(crate) fn replace(path: &Path, section: &str, text: &str) -> Result<(), String> {
    let told = |e: std::io::Error| format!("{}: {e}", path.display());
    let document = std::fs::read_to_string(path).map_err(told)?;
    let document = replaced(&document, section, text).ok_or_else(|| {
        format!("{}: has no section {section}; write the lines {} and {} into it", path.display(), mark(section), END)
    })?;
    std::fs::write(path, document).map_err(told)
}

const END: &str = "<!-- end of generated -->";

fn mark(section: &str) -> String {
    format!("<!-- generated: decoders {section} -->")
}

fn replaced(document: &str, section: &str, text: &str) -> Option<String> {
    let mark = mark(section);
    let from = document.find(&mark)? + mark.len();
    let to = from + document[from..].find(END)?;
    Some(format!("{}\n{}\n{}", &document[..from], text.trim_end(), &document[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_marks_is_replaced() {
        let document = format!("a\n{}\nold\n{END}\nb\n{}\nkept\n{END}\n", mark("x"), mark("y"));
        let new = replaced(&document, "x", "| new |\n\n").unwrap();
        assert_eq!(new, format!("a\n{}\n| new |\n{END}\nb\n{}\nkept\n{END}\n", mark("x"), mark("y")));
        assert_eq!(replaced(&document, "z", ""), None);
    }

    #[test]
    fn the_gap_is_to_the_best_offline_decoder() {
        let quality = |f1| vec![("a".to_owned(), Quality { f1: [Some(f1); 3], ..Quality::default() })];
        let row = |name: &str, sees, used, f1| Row {
            name: name.into(),
            sees,
            used,
            seen: None,
            found: quality(f1),
            ns: None,
        };
        let rows = [
            row("one", Sees::Past, true, 0.8),
            row("two", Sees::Past, false, 0.95),
            row("three", Sees::All, false, 0.85),
            row("four", Sees::All, false, 0.84),
            row("five", Sees::Past, true, 0.9),
        ];
        assert_eq!(gap(&rows, 0).trim(), "F1@.5 less that of the best offline one, three: one -0.050; five +0.050.");
    }

    #[test]
    fn numbers_are_told_to_what_they_are_worth() {
        assert_eq!((number(Some(0.12345), 3), number(None, 3)), ("0.123".into(), "–".into()));
        assert_eq!(
            [two_digits(1234.0), two_digits(7.44), two_digits(88.8)].map(|v| (v * 10.0).round() / 10.0),
            [1200.0, 7.4, 89.0]
        );
    }
}
