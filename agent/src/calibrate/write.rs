//! What was chosen, written down: `model.toml` with the new settings, and a report for people.

use std::fmt::Write as _;

use kinewatch_core::manifest::{DecoderKind, DecoderParams, ScoreModel};
use sha2::{Digest, Sha256};
use toml_edit::{DocumentMut, Item, Table, value};

use super::{Calibration, LabelChoice, Objective, Quality};

/// The report, in the package.
pub const REPORT: &str = "CALIBRATION.md";
/// Marks the version of a package whose settings are not those it was published with.
const MARK: &str = "calibrated";

/// The text of a `model.toml` with the settings of `calibration`, and with the report among its files; everything else stays
/// as it is. The version is marked if the package decides anything otherwise than before.
///
/// # Errors
/// In words: it is not the text that the settings were made for.
pub fn settings(text: &str, calibration: &Calibration, report: &str) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| e.to_string())?;
    if let Some(files) = document.get_mut("files").and_then(Item::as_table_like_mut) {
        let digest: String = Sha256::digest(report).iter().map(|byte| format!("{byte:02x}")).collect();
        files.insert(REPORT, value(digest));
    }
    if let Some(version) = document.get("version").and_then(Item::as_str).filter(|_| !calibration.labels.is_empty()) {
        let plain = version.split_once('+').map_or(version, |(plain, _)| plain);
        document["version"] = value(format!("{plain}+{MARK}"));
    }
    if let Some(temperature) = calibration.temperature {
        let output = document.get_mut("output").ok_or("has no [output] for the temperature")?;
        output["temperature"] = value(tidy(temperature));
    }
    let labels = document.get_mut("labels").and_then(Item::as_array_of_tables_mut).ok_or("has no [[labels]]")?;
    for label in &calibration.decoding.labels {
        let Some(chosen) = &label.decoder else { continue };
        let named = |table: &&mut Table| table.get("name").and_then(Item::as_str) == Some(label.name.as_str());
        let table = labels.iter_mut().find(named).ok_or_else(|| format!("has no label {}", label.name))?;
        if calibration.labels.iter().any(|choice| choice.label == label.name) {
            table.insert("decoder", Item::Table(decoder(chosen)));
        } else if let Some(kept) = table.get_mut("decoder").and_then(Item::as_table_like_mut) {
            kept.insert("uncertainty_start_ms", value(chosen.uncertainty_start_ms));
            kept.insert("uncertainty_end_ms", value(chosen.uncertainty_end_ms));
        }
    }
    Ok(document.to_string())
}

fn decoder(p: &DecoderParams) -> Table {
    let mut table = Table::new();
    let mut set = |key: &str, number: f64| table.insert(key, value(tidy(number)));
    set("on", p.on);
    set("off", p.off);
    match p.kind {
        DecoderKind::Cusum => {
            set("h_on", p.h_on);
            set("h_off", p.h_off);
        }
        DecoderKind::Hysteresis => drop(set("smooth_s", p.smooth_s)),
        DecoderKind::Hmm => {}
    }
    set("min_duration_s", p.min_duration_s);
    set("merge_gap_s", p.merge_gap_s);
    set("max_duration_s", p.max_duration_s);
    if p.cooldown_s > 0.0 {
        set("cooldown_s", p.cooldown_s);
    }
    set("lag_start_s", p.lag_start_s);
    set("lag_end_s", p.lag_end_s);
    set("uncertainty_start_ms", p.uncertainty_start_ms);
    set("uncertainty_end_ms", p.uncertainty_end_ms);
    table.insert("kind", value(kind(p.kind)));
    table.sort_values_by(|a, _, b, _| (b.get() == "kind").cmp(&(a.get() == "kind")));
    if let Some(model) = &p.hmm {
        table.insert("hmm", Item::Table(score_model(model)));
    }
    table
}

fn score_model(m: &ScoreModel) -> Table {
    let rows = [
        ("window_s", m.window_s),
        ("low", m.low),
        ("high", m.high),
        ("deviation", m.deviation),
        ("correlation", m.correlation),
        ("shortest_s", m.shortest_s),
        ("pause_s", m.pause_s),
        ("length_s", m.length_s),
        ("apart_s", m.apart_s),
        ("burst", m.burst),
        ("burst_s", m.burst_s),
        ("bursts_per_hour", m.bursts_per_hour),
        ("dropouts_per_hour", m.dropouts_per_hour),
    ];
    rows.into_iter().map(|(key, number)| (key, value(tidy(number)))).collect()
}

fn kind(kind: DecoderKind) -> &'static str {
    match kind {
        DecoderKind::Cusum => "cusum",
        DecoderKind::Hysteresis => "hysteresis",
        DecoderKind::Hmm => "hmm",
    }
}

