//! Judges what a subscriber has heard: reads lines of topic<TAB>payload from a file, prints the verdict, and fails unless every
//! promise of the event format was kept. The judge of the tests, for scripts.
//!
//! ```sh
//! judge messages.txt
//! ```
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "the judge is the tests' own")]

#[path = "../../tests/support/check.rs"]
mod check;

use std::io::BufRead;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: judge FILE");
        return ExitCode::from(2);
    };
    let file = match std::fs::File::open(&path) {
        Ok(file) => std::io::BufReader::new(file),
        Err(error) => {
            eprintln!("judge: {}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let mut checker = check::Checker::default();
    file.lines().map_while(Result::ok).for_each(|line| checker.line(&line));
    let verdict = checker.verdict(check::Closure::Required);
    println!(
        "{} messages, {} actions, {} ended ({:?})",
        verdict.messages, verdict.actions, verdict.ended, verdict.reasons
    );
    println!("{} holes, {} faults", verdict.holes, verdict.faults);
    verdict.examples.iter().for_each(|example| println!("{example}"));
    ExitCode::from(u8::from(verdict.messages == 0 || verdict.faults > 0 || verdict.holes > 0))
}
