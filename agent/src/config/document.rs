//! The text of a configuration file with the place of every key and value in it.
//!
//! Never looks at what a value means. Positions are 1-based lines and columns, columns counted in characters.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A step on the way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seg {
    /// A key of a table.
    Key(String),
    /// An element of an array.
    Index(usize),
}

impl From<&str> for Seg {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Seg {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// The way to a value, such as `camera[1].source`, from keys and indices.
macro_rules! key {
    ($($seg:expr),* $(,)?) => { [$($crate::config::document::Seg::from($seg)),*] };
}
pub(crate) use key;

/// 1-based place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but somebody should know.
    Warning,
}

/// Something wrong at a place of the file.
#[derive(Clone, Debug)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// Where; `None` when the file could not be read at all.
    pub at: Option<Position>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Problem {
    /// `FILE:LINE:COLUMN: message`, the form editors jump to.
    pub fn render(&self, file: &str) -> String {
        let kind = if self.severity == Severity::Warning { "warning: " } else { "" };
        match self.at {
            Some(at) => format!("{file}:{}:{}: {kind}{}", at.line, at.column, self.message),
            None => format!("{file}: {kind}{}", self.message),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A parsed file. Parsing recovers from syntax errors, so that all of them are told at once.
pub(crate) struct Document<'t> {
    text: &'t str,
    root: DeTable<'t>,
}

impl<'t> Document<'t> {
    /// Parses; a problem for each syntax error.
    pub(crate) fn parse(text: &'t str) -> (Self, Vec<Problem>) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let document = Self { text, root: root.into_inner() };
        let problems = errors
            .into_iter()
            .map(|e| {
                let at = e.span().map_or(Position { line: 1, column: 1 }, |s| document.position(s.start));
                let message = format!("not TOML: {}", one_line(e.message()));
                Problem { severity: Severity::Error, at: Some(at), message }
            })
            .collect();
        (document, problems)
    }

    /// The whole file as a table.
    pub(crate) fn root(&self) -> &DeTable<'t> {
        &self.root
    }

    /// Where `path` is written: its value, or the nearest table around it.
    pub(crate) fn locate(&self, path: &[Seg]) -> Position {
        let mut best = 0..0;
        let mut table = Some(&self.root);
        let mut array = None;
        for seg in path {
            let next: Option<&Spanned<DeValue<'t>>> = match seg {
                Seg::Key(key) => table.and_then(|t| t.get(key.as_str())),
                Seg::Index(index) => array.and_then(|a: &toml::de::DeArray<'t>| a.get(*index)),
            };
            let Some(value) = next else { break };
            let span = value.span();
            if !span.is_empty() {
                best = span;
            }
            table = value.get_ref().as_table();
            array = value.get_ref().as_array();
        }
        self.position(best.start)
    }

    /// Where a span begins.
    pub(crate) fn position_of(&self, span: &Range<usize>) -> Position {
        self.position(span.start)
    }

    fn position(&self, offset: usize) -> Position {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        Position { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// Joins the lines of a message and drops the parser's habit of a trailing full stop.
pub(crate) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
