//! The configuration, as `check-config` sees it.

use crate::config::Severity;
use crate::doctor::{About, Context, Finding, Verdict};

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let report = &context.config;
    let shown = report.path.display().to_string();
    if report.problems.is_empty() {
        let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        let (cameras, models) = (report.parts.cameras.len(), report.parts.models.len());
        return vec![about.ok(format!("{shown}: {}, {}", count(cameras, "camera"), count(models, "model")))];
    }
    let one = |problem: &crate::config::Problem| {
        let verdict = if problem.severity == Severity::Error { Verdict::Fail } else { Verdict::Warn };
        let place = problem.at.map_or_else(String::new, |at| format!(":{at}"));
        about.say(verdict, format!("{shown}{place}: {}", problem.message))
    };
    report.problems.iter().map(one).collect()
}
