//! What can be wrong with a manifest, in one line that says what to do.

/// Why a `model.toml` (or an override of it) is refused. Every message names the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, a missing key, or a value of another type.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// Of the parser, on one line.
        message: String,
    },
    /// A key that format 1 does not have.
    #[error("line {line}, column {column}: unknown key `{key}`{}", suggestion(.nearest))]
    UnknownKey {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// As written.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A value that cannot be right.
    #[error("{key}: {problem}")]
    Invalid {
        /// Path of the key, such as `labels[1].decoder.on`.
        key: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
}

impl ManifestError {
    pub(super) fn invalid(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { key: key.into(), problem: problem.into() }
    }
}

fn suggestion(nearest: &Option<String>) -> String {
    match nearest {
        Some(key) => format!("; did you mean `{key}`?"),
        None => "; remove it".to_owned(),
    }
}

/// Gives a parser's error its line and column, and an unknown key its nearest known one.
pub(super) fn from_toml(text: &str, error: &toml::de::Error) -> ManifestError {
    let (line, column) = position(text, error.span().map_or(0, |s| s.start));
    let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    let Some(rest) = message.strip_prefix("unknown field ") else {
        return ManifestError::Syntax { line, column, message };
    };
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let key = quoted.next().unwrap_or_default().to_owned();
    ManifestError::UnknownKey { line, column, nearest: nearest(&key, quoted), key }
}

/// The candidate most like `word`, when any is like it at all.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|c| (strsim::jaro_winkler(word, c), c))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c.to_owned())
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
