//! The figures as tables of text, for the terminal and the report alike.

use super::{Edge, Evaluation, Figure, Key, LEAST_GROUPS, LabelFigures, OFFSETS_S, Quantile, TIOUS};

/// A table: a row for each label, and one for all of them when there are several.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// First that of the labels' column.
    pub header: Vec<String>,
    pub rows: Vec<Vec<Text>>,
}

/// What stands in a cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Text {
    pub value: String,
    pub range: Option<String>,
}

/// What is found, how exactly and how late, and average precisions.
pub(super) fn tables(evaluation: &Evaluation) -> [Figures; 3] {
    [found(evaluation), exact(evaluation), precise(evaluation)]
}

fn found(evaluation: &Evaluation) -> Figures {
    let header = ["", "true", "detected", "found", "recall", "false/h", "F1@.3", "F1@.5", "F1@.7"];
    table(evaluation, header.map(str::to_owned).to_vec(), &evaluation.all.label, |row| {
        let counts = [row.truth, row.detections, row.found].map(count);
        let keys = [Key::Recall, Key::FalsePerHour, Key::F1(0.3), Key::F1(0.5), Key::F1(0.7)];
        counts.into_iter().chain(keys.map(|key| ranged(row.figure(key)))).collect()
    })
}

fn exact(evaluation: &Evaluation) -> Figures {
    let header = [
        "median / p90, s",
        "start error",
        "end error",
        "start decided after",
        "end decided after",
        "start covered",
        "end covered",
    ];
    table(evaluation, header.map(str::to_owned).to_vec(), &evaluation.all.label, |row| {
        let edges = [Edge::Start, Edge::End];
        let both = |make: fn(Edge, Quantile) -> Key, edge| {
            let [median, p90] = [Quantile::Median, Quantile::P90].map(|q| plain(row.figure(make(edge, q)).value));
            Text { value: format!("{median} / {p90}"), range: None }
        };
        let makes = [Key::Error as fn(Edge, Quantile) -> Key, Key::Delay];
        let times = makes.into_iter().flat_map(|make| edges.map(|edge| both(make, edge)));
        times.chain(edges.map(|edge| ranged(row.figure(Key::Covered(edge))))).collect()
    })
}

fn precise(evaluation: &Evaluation) -> Figures {
    let mut header = vec!["average precision".to_owned()];
    header.extend(TIOUS.map(|t| format!("tIoU {}", short(t))));
    header.push("mean".into());
    header.extend(OFFSETS_S.map(|s| format!("start ±{} s", short(s))));
    table(evaluation, header, "mean over labels", |row| {
        let keys = TIOUS.map(Key::Ap).into_iter().chain([Key::MeanAp]).chain(OFFSETS_S.map(Key::StartAp));
        keys.map(|key| ranged(row.figure(key))).collect()
    })
}

fn table(
    evaluation: &Evaluation,
    header: Vec<String>,
    all: &str,
    cells: impl Fn(&LabelFigures) -> Vec<Text>,
) -> Figures {
    let row = |name: &str, of: &LabelFigures| {
        let name = Text { value: name.to_owned(), range: None };
        std::iter::once(name).chain(cells(of)).collect()
    };
    let mut rows: Vec<Vec<Text>> = evaluation.labels.iter().map(|l| row(&l.label, l)).collect();
    if rows.len() > 1 {
        rows.push(row(all, &evaluation.all));
    }
    Figures { header, rows }
}

/// On what it was measured.
pub(super) fn basis(evaluation: &Evaluation) -> String {
    let Evaluation { package: (name, version), accel, videos, hours, groups, .. } = evaluation;
    let minutes = hours * 60.0;
    let [videos, groups] = [(*videos, "video"), (*groups, "group")].map(|(n, word)| counted(n, word));
    format!("{name} {version}, {accel}; {videos}, {minutes:.1} minutes, {groups}")
}

fn counted(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// What the ranges are.
pub(super) fn ranges(evaluation: &Evaluation) -> String {
    if evaluation.groups < LEAST_GROUPS {
        return format!("Fewer than {LEAST_GROUPS} groups: no intervals.");
    }
    format!("Below a figure: its 95 % interval, where {LEAST_GROUPS} groups or more have such actions.")
}

/// What of the latency is the machine's.
pub(super) fn latency(evaluation: &Evaluation) -> String {
    let Some(system) = evaluation.system else {
        return "Latency of the system: not measured, nothing was run.".into();
    };
    let (median, p95) = (system.median_ms, system.p95_ms);
    format!(
        "On top of \"decided after\", from frame to decision on this machine: median {median:.1} ms, p95 {p95:.1} ms."
    )
}

fn ranged(figure: Figure) -> Text {
    let range = figure.interval.map(|(low, high)| format!("{}–{}", plain(Some(low)), plain(Some(high))));
    Text { value: plain(figure.value), range }
}

fn count(number: usize) -> Text {
    Text { value: number.to_string(), range: None }
}

/// Two decimals, none from a hundred on; a dash where there is nothing.
pub(super) fn plain(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(value) if value.abs() >= 99.95 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn short(value: f64) -> String {
    value.to_string().trim_start_matches('0').to_owned()
}