fn tidy(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

/// What the report is about, beside the calibration.
#[derive(Clone, Debug)]
pub struct Occasion {
    /// Name and version of the package that was calibrated.
    pub package: String,
    /// Annotated videos.
    pub videos: usize,
    /// Groups that they form.
    pub groups: usize,
    /// Their length together.
    pub hours: f64,
    /// As asked for.
    pub objective: Objective,
    /// What was found in groups that had been left out; `None` when that was not tried.
    pub left_out: Option<Vec<(String, Quality)>>,
}

/// The report, in Markdown.
#[must_use]
pub fn report(calibration: &Calibration, occasion: &Occasion) -> String {
    let o = occasion;
    let mut text = format!(
        "# Calibration of {}\n\nOn {} videos of {} groups, {:.2} hours",
        o.package, o.videos, o.groups, o.hours
    );
    // Writing to a string cannot fail.
    let _ = match (calibration.labels.is_empty(), o.objective) {
        (true, _) => writeln!(text, ". Thresholds are those of the package."),
        (false, Objective::F1) => writeln!(text, ", for F1 at tIoU 0.5."),
        (false, Objective::Latency { false_per_day }) => {
            writeln!(text, ", for early begins and at most {false_per_day} false alarms a day.")
        }
    };
    if let Some(temperature) = calibration.temperature {
        let _ = writeln!(text, "\nTemperature: {}.", tidy(temperature));
    }
    if !calibration.kept.is_empty() {
        let _ = writeln!(text, "\nToo few actions to learn from, thresholds kept: {}.", calibration.kept.join(", "));
    }
    if !calibration.labels.is_empty() || o.left_out.is_some() {
        qualities(&mut text, calibration, o.left_out.as_deref().unwrap_or_default());
    }
    uncertainties(&mut text, calibration);
    if !calibration.labels.is_empty() {
        kinds(&mut text, calibration);
    }
    text
}

fn qualities(text: &mut String, calibration: &Calibration, left_out: &[(String, Quality)]) {
    let other = if left_out.is_empty() {
        ""
    } else {
        " \"Left out\" says how much: settings chosen on some of the groups, judged on the others."
    };
    let _ = writeln!(
        text,
        "\nFigures \"seen\" are of these videos, which the settings were chosen on: a package does worse elsewhere.{other}\n\n\
         | label | settings | actions | F1@.3 / .5 / .7 | false/h | start error s | end error s | start told after s, median / p90 |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for choice in &calibration.labels {
        let other = left_out.iter().find(|(label, _)| *label == choice.label).map(|(_, q)| q);
        let rows = [("before", Some(&choice.before)), ("after, seen", Some(&choice.after)), ("after, left out", other)];
        for (what, quality) in rows.into_iter().filter_map(|(what, q)| Some((what, q?))) {
            row(text, &named(choice), what, quality);
        }
    }
    let chosen = |label: &str| calibration.labels.iter().any(|c| c.label == label);
    for (label, quality) in left_out.iter().filter(|(label, _)| !chosen(label)) {
        row(text, &format!("`{label}`"), "after, left out", quality);
    }
}

fn uncertainties(text: &mut String, calibration: &Calibration) {
    let [begins, ends] = calibration.edges;
    let _ = writeln!(
        text,
        "\nNine true edges in ten lie within the stated uncertainty, from {begins} begins and {ends} ends:\n\n\
         | label | begin ms | end ms |\n|---|---|---|"
    );
    for label in &calibration.decoding.labels {
        let Some(p) = label.decoder else { continue };
        let more = if p.kind == DecoderKind::Hmm { "+ its own" } else { "" };
        let (begin, end) = (p.uncertainty_start_ms, p.uncertainty_end_ms);
        let _ = writeln!(text, "| `{}` | {begin} {more} | {end} {more} |", label.name);
    }
}

/// The label, and what it was judged by if that is another.
fn named(choice: &LabelChoice) -> String {
    if choice.label == choice.judged {
        return format!("`{}`", choice.label);
    }
    format!("`{}`, as `{}`", choice.label, choice.judged)
}

fn row(text: &mut String, label: &str, what: &str, q: &Quality) {
    let _ = writeln!(
        text,
        "| {label} | {what} | {} | {} | {} | {} | {} | {} / {} |",
        q.truth,
        f1(q),
        shown(q.false_per_hour, 2),
        shown(q.error_s[0], 2),
        shown(q.error_s[1], 2),
        shown(q.delay_s[0], 2),
        shown(q.delay_s[1], 2)
    );
}

fn kinds(text: &mut String, calibration: &Calibration) {
    let _ = writeln!(
        text,
        "\n## Kinds of decoder\n\nThe best settings of each kind, on the videos seen.\n\n\
         | label | kind | F1@.3 / .5 / .7 | false/h | start told after s | chosen |\n|---|---|---|---|---|---|"
    );
    for choice in &calibration.labels {
        let chosen = calibration.decoding.labels.iter().find(|l| l.name == choice.label).and_then(|l| l.decoder);
        for (params, q) in &choice.kinds {
            let mark = if chosen.is_some_and(|c| c.kind == params.kind) { "yes" } else { "" };
            let (false_per_hour, delay) = (shown(q.false_per_hour, 2), shown(q.delay_s[0], 2));
            let (label, kind, f1) = (named(choice), kind(params.kind), f1(q));
            let _ = writeln!(text, "| {label} | {kind} | {f1} | {false_per_hour} | {delay} | {mark} |");
        }
    }
}

fn f1(q: &Quality) -> String {
    q.f1.map(|f1| shown(f1, 3)).join(" / ")
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".into(), |v| format!("{v:.digits$}"))
}
