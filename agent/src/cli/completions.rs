//! `kinewatch completions`: scripts for shells.

use clap::CommandFactory;

use super::{Cli, CompletionsArgs, Outcome, print};

pub(super) fn run(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kinewatch", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}
