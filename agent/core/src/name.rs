//! Names that appear in topics, identifiers and file names.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest [`Name`].
pub const MAX_NAME: usize = 64;

/// A name of 1 to 64 characters of `a-z`, `0-9`, `_` and `-`: safe in an MQTT topic, a path, a metric label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: use 1 to 64 characters of a-z, 0-9, _ and -, for example {1:?}")]
pub struct NameError(String, String);

impl Name {
    /// Checks the text.
    ///
    /// # Errors
    /// Empty, longer than 64 bytes, or with another character; the error proposes a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(NameError(text.to_owned(), slug(text))) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether the text is a valid [`Name`].
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(allowed)
}

/// The name that replay gives a file stem: lower case, every character outside `[a-z0-9_-]` becomes `-`; cut at 64.
#[must_use]
pub fn slug(text: &str) -> String {
    let keep = |c: char| if c.is_ascii() && allowed(c as u8) { c } else { '-' };
    let name: String = text.to_lowercase().chars().map(keep).take(MAX_NAME).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

fn allowed(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-'
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_proposed() {
        assert_eq!(Name::parse("front-door_2").unwrap().as_str(), "front-door_2");
        let error = Name::parse("Front Door").unwrap_err().to_string();
        assert!(error.contains("\"front-door\""), "{error}");
        assert!(Name::parse("").is_err());
        assert!(Name::parse(&"a".repeat(65)).is_err());
    }

    #[test]
    fn slug_is_the_stem_rule_of_the_contract() {
        assert_eq!(slug("Fall 01.CAM_a"), "fall-01-cam_a");
        assert_eq!(slug("Sturz-Übung"), "sturz--bung");
        assert_eq!(slug(""), "-");
    }
}
