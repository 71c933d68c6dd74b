//! The `kinewatch` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    kinewatch::cli::run()
}
