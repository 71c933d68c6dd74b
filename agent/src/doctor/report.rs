//! The report as it is printed: one line a finding, for a person or as JSON.

use std::io::IsTerminal;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::schedule::Timed;
use super::{Context, Verdict};

/// Everything that was found.
#[derive(Debug)]
pub struct Report {
    head: String,
    config: String,
    usable: bool,
    findings: Vec<Timed>,
}

/// Whether the report goes to a screen or into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// One line a finding, however long.
    Plain,
    /// In colours, folded to the width of the screen.
    Screen,
}

impl Looks {
    /// What suits standard output.
    #[must_use]
    pub fn of_stdout() -> Self {
        if std::io::stdout().is_terminal() { Self::Screen } else { Self::Plain }
    }
}

impl Report {
    pub(super) fn new(context: &Context, findings: Vec<Timed>) -> Self {
        let config = context.config.path.display().to_string();
        let version = env!("CARGO_PKG_VERSION");
        let who = &context.identity;
        let user = if who.is_us { format!("user {}", who.name) } else { format!("for the user {}", who.name) };
        let board = crate::board::model(&context.root).map_or_else(String::new, |board| format!(", {board}"));
        let head = format!("kinewatch {version} doctor, {config}, {user}{board}");
        Self { head, config, usable: context.config.is_ok(), findings }
    }

    /// Whether the configuration can be used at all.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.usable
    }

    /// How many findings have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|t| t.finding.verdict == verdict).count()
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> usize {
        self.findings.len()
    }

    /// The report for a person.
    #[must_use]
    pub fn text(&self, looks: Looks) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if looks == Looks::Screen {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        let colours = looks == Looks::Screen && std::env::var_os("NO_COLOR").is_none();
        for Timed { finding, .. } in &self.findings {
            let verdict = Cell::new(finding.verdict.name());
            let subject = format!("{} {}", finding.check, finding.subject);
            table.add_row(vec![
                if colours { coloured(verdict, finding.verdict) } else { verdict },
                Cell::new(subject.trim_end()),
                Cell::new(&finding.message),
            ]);
        }
        // Two blanks between columns, none before the first.
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines = table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n");
        format!("{}\n\n{lines}\n\n{}", self.head, self.summary())
    }

    /// How many of each, in words.
    #[must_use]
    pub fn summary(&self) -> String {
        let (fail, warn, skip, ok) =
            (self.count(Verdict::Fail), self.count(Verdict::Warn), self.count(Verdict::Skip), self.count(Verdict::Ok));
        let plural = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        let mut parts = vec![format!("{ok} ok")];
        parts.extend((warn > 0).then(|| plural(warn, "warning")));
        parts.extend((fail > 0).then(|| plural(fail, "failure")));
        parts.extend((skip > 0).then(|| format!("{skip} skipped")));
        parts.join(", ")
    }

    /// The report for a program.
    #[must_use]
    pub fn json(&self) -> Value {
        let one = |t: &Timed| {
            json!({
                "check": t.finding.check, "subject": t.finding.subject, "verdict": t.finding.verdict,
                "message": t.finding.message, "took_ms": t.took.as_millis() as u64,
            })
        };
        let counts: serde_json::Map<String, Value> =
            Verdict::ALL.iter().map(|v| (v.name().to_owned(), self.count(*v).into())).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"), "config": self.config, "usable": self.usable,
            "ok": self.count(Verdict::Fail) == 0, "counts": counts,
            "checks": self.findings.iter().map(one).collect::<Vec<_>>(),
        })
    }
}

fn coloured(cell: Cell, verdict: Verdict) -> Cell {
    match verdict {
        Verdict::Ok => cell.fg(Color::Green),
        Verdict::Skip => cell.add_attribute(Attribute::Dim),
        Verdict::Warn => cell.fg(Color::Yellow).add_attribute(Attribute::Bold),
        Verdict::Fail => cell.fg(Color::Red).add_attribute(Attribute::Bold),
    }
}
