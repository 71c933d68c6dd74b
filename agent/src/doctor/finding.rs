//! What a check says: one line with a verdict.

use serde::Serialize;

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Not looked at, and why.
    Skip,
    /// It works, but somebody should know.
    Warn,
    /// It does not work.
    Fail,
}

impl Verdict {
    /// Every verdict, worst first.
    pub const ALL: [Self; 4] = [Self::Fail, Self::Warn, Self::Skip, Self::Ok];

    /// As it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skip => "skip",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check, one of a fixed list.
    pub check: &'static str,
    /// What was looked at where there may be several: a camera's or model's name, else empty.
    pub subject: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What is the matter; what to do. One line, never a password.
    pub message: String,
}

/// What a finding is about; makes findings.
#[derive(Clone, Debug)]
pub struct About {
    check: &'static str,
    subject: String,
}

impl About {
    /// A check that looks at one thing.
    #[must_use]
    pub fn check(check: &'static str) -> Self {
        Self { check, subject: String::new() }
    }

    /// A check of one of several things.
    #[must_use]
    pub fn one(check: &'static str, subject: &str) -> Self {
        Self { check, subject: subject.to_owned() }
    }

    /// As it should be.
    pub fn ok(&self, message: impl Into<String>) -> Finding {
        self.say(Verdict::Ok, message)
    }

    /// Not looked at.
    pub fn skip(&self, message: impl Into<String>) -> Finding {
        self.say(Verdict::Skip, message)
    }

    /// Works, but; the message ends with what to do.
    pub fn warn(&self, message: impl Into<String>) -> Finding {
        self.say(Verdict::Warn, message)
    }

    /// Does not work; the message ends with what to do.
    pub fn fail(&self, message: impl Into<String>) -> Finding {
        self.say(Verdict::Fail, message)
    }

    /// With any verdict.
    pub fn say(&self, verdict: Verdict, message: impl Into<String>) -> Finding {
        let message = message.into().split_whitespace().collect::<Vec<_>>().join(" ");
        Finding { check: self.check, subject: self.subject.clone(), verdict, message }
    }
}
